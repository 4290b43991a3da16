//! Services that come, go and roll over (`service.go`, `loadbalancer.go` of Kubernetes' `test/e2e/network`).

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use super::{backends, edit, seen, service, slice, these, up};
use crate::{
    rollouts::{Seen, keep_connecting},
    support::{
        client::{ANYWHERE, is_refused},
        host::{self, Host},
        namespace::in_namespace,
        program::{Program, way},
    },
};

fn web(name: &str, backend: u8) -> String {
    service(name, "ports: [{port: 80}]") + &slice(name, &[(backend, "")])
}

fn door(program: &Program, name: &str) -> SocketAddr {
    way(&program.wait_for_endpoints(name, 1), "ClusterIP")
}

#[test]
fn row_19_services_go_up_and_down_without_the_others() {
    in_namespace!(Root);
    backends(3);
    let program = up(&[("a.yaml", &web("a", 1)), ("b.yaml", &web("b", 2))]);
    let [a, b] = ["a", "b"].map(|name| door(&program, name));
    assert_eq!(seen(ANYWHERE, a, 5), these(&[1]));
    assert_eq!(seen(ANYWHERE, b, 5), these(&[2]));
    let before = program.status().generation;
    std::fs::remove_file(program.manifests().join("a.yaml")).unwrap();
    program.wait_for("a is gone", |status| status.generation > before);
    assert!(is_refused(ANYWHERE, a));
    assert_eq!(seen(ANYWHERE, b, 5), these(&[2]));
    edit(&program, "c.yaml", &web("c", 3));
    let c = door(&program, "c");
    assert_eq!(seen(ANYWHERE, c, 5), these(&[3]));
    assert_eq!(seen(ANYWHERE, b, 5), these(&[2]));
    assert!(b != c);
}

#[test]
fn row_19_services_work_after_the_proxy_was_restarted() {
    in_namespace!(Root);
    backends(2);
    let text = service("b", "type: NodePort, ports: [{port: 80}]") + &slice("b", &[(2, "")]);
    let mut program = up(&[("a.yaml", &web("a", 1)), ("b.yaml", &text)]);
    let doors = |program: &Program| {
        let b = program.wait_for_endpoints("b", 1);
        [
            door(program, "a"),
            way(&b, "ClusterIP"),
            way(&b, "NodePort"),
        ]
    };
    let before = doors(&program);
    program.restart();
    assert_eq!(doors(&program), before, "the same addresses and node port");
    assert_eq!(seen(ANYWHERE, before[0], 5), these(&[1]));
    for door in &before[1..] {
        assert_eq!(seen(ANYWHERE, *door, 5), these(&[2]));
    }
}

#[test]
fn row_19_service_deleted_and_created_again_works() {
    in_namespace!(Root);
    backends(1);
    let program = up(&[("a.yaml", &web("a", 1))]);
    let first = door(&program, "a");
    assert_eq!(seen(ANYWHERE, first, 5), these(&[1]));
    std::fs::remove_file(program.manifests().join("a.yaml")).unwrap();
    program.wait_for("it is gone", |status| status.services.is_empty());
    assert!(is_refused(ANYWHERE, first));
    program.write("a.yaml", &web("a", 1));
    assert_eq!(seen(ANYWHERE, door(&program, "a"), 5), these(&[1]));
}

/// Three pods behind a node port.
fn rolling(policy: &str, image: u8) -> String {
    let spec = format!(
        "type: NodePort, externalTrafficPolicy: {policy}, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080, \
         nodePort: 30080}}]"
    );
    service("web", &spec)
        + &format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  selector: \
             {{matchLabels: {{app: web}}}}\n  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}\n  template:\n    \
             metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: web, image: 'web:{image}', ports: \
             [{{containerPort: 8080}}]}}]}}\n"
        )
}

#[test]
fn row_33_rolling_update_disrupts_nobody_external_cluster() {
    in_namespace!(Root);
    check_rolling("Cluster");
}

#[test]
fn row_33_rolling_update_disrupts_nobody_external_local() {
    in_namespace!(Root);
    check_rolling("Local");
}

/// Clients here and on another machine connect all the time while the pods are replaced.
fn check_rolling(policy: &str) {
    let other = Host::join();
    let program = Program::up(
        &["--node-name", "n1", "--simulate"],
        &[("web.yaml", &rolling(policy, 0))],
    );
    program.wait_for_endpoints("web", 3);
    let (stop, near, far) = (AtomicBool::new(false), Seen::default(), Seen::default());
    let [local, node] = [[127, 0, 0, 1], host::HERE].map(|ip| SocketAddr::from((ip, 30080)));
    std::thread::scope(|scope| {
        scope.spawn(|| keep_connecting(local, &stop, &near));
        scope.spawn(|| other.run(|| keep_connecting(node, &stop, &far)));
        for image in 1..=3 {
            let old: Vec<String> = program
                .status()
                .pods
                .iter()
                .map(|pod| pod.name.clone())
                .collect();
            program.write("web.yaml", &rolling(policy, image));
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                program.wait_for("the new pods alone", |status| {
                    let pods = &status.pods;
                    pods.len() == 3 && pods.iter().all(|pod| !old.contains(&pod.name))
                });
            }));
            if done.is_err() {
                stop.store(true, SeqCst);
                panic!("rollout {image} did not end");
            }
        }
        stop.store(true, SeqCst);
    });
    for seen in [&near, &far] {
        let (answered, lost) = (seen.answered.load(SeqCst), seen.lost.load(SeqCst));
        println!("{policy}: {answered} connections answered, {lost} lost");
        assert_eq!(lost, 0);
        assert!(answered > 10);
    }
}
