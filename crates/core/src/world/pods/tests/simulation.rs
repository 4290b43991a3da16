//! Random histories: owners are edited, a host answers late, out of order, with failures or not at all, and dies.
//! After every step the promises hold, and when the edits stop everything becomes as declared. The seed in a
//! failure's message replays it.

use std::collections::BTreeSet;

use super::*;

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
    /// What the host will say, and when.
    coming: Vec<(Timestamp, PodObservation)>,
    /// Deployments that were fully available since something other than their template was edited.
    armed: BTreeSet<ObjectKey>,
    /// Whether the host still makes mistakes.
    hostile: bool,
    /// Numbers of what happened, so that the test can tell that it tested something.
    armed_rounds: u32,
    ended: u32,
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
            coming: Vec::new(),
            armed: BTreeSet::new(),
            hostile: true,
            armed_rounds: 0,
            ended: 0,
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
        match self.random.below(12) {
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
                let wanted = self.random_workload();
                self.declare_workload(Kind::ReplicaSet, "rs", wanted);
            }
            9 => self.owners.retain(|key, _| key.kind == Kind::Deployment),
            _ => {
                let spec = Arc::new(pod_spec(80 + u16::try_from(self.random.below(2)).unwrap()));
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
            PodAction::Start { uid, ports, .. } => {
                let moved = u16::try_from(self.random.below(2)).unwrap() * 10_000;
                let bound = ports
                    .iter()
                    .map(|port| (*port, port.number + moved))
                    .collect();
                self.coming
                    .push((at, PodObservation::Running { uid: *uid, bound }));
            }
            PodAction::Stop { .. } if mishap == 0 => {}
            PodAction::Stop { uid, .. } => {
                self.coming.push((at, PodObservation::Ended { uid: *uid }));
            }
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
        let ended = observations
            .iter()
            .filter(|seen| matches!(seen, PodObservation::Ended { .. }))
            .count();
        self.ended += u32::try_from(ended).unwrap();
        let done = self.reconcile(&observations);
        for action in &done.actions {
            self.obey(action);
        }
        self.deadline = done.deadline;
        self.check_table();
        self.check_deployments();
        let again = self.reconcile(&[]);
        assert!(
            again.actions.is_empty() && again.changed.is_empty(),
            "seed {}: {again:?}",
            self.seed
        );
        assert_eq!(again.deadline, self.deadline, "seed {}", self.seed);
    }

    fn reconcile(&mut self, observations: &[PodObservation]) -> Reconciled {
        let round = Round {
            observations,
            addresses: &mut self.addresses,
            now: self.now,
            seed: self.seed,
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
        for ((namespace, name), pod) in &self.table.pods {
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
            assert!(current <= wanted.replicas + bounds.surge, "{told}");
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
        for _ in 0..10_000 {
            self.round();
            let next = self
                .coming
                .iter()
                .map(|(at, _)| *at)
                .chain(self.deadline)
                .min();
            match next {
                Some(at) => self.now = at.max(self.now),
                None => return self.check_rest(),
            }
        }
        panic!("seed {}: it does not come to rest", self.seed);
    }

    fn check_rest(&self) {
        let sets = replica_sets(&self.table, self.now);
        let mut pods = 0;
        for (key, object) in &self.owners {
            let Spec::Workload(wanted) = &object.spec else {
                assert!(
                    self.table
                        .pods
                        .contains_key(&("default".into(), "solo".into()))
                );
                pods += 1;
                continue;
            };
            pods += wanted.replicas;
            let own: Vec<_> = sets.iter().filter(|set| owns(key, set)).collect();
            let new: Vec<_> = own
                .iter()
                .filter(|set| set.template.hash == wanted.template.hash)
                .collect();
            assert_eq!(new.len(), 1, "seed {}: {key}", self.seed);
            assert_eq!(
                new[0].available, wanted.replicas,
                "seed {}: {key}",
                self.seed
            );
            let former = own.len() - 1;
            assert!(
                former <= usize::try_from(wanted.revision_history_limit).unwrap(),
                "seed {}: {key}",
                self.seed
            );
            assert!(
                own.iter().all(|set| set.revision <= new[0].revision),
                "seed {}: {key}",
                self.seed
            );
        }
        assert_eq!(
            self.table.pods.len(),
            usize::try_from(pods).unwrap(),
            "seed {}",
            self.seed
        );
        assert!(
            self.table.pods.values().all(|pod| pod.is_ready()),
            "seed {}",
            self.seed
        );
        let owned = sets
            .iter()
            .all(|set| self.owners.keys().any(|key| owns(key, set)));
        assert!(owned, "seed {}: sets without an owner", self.seed);
        assert!(
            self.table
                .failures
                .keys()
                .all(|uid| self.table.uids.contains_key(uid)),
            "seed {}",
            self.seed
        );
    }
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
    let (mut armed_rounds, mut ended) = (0, 0);
    for seed in 0..150 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..150 {
            simulation.step();
        }
        simulation.come_to_rest();
        armed_rounds += simulation.armed_rounds;
        ended += simulation.ended;
    }
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
