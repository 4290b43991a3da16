//! The first minute, step by step, as the README has it: as root, without any privilege, and under the limits that
//! containers usually have.

use crate::support::{
    get,
    namespace::in_namespace,
    program::{Program, way},
};

const WEB: &str = include_str!("../../config/demo/web.yaml");

/// What a newcomer does after the demo: serve a folder, look, ask for a name, reach it, edit it.
fn first_minute(expected_port: u16) {
    let text = WEB.replace("port: 8080\n      targetPort", "port: 80\n      targetPort");
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    let web = program.wait_for_endpoints("web", 4);
    let validate = program.command(&["validate", program.manifests().to_str().unwrap()]);
    assert_eq!(validate.status.code(), Some(0));
    let status = program.command(&["status"]);
    let table = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        table.contains("web") && table.contains("80:30080/TCP"),
        "{table}"
    );
    let door = way(&web, "ClusterIP");
    assert_eq!(door.port(), expected_port);
    if expected_port != 80 {
        assert!(
            table.contains(&door.to_string()) && table.contains("ip_unprivileged_port_start"),
            "{table}"
        );
    }
    let resolved = program.command(&["resolve", "web.default.svc.cluster.local"]);
    assert!(String::from_utf8_lossy(&resolved.stdout).contains(&web.cluster_ip));
    assert!(get(door).unwrap().starts_with("web-"));
    assert!(
        get("127.0.0.1:30080".parse().unwrap())
            .unwrap()
            .starts_with("web-")
    );
    program.write("web.yaml", &text.replace("replicas: 4", "replicas: 5"));
    program.wait_for_endpoints("web", 5);
}

#[test]
fn as_root_the_declared_port_is_served() {
    in_namespace!(Root);
    first_minute(80);
}

#[test]
fn without_privilege_a_port_that_may_be_bound_stands_in_and_the_fix_is_told() {
    in_namespace!(Unprivileged);
    first_minute(10_080);
}

/// The usual limits of a container: 1024 descriptors soft and hard, no capability, no folder for the run time.
#[test]
fn under_the_limits_of_a_container_it_works_too() {
    in_namespace!(Unprivileged);
    let limit = rustix::process::Rlimit {
        current: Some(1024),
        maximum: Some(1024),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    first_minute(10_080);
}
