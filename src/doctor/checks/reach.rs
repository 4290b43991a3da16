//! Ways in from elsewhere: the proxy's door, containers, IPv6.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::{
        Finding,
        facts::{Facts, Program},
    },
    ports::said,
};

/// The door of `portico proxy`.
pub(in super::super) fn proxy(facts: &Facts) -> Finding {
    const CHECK: &str = "proxy";
    let door = &facts.door;
    match &door.failure {
        None => Finding::ok(CHECK, format!("{} is free for `portico proxy`", door.addr)),
        Some(_) if facts.is_door_ours => Finding::ok(CHECK, format!("{} is open", door.addr)),
        Some(failure) => Finding::warn(
            CHECK,
            format!(
                "{}: `portico proxy` takes the next free port",
                said(door.addr, failure)
            ),
        )
        .fix(&*failure.fix),
    }
}

/// Containers on a bridge.
pub(in super::super) fn containers(facts: &Facts) -> Finding {
    const CHECK: &str = "containers";
    let containers = &facts.containers;
    let Some(engine) = containers.engines.first() else {
        return Finding::ok(CHECK, "no engine is there (no socket of docker or podman)");
    };
    let Some((bridge, gateway)) = containers.gateways.first() else {
        return Finding::warn(
            CHECK,
            format!("{engine} runs, and no bridge of it has an address here: its network is not this machine's"),
        )
        .fix("network_mode: host, or portico in a container and `network_mode: service:portico` (README, \"From a container\")");
    };
    let served = node_ports(facts);
    let is_served = |addr: &SocketAddr| addr.ip().is_unspecified() || addr.ip() == *gateway;
    if served.is_empty() || served.iter().any(is_served) {
        let now = if served.is_empty() {
            ", once there are any"
        } else {
            ""
        };
        return Finding::ok(
            CHECK,
            format!(
                "{engine}: containers reach NodePorts at {gateway} ({bridge}) or host.docker.internal{now}"
            ),
        );
    }
    Finding::no(
        CHECK,
        format!("{engine}: containers would reach NodePorts at {gateway} ({bridge}), and --nodeport-addresses leaves it out"),
    )
    .fix(format!("portico up --nodeport-addresses 127.0.0.0/8,{gateway}/32"))
}

/// Where the running program serves node ports.
fn node_ports(facts: &Facts) -> Vec<SocketAddr> {
    let Program::Running(status) = &facts.program else {
        return Vec::new();
    };
    let ports = status.services.iter().flat_map(|service| &service.ports);
    let places = ports.flat_map(|port| &port.reachable);
    let node_ports = places.filter(|place| place.kind == "NodePort");
    node_ports.filter_map(|place| place.bound).collect()
}

/// Addresses of the second family.
pub(in super::super) fn ipv6(facts: &Facts) -> Finding {
    const CHECK: &str = "ipv6";
    match crate::host::no_ipv6(&facts.host) {
        None => {
            let first = facts.host.iter().find(|addr| addr.is_ipv6());
            let first = first.copied().unwrap_or(IpAddr::from([0_u16; 8]));
            Finding::ok(CHECK, format!("this host has IPv6 addresses ({first})"))
        }
        Some(text) => with_fix(CHECK, &text),
    }
}

/// A warning whose fix stands on its second line.
pub(super) fn with_fix(check: &'static str, text: &str) -> Finding {
    let (text, fix) = text.split_once("\n  fix: ").unwrap_or((text, ""));
    Finding::warn(check, text).fix(fix)
}
