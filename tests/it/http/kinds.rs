//! Which ports speak HTTP: each way to say so, what `explain` says of it, and bytes of the others that pass through as they are.

use std::{fmt::Write as _, path::Path, process::Command};

use super::{curl, parsed};
use crate::support::{
    addr, is_installed,
    namespace::in_namespace,
    peer::{Peer, python, serve, start},
    program::{Program, way},
};

const POD: &str = "127.1.0.1";

/// A port: its name and number, what its Service and its slice say of it, where it leads, and what it is by that, without
/// `--http-by-port-name` and with it.
type Port<'a> = (&'a str, u16, &'a str, &'a str, u16, [&'a str; 2]);

/// Servers of HTTP/1.1, of HTTP/2 and of TLS.
const ONE: u16 = 9001;
const TWO: u16 = 9002;
const TLS: u16 = 9003;

const PORTS: [Port<'_>; 11] = [
    (
        "http",
        8001,
        "",
        "",
        ONE,
        ["TCP: no appProtocol", "HTTP: port name http"],
    ),
    (
        "http-x",
        8002,
        "",
        "",
        ONE,
        ["TCP: no appProtocol", "HTTP: port name http-x"],
    ),
    (
        "grpc",
        8003,
        "",
        "",
        TWO,
        ["TCP: no appProtocol", "gRPC: port name grpc"],
    ),
    ("a", 8004, "http", "", ONE, ["HTTP: appProtocol: http"; 2]),
    (
        "b",
        8005,
        "kubernetes.io/h2c",
        "",
        TWO,
        ["HTTP/2: appProtocol: kubernetes.io/h2c"; 2],
    ),
    (
        "c",
        8006,
        "kubernetes.io/ws",
        "",
        ONE,
        ["HTTP: appProtocol: kubernetes.io/ws"; 2],
    ),
    ("d", 8007, "grpc", "", TWO, ["gRPC: appProtocol: grpc"; 2]),
    ("e", 8008, "https", "", TLS, ["TCP: appProtocol: https"; 2]),
    (
        "f",
        8009,
        "",
        "http",
        ONE,
        ["HTTP: appProtocol of its slice: http"; 2],
    ),
    (
        "g",
        8010,
        "http",
        "",
        ONE,
        ["TCP: annotation portico.dev/protocol"; 2],
    ),
    (
        "h",
        8011,
        "",
        "",
        TWO,
        ["HTTP/2: annotation portico.dev/protocol"; 2],
    ),
];

fn manifest() -> String {
    let said = |protocol: &str| match protocol {
        "" => String::new(),
        said => format!(", appProtocol: {said}"),
    };
    let (mut doors, mut targets) = (String::new(), String::new());
    for (name, port, by_service, by_slice, target, _) in PORTS {
        let _ = write!(doors, "{{name: {name}, port: {port}{}}},", said(by_service));
        let _ = write!(
            targets,
            "{{name: {name}, port: {target}{}}},",
            said(by_slice)
        );
    }
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{portico.dev/protocol: 'g=tcp,h=h2c'}}}}\nspec:\n  \
         ports: [{doors}]\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: \
         {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{targets}]\nendpoints: [{{addresses: [{POD}]}}]\n"
    )
}

/// OpenSSL's server, with a certificate of its own.
fn serve_tls(folder: &Path) -> Option<Peer> {
    if !is_installed("openssl") {
        return None;
    }
    let [key, certificate] = ["key", "certificate"].map(|name| folder.join(name));
    let [key, certificate] = [&key, &certificate].map(|path| path.to_str().unwrap());
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        ])
        .args(["-subj", "/CN=web", "-keyout", key, "-out", certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pod = format!("{POD}:{TLS}");
    let args = ["s_server", "-quiet", "-www", "-accept", &pod];
    let args = [args.as_slice(), &["-key", key, "-cert", certificate]].concat();
    Some(start("openssl", &args, &[addr(&pod)]))
}

#[test]
fn ports_are_what_is_said_of_them_and_nothing_is_guessed() {
    in_namespace!(Root);
    let Some(python) = python(&["h2"]).filter(|_| is_installed("curl")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let _one = serve(&python, "origin.py", &["http1", &format!("{POD}:{ONE}")]);
    let _two = serve(&python, "origin.py", &["http2", &format!("{POD}:{TWO}")]);
    let tls = serve_tls(folder.path());
    for (with_names, args) in [(0, [].as_slice()), (1, &["--http-by-port-name"])] {
        let program = Program::up(args, &[("web.yaml", &manifest())]);
        let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP").ip();
        let explained = program.command(&["explain", "service/web"]).stdout;
        let explained = String::from_utf8(explained).unwrap();
        for (name, port, _, _, target, words) in PORTS {
            let words = words[with_names];
            let is_said = |line: &str| {
                line.split_whitespace().next() == Some(name) && line.contains(&format!(" {words} "))
            };
            assert!(
                explained.lines().any(is_said),
                "{name}: {words}: {explained}"
            );
            let is_http = !words.starts_with("TCP");
            if target == TLS {
                let url = format!("https://{door}:{port}/");
                assert!(tls.is_none() || curl(&["--insecure", &url]).contains("TLS"));
                continue;
            }
            // Where bytes pass through the client speaks what the endpoint does; else whatever it likes.
            let (version, spoken) = if target == TWO {
                ("--http2-prior-knowledge", "HTTP/2")
            } else {
                ("--http1.1", "HTTP/1.1")
            };
            let other = if is_http { "--http1.0" } else { version };
            for version in [version, other] {
                let seen = parsed(&curl(&[version, &format!("http://{door}:{port}/")]));
                assert_eq!(seen["version"], spoken, "{name} {version}");
                let is_told = seen["fields"]["x-forwarded-for"] == "127.0.0.1";
                assert_eq!(is_told, is_http, "{name} {version}: {seen}");
            }
        }
    }
}
