//! The choice of endpoints by port and family, as the Snapshot has it. Owns its rendering only: what is chosen was
//! decided when the Snapshot was compiled.

use portico_core::{
    balance::EndpointSet,
    object::{Protocol, app_protocol::spoken, service::IpFamily},
    snapshot::{ClientPlace, FrontendKind, PortView, ServiceView, Verdict},
};

use super::model::{Answer, PortVerdict, Verdicts};

/// A Service port in words: its name, else `80/TCP`.
pub(super) fn label(name: &str, number: u16, protocol: Protocol) -> String {
    if name.is_empty() {
        format!("{number}/{protocol}")
    } else {
        name.to_owned()
    }
}

/// Every port of `service`, in the order of the manifest, IPv4 first.
pub(super) fn of(service: &ServiceView) -> Vec<PortVerdict> {
    let ports = service.ports.iter().enumerate();
    ports
        .map(|(index, port)| {
            let mut frontends = service.frontends.iter();
            let is_external = frontends.any(|(_, kind, of)| *of == index && kind.is_external());
            verdict(port, is_external, has_endpoints(service, port))
        })
        .collect()
}

fn verdict(port: &PortView, is_external: bool, has_endpoints: bool) -> PortVerdict {
    // Without any endpoint there is no choice to be made under policy Cluster.
    let cluster = port.cluster.as_ref().filter(|_| has_endpoints);
    let cluster = cluster.map(|set| addresses(set));
    let local = port.local.as_ref().map(|set| addresses(set));
    let mut reachable: Vec<String> = cluster.iter().chain(&local).flatten().cloned().collect();
    reachable.sort_unstable();
    reachable.dedup();
    let answer = |kind, place| match port.verdict(kind, place) {
        Verdict::Forward(_) => Answer::Forward,
        Verdict::Refuse if port.app.protocol.is_http() => Answer::Unavailable,
        Verdict::Refuse => Answer::Refuse,
        Verdict::Drop => Answer::Drop,
    };
    let external = |place| is_external.then(|| answer(FrontendKind::NodePort, place));
    PortVerdict {
        port: label(&port.name.port, port.number, port.name.protocol),
        family: family(port.family).to_owned(),
        speaks: spoken(port.name.protocol, &port.app),
        cluster,
        local,
        reachable,
        any: port.any,
        verdict: Verdicts {
            internal: answer(FrontendKind::ClusterIP, ClientPlace::OnNode),
            external: external(ClientPlace::Elsewhere),
            external_from_node: external(ClientPlace::OnNode),
        },
    }
}

/// Whether a slice has an endpoint for this port, in whatever condition.
fn has_endpoints(service: &ServiceView, port: &PortView) -> bool {
    service.slices.iter().any(|slice| {
        let mut ports = slice.ports.iter();
        let joins = ports.any(|of| {
            of.name == port.name.port && of.protocol == port.name.protocol && of.port.is_some()
        });
        let mut addresses = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.address);
        joins && addresses.any(|address| IpFamily::of(address) == port.family)
    })
}

fn addresses(set: &EndpointSet) -> Vec<String> {
    let endpoints = set.endpoints().iter();
    let mut addresses: Vec<String> = endpoints
        .map(|endpoint| endpoint.addr.to_string())
        .collect();
    addresses.sort_unstable();
    addresses
}

/// As manifests spell it.
pub(super) const fn family(family: IpFamily) -> &'static str {
    match family {
        IpFamily::IPv4 => "IPv4",
        IpFamily::IPv6 => "IPv6",
    }
}
