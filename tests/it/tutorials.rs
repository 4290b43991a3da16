//! The tutorials' manifests, a tutorial at a time: they load unmodified, and what their readers try works.

use std::{cell::Cell, collections::BTreeSet, net::SocketAddr, path::Path};

use portico::control::status::Status;

use crate::{
    balance::count,
    support::{
        addr, get,
        namespace::in_namespace,
        program::{Program, way},
    },
};

/// The files of one tutorial.
fn tutorial(name: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tutorials")
        .join(name);
    let entries = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let manifests = entries.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    let mut files: Vec<_> = manifests
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn up(files: &[(String, String)]) -> Program {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    Program::up(&["--simulate"], &files)
}

/// What the running program's DNS says, data by data.
fn resolved(program: &Program, name: &str) -> Vec<String> {
    let output = program.command(&["resolve", name, "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let records = answer["answers"].as_array().unwrap().iter();
    records
        .map(|record| record["data"].as_str().unwrap().to_owned())
        .collect()
}

fn pods(addr: SocketAddr, connections: usize) -> BTreeSet<String> {
    count(addr, connections, 1).into_keys().collect()
}

#[test]
fn deployment_and_service_answers_at_every_address_in_turn() {
    in_namespace!(Root);
    let program = up(&tutorial("deployment-service"));
    let service = program.wait_for_endpoints("sample-clusterip", 3);
    let node_port = program.wait_for_endpoints("sample-nodeport", 3);
    let balancer = program.wait_for_endpoints("sample-lb", 3);
    for door in [
        way(&service, "ClusterIP"),
        way(&node_port, "NodePort"),
        way(&balancer, "LoadBalancer"),
    ] {
        assert_eq!(pods(door, 3).len(), 3, "{door}");
    }
    assert_eq!(pods(addr("127.0.0.1:30080"), 3).len(), 3);
    assert_eq!(pods(addr("127.0.0.1:30082"), 3).len(), 3);
    assert_eq!(
        balancer.desired_load_balancer_ip,
        Some([192, 168, 99, 100].into())
    );
    let status = program.status();
    let external = status
        .listeners
        .iter()
        .find(|report| report.declared == addr("192.168.99.100:8080"))
        .unwrap();
    assert_eq!(external.state, "failed");
    assert!(
        external.fix.as_deref().unwrap().contains("192.168.99.100"),
        "{external:?}"
    );
    let edited = tutorial("deployment-service")
        .into_iter()
        .find(|(name, _)| name.contains("deployment"))
        .unwrap();
    let before: BTreeSet<String> = status.pods.iter().map(|pod| pod.name.clone()).collect();
    program.write(&edited.0, &edited.1.replace("nginx:1.13", "nginx:1.14"));
    program.wait_for("the new revision alone", |status| {
        status.pods.len() == 3
            && status
                .pods
                .iter()
                .all(|pod| pod.phase == "Running" && !before.contains(&pod.name))
    });
    assert_eq!(pods(way(&service, "ClusterIP"), 3).len(), 3);
}

#[test]
fn external_address_in_loopback_is_served() {
    in_namespace!(Root);
    let mut files = tutorial("deployment-service");
    for (_, text) in &mut files {
        *text = text.replace("192.168.99.100", "127.200.99.100");
    }
    let program = up(&files);
    program.wait_for_endpoints("sample-externalip", 3);
    program.wait_for_endpoints("sample-lb", 3);
    assert_eq!(pods(addr("127.200.99.100:8080"), 3).len(), 3);
    let findings = program.status().findings_text();
    assert!(
        findings.contains("127.200.99.100:8080/TCP is already served for Service"),
        "both claim it: {findings}"
    );
}

#[test]
fn two_labels_reach_only_the_summer_pods_and_the_next_edit_keeps_the_address() {
    in_namespace!(Root);
    let files = tutorial("two-labels");
    let text = |part: &str| {
        files
            .iter()
            .find(|(name, _)| name.contains(part))
            .unwrap()
            .1
            .clone()
    };
    let first = [
        ("replicasets.yaml".to_owned(), text("replicasets")),
        ("service.yaml".to_owned(), text("summer")),
        ("externalname.yaml".to_owned(), text("externalname")),
    ];
    let program = up(&first);
    let echo = program.wait_for_endpoints("echo", 2);
    let seen = pods(way(&echo, "ClusterIP"), 4);
    assert!(
        seen.len() == 2 && seen.iter().all(|pod| pod.starts_with("echo-summer-")),
        "{seen:?}"
    );
    for name in [
        "echo",
        "echo.default",
        "echo.default.svc.local",
        "echo.default.svc.cluster.local",
    ] {
        assert_eq!(
            resolved(&program, name),
            std::slice::from_ref(&echo.cluster_ip),
            "{name}"
        );
    }
    assert_eq!(resolved(&program, "gihyo"), ["gihyo.jp."], "an alias");
    program.write("service.yaml", &text("nodeport"));
    let node_port = program.wait_for_endpoints("echo", 3);
    assert_eq!(node_port.cluster_ip, echo.cluster_ip, "the address stays");
    assert_eq!(node_port.service_type, "NodePort");
    assert!((30_000..=32_767).contains(&node_port.ports[0].node_port.unwrap()));
    assert_eq!(pods(way(&node_port, "NodePort"), 3).len(), 3);
}

#[test]
fn load_balancer_has_an_address_at_once() {
    in_namespace!(Root);
    let program = up(&tutorial("load-balancer"));
    let service = program.wait_for_endpoints("echo-service", 3);
    assert_eq!(service.external_ips.len(), 1);
    assert_eq!(
        way(&service, "LoadBalancer"),
        SocketAddr::new(service.external_ips[0], 80)
    );
    assert_eq!(pods(way(&service, "LoadBalancer"), 3).len(), 3);
}

#[test]
fn wordpress_is_reached_by_its_node_port() {
    in_namespace!(Root);
    let program = up(&tutorial("wordpress"));
    program.wait_for_endpoints("wordpress", 1);
    assert!(
        get(addr("127.0.0.1:30180"))
            .unwrap()
            .starts_with("wordpress-")
    );
    let headless = program
        .status()
        .services
        .into_iter()
        .find(|service| service.name == "wordpress-mysql")
        .unwrap();
    assert_eq!(headless.cluster_ip, "None");
    let pod = program
        .status()
        .pods
        .into_iter()
        .find(|pod| pod.name == "wordpress-mysql")
        .unwrap();
    assert_eq!(
        resolved(&program, "wordpress-mysql"),
        [pod.ip.to_string()],
        "headless gives the pod"
    );
}

#[test]
fn rolling_update_never_has_fewer_than_ten_ready_pods() {
    in_namespace!(Root);
    let mut files = tutorial("rolling-update");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: nginx}\n\
                   spec: {selector: {run: nginx}, ports: [{port: 80}]}\n";
    files.push(("service.yaml".into(), service.into()));
    let program = up(&files);
    program.wait_for_endpoints("nginx", 10);
    let names = |status: &Status| -> BTreeSet<String> {
        status.pods.iter().map(|pod| pod.name.clone()).collect()
    };
    let old = names(&program.status());
    let edited = files[0].1.replace("nginx:1.9.10", "nginx:1.10");
    program.write(&files[0].0, &edited);
    let fewest = Cell::new(10);
    program.wait_for("the new revision alone", |status| {
        let nginx = status
            .services
            .iter()
            .find(|service| service.name == "nginx");
        let ready = nginx.unwrap().ports[0].endpoints.len();
        fewest.set(fewest.get().min(ready));
        ready == 10 && status.pods.len() == 10 && names(status).is_disjoint(&old)
    });
    assert_eq!(fewest.get(), 10);
}

#[test]
fn namespaces_and_probes_load_and_run() {
    in_namespace!(Root);
    let program = up(&tutorial("namespaces"));
    program.wait_for("three pods in dev", |status| {
        status.pods.len() == 3
            && status
                .pods
                .iter()
                .all(|pod| pod.namespace == "dev" && pod.phase == "Running")
    });
    drop(program);
    let probes = up(&tutorial("probes"));
    probes.wait_for("the pod", |status| {
        status
            .pods
            .iter()
            .any(|pod| pod.name == "kuard" && pod.phase == "Running")
    });
}

#[test]
fn malformed_service_fails_at_the_right_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tutorials/broken/malformed-service.yaml");
    let home = tempfile::tempdir().unwrap();
    let output = crate::support::program::portico(home.path())
        .arg("validate")
        .arg(&folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("malformed-service.yaml:4:"),
        "the list under metadata begins there: {text}"
    );
}
