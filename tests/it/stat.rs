//! `portico stat` and `portico top` beside exact traffic.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Output, Stdio},
};

use serde_json::Value;

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
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  selector: {app: web}
  clusterIP: None
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

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn port(program: &Program, service: &str) -> Value {
    let said = text(&program.command(&["stat", service, "-o", "json"]));
    let stat: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(stat["schema"], "portico.dev/stat/v1");
    let ports = stat["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 1, "{said}");
    ports[0].clone()
}

fn window(of: &Value, name: &str) -> Value {
    let windows = of["windows"].as_array().unwrap();
    let found = windows.iter().find(|window| window["window"] == name);
    found.unwrap().clone()
}

/// So many connections, all of them over.
fn connect(program: &Program, service: &str, times: usize) {
    let at = way(&program.wait_for_endpoints(service, 4), "ClusterIP");
    for _ in 0..times {
        get(at).unwrap();
    }
    program.wait_for_connections_to_end();
}

#[test]
fn stat_after_exact_traffic_counts_it_and_a_mark_begins_anew() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "web", 40);
    let web = port(&program, "service/web");
    assert_eq!(web["counts"]["connections"], 40);
    assert_eq!(web["counts"]["picks"], 40);
    assert_eq!(web["counts"]["residual"], 0);
    assert_eq!((&web["ready"], &web["declared"]), (&4.into(), &4.into()));
    assert_eq!(window(&web, "epoch")["verdict"], "even");
    assert_eq!(window(&web, "epoch")["evenness"]["picks"]["spread"], 0.0);
    for endpoint in web["endpoints"].as_array().unwrap() {
        assert_eq!(endpoint["picks"], 10);
        assert_eq!(window(endpoint, "epoch")["share"], 0.25);
        assert_eq!(endpoint["expected"], 0.25);
        assert_eq!(endpoint["connect"]["count"], 10);
        assert!(endpoint["pod"].as_str().unwrap().starts_with("web-"));
    }

    let detail = text(&program.command(&["stat", "svc/web"]));
    for said in [
        "Service default/web, port 80/TCP, IPv4\n",
        "Balance:  round-robin over 4 endpoints (4/4 ready)\n",
        "Verdict:  even: n=40 k=4 max-min=0 cov=0.0000",
        "40 connections (0 active), 40 picks, 0 retries, 0 rejected, residual 0",
        "[     |     ] +0.0%",
    ] {
        assert!(detail.contains(said), "{said}: {detail}");
    }
    assert!(!detail.contains("because"), "{detail}");

    text(&program.command(&["stat", "--mark"]));
    let marked = port(&program, "web");
    assert_eq!(window(&marked, "mark")["picks"], 0);
    assert_eq!(window(&marked, "mark")["verdict"], Value::Null);
    connect(&program, "web", 8);
    let after = port(&program, "web");
    assert_eq!(window(&after, "mark")["picks"], 8);
    assert_eq!(window(&after, "epoch")["picks"], 48);
    let endpoints = after["endpoints"].as_array().unwrap();
    assert!(endpoints.iter().all(|of| window(of, "mark")["picks"] == 2));
}

#[test]
fn stat_of_sticky_clients_says_why_it_is_not_even() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "sticky", 60);
    let sticky = window(&port(&program, "sticky"), "epoch");
    assert_eq!(sticky["verdict"], "uneven");
    let because = sticky["unevenBecause"][0].as_str().unwrap();
    assert!(because.contains("59 of 60 picks"), "{because}");
    assert_eq!(sticky["evenness"]["turns"]["total"], 1.0);
    let detail = text(&program.command(&["stat", "sticky"]));
    assert!(
        detail.contains("Uneven because:\n  session affinity"),
        "{detail}"
    );
    let table = text(&program.command(&["stat"]));
    let even: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        even[0].join(" "),
        "NAME PORT READY RATE ACTIVE BYTES/S ERR% P50 P99 EVEN"
    );
    assert_eq!((even[1][0], even[1][9]), ("sticky", "uneven"));
    assert_eq!((even[2][0], even[2][2], even[2][9]), ("web", "4/4", "-"));
    assert_eq!(even.len(), 3, "headless Services count nothing: {table}");
}

#[test]
fn stat_after_a_change_of_the_endpoints_begins_another_epoch() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "web", 20);
    // Whoever asks makes the sampler look.
    port(&program, "web");
    text(&program.command(&["scale", "deployment/web", "--replicas", "5"]));
    program.wait_for_endpoints("web", 5);
    let web = port(&program, "web");
    let joined = web["epoch"]["joined"].as_array().unwrap();
    assert_eq!(joined.len(), 1);
    assert_eq!(window(&web, "epoch")["picks"], 0);
    assert_eq!(web["counts"]["picks"], 20);
    assert_eq!(window(&web, "mark")["picks"], 20, "of the port as a whole");
    let endpoints = web["endpoints"].as_array().unwrap();
    let total = |of: &&Value| of["picks"] == 5;
    assert_eq!(endpoints.iter().filter(total).count(), 4);
    let detail = text(&program.command(&["stat", "web"]));
    let joined = format!("{} joined\n", joined[0].as_str().unwrap());
    assert!(detail.contains(&joined), "{detail}");
}

#[test]
fn stat_in_the_first_moments_of_a_service_tells_no_rate_beyond_what_it_counted() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "web", 20);
    let rate = &window(&port(&program, "web"), "10s")["connectionsPerSecond"];
    let rate = rate.as_f64().unwrap();
    assert!((0.1..=20.0).contains(&rate), "{rate}");
}

#[test]
fn stat_says_of_each_port_what_it_counts() {
    in_namespace!(Root);
    let shop = "\
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  ports:
  - {name: db, port: 5432}
  - {name: dns, port: 53, protocol: UDP}
  - {name: web, port: 80, appProtocol: http}
";
    let program = Program::up(&[], &[("shop.yaml", shop)]);
    let table = text(&program.command(&["stat"]));
    let column = |at: usize| -> Vec<&str> {
        let lines = table.lines();
        lines
            .map(|line| line.split_whitespace().nth(at).unwrap())
            .collect()
    };
    assert_eq!(column(1), ["PORT", "5432/TCP", "53/UDP", "80/TCP"]);
    assert_eq!(column(3), ["RATE", "0conn/s", "0flow/s", "0req/s"]);
    let detail = text(&program.command(&["stat", "shop"]));
    for unit in ["connections", "flows", "requests"] {
        let said = format!("Totals:   0 {unit} (0 active)");
        assert!(detail.contains(&said), "{detail}");
    }
}

#[test]
fn stat_of_nobody_says_so_as_kubectl_does() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let refused = |args: &[&str], expected: &str| {
        let output = program.command(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), said.trim_end()),
            (Some(1), expected),
            "{args:?}"
        );
    };
    let unknown = "Error from server (NotFound): services \"nope\" not found";
    refused(&["stat", "nope"], unknown);
    refused(&["stat", "service/nope", "-o", "json"], unknown);
    refused(&["stat", "pod/x"], "error: pod/x is no Service");
    refused(
        &["stat", "web", "-A"],
        "error: a resource cannot be retrieved by name across all namespaces",
    );
    let headless = program.command(&["stat", "headless"]);
    let said = String::from_utf8(headless.stderr).unwrap();
    assert!(said.contains("has no address of its own"), "{said}");
    for args in [
        ["stat", "-n", "empty", "-otext"],
        ["top", "-n", "empty", "--once"],
    ] {
        let output = program.command(&args);
        assert!(output.status.success() && output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, "No resources found in empty namespace.\n");
    }
}

#[test]
fn stat_is_read_over_tcp_too_and_marks_are_not_set_there() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "web", 4);
    let admin = program.status().admin.unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    };
    let (status, body) = ask("GET /v1/stat/default/web");
    let one: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(one["ports"][0]["counts"]["connections"], 4);
    let (status, body) = ask("GET /v1/stat?endpoints=false");
    let all: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, all["ports"].as_array().unwrap().len()), (200, 2));
    assert_eq!(all["ports"][0]["endpoints"], Value::Array(vec![]));
    assert_eq!(ask("GET /v1/stat/default/nope").0, 404);
    assert_eq!(ask("POST /v1/mark").0, 404);
}

#[test]
fn top_prints_one_table_or_one_after_another_until_its_reader_has_gone() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    connect(&program, "web", 12);
    let once = text(&program.command(&["top", "-A", "--once", "--window", "epoch"]));
    let lines: Vec<&str> = once.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE   NAME"), "{once}");
    assert!(
        lines[1].starts_with("default     web "),
        "the busiest: {once}"
    );
    assert!(!once.contains('\x1b'), "{once}");
    let endpoints = text(&program.command(&["top", "endpoints", "--once"]));
    assert_eq!(endpoints.lines().count(), 1 + 8, "{endpoints}");
    assert_eq!(endpoints.matches("25.0%   25.0%").count(), 4, "{endpoints}");

    let mut shell = program.shell("exec portico top --interval 100ms");
    let mut top = shell.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let heads = lines
        .map(Result::unwrap)
        .filter(|line| line.starts_with("NAME "));
    assert_eq!(heads.take(3).count(), 3);
    // The reader has gone with the iterator.
    assert!(top.wait().unwrap().success());
}
