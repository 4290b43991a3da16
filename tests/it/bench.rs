//! `portico bench`: the verdict on setups that are made even, random, weighted, sticky, skewed and broken on purpose.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use serde_json::Value;

use crate::support::{
    namespace::in_namespace,
    program::{Program, portico},
};

/// Machines are noisy: what is proved here does not depend on it.
const PATIENT: [&str; 4] = ["--max-lag", "1h", "-o", "json"];

fn bench(program: &Program, args: &[&str]) -> (Option<i32>, Value) {
    let output = program.command(&[&["bench"], args, &PATIENT].concat());
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code(), report)
}

fn verdict(report: &Value) -> (&str, &str) {
    let part = |name: &str| report["verdict"][name].as_str().unwrap();
    (part("word"), part("pattern"))
}

fn pods(name: &str, weights: &[u16], annotations: &str) -> String {
    let pod = |(place, weight): (usize, &u16)| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-{place}\n  labels: {{app: {name}}}\n  annotations: \
             {{portico.dev/weight: \"{weight}\"{annotations}}}\nspec:\n  containers:\n    - name: web\n      image: web\n      \
             ports: [{{containerPort: 8080}}]\n---\n"
        )
    };
    weights.iter().enumerate().map(pod).collect()
}

fn service(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {{{annotations}}}\nspec:\n  selector: \
         {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n{spec}"
    )
}

#[test]
fn bench_of_setups_made_on_purpose_gives_the_right_verdict() {
    in_namespace!(Root);
    let files = [
        ("even", &[1, 1, 1][..], "", "", ""),
        ("weighted", &[3, 2, 1], "", "", ""),
        ("random", &[1, 1, 1], "", "portico.dev/balance: random", ""),
        (
            "sticky",
            &[1, 1, 1],
            "",
            "",
            "  sessionAffinity: ClientIP\n",
        ),
        (
            "broken",
            &[1, 1, 1],
            ", portico.dev/error-rate: \"20%\"",
            "",
            "",
        ),
    ]
    .map(|(name, weights, pod, annotations, spec)| {
        let text = pods(name, weights, pod) + &service(name, annotations, spec);
        (format!("{name}.yaml"), text)
    });
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let program = Program::up(&["--simulate"], &files);
    for (name, word, pattern, code) in [
        ("even", "EVEN", "strict-rr", 0),
        ("weighted", "WEIGHTED", "weighted-rr", 0),
        ("random", "EVEN", "random", 0),
        ("sticky", "STICKY", "client-ip", 0),
        ("broken", "BROKEN", "failing", 1),
    ] {
        program.wait_for_endpoints(name, 3);
        let args = [name, "-N", "600", "-r", "2000", "--no-overhead"];
        let (exit, report) = bench(&program, &args);
        assert_eq!(verdict(&report), (word, pattern), "{name}: {report:#}");
        assert_eq!(exit, Some(code), "{name}");
        assert_eq!(report["run"]["requests"], 600, "{name}");
        assert_eq!(
            report["counts"]["mismatches"],
            serde_json::json!([]),
            "{name}: {report:#}"
        );
    }
}

#[test]
fn bench_of_any_target_judges_who_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve_skewed(&listener, &over));
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("report.html");
        let url = format!("http://{target}/");
        let args = [
            "bench",
            "--target",
            &url,
            "-N",
            "400",
            "-r",
            "2000",
            "--identify",
            "header:x-who",
        ];
        let files = ["--html", page.to_str().unwrap(), "--fail-if", "errors>0"];
        let output = portico(folder.path())
            .args(args)
            .args(files)
            .args(PATIENT)
            .output()
            .unwrap();
        over.store(true, Relaxed);
        let _ = std::net::TcpStream::connect(target);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict(&report), ("UNEVEN", "skewed"), "{report:#}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(report["gates"][0]["fails"], false);
        let observed = |place: usize| report["units"][0]["shares"][place]["observed"].clone();
        assert_eq!((observed(0), observed(1)), (300.into(), 100.into()));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("<svg") && page.contains("UNEVEN") && !page.contains("http://cdn"));
    });
}

/// Answers a request a connection; three in four are signed by the same.
fn serve_skewed(listener: &TcpListener, over: &AtomicBool) {
    for (place, stream) in listener.incoming().enumerate() {
        if over.load(Relaxed) {
            return;
        }
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let who = if place % 4 == 0 { "b" } else { "a" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nx-who: {who}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes());
    }
}

#[test]
fn bench_of_kept_connections_overhead_and_comparison() {
    in_namespace!(Root);
    let text = pods("web", &[1, 1], "") + &service("web", "", "");
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 2);
    let (_, kept) = bench(
        &program,
        &["service/web:80", "-k", "-c", "4", "-N", "400", "-r", "4000"],
    );
    assert_eq!(kept["run"]["connections"], 4, "{kept:#}");
    assert_eq!(kept["units"][0]["unit"], "requests");
    assert_eq!(kept["run"]["failed"], 0);
    assert_eq!(kept["overhead"]["pairs"], 6, "{kept:#}");
    assert_eq!(kept["overhead"]["failed"], 0);
    let files = ["a.json", "b.json"].map(|name| {
        let file = program.manifests().with_extension(name);
        std::fs::write(&file, kept.to_string()).unwrap();
        file
    });
    let output = program.command(&[
        "bench",
        "compare",
        files[0].to_str().unwrap(),
        files[1].to_str().unwrap(),
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("p99") && text.contains('='), "{text}");
    let (code, failing) = bench(
        &program,
        &["web", "-N", "50", "--no-overhead", "--fail-if", "p50>1us"],
    );
    assert_eq!(
        (code, &failing["gates"][0]["fails"]),
        (Some(1), &Value::Bool(true))
    );
}

#[test]
fn bench_without_something_to_ask_says_so() {
    let target: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = portico(folder.path())
            .arg("bench")
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, text) = run(&[]);
    assert_eq!(code, Some(2), "{text}");
    let (code, text) = run(&["web"]);
    assert!(
        code == Some(1) && text.contains("no portico runs"),
        "{text}"
    );
    let (code, text) = run(&["--target", "ftp://x"]);
    assert!(code == Some(2) && text.contains("is no target"), "{text}");
    let url = format!("tcp://{target}");
    let (code, text) = run(&["--target", &url, "-N", "20", "--max-lag", "1h"]);
    assert!(
        code == Some(1) && text.starts_with("BROKEN failing"),
        "{text}"
    );
    assert!(text.contains("20  connection refused"), "{text}");
}
