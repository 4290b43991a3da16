//! The controllers step by step, with a host that answers at once. Random histories are in `simulation`.

mod lifecycle;
mod rollout;
mod sets;
mod simulation;

use super::{
    control::MOST_PODS,
    deployment::bounds,
    life::{restart_delay, retry_delay},
    *,
};
use crate::{
    object::{
        Container, Kind, LabelSelector, Meta, Origin, Pod, Position, Probe, ProbeCheck, Protocol,
        Spec, TargetPort, Workload,
        workload::{IntOrPercent, Strategy},
    },
    world::{AddressPool, EventLog, probes::ProbeObservation},
};

/// A Deployment's or ReplicaSet's wishes with Kubernetes' defaults.
fn workload(replicas: u32, hash: u32) -> Workload {
    let labels = Labels::from([("app".into(), "web".into())]);
    Workload {
        replicas,
        selector: LabelSelector {
            match_labels: labels.clone(),
            match_expressions: Vec::new(),
        },
        template: Arc::new(PodTemplate {
            labels,
            annotations: Labels::new(),
            spec: Arc::new(pod_spec(8080)),
            hash,
            manifest: "{}".into(),
        }),
        strategy: rolling(IntOrPercent::Percent(25), IntOrPercent::Percent(25)),
        min_ready: Duration::ZERO,
        progress_deadline: Some(Duration::from_mins(10)),
        revision_history_limit: 10,
        paused: false,
        service_name: None,
        parallel: false,
    }
}

fn rolling(max_surge: IntOrPercent, max_unavailable: IntOrPercent) -> Strategy {
    Strategy::RollingUpdate {
        max_surge,
        max_unavailable,
    }
}

fn pod_spec(port: u16) -> PodSpec {
    let port = ContainerPort {
        name: "http".into(),
        container_port: port,
        protocol: Protocol::Tcp,
    };
    PodSpec {
        containers: vec![Container {
            name: "main".into(),
            image: "".into(),
            ports: vec![port],
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn http_probe(path: &str, port: TargetPort) -> Arc<Probe> {
    Arc::new(Probe {
        check: ProbeCheck::HttpGet {
            path: path.into(),
            port,
            host: None,
            https: false,
            headers: Vec::new(),
        },
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    })
}

fn object(kind: Kind, name: &str, labels: Labels, spec: Spec) -> Arc<Object> {
    let key = ObjectKey {
        kind,
        namespace: "default".into(),
        name: name.into(),
    };
    let origin = Origin {
        file: "a.yaml".into(),
        position: Position::default(),
        marks: Arc::new([]),
    };
    Arc::new(Object {
        key,
        meta: Meta {
            labels,
            annotations: Labels::new(),
        },
        origin,
        manifest: "{}".into(),
        spec,
    })
}

/// What a host that does what it is told says.
fn answer_to(action: &PodAction) -> Option<PodObservation> {
    let bound = |ports: &mut dyn Iterator<Item = &WantedPort>| {
        ports.map(|port| (*port, port.number)).collect()
    };
    let container = |uid: PodUid, container: &Arc<str>, became| PodObservation::Container {
        uid,
        container: Arc::clone(container),
        became,
    };
    Some(match action {
        PodAction::Start {
            uid, containers, ..
        } => PodObservation::Running {
            uid: *uid,
            bound: bound(&mut containers.iter().flat_map(|plan| &plan.ports)),
        },
        PodAction::Ports { uid, ports } => PodObservation::Running {
            uid: *uid,
            bound: bound(&mut ports.iter().flatten()),
        },
        PodAction::Adjust { .. } => return None,
        PodAction::EndContainer {
            uid, container: of, ..
        } => container(*uid, of, ContainerChange::Ended),
        PodAction::StartContainer { uid, container: of } => {
            let bound = Vec::new();
            container(*uid, of, ContainerChange::Running { bound })
        }
        PodAction::Stop { uid, .. } => PodObservation::Ended { uid: *uid },
    })
}

/// Changes the labels of a pod beside the controllers, which have to be told to look.
fn relabel(table: &mut PodTable, key: &PodKey, change: impl FnOnce(&mut Labels)) {
    let before = Arc::clone(&table.pods[key]);
    let pod = Arc::make_mut(table.pods.get_mut(key).unwrap());
    change(&mut pod.labels);
    let after = Arc::clone(&table.pods[key]);
    table.index_owner(&before, false);
    table.index_owner(&after, true);
}

/// A world of pods whose host does what it is told when `answer` is called.
struct Bench {
    table: PodTable,
    owners: Owners,
    addresses: AddressPool,
    now: Timestamp,
    unanswered: Vec<PodAction>,
    last: Reconciled,
    events: EventLog,
    nodes: Vec<PodNode>,
    /// Numbers that Services ask for, of pods with this value of the label `app`.
    service_ports: Vec<(Arc<str>, WantedPort)>,
}

impl Bench {
    fn new() -> Self {
        Self::with_range("127.120.0.0/16")
    }

    fn with_range(range: &str) -> Self {
        Self {
            table: PodTable::default(),
            owners: Owners::new(),
            addresses: AddressPool::new(range.parse().unwrap()),
            now: Timestamp::from_millis(1_000_000),
            unanswered: Vec::new(),
            last: Reconciled::default(),
            events: EventLog::default(),
            nodes: Vec::new(),
            service_ports: Vec::new(),
        }
    }

    fn declare(&mut self, object: Arc<Object>) {
        self.owners.insert(object.key.clone(), object);
        self.round(&[]);
    }

    fn deploy(&mut self, wanted: Workload) {
        self.declare(object(
            Kind::Deployment,
            "web",
            Labels::new(),
            Spec::Workload(Arc::new(wanted)),
        ));
    }

    fn bare(&mut self, labels: Labels, spec: PodSpec) {
        let pod = Pod {
            spec: Arc::new(spec),
            pod_ips: Vec::new(),
            ready: None,
            terminating: false,
            finished: false,
        };
        // Every edit is another document.
        let manifest = format!("{labels:?} {:?}", pod.spec).into();
        let mut object = object(Kind::Pod, "solo", labels, Spec::Pod(Arc::new(pod)));
        Arc::make_mut(&mut object).manifest = manifest;
        self.declare(object);
    }

    /// Declares a workload of any kind called `web`.
    fn run(&mut self, kind: Kind, wanted: Workload) {
        self.declare(object(
            kind,
            "web",
            Labels::new(),
            Spec::Workload(Arc::new(wanted)),
        ));
    }

    /// Changes a label of a pod and lets its namespace's workloads look at it.
    fn relabel(&mut self, name: &str, label: &str, value: Option<&str>) {
        let key = ("default".into(), name.into());
        relabel(&mut self.table, &key, |labels| match value {
            Some(value) => drop(labels.insert(label.into(), value.into())),
            None => drop(labels.remove(label)),
        });
        for object in self.owners.values_mut() {
            *object = Arc::new((**object).clone());
        }
        self.round(&[]);
    }

    fn pod(&self, name: &str) -> &SimulatedPod {
        &self.table.pods[&("default".into(), name.into())]
    }

    /// Names of the pods that are not ending.
    fn alive(&self) -> Vec<String> {
        let alive = self.table.pods.values().filter(|pod| !pod.is_terminating());
        alive.map(|pod| pod.name.to_string()).collect()
    }

    /// The host answers only what it was told about `name`.
    fn answer_for(&mut self, name: &str) {
        let uid = self.pod(name).uid;
        let (now, later) = std::mem::take(&mut self.unanswered)
            .into_iter()
            .partition(|action| match action {
                PodAction::Start { uid: of, .. }
                | PodAction::Stop { uid: of, .. }
                | PodAction::Ports { uid: of, .. }
                | PodAction::Adjust { uid: of, .. }
                | PodAction::EndContainer { uid: of, .. }
                | PodAction::StartContainer { uid: of, .. } => *of == uid,
            });
        self.unanswered = now;
        let others: Vec<PodAction> = later;
        self.answer();
        self.unanswered.extend(others);
    }

    /// Events as `component reason message`, by the order in which they happened last.
    fn told(&self, component: &str) -> Vec<String> {
        let told = self.events.iter();
        told.filter(|event| event.component == component)
            .map(|event| format!("{} {} {}", event.about.name, event.reason, event.message))
            .collect()
    }

    fn forget(&mut self, kind: Kind) {
        self.owners.retain(|key, _| key.kind != kind);
        self.round(&[]);
    }

    /// A round, and the one that follows at once when pods were made: as if it were one.
    fn round(&mut self, observations: &[PodObservation]) {
        self.turn(observations, &[], &[]);
        if self.last.deadline == Some(self.now) {
            let first = std::mem::take(&mut self.last);
            self.turn(&[], &[], &[]);
            self.last.actions.splice(0..0, first.actions);
            let changed: BTreeSet<_> = first
                .changed
                .into_iter()
                .chain(self.last.changed.drain(..))
                .collect();
            self.last.changed = changed.into_iter().collect();
        }
    }

    /// One round, with everything that may come in.
    fn turn(
        &mut self,
        observations: &[PodObservation],
        probes: &[ProbeObservation],
        commands: &[PodCommand],
    ) {
        let service_ports = &self.service_ports;
        let of_services = |_: &Arc<str>, labels: &Labels| {
            let numbers = service_ports
                .iter()
                .filter(|(label, _)| labels.get("app") == Some(label));
            numbers.map(|(_, port)| *port).collect()
        };
        let round = Round {
            observations,
            addresses: &mut self.addresses,
            now: self.now,
            seed: 7,
            node: "node".into(),
            nodes: &self.nodes,
            probes,
            commands,
            service_ports: ServicePorts(&of_services),
            edited: &BTreeSet::from(["default".into()]),
            events: &mut self.events,
        };
        self.last = reconcile(&mut self.table, &self.owners, round);
        self.unanswered.extend(self.last.actions.iter().cloned());
    }

    /// The host answers everything it was told so far.
    fn answer(&mut self) {
        let answers = self
            .unanswered
            .drain(..)
            .filter_map(|action| answer_to(&action));
        let observations: Vec<_> = answers.collect();
        self.round(&observations);
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            if self.unanswered.is_empty() {
                return;
            }
            self.answer();
        }
        panic!("the rollout does not end");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.round(&[]);
    }

    /// (revision, replicas, available) of the sets that have a revision, by revision.
    fn revisions(&self) -> Vec<(u64, u32, u32)> {
        let sets = replica_sets(&self.table, self.now);
        let mut revisions: Vec<_> = sets
            .iter()
            .map(|set| (set.revision, set.replicas, set.available))
            .collect();
        revisions.sort_unstable();
        revisions
    }

    fn phases(&self) -> [usize; 4] {
        self.table.pods.values().fold([0; 4], |mut counts, pod| {
            counts[match pod.phase {
                PodPhase::Pending | PodPhase::Starting => 0,
                PodPhase::Running { .. } => 1,
                PodPhase::Waiting { .. } => 2,
                PodPhase::Terminating { .. } => 3,
            }] += 1;
            counts
        })
    }

    fn only_pod(&self) -> SimulatedPod {
        assert_eq!(self.table.pods.len(), 1);
        self.table
            .pods
            .values()
            .next()
            .map(|pod| (**pod).clone())
            .unwrap()
    }
}

#[test]
fn bounds_of_numbers_and_shares_round_as_kubernetes_does() {
    use IntOrPercent::{Int, Percent};
    for (replicas, surge, unavailable, expected) in [
        (10, Percent(25), Percent(25), (3, 2)),
        (10, Percent(20), Int(0), (2, 0)),
        (3, Percent(25), Percent(25), (1, 0)),
        (1, Percent(25), Percent(25), (1, 0)),
        (4, Percent(100), Percent(0), (4, 0)),
        (3, Int(0), Percent(25), (0, 1)),
        (3, Int(0), Int(0), (0, 1)),
        (2, Int(0), Int(5), (0, 2)),
        (0, Percent(25), Int(1), (0, 0)),
    ] {
        let mut wanted = workload(replicas, 1);
        wanted.strategy = rolling(surge, unavailable);
        let found = bounds(&wanted);
        assert_eq!(
            (found.surge, found.unavailable),
            expected,
            "{replicas} {surge:?} {unavailable:?}"
        );
    }
}

#[test]
fn retry_delay_after_failures_is_one_second_then_doubles_from_ten_to_three_hundred() {
    let delays: Vec<u64> = (0..8)
        .map(|failures| retry_delay(failures).as_secs())
        .collect();
    assert_eq!(delays, [1, 10, 20, 40, 80, 160, 300, 300]);
    let delays: Vec<u64> = (0..8)
        .map(|crashes| restart_delay(crashes).as_secs())
        .collect();
    assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn deployment_new_makes_named_labelled_pods_with_addresses() {
    let mut bench = Bench::new();
    bench.deploy(workload(3, 1_234_567_890));
    assert_eq!(bench.last.actions.len(), 3);
    assert_eq!(bench.last.changed.len(), 1, "one set of labels");
    for pod in bench.table.pods.values() {
        assert!(pod.name.starts_with("web-56789bcdf4-"), "{}", pod.name);
        assert_eq!(pod.name.len(), "web-56789bcdf4-".len() + 5);
        assert_eq!(
            pod.labels.get(TEMPLATE_HASH_LABEL).map(AsRef::as_ref),
            Some("56789bcdf4")
        );
        assert_eq!(pod.labels.get("app").map(AsRef::as_ref), Some("web"));
        assert_eq!(
            bench.addresses.holder(pod.ip),
            Some(&*format!("default/{}", pod.name))
        );
    }
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 3, 3)]);
}

#[test]
fn reconcile_idle_does_nothing() {
    let mut bench = Bench::new();
    bench.deploy(workload(3, 1));
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    bench.pass(Duration::from_hours(1));
    assert!(bench.last.actions.is_empty() && bench.last.changed.is_empty());
    assert_eq!(bench.last.deadline, None);
}

#[test]
fn rolling_update_without_unavailable_waits_for_each_new_pod() {
    let mut bench = Bench::new();
    let mut wanted = workload(4, 1);
    wanted.strategy = rolling(IntOrPercent::Int(1), IntOrPercent::Int(0));
    bench.deploy(wanted.clone());
    bench.settle();
    wanted.template = workload(4, 2).template;
    bench.deploy(wanted);
    assert_eq!(
        bench.revisions(),
        [(1, 4, 4), (2, 1, 0)],
        "one above, none missing"
    );
    bench.answer();
    assert_eq!(
        bench.revisions(),
        [(1, 3, 3), (2, 2, 1)],
        "one came, one goes, one more starts"
    );
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 0, 0), (2, 4, 4)]);
}

#[test]
fn rolling_update_with_failing_template_keeps_the_old_pods() {
    let mut bench = Bench::new();
    bench.deploy(workload(3, 1));
    bench.settle();
    bench.deploy(workload(3, 2));
    for _ in 0..5 {
        let failed: Vec<_> = bench
            .unanswered
            .drain(..)
            .map(|action| match action {
                PodAction::Start { uid, .. } => PodObservation::Failed {
                    uid,
                    reason: "no such address".into(),
                },
                other => answer_to(&other).unwrap(),
            })
            .collect();
        bench.round(&failed);
        bench.pass(Duration::from_mins(5));
    }
    assert_eq!(bench.revisions(), [(1, 3, 3), (2, 1, 0)]);
}

#[test]
fn deployment_back_to_a_former_template_reuses_its_set_as_a_new_revision() {
    let mut bench = Bench::new();
    for hash in [1, 2, 1] {
        bench.deploy(workload(2, hash));
        bench.settle();
    }
    assert_eq!(bench.revisions(), [(2, 0, 0), (3, 2, 2)]);
}

#[test]
fn deployment_history_limit_forgets_the_oldest_empty_sets() {
    let mut bench = Bench::new();
    for hash in 1..=5 {
        bench.deploy(Workload {
            revision_history_limit: 2,
            ..workload(2, hash)
        });
        bench.settle();
    }
    assert_eq!(bench.revisions(), [(3, 0, 0), (4, 0, 0), (5, 2, 2)]);
}

#[test]
fn recreate_starts_new_pods_after_the_last_old_one_ended() {
    let mut bench = Bench::new();
    let recreate = |hash| Workload {
        strategy: Strategy::Recreate,
        ..workload(3, hash)
    };
    bench.deploy(recreate(1));
    bench.settle();
    bench.deploy(recreate(2));
    assert_eq!(bench.phases(), [0, 0, 0, 3]);
    assert_eq!(bench.unanswered.len(), 3);
    let last = bench.unanswered.pop();
    bench.answer();
    assert_eq!(bench.phases(), [0, 0, 0, 1], "one has not ended");
    bench.unanswered.extend(last);
    bench.answer();
    assert_eq!(bench.phases(), [3, 0, 0, 0]);
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 0, 0), (2, 3, 3)]);
}

#[test]
fn paused_deployment_scales_but_does_not_roll() {
    let mut bench = Bench::new();
    bench.deploy(workload(2, 1));
    bench.settle();
    bench.deploy(Workload {
        paused: true,
        ..workload(5, 2)
    });
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 5, 5)]);
    bench.deploy(workload(5, 2));
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 0, 0), (2, 5, 5)]);
}

#[test]
fn min_ready_holds_the_rollout_until_its_deadline() {
    let mut bench = Bench::new();
    let slow = |hash| Workload {
        min_ready: Duration::from_mins(1),
        ..workload(1, hash)
    };
    bench.deploy(slow(1));
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 1, 0)]);
    assert_eq!(
        bench.last.deadline,
        Some(bench.now.after(Duration::from_mins(1)))
    );
    bench.pass(Duration::from_mins(1));
    bench.deploy(slow(2));
    bench.settle();
    bench.pass(Duration::from_secs(59));
    assert_eq!(bench.revisions(), [(1, 1, 1), (2, 1, 0)]);
    bench.pass(Duration::from_secs(1));
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 0, 0), (2, 1, 1)]);
}

#[test]
fn scale_down_takes_pods_that_are_not_ready_then_the_youngest() {
    let mut bench = Bench::new();
    bench.deploy(workload(1, 1));
    bench.settle();
    let oldest = bench.only_pod().uid;
    bench.pass(Duration::from_secs(1));
    bench.deploy(workload(2, 1));
    bench.settle();
    bench.pass(Duration::from_secs(1));
    bench.deploy(workload(3, 1));
    let starting = bench
        .table
        .pods
        .values()
        .find(|pod| pod.phase == PodPhase::Starting)
        .map(|pod| pod.uid);
    bench.deploy(workload(2, 1));
    assert!(
        matches!(bench.last.actions[..], [PodAction::Stop { uid, .. }] if Some(uid) == starting)
    );
    bench.deploy(workload(1, 1));
    bench.settle();
    assert_eq!(bench.only_pod().uid, oldest);
}

#[test]
fn declared_replica_set_edited_template_is_for_new_pods_only() {
    let mut bench = Bench::new();
    let set = |replicas, hash| {
        object(
            Kind::ReplicaSet,
            "rs",
            Labels::new(),
            Spec::Workload(Arc::new(workload(replicas, hash))),
        )
    };
    bench.declare(set(2, 1));
    bench.settle();
    let before: Vec<PodUid> = bench.table.pods.values().map(|pod| pod.uid).collect();
    assert!(
        bench
            .table
            .pods
            .values()
            .all(|pod| pod.name.starts_with("rs-") && pod.name.len() == 8)
    );
    assert!(
        bench
            .table
            .pods
            .values()
            .all(|pod| !pod.labels.contains_key(TEMPLATE_HASH_LABEL))
    );
    bench.declare(set(3, 2));
    assert_eq!(bench.last.actions.len(), 1);
    assert!(
        before
            .iter()
            .all(|uid| bench.table.pods.values().any(|pod| pod.uid == *uid))
    );
}

#[test]
fn bare_pod_edited_spec_is_a_new_incarnation_after_the_old_one() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    let first = bench.only_pod();
    bench.bare(Labels::new(), pod_spec(81));
    assert!(bench.only_pod().is_terminating());
    bench.answer();
    let second = bench.only_pod();
    assert_ne!(second.uid, first.uid);
    assert_eq!(second.ip, first.ip, "the address goes with the name");
    assert_eq!(wanted_ports(&second.spec)[0].number, 81);
}

#[test]
fn bare_pod_edited_labels_keep_it_and_concern_old_and_new_services() {
    let mut bench = Bench::new();
    let (a, b) = (
        Labels::from([("app".into(), "a".into())]),
        Labels::from([("app".into(), "b".into())]),
    );
    bench.bare(a.clone(), pod_spec(80));
    bench.settle();
    bench.bare(b.clone(), pod_spec(80));
    assert!(bench.last.actions.is_empty());
    assert_eq!(
        bench.last.changed,
        [("default".into(), a), ("default".into(), b)]
    );
}

#[test]
fn removed_owner_terminates_its_pods_which_keep_their_addresses_until_they_end() {
    let mut bench = Bench::new();
    bench.deploy(workload(1, 1));
    bench.settle();
    let pod = bench.only_pod();
    bench.forget(Kind::Deployment);
    assert!(matches!(
        bench.last.actions[..],
        [PodAction::Stop {
            grace_ms: 30_000,
            ..
        }]
    ));
    assert!(bench.only_pod().is_terminating());
    assert!(bench.addresses.holder(pod.ip).is_some());
    assert_eq!(
        bench.last.deadline,
        Some(bench.now.after(Duration::from_secs(31)))
    );
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.table.pods.len(), 1);
    bench.pass(Duration::from_secs(1));
    assert!(
        bench.table.pods.is_empty(),
        "the host said nothing, and its time is over"
    );
    assert_eq!(bench.addresses.holder(pod.ip), None);
    assert_eq!(bench.last.changed.len(), 1);
    assert_eq!(bench.last.deadline, None);
}

#[test]
fn failed_pod_waits_and_is_started_again() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    bench.unanswered.clear();
    let uid = bench.only_pod().uid;
    for delay in [1, 10, 20] {
        bench.round(&[PodObservation::Failed {
            uid,
            reason: "taken".into(),
        }]);
        let retry_at = bench.now.after(Duration::from_secs(delay));
        assert_eq!(
            bench.only_pod().phase,
            PodPhase::Waiting {
                retry_at,
                reason: "taken".into()
            }
        );
        assert_eq!(bench.last.deadline, Some(retry_at));
        bench.pass(Duration::from_secs(delay));
        assert!(matches!(bench.last.actions[..], [PodAction::Start { .. }]));
    }
    assert_eq!(bench.table.failures(uid), 3);
}

#[test]
fn waiting_pod_of_a_removed_owner_goes_at_once() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    let uid = bench.only_pod().uid;
    bench.round(&[PodObservation::Failed {
        uid,
        reason: "taken".into(),
    }]);
    bench.forget(Kind::Pod);
    assert!(bench.table.pods.is_empty() && bench.last.actions.is_empty());
}

#[test]
fn running_pod_with_a_moved_port_says_so() {
    let mut bench = Bench::new();
    bench.bare(Labels::new(), pod_spec(80));
    let pod = bench.only_pod();
    let port = wanted_ports(&pod.spec)[0];
    bench.round(&[PodObservation::Running {
        uid: pod.uid,
        bound: vec![(port, 10080)],
    }]);
    assert_eq!(bench.only_pod().bound(port), 10080);
    assert_eq!(bench.last.changed.len(), 1);
    bench.round(&[PodObservation::Running {
        uid: pod.uid,
        bound: vec![(port, 10080)],
    }]);
    assert!(bench.last.changed.is_empty(), "said twice, changed once");
}

#[test]
fn host_lost_starts_pods_again_and_drops_ending_ones() {
    let mut bench = Bench::new();
    bench.deploy(workload(3, 1));
    bench.settle();
    bench.deploy(workload(2, 1));
    bench.unanswered.clear();
    host_lost(&mut bench.table);
    bench.round(&[]);
    assert_eq!(bench.phases(), [2, 0, 0, 0]);
    assert_eq!(bench.last.actions.len(), 2);
    assert!(!bench.last.changed.is_empty());
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 2, 2)]);
}

#[test]
fn addresses_exhausted_places_what_fits_and_the_rest_when_there_is_room() {
    let mut bench = Bench::with_range("127.120.0.0/29");
    bench.deploy(workload(8, 1));
    assert_eq!(
        bench.table.pods.len(),
        6,
        "eight addresses less the first and the last"
    );
    assert_eq!(
        bench
            .table
            .unplaced()
            .map(|(_, missing)| missing)
            .collect::<Vec<_>>(),
        [2]
    );
    assert!(bench.last.deadline.is_some());
    bench.settle();
    bench.deploy(workload(6, 1));
    bench.settle();
    assert_eq!(bench.table.unplaced().count(), 0);
    assert_eq!(bench.last.deadline, None);
}

#[test]
fn replicas_without_end_are_bounded_and_said() {
    let mut bench = Bench::with_range("127.120.0.0/13");
    bench.deploy(workload(1_000_000, 1));
    assert_eq!(bench.table.pods.len(), MOST_PODS);
    bench.settle();
    bench.pass(Duration::from_secs(5));
    let said: Vec<String> = bench
        .events
        .iter()
        .filter(|event| &*event.reason == "FailedCreate")
        .map(|event| event.message.to_string())
        .collect();
    assert_eq!(
        said,
        [
            "Error creating: no room for 995000 more: at most 5000 pods are simulated, as far as their addresses \
             last (--pod-cidr)"
        ]
    );
    bench.deploy(workload(1, 1));
    bench.settle();
    assert_eq!(bench.table.unplaced().count(), 0);
}

#[test]
fn replica_set_name_taken_by_a_declared_one_is_another_hash() {
    let mut bench = Bench::new();
    let name = format!("web-{}", template_hash_text(1, 0));
    bench.declare(object(
        Kind::ReplicaSet,
        &name,
        Labels::new(),
        Spec::Workload(Arc::new(workload(1, 9))),
    ));
    bench.deploy(workload(1, 1));
    bench.settle();
    let sets = replica_sets(&bench.table, bench.now);
    let made: Vec<&str> = sets
        .iter()
        .filter(|set| set.deployment.is_some())
        .map(|set| &*set.name)
        .collect();
    assert_eq!(made, [format!("web-{}", template_hash_text(1, 1))]);
    assert!(sets.iter().all(|set| set.available == 1));
}
