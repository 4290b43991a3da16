//! Each check on facts that no machine need have.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
};

use super::{
    Facts, Finding, Verdict, examine,
    facts::{
        Attempt, Containers, Failure, Limits, Lookup, Missing, Namespaces, Privilege, Program,
        Refusal, Services,
    },
};
use crate::{
    control::status::{DnsStatus, Status},
    host::routes::Left,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn attempt(text: &str, failure: Option<(ErrorKind, &str)>) -> Attempt {
    Attempt {
        protocol: "TCP",
        addr: addr(text),
        failure: failure.map(|(kind, fix)| Failure {
            kind,
            text: std::io::Error::from(kind).to_string(),
            holder: None,
            fix: fix.to_owned(),
        }),
    }
}

fn held(text: &str) -> Attempt {
    let mut attempt = attempt(text, Some((ErrorKind::AddrInUse, "stop it (kill 7)")));
    attempt.failure.as_mut().unwrap().holder = Some("held by nginx (pid 7) on 0.0.0.0:80".into());
    attempt
}

/// A machine where everything works, without a program.
fn machine() -> Facts {
    Facts {
        instance: "default".into(),
        version: "1.0.0".into(),
        binary: "/usr/bin/portico".into(),
        is_debian: true,
        program: Program::Absent,
        loopback: attempt("127.96.0.10:0", None),
        low_port: attempt("127.96.0.10:80", None),
        privilege: Privilege {
            unprivileged_ports_from: Some(1024),
            ..Privilege::default()
        },
        services: Services::Unknown,
        wildcards: Vec::new(),
        dns: vec![attempt("127.96.0.10:53", None)],
        our_name: None,
        localhost_name: Lookup {
            name: "web.default.svc.localhost".into(),
            answer: Ok(vec![[127, 0, 0, 1].into()]),
        },
        namespaces: Namespaces {
            refused: None,
            outside: Some("pasta"),
            is_root: false,
        },
        door: attempt("127.0.0.1:7080", None),
        is_door_ours: false,
        containers: Containers::default(),
        host: vec![[127, 0, 0, 1].into(), "::1".parse().unwrap()],
        limits: Limits {
            open_files: 524_288,
            workers: 4,
            pipe_pages: Some(16_384),
            local_ports: "32768\t60999".into(),
            watches: Some(65_536),
            queue: Some(4096),
            ..Limits::default()
        },
        node_ports: (30_000, 32_767),
        left_routes: Vec::new(),
    }
}

/// The same with a program that serves nothing yet.
fn running() -> Facts {
    let status = serde_json::json!({
        "version": "1.0.0", "instance": "default", "pid": 42, "generation": 3, "synced": true, "services": [],
        "listeners": [], "dns": [], "pods": [], "listenerCount": 0, "connections": 0, "descriptors": 9,
        "findings": [],
    });
    Facts {
        program: Program::Running(serde_json::from_value(status).unwrap()),
        services: Services::Running {
            missing: Vec::new(),
            all: 3,
        },
        ..machine()
    }
}

fn change(facts: &mut Facts, change: impl FnOnce(&mut Status)) {
    let Program::Running(status) = &mut facts.program else {
        panic!("nothing runs");
    };
    change(status);
}

/// The findings of one check.
fn of(facts: &Facts, check: &str) -> Vec<Finding> {
    let mut findings = examine(facts);
    findings.retain(|finding| finding.check == check);
    findings
}

/// That the check finds one thing, with these words in its text and in its fixes, in order.
#[track_caller]
fn check(facts: &Facts, name: &str, result: Verdict, words: &str, fixes: &[&str]) {
    let findings = of(facts, name);
    let [finding] = findings.as_slice() else {
        panic!("{name}: {findings:?}");
    };
    assert_eq!(finding.result, result, "{finding:?}");
    assert!(finding.text.contains(words), "{finding:?}");
    assert_eq!(finding.fix.len(), fixes.len(), "{finding:?}");
    for (found, wanted) in finding.fix.iter().zip(fixes) {
        assert!(found.contains(wanted), "{finding:?}");
    }
}

#[test]
fn examine_a_machine_where_everything_works_asks_for_a_program_only() {
    let odd: Vec<_> = examine(&machine())
        .into_iter()
        .filter(|finding| finding.result != Verdict::Ok)
        .collect();
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert_eq!(odd[0].check, "program");
    let all = examine(&running());
    assert!(
        all.iter().all(|finding| finding.result == Verdict::Ok),
        "{all:?}"
    );
    assert!(all.iter().all(|finding| finding.fix.is_empty()), "{all:?}");
}

#[test]
fn program_absent_killed_silent_unready_or_another_version() {
    check(
        &machine(),
        "program",
        Verdict::Warn,
        "nothing runs",
        &["portico up", "portico demo"],
    );
    let mut facts = machine();
    facts.program = Program::Killed("/run/portico/api.sock".into());
    check(
        &facts,
        "program",
        Verdict::Warn,
        "nothing runs",
        &["portico up", "portico demo"],
    );
    check(
        &facts,
        "left over",
        Verdict::Warn,
        "/run/portico/api.sock",
        &[],
    );
    facts.program = Program::Silent("portico does not answer".into());
    check(&facts, "program", Verdict::No, "does not answer", &[]);
    let mut facts = running();
    check(&facts, "program", Verdict::Ok, "pid 42", &[]);
    change(&mut facts, |status| status.synced = false);
    check(
        &facts,
        "program",
        Verdict::Warn,
        "not read all",
        &["portico status"],
    );
    change(&mut facts, |status| status.version = "0.9.0".into());
    check(
        &facts,
        "program",
        Verdict::Warn,
        "portico 0.9.0 runs",
        &["start it again"],
    );
}

#[test]
fn left_routes_are_named_with_what_removes_them() {
    let mut facts = machine();
    facts.left_routes = vec![Left {
        text: "local 10.96.0.0/12 dev lo".into(),
        fix: "sudo ip route del local 10.96.0.0/12".into(),
    }];
    check(
        &facts,
        "left over",
        Verdict::Warn,
        "10.96.0.0/12",
        &["sudo ip route del"],
    );
}

#[test]
fn addresses_without_loopback_say_how_to_bring_it_up() {
    let mut facts = machine();
    let fix = "sudo ip link set lo up";
    facts.loopback = attempt("127.96.0.10:0", Some((ErrorKind::AddrNotAvailable, fix)));
    check(&facts, "addresses", Verdict::No, "127.96.0.10", &[fix]);
}

#[test]
fn fix_of_two_ways_is_two_lines_to_type() {
    let finding = Finding::warn("ports", "").fix("sudo one a=1 (or: sudo other)");
    assert_eq!(finding.fix, ["sudo one a=1", "sudo other"]);
}

#[test]
fn low_ports_forbidden_offer_what_can_help_here() {
    let refused = || attempt("127.96.0.10:80", Some((ErrorKind::PermissionDenied, "")));
    let mut facts = machine();
    check(
        &facts,
        "low ports",
        Verdict::Ok,
        "ip_unprivileged_port_start=1024",
        &[],
    );
    facts.privilege.may_bind = true;
    check(
        &facts,
        "low ports",
        Verdict::Ok,
        "CAP_NET_BIND_SERVICE",
        &[],
    );
    facts.privilege.may_bind = false;
    facts.low_port = refused();
    let sysctl = "sudo sysctl net.ipv4.ip_unprivileged_port_start=53";
    let setcap = "sudo setcap cap_net_bind_service=+ep /usr/bin/portico";
    check(
        &facts,
        "low ports",
        Verdict::Warn,
        "below 1024",
        &[sysctl, setcap],
    );
    facts.privilege.file_may_bind = true;
    check(&facts, "low ports", Verdict::Warn, "nosuid", &[sysctl]);
    facts.privilege.no_new_privs = true;
    check(
        &facts,
        "low ports",
        Verdict::Warn,
        "no_new_privs",
        &[sysctl],
    );
    facts.low_port = held("127.96.0.10:1023");
    check(
        &facts,
        "low ports",
        Verdict::Warn,
        "could not be tried",
        &["kill 7"],
    );
}

#[test]
fn ports_missing_are_listed_with_holder_stand_in_and_fix() {
    let missing = |port: u16, instead: bool| Missing {
        addr: ([127, 96, 0, 7], port).into(),
        service: "default/web".into(),
        why: "Address already in use".into(),
        holder: Some("held by nginx (pid 7) on 0.0.0.0:80".into()),
        instead: instead.then(|| ([127, 96, 0, 7], port + 10_000).into()),
        fix: "stop it (kill 7)".into(),
    };
    let mut facts = running();
    facts.services = Services::Running {
        missing: vec![missing(80, true)],
        all: 4,
    };
    check(
        &facts,
        "ports",
        Verdict::Warn,
        "nginx (pid 7) on 0.0.0.0:80; served at 127.96.0.7:10080",
        &["kill 7"],
    );
    facts.services = Services::Declared {
        missing: vec![missing(80, false)],
        all: 4,
    };
    check(&facts, "ports", Verdict::No, "; not served", &["kill 7"]);
    let many = (0..15).map(|n| Missing {
        fix: format!("kill {n}"),
        ..missing(8000 + n, true)
    });
    facts.services = Services::Declared {
        missing: many.collect(),
        all: 20,
    };
    let findings = of(&facts, "ports");
    assert_eq!(findings.len(), 11);
    assert!(findings[10].text.contains("5 more of 20"), "{findings:?}");
}

#[test]
fn ports_missing_for_the_same_reason_are_said_once() {
    let missing = |port: u16, instead: Option<u16>| Missing {
        addr: ([127, 96, 0, 7], port).into(),
        service: "default/web".into(),
        why: "Permission denied".into(),
        holder: None,
        instead: instead.map(|port| ([127, 96, 0, 7], port).into()),
        fix: "sudo one".into(),
    };
    let mut facts = running();
    facts.services = Services::Running {
        missing: vec![
            missing(80, Some(10_080)),
            missing(81, None),
            missing(443, Some(10_443)),
        ],
        all: 3,
    };
    let findings = of(&facts, "ports");
    let texts: Vec<&str> = findings.iter().map(|of| &*of.text).collect();
    assert_eq!(
        texts,
        [
            "127.96.0.7:81 (default/web): Permission denied; not served",
            "127.96.0.7:80 (default/web), 127.96.0.7:443 (default/web): Permission denied; served at \
             127.96.0.7:10080, 127.96.0.7:10443",
        ]
    );
    assert_eq!(findings[1].fix, ["sudo one"]);
}

#[test]
fn ports_without_services_name_the_wildcard_listeners() {
    let mut facts = machine();
    check(&facts, "ports", Verdict::Ok, "nobody listens", &[]);
    facts.wildcards = vec![(22, "sshd".into()), (8080, "java".into())];
    check(&facts, "ports", Verdict::Ok, "22 (sshd), 8080 (java)", &[]);
    facts.program = Program::Silent("late".into());
    assert_eq!(of(&facts, "ports"), []);
}

#[test]
fn dns_is_where_it_should_be_elsewhere_or_nowhere() {
    let mut facts = machine();
    check(&facts, "dns", Verdict::Ok, "127.96.0.10:53 is free", &[]);
    facts.dns = vec![attempt("127.96.0.10:53", None), held("127.96.0.10:53")];
    check(&facts, "dns", Verdict::Warn, "held by nginx", &["kill 7"]);
    let mut facts = running();
    let at = |bound: Option<&str>, problem: Option<&str>| DnsStatus {
        wanted: addr("127.96.0.10:53"),
        bound: bound.map(addr),
        problem: problem.map(str::to_owned),
        fix: problem.map(|_| "sudo sysctl".to_owned()),
    };
    let cases = [
        (
            at(Some("127.96.0.10:53"), None),
            Verdict::Ok,
            "answered at 127.96.0.10:53",
        ),
        (
            at(Some("127.96.0.10:10053"), Some("denied")),
            Verdict::Warn,
            "10053 and not 127.96.0.10:53: denied",
        ),
        (
            at(None, Some("denied")),
            Verdict::No,
            "not answered at 127.96.0.10:53",
        ),
    ];
    for (dns, result, words) in cases {
        let fixes: &[&str] = if dns.fix.is_some() {
            &["sudo sysctl"]
        } else {
            &[]
        };
        change(&mut facts, |status| status.dns = vec![dns]);
        check(&facts, "dns", result, words, fixes);
    }
}

#[test]
fn names_are_known_wrong_or_unknown_to_the_system() {
    let ours: IpAddr = [127, 96, 0, 10].into();
    let with = |answer: Result<Vec<IpAddr>, String>| {
        let name = "ns.dns.cluster.local".to_owned();
        Facts {
            our_name: Some((Lookup { name, answer }, vec![ours])),
            ..running()
        }
    };
    let fixes = ["sudo /usr/bin/portico dns install", "portico run"];
    check(
        &with(Ok(vec![ours])),
        "names",
        Verdict::Ok,
        "knows ns.dns.cluster.local",
        &[],
    );
    check(
        &with(Ok(vec![[1, 2, 3, 4].into()])),
        "names",
        Verdict::Warn,
        "1.2.3.4",
        &fixes,
    );
    check(
        &with(Err("Name or service not known".into())),
        "names",
        Verdict::Warn,
        "not known",
        &fixes,
    );
}

#[test]
fn localhost_names_need_a_resolver_that_knows_them() {
    let mut facts = machine();
    check(
        &facts,
        "localhost",
        Verdict::Ok,
        "web.default.svc.localhost",
        &[],
    );
    facts.localhost_name.answer = Ok(vec![[192, 0, 2, 1].into()]);
    check(
        &facts,
        "localhost",
        Verdict::Warn,
        "another machine",
        &["libnss-myhostname"],
    );
    facts.localhost_name.answer = Err("Name or service not known".into());
    facts.is_debian = false;
    check(
        &facts,
        "localhost",
        Verdict::Warn,
        "only curl and browsers",
        &["myhostname"],
    );
}

#[test]
fn run_needs_namespaces_and_a_way_out_of_them() {
    let mut facts = machine();
    check(&facts, "run", Verdict::Ok, "through pasta", &[]);
    facts.namespaces.outside = None;
    check(
        &facts,
        "run",
        Verdict::Warn,
        "no other machine",
        &["apt-get install passt"],
    );
    facts.namespaces.is_root = true;
    check(
        &facts,
        "run",
        Verdict::Warn,
        "slirp4netns is not installed, and pasta does not serve root",
        &["apt-get install slirp4netns"],
    );
    facts.namespaces.refused = Some(Refusal {
        why: "cannot make a user namespace: it is forbidden".into(),
        fix: Some("sudo sysctl user.max_user_namespaces=15000".into()),
    });
    let fixes = ["user.max_user_namespaces=15000", "portico proxy"];
    check(&facts, "run", Verdict::No, "it is forbidden", &fixes);
}

#[test]
fn proxy_door_is_free_ours_or_taken() {
    let mut facts = machine();
    check(&facts, "proxy", Verdict::Ok, "127.0.0.1:7080 is free", &[]);
    facts.door = held("127.0.0.1:7080");
    check(
        &facts,
        "proxy",
        Verdict::Warn,
        "the next free port",
        &["kill 7"],
    );
    facts.is_door_ours = true;
    check(&facts, "proxy", Verdict::Ok, "is open", &[]);
}

#[test]
fn containers_reach_node_ports_where_those_are_served() {
    let gateway: IpAddr = [172, 17, 0, 1].into();
    let mut facts = running();
    check(&facts, "containers", Verdict::Ok, "no engine", &[]);
    facts.containers.engines = vec!["docker (/run/docker.sock)".into()];
    check(
        &facts,
        "containers",
        Verdict::Warn,
        "no bridge",
        &["network_mode"],
    );
    facts.containers.gateways = vec![("docker0".into(), gateway)];
    check(
        &facts,
        "containers",
        Verdict::Ok,
        "172.17.0.1 (docker0)",
        &[],
    );
    for (bound, result, fixes) in [
        ("0.0.0.0:30080", Verdict::Ok, &[][..]),
        ("172.17.0.1:30080", Verdict::Ok, &[]),
        (
            "127.0.0.1:30080",
            Verdict::No,
            &["--nodeport-addresses 127.0.0.0/8,172.17.0.1/32"],
        ),
    ] {
        let service = serde_json::json!({
            "namespace": "default", "name": "web", "type": "NodePort", "clusterIp": "None", "externalName": null,
            "externalIps": [], "desiredLoadBalancerIp": null, "portList": [], "headlessAddresses": [], "origin": "",
            "selector": {}, "ports": [{
                "name": "", "protocol": "TCP", "port": 80, "nodePort": 30080, "endpoints": [], "accepted": 0,
                "connected": 0, "retries": 0, "rejected": 0,
                "reachable": [{"kind": "NodePort", "declared": bound, "bound": bound, "problem": null}],
            }],
        });
        change(&mut facts, |status| {
            status.services = vec![serde_json::from_value(service).unwrap()];
        });
        check(&facts, "containers", result, "172.17.0.1", fixes);
    }
}

#[test]
fn ipv6_without_an_address_says_so() {
    let mut facts = machine();
    check(&facts, "ipv6", Verdict::Ok, "::1", &[]);
    facts.host.pop();
    check(
        &facts,
        "ipv6",
        Verdict::Warn,
        "no IPv6 address",
        &["disable_ipv6=0"],
    );
}

#[test]
fn open_files_few_or_too_few_for_the_listeners() {
    let mut facts = machine();
    check(&facts, "open files", Verdict::Ok, "524288", &[]);
    facts.limits.open_files = 1024;
    check(
        &facts,
        "open files",
        Verdict::Warn,
        "1024 at most",
        &["prlimit"],
    );
    facts.services = Services::Declared {
        missing: Vec::new(),
        all: 600,
    };
    check(
        &facts,
        "open files",
        Verdict::No,
        "600 listeners",
        &["ulimit -n 1200"],
    );
    let mut facts = running();
    change(&mut facts, |status| {
        status.beyond_descriptors = 3;
        status.listener_count = 100;
    });
    check(
        &facts,
        "open files",
        Verdict::No,
        "3 of 100",
        &["ulimit -n 200"],
    );
}

#[test]
fn limits_of_the_kernel_are_named_with_what_raises_them() {
    let with = |set: fn(&mut Limits)| {
        let mut facts = machine();
        set(&mut facts.limits);
        facts
    };
    let few = with(|limits| limits.pipe_pages = Some(1024));
    check(
        &few,
        "pipes",
        Verdict::Warn,
        "4 workers use up to 4096",
        &["fs.pipe-user-pages-soft=4096"],
    );
    let exempt = with(|limits| {
        limits.pipe_pages = Some(1024);
        limits.is_exempt_from_pipes = true;
    });
    check(&exempt, "pipes", Verdict::Ok, "no bound", &[]);
    let none = with(|limits| limits.inotify_refused = Some("Too many open files".into()));
    check(
        &none,
        "edits",
        Verdict::Warn,
        "once a second",
        &["max_user_instances"],
    );
    let few = with(|limits| limits.watches = Some(10));
    check(
        &few,
        "edits",
        Verdict::Warn,
        "10 folders",
        &["max_user_watches=65536"],
    );
    let clash = with(|limits| limits.local_ports = "1024\t60999".into());
    check(
        &clash,
        "local ports",
        Verdict::Warn,
        "30000-32767",
        &["ip_local_reserved_ports=30000-32767"],
    );
    let few = with(|limits| limits.local_ports = "60000\t60999".into());
    check(
        &few,
        "local ports",
        Verdict::Warn,
        "1000 ports",
        &["ip_local_port_range"],
    );
    let short = with(|limits| limits.queue = Some(128));
    check(&short, "queue", Verdict::Warn, "128", &["somaxconn=4096"]);
}
