//! The reconciler: one round takes the newest reports and observations and leaves sockets, snapshot and pods as they
//! should be. Owns the order of invariant 7: new sockets are bound before the snapshot is published and accept after
//! it; removed ones leave it before they close; pods lose their clients before they stop; probes follow what runs.
//! An external address gets its route before it is bound, and loses it after the last socket there is closed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use portico_core::{
    object::Protocol,
    snapshot::{
        Cluster, Generation, Scope, Snapshot,
        compile::{Transition, compile},
        filter::Filter,
        plan::{ListenerKey, ListenerPlan, ListenerTable, Mode},
    },
    time::Timestamp,
    world::{Deviations, Input, NewEvent, World, pods::PodAction, probes::ProbeTargets, step},
};
use portico_dataplane::Published;

use super::routes::{ExternalAddresses, RouteHost};

/// What the reconciler needs of the sockets.
pub trait ListenerHost {
    /// What a socket is to drop before anybody accepts it, from now on, also one that is yet to be bound; `None` is
    /// nothing. Best effort: whatever gets through is judged by the Snapshot.
    fn filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>);
    /// Binds new sockets, not yet accepting. `is_declared` tells which ports a fallback must not take.
    fn bind(
        &mut self,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    );
    /// Lets newly bound sockets accept.
    fn accept(&mut self);
    /// Switches a socket between listening and refusing.
    fn switch(&mut self, key: ListenerKey, mode: Mode);
    /// Closes sockets; their established connections go on.
    fn close(&mut self, keys: &[ListenerKey]);
    /// Tries again what could not be bound; says when to be called next.
    fn retry(&mut self, now: Timestamp) -> Option<Timestamp>;
}

/// What the reconciler needs of the pods' host.
pub trait PodRunner {
    /// Carries out actions, in order, without waiting for their effect.
    fn run(&mut self, actions: Vec<PodAction>);
}

/// What the reconciler needs of the prober.
pub trait ProbeHost {
    /// These are the probes that are to run now. What they find comes back as observations.
    fn watch(&mut self, targets: &Arc<ProbeTargets>);
}

/// See the module's documentation.
pub struct Reconciler<L, P, H> {
    world: World,
    table: ListenerTable,
    /// Of every other scope: the same Services, in sockets of its own.
    scopes: BTreeMap<Scope, ListenerTable>,
    published: Arc<Published>,
    listeners: L,
    external: ExternalAddresses,
    pods: P,
    probes: H,
    /// Services to compile once serving may begin.
    waiting: BTreeSet<Arc<str>>,
    /// Snapshots that a worker may still read: kept so that none is freed on a worker (invariant 2).
    retired: Vec<Arc<Snapshot>>,
}

/// What a round did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The generation that this round published, if it did.
    pub published: Option<Generation>,
    /// Services that were compiled anew.
    pub services: usize,
    /// Sockets of the host bound, closed and switched.
    pub plan: ListenerPlan,
    /// When to come back even if nothing happens.
    pub deadline: Option<Timestamp>,
}

impl<L: ListenerHost + RouteHost, P: PodRunner, H: ProbeHost> Reconciler<L, P, H> {
    /// A reconciler for an empty world; `budget` bounds the number of listeners.
    pub fn new(
        world: World,
        published: Arc<Published>,
        (listeners, pods, probes): (L, P, H),
        budget: usize,
    ) -> Self {
        let cluster = Arc::clone(&published.load().cluster);
        let table = ListenerTable::new(budget).guarding(cluster);
        Self {
            world,
            table,
            scopes: BTreeMap::new(),
            published,
            listeners,
            external: ExternalAddresses::default(),
            pods,
            probes,
            waiting: BTreeSet::new(),
            retired: Vec::new(),
        }
    }

    /// Serves every address of these ports by one wildcard socket each.
    pub fn sharing(mut self, ports: BTreeSet<u16>) -> Self {
        self.table = self.table.sharing(ports);
        self
    }

    /// Never serves the addresses of these ports by one socket for all.
    pub fn keeping_apart(mut self, ports: BTreeSet<(Protocol, u16)>) -> Self {
        self.table = self.table.keeping_apart(ports);
        self
    }

    /// One round.
    pub fn round(&mut self, input: Input<'_>) -> Outcome {
        let was_synced = self.world.is_synced();
        let namespaces = Arc::clone(self.world.namespaces());
        let probed = Arc::clone(self.world.probe_targets());
        let stepped = step(self.world.take(), input);
        self.world = stepped.world;
        self.waiting.extend(stepped.changed);
        let mut outcome = Outcome {
            deadline: stepped.deadline,
            ..Outcome::default()
        };
        let first = !was_synced && self.world.is_synced();
        let now_there = self.world.namespaces();
        let same_namespaces =
            Arc::ptr_eq(&namespaces, now_there) || namespaces.keys().eq(now_there.keys());
        let differs = first || !self.waiting.is_empty() || !same_namespaces;
        if self.world.is_synced() && differs {
            self.publish(&mut outcome);
        }
        self.pods.run(stepped.actions);
        if !Arc::ptr_eq(&probed, self.world.probe_targets()) {
            self.probes.watch(self.world.probe_targets());
        }
        let retry = self.listeners.retry(input.now);
        outcome.deadline = [outcome.deadline, retry].into_iter().flatten().min();
        outcome
    }

    fn publish(&mut self, outcome: &mut Outcome) {
        let changed = std::mem::take(&mut self.waiting);
        let previous: Arc<Snapshot> = self.published.load_full();
        let (snapshot, transitions) = compile(&previous, &self.world, &changed);
        let plan = self.table.apply(&transitions);
        let scopes = self.scopes.values_mut();
        let inside: Vec<_> = scopes.map(|table| table.apply(&transitions)).collect();
        let (came, went) = self.external.apply(&transitions);
        if !came.is_empty() {
            self.listeners.attach(&came);
        }
        for plan in [&plan].into_iter().chain(&inside) {
            self.open(plan);
        }
        outcome.published = Some(snapshot.generation);
        outcome.services = changed.len();
        self.published.store(Arc::new(snapshot));
        self.retired.retain(|old| Arc::strong_count(old) > 1);
        self.retired.push(previous);
        self.listeners.accept();
        for plan in [&plan].into_iter().chain(&inside) {
            self.settle(plan);
        }
        if !went.is_empty() {
            self.listeners.detach(&went);
        }
        outcome.plan = plan;
    }

    /// What of a plan comes before its Snapshot.
    fn open(&mut self, plan: &ListenerPlan) {
        let (table, listeners) = (&self.table, &mut self.listeners);
        // Before what they speak for, so that a client is dropped and not reset; those that let more through come after
        // it, for the same reason.
        for (key, filter) in &plan.tighten {
            listeners.filter(*key, Some(filter));
        }
        listeners.bind(&plan.bind, &|addr, port| table.is_declared(addr, port));
    }

    /// What of a plan comes after its Snapshot.
    fn settle(&mut self, plan: &ListenerPlan) {
        for (key, mode) in &plan.switch {
            self.listeners.switch(*key, *mode);
        }
        for (key, filter) in &plan.loosen {
            self.listeners.filter(*key, filter.as_ref());
        }
        self.listeners.close(&plan.close);
    }

    /// Serves all Services, and all that come, in another scope too: by at most `budget` sockets as far as one can stand
    /// for several.
    pub fn open_scope(&mut self, scope: Scope, budget: usize) {
        let snapshot = self.published.load_full();
        let cluster: Arc<Cluster> = Arc::clone(&snapshot.cluster);
        let table = ListenerTable::new(budget).of(scope).guarding(cluster);
        // DNS has a single address of it there.
        let mut table =
            table.keeping_apart([Protocol::Tcp, Protocol::Udp].map(|of| (of, 53)).into());
        let all = snapshot.services().into_iter().map(|view| Transition {
            before: None,
            after: Some(Arc::clone(view)),
        });
        let plan = table.apply(&all.collect::<Vec<_>>());
        self.scopes.insert(scope, table);
        self.open(&plan);
        self.listeners.accept();
    }

    /// Closes all sockets of a scope; their connections go on.
    pub fn close_scope(&mut self, scope: Scope) {
        if let Some(table) = self.scopes.remove(&scope) {
            self.settle(&table.end());
        }
    }

    /// The world as it is.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Writes an event down.
    pub fn record(&mut self, event: NewEvent, now: Timestamp) {
        self.world.record(event, now);
    }

    /// Starts all simulated pods again after their host was lost.
    pub fn pod_host_lost(&mut self) {
        self.world.pod_host_lost();
    }

    /// What the state file should keep.
    pub fn deviations(&self) -> &Deviations {
        self.world.deviations()
    }

    /// The sockets, to read their states.
    pub fn listeners(&self) -> &L {
        &self.listeners
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// The generation in force.
    pub fn generation(&self) -> Generation {
        self.published.load().generation
    }

    /// The prober, to read its load.
    pub fn probes(&self) -> &H {
        &self.probes
    }

    /// Sockets, pods and probes, at the end.
    pub fn into_parts(self) -> (L, P, H) {
        (self.listeners, self.pods, self.probes)
    }
}
