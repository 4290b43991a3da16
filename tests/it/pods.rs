//! Simulated pods with the real child process.

use crate::support::{
    get,
    namespace::in_namespace,
    program::{Program, way},
};

const WEB: &str = include_str!("../../config/demo/web.yaml");

#[test]
fn replicas_edited_scale_and_template_edited_rolls() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    program.wait_for_endpoints("web", 4);
    program.write("web.yaml", &WEB.replace("replicas: 4", "replicas: 7"));
    program.wait_for_endpoints("web", 7);
    program.write("web.yaml", &WEB.replace("replicas: 4", "replicas: 2"));
    program.wait_for_endpoints("web", 2);
    program.wait_for("two pods", |status| status.pods.len() == 2);
}

#[test]
fn lost_pod_process_is_replaced_and_serves_again() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let web = program.wait_for_endpoints("web", 4);
    let generation = program.status().generation;
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", program.pid()))
        .unwrap_or_default();
    let listed = std::process::Command::new("pgrep")
        .args(["-P", &program.pid().to_string()])
        .output()
        .unwrap();
    let child = String::from_utf8_lossy(&listed.stdout).trim().to_owned();
    assert!(!child.is_empty(), "the pods' process: {children}");
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", &child])
            .status()
            .unwrap()
            .success()
    );
    program.wait_for("the pods to start again", |status| {
        status.generation.0 > generation.0 + 1
    });
    program.wait_for_endpoints("web", 4);
    assert!(get(way(&web, "ClusterIP")).unwrap().starts_with("web-"));
}

#[test]
fn privileged_container_port_moves_and_the_endpoints_say_so() {
    in_namespace!(Unprivileged);
    let text = WEB.replace("containerPort: 8080", "containerPort: 80");
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    let web = program.wait_for_endpoints("web", 4);
    assert!(
        web.ports[0]
            .endpoints
            .iter()
            .all(|endpoint| endpoint.address.port() == 10_080),
        "{web:?}"
    );
    assert!(
        program
            .status()
            .pods
            .iter()
            .all(|pod| pod.moved_ports == ["80->10080/TCP"])
    );
    assert!(get(way(&web, "ClusterIP")).unwrap().starts_with("web-"));
}

#[test]
fn without_simulation_the_tools_say_what_is_missing() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("web.yaml", WEB)]);
    let text = String::from_utf8_lossy(&program.command(&["status"]).stdout).into_owned();
    assert!(text.contains("no ready pod matches app=web"), "{text}");
}
