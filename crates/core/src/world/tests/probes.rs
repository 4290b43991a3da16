//! Probes of declared pods and of hand-written endpoints: what is asked for, and what an answer does to endpoints.

use std::time::Duration;

use super::*;
use crate::{
    object::{
        Container, ContainerPort, EndpointProbe, Probe, ProbeCheck, annotations::READINESS_PROBE,
    },
    world::{
        pods::PodKey,
        probes::{ProbeKey, ProbeKind, ProbeObservation, ProbeOutcome, ProbeSubject, ProbeTargets},
    },
};

fn tcp(port: TargetPort) -> Arc<Probe> {
    let probe = EndpointProbe::parse("tcp").unwrap().probe(1);
    let check = ProbeCheck::TcpSocket { port, host: None };
    Arc::new(Probe { check, ..probe })
}

fn container(name: &str) -> Container {
    Container {
        name: name.into(),
        ports: vec![ContainerPort {
            name: "web".into(),
            container_port: 9000,
            protocol: TCP,
        }],
        ..Container::default()
    }
}

fn with_readiness(name: &str) -> Container {
    Container {
        readiness: Some(tcp(TargetPort::Name("web".into()))),
        ..container(name)
    }
}

fn probed_pod(last: u8, ready: Option<bool>, containers: Vec<Container>) -> Arc<Object> {
    let mut object = Object::clone(&pod("p", "a", last));
    if let Spec::Pod(pod) = &object.spec {
        object.spec = Spec::Pod(Arc::new(Pod {
            spec: Arc::new(PodSpec {
                containers,
                ..PodSpec::default()
            }),
            ready,
            ..Pod::clone(pod)
        }));
    }
    Arc::new(object)
}

fn selecting() -> Arc<Object> {
    let ports = [(80, TCP, None)];
    service(
        "s",
        Service {
            selector: labels("a"),
            ..spec(ClusterIP, &ports)
        },
    )
}

fn annotated(object: &Arc<Object>, value: &str) -> Arc<Object> {
    let mut object = Object::clone(object);
    object.meta.annotations = Labels::from([(READINESS_PROBE.into(), value.into())]);
    Arc::new(object)
}

/// What [`any_object`] makes, with a probe.
pub(super) fn any_probed() -> impl Strategy<Value = Arc<Object>> {
    let value = prop::sample::select(vec!["tcp", "http:7/x", "nonsense"]);
    let probed = (0..4_u8, 0..5_u8, 1..6_u8).prop_map(|(name, of, last)| {
        let mut pod = Object::clone(&probed_pod(last, None, vec![with_readiness("c")]));
        pod.key.name = format!("p{name}").into();
        pod.meta.labels = labels(&format!("app{of}"));
        Arc::new(pod)
    });
    let slice = (0..4_u8, 0..5_u8, 1..6_u8)
        .prop_map(|(name, of, last)| slice(&format!("e{name}"), &format!("s{of}"), last));
    let annotated_one = (prop_oneof![any_service(), slice], value)
        .prop_map(|(object, value)| annotated(&object, value));
    prop_oneof![probed, annotated_one]
}

#[test]
fn declared_pod_host_of_a_probe_is_its_address_when_it_is_one() {
    let mut bench = Bench::new(Deviations::default());
    let asked = |name: &str, host: &str| Container {
        readiness: Some(Arc::new(Probe {
            check: ProbeCheck::TcpSocket {
                port: TargetPort::Number(7),
                host: Some(host.into()),
            },
            ..Probe::clone(&tcp(TargetPort::Number(7)))
        })),
        ..container(name)
    };
    let containers = vec![asked("a", "127.9.0.1"), asked("b", "db.test")];
    bench.file("f", &[probed_pod(1, None, containers)]).round();
    assert_eq!(
        bench.targets(),
        ["aReadiness0 127.9.0.1:7", "bReadiness0 127.2.0.1:7"],
        "a name is left to the prober"
    );
}

fn pod_key() -> PodKey {
    ("ns".into(), "p".into())
}

fn key(container: &str, kind: ProbeKind, run: u32) -> ProbeKey {
    ProbeKey {
        subject: ProbeSubject::Declared(pod_key()),
        container: container.into(),
        kind,
        run,
    }
}

fn failure(reason: &str) -> ProbeOutcome {
    let reason = reason.into();
    ProbeOutcome::Failure { reason }
}

impl Bench {
    /// One round with these results; how many Services it concerned.
    fn say(&mut self, results: &[(ProbeKey, ProbeOutcome)]) -> usize {
        let probes: Vec<ProbeObservation> = results
            .iter()
            .cloned()
            .map(|(key, outcome)| ProbeObservation { key, outcome })
            .collect();
        let stepped = step(
            self.world.take(),
            Input {
                reports: &[SourceReport::Synced(self.view.clone())],
                probes: &probes,
                ..Input::default()
            },
        );
        self.world = stepped.world;
        (self.snapshot, _) = compile(&self.snapshot, &self.world, &stepped.changed);
        stepped.changed.len()
    }

    fn targets(&self) -> Vec<String> {
        let targets = self.world.probe_targets().iter();
        targets
            .map(|(key, target)| {
                format!("{}{:?}{} {}", key.container, key.kind, key.run, target.addr)
            })
            .collect()
    }

    fn event_lines(&self) -> Vec<String> {
        let events = self.world.events().iter();
        events
            .map(|event| {
                format!(
                    "{} {} {} x{}: {}",
                    event.kind.as_str(),
                    event.about,
                    event.reason,
                    event.count,
                    event.message
                )
            })
            .collect()
    }
}

#[test]
fn declared_pod_that_fails_leaves_the_endpoints_and_comes_back() {
    let mut bench = Bench::new(Deviations::default());
    let pod = probed_pod(1, None, vec![with_readiness("c")]);
    bench.file("f", &[selecting(), pod]).round();
    assert_eq!(bench.targets(), ["cReadiness0 127.2.0.1:9000"]);
    assert!(bench.endpoints("s").is_empty(), "unready until it passes");
    let probe = key("c", ProbeKind::Readiness, 0);
    assert_eq!(bench.say(&[(probe.clone(), ProbeOutcome::Success)]), 1);
    assert_eq!(bench.endpoints("s"), ["127.2.0.1:9000"]);
    let unhealthy = ProbeOutcome::Unhealthy { reason: "x".into() };
    assert_eq!(bench.say(&[(probe.clone(), unhealthy.clone())]), 0);
    assert_eq!(bench.endpoints("s").len(), 1, "one failure decides nothing");
    let result = bench.world.probe_result(&probe).unwrap();
    assert_eq!((result.passing, &result.last), (Some(true), &unhealthy));
    assert_eq!(bench.say(&[(probe.clone(), failure("x"))]), 1);
    assert!(bench.endpoints("s").is_empty());
    assert_eq!(bench.say(&[(probe, ProbeOutcome::Success)]), 1);
    assert_eq!(bench.endpoints("s").len(), 1);
    assert_eq!(
        bench.event_lines(),
        ["Warning Pod ns/p Unhealthy x2: Readiness probe failed: x"]
    );
}

#[test]
fn declared_pod_explicit_condition_counts_until_a_probe_decides() {
    let mut bench = Bench::new(Deviations::default());
    let pod = |ready| probed_pod(1, ready, vec![with_readiness("c")]);
    bench.file("f", &[selecting(), pod(Some(true))]).round();
    assert_eq!(bench.endpoints("s").len(), 1);
    let probe = key("c", ProbeKind::Readiness, 0);
    bench.say(&[(probe.clone(), failure("x"))]);
    assert!(bench.endpoints("s").is_empty());
    bench.file("f", &[selecting(), pod(Some(false))]).round();
    bench.say(&[(probe, ProbeOutcome::Success)]);
    assert_eq!(bench.endpoints("s").len(), 1, "the probe overrules");
}

#[test]
fn declared_pod_startup_gates_readiness_and_begins_anew_when_it_fails() {
    let mut bench = Bench::new(Deviations::default());
    let gated = Container {
        startup: Some(tcp(TargetPort::Number(7))),
        liveness: Some(tcp(TargetPort::Number(8))),
        ..with_readiness("c")
    };
    bench
        .file("f", &[selecting(), probed_pod(1, Some(true), vec![gated])])
        .round();
    assert_eq!(bench.targets(), ["cStartup0 127.2.0.1:7"]);
    let first = key("c", ProbeKind::Startup, 0);
    bench.say(&[(first.clone(), failure("slow"))]);
    assert_eq!(bench.targets(), ["cStartup1 127.2.0.1:7"]);
    assert!(bench.endpoints("s").is_empty());
    bench.say(&[(first, ProbeOutcome::Success)]);
    assert_eq!(bench.targets(), ["cStartup1 127.2.0.1:7"], "a former run");
    let second = key("c", ProbeKind::Startup, 1);
    bench.say(&[(second, ProbeOutcome::Success)]);
    assert_eq!(bench.targets(), ["cReadiness1 127.2.0.1:9000"]);
    bench.say(&[(key("c", ProbeKind::Readiness, 1), ProbeOutcome::Success)]);
    assert_eq!(bench.endpoints("s").len(), 1);
    assert_eq!(
        bench.event_lines(),
        ["Warning Pod ns/p Unhealthy x1: Startup probe failed: slow"]
    );
}

#[test]
fn declared_pod_is_ready_when_every_container_is() {
    let mut bench = Bench::new(Deviations::default());
    let plain = container("plain");
    let exec = Container {
        readiness: Some(Arc::new(Probe {
            check: ProbeCheck::Exec,
            ..Probe::clone(&tcp(TargetPort::Number(1)))
        })),
        ..container("exec")
    };
    let containers = vec![with_readiness("a"), with_readiness("b"), plain, exec];
    bench
        .file("f", &[selecting(), probed_pod(1, None, containers)])
        .round();
    assert_eq!(bench.targets().len(), 2, "exec counts as passing");
    bench.say(&[(key("a", ProbeKind::Readiness, 0), ProbeOutcome::Success)]);
    assert!(bench.endpoints("s").is_empty());
    bench.say(&[(key("b", ProbeKind::Readiness, 0), ProbeOutcome::Success)]);
    assert_eq!(bench.endpoints("s").len(), 1);
}

#[test]
fn declared_pod_with_a_port_name_that_nothing_has_stays_unready_and_says_why() {
    let mut bench = Bench::new(Deviations::default());
    let lost = Container {
        readiness: Some(tcp(TargetPort::Name("wbe".into()))),
        ..container("c")
    };
    bench
        .file("f", &[selecting(), probed_pod(1, None, vec![lost])])
        .round();
    assert!(bench.targets().is_empty() && bench.endpoints("s").is_empty());
    let key = pod_key();
    let (_, result) = bench.world.pod_probes(&key).next().unwrap();
    let reason = "container c has no port of the name that the probe asks for".into();
    assert_eq!(result.unwrap().last, ProbeOutcome::Unhealthy { reason });
}

#[test]
fn probe_results_go_with_their_pod_and_survive_its_edits() {
    let mut bench = Bench::new(Deviations::default());
    let pod = |delay| {
        let mut container = with_readiness("c");
        let probe = container.readiness.as_ref().unwrap();
        container.readiness = Some(Arc::new(Probe {
            initial_delay: Duration::from_secs(delay),
            ..Probe::clone(probe)
        }));
        probed_pod(1, None, vec![container])
    };
    bench.file("f", &[selecting(), pod(0)]).round();
    let probe = key("c", ProbeKind::Readiness, 0);
    bench.say(&[(probe.clone(), ProbeOutcome::Success)]);
    let before = Arc::clone(bench.world.probe_targets());
    bench.file("f", &[selecting(), pod(1)]).round();
    assert_ne!(&before, bench.world.probe_targets());
    assert_eq!(bench.endpoints("s").len(), 1, "no flapping over an edit");
    let moved = probed_pod(2, None, vec![with_readiness("c")]);
    bench.file("f", &[selecting(), moved]).round();
    assert!(
        bench.endpoints("s").is_empty(),
        "another address is unknown"
    );
    bench.say(&[(probe.clone(), ProbeOutcome::Success)]);
    bench.file("f", &[selecting()]).round();
    assert!(bench.targets().is_empty());
    assert_eq!(bench.world.probe_result(&probe), None);
    assert_eq!(bench.say(&[(probe, failure("late"))]), 0);
    bench.file("f", &[selecting(), pod(1)]).round();
    assert!(bench.endpoints("s").is_empty(), "a new pod starts unready");
}

#[test]
fn targets_stay_the_same_while_nothing_changes() {
    let mut bench = Bench::new(Deviations::default());
    let first = Arc::clone(bench.world.probe_targets());
    bench.file("f", &[selecting(), pod("p", "a", 1)]).round();
    assert!(Arc::ptr_eq(&first, bench.world.probe_targets()));
    let pod = || probed_pod(1, None, vec![with_readiness("c")]);
    bench.file("f", &[selecting(), pod()]).round();
    let second = Arc::clone(bench.world.probe_targets());
    assert_eq!(second.len(), 1);
    bench.file("f", &[selecting(), pod()]).round();
    bench.say(&[(key("c", ProbeKind::Readiness, 0), ProbeOutcome::Success)]);
    assert!(Arc::ptr_eq(&second, bench.world.probe_targets()));
}

#[test]
fn compile_once_probes_nobody_so_what_is_declared_counts() {
    let view = SourceView {
        shards: BTreeMap::from([(
            "f".into(),
            Arc::new(Shard {
                objects: vec![
                    selecting(),
                    probed_pod(1, None, vec![with_readiness("c")]),
                    annotated(&service("t", spec(ClusterIP, &[(80, TCP, None)])), "tcp"),
                    slice("t-1", "t", 1),
                ],
                diagnostics: Vec::new(),
            }),
        )]),
        ..SourceView::default()
    };
    let reports = [SourceReport::Synced(view)];
    let now = crate::time::Timestamp::default();
    let (world, snapshot) = compile_once(world(Deviations::default()), &reports, now);
    for path in ["ns/s", "ns/t"] {
        let view = snapshot.service(path).unwrap();
        assert!(
            view.ports.iter().any(|port| port.cluster.is_some()),
            "{path}"
        );
    }
    assert_eq!(world.probe_targets().len(), 2, "they are still listed");
}

fn endpoint(addr: &str, service: &str) -> ProbeKey {
    ProbeKey {
        subject: ProbeSubject::Endpoint(format!("ns/{service}").into(), addr.parse().unwrap()),
        container: "".into(),
        kind: ProbeKind::Readiness,
        run: 0,
    }
}

#[test]
fn annotated_service_probes_every_address_of_its_slices() {
    let mut bench = Bench::new(Deviations::default());
    let plain = service("s", spec(ClusterIP, &[(80, TCP, None)]));
    let slices = [slice("s-1", "s", 1), slice("s-2", "s", 2)];
    let with = |value| [&[annotated(&plain, value)], &slices[..]].concat();
    bench.file("f", &with("tcp")).round();
    assert_eq!(
        bench.targets(),
        ["Readiness0 127.1.0.1:9000", "Readiness0 127.1.0.2:9000"]
    );
    assert!(bench.endpoints("s").is_empty());
    let lost = (endpoint("127.1.0.2:9000", "s"), failure("no"));
    let passed = (endpoint("127.1.0.1:9000", "s"), ProbeOutcome::Success);
    assert_eq!(bench.say(&[passed]), 1);
    assert_eq!(bench.say(&[lost]), 0, "it was not served before either");
    assert_eq!(bench.endpoints("s"), ["127.1.0.1:9000"]);
    assert_eq!(
        bench.event_lines(),
        [
            "Normal Service ns/s EndpointHealthy x1: Readiness probe of 127.1.0.1:9000 succeeded",
            "Warning Service ns/s EndpointUnhealthy x1: Readiness probe of 127.1.0.2:9000 failed: no"
        ]
    );
    bench.file("f", &with("http:8081/ready")).round();
    let targets: ProbeTargets = ProbeTargets::clone(bench.world.probe_targets());
    let target = &targets[&endpoint("127.1.0.2:8081", "s")];
    assert_eq!((targets.len(), target.addr.port()), (2, 8081));
    assert!(matches!(&target.probe.check, ProbeCheck::HttpGet { path, .. } if &**path == "/ready"));
    assert_eq!(bench.world.endpoint_probes("ns/s").count(), 2);
    bench.file("f", &with("nonsense")).round();
    assert!(bench.targets().is_empty());
    assert_eq!(bench.endpoints("s").len(), 2, "unreadable: not probed");
    bench.file("f", &with("tcp")).round();
    bench.file("f", &[]).round();
    assert!(bench.targets().is_empty(), "gone with the Service");
}

#[test]
fn annotated_slice_is_probed_beside_one_that_is_not() {
    let mut bench = Bench::new(Deviations::default());
    let plain = service("s", spec(ClusterIP, &[(80, TCP, None)]));
    let own = annotated(&slice("s-2", "s", 2), "tcp");
    bench
        .file("f", &[plain.clone(), slice("s-1", "s", 1), own])
        .round();
    assert_eq!(bench.targets(), ["Readiness0 127.1.0.2:9000"]);
    assert_eq!(bench.endpoints("s"), ["127.1.0.1:9000"]);
    bench.say(&[(endpoint("127.1.0.2:9000", "s"), ProbeOutcome::Success)]);
    assert_eq!(bench.endpoints("s").len(), 2);
    let moved = annotated(&slice("s-2", "other", 2), "tcp");
    bench
        .file("f", &[plain, slice("s-1", "s", 1), moved])
        .round();
    assert!(bench.targets().is_empty(), "that Service does not exist");
    assert_eq!(bench.endpoints("s"), ["127.1.0.1:9000"]);
}
