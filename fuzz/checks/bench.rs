//! A world with the snapshot and the listeners that follow it, held to what must be true after every round. It does
//! what the program's reconciler does, without sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use portico_core::{
    object::{BalancePolicy, Protocol, diagnostic::Severity},
    snapshot::{
        Cluster, FrontendKey, NodePortAddresses, ServiceView, Snapshot, SourceRangeReach,
        compile::{Transition, compile},
        filter::Filter,
        plan::{ListenerKey, ListenerPlan, ListenerTable, Mode},
    },
    time::Timestamp,
    world::{
        Deviations, Input, Shard, Simulation, SourceReport, SourceView, World, WorldSettings,
        pods::{PodAction, PodCommand, PodObservation},
        probes::ProbeObservation,
        step,
    },
};

/// Listeners of the table that has to collapse.
const NARROW: usize = 3;

/// See the module's documentation.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) snapshot: Snapshot,
    pub(crate) now: Timestamp,
    view: SourceView,
    wide: Sockets,
    narrow: Sockets,
}

/// What the rounds are given beside the files.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) observations: Vec<PodObservation>,
    pub(crate) probes: Vec<ProbeObservation>,
    pub(crate) commands: Vec<PodCommand>,
}

fn cluster() -> Cluster {
    let range = |text: &str| text.parse().expect("a range");
    Cluster {
        domains: vec!["cluster.local".into()],
        search_namespace: Some("default".into()),
        service_cidr: range("127.96.0.0/24"),
        dynamic_service_cidr: range("127.96.0.0/26"),
        load_balancer_cidr: range("127.112.0.0/28"),
        service_cidr_v6: None,
        load_balancer_cidr_v6: None,
        pod_cidr: range("127.120.0.0/26"),
        node_port_addresses: NodePortAddresses::All,
        dns_address: [127, 96, 0, 10].into(),
        node_name: "here".into(),
        zone: None,
        host_addresses: vec![[192, 0, 2, 1].into()],
        source_range_reach: SourceRangeReach::LoadBalancer,
        dns: portico_core::dns::DnsRules::default(),
        http: portico_core::http::HttpRules::default(),
    }
}

impl Bench {
    pub(crate) fn new(simulation: Simulation) -> Self {
        let world = World::new(WorldSettings {
            cluster: Arc::new(cluster()),
            node_ports: 30000..=30031,
            external_ranges: Vec::new(),
            host_addresses: vec![[192, 0, 2, 1].into()],
            simulation,
            foreign_addresses: Severity::Warning,
            remembered: Deviations::default(),
            seed: 1,
        });
        Self {
            snapshot: Snapshot::empty(Arc::clone(world.cluster())),
            world,
            now: Timestamp::from_millis(1_700_000_000_000),
            view: SourceView::default(),
            wide: Sockets::new(usize::MAX),
            narrow: Sockets::new(NARROW),
        }
    }

    /// The file `name` gives these objects now.
    pub(crate) fn file(&mut self, name: &str, shard: Shard) {
        self.view.shards.insert(name.into(), Arc::new(shard));
    }

    /// A round in which nothing but the files has changed.
    pub(crate) fn round(&mut self) {
        let reports = [SourceReport::Synced(self.view.clone())];
        self.step(&reports, &Seen::default());
        let again = self.step(&reports, &Seen::default());
        assert!(
            again.len() <= self.world.pods().pods.len(),
            "the same again starts nothing"
        );
    }

    /// A round. Everything that must hold after it is checked.
    pub(crate) fn step(&mut self, reports: &[SourceReport], seen: &Seen) -> Vec<PodAction> {
        let stepped = step(
            self.world.take(),
            Input {
                reports,
                observations: &seen.observations,
                probes: &seen.probes,
                commands: &seen.commands,
                now: self.now,
                waited_enough: true,
            },
        );
        self.world = stepped.world;
        let (snapshot, transitions) = compile(&self.snapshot, &self.world, &stepped.changed);
        self.snapshot = snapshot;
        self.wide.apply(&transitions);
        self.narrow.apply(&transitions);
        self.check();
        stepped.actions
    }

    fn check(&self) {
        let all: Vec<Transition> = self.snapshot.services().into_iter().map(entered).collect();
        let mut fresh = Sockets::new(usize::MAX);
        fresh.apply(&all);
        assert_eq!(
            self.wide.running, fresh.running,
            "edits end in the listeners of a fresh start"
        );
        self.check_addresses();
        self.check_frontends();
        self.check_same_as_new();
        for view in self.snapshot.services() {
            check_tickets(view, self.now);
        }
        for finding in self.world.diagnostics() {
            assert!(!finding.message.is_empty());
        }
    }

    /// No address belongs to two, and every one of ours is in its range.
    fn check_addresses(&self) {
        let cluster = self.world.cluster();
        let (mut cluster_ips, mut pods) = (BTreeMap::new(), BTreeMap::new());
        for (path, record) in self.world.services() {
            for addr in &record.addresses.cluster_ips {
                let other = cluster_ips.insert(*addr, path);
                assert_eq!(other, None, "{addr} of {path}");
                assert!(cluster.service_cidr.contains(addr), "{addr} of {path}");
            }
        }
        for (key, pod) in &self.world.pods().pods {
            assert!(cluster.pod_cidr.contains(&pod.ip), "{} of {key:?}", pod.ip);
            let other = pods.insert(pod.ip, key);
            assert_eq!(other, None, "{} of {key:?}", pod.ip);
        }
    }

    /// Every frontend belongs to one Service, has its port, and is found by its address.
    fn check_frontends(&self) {
        let mut owners: BTreeMap<FrontendKey, String> = BTreeMap::new();
        for view in self.snapshot.services() {
            for (key, kind, index) in &view.frontends {
                let port = view.ports.get(*index).expect("the port of a frontend");
                let other = owners.insert(*key, view.path());
                assert_eq!(other, None, "{key:?} of {}", view.path());
                let local = (key.addr, key.port).into();
                let found = self
                    .snapshot
                    .frontend(key.scope, local, key.port, key.protocol)
                    .expect("a frontend at its address");
                assert_eq!((found.kind, &found.port.name), (*kind, &port.name));
                let _ = port.verdict(*kind, self.snapshot.cluster.place_of(None, key.addr));
            }
        }
    }

    /// What edits have made is what a first compilation makes.
    fn check_same_as_new(&self) {
        let every: BTreeSet<Arc<str>> = self.world.services().keys().cloned().collect();
        let empty = Snapshot::empty(Arc::clone(self.world.cluster()));
        let (new, _) = compile(&empty, &self.world, &every);
        let told = |snapshot: &Snapshot| -> Vec<String> {
            snapshot
                .services()
                .into_iter()
                .map(|view| tell(view))
                .collect()
        };
        assert_eq!(told(&self.snapshot), told(&new));
    }

    /// All there is to see, for comparison with another run.
    pub(crate) fn tell(&self) -> String {
        let views: Vec<String> = self
            .snapshot
            .services()
            .into_iter()
            .map(|view| tell(view))
            .collect();
        format!(
            "{views:?} {:?} {:?} {:?} {:?}",
            self.world.pods().pods,
            self.wide.running,
            self.narrow.running,
            self.world.diagnostics(),
        )
    }
}

fn entered(view: &Arc<ServiceView>) -> Transition {
    Transition {
        before: None,
        after: Some(Arc::clone(view)),
    }
}

/// A Service with everything but what counts.
fn tell(view: &ServiceView) -> String {
    let ports = view.ports.iter().map(|port| {
        let sets = [&port.cluster, &port.local].map(|set| {
            set.as_ref().map(|set| {
                let all = set.endpoints().iter().enumerate();
                all.map(|(index, of)| (of.addr, set.weight(index)))
                    .collect::<Vec<_>>()
            })
        });
        format!("{} {:?} {} {sets:?}", port.name, port.family, port.any)
    });
    let ports: Vec<String> = ports.collect();
    format!("{} {:?} {ports:?}", view.path(), view.frontends)
}

/// As many picks as endpoints give each one, whatever has been picked before.
fn check_tickets(view: &ServiceView, now: Timestamp) {
    for set in view.ports.iter().filter_map(|port| port.cluster.as_ref()) {
        let plain =
            set.balance().policy == BalancePolicy::RoundRobin && set.balance().weights.is_empty();
        if !plain || set.is_empty() {
            continue;
        }
        let picks = set
            .endpoints()
            .iter()
            .map(|_| set.pick(&[], now).map(|of| of.addr));
        let picked: BTreeSet<_> = picks.collect();
        assert_eq!(picked.len(), set.len(), "one pick each in {}", view.path());
        assert!(!picked.contains(&None));
    }
}

/// Sockets that do what plans say.
struct Sockets {
    table: ListenerTable,
    running: BTreeMap<ListenerKey, Mode>,
    filters: BTreeMap<ListenerKey, Arc<Filter>>,
}

impl Sockets {
    fn new(budget: usize) -> Self {
        Self {
            table: ListenerTable::new(budget),
            running: BTreeMap::new(),
            filters: BTreeMap::new(),
        }
    }

    fn apply(&mut self, transitions: &[Transition]) {
        let ListenerPlan {
            bind,
            close,
            switch,
            tighten,
            loosen,
        } = self.table.apply(transitions);
        for key in close {
            assert!(self.running.remove(&key).is_some(), "{key:?} does not run");
        }
        for (key, mode) in switch {
            let before = self.running.insert(key, mode);
            assert!(
                before.is_some_and(|before| before != mode),
                "{key:?} is {before:?}"
            );
        }
        for (key, mode, services) in bind {
            assert!(!services.is_empty(), "{key:?} is for nobody");
            assert_eq!(self.running.insert(key, mode), None, "{key:?} runs already");
        }
        for (key, filter) in tighten {
            assert_eq!(self.filters.insert(key, filter), None, "{key:?} has one");
        }
        for (key, filter) in loosen {
            let before = match filter {
                Some(filter) => self.filters.insert(key, filter),
                None => self.filters.remove(&key),
            };
            assert!(before.is_some(), "{key:?} had none");
        }
        for key in self.filters.keys() {
            assert!(
                self.running.contains_key(key),
                "{key:?} drops and does not run"
            );
        }
        assert_eq!(self.running.len(), self.table.len());
        for key in self.running.keys() {
            assert!(key.protocol != Protocol::Sctp && key.port > 0);
            if let portico_core::snapshot::plan::Bind::Address(addr) = key.bind {
                assert!(self.table.is_declared(addr, key.port));
                assert_ne!(addr, IpAddr::from([0, 0, 0, 0]));
            }
        }
    }
}
