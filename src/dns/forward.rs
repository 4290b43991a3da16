//! Names of others: asked of the servers that this machine would ask itself. Owns whom to ask, how often and for how
//! long, and how many at a time; what a message says is the core's.
//!
//! - `resolv_conf`: the servers of the machine, read again when that file changes
//! - `upstream`: one server and how it has done lately
//! - `exchange`: one question to one server

mod exchange;
mod resolv_conf;
mod upstream;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portico_core::{
    dns::{Name, Rcode},
    dns_cache::{
        self, Cache, Key, Prefetch,
        message::{Age, Message, Relayed},
    },
    time::Timestamp,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

pub use resolv_conf::ResolvConf;
use upstream::Upstream;

/// Queries that wait for others at a time; more are refused, as CoreDNS does with `max_concurrent 1000`.
const MOST_WAITING: usize = 1000;
/// How long all servers together may take: less than the 5 s after which glibc and musl ask again.
const OVERALL: Duration = Duration::from_millis(4500);
/// How long one server is waited for before the next one is asked beside it.
const HEDGE: Duration = Duration::from_millis(800);
/// How long others have before an answer that is too old stands in for theirs.
const PATIENCE: Duration = Duration::from_millis(500);
/// Responses that are kept.
const MOST_KEPT: usize = 10_000;
/// How often each server is asked for one query.
const ROUNDS: usize = 2;

/// Whom to ask for names of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSettings {
    /// For all names.
    pub upstreams: UpstreamSource,
    /// For a domain and what is below it, instead of those.
    pub stubs: Vec<(Name, SocketAddr)>,
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

/// Servers that stand for each other, in their order.
#[derive(Debug, Clone)]
struct Group {
    upstreams: Arc<[Arc<Upstream>]>,
    /// Why there is none.
    problem: Arc<str>,
}

/// Asks others.
#[derive(Debug)]
pub(super) struct Forwarder {
    settings: ForwardSettings,
    pub(super) permits: Semaphore,
    current: Mutex<Current>,
    kept: Mutex<Kept>,
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
}

impl Forwarder {
    /// Nothing is read or sent before the first query.
    pub(super) fn new(settings: ForwardSettings) -> Self {
        let empty = Group {
            upstreams: Arc::default(),
            problem: Arc::from("none is configured"),
        };
        Self {
            settings,
            permits: Semaphore::new(MOST_WAITING),
            current: Mutex::new(Current {
                own: Vec::new(),
                machine: resolv_conf::Watch::default(),
                group: empty,
                stubs: Vec::new(),
            }),
            kept: Mutex::new(Kept {
                cache: Cache::new(MOST_KEPT),
                flights: HashMap::new(),
            }),
            tasks: TaskTracker::new(),
            started: Instant::now(),
        }
    }

    /// These addresses are ours: who asks there asks us. Tells in the log whom it asks.
    pub(super) fn add_own(&self, addrs: impl IntoIterator<Item = SocketAddr>) {
        let mut current = self.lock();
        current.own.extend(addrs);
        current.machine.forget();
        let given = match &self.settings.upstreams {
            UpstreamSource::Given(addrs) => &**addrs,
            UpstreamSource::Machine(_) => &[],
        };
        current.group = current.group_of(given, "--dns-upstream");
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
        self.group(&Name::root());
    }

    /// The servers for `name`: those of the longest domain that it is in, else those for all names.
    fn group(&self, name: &Name) -> Group {
        let mut current = self.lock();
        if let UpstreamSource::Machine(files) = &self.settings.upstreams
            && let Some(addrs) = current.machine.read(files, Instant::now())
        {
            let origin = files.path.display().to_string();
            current.group = current.group_of(&addrs, &origin);
            // Another network may know other names.
            self.kept().cache.clear();
        }
        let stubs = current.stubs.iter();
        let within = stubs.filter(|(domain, _)| name.is_within(domain));
        let longest = within.max_by_key(|(domain, _)| domain.len());
        longest.map_or(&current.group, |(_, group)| group).clone()
    }

    /// The response of others to `query`, which asks for `name`: kept or new. Takes less than five seconds.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        name: &Name,
        query: Relayed,
    ) -> Result<Found, Failure> {
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
                if prefetch == Prefetch::Now && wants_recursion {
                    // Without room it is asked for when its time is over.
                    let _ = self.flight(&key, group, query);
                }
                let age = Age::Kept(age);
                return Ok(Found { message, age });
            }
            dns_cache::Found::StandIn(message) => {
                let age = Age::Stale;
                return Ok(Found { message, age });
            }
            _ if !wants_recursion => return Err(Failure::NotWanted),
            dns_cache::Found::Stale(message) => Some(message),
            dns_cache::Found::Nothing => None,
        };
        let _permit = self.permit()?;
        let flight = self.flight(&key, group, query)?;
        let Some(message) = old else {
            return landing(flight).await.map(Found::fresh);
        };
        match timeout(PATIENCE, landing(flight)).await {
            Ok(Ok(message)) if is_useful(&message) => Ok(Found::fresh(message)),
            _ => {
                self.kept().cache.failed(&key, self.now());
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
            return Err(Failure::Busy);
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
            landed.send_replace(Some(outcome));
        });
        Ok(flight)
    }

    fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.permits.try_acquire().map_err(|_| Failure::Busy)
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
            tracing::warn!(target: "dns", address = %addr, from = origin, "not asked for names of others: it is our own address");
        }
        let known = |addr: &SocketAddr| {
            let known = self.group.upstreams.iter();
            let known = known.chain(self.stubs.iter().flat_map(|(_, group)| &*group.upstreams));
            let mut same = known.filter(|upstream| upstream.addr == *addr);
            same.next().cloned()
        };
        let upstreams: Arc<[_]> = others
            .into_iter()
            .map(|addr| known(addr).unwrap_or_else(|| Arc::new(Upstream::new(*addr))))
            .collect();
        let problem = match (upstreams.is_empty(), own.is_empty()) {
            (false, _) => String::new(),
            (true, true) => format!("{origin} names none"),
            (true, false) => format!("{origin} names none but portico itself"),
        };
        if !problem.is_empty() && !addrs.is_empty() {
            tracing::warn!(target: "dns", reason = problem, "names of others are refused");
        } else if !upstreams.is_empty() {
            let servers: Vec<_> = upstreams.iter().map(|upstream| upstream.addr).collect();
            tracing::info!(target: "dns", from = origin, ?servers, "names of others are asked of these servers");
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

/// Asks the servers of `group`, one after the other: the next one when one fails, and beside it when it is slow. An
/// answer that says no more than that the server cannot or will not help counts only if no other has a better one, as
/// with glibc.
async fn ask_all(group: Group, query: Relayed) -> Result<Message, Failure> {
    if group.upstreams.is_empty() {
        return Err(Failure::NoUpstream(group.problem));
    }
    let query = Arc::new(query);
    let order = upstream::in_order(&group.upstreams, Instant::now());
    let mut next = (0..ROUNDS).flat_map(|_| &order);
    let mut helpless: Vec<SocketAddr> = Vec::new();
    let mut poor = None;
    let mut tries = JoinSet::new();
    let deadline = Instant::now() + OVERALL;
    let mut hedge = Instant::now();
    loop {
        if hedge <= Instant::now() {
            if let Some(upstream) = next.find(|upstream| !helpless.contains(&upstream.addr)) {
                let (upstream, query) = (Arc::clone(upstream), Arc::clone(&query));
                tries.spawn(async move { (upstream.addr, upstream.ask(&query, HEDGE).await) });
                hedge = Instant::now() + HEDGE;
            } else {
                hedge = deadline;
            }
        }
        // Both branches are cancel safe: tries go on, and times are absolute.
        tokio::select! {
            biased;
            done = tries.join_next() => match done {
                Some(Ok((_, Ok(message)))) if is_useful(&message) => return Ok(message),
                Some(Ok((addr, Ok(message)))) => {
                    helpless.push(addr);
                    poor.get_or_insert(message);
                    hedge = Instant::now();
                }
                Some(Ok((addr, Err(error)))) => {
                    tracing::debug!(target: "dns", upstream = %addr, %error, "no answer");
                    hedge = Instant::now();
                }
                Some(Err(_)) => hedge = Instant::now(),
                None => break,
            },
            () = sleep_until(hedge.min(deadline)) => if deadline <= Instant::now() { break },
        }
    }
    let who = || {
        let addrs = order.iter().map(|upstream| upstream.addr.to_string());
        addrs.collect::<Vec<_>>().join(", ")
    };
    poor.ok_or_else(|| Failure::Silent(who()))
}

/// Whether asking another server could not do better.
fn is_useful(message: &Message) -> bool {
    let rcode = Rcode::from_number(message.rcode());
    !matches!(
        rcode,
        Some(Rcode::ServFail | Rcode::Refused | Rcode::NotImp | Rcode::FormErr)
    )
}
