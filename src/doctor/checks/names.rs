//! Names: where our DNS answers, and whether the operating system's resolver knows of it.

use super::{
    super::{
        Finding,
        facts::{Facts, Program},
    },
    ports::said,
};

/// DNS on port 53.
pub(in super::super) fn dns(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "dns";
    let Program::Running(status) = &facts.program else {
        return dns_without_program(facts);
    };
    let findings = status
        .dns
        .iter()
        .map(|dns| match (dns.bound, &dns.problem) {
            (Some(bound), None) => Finding::ok(CHECK, format!("answered at {bound}, UDP and TCP")),
            (Some(bound), Some(problem)) => Finding::warn(
                CHECK,
                format!("answered at {bound} and not {}: {problem}", dns.wanted),
            )
            .fix(dns.fix.as_deref().unwrap_or_default()),
            (None, problem) => Finding::no(
                CHECK,
                format!(
                    "not answered at {}: {}",
                    dns.wanted,
                    problem.as_deref().unwrap_or("unknown")
                ),
            )
            .fix(dns.fix.as_deref().unwrap_or_default()),
        });
    findings.collect()
}

fn dns_without_program(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "dns";
    let Some(first) = facts.dns.first() else {
        return Vec::new();
    };
    let mut failed = facts.dns.iter();
    let failed = failed.find_map(|tried| Some((tried, tried.failure.as_ref()?)));
    vec![match failed {
        None => Finding::ok(CHECK, format!("{} is free, UDP and TCP", first.addr)),
        Some((tried, failure)) => Finding::warn(
            CHECK,
            format!(
                "{} {}: it would be answered at port 10053",
                tried.protocol,
                said(tried.addr, failure)
            ),
        )
        .fix(&*failure.fix),
    }]
}

/// Whether any program of this machine resolves our names; nothing without a program that could be asked.
pub(in super::super) fn names(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "names";
    let (lookup, wanted) = facts.our_name.as_ref()?;
    let name = &lookup.name;
    let warning = match &lookup.answer {
        Ok(addrs) if addrs.iter().any(|addr| wanted.contains(addr)) => {
            let text = format!("this machine's resolver knows {name}, so every program does");
            return Some(Finding::ok(CHECK, text));
        }
        Ok(addrs) => {
            let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
            format!(
                "this machine's resolver has {} for {name}, which is not ours",
                addrs.join(", ")
            )
        }
        Err(why) => format!("this machine's resolver does not know {name}: {why}"),
    };
    Some(
        Finding::warn(CHECK, warning)
            .fix(format!("sudo {} dns install", facts.binary))
            .fix("portico run -- PROGRAM  # names and addresses for one program, without root"),
    )
}

/// `*.localhost`, by which the proxy's door is used with nothing set up.
pub(in super::super) fn localhost(facts: &Facts) -> Finding {
    const CHECK: &str = "localhost";
    let lookup = &facts.localhost_name;
    let name = &lookup.name;
    let warning = match &lookup.answer {
        Ok(addrs) if addrs.iter().all(std::net::IpAddr::is_loopback) && !addrs.is_empty() => {
            return Finding::ok(
                CHECK,
                format!("every program takes {name} for this machine"),
            );
        }
        Ok(_) => format!("{name} leads to another machine, but for curl and browsers"),
        Err(why) => format!("only curl and browsers know {name}, by themselves: {why}"),
    };
    let fix = if facts.is_debian {
        "sudo apt-get install libnss-myhostname"
    } else {
        "sudo authselect enable-feature with-myhostname (or `myhostname` in the line `hosts:` of /etc/nsswitch.conf)"
    };
    Finding::warn(CHECK, warning).fix(fix)
}
