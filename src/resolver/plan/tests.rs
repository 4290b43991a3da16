//! What is written on which machine, and what is typed on the others.

use std::path::Path;

use super::*;

fn wanted(dns: &str) -> Wanted {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Wanted {
        dns: dns.parse().unwrap(),
        zones: words(&[
            "cluster.local",
            "svc.local",
            "96.127.in-addr.arpa",
            "96.10.in-addr.arpa",
        ]),
        search: words(&[
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ]),
    }
}

/// A machine with this in resolv.conf, as Debian looks names up.
fn machine(resolv_conf: &str) -> Facts {
    Facts {
        resolv_conf: resolv_conf.to_owned(),
        nsswitch: Some("hosts: files dns\n".to_owned()),
        ..Facts::default()
    }
}

/// One with systemd-resolved.
fn resolved(version: Option<u32>) -> Facts {
    Facts {
        resolved_runs: true,
        systemd: version,
        ..machine("nameserver 127.0.0.53\n")
    }
}

#[test]
fn plan_with_resolved_sends_our_zones_and_no_more() {
    let found = plan(&resolved(Some(252)), &wanted("127.96.0.10:10053")).unwrap();
    assert_eq!(
        (found.way, &*found.path),
        (Way::Resolved, Path::new(RESOLVED_FILE))
    );
    // Never `~.` nor `~local`; of loopback addresses systemd-resolved asks nobody.
    assert!(
        found.content.ends_with(
            "\n[Resolve]\nDNS=127.96.0.10:10053\nDomains=~cluster.local ~svc.local ~96.10.in-addr.arpa\n"
        ),
        "{}",
        found.content
    );
    assert!(found.content.starts_with(INSTALLED));
    assert_eq!(
        found.command.unwrap(),
        ["systemctl", "restart", "systemd-resolved.service"]
    );
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn plan_with_an_old_resolved_wants_port_53() {
    let refusal = plan(&resolved(Some(245)), &wanted("127.96.0.10:10053")).unwrap_err();
    assert!(
        refusal
            .reason
            .contains("since systemd 246: this one is 245"),
        "{refusal}"
    );
    assert!(refusal.recipe.contains("setcap"), "{refusal}");
    for (version, dns) in [(Some(245), "127.96.0.10:53"), (None, "127.96.0.10:10053")] {
        plan(&resolved(version), &wanted(dns)).unwrap();
    }
    let old = plan(&resolved(Some(245)), &wanted("127.96.0.10:53")).unwrap();
    assert!(old.content.contains("DNS=127.96.0.10\n"), "{}", old.content);
    let six = plan(&resolved(Some(260)), &wanted("[fd00::10]:10053")).unwrap();
    assert!(
        six.content.contains("DNS=[fd00::10]:10053\n"),
        "{}",
        six.content
    );
}

#[test]
fn plan_with_resolved_that_does_not_run_says_how_to_start_it() {
    let facts = Facts {
        resolved_runs: false,
        ..resolved(Some(252))
    };
    let refusal = plan(&facts, &wanted("127.96.0.10:53")).unwrap_err();
    assert!(
        refusal
            .to_string()
            .contains("systemctl start systemd-resolved"),
        "{refusal}"
    );
}

#[test]
fn plan_warns_of_other_global_servers_unless_they_are_taken_back() {
    let check = |settings: &[(&str, &str)], expected: Option<&str>| {
        let settings = settings.iter();
        let facts = Facts {
            resolved_settings: settings
                .map(|(file, text)| (file.into(), (*text).to_owned()))
                .collect(),
            ..resolved(Some(252))
        };
        let warnings = plan(&facts, &wanted("127.96.0.10:53")).unwrap().warnings;
        match expected {
            Some(words) => assert!(warnings[0].contains(words), "{warnings:?}"),
            None => assert_eq!(warnings, [""; 0]),
        }
    };
    check(
        &[("/etc/systemd/resolved.conf", "[Resolve]\n#DNS=1.1.1.1\n")],
        None,
    );
    let main = ("/etc/systemd/resolved.conf", "[Resolve]\nDNS=1.1.1.1\n");
    check(&[main], Some("resolved.conf has DNS=1.1.1.1"));
    check(
        &[
            main,
            ("/etc/systemd/resolved.conf.d/vpn.conf", "[Resolve]\nDNS=\n"),
        ],
        None,
    );
}

#[test]
fn plan_by_hand_names_us_alone_and_keeps_the_machines_search_list() {
    let facts =
        machine("nameserver 10.0.0.1\nsearch corp.example svc.cluster.local\noptions rotate\n");
    let found = plan(&facts, &wanted("127.96.0.10:53")).unwrap();
    assert_eq!(
        (found.way, &*found.path),
        (Way::ResolvConf, Path::new("/etc/resolv.conf"))
    );
    let lines: Vec<_> = found
        .content
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        lines,
        [
            "nameserver 127.96.0.10",
            "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example",
            "options ndots:2 timeout:2 attempts:2",
        ]
    );
    assert!(found.content.starts_with(INSTALLED));
    assert!(
        found.warnings[0].contains("no name resolves"),
        "{:?}",
        found.warnings
    );
    let refusal = plan(&facts, &wanted("127.96.0.10:10053")).unwrap_err();
    assert!(refusal.reason.contains("cannot name a port"), "{refusal}");
}

#[test]
fn plan_where_no_program_asks_dns_says_what_to_add() {
    let facts = Facts {
        nsswitch: Some("hosts: files myhostname\n".to_owned()),
        ..machine("nameserver 10.0.0.1\n")
    };
    let refusal = plan(&facts, &wanted("127.96.0.10:53")).unwrap_err();
    assert!(
        refusal.reason.contains("'hosts: files myhostname'"),
        "{refusal}"
    );
    let without = Facts {
        nsswitch: None,
        ..facts
    };
    plan(&without, &wanted("127.96.0.10:53")).unwrap();
}

#[test]
fn plan_warns_of_modules_that_keep_local_names() {
    let with = |hosts: &str| {
        let facts = Facts {
            nsswitch: Some(format!("hosts: {hosts}\n")),
            ..resolved(Some(252))
        };
        plan(&facts, &wanted("127.96.0.10:53")).unwrap().warnings
    };
    assert!(with("files mdns4 [NOTFOUND=return] dns")[0].contains("'mdns4_minimal'"));
    assert_eq!(with("files mdns4_minimal [NOTFOUND=return] dns"), [""; 0]);
}

/// What the file says first, and what the recipe has.
const RECIPES: &[(&str, &[&str])] = &[
    (
        "# Generated by NetworkManager",
        &[
            "dns=dnsmasq",
            "server=/cluster.local/127.96.0.10#53\\nserver=/svc.local/127.96.0.10#53\\n",
            "restart NetworkManager",
        ],
    ),
    (
        "# generated by resolvconf(8)",
        &[UPSTREAMS, "resolvconf -a lo.portico"],
    ),
    (
        "# Generated by resolvconf",
        &[UPSTREAMS, "resolvconf -x -a lo.portico"],
    ),
    (
        "; generated by /sbin/dhclient-script",
        &[UPSTREAMS, "supersede domain-name-servers 127.96.0.10;"],
    ),
    (
        "# Generated by dhcpcd from eth0",
        &[UPSTREAMS, "static domain_name_servers=127.96.0.10"],
    ),
    (
        "### autogenerated by netconfig!",
        &[UPSTREAMS, "NETCONFIG_DNS_STATIC_SERVERS=\"127.96.0.10\""],
    ),
    (
        "# automatically generated by WSL.",
        &["generateResolvConf = false"],
    ),
    (
        "# generated by tailscale",
        &["tailscale set --accept-dns=false"],
    ),
    (
        "# Generated by Connection Manager",
        &[
            UPSTREAMS,
            "# Generated by Connection Manager",
            "127.96.0.10 as its only server",
        ],
    ),
    (
        "# This is managed by man:systemd-resolved(8).",
        &["stub-resolv.conf"],
    ),
];
const UPSTREAMS: &str = "portico up --dns-upstream 10.0.0.1 --dns-upstream 10.0.0.2";

#[test]
fn recipes_name_the_address_and_leave_portico_somebody_to_ask() {
    let servers = "nameserver 10.0.0.1\nnameserver 10.0.0.2\n";
    for (comment, expected) in RECIPES {
        let facts = machine(&format!("{comment}\n{servers}"));
        let text = plan(&facts, &wanted("127.96.0.10:53"))
            .unwrap_err()
            .to_string();
        for words in *expected {
            assert!(text.contains(words), "{comment}: {words} is not in\n{text}");
        }
    }
    let mounted = Facts {
        is_mounted: true,
        ..machine(servers)
    };
    let text = plan(&mounted, &wanted("127.96.0.10:53"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("--dns 127.96.0.10"), "{text}");
}

#[test]
fn recipe_where_dnsmasq_runs_already_is_its_file_alone() {
    let facts = Facts {
        network_manager: "[main]\n dns=dnsmasq\n".to_owned(),
        ..machine("# Generated by NetworkManager\nnameserver 127.0.0.1\n")
    };
    let text = plan(&facts, &wanted("127.96.0.10:10053"))
        .unwrap_err()
        .recipe;
    assert!(!text.contains("dns=dnsmasq"), "{text}");
    assert!(
        text.contains("server=/cluster.local/127.96.0.10#10053"),
        "{text}"
    );
}
