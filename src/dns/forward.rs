//! Names of others: asked of the servers that this machine would ask itself. Owns whom to ask, how often and for how
//! long, and how many at a time; what a message says is the core's.
//!
//! - `resolv_conf`: the servers of the machine, read again when that file changes
//! - `upstream`: one server and how it has done lately
//! - `turns`: one question to servers that stand for each other
//! - `exchange`: one question to one server
//! - `report`: what was counted

mod exchange;
mod report;
mod resolv_conf;
mod turns;
mod upstream;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portico_core::{
    dns::{
        Name, Question, Rcode, RecordType,
        wire::{Query, RECURSION_DESIRED},
    },
    dns_cache::{
        self, Cache, Key, Prefetch,
        message::{Age, Message, Relayed},
    },
    time::Timestamp,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

pub(super) use report::count;
pub use report::{ForwardCounters, KeptReport, UpstreamReport};
pub use resolv_conf::{INSTALLED, ResolvConf, former};
use turns::{Group, ask_all, is_useful};
use upstream::Upstream;

/// Queries that wait for others at a time; more are refused, as CoreDNS does with `max_concurrent 1000`.
const MOST_WAITING: usize = 1000;
/// How long others have before an answer that is too old stands in for theirs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Responses that are kept.
const MOST_KEPT: usize = 10_000;

/// Why a server is not asked.
const LOOP: &str = "it leads back to portico";
/// The same.
const OWN: &str = "it is portico itself";

/// Whom to ask for names of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSettings {
    /// For all names.
    pub upstreams: UpstreamSource,
    /// For a domain and what is below it, instead of those.
    pub stubs: Vec<(Name, SocketAddr)>,
    /// Sockets towards them at a time; further tries wait for one.
    pub sockets: usize,
}

/// Where the servers are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamSource {
    /// In the settings; with none, nobody is asked.
    Given(Vec<SocketAddr>),
    /// In the machine's own configuration.
    Machine(ResolvConf),
}

impl Default for ForwardSettings {
    /// Nobody is asked.
    fn default() -> Self {
        Self {
            upstreams: UpstreamSource::Given(Vec::new()),
            stubs: Vec::new(),
            sockets: 0,
        }
    }
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is nobody to ask, and why.
    NoUpstream(Arc<str>),
    /// Nothing is kept, and the client does not want others to be asked.
    NotWanted,
    /// Too many are waiting.
    Busy,
    /// These have not answered.
    Silent(String),
}

impl Failure {
    /// `REFUSED` where it helps to ask somebody else, which glibc then does.
    pub(super) const fn rcode(&self) -> Rcode {
        match self {
            Self::NoUpstream(_) | Self::NotWanted | Self::Busy => Rcode::Refused,
            Self::Silent(_) => Rcode::ServFail,
        }
    }

    /// Code and text of the extended error (RFC 8914 section 4).
    pub(super) fn explanation(&self) -> (u16, String) {
        match self {
            Self::NoUpstream(why) => (0, format!("portico has no DNS server to ask: {why}")),
            // Not authoritative.
            Self::NotWanted => (20, "nobody is asked without recursion desired".to_owned()),
            Self::Busy => (
                0,
                format!("{MOST_WAITING} queries wait for other DNS servers"),
            ),
            Self::Silent(who) => (23, format!("no answer from {who}")),
        }
    }
}

/// A response, and how old it is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) message: Arc<Message>,
    pub(super) age: Age,
}

impl Found {
    fn fresh(message: Arc<Message>) -> Self {
        Self {
            message,
            age: Age::Fresh,
        }
    }
}

/// Asks others.
#[derive(Debug)]
pub(super) struct Forwarder {
    settings: ForwardSettings,
    pub(super) permits: Semaphore,
    current: Mutex<Current>,
    kept: Mutex<Kept>,
    counters: ForwardCounters,
    /// Names that were made up for one server each: who asks us for one was asked by that server.
    probes: Mutex<Vec<(Name, Arc<Upstream>)>>,
    tasks: TaskTracker,
    /// What the age of responses is counted from, since the clock on the wall may be set.
    started: Instant,
}

/// What others said lately, and what they are being asked.
#[derive(Debug)]
struct Kept {
    cache: Cache,
    flights: HashMap<Key, Flight>,
}

/// A query on its way, for all who ask the same.
type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<Arc<Message>, Failure>;

/// Whom to ask now.
#[derive(Debug)]
struct Current {
    /// Our own addresses, which are never asked.
    own: Vec<SocketAddr>,
    machine: resolv_conf::Watch,
    group: Group,
    /// By domain.
    stubs: Vec<(Name, Group)>,
    /// Places for tries.
    sockets: Arc<Semaphore>,
}

impl Forwarder {
    /// Nothing is read or sent before the first query.
    pub(super) fn new(settings: ForwardSettings) -> Self {
        let empty = Group {
            upstreams: Arc::default(),
            problem: Arc::from("none is configured"),
        };
        let sockets = Arc::new(Semaphore::new(settings.sockets.min(MOST_WAITING)));
        Self {
            settings,
            permits: Semaphore::new(MOST_WAITING),
            current: Mutex::new(Current {
                own: Vec::new(),
                machine: resolv_conf::Watch::default(),
                group: empty,
                stubs: Vec::new(),
                sockets,
            }),
            kept: Mutex::new(Kept {
                cache: Cache::new(MOST_KEPT),
                flights: HashMap::new(),
            }),
            counters: ForwardCounters::default(),
            probes: Mutex::default(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
        }
    }

    /// These addresses are ours: who asks there asks us. Tells in the log whom it asks.
    pub(super) fn add_own(self: &Arc<Self>, addrs: impl IntoIterator<Item = SocketAddr>) {
        let mut current = self.lock();
        current.own.extend(addrs);
        match &self.settings.upstreams {
            UpstreamSource::Given(addrs) => {
                current.group = current.group_of(addrs, "--dns-upstream");
            }
            UpstreamSource::Machine(_) => current.machine.forget(),
        }
        let mut domains: Vec<&Name> = Vec::new();
        for (domain, _) in &self.settings.stubs {
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let stub = |domain: &Name| {
            let of_domain = self
                .settings
                .stubs
                .iter()
                .filter(|(name, _)| name == domain);
            let addrs: Vec<_> = of_domain.map(|(_, addr)| *addr).collect();
            (domain.clone(), current.group_of(&addrs, "--dns-stub"))
        };
        current.stubs = domains.into_iter().map(stub).collect();
        drop(current);
        self.follow_machine();
        self.probe();
    }

    /// The servers for `name`: those of the longest domain that it is in, else those for all names.
    fn group(self: &Arc<Self>, name: &Name) -> Group {
        self.follow_machine();
        let current = self.lock();
        let stubs = current.stubs.iter();
        let within = stubs.filter(|(domain, _)| name.is_within(domain));
        let longest = within.max_by_key(|(domain, _)| domain.len());
        longest.map_or(&current.group, |(_, group)| group).clone()
    }

    /// Reads whom the machine asks, if that may have changed.
    fn follow_machine(self: &Arc<Self>) {
        let UpstreamSource::Machine(files) = &self.settings.upstreams else {
            return;
        };
        let mut current = self.lock();
        if let Some(addrs) = current.machine.read(files, Instant::now()) {
            let origin = files.path.display().to_string();
            current.group = current.group_of(&addrs, &origin);
            drop(current);
            // Another network may know other names.
            self.kept().cache.clear();
            self.probe();
        }
    }

    /// All servers, each with the domain that it is for.
    fn all_upstreams(&self) -> Vec<(Name, Arc<Upstream>)> {
        let current = self.lock();
        let usual = [(Name::root(), current.group.clone())];
        let mut all = Vec::new();
        for (domain, group) in usual.iter().chain(&current.stubs) {
            let upstreams = group.upstreams.iter();
            all.extend(upstreams.map(|upstream| (domain.clone(), Arc::clone(upstream))));
        }
        all
    }

    /// Asks every server for a name that nobody can know, to see whether the question comes back to us, directly or
    /// through others. Not more often than every half minute.
    fn probe(self: &Arc<Self>) {
        let now = Instant::now();
        for (domain, upstream) in self.all_upstreams() {
            let name = exchange::secret_name(&domain);
            let Some(name) = name.filter(|_| !upstream.is_barred() && upstream.is_probe_due(now))
            else {
                continue;
            };
            self.probes().push((name.clone(), Arc::clone(&upstream)));
            let forwarder = Arc::clone(self);
            self.tasks.spawn(async move {
                let query = Query {
                    id: 0,
                    flags: RECURSION_DESIRED,
                    question: Question::new(name.clone(), RecordType::Hinfo),
                    edns: None,
                };
                // What it says does not matter.
                let _ = exchange::ask(upstream.addr, &Relayed::instead(&query, &name)).await;
                forwarder.probes().retain(|(probe, _)| *probe != name);
            });
        }
    }

    /// Whether we asked for `name` ourselves, so that the server that it was made up for leads back to us.
    fn is_own_question(&self, name: &Name) -> bool {
        let probes = self.probes();
        let Some((_, upstream)) = probes.iter().find(|(probe, _)| probe == name) else {
            return false;
        };
        if upstream.bar(LOOP) {
            tracing::warn!(
                target: "dns",
                address = %upstream.addr,
                "a loop: this DNS server asks portico, so that it is no longer asked until resolv.conf changes; \
                 name another one with --dns-upstream"
            );
        }
        true
    }

    /// The response of others to `query`, which asks for `name`: kept or new. Takes less than five seconds.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        name: &Name,
        query: Relayed,
    ) -> Result<Found, Failure> {
        if self.is_own_question(name) {
            return Err(Failure::NoUpstream(LOOP.into()));
        }
        let group = self.group(name);
        let wants_recursion = query.wants_recursion();
        let Some(key) = query.key() else {
            if !wants_recursion {
                return Err(Failure::NotWanted);
            }
            let _permit = self.permit()?;
            return ask_all(group, query).await.map(Arc::new).map(Found::fresh);
        };
        let found = self.kept().cache.find(&key, self.now());
        let old = match found {
            dns_cache::Found::Kept(message, age, prefetch) => {
                let has_answers = message.has_answers();
                count(if has_answers {
                    &self.counters.hits
                } else {
                    &self.counters.denials
                });
                if prefetch == Prefetch::Now && wants_recursion {
                    count(&self.counters.prefetched);
                    // Without room it is asked for when its time is over.
                    let _ = self.flight(&key, group, query);
                }
                let age = Age::Kept(age);
                return Ok(Found { message, age });
            }
            dns_cache::Found::StandIn(message) => {
                count(&self.counters.stale);
                let age = Age::Stale;
                return Ok(Found { message, age });
            }
            _ if !wants_recursion => return Err(Failure::NotWanted),
            dns_cache::Found::Stale(message) => Some(message),
            dns_cache::Found::Nothing => None,
        };
        count(&self.counters.misses);
        let _permit = self.permit()?;
        let flight = self.flight(&key, group, query)?;
        let Some(message) = old else {
            return landing(flight).await.map(Found::fresh);
        };
        match timeout(PATIENCE, landing(flight)).await {
            Ok(Ok(message)) if is_useful(&message) => Ok(Found::fresh(message)),
            _ => {
                self.kept().cache.failed(&key, self.now());
                count(&self.counters.stale);
                let age = Age::Stale;
                Ok(Found { message, age })
            }
        }
    }

    /// The query on its way that asks for `key`, else `query`, which then goes on whether anybody waits for it or not:
    /// the next one who asks finds its response kept.
    fn flight(
        self: &Arc<Self>,
        key: &Key,
        group: Group,
        query: Relayed,
    ) -> Result<Flight, Failure> {
        let mut kept = self.kept();
        let same = kept.flights.get(key);
        // One that was lost has no sender any more.
        if let Some(flight) = same.filter(|flight| flight.has_changed().is_ok()) {
            return Ok(flight.clone());
        }
        if kept.flights.len() >= MOST_WAITING {
            return Err(self.busy());
        }
        let (landed, flight) = watch::channel(None);
        kept.flights.insert(key.clone(), flight.clone());
        let (forwarder, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            let outcome = ask_all(group, query).await.map(Arc::new);
            let mut kept = forwarder.kept();
            if let Ok(message) = &outcome {
                kept.cache.store(&key, message, forwarder.now());
            }
            kept.flights.remove(&key);
            drop(kept);
            if matches!(outcome, Err(Failure::Silent(_))) {
                forwarder.probe();
            }
            landed.send_replace(Some(outcome));
        });
        Ok(flight)
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.permits.try_acquire().map_err(|_| self.busy())
    }

    fn busy(&self) -> Failure {
        count(&self.counters.rejected);
        Failure::Busy
    }

    fn probes(&self) -> MutexGuard<'_, Vec<(Name, Arc<Upstream>)>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start.
    fn now(&self) -> Timestamp {
        Timestamp::default().after(self.started.elapsed())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// `addrs` as servers but for our own, those known already as they are.
    fn group_of(&self, addrs: &[SocketAddr], origin: &str) -> Group {
        let (own, others): (Vec<_>, Vec<_>) =
            addrs.iter().partition(|addr| self.own.contains(addr));
        for addr in &own {
            tracing::warn!(target: "dns", address = %addr, from = origin, "not asked for names of others: it is portico's own address");
        }
        let known = |addr: &SocketAddr| {
            let known = self.group.upstreams.iter();
            let known = known.chain(self.stubs.iter().flat_map(|(_, group)| &*group.upstreams));
            let mut same = known.filter(|upstream| upstream.addr == *addr && !upstream.is_barred());
            same.next().cloned()
        };
        let new = |addr: &SocketAddr| Arc::new(Upstream::new(*addr, Arc::clone(&self.sockets)));
        let barred = |addr: &SocketAddr| {
            let upstream = new(addr);
            upstream.bar(OWN);
            upstream
        };
        let asked = others
            .iter()
            .map(|addr| known(addr).unwrap_or_else(|| new(addr)));
        // Those are shown.
        let upstreams = asked.chain(own.iter().map(barred)).collect();
        let problem = match (others.is_empty(), own.is_empty()) {
            (false, _) => String::new(),
            (true, true) => format!("{origin} names none"),
            (true, false) => format!("{origin} names none but portico itself"),
        };
        if problem.is_empty() {
            tracing::info!(target: "dns", from = origin, servers = ?others, "names of others are asked of these servers");
        } else {
            tracing::warn!(target: "dns", reason = problem, "names of others are refused");
        }
        Group {
            upstreams,
            problem: problem.into(),
        }
    }
}

async fn landing(mut flight: Flight) -> Outcome {
    let landed = flight.wait_for(Option::is_some).await;
    let outcome = landed.ok().and_then(|outcome| outcome.clone());
    outcome.unwrap_or_else(|| Err(Failure::Silent("a query that was lost".to_owned())))
}
