//! Whom nobody answers, and how that looks to them (`service.go`, `loadbalancer.go` of Kubernetes' `test/e2e/network`).

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{UNREADY, backends, edit, pod, seen, service, slice, these, up};
use crate::{
    support::{
        addr,
        client::{ANYWHERE, is_dropped, is_refused},
        host::{self, Host},
        namespace::in_namespace,
        program::way,
    },
    udp,
};

#[test]
fn row_16_without_endpoints_every_frontend_refuses_within_three_seconds() {
    in_namespace!(Root);
    let other = Host::join();
    backends(1);
    for policy in ["Cluster", "Local"] {
        let spec = format!(
            "type: NodePort, internalTrafficPolicy: {policy}, externalTrafficPolicy: {policy}, ports: [{{port: 80, nodePort: \
             30080}}]"
        );
        let program = up(&[("web.yaml", &service("web", &spec))]);
        let web = program.wait_for_endpoints("web", 0);
        let node = SocketAddr::from((host::HERE, 30080));
        let began = Instant::now();
        for door in [way(&web, "ClusterIP"), addr("127.0.0.1:30080"), node] {
            assert!(is_refused(ANYWHERE, door), "{policy} {door}");
        }
        assert!(other.run(|| is_refused(ANYWHERE, node)), "{policy}");
        assert!(began.elapsed() < Duration::from_secs(3));
        // An endpoint that is not ready is none.
        program.write("slice.yaml", &slice("web", &[(1, UNREADY)]));
        program.wait_for_object("endpointslices", "web-one", |_| true);
        assert!(is_refused(ANYWHERE, node), "{policy}");
    }
}

#[test]
fn row_16_without_endpoints_udp_is_refused() {
    in_namespace!(Root);
    let spec = "type: NodePort, ports: [{port: 80, nodePort: 30080, protocol: UDP}]";
    let program = up(&[("web.yaml", &service("web", spec))]);
    let web = program.wait_for_endpoints("web", 0);
    for kind in ["ClusterIP", "NodePort"] {
        let client = udp::client(way(&web, kind));
        let error = udp::ask(&client).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

#[test]
fn row_16_evicted_pods_leave_a_service_that_refuses() {
    in_namespace!(Root);
    backends(1);
    let web = service(
        "web",
        "selector: {app: web}, ports: [{port: 80, targetPort: 9000}]",
    );
    let program = up(&[("web.yaml", &web), ("pod.yaml", &pod(1, "", "", ""))]);
    let door = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    assert_eq!(seen(ANYWHERE, door, 2), these(&[1]));
    program.write(
        "pod.yaml",
        &pod(1, "", "", ", phase: Failed, reason: Evicted"),
    );
    program.wait_for_endpoints("web", 0);
    assert!(is_refused(ANYWHERE, door));
}

#[test]
fn row_20_label_of_another_proxy_hides_a_service_and_is_followed_live() {
    in_namespace!(Root);
    check_label("service.kubernetes.io/service-proxy-name: another");
}

#[test]
fn row_20_headless_label_hides_a_service_and_is_followed_live() {
    in_namespace!(Root);
    check_label("service.kubernetes.io/headless: \"\"");
}

/// One Service that has the label from the beginning, one that gets and loses it, one that never has it.
fn check_label(label: &str) {
    backends(3);
    let of = |name: &str, ip: u8, label: &str| {
        let text = service(
            name,
            &format!("clusterIP: 127.96.7.{ip}, ports: [{{port: 80}}]"),
        );
        let labels = format!("{{name: {name}, labels: {{{label}}}}}");
        text.replace(&format!("{{name: {name}}}"), &labels) + &slice(name, &[(ip, "")])
    };
    let program = up(&[
        ("hidden.yaml", &of("hidden", 1, label)),
        ("toggled.yaml", &of("toggled", 2, "")),
        ("plain.yaml", &of("plain", 3, "")),
    ]);
    let [hidden, toggled, plain] =
        [1, 2, 3].map(|n| SocketAddr::from((Ipv4Addr::new(127, 96, 7, n), 80)));
    assert!(is_refused(ANYWHERE, hidden));
    assert_eq!(seen(ANYWHERE, toggled, 5), these(&[2]));
    edit(&program, "toggled.yaml", &of("toggled", 2, label));
    assert!(is_refused(ANYWHERE, toggled));
    edit(&program, "toggled.yaml", &of("toggled", 2, ""));
    assert_eq!(seen(ANYWHERE, toggled, 5), these(&[2]));
    assert!(is_refused(ANYWHERE, hidden));
    edit(&program, "hidden.yaml", &of("hidden", 1, ""));
    assert_eq!(seen(ANYWHERE, hidden, 5), these(&[1]));
    assert_eq!(seen(ANYWHERE, plain, 5), these(&[3]));
}

#[test]
fn row_29_source_ranges_allow_and_deny_and_are_changed_live() {
    in_namespace!(Root);
    let other = Host::join();
    backends(1);
    let web = |ranges: &str| {
        let spec = format!(
            "type: LoadBalancer, loadBalancerIP: 10.77.0.1, loadBalancerSourceRanges: [{ranges}], ports: [{{port: 8080}}]"
        );
        service("web", &spec) + &slice("web", &[(1, "")])
    };
    let [here, there] = [Ipv4Addr::from(host::HERE), Ipv4Addr::from(host::THERE)];
    let program = up(&[("web.yaml", &web("10.77.0.2/32"))]);
    let door = way(&program.wait_for_endpoints("web", 1), "LoadBalancer");
    assert_eq!(door, SocketAddr::from((here, 8080)));
    assert_eq!(other.run(|| seen(there, door, 5)), these(&[1]));
    assert!(
        is_dropped(here, door),
        "the node itself is not in the range"
    );
    edit(&program, "web.yaml", &web("10.77.0.1/32"));
    assert_eq!(seen(here, door, 5), these(&[1]));
    assert!(other.run(|| is_dropped(there, door)));
    edit(&program, "web.yaml", &web("10.77.0.1/32, 10.77.0.2/32"));
    assert_eq!(seen(here, door, 5), these(&[1]));
    assert_eq!(other.run(|| seen(there, door, 5)), these(&[1]));
    edit(&program, "web.yaml", &web(""));
    assert_eq!(other.run(|| seen(there, door, 5)), these(&[1]));
}
