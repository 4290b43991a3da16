//! Random histories: owners are edited, pods are deleted, labelled and made to fail, probes say this and that, a host
//! answers late, out of order, with failures or not at all, and dies.
//! After every step the promises hold, and when the edits stop everything becomes as declared. The seed in a
//! failure's message replays it.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::world::probes::ProbeOutcome;

/// splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).unwrap()
    }
}

struct Simulation {
    seed: u64,
    random: Random,
    table: PodTable,
    owners: Owners,
    addresses: AddressPool,
    now: Timestamp,
    deadline: Option<Timestamp>,
    nodes: Vec<PodNode>,
    /// What the host will say, and when.
    coming: Vec<(Timestamp, PodObservation)>,
    /// Deployments that were fully available since something other than their template was edited.
    armed: BTreeSet<ObjectKey>,
    /// Whether the host still makes mistakes.
    hostile: bool,
    /// What people will ask for in the next round.
    commands: Vec<PodCommand>,
    /// Most pods that each Deployment may have: more than its bounds only while they were lowered under it.
    ceilings: BTreeMap<ObjectKey, u32>,
    /// Numbers of what happened, so that the test can tell that it tested something.
    armed_rounds: u32,
    ended: u32,
    restarted: u32,
    released: u32,
    adopted: u32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random(seed),
            table: PodTable::default(),
            owners: Owners::new(),
            addresses: AddressPool::new("127.120.0.0/20".parse().unwrap()),
            now: Timestamp::from_millis(1_700_000_000_000),
            deadline: None,
            nodes: Vec::new(),
            coming: Vec::new(),
            armed: BTreeSet::new(),
            hostile: true,
            commands: Vec::new(),
            ceilings: BTreeMap::new(),
            armed_rounds: 0,
            ended: 0,
            restarted: 0,
            released: 0,
            adopted: 0,
        }
    }

    fn declare(&mut self, object: Arc<Object>) {
        self.owners.insert(object.key.clone(), object);
    }

    fn declare_workload(&mut self, kind: Kind, name: &str, wanted: Workload) {
        self.declare(object(
            kind,
            name,
            Labels::new(),
            Spec::Workload(Arc::new(wanted)),
        ));
    }

    fn random_workload(&mut self) -> Workload {
        let mut wanted = workload(self.random.small(9), self.random.small(3));
        wanted.strategy = match self.random.below(6) {
            0 => Strategy::Recreate,
            1 => rolling(IntOrPercent::Int(0), IntOrPercent::Int(1)),
            2 => rolling(IntOrPercent::Percent(20), IntOrPercent::Int(0)),
            3 => rolling(IntOrPercent::Percent(100), IntOrPercent::Percent(0)),
            4 => rolling(IntOrPercent::Int(2), IntOrPercent::Int(2)),
            _ => wanted.strategy,
        };
        wanted.min_ready = Duration::from_secs(self.random.below(2) * 5);
        wanted.revision_history_limit = self.random.small(3);
        wanted
    }

    fn edit(&mut self) {
        let name = ["a", "b", "b-1"][usize::try_from(self.random.below(3)).unwrap()];
        let key = ObjectKey {
            kind: Kind::Deployment,
            namespace: "default".into(),
            name: name.into(),
        };
        match self.random.below(20) {
            0 => {
                self.owners.remove(&key);
                self.armed.remove(&key);
            }
            1 | 2 => {
                let wanted = self.random_workload();
                self.armed.remove(&key);
                self.declare_workload(Kind::Deployment, name, wanted);
            }
            3..=7 => self.edit_deployment(&key),
            8 => {
                let mut wanted = self.random_workload();
                let mut template = (*wanted.template).clone();
                template.spec = Arc::new(probed_spec(8080));
                wanted.template = Arc::new(template);
                self.declare_workload(Kind::ReplicaSet, "rs", wanted);
            }
            9 => self.owners.retain(|key, _| key.kind == Kind::Deployment),
            12..=14 => self.relabel(),
            15 | 16 => self.edit_daemon_set(),
            17 | 18 => self.edit_stateful_set(),
            19 => {
                let count = self.random.below(4);
                self.nodes = (0..count).map(|number| self.random_node(number)).collect();
            }
            _ => {
                let spec = Arc::new(probed_spec(
                    80 + u16::try_from(self.random.below(2)).unwrap(),
                ));
                let labels = Labels::from([("n".into(), self.random.below(2).to_string().into())]);
                let pod = Pod {
                    spec,
                    pod_ips: Vec::new(),
                    ready: None,
                    terminating: false,
                    finished: false,
                };
                self.declare(object(Kind::Pod, "solo", labels, Spec::Pod(Arc::new(pod))));
            }
        }
    }

    fn random_node(&mut self, number: u64) -> PodNode {
        let disk = ["ssd", "hdd"][usize::try_from(self.random.below(2)).unwrap()];
        PodNode {
            name: format!("n{number}").into(),
            labels: Labels::from([("disk".into(), disk.into())]),
        }
    }

    fn edit_daemon_set(&mut self) {
        let mut wanted = workload(0, self.random.small(3));
        wanted.strategy = match self.random.below(4) {
            0 => Strategy::OnDelete,
            1 => rolling(IntOrPercent::Int(0), IntOrPercent::Percent(50)),
            2 => rolling(IntOrPercent::Int(1), IntOrPercent::Int(0)),
            _ => rolling(IntOrPercent::Int(0), IntOrPercent::Int(1)),
        };
        wanted.min_ready = Duration::from_secs(self.random.below(2) * 5);
        wanted.revision_history_limit = self.random.small(3);
        wanted.selector.match_labels = Labels::from([("app".into(), "daemon".into())]);
        let template = Arc::make_mut(&mut wanted.template);
        template.labels.clone_from(&wanted.selector.match_labels);
        if self.random.below(2) == 0 {
            let selector = Labels::from([("disk".into(), "ssd".into())]);
            Arc::make_mut(&mut template.spec).node_selector = selector;
            template.hash += 10;
        }
        self.declare_workload(Kind::DaemonSet, "ds", wanted);
    }

    fn edit_stateful_set(&mut self) {
        let mut wanted = workload(self.random.small(5), self.random.small(3));
        wanted.strategy = match self.random.below(4) {
            0 => Strategy::OnDelete,
            1 => Strategy::Partition(2),
            _ => Strategy::Partition(0),
        };
        wanted.parallel = self.random.below(2) == 0;
        wanted.min_ready = Duration::from_secs(self.random.below(2) * 5);
        wanted.revision_history_limit = self.random.small(3);
        wanted.selector.match_labels = Labels::from([("app".into(), "stateful".into())]);
        let template = Arc::make_mut(&mut wanted.template);
        template.labels.clone_from(&wanted.selector.match_labels);
        self.declare_workload(Kind::StatefulSet, "sts", wanted);
    }

    /// Somebody takes the label of a random pod away, or gives a lost one back.
    fn relabel(&mut self) {
        let names: Vec<PodKey> = self.table.pods.keys().cloned().collect();
        let Ok(count) = u64::try_from(names.len()) else {
            return;
        };
        if count == 0 {
            return;
        }
        let key = &names[usize::try_from(self.random.below(count)).unwrap()];
        relabel(&mut self.table, key, |labels| {
            if let Some(app) = labels.remove("lost") {
                labels.insert("app".into(), app);
            } else if let Some(app) = labels.remove("app") {
                labels.insert("lost".into(), app);
            }
        });
        self.look_at_all();
    }

    /// Everybody looks at their pods again.
    fn look_at_all(&mut self) {
        self.armed.clear();
        for object in self.owners.values_mut() {
            *object = Arc::new((**object).clone());
        }
    }

    fn edit_deployment(&mut self, key: &ObjectKey) {
        let Some(wanted) = self.wanted(key) else {
            return;
        };
        let mut wanted = (*wanted).clone();
        match self.random.below(4) {
            0 => {
                wanted.replicas = self.random.small(9);
                self.armed.remove(key);
            }
            1 => wanted.paused = !wanted.paused,
            _ => wanted.template = workload(0, self.random.small(4)).template,
        }
        self.declare_workload(Kind::Deployment, &key.name, wanted);
    }

    fn wanted(&self, key: &ObjectKey) -> Option<Arc<Workload>> {
        match &self.owners.get(key)?.spec {
            Spec::Workload(wanted) => Some(Arc::clone(wanted)),
            _ => None,
        }
    }

    /// The host hears of `action` and will say something about it, in its own time.
    fn obey(&mut self, action: &PodAction) {
        let at = self
            .now
            .after(Duration::from_millis(self.random.below(4_000)));
        let mishap = if self.hostile {
            self.random.below(10)
        } else {
            9
        };
        match action {
            PodAction::Start { uid, .. } if mishap < 2 => {
                self.coming.push((
                    at,
                    PodObservation::Failed {
                        uid: *uid,
                        reason: "bad luck".into(),
                    },
                ));
            }
            PodAction::Start {
                uid, containers, ..
            } => {
                let moved = u16::try_from(self.random.below(2)).unwrap() * 10_000;
                let bound = containers
                    .iter()
                    .flat_map(|plan| &plan.ports)
                    .map(|port| (*port, port.number + moved))
                    .collect();
                self.coming
                    .push((at, PodObservation::Running { uid: *uid, bound }));
            }
            PodAction::Stop { .. } | PodAction::EndContainer { .. } if mishap == 0 => {}
            PodAction::StartContainer { uid, container } if mishap < 2 => {
                let became = ContainerChange::Failed {
                    reason: "bad luck".into(),
                };
                let (uid, container) = (*uid, Arc::clone(container));
                let failed = PodObservation::Container {
                    uid,
                    container,
                    became,
                };
                self.coming.push((at, failed));
            }
            other => self
                .coming
                .extend(answer_to(other).map(|answer| (at, answer))),
        }
    }

    fn round(&mut self) {
        let mut observations = Vec::new();
        let now = self.now;
        self.coming.retain(|(at, observation)| {
            if *at <= now {
                observations.push(observation.clone());
            }
            *at > now
        });
        let probes = self.probe();
        let commands = std::mem::take(&mut self.commands);
        let ended = observations
            .iter()
            .filter(|seen| matches!(seen, PodObservation::Ended { .. }))
            .count();
        self.ended += u32::try_from(ended).unwrap();
        let before: BTreeMap<PodUid, Option<PodOwner>> = self.owners_of_pods();
        let mut done = self.reconcile(&observations, &probes, &commands);
        for (uid, owner) in self.owners_of_pods() {
            match (before.get(&uid), owner) {
                (Some(Some(_)), None) => self.released += 1,
                (Some(None), Some(_)) => self.adopted += 1,
                _ => {}
            }
        }
        for _ in 0..3 {
            for action in &done.actions {
                self.restarted += u32::from(matches!(action, PodAction::StartContainer { .. }));
                self.obey(action);
            }
            self.deadline = done.deadline;
            self.check_table();
            self.check_deployments();
            if self.deadline != Some(self.now) {
                break;
            }
            done = self.reconcile(&[], &[], &[]);
        }
        let again = self.reconcile(&[], &[], &[]);
        assert!(
            again.actions.is_empty() && again.changed.is_empty(),
            "seed {}: {again:?}",
            self.seed
        );
        assert_eq!(again.deadline, self.deadline, "seed {}", self.seed);
    }

    fn owners_of_pods(&self) -> BTreeMap<PodUid, Option<PodOwner>> {
        let pods = self.table.pods.values();
        pods.map(|pod| (pod.uid, pod.owner.clone())).collect()
    }

    /// What probes say now: as it comes while the host is hostile, else what is missing.
    fn probe(&mut self) -> Vec<ProbeObservation> {
        let targets: Vec<_> = simulated_targets(&self.table).map(|(key, _)| key).collect();
        let mut seen = Vec::new();
        for key in targets {
            let outcome = match self.random.below(12) {
                _ if !self.hostile => ProbeOutcome::Success,
                0 => ProbeOutcome::Failure {
                    reason: "bad luck".into(),
                },
                1 => ProbeOutcome::Unhealthy {
                    reason: "bad luck".into(),
                },
                2..5 => ProbeOutcome::Success,
                _ => continue,
            };
            seen.push(ProbeObservation { key, outcome });
        }
        seen
    }

    /// Somebody asks something of a pod whose Deployment promised nothing.
    fn command(&mut self) {
        let own = self.table.pods.iter().filter(|(_, pod)| {
            let owner = pod.owner.as_ref();
            owner.is_none_or(|owner| &*owner.name == "rs")
        });
        let keys: Vec<(PodKey, bool)> = own
            .map(|(key, pod)| (key.clone(), pod.owner.is_none()))
            .collect();
        if keys.is_empty() {
            return;
        }
        let at = self.random.below(keys.len().try_into().unwrap());
        let (pod, bare) = keys[usize::try_from(at).unwrap()].clone();
        let value = self.random.below(3);
        let value = (value > 0).then(|| value.to_string().into());
        let changes = BTreeMap::from([("x".into(), value)]);
        let faults = [Fault::Ready, Fault::Live, Fault::Port];
        self.commands.push(match self.random.below(6) {
            0 => PodCommand::Delete { pod, grace: None },
            1 => PodCommand::Reset { pod: Some(pod) },
            2 if bare => PodCommand::Label { pod, changes },
            2 | 3 => PodCommand::Annotate { pod, changes },
            _ => PodCommand::Fault {
                pod,
                fault: faults[usize::try_from(self.random.below(3)).unwrap()],
                failing: self.random.below(2) == 0,
            },
        });
    }

    fn reconcile(
        &mut self,
        observations: &[PodObservation],
        probes: &[ProbeObservation],
        commands: &[PodCommand],
    ) -> Reconciled {
        let round = Round {
            observations,
            addresses: &mut self.addresses,
            now: self.now,
            seed: self.seed,
            node: "node".into(),
            nodes: &self.nodes,
            probes,
            commands,
            service_ports: ServicePorts::default(),
            edited: &BTreeSet::new(),
            events: &mut EventLog::default(),
        };
        reconcile(&mut self.table, &self.owners, round)
    }

    fn check_table(&self) {
        let ips: BTreeSet<IpAddr> = self.table.pods.values().map(|pod| pod.ip).collect();
        assert_eq!(
            ips.len(),
            self.table.pods.len(),
            "seed {}: addresses are unique",
            self.seed
        );
        let uids = self.table.uids.keys();
        assert!(uids.eq(self.table.lives.keys()), "seed {}", self.seed);
        for ((namespace, name), pod) in &self.table.pods {
            if pod.is_running() {
                let ready = pod.containers.iter().all(|state| state.ready);
                assert_eq!(pod.is_ready(), ready, "seed {}: {pod:?}", self.seed);
                for state in &pod.containers {
                    let shown = state.running_since.is_some() != state.waiting.is_some();
                    assert!(shown, "seed {}: {pod:?}", self.seed);
                    assert!(state.started || !state.ready, "seed {}: {pod:?}", self.seed);
                }
            }
            assert_eq!((namespace, name), (&pod.namespace, &pod.name));
            assert_eq!(
                self.addresses.holder(pod.ip),
                Some(&*format!("{namespace}/{name}")),
                "seed {}",
                self.seed
            );
            assert_eq!(
                self.table.uids.get(&pod.uid),
                Some(&(Arc::clone(namespace), Arc::clone(name)))
            );
        }
        assert_eq!(
            self.table.uids.len(),
            self.table.pods.len(),
            "seed {}",
            self.seed
        );
        let indexed: usize = self.table.owned.values().map(BTreeSet::len).sum();
        assert_eq!(indexed, self.table.pods.len(), "seed {}", self.seed);
        for pod in self.table.pods.values() {
            let mut of_owner = self.table.pods_of(&pod.namespace, pod.owner.clone());
            assert!(of_owner.any(|own| own.uid == pod.uid), "seed {}", self.seed);
        }
        self.check_sets();
    }

    /// What a StatefulSet and a DaemonSet promise at any time.
    fn check_sets(&self) {
        for (key, object) in &self.owners {
            let Spec::Workload(wanted) = &object.spec else {
                continue;
            };
            let owner = PodOwner {
                kind: key.kind,
                name: Arc::clone(&key.name),
            };
            let pods = self.table.pods_of(&key.namespace, Some(owner));
            let alive: Vec<_> = pods.filter(|pod| !pod.is_terminating()).collect();
            for pod in &alive {
                assert!(
                    wanted.selector.matches(&pod.labels),
                    "seed {}: {}",
                    self.seed,
                    pod.name
                );
            }
            if key.kind == Kind::DaemonSet {
                let nodes: BTreeSet<_> = alive.iter().map(|pod| &pod.node).collect();
                let surges = matches!(
                    wanted.strategy,
                    Strategy::RollingUpdate {
                        max_surge: IntOrPercent::Int(1),
                        ..
                    }
                );
                let most = nodes.len() * if surges { 2 } else { 1 };
                assert!(
                    alive.len() <= most,
                    "seed {}: {most} daemons at most",
                    self.seed
                );
            }
        }
    }

    fn check_deployments(&mut self) {
        let sets = replica_sets(&self.table, self.now);
        for key in self
            .owners
            .keys()
            .filter(|key| key.kind == Kind::Deployment)
        {
            let wanted = self.wanted(key).unwrap();
            let own = || {
                sets.iter()
                    .filter(|set| set.deployment.as_ref() == Some(&key.name))
            };
            let current: u32 = own().map(|set| set.current).sum();
            let available: u32 = own().map(|set| set.available).sum();
            let told = format!(
                "seed {}: {key}: {current} pods, {available} available: {wanted:?}",
                self.seed
            );
            let bounds = bounds(&wanted);
            let most = wanted.replicas + bounds.surge;
            let ceiling = self.ceilings.entry(key.clone()).or_insert(most);
            // A pod that is adopted comes and goes within the round.
            assert!(current <= most.max(*ceiling), "{told}");
            *ceiling = current.max(most);
            let revisions: BTreeSet<u64> = own().map(|set| set.revision).collect();
            assert_eq!(
                revisions.len(),
                own().count(),
                "revisions are unique: {told}"
            );
            let rolls = matches!(wanted.strategy, Strategy::RollingUpdate { .. });
            if rolls && available >= wanted.replicas {
                self.armed.insert(key.clone());
            }
            if self.armed.contains(key) {
                self.armed_rounds += 1;
                assert!(available + bounds.unavailable >= wanted.replicas, "{told}");
            }
        }
    }

    fn step(&mut self) {
        if self.random.below(3) == 0 {
            self.edit();
        }
        if self.random.below(3) == 0 {
            self.command();
        }
        if self.random.below(100) == 0 {
            self.coming.clear();
            self.armed.clear();
            host_lost(&mut self.table);
        }
        self.now = self
            .now
            .after(Duration::from_millis(self.random.below(3_000)));
        self.round();
    }

    /// No more edits or mishaps: goes from event to event until there is none.
    fn come_to_rest(&mut self) {
        self.hostile = false;
        self.commands = vec![PodCommand::Reset { pod: None }];
        for key in self.owners.keys().cloned().collect::<Vec<_>>() {
            if let Some(wanted) = self.wanted(&key) {
                self.declare_workload(
                    key.kind,
                    &key.name,
                    Workload {
                        paused: false,
                        ..(*wanted).clone()
                    },
                );
            }
        }
        // What is taken back may be labels from before a pod was lost.
        self.round();
        self.give_labels_back();
        for _ in 0..10_000 {
            self.round();
            let unready = self.table.pods.values().filter(|pod| pod.is_running());
            let probed = unready.filter(|pod| !pod.is_ready()).count() > 0;
            let next = self
                .coming
                .iter()
                .map(|(at, _)| *at)
                .chain(self.deadline)
                .chain(probed.then(|| self.now.after(Duration::from_secs(1))))
                .min();
            match next {
                Some(at) => self.now = at.max(self.now),
                None => return self.check_rest(),
            }
        }
        panic!("seed {}: it does not come to rest", self.seed);
    }

    /// No pod stays lost, and no set has to wait for somebody to delete a pod.
    fn give_labels_back(&mut self) {
        for key in self.table.pods.keys().cloned().collect::<Vec<_>>() {
            relabel(&mut self.table, &key, |labels| {
                if let Some(app) = labels.remove("lost") {
                    labels.insert("app".into(), app);
                }
            });
        }
        for key in self.owners.keys().cloned().collect::<Vec<_>>() {
            let Some(wanted) = self.wanted(&key) else {
                continue;
            };
            let mut wanted = (*wanted).clone();
            match key.kind {
                Kind::StatefulSet => {
                    wanted.strategy = Strategy::Partition(0);
                    // A pod that does not get ready holds up an ordered set until somebody deletes it.
                    wanted.parallel = true;
                }
                Kind::DaemonSet if wanted.strategy == Strategy::OnDelete => {
                    wanted.strategy = rolling(IntOrPercent::Int(0), IntOrPercent::Int(1));
                }
                _ => {}
            }
            self.declare_workload(key.kind, &key.name, wanted);
        }
        self.look_at_all();
    }

    /// The pods of a DaemonSet or StatefulSet are as wanted; gives their number.
    fn check_set_at_rest(&self, key: &ObjectKey, wanted: &Workload) -> u32 {
        let told = format!("seed {}: {key}", self.seed);
        let history = revisions(&self.table, key);
        let newest = history.last().unwrap();
        assert_eq!(newest.template.hash, wanted.template.hash, "{told}");
        let limit = usize::try_from(wanted.revision_history_limit).unwrap();
        assert!(history.len() <= limit + 1, "{told}");
        if key.kind == Kind::DaemonSet {
            let status = daemon_set_status(&self.table, key, self.now).unwrap();
            assert_eq!(
                (
                    status.current,
                    status.updated,
                    status.available,
                    status.misscheduled
                ),
                (status.desired, status.desired, status.desired, 0),
                "{told}"
            );
            return status.desired;
        }
        let status = stateful_set_status(&self.table, key, self.now).unwrap();
        assert_eq!(
            (
                status.replicas,
                status.available,
                status.current,
                status.updated
            ),
            (
                wanted.replicas,
                wanted.replicas,
                wanted.replicas,
                wanted.replicas
            ),
            "{told}"
        );
        wanted.replicas
    }

    fn check_rest(&self) {
        let sets = replica_sets(&self.table, self.now);
        let mut pods = 0;
        for (key, object) in &self.owners {
            pods += match (&object.spec, key.kind) {
                (Spec::Workload(wanted), Kind::DaemonSet | Kind::StatefulSet) => {
                    self.check_set_at_rest(key, wanted)
                }
                (Spec::Workload(wanted), _) => self.check_replicas_at_rest(key, wanted, &sets),
                _ => {
                    let solo = ("default".into(), "solo".into());
                    assert!(self.table.pods.contains_key(&solo));
                    1
                }
            };
        }
        let told = format!("seed {}", self.seed);
        let orphans = self.table.pods_of(&"default".into(), None);
        let declared = |pod: &&Arc<SimulatedPod>| {
            let key = ObjectKey {
                kind: Kind::Pod,
                namespace: Arc::clone(&pod.namespace),
                name: Arc::clone(&pod.name),
            };
            self.owners.contains_key(&key)
        };
        let orphans = orphans.filter(|pod| !declared(pod)).count();
        let declared = usize::try_from(pods).unwrap();
        assert_eq!(self.table.pods.len(), declared + orphans, "{told}");
        assert!(self.table.pods.values().all(|pod| pod.is_ready()), "{told}");
        let owned = sets
            .iter()
            .all(|set| self.owners.keys().any(|key| owns(key, set)));
        assert!(owned, "{told}: sets without an owner");
        let known = |uid| self.table.uids.contains_key(uid);
        assert!(self.table.failures.keys().all(known), "{told}");
    }

    /// A Deployment or ReplicaSet is as wanted; gives the number of its pods.
    fn check_replicas_at_rest(
        &self,
        key: &ObjectKey,
        wanted: &Workload,
        sets: &[RunningReplicaSet],
    ) -> u32 {
        let told = format!("seed {}: {key}", self.seed);
        if key.kind == Kind::Deployment {
            let status = deployment_status(&self.table, key, self.now).unwrap();
            let mut conditions = status.conditions.iter();
            assert!(
                conditions.any(|one| one.reason == "NewReplicaSetAvailable"),
                "{told}: {status:?}"
            );
        }
        let own: Vec<_> = sets.iter().filter(|set| owns(key, set)).collect();
        let new: Vec<_> = own
            .iter()
            .filter(|set| set.template.hash == wanted.template.hash)
            .collect();
        assert_eq!(new.len(), 1, "{told}");
        assert_eq!(new[0].available, wanted.replicas, "{told}");
        let limit = usize::try_from(wanted.revision_history_limit).unwrap();
        assert!(own.len() - 1 <= limit, "{told}");
        assert!(
            own.iter().all(|set| set.revision <= new[0].revision),
            "{told}"
        );
        wanted.replicas
    }
}

/// One container with all probes, another with none.
fn probed_spec(port: u16) -> PodSpec {
    let mut spec = pod_spec(port);
    let http = || http_probe("/healthy", TargetPort::Name("http".into()));
    spec.containers[0].readiness = Some(http());
    spec.containers[0].liveness = Some(http());
    spec.containers[0].startup = Some(http());
    spec.containers.push(Container {
        name: "side".into(),
        ..Container::default()
    });
    spec
}

fn owns(key: &ObjectKey, set: &RunningReplicaSet) -> bool {
    match key.kind {
        Kind::Deployment => set.deployment.as_ref() == Some(&key.name),
        Kind::ReplicaSet => set.deployment.is_none() && set.name == key.name,
        _ => false,
    }
}

#[test]
fn controllers_random_histories_keep_their_promises_and_come_to_rest() {
    let (mut armed_rounds, mut ended, mut restarted) = (0, 0, 0);
    let (mut released, mut adopted) = (0, 0);
    for seed in 0..150 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..150 {
            simulation.step();
        }
        simulation.come_to_rest();
        armed_rounds += simulation.armed_rounds;
        ended += simulation.ended;
        restarted += simulation.restarted;
        released += simulation.released;
        adopted += simulation.adopted;
    }
    assert!(restarted > 1_000, "{restarted} containers restarted");
    assert!(released > 500, "{released} pods released");
    assert!(adopted > 200, "{adopted} pods adopted");
    assert!(
        armed_rounds > 5_000,
        "{armed_rounds} rounds with a promise of availability"
    );
    assert!(ended > 5_000, "{ended} pods ended");
}

#[test]
fn controllers_same_seed_gives_the_same_world() {
    let run = || {
        let mut simulation = Simulation::new(3);
        for _ in 0..80 {
            simulation.step();
        }
        simulation.table.pods
    };
    assert_eq!(run(), run());
}
