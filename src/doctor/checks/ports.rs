//! Sockets at Services' addresses: whether loopback addresses and low ports can be bound, and who is in the way.

use std::{collections::BTreeMap, fmt::Write as _, io::ErrorKind};

use super::super::{
    Finding, Verdict,
    facts::{Facts, Failure, Missing, Program, Services},
};

/// Ports that are named one by one.
const MOST: usize = 10;

/// Addresses of 127/8.
pub(in super::super) fn addresses(facts: &Facts) -> Finding {
    const CHECK: &str = "addresses";
    let addr = facts.loopback.addr.ip();
    match &facts.loopback.failure {
        None => Finding::ok(
            CHECK,
            format!("{addr} can be bound and reached, as all of 127.0.0.0/8"),
        ),
        Some(failure) => Finding::no(CHECK, format!("{addr}: {}", failure.text)).fix(&*failure.fix),
    }
}

/// Ports below 1024.
pub(in super::super) fn low_ports(facts: &Facts) -> Finding {
    const CHECK: &str = "low ports";
    let low = &facts.low_port;
    let privilege = &facts.privilege;
    let Some(failure) = &low.failure else {
        let why = match privilege.unprivileged_ports_from {
            _ if privilege.may_bind => "CAP_NET_BIND_SERVICE".to_owned(),
            Some(first) => format!("net.ipv4.ip_unprivileged_port_start={first}"),
            None => "the system".to_owned(),
        };
        return Finding::ok(CHECK, format!("{} can be bound, by {why}", low.addr));
    };
    if failure.kind != ErrorKind::PermissionDenied {
        return Finding::warn(
            CHECK,
            format!("could not be tried: {}", said(low.addr, failure)),
        )
        .fix(&*failure.fix);
    }
    let first = privilege.unprivileged_ports_from.unwrap_or(1024);
    let mut text = format!(
        "{}: {}: ports below {first} are served 10000 higher",
        low.addr, failure.text
    );
    let setcap = format!("sudo setcap cap_net_bind_service=+ep {}", facts.binary);
    let by_file = if privilege.no_new_privs {
        text.push_str("; no privilege can be had from a file here (no_new_privs)");
        String::new()
    } else if privilege.file_may_bind {
        text.push_str(
            "; the file has cap_net_bind_service, and the kernel does not heed it (mounted with nosuid, or a namespace)",
        );
        String::new()
    } else {
        format!("{setcap}  # this file, until it is built again")
    };
    Finding::warn(CHECK, text)
        .fix("sudo sysctl net.ipv4.ip_unprivileged_port_start=53  # all programs, until reboot")
        .fix(by_file)
}

/// Ports of Services that cannot be had.
pub(in super::super) fn ports(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let (missing, all, whose) = match &facts.services {
        Services::Unknown if matches!(facts.program, Program::Silent(_)) => return Vec::new(),
        Services::Unknown => return vec![wildcards(facts)],
        Services::Running { missing, all } => (missing, all, "the running program's"),
        Services::Declared { missing, all } => (missing, all, "declared"),
    };
    if missing.is_empty() {
        return vec![Finding::ok(
            CHECK,
            format!("all of {all} {whose} addresses and ports can be had"),
        )];
    }
    // Those that the same is to be said of together, the ones that nothing stands in for first.
    let mut alike: BTreeMap<_, Vec<&Missing>> = BTreeMap::new();
    for port in missing.iter().take(MOST) {
        let said = (port.instead.is_some(), &port.why, &port.holder, &*port.fix);
        alike.entry(said).or_default().push(port);
    }
    let findings = alike.into_iter().map(|((_, why, holder, fix), ports)| {
        let named = ports
            .iter()
            .map(|of| format!("{} ({})", of.addr, of.service));
        let mut text = format!("{}: {why}", named.collect::<Vec<_>>().join(", "));
        if let Some(holder) = holder {
            let _ = write!(text, ", {holder}");
        }
        let instead: Vec<String> = ports
            .iter()
            .filter_map(|of| Some(of.instead?.to_string()))
            .collect();
        let (result, end) = if instead.is_empty() {
            (Verdict::No, "not served".to_owned())
        } else {
            (Verdict::Warn, format!("served at {}", instead.join(", ")))
        };
        Finding::new(CHECK, result, format!("{text}; {end}")).fix(fix)
    });
    let more = missing.len().saturating_sub(MOST);
    let rest = (more > 0).then(|| {
        let worst = missing.iter().skip(MOST).any(|port| port.instead.is_none());
        let result = if worst { Verdict::No } else { Verdict::Warn };
        Finding::new(CHECK, result, format!("{more} more of {all} cannot be had"))
            .fix("portico status  # lists all")
    });
    findings.chain(rest).collect()
}

/// Without Services to look at: who would be in the way of some.
fn wildcards(facts: &Facts) -> Finding {
    const CHECK: &str = "ports";
    if facts.wildcards.is_empty() {
        return Finding::ok(
            CHECK,
            "nobody listens on a wildcard address, which would take its port from all addresses",
        );
    }
    let mut listed: Vec<String> = facts
        .wildcards
        .iter()
        .take(MOST)
        .map(|(port, who)| format!("{port} ({who})"))
        .collect();
    let more = facts.wildcards.len().saturating_sub(MOST);
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    Finding::ok(
        CHECK,
        format!(
            "wildcard listeners have these, and Services with them are served 10000 higher: {}; `portico doctor -f \
             FOLDER` looks at yours",
            listed.join(", ")
        ),
    )
}

/// The address, why not, and who is in the way.
pub(super) fn said(addr: std::net::SocketAddr, failure: &Failure) -> String {
    match &failure.holder {
        Some(holder) => format!("{addr}: {}, {holder}", failure.text),
        None => format!("{addr}: {}", failure.text),
    }
}
