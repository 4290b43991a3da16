//! Mistakes that only a running program can make: what `explain` says first, and what to type.

use std::{net::TcpListener, time::Instant};

use portico::explain::{Cause, Explanation, State};

use crate::support::{PATIENCE, namespace::in_namespace, program::Program};

/// A Service with one process behind it.
fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n{spec}---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  labels: \
         {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{port: 9}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

fn explained(program: &Program, name: &str) -> Explanation {
    let output = program.command(&["explain", "service", name, "-o", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asks again until the explanation is as wanted: neither a probe's result nor a refused file makes a generation.
fn wait_for(program: &Program, name: &str, done: impl Fn(&Explanation) -> bool) -> Explanation {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let explanation = explained(program, name);
        if done(&explanation) {
            return explanation;
        }
        assert!(Instant::now() < deadline, "{explanation:#?}");
    }
}

#[test]
fn port_in_use_is_named_with_its_holder_and_what_stands_in() {
    in_namespace!(Root);
    let _holder = TcpListener::bind("0.0.0.0:8080").unwrap();
    let text = service("web", "  ports: [{port: 8080}]\n");
    let program = Program::up(&[], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 1);
    let explanation = explained(&program, "web");
    let first = &explanation.problems[0];
    assert_eq!(first.cause, Cause::BoundElsewhere);
    assert!(first.text.contains("ddress already in use"), "{first:?}");
    let holder = format!("pid {}", std::process::id());
    assert!(first.text.contains(&holder), "{first:?}");
    assert!(
        first.fix.as_deref().unwrap().contains("127.0.0.1"),
        "{first:?}"
    );
    assert_eq!(explanation.state, State::Served);
    let bound = explanation.addresses[0].bound.as_deref().unwrap();
    assert!(bound.ends_with(":18080"), "{bound}");
    let attempt = explanation.attempt.as_deref().unwrap();
    assert_eq!(attempt, format!("curl http://{bound}/"));
}

#[test]
fn privileged_port_is_named_with_the_setting_that_gives_it() {
    in_namespace!(Unprivileged);
    let text = service("web", "  ports: [{port: 80}]\n");
    let program = Program::up(&[], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 1);
    let explanation = explained(&program, "web");
    let first = &explanation.problems[0];
    assert_eq!(first.cause, Cause::BoundElsewhere);
    assert!(first.text.contains("ermission denied"), "{first:?}");
    let fix = first.fix.as_deref().unwrap();
    assert!(fix.contains("ip_unprivileged_port_start=53"), "{fix}");
}

#[test]
fn external_address_of_two_services_is_named_with_its_owner() {
    in_namespace!(Root);
    let spec = "  externalIPs: [127.1.2.3]\n  ports: [{port: 8080}]\n";
    let files = [
        ("a.yaml", &*service("first", spec)),
        ("b.yaml", &*service("web", spec)),
    ];
    let program = Program::up(&[], &files);
    program.wait_for_endpoints("web", 1);
    let first = explained(&program, "web").problems.remove(0);
    assert_eq!(first.cause, Cause::AddressTaken);
    assert!(
        first
            .text
            .starts_with("127.1.2.3:8080/TCP is served for Service default/first"),
        "{first:?}"
    );
    assert_eq!(explained(&program, "first").problems, []);
}

#[test]
fn rejected_edit_is_named_while_the_version_before_serves() {
    in_namespace!(Root);
    let text = service("web", "  ports: [{port: 8080}]\n");
    let program = Program::up(&[], &[("web.yaml", &text)]);
    program.wait_for_endpoints("web", 1);
    assert_eq!(explained(&program, "web").problems, []);
    program.write("web.yaml", &text.replace("port: 8080", "port: 99999"));
    let explanation = wait_for(&program, "web", |explanation| {
        !explanation.problems.is_empty()
    });
    assert_eq!(explanation.state, State::Served);
    let first = &explanation.problems[0];
    assert_eq!(first.cause, Cause::Rejected);
    assert!(
        first
            .text
            .contains("stays in force: spec.ports[0].port: Invalid value: 99999"),
        "{first:?}"
    );
    assert!(
        first.at.as_deref().unwrap().ends_with("web.yaml:5"),
        "{first:?}"
    );
    program.write("web.yaml", &text);
    wait_for(&program, "web", |explanation| {
        explanation.problems.is_empty()
    });
}

#[test]
fn endpoint_unready_by_its_probe_is_named_with_what_the_probe_said() {
    in_namespace!(Root);
    let text = service("web", "  ports: [{port: 8080}]\n").replace(
        "labels:",
        "annotations: {portico.dev/readiness-probe: tcp}\n  labels:",
    );
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let is_told = |explanation: &Explanation| {
        let first = explanation.problems.first();
        first.is_some_and(|first| first.text.contains("Readiness probe failed"))
    };
    let explanation = wait_for(&program, "web", is_told);
    let first = &explanation.problems[0];
    assert_eq!(first.cause, Cause::NotReady);
    assert!(first.text.contains("127.0.0.1:9"), "{first:?}");
    assert!(first.text.contains("connection refused"), "{first:?}");
    assert_eq!(explanation.endpoints[0].source, "EndpointSlice web-1");
    assert_eq!(explanation.state, State::Refused);
    let headline = "web refuses connections: no usable endpoint, because no endpoint is ready";
    assert_eq!(explanation.headline, headline);
}

#[test]
fn pod_unready_by_its_probe_is_named_with_what_the_probe_said() {
    in_namespace!(Root);
    let text = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8080, targetPort: 9}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec:
  containers:
    - name: main
      image: example/web:1
      ports: [{containerPort: 9}]
      readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 1}
status: {podIP: 127.0.0.1}
";
    let program = Program::up(&[], &[("web.yaml", text)]);
    let is_told = |explanation: &Explanation| {
        let first = explanation.problems.first();
        first.is_some_and(|first| first.text.contains("Readiness probe failed"))
    };
    let explanation = wait_for(&program, "web", is_told);
    let first = &explanation.problems[0];
    assert_eq!(first.cause, Cause::NotReady);
    assert!(first.text.contains("connection refused"), "{first:?}");
    assert_eq!(explanation.state, State::Refused);
    let headline = "web refuses connections: no usable endpoint, because no endpoint is ready";
    assert_eq!(explanation.headline, headline);
}

#[test]
fn service_that_is_not_there_is_said_in_kubectls_words() {
    in_namespace!(Root);
    let text = service("web", "  ports: [{port: 8080}]\n");
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let output = program.command(&["explain", "service", "wbe"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected =
        "Error from server (NotFound): services \"wbe\" not found\nDid you mean \"web\"?\n";
    assert_eq!(errors, expected);
}

#[test]
fn text_begins_with_the_verdict_and_ends_with_what_to_try() {
    in_namespace!(Root);
    let text = service("web", "  ports: [{port: 8080}]\n");
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let door = program.wait_for_endpoints("web", 1).cluster_ip;
    let output = program.command(&["explain", "svc/web"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("web is served: 1 of 1 endpoint on 1 port\n"),
        "{said}"
    );
    assert!(
        said.ends_with(&format!("Try: curl http://{door}:8080/\n")),
        "{said}"
    );
}

#[test]
fn change_at_run_time_is_named_beside_what_it_causes() {
    in_namespace!(Root);
    let text = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: 'web:1', ports: [{containerPort: 8080}]}]}
";
    let program = Program::up(&["--simulate"], &[("web.yaml", text)]);
    program.wait_for_endpoints("web", 2);
    assert_eq!(explained(&program, "web").overrides, [""; 0]);
    let scaled = program.command(&["scale", "deployment/web", "--replicas=0"]);
    assert_eq!(scaled.status.code(), Some(0), "{scaled:?}");
    let explanation = wait_for(&program, "web", |of| of.endpoints.is_empty());
    assert_eq!(explanation.overrides, ["deployment.apps/web: replicas=0"]);
    assert_eq!(explanation.problems[0].cause, Cause::NoPods);
    let fix = explanation.problems[0].fix.as_deref();
    assert_eq!(fix, Some("portico scale deployment/web --replicas=1"));
}
