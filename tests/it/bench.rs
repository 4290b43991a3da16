//! `portico bench`: the verdict on setups that are made even, random, weighted, sticky, skewed and broken on purpose.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use portico::control::status::Status;
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
        ("hash", &[1, 1, 1], "", "portico.dev/balance: maglev", ""),
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
        ("hash", "STICKY", "client-ip", 0),
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
    let missing = folder.path().join("no/such/folder/report.html");
    let (code, text) = run(&["--target", &url, "--html", missing.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("cannot write"), "{text}");
}

#[test]
fn bench_of_a_target_that_keeps_one_endpoint_is_even_only_if_there_is_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    // Ends with the tests.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"a\n");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&[][..], ("SINGLE", "single")),
        (&["--endpoints", "1"], ("EVEN", "single")),
        (&["--endpoints", "3"], ("UNEVEN", "sticky")),
    ] {
        let output = portico(folder.path())
            .args(["bench", "--target", &url, "-N", "40"])
            .args(args)
            .args(PATIENT)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict(&report), expected, "{report:#}");
    }
}

#[test]
fn bench_while_endpoints_come_and_go_has_epochs_and_counts_that_agree() {
    in_namespace!(Root);
    let text = pods("web", &[1, 1, 1], "") + &service("web", "", "");
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 3);
    // One client, so that requests are answered in the order in which they were sent, and no end but ours.
    let args = "web -d 2m -r 300 -c 1 --no-overhead --max-lag 1h -o json";
    let mut bench = program.shell(&format!("exec portico bench {args}"));
    let bench = bench.stdout(Stdio::piped()).spawn().unwrap();
    let serve_more = || {
        let accepted = |status: &Status| status.services[0].ports[0].accepted;
        let wanted = accepted(&program.status()) + 200;
        program.watch_for("requests", |status| accepted(status) >= wanted);
    };
    serve_more();
    let fewer = pods("web", &[1, 1], "") + &service("web", "", "");
    for (manifests, count) in [(&fewer, 2), (&text, 3)] {
        program.write("web.yaml", manifests);
        program.wait_for_endpoints("web", count);
        serve_more();
    }
    let id = bench.id().to_string();
    let interrupt = Command::new("kill").args(["-INT", &id]).status();
    assert!(interrupt.unwrap().success());
    let output = bench.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 3, "{report:#}");
    assert_eq!(report["run"]["failed"], 0, "{report:#}");
    for epoch in epochs {
        let members = epoch["members"].as_object().unwrap().len();
        for unit in ["connections", "requests", "bytes"] {
            assert!(epoch["units"].get(unit).is_some(), "{epoch:#}");
        }
        assert_eq!(epoch["order"]["usualGap"], members, "{epoch:#}");
    }
    assert_eq!(
        report["counts"]["mismatches"],
        serde_json::json!([]),
        "{report:#}"
    );
}

#[test]
fn bench_of_udp_and_dns_gives_the_verdict_of_their_own() {
    in_namespace!(Root);
    let text = pods("web", &[1, 1, 1], "")
        .replace("containerPort: 8080", "containerPort: 8080, protocol: UDP")
        + &service("web", "", "").replace("port: 80,", "port: 80, protocol: UDP,");
    let args = ["--simulate", "--dns-listen", "127.0.0.1:5353"];
    let program = Program::up(&args, &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 3);
    let (_, report) = bench(&program, &["web", "-N", "900", "-r", "2000"]);
    assert_eq!(verdict(&report), ("EVEN", "strict-rr"), "{report:#}");
    assert_eq!(
        report["counts"]["mismatches"],
        serde_json::json!([]),
        "{report:#}"
    );
    for (name, expected) in [
        ("web.default.svc.cluster.local?A", ("SINGLE", "single")),
        ("wbe.default.svc.cluster.local?A", ("BROKEN", "failing")),
    ] {
        let url = format!("dns://127.0.0.1:5353/{name}");
        let (_, report) = bench(&program, &["--target", &url, "-N", "50"]);
        assert_eq!(verdict(&report), expected, "{report:#}");
    }
}

/// `PORTICO_BLESS=1` writes the table anew, to be read before it is committed.
#[test]
fn table_of_bench_figures_is_the_programs_own() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bench.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let head = text.find("| figure |").unwrap_or(text.len());
    let expected = format!("{}{}", &text[..head], portico::bench::figure::markdown());
    if std::env::var_os("PORTICO_BLESS").is_some() {
        std::fs::write(&file, &expected).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == expected,
        "docs/bench.md is not what the program does: run this test with PORTICO_BLESS=1"
    );
}

/// Every field at the top is in the table of the page, and the other way round.
#[test]
fn fields_of_a_bench_report_are_those_of_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let output = portico(folder.path())
        .args(["bench", "--target", "tcp://127.0.0.1:1", "-N", "1"])
        .args(PATIENT)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields: Vec<&String> = report.as_object().unwrap().keys().collect();
    let page = include_str!("../../docs/bench.md");
    let table = page.split("| field | holds |").nth(1).unwrap();
    let table = table.split("\n\n").next().unwrap();
    let mut told: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    told.sort_unstable();
    let mut fields: Vec<&str> = fields.into_iter().map(|field| &**field).collect();
    fields.sort_unstable();
    assert_eq!(told, fields);
}
