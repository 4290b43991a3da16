//! Endpoints as pods, slices and Endpoints objects make them (`service.go`, `endpointslice.go`,
//! `endpointslicemirroring.go`, `service_latency.go` of Kubernetes' `test/e2e/network`).

use std::{collections::BTreeSet, time::Instant};

use serde_json::Value;

use super::{address, backends, edit, pod, seen, service, slice, slice_of, these, up};
use crate::support::{
    client::{ANYWHERE, get_from, is_refused},
    namespace::in_namespace,
    program::{Program, way},
};

/// Slices of a Service as the API shows them.
fn slices(program: &Program, service: &str) -> Vec<Value> {
    let mut all = program.objects("endpointslices");
    all.retain(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    all
}

/// `address:port` of every endpoint in the slices of a Service.
fn listed(program: &Program, service: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for slice in slices(program, service) {
        let none = Vec::new();
        for endpoint in slice["endpoints"].as_array().unwrap_or(&none) {
            for port in slice["ports"].as_array().unwrap_or(&none) {
                let address = endpoint["addresses"][0].as_str().unwrap();
                found.insert(format!("{address}:{}", port["port"]));
            }
        }
    }
    found
}

#[test]
fn row_03_endpoints_follow_pods_that_come_and_go() {
    in_namespace!(Root);
    backends(2);
    let web = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: 9000}]",
    );
    let program = up(&[("web.yaml", &web)]);
    let door = way(&program.wait_for_endpoints("web", 0), "ClusterIP");
    for pods in [&[][..], &[1], &[1, 2], &[2], &[]] {
        let text: String = pods.iter().map(|&number| pod(number, "", "", "")).collect();
        program.write("pods.yaml", &text);
        program.wait_for_endpoints("web", pods.len());
        let expected: Vec<String> = pods
            .iter()
            .map(|&number| format!("{}:9000", address(number)))
            .collect();
        assert_eq!(listed(&program, "web"), expected.into_iter().collect());
        if pods.is_empty() {
            assert!(is_refused(ANYWHERE, door));
        } else {
            assert_eq!(seen(ANYWHERE, door, 2 * pods.len()), these(pods));
        }
    }
}

#[test]
fn row_03_each_of_several_ports_follows_the_pods_that_have_it() {
    in_namespace!(Root);
    backends(2);
    let ports = "ports: [{name: one, port: 80, targetPort: first}, {name: two, port: 81, targetPort: second}]";
    let web = service("web", &format!("selector: {{app: web}}, {ports}"));
    let first = pod(1, "", "", "").replace("name: http", "name: first");
    let second = pod(2, "", "", "").replace("name: http", "name: second");
    let program = up(&[
        ("web.yaml", &web),
        ("one.yaml", &first),
        ("two.yaml", &second),
    ]);
    let web = program.wait_for_endpoints("web", 1);
    let mut doors = [way(&web, "ClusterIP"); 2];
    doors[1].set_port(81);
    assert_eq!(seen(ANYWHERE, doors[0], 4), these(&[1]));
    assert_eq!(seen(ANYWHERE, doors[1], 4), these(&[2]));
    std::fs::remove_file(program.manifests().join("one.yaml")).unwrap();
    program.wait_for_endpoints("web", 0);
    assert!(is_refused(ANYWHERE, doors[0]));
    assert_eq!(seen(ANYWHERE, doors[1], 4), these(&[2]));
    std::fs::remove_file(program.manifests().join("two.yaml")).unwrap();
    program.wait_for("no endpoint", |status| {
        let ports = &status.services[0].ports;
        ports.iter().all(|port| port.endpoints.is_empty())
    });
    assert!(doors.iter().all(|&door| is_refused(ANYWHERE, door)));
    assert!(listed(&program, "web").is_empty());
}

#[test]
fn row_09_endpoints_object_is_mirrored_created_changed_and_deleted() {
    in_namespace!(Root);
    backends(3);
    let web = service("web", "ports: [{port: 80}]");
    let program = up(&[("web.yaml", &web)]);
    let endpoints = |subsets: &str| {
        format!("apiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\nsubsets: [{subsets}]\n")
    };
    let subset = |number: u8| {
        format!(
            "{{addresses: [{{ip: {}}}], ports: [{{port: 9000}}]}}",
            address(number)
        )
    };
    program.write("endpoints.yaml", &endpoints(&subset(1)));
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let manager = "endpointslice.kubernetes.io/managed-by";
    let by = "endpointslicemirroring-controller.k8s.io";
    for slice in slices(&program, "web") {
        assert_eq!(slice["metadata"]["labels"][manager], by, "{slice}");
    }
    assert_eq!(seen(ANYWHERE, door, 5), these(&[1]));
    edit(&program, "endpoints.yaml", &endpoints(&subset(2)));
    assert_eq!(seen(ANYWHERE, door, 5), these(&[2]));
    edit(
        &program,
        "endpoints.yaml",
        &endpoints(&format!("{}, {}", subset(2), subset(3))),
    );
    assert_eq!(seen(ANYWHERE, door, 6), these(&[2, 3]));
    std::fs::remove_file(program.manifests().join("endpoints.yaml")).unwrap();
    program.wait_for_endpoints("web", 0);
    assert!(listed(&program, "web").is_empty());
    assert!(is_refused(ANYWHERE, door));
}

#[test]
fn row_09_subsets_with_one_address_and_several_ports_are_all_mirrored() {
    in_namespace!(Root);
    backends(1);
    crate::support::backend::tcp((address(1), 9001), "second");
    let ports = "ports: [{name: one, port: 80}, {name: two, port: 81}]";
    let subset = |name: &str, port: u16| {
        let ip = address(1);
        format!("{{addresses: [{{ip: {ip}}}], ports: [{{name: {name}, port: {port}}}]}}")
    };
    let endpoints = format!(
        "---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\nsubsets: [{}, {}]\n",
        subset("one", 9000),
        subset("two", 9001)
    );
    let program = up(&[("web.yaml", &(service("web", ports) + &endpoints))]);
    let mut door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    assert_eq!(get_from(ANYWHERE, door).unwrap(), "b1");
    door.set_port(81);
    assert_eq!(get_from(ANYWHERE, door).unwrap(), "second");
}

#[test]
fn row_10_several_addresses_and_ports_come_from_several_slices() {
    in_namespace!(Root);
    backends(4);
    let ports = "ports: [{name: one, port: 80}, {name: two, port: 81}]";
    let text = service("web", ports)
        + &slice_of("web", "a", "{name: one, port: 9000}", &[(1, "")])
        + &slice_of("web", "b", "{name: one, port: 9000}", &[(2, "")])
        + &slice_of("web", "c", "{name: two, port: 9000}", &[(3, ""), (4, "")]);
    let program = up(&[("web.yaml", &text)]);
    let mut door = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
    assert_eq!(seen(ANYWHERE, door, 10), these(&[1, 2]));
    door.set_port(81);
    assert_eq!(seen(ANYWHERE, door, 10), these(&[3, 4]));
}

/// How many new Services row 11 takes the time of, in rounds of ten.
const SAMPLES: usize = 100;

#[test]
fn row_11_new_service_has_its_endpoint_and_is_served_as_soon_as_it_is_seen() {
    in_namespace!(Root);
    backends(1);
    let program = up(&[]);
    let mut times = Vec::new();
    for round in 0..SAMPLES / 10 {
        let names: Vec<String> = (0..10).map(|n| format!("web-{round}-{n}")).collect();
        let began = Instant::now();
        for name in &names {
            let text = service(name, "ports: [{port: 80}]") + &slice(name, &[(1, "")]);
            program.write(&format!("{name}.yaml"), &text);
        }
        for name in &names {
            let web = program.wait_for_endpoints(name, 1);
            times.push(began.elapsed());
            assert_eq!(listed(&program, name).len(), 1);
            assert_eq!(get_from(ANYWHERE, way(&web, "ClusterIP")).unwrap(), "b1");
        }
    }
    times.sort_unstable();
    println!(
        "from the file to the endpoint: median {:?}, longest {:?} of {}",
        times[times.len() / 2],
        times[times.len() - 1],
        times.len()
    );
    assert_eq!(times.len(), SAMPLES);
}

#[test]
fn row_17_endpoint_reaches_itself_through_its_service() {
    in_namespace!(Root);
    backends(1);
    let text = service("web", "ports: [{port: 80}]") + &slice("web", &[(1, "")]);
    let program = up(&[("web.yaml", &text)]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    for _ in 0..5 {
        assert_eq!(get_from(address(1), door).unwrap(), "b1");
    }
}

#[test]
fn row_27_terminating_and_unready_pods_serve_with_publish_not_ready_addresses_only() {
    in_namespace!(Root);
    backends(2);
    let web = |publish: bool| {
        let spec = format!(
            "type: NodePort, selector: {{app: web}}, publishNotReadyAddresses: {publish}, ports: [{{port: 80, targetPort: \
             9000, nodePort: 30080}}]"
        );
        service("web", &spec)
    };
    let unready = ", phase: Running, conditions: [{type: Ready, status: \"False\"}]";
    let ending = ", deletionTimestamp: \"2026-01-01T00:00:00Z\"";
    let pods = pod(1, "", "", unready) + &pod(2, ending, "", unready);
    let program = up(&[("web.yaml", &web(true)), ("pods.yaml", &pods)]);
    let status = program.wait_for_endpoints("web", 2);
    let doors = ["ClusterIP", "NodePort"].map(|kind| way(&status, kind));
    for door in doors {
        assert_eq!(seen(ANYWHERE, door, 10), these(&[1, 2]), "{door}");
    }
    program.write("web.yaml", &web(false));
    program.wait_for_endpoints("web", 0);
    for door in doors.into_iter().cycle().take(10) {
        assert!(is_refused(ANYWHERE, door), "{door}");
    }
    program.write("web.yaml", &web(true));
    program.wait_for_endpoints("web", 2);
    assert_eq!(seen(ANYWHERE, doors[0], 10), these(&[1, 2]));
}
