//! HTTP ports between clients and servers that others made: curl, Python's own server, nginx, busybox, aiohttp, `h2`, gRPC and
//! `websockets`. What the clients do with a server of their own kind, they do through portico.

#![expect(clippy::float_cmp, reason = "counts are whole numbers, and exact")]

mod choice;
mod kinds;
mod shapes;
mod told;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use portico::control::status::PortStatus;
use serde_json::Value;

use crate::{
    metrics::{admin, scrape},
    support::{
        addr, is_installed,
        namespace::in_namespace,
        peer::{Peer, client, nginx, python, serve, start},
        program::{Program, way},
    },
};

/// Endpoints of every Service here.
const PODS: [&str; 2] = ["127.1.0.1", "127.1.0.2"];

/// The Service port that speaks HTTP/1.1 to its endpoints, and the one that speaks HTTP/2.
const ONE: u16 = 8080;
const TWO: u16 = 8081;

/// A Service with ports of these protocols at these numbers, each with endpoints at the port 1000 above, at [`PODS`] or nowhere.
fn service(name: &str, ports: &[(&str, u16)], pods: &[&str]) -> String {
    let (mut doors, mut targets) = (String::new(), String::new());
    for (protocol, port) in ports {
        let target = port + 1000;
        let _ = write!(
            doors,
            "{{name: p{port}, port: {port}, appProtocol: {protocol}}},"
        );
        let _ = write!(targets, "{{name: p{port}, port: {target}}},");
    }
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{doors}]\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  labels: \
         {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{targets}]\nendpoints:\n"
    );
    for pod in pods {
        let _ = writeln!(text, "  - addresses: [{pod}]");
    }
    if pods.is_empty() {
        text.push_str("  []\n");
    }
    text
}

/// Where the pods of a port listen.
fn targets(port: u16) -> [String; 2] {
    PODS.map(|pod| format!("{pod}:{}", port + 1000))
}

/// A script's servers at the pods of a port.
fn serve_pods(python: &Path, script: &str, args: &[&str], port: u16) -> Peer {
    let targets = targets(port);
    let targets = targets.iter().map(String::as_str);
    let args: Vec<&str> = args.iter().copied().chain(targets).collect();
    serve(python, script, &args)
}

/// Two origins of HTTP/1.1 and two of HTTP/2 behind portico.
struct Origins {
    program: Program,
    doors: [SocketAddr; 2],
    _servers: [Peer; 2],
}

impl Origins {
    fn up() -> Option<Self> {
        let python = python(&["h2"]).filter(|_| is_installed("curl"))?;
        let servers = [("http1", ONE), ("http2", TWO)]
            .map(|(version, port)| serve_pods(&python, "origin.py", &[version], port));
        let ports = [("http", ONE), ("kubernetes.io/h2c", TWO)];
        let web = service("web", &ports, &PODS);
        let program = Program::up(&[], &[("web.yaml", &web)]);
        let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
        Some(Self {
            program,
            doors: [ONE, TWO].map(|port| SocketAddr::new(door.ip(), port)),
            _servers: servers,
        })
    }
}

/// curl's flag for a version of HTTP, and how it calls it.
const VERSIONS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")];

fn curl_command(args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--max-time", "60"])
        .args(args);
    command
}

/// What curl prints, which must succeed.
fn curl(args: &[&str]) -> String {
    let output = curl_command(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn parsed(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// What curl prints for so many requests for a URL, with the number of each as its query: on one connection of HTTP/1.1. For HTTP/2,
/// one call each, since version 7.88 fails on a second request with prior knowledge whoever its server is
/// (<https://github.com/curl/curl/pull/10643>).
fn curl_times(flags: &[&str], url: &str, times: usize) -> String {
    let urls = if flags.contains(&"--http1.1") {
        vec![format!("{url}?[1-{times}]")]
    } else {
        (1..=times).map(|n| format!("{url}?{n}")).collect()
    };
    let answers = urls.iter().map(|url| curl(&[flags, &[url]].concat()));
    answers.collect()
}

/// How often each endpoint of a port was chosen.
fn picks(port: &PortStatus) -> Vec<u64> {
    let endpoints = port.endpoints.iter();
    endpoints.map(|endpoint| endpoint.picks).collect()
}

#[test]
fn curl_by_one_connection_reaches_both_pods_evenly_in_every_version() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    for (version, name) in VERSIONS {
        for (door, spoken) in origins.doors.into_iter().zip(["HTTP/1.1", "HTTP/2"]) {
            let flags = [version, "-w", "%{http_version} %{num_connects}\n"];
            let said = curl_times(&flags, &format!("http://{door}/"), 20);
            let lines: Vec<&str> = said.lines().collect();
            let mut pods: BTreeMap<String, usize> = BTreeMap::new();
            for (n, pair) in lines.chunks(2).enumerate() {
                let seen = parsed(pair[0]);
                assert_eq!(seen["version"], spoken);
                assert_eq!(seen["path"], format!("/?{}", n + 1));
                assert_eq!(seen["fields"]["x-forwarded-for"], "127.0.0.1");
                let connects = usize::from(n == 0 || name == "2");
                assert_eq!(pair[1], format!("{name} {connects}"), "{version} {door}");
                let pod = seen["pod"].as_str().unwrap().to_owned();
                *pods.entry(pod).or_default() += 1;
            }
            let shares: Vec<usize> = pods.into_values().collect();
            assert_eq!(shares, [10, 10], "{version} {door}");
        }
    }
    let ports = &origins.program.status().services[0].ports;
    assert_eq!([picks(&ports[0]), picks(&ports[1])], [[20, 20]; 2]);
}

#[test]
fn curl_of_http_1_0_gets_answers_that_end_with_their_connections() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    for door in origins.doors {
        let write = "%{num_connects} %{http_code}\n";
        let said = curl(&["--http1.0", "-w", write, &format!("http://{door}/[1-2]")]);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!([lines[1], lines[3]], ["1 200"; 2]);
        assert_eq!(parsed(lines[0])["method"], "GET");
    }
}

#[test]
fn curl_asking_for_heads_gets_lengths_without_bodies_on_one_connection() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    for (version, name) in VERSIONS {
        for door in origins.doors {
            let flags = [version, "-I", "-w", "connects: %{num_connects}\n"];
            let said = curl_times(&flags, &format!("http://{door}/"), 2).to_ascii_lowercase();
            assert_eq!(said.matches(" 200").count(), 2, "{said}");
            assert_eq!(said.matches("content-length: ").count(), 2, "{said}");
            assert!(!said.contains("content-length: 0"), "{said}");
            let last = usize::from(name == "2");
            assert!(said.ends_with(&format!("connects: {last}\n")), "{said}");
        }
    }
}

/// More than windows, buffers and what is kept for another try hold.
const LARGE_BYTES: usize = 3 << 20;

#[test]
fn curl_sending_large_bodies_gets_them_back_whole() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (sent, got, heads) = (path("sent"), path("got"), path("heads"));
    let large: Vec<u8> = (0_u32..)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(LARGE_BYTES)
        .collect();
    std::fs::write(&sent, &large).unwrap();
    for (version, name) in VERSIONS {
        for door in origins.doors {
            let url = format!("http://{door}/echo");
            let upload = format!("@{sent}");
            // By its length, after the server has said that it wants it, and in chunks of unknown number. By HTTP/2 nobody says so.
            let expect = if name == "1.1" {
                "Expect: 100-continue"
            } else {
                "Expect:"
            };
            let expect = ["-H", expect, "--data-binary", &upload];
            for ways in [expect.as_slice(), &["-T", "-"]] {
                let answers = ["-o", &got, "-D", &heads, version, &url];
                let ran = curl_command(ways)
                    .args(answers)
                    .stdin(Stdio::from(std::fs::File::open(&sent).unwrap()))
                    .status()
                    .unwrap();
                assert!(ran.success(), "{version} {door} {ways:?}");
                assert!(
                    std::fs::read(&got).unwrap() == large,
                    "{version} {door} {ways:?}"
                );
                let heads = std::fs::read_to_string(&heads).unwrap();
                // curl expects it for bodies of unknown length, too. Of HTTP/2 it shows nothing but the answer.
                let first = if name == "1.1" { " 100" } else { " 200" };
                let line = heads.lines().next().unwrap();
                assert!(line.contains(first), "{version} {door} {ways:?}: {heads}");
            }
        }
    }
}

#[test]
fn curl_offering_an_upgrade_that_nobody_takes_is_answered_as_asked() {
    in_namespace!(Root);
    let Some(origins) = Origins::up() else { return };
    let websocket = [
        "--http1.1",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
    ];
    for door in origins.doors {
        let url = format!("http://{door}/[1-2]");
        // The first is the Upgrade to h2c, which is no more (RFC 9113, section 3.1).
        for ways in [["--http2"].as_slice(), &websocket] {
            let write = [
                "-w",
                "%{http_version} %{http_code} %{num_connects}\n",
                url.as_str(),
            ];
            let said = curl(&[ways, &write].concat());
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!([lines[1], lines[3]], ["1.1 200 1", "1.1 200 0"], "{ways:?}");
            let fields = &parsed(lines[0])["fields"];
            assert_eq!(fields["http2-settings"], Value::Null);
        }
    }
}

/// Servers of files at the pods of ports from [`ONE`] on, each kind at a port of its own, as far as they are installed.
fn servers_of_files(folder: &Path) -> Vec<(u16, Vec<Peer>)> {
    let files = folder.join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("index.html"), "a file\n").unwrap();
    let files = files.to_str().unwrap();
    let mut ports = ONE..;
    let mut port = || ports.next().unwrap();
    let mut servers = Vec::new();
    if is_installed("busybox") {
        let port = port();
        let pods = targets(port).map(|pod| {
            let args = ["httpd", "-f", "-p", &pod, "-h", files];
            start("busybox", &args, &[addr(&pod)])
        });
        servers.push((port, pods.into()));
    }
    let at = port();
    let [one, two] = targets(at);
    let text = format!(
        "http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; \
         scgi_temp_path s; server {{ listen {one}; listen {two}; root {files}; }} }}"
    );
    let nginx = nginx(folder, &text, &[&*one, &*two].map(addr));
    servers.extend(nginx.map(|nginx| (at, vec![nginx])));
    // By the first of them each answer ends with its connection.
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let Some(python) = python(&["http.server"]) else {
            continue;
        };
        let port = port();
        let pods = PODS.map(|pod| {
            let number = (port + 1000).to_string();
            let module = ["-m", "http.server", "--protocol", version];
            let place = ["--bind", pod, "--directory", files, &number];
            let listening = SocketAddr::new(pod.parse().unwrap(), port + 1000);
            start(&python, &[module.as_slice(), &place].concat(), &[listening])
        });
        servers.push((port, pods.into()));
    }
    if let Some(python) = python(&["aiohttp"]) {
        let port = port();
        let aiohttp = serve_pods(&python, "files.py", &[files], port);
        servers.push((port, vec![aiohttp]));
    }
    servers
}

#[test]
fn same_requests_are_counted_the_same_whichever_server_answers() {
    in_namespace!(Root);
    if !is_installed("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let servers = servers_of_files(folder.path());
    if servers.is_empty() {
        return;
    }
    let ports: Vec<(&str, u16)> = servers.iter().map(|(port, _)| ("http", *port)).collect();
    let program = Program::up(&[], &[("web.yaml", &service("web", &ports, &PODS))]);
    let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP").ip();
    for (_, port) in &ports {
        for (version, _) in VERSIONS {
            let write = ["-o", "/dev/null", "-w", "%{http_code} "];
            let codes = |flags: &[&str], path: &str, times: usize| {
                let flags = [&[version], write.as_slice(), flags].concat();
                curl_times(&flags, &format!("http://{door}:{port}/{path}"), times)
            };
            assert_eq!(codes(&[], "index.html", 8), "200 ".repeat(8));
            assert_eq!(codes(&["-I"], "index.html", 2), "200 ".repeat(2));
            assert_eq!(codes(&[], "missing", 4), "404 ".repeat(4));
        }
    }
    let samples = scrape(admin(&program));
    let status = program.wait_for_connections_to_end();
    for (of, (_, port)) in status.services[0].ports.iter().zip(&ports) {
        let labels = format!("port=\"{port}\",protocol=\"TCP\",ip_family=\"IPv4\"");
        let counted = ["2xx", "4xx", "5xx"].map(|class| {
            let labels = format!("namespace=\"default\",service=\"web\",{labels}");
            let series =
                format!("portico_service_http_requests_total{{{labels},code=\"{class}\"}}");
            samples.get(&series).copied().unwrap_or_default()
        });
        assert_eq!(counted, [20.0, 8.0, 0.0], "{port}");
        assert_eq!(picks(of), [14, 14], "{port}");
    }
}

/// One Service without endpoints, and one whose endpoints refuse.
fn unanswered() -> (Program, [SocketAddr; 2]) {
    let ports = [("http", ONE), ("grpc", TWO)];
    let files = [
        ("none.yaml", service("none", &ports, &[])),
        ("deaf.yaml", service("deaf", &ports, &PODS)),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    let program = Program::up(&[], &files);
    let doors = [("none", 0), ("deaf", 2)]
        .map(|it| way(&program.wait_for_endpoints(it.0, it.1), "ClusterIP"));
    (program, doors)
}

#[test]
fn curl_is_told_why_nobody_answers_in_text_and_json() {
    in_namespace!(Root);
    if !is_installed("curl") {
        return;
    }
    let (_program, [none, deaf]) = unanswered();
    for (version, name) in VERSIONS {
        let ask = |door: SocketAddr, accept: &str| {
            let accept = format!("Accept: {accept}");
            let said = curl(&[version, "-i", "-H", &accept, &format!("http://{door}/")]);
            let (head, body) = said.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        };
        let (head, body) = ask(none, "*/*");
        assert!(head.starts_with(&format!("http/{name} 503")), "{head}");
        assert!(head.contains("proxy-status: portico;"), "{head}");
        assert!(head.contains("error=destination_unavailable"), "{head}");
        assert!(head.contains("retry-after: 1"), "{head}");
        assert!(
            body.contains("Service default/none:p8080 has no endpoint that is ready"),
            "{body}"
        );

        let (head, body) = ask(none, "application/json");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(parsed(&body)["service"], "default/none:p8080", "{body}");

        let (head, body) = ask(deaf, "text/plain");
        assert!(head.starts_with(&format!("http/{name} 502")), "{head}");
        assert!(head.contains("error=connection_refused"), "{head}");
        for pod in targets(ONE) {
            assert!(
                body.contains(&format!("{pod} refused the connection")),
                "{body}"
            );
        }
        let (_, body) = ask(deaf, "application/json, */*;q=0.1");
        assert_eq!(parsed(&body)["endpoints"], 2, "{body}");
    }
}

#[test]
fn grpc_calls_that_nobody_answers_are_told_by_their_status() {
    in_namespace!(Root);
    let (_program, doors) = unanswered();
    let doors = doors.map(|door| SocketAddr::new(door.ip(), TWO));
    let words = ["has no endpoint that is ready", "could be reached"];
    if is_installed("curl") {
        for door in doors {
            let call = ["-H", "Content-Type: application/grpc", "-H", "TE: trailers"];
            let url = format!("http://{door}/interop.Test/Unary");
            let flags = ["--http2-prior-knowledge", "-i", "-d", "", url.as_str()];
            let said = curl(&[call.as_slice(), &flags].concat());
            assert!(said.starts_with("HTTP/2 200"), "{said}");
            assert!(said.contains("content-type: application/grpc"), "{said}");
            assert!(said.contains("grpc-status: 14"), "{said}");
            assert!(said.ends_with("\r\n\r\n"), "{said}");
        }
    }
    let Some(python) = python(&["grpc"]) else {
        return;
    };
    for (door, words) in doors.iter().zip(words) {
        let said = client(&python, "grpc_client.py", &[&door.to_string()]);
        assert!(said.contains(words), "{said}");
    }
}

/// How many of its last questions each pod answered: the last line of a client.
fn shares(said: &str) -> BTreeMap<String, u64> {
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

#[test]
fn grpc_calls_of_every_shape_come_through_and_one_channel_s_are_even() {
    in_namespace!(Root);
    let Some(python) = python(&["grpc"]) else {
        return;
    };
    // The second time connections are told to come back while calls go on.
    let cases = [
        (ONE, "grpc", [].as_slice()),
        (TWO, "kubernetes.io/h2c", &["--http-max-age=1s"]),
    ];
    for (port, protocol, args) in cases {
        let _server = serve_pods(&python, "grpc_server.py", &[], port);
        let text = service("calls", &[(protocol, port)], &PODS);
        let program = Program::up(args, &[("calls.yaml", &text)]);
        let door = way(&program.wait_for_endpoints("calls", 2), "ClusterIP");
        let [backend, other] = targets(port);
        let through = [door.to_string(), backend.clone()];
        let said = client(
            &python,
            "grpc_client.py",
            &through.each_ref().map(String::as_str),
        );
        assert_eq!(shares(&said), BTreeMap::from([(backend, 20), (other, 20)]));
        program.wait_for_connections_to_end();
    }
}

#[test]
fn websocket_clients_and_servers_have_all_of_each_other_and_no_time_out_between_messages() {
    in_namespace!(Root);
    let Some(python) = python(&["websockets"]) else {
        return;
    };
    for (port, protocol) in [(ONE, "kubernetes.io/ws"), (TWO, "http")] {
        let _server = serve_pods(&python, "websocket_server.py", &[], port);
        let text = service("chat", &[(protocol, port)], &PODS);
        let brief = ["--http-head-timeout=200ms", "--http-idle-timeout=200ms"];
        let program = Program::up(&brief, &[("chat.yaml", &text)]);
        let door = way(&program.wait_for_endpoints("chat", 2), "ClusterIP");
        let [backend, other] = targets(port);
        let through = [door.to_string(), backend.clone(), "1".to_owned()];
        let said = client(
            &python,
            "websocket_client.py",
            &through.each_ref().map(String::as_str),
        );
        assert_eq!(shares(&said), BTreeMap::from([(backend, 10), (other, 10)]));
        program.wait_for_connections_to_end();
    }
}
