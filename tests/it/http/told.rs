//! What endpoints are told beside what clients say: of clients, of portico and of traces, with and without trust in who asks.

use serde_json::Value;

use super::{ONE, PODS, TWO, VERSIONS, curl, parsed, serve_pods, service};
use crate::support::{
    is_installed,
    namespace::in_namespace,
    peer::python,
    program::{Program, way},
};

/// Fields that a client may say and a proxy would.
const CLAIMS: [&str; 5] = [
    "X-Forwarded-For: 192.0.2.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "Forwarded: for=192.0.2.9",
    "X_Forwarded_For: 192.0.2.66",
];
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Fields that reach the endpoint, for each version by which is asked and each by which it is answered, without and with the
/// [claims](CLAIMS); and the head of the answer.
fn told(args: &[&str], check: impl Fn(&str, [Value; 2], &str)) {
    let Some(python) = python(&["h2"]).filter(|_| is_installed("curl")) else {
        return;
    };
    let _one = serve_pods(&python, "origin.py", &["http1"], ONE);
    let _two = serve_pods(&python, "origin.py", &["http2"], TWO);
    let ports = [("http", ONE), ("kubernetes.io/h2c", TWO)];
    let program = Program::up(args, &[("web.yaml", &service("web", &ports, &PODS))]);
    let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP").ip();
    for (version, name) in VERSIONS {
        for port in [ONE, TWO] {
            let url = format!("http://{door}:{port}/");
            let host = ["-H", "Host: web.shop:81", version, "-i", &url];
            let claims = CLAIMS.iter().flat_map(|claim| ["-H", claim]);
            let claims: Vec<&str> = claims
                .chain(["-H", "Connection: x-hop, x-forwarded-for"])
                .collect();
            let mut heads = String::new();
            let seen = [Vec::new(), claims].map(|claims| {
                // HTTP/2 has no Connection.
                let most = if name == "2" {
                    CLAIMS.len() * 2
                } else {
                    usize::MAX
                };
                let claims = claims.get(..most.min(claims.len())).unwrap();
                let trace = format!("traceparent: {TRACE}");
                let traced: &[&str] = if claims.is_empty() {
                    &[]
                } else {
                    &["-H", &trace, "-H", "x-hop: 1"]
                };
                let said = curl(&[host.as_slice(), claims, traced].concat());
                let (head, body) = said.split_once("\r\n\r\n").unwrap();
                heads.push_str(head);
                parsed(body)["fields"].clone()
            });
            check(name, seen, &heads);
        }
    }
}

#[test]
fn endpoints_are_told_of_clients_themselves_and_not_what_anybody_claims() {
    in_namespace!(Root);
    told(&[], |version, seen, head| {
        for fields in &seen {
            assert_eq!(fields["x-forwarded-for"], "127.0.0.1", "{fields}");
            assert_eq!(fields["x-forwarded-proto"], "http", "{fields}");
            assert_eq!(fields["x-forwarded-host"], "web.shop:81", "{fields}");
            assert_eq!(fields["forwarded"], Value::Null, "{fields}");
            assert_eq!(fields["x_forwarded_for"], Value::Null, "{fields}");
            assert_eq!(fields["via"], Value::Null, "{fields}");
        }
        assert_eq!(seen[0]["traceparent"], Value::Null);
        assert_eq!(seen[1]["traceparent"], TRACE);
        if version != "2" {
            assert_eq!(seen[1]["x-hop"], Value::Null);
        }
        assert!(!head.contains("via:"), "{head}");
    });
}

#[test]
fn endpoints_are_told_what_trusted_proxies_say_and_what_was_asked_to_be_told() {
    in_namespace!(Root);
    let args = [
        "--http-trusted-proxies=127.0.0.0/8",
        "--http-headers=forwarded,via,traceparent",
    ];
    told(&args, |version, [plain, claimed], head| {
        let ours = "for=127.0.0.1;host=\"web.shop:81\";proto=http";
        assert_eq!(plain["x-forwarded-for"], "127.0.0.1", "{plain}");
        assert_eq!(plain["forwarded"], ours, "{plain}");
        assert_eq!(
            claimed["x-forwarded-for"], "192.0.2.9, 127.0.0.1",
            "{claimed}"
        );
        assert_eq!(claimed["x-forwarded-proto"], "https", "{claimed}");
        assert_eq!(claimed["x-forwarded-host"], "shop.example", "{claimed}");
        assert_eq!(
            claimed["forwarded"],
            format!("for=192.0.2.9, {ours}"),
            "{claimed}"
        );
        assert_eq!(claimed["x_forwarded_for"], Value::Null, "{claimed}");
        for fields in [&plain, &claimed] {
            assert_eq!(fields["via"], format!("{version} portico"), "{fields}");
        }
        assert_eq!(claimed["traceparent"], TRACE, "one that comes goes on");
        let begun = plain["traceparent"].as_str().unwrap();
        let lengths: Vec<usize> = begun.split('-').map(str::len).collect();
        assert_eq!(lengths, [2, 32, 16, 2], "{begun}");
        assert_eq!(head.matches("via:").count(), 2, "{head}");
    });
}
