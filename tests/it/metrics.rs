//! Metrics and health of the running program, and the files in `config` that read them.

#![expect(clippy::float_cmp, reason = "counts are whole numbers, and exact")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use portico::telemetry::metrics::table;

use crate::support::{
    PATIENCE, get,
    namespace::in_namespace,
    program::{Program, way},
};

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: example.com/web:1, ports: [{containerPort: 80}]}]}
";

/// Status line with headers, and body.
fn ask(addr: SocketAddr, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

pub(crate) fn admin(program: &Program) -> SocketAddr {
    program.status().admin.expect("an admin address")
}

/// Every sample by its series; each line must be well formed, each family in the table and in one piece.
pub(crate) fn scrape(addr: SocketAddr) -> BTreeMap<String, f64> {
    let (head, body) = ask(addr, "/metrics", "localhost");
    assert!(head.contains("200 ok"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split(' ').next().unwrap().clone_into(&mut family);
            assert!(families.insert(family.clone()), "{family} comes twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let metric = table::find(&family).expect(&family);
            assert_eq!(rest, format!("{family} {}", metric.kind.as_str()));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let name = series.split('{').next().unwrap();
        assert!(
            table::has_series(name) && name.starts_with(&family),
            "{line}"
        );
        let value: f64 = value.parse().expect(line);
        assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
    }
    samples
}

fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let of = |series: &&String| series.starts_with(&format!("{name}{{")) && series.contains(labels);
    let found: Vec<&String> = samples.keys().filter(of).collect();
    assert!(!found.is_empty(), "{name} {labels} in {samples:#?}");
    found.iter().map(|series| samples[*series]).sum()
}

#[test]
fn scrape_after_traffic_reconciles_and_is_even() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    assert_eq!(admin(&program), "127.0.0.1:7070".parse().unwrap());
    for _ in 0..40 {
        get(web).unwrap();
    }
    program.wait_for_connections_to_end();
    let samples = scrape(admin(&program));
    let of = |name: &str, labels: &str| sum(&samples, name, labels);
    let web = "service=\"web\"";
    assert_eq!(of("portico_service_connections_total", web), 40.0);
    assert_eq!(of("portico_service_picks_total", web), 40.0);
    assert_eq!(of("portico_endpoint_picks_total", web), 40.0);
    assert_eq!(of("portico_service_residual", web), 0.0);
    assert_eq!(of("portico_service_connections_active", web), 0.0);
    assert_eq!(of("portico_service_connections_ended_total", web), 40.0);
    assert_eq!(
        of("portico_service_connection_duration_seconds_count", web),
        40.0
    );
    assert_eq!(
        of("portico_endpoint_connect_duration_seconds_count", web),
        40.0
    );
    assert_eq!(of("portico_endpoint_ready", web), 4.0);
    // `GET / HTTP/1.1`, `Host: test`, `Connection: close`.
    assert_eq!(
        of("portico_service_bytes_total", "direction=\"to_endpoint\""),
        40.0 * 49.0
    );
    assert_eq!(
        of("portico_service_bytes_total", "direction=\"to_client\""),
        of("portico_endpoint_bytes_total", "direction=\"to_client\"")
    );
    let picks = samples
        .iter()
        .filter(|(series, _)| series.starts_with("portico_endpoint_picks_total{"));
    assert!(
        picks.clone().all(|(_, count)| *count == 10.0),
        "{:?}",
        picks.collect::<Vec<_>>()
    );
    for name in [
        "kubeproxy_network_programming_duration_seconds_count",
        "process_resident_memory_bytes",
        "portico_generation",
    ] {
        assert!(samples[name] > 0.0, "{name}");
    }
    let status = program.status();
    let port = &status
        .services
        .iter()
        .find(|service| service.name == "web")
        .unwrap()
        .ports[0];
    assert_eq!(
        (port.picks, port.residual, port.bytes_to_endpoints),
        (40, 0, 40 * 49)
    );
    // The sampler takes the set up within a second or so; then its epoch holds every pick.
    let deadline = Instant::now() + PATIENCE;
    let windows = loop {
        let windows: serde_json::Value = serde_json::from_str(&program.ask("/v1/windows")).unwrap();
        if windows[0]["windows"][4]["picks"]["total"] == 40.0 {
            break windows;
        }
        assert!(Instant::now() < deadline, "{windows}");
    };
    assert_eq!(windows[0]["windows"][4]["window"], "epoch");
    assert_eq!(windows[0]["windows"][4]["picks"]["cov"], 0.0);
    let samples = scrape(admin(&program));
    assert_eq!(
        samples
            .iter()
            .find(|(series, _)| series.contains("evenness_spread") && series.contains("epoch"))
            .unwrap()
            .1,
        &0.0
    );
}

#[test]
fn endpoints_beyond_the_bound_are_one_series() {
    in_namespace!(Root);
    let program = Program::up(
        &["--simulate", "--metrics-max-endpoints", "3"],
        &[("web.yaml", WEB)],
    );
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    for _ in 0..8 {
        get(web).unwrap();
    }
    program.wait_for_connections_to_end();
    let samples = scrape(admin(&program));
    let picks: Vec<_> = samples
        .iter()
        .filter(|(series, _)| series.starts_with("portico_endpoint_picks_total"))
        .collect();
    assert_eq!(picks.len(), 1, "{picks:?}");
    assert!(
        picks[0].0.contains("endpoint=\"other\"") && *picks[0].1 == 8.0,
        "{picks:?}"
    );
}

#[test]
fn taken_port_gives_the_next_free_one_and_foreign_names_are_refused() {
    in_namespace!(Root);
    let _taken = TcpListener::bind("127.0.0.1:7070").unwrap();
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let addr = admin(&program);
    assert_eq!(addr, "127.0.0.1:7071".parse().unwrap());
    assert!(
        program.stderr().contains("127.0.0.1:7071"),
        "{}",
        program.stderr()
    );
    let (head, _) = ask(addr, "/metrics", "evil.example:7071");
    assert!(head.contains("403"), "{head}");
    // What changes something is not there.
    for path in ["/v1/command", "/v1/reload", "/v1/mark", "/v1/objects/pods"] {
        let (head, _) = ask(addr, path, "localhost");
        assert!(head.contains("404"), "{path}: {head}");
    }
    let (_, body) = ask(addr, "/v1/status", "127.0.0.1:7071");
    assert!(body.contains("\"instance\""), "{body}");
    let off = Program::up(
        &["--admin-listen", "off", "--instance", "other"],
        &[("web.yaml", "")],
    );
    assert_eq!(off.status().admin, None);
}

#[test]
fn half_requests_fill_the_admin_interface_and_nothing_else() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    let addr = admin(&program);
    let half = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
        stream
    };
    // Three times as many as are accepted at a time.
    let silent: Vec<TcpStream> = (0..192).map(|_| half()).collect();
    assert_eq!(admin(&program), addr, "the unix socket answers");
    get(web).unwrap();
    drop(silent);
    let (head, _) = ask(addr, "/livez", "localhost");
    assert!(head.contains("200 ok"), "{head}");
}

#[test]
fn readyz_turns_with_the_first_load_and_with_the_end() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    let addr = admin(&program);
    for path in ["/livez", "/readyz", "/healthz"] {
        let (head, body) = ask(addr, path, "localhost");
        assert!(
            head.contains("200 ok") && body == "ok",
            "{path}: {head} {body}"
        );
    }
    let (_, body) = ask(addr, "/readyz?verbose", "localhost");
    for line in ["[+]manifests ok", "[+]control ok", "readyz check passed"] {
        assert!(body.contains(line), "{body}");
    }
    // An open connection keeps the program in its drain.
    let mut open = TcpStream::connect(web).unwrap();
    open.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    open.read_exact(&mut [0]).unwrap();
    program.signal("TERM");
    let deadline = Instant::now() + PATIENCE;
    let (head, body) = loop {
        let answer = ask(addr, "/readyz", "localhost");
        if !answer.0.contains("200") {
            break answer;
        }
        assert!(Instant::now() < deadline);
    };
    assert!(
        head.contains("500") && body.contains("[-]shutdown failed: the program is ending"),
        "{head} {body}"
    );
    let (head, _) = ask(addr, "/livez", "localhost");
    assert!(head.contains("200"), "ending is alive: {head}");
    let (head, _) = ask(addr, "/readyz?exclude=shutdown", "localhost");
    assert!(head.contains("200"), "{head}");
}

#[test]
fn row_37_kube_proxy_urls_answer() {
    in_namespace!(Root);
    let quiet = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    assert!(
        TcpStream::connect("127.0.0.1:10256").is_err(),
        "off by default"
    );
    drop(quiet);
    let program = Program::up(&["--simulate", "--kube-proxy-ports"], &[("web.yaml", WEB)]);
    let health: SocketAddr = "127.0.0.1:10256".parse().unwrap();
    for (path, eligible) in [("/healthz", true), ("/livez", false)] {
        let (head, body) = ask(health, path, "node.example");
        assert!(head.contains("200 ok"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["lastUpdated"], value["currentTime"]);
        assert!(
            value["currentTime"]
                .as_str()
                .unwrap()
                .ends_with(" +0000 UTC"),
            "{body}"
        );
        assert_eq!(
            value.get("nodeEligible"),
            eligible.then_some(&serde_json::Value::Bool(true))
        );
    }
    let metrics: SocketAddr = "127.0.0.1:10249".parse().unwrap();
    assert_eq!(ask(metrics, "/proxyMode", "localhost").1, "userspace");
    assert_eq!(ask(metrics, "/healthz", "localhost").1, "ok");
    let samples = scrape(metrics);
    assert_eq!(samples["kubeproxy_proxy_healthz_total{code=\"200\"}"], 1.0);
    assert_eq!(samples["kubeproxy_proxy_livez_total{code=\"200\"}"], 1.0);
    let second = Program::up(
        &["--kube-proxy-ports", "--instance", "other"],
        &[("web.yaml", "")],
    );
    let said = second.stderr();
    let pid = program.pid();
    assert!(
        said.contains(&format!("held by portico (pid {pid})")),
        "{said}"
    );
}

/// The file with the table written anew.
#[test]
fn table_of_metrics_is_the_programs_own() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let head = text.find("| metric |").unwrap_or(text.len());
    let expected = format!("{}{}", &text[..head], table::markdown());
    if std::env::var_os("PORTICO_BLESS").is_some() {
        std::fs::write(&file, &expected).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == expected,
        "docs/metrics.md is not what the program does: run this test with PORTICO_BLESS=1"
    );
}

/// Names in an expression that look like ours or the process's.
fn names(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let is_name = |word: &&str| {
        ["portico_", "kubeproxy_", "process_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    words.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_rules_name_only_metrics_that_exist() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let dashboard = std::fs::read_to_string(config.join("grafana/portico.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let mut used = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let found = names(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{target}");
            used.extend(found);
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        used.extend(names(variable["query"].as_str().unwrap()));
    }
    let rules = std::fs::read_to_string(config.join("prometheus/portico.rules.yaml")).unwrap();
    let expressions = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    let before = used.len();
    used.extend(expressions.flat_map(names));
    assert!(before > 15 && used.len() > before, "{used:?}");
    let unknown: Vec<&String> = used
        .iter()
        .filter(|name| !table::has_series(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn promtool_finds_nothing_wrong_with_rules_and_scrape() {
    in_namespace!(Root);
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: promtool (Debian package prometheus) is not installed");
        return;
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/portico.rules.yaml");
    let checked = Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    get(way(&program.wait_for_endpoints("web", 4), "ClusterIP")).unwrap();
    let (_, body) = ask(admin(&program), "/metrics", "localhost");
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    let checked = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned()
        + &String::from_utf8_lossy(&checked.stdout);
    // kube-proxy's own gauge is called so.
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("no_local_endpoints_total"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
