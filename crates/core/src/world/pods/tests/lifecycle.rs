//! One pod from its making to its end: probes, restarts, events, commands, ports.

use super::*;
use crate::world::probes::{ProbeKey, ProbeKind, ProbeOutcome, ProbeSubject};

impl Bench {
    /// Events as (reason, message), oldest first, each once.
    fn written(&self) -> Vec<(&str, &str)> {
        let events = self.events.iter();
        events
            .map(|event| (&*event.reason, &*event.message))
            .collect()
    }

    /// Whether such an event is there.
    fn heard(&self, reason: &str, message: &str) -> bool {
        self.written().contains(&(reason, message))
    }

    fn command(&mut self, command: PodCommand) {
        self.turn(&[], &[], &[command]);
    }

    /// A probe of the present run of a container of the only pod says something.
    fn probe(&mut self, container: &str, kind: ProbeKind, outcome: ProbeOutcome) {
        let pod = self.only_pod();
        let state = pod
            .containers
            .iter()
            .find(|state| &*state.name == container);
        let key = ProbeKey {
            subject: ProbeSubject::Simulated(pod.uid),
            container: container.into(),
            kind,
            run: state.unwrap().restarts,
        };
        self.turn(&[], &[ProbeObservation { key, outcome }], &[]);
    }

    fn targets(&self) -> Vec<(ProbeKind, u32, String)> {
        simulated_targets(&self.table)
            .map(|(key, target)| (key.kind, key.run, target.addr.to_string()))
            .collect()
    }

    fn main(&self) -> ContainerState {
        self.only_pod().containers[0].clone()
    }
}

fn failure() -> ProbeOutcome {
    ProbeOutcome::Failure {
        reason: "HTTP probe failed with statuscode: 503".into(),
    }
}

fn probed(edit: impl FnOnce(&mut Container)) -> PodSpec {
    let mut spec = pod_spec(80);
    edit(&mut spec.containers[0]);
    spec
}

fn solo() -> PodKey {
    ("default".into(), "solo".into())
}

#[expect(clippy::unnecessary_wraps, reason = "what the fields hold")]
fn http() -> Option<Arc<Probe>> {
    Some(http_probe("/healthy", TargetPort::Name("http".into())))
}

fn fault(fault: Fault, failing: bool) -> PodCommand {
    PodCommand::Fault {
        pod: solo(),
        fault,
        failing,
    }
}

fn label(key: &str, value: Option<&str>) -> PodCommand {
    PodCommand::Label {
        pod: solo(),
        changes: BTreeMap::from([(key.into(), value.map(Into::into))]),
    }
}

#[test]
fn pod_new_is_pending_for_one_round_then_starts_then_runs() {
    let mut bench = Bench::new();
    let labels = Labels::new();
    let key = ObjectKey {
        kind: Kind::Pod,
        namespace: "default".into(),
        name: "solo".into(),
    };
    let pod = Pod {
        spec: Arc::new(pod_spec(80)),
        pod_ips: Vec::new(),
        ready: None,
        terminating: false,
        finished: false,
    };
    let declared = object(Kind::Pod, "solo", labels, Spec::Pod(Arc::new(pod)));
    bench.owners.insert(key, declared);
    bench.turn(&[], &[], &[]);
    assert_eq!(bench.only_pod().phase, PodPhase::Pending);
    assert!(bench.last.actions.is_empty() && bench.written().is_empty());
    assert_eq!(bench.last.deadline, Some(bench.now));
    bench.turn(&[], &[], &[]);
    assert_eq!(bench.only_pod().phase, PodPhase::Starting);
    assert_eq!(bench.main().waiting.as_deref(), Some("ContainerCreating"));
    let assigned = "Successfully assigned default/solo to node";
    assert_eq!(bench.written(), [("Scheduled", assigned)]);
    bench.answer();
    assert!(bench.only_pod().is_ready());
    assert_eq!(bench.only_pod().ready_since, Some(bench.now));
    let main = bench.main();
    assert_eq!((main.running_since, main.waiting), (Some(bench.now), None));
    assert!(main.started && main.ready);
    assert_eq!(
        bench.written()[1..],
        [
            ("Pulled", "Container image \"\" already present on machine"),
            ("Created", "Created container: main"),
            ("Started", "Started container main"),
        ]
    );
    bench.forget(Kind::Pod);
    assert!(bench.heard("Killing", "Stopping container main"));
}

#[test]
fn probes_startup_comes_first_then_readiness_makes_ready() {
    let mut bench = Bench::new();
    bench.bare(
        Labels::new(),
        probed(|main| (main.startup, main.readiness) = (http(), http())),
    );
    assert!(bench.targets().is_empty(), "nothing runs");
    bench.answer();
    let addr = format!("{}:80", bench.only_pod().ip);
    assert_eq!(bench.targets(), [(ProbeKind::Startup, 0, addr.clone())]);
    bench.probe("main", ProbeKind::Startup, ProbeOutcome::Success);
    assert!(bench.main().started && !bench.main().ready);
    assert_eq!(bench.targets(), [(ProbeKind::Readiness, 0, addr)]);
    bench.pass(Duration::from_secs(5));
    bench.probe("main", ProbeKind::Readiness, ProbeOutcome::Success);
    assert_eq!(bench.only_pod().ready_since, Some(bench.now));
    assert_eq!(bench.last.changed.len(), 1);
    bench.probe("main", ProbeKind::Readiness, failure());
    assert!(!bench.only_pod().is_ready());
    assert_eq!(bench.main().restarts, 0);
    let message = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    assert!(bench.heard("Unhealthy", message));
}

#[test]
fn probe_of_a_port_that_nobody_names_is_said() {
    let mut bench = Bench::new();
    let lost = || http_probe("/", TargetPort::Name("nowhere".into()));
    bench.bare(
        Labels::new(),
        probed(|main| (main.readiness, main.liveness) = (Some(lost()), http())),
    );
    bench.answer();
    assert!(!bench.only_pod().is_ready());
    let said = bench.written();
    let said: Vec<_> = said.iter().filter(|(of, _)| *of == "Unhealthy").collect();
    let message = "Readiness probe errored and resulted in unknown state: container main has no port named \"nowhere\"";
    assert_eq!(said, [&("Unhealthy", message)]);
}

#[test]
fn probe_unhealthy_is_an_event_only() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), probed(|main| main.liveness = http()));
    bench.settle();
    let reason = "connection refused".into();
    bench.probe(
        "main",
        ProbeKind::Liveness,
        ProbeOutcome::Unhealthy { reason },
    );
    assert!(bench.heard("Unhealthy", "Liveness probe failed: connection refused"));
    assert!(bench.last.actions.is_empty() && bench.only_pod().is_ready());
}

#[test]
fn probe_of_a_former_run_concerns_nobody() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), probed(|main| main.liveness = http()));
    bench.settle();
    let key = ProbeKey {
        subject: ProbeSubject::Simulated(bench.only_pod().uid),
        container: "main".into(),
        kind: ProbeKind::Liveness,
        run: 7,
    };
    let outcome = failure();
    bench.turn(&[], &[ProbeObservation { key, outcome }], &[]);
    assert!(bench.last.actions.is_empty());
}

#[test]
fn probes_exec_count_as_passing() {
    let exec = || {
        let mut probe = (*http_probe("/", TargetPort::Number(80))).clone();
        probe.check = ProbeCheck::Exec;
        Some(Arc::new(probe))
    };
    let mut bench = Bench::new();
    bench.bare(
        Labels::new(),
        probed(|main| (main.startup, main.readiness, main.liveness) = (exec(), exec(), exec())),
    );
    bench.settle();
    assert!(bench.only_pod().is_ready());
    assert!(bench.targets().is_empty());
}

#[test]
fn liveness_failure_restarts_one_container_with_kubelets_delays() {
    let mut bench = Bench::new();
    let mut spec = probed(|main| {
        let mut probe = (*http_probe("/", TargetPort::Number(80))).clone();
        probe.termination_grace = Some(Duration::from_secs(7));
        main.liveness = Some(Arc::new(probe));
    });
    spec.containers.push(Container {
        name: "side".into(),
        ..Container::default()
    });
    bench.bare(Labels::new(), spec);
    bench.settle();
    for (restarts, delay) in [(1, 0), (2, 10), (3, 20), (4, 40)] {
        bench.probe("main", ProbeKind::Liveness, failure());
        assert!(
            matches!(&bench.last.actions[..], [PodAction::EndContainer { container, grace_ms: 7000, .. }] if **container == *"main")
        );
        assert!(!bench.only_pod().is_ready() && bench.targets().is_empty());
        let end = bench.now;
        bench.answer();
        assert_eq!(bench.main().last_end, Some((end, "Completed".into())));
        if delay > 0 {
            let main = bench.main();
            assert_eq!(main.waiting.as_deref(), Some("CrashLoopBackOff"));
            assert_eq!((main.running_since, main.restarts), (None, restarts - 1));
            bench.pass(Duration::from_secs(delay - 1));
            assert!(bench.last.actions.is_empty());
            assert_eq!(
                bench.last.deadline,
                Some(end.after(Duration::from_secs(delay)))
            );
            bench.pass(Duration::from_secs(1));
        }
        assert!(matches!(
            bench.last.actions[..],
            [PodAction::StartContainer { .. }]
        ));
        bench.answer();
        let main = bench.main();
        assert_eq!(
            (main.restarts, main.running_since),
            (restarts, Some(bench.now))
        );
        assert!(bench.only_pod().is_ready());
        assert_eq!(bench.targets()[0].1, restarts);
        assert_eq!(bench.only_pod().containers[1].restarts, 0);
    }
    let killing = "Container main failed liveness probe, will be restarted";
    assert!(bench.heard("Killing", killing));
    let uid = bench.only_pod().uid.0;
    let backoff = format!("Back-off restarting failed container main in pod solo_default({uid})");
    assert!(bench.heard("BackOff", &backoff));
}

#[test]
fn container_that_ran_for_ten_minutes_restarts_at_once_again() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), probed(|main| main.liveness = http()));
    bench.settle();
    for _ in 0..3 {
        bench.pass(Duration::from_mins(10));
        bench.probe("main", ProbeKind::Liveness, failure());
        bench.answer();
        assert!(matches!(
            bench.last.actions[..],
            [PodAction::StartContainer { .. }]
        ));
        bench.answer();
    }
    assert_eq!(bench.main().restarts, 3);
}

#[test]
fn container_that_does_not_end_is_given_up_after_its_grace() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), probed(|main| main.startup = http()));
    bench.settle();
    bench.probe("main", ProbeKind::Startup, failure());
    bench.pass(Duration::from_secs(30));
    assert!(bench.last.actions.is_empty());
    bench.pass(Duration::from_secs(1));
    assert!(matches!(
        bench.last.actions[..],
        [PodAction::StartContainer { .. }]
    ));
    assert_eq!(bench.main().last_end, Some((bench.now, "Error".into())));
}

#[test]
fn container_that_cannot_start_waits() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), probed(|main| main.liveness = http()));
    bench.settle();
    bench.probe("main", ProbeKind::Liveness, failure());
    bench.answer();
    bench.unanswered.clear();
    let failed = PodObservation::Container {
        uid: bench.only_pod().uid,
        container: "main".into(),
        became: ContainerChange::Failed {
            reason: "taken".into(),
        },
    };
    bench.round(&[failed]);
    assert!(bench.heard("Failed", "Error: taken"));
    assert_eq!(bench.main().waiting.as_deref(), Some("CrashLoopBackOff"));
    bench.pass(Duration::from_secs(10));
    bench.settle();
    assert!(bench.only_pod().is_ready());
}

#[test]
fn delete_bare_pod_stays_away_until_its_document_changes_or_reset() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    let delete = || PodCommand::Delete {
        pod: solo(),
        grace: Some(Duration::from_secs(2)),
    };
    bench.command(delete());
    assert!(matches!(
        bench.last.actions[..],
        [PodAction::Stop { grace_ms: 2000, .. }]
    ));
    bench.settle();
    assert!(bench.table.pods.is_empty());
    bench.bare(Labels::new(), pod_spec(80));
    assert!(bench.table.pods.is_empty(), "the same document again");
    assert_eq!(bench.table.deleted().collect::<Vec<_>>(), [&solo()]);
    bench.command(PodCommand::Reset { pod: None });
    bench.turn(&[], &[], &[]);
    bench.settle();
    assert!(bench.only_pod().is_ready());
    bench.command(delete());
    bench.settle();
    let (key, declared) = bench.owners.pop_first().unwrap();
    let edited = Object {
        manifest: "{\"edited\":true}".into(),
        ..(*declared).clone()
    };
    bench.owners.insert(key, Arc::new(edited));
    bench.round(&[]);
    bench.settle();
    assert!(bench.only_pod().is_ready());
    assert_eq!(bench.table.deleted().count(), 0);
}

#[test]
fn delete_pod_of_a_deployment_is_replaced_and_can_be_hurried() {
    let mut bench = Bench::new();
    bench.deploy(workload(1, 1));
    bench.settle();
    let pod = bench.table.pods.keys().next().unwrap().clone();
    let delete = |grace| PodCommand::Delete {
        pod: pod.clone(),
        grace,
    };
    bench.command(delete(None));
    assert!(matches!(
        bench.last.actions[..],
        [PodAction::Stop {
            grace_ms: 30_000,
            ..
        }]
    ));
    assert_eq!(
        bench.table.pods.len(),
        2,
        "its replacement is there at once"
    );
    bench.command(delete(Some(Duration::ZERO)));
    let stop = bench
        .last
        .actions
        .iter()
        .find(|action| matches!(action, PodAction::Stop { .. }));
    assert!(matches!(stop, Some(PodAction::Stop { grace_ms: 0, .. })));
    bench.settle();
    assert_eq!(bench.table.pods.len(), 1);
    assert!(!bench.table.pods.contains_key(&pod));
}

#[test]
fn label_concerns_old_and_new_services_and_can_be_taken_back() {
    let mut bench = Bench::new();
    let web = Labels::from([("app".into(), "web".into())]);
    bench.bare(web.clone(), pod_spec(80));
    bench.settle();
    bench.command(label("app", Some("old")));
    let old = Labels::from([("app".into(), "old".into())]);
    let both = [
        ("default".into(), old.clone()),
        ("default".into(), web.clone()),
    ];
    assert_eq!(bench.last.changed, both);
    assert_eq!(bench.only_pod().labels, old);
    bench.command(label("app", None));
    assert!(bench.only_pod().labels.is_empty());
    assert_eq!(
        bench.only_pod().original,
        Some((web.clone(), Labels::new()))
    );
    bench.round(&[]);
    assert!(
        bench.only_pod().labels.is_empty(),
        "its document is as it was"
    );
    bench.command(PodCommand::Reset { pod: Some(solo()) });
    assert_eq!(
        (bench.only_pod().labels, bench.only_pod().original),
        (web, None)
    );
}

#[test]
fn label_is_forgotten_with_the_next_edit_of_the_document() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    bench.command(label("app", Some("web")));
    let edited = Labels::from([("new".into(), "yes".into())]);
    bench.bare(edited.clone(), pod_spec(80));
    let pod = bench.only_pod();
    assert_eq!((pod.labels, pod.original), (edited, None));
}

#[test]
fn annotate_changes_how_it_behaves_and_says_what_cannot_be_read() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    let annotate = |value: &str| PodCommand::Annotate {
        pod: solo(),
        changes: BTreeMap::from([("portico.dev/latency".into(), Some(value.into()))]),
    };
    bench.command(annotate("50ms"));
    let [PodAction::Adjust { behaviour, .. }] = &bench.last.actions[..] else {
        panic!("{:?}", bench.last.actions)
    };
    assert_eq!(behaviour.latency_ms, 50);
    bench.command(annotate("soon"));
    let message =
        "annotation portico.dev/latency: \"soon\" is not a duration up to 1h, such as 50ms or 2s";
    assert!(bench.heard("InvalidAnnotation", message));
}

#[test]
fn fault_without_a_probe_acts_at_once() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    bench.command(fault(Fault::Ready, true));
    assert!(
        matches!(&bench.last.actions[..], [PodAction::Adjust { faults, .. }] if faults.contains(&Fault::Ready))
    );
    assert!(!bench.only_pod().is_ready());
    bench.command(fault(Fault::Ready, false));
    assert!(bench.only_pod().is_ready());
    bench.command(fault(Fault::Live, true));
    assert!(
        bench
            .last
            .actions
            .iter()
            .any(|action| matches!(action, PodAction::EndContainer { .. }))
    );
    bench.settle();
    assert_eq!(bench.main().restarts, 1);
    bench.command(fault(Fault::Live, true));
    assert!(bench.last.actions.is_empty(), "it fails already");
}

#[test]
fn fault_with_a_probe_is_left_to_the_probe() {
    let mut bench = Bench::new();
    bench.bare(
        Labels::new(),
        probed(|main| (main.readiness, main.liveness) = (http(), http())),
    );
    bench.settle();
    bench.probe("main", ProbeKind::Readiness, ProbeOutcome::Success);
    for failing in [Fault::Ready, Fault::Live, Fault::Port] {
        bench.command(fault(failing, true));
        assert!(matches!(bench.last.actions[..], [PodAction::Adjust { .. }]));
    }
    assert!(bench.only_pod().is_ready());
    bench.command(PodCommand::Reset { pod: None });
    assert!(bench.only_pod().faults.is_empty());
}

#[test]
fn ports_are_declared_ones_and_those_of_probes_and_services() {
    let mut bench = Bench::new();
    let tcp = |number| WantedPort {
        number,
        protocol: Protocol::Tcp,
    };
    bench.service_ports = vec![("web".into(), tcp(80)), ("web".into(), tcp(9000))];
    let mut spec = pod_spec(80);
    let side = Container {
        name: "side".into(),
        readiness: Some(http_probe("/", TargetPort::Number(8081))),
        liveness: Some(http_probe("/", TargetPort::Number(80))),
        ..Container::default()
    };
    spec.containers.push(side);
    bench.bare(Labels::from([("app".into(), "web".into())]), spec);
    let [PodAction::Start { containers, .. }] = &bench.last.actions[..] else {
        panic!("{:?}", bench.last.actions)
    };
    assert_eq!(containers[0].ports, [tcp(80), tcp(9000)]);
    assert_eq!(containers[1].ports, [tcp(8081)]);
    bench.settle();
    bench.service_ports = vec![("old".into(), tcp(7000))];
    bench.round(&[]);
    let uid = bench.only_pod().uid;
    let ports = vec![vec![tcp(80)], vec![tcp(8081)]];
    assert_eq!(bench.last.actions, [PodAction::Ports { uid, ports }]);
    bench.round(&[]);
    assert!(bench.last.actions.is_empty());
    bench.command(label("app", Some("old")));
    let ports = vec![vec![tcp(80), tcp(7000)], vec![tcp(8081)]];
    assert_eq!(bench.last.actions, [PodAction::Ports { uid, ports }]);
}

#[test]
fn targets_have_moved_ports_and_only_loopback_hosts() {
    let mut bench = Bench::new();
    let to = |host: &str| {
        let mut probe = (*http_probe("/", TargetPort::Number(80))).clone();
        if let ProbeCheck::HttpGet { host: held, .. } = &mut probe.check {
            *held = Some(host.into());
        }
        Some(Arc::new(probe))
    };
    bench.bare(
        Labels::new(),
        probed(|main| (main.readiness, main.liveness) = (to("192.0.2.1"), to("127.0.0.1"))),
    );
    bench.unanswered.clear();
    let pod = bench.only_pod();
    bench.round(&[PodObservation::Running {
        uid: pod.uid,
        bound: vec![(wanted_ports(&pod.spec)[0], 10080)],
    }]);
    let readiness = (ProbeKind::Readiness, 0, format!("{}:10080", pod.ip));
    let liveness = (ProbeKind::Liveness, 0, "127.0.0.1:80".to_owned());
    assert_eq!(bench.targets(), [readiness, liveness]);
}

#[test]
fn check_command_names_what_is_wrong() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    let check = |bench: &Bench, command: PodCommand| {
        check_command(&bench.table, &command).map_err(|error| error.to_string())
    };
    assert_eq!(check(&bench, label("app", Some("web"))), Ok(()));
    let wrong = check(&bench, label("app", Some("we b"))).unwrap_err();
    assert!(
        wrong.starts_with("invalid label value \"we b\": "),
        "{wrong}"
    );
    let wrong = check(&bench, label("-", None)).unwrap_err();
    assert!(wrong.starts_with("invalid label key \"-\": "), "{wrong}");
    let missing = PodCommand::Reset {
        pod: Some(("default".into(), "nobody".into())),
    };
    assert_eq!(
        check(&bench, missing).unwrap_err(),
        "pods \"nobody\" not found"
    );
    bench.command(PodCommand::Delete {
        pod: solo(),
        grace: None,
    });
    let ending = check(&bench, fault(Fault::Port, true)).unwrap_err();
    assert_eq!(ending, "pods \"solo\" is terminating");
    bench.settle();
    assert_eq!(
        check(&bench, PodCommand::Reset { pod: Some(solo()) }),
        Ok(())
    );
}
