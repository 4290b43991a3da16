//! The parts that the control loop holds, fitted to what control asked for. Owns the adapters between them; the
//! parts themselves are elsewhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use portico_core::{
    backoff::Backoff,
    object::Protocol,
    snapshot::{
        filter::Filter,
        plan::{ListenerKey, Mode},
    },
    time::Timestamp,
    world::{
        Deviations,
        pods::PodAction,
        probes::{ProbeObservation, ProbeTargets},
    },
};
use portico_dataplane::{
    BindErrorKind, DataPlane, Filtering, Inherited, ListenerState, ListenerStatus, Published,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Notice, observing::Observing};
use crate::{
    clock,
    control::{
        ListenerHost, PodRunner, ProbeHost, RouteHost, holder,
        status::{
            DnsStatus, ListenerReport, ListenerReports, MissedNameStatus, TurnedAway,
            UpstreamStatus, descriptors_fix,
        },
    },
    dns::{self, DnsListen, DnsService, DnsSettings, ForwardSettings},
    health::Prober,
    host::routes::{RouteError, Routes},
    instance::{Instance, State, StateFile},
    resolver,
    runs::{Desk, Runs},
    settings::AccessLogOptions,
    simulate::host::{HostReport, LogReader, PodHost},
    telemetry::access_log::AccessLogWriter,
};

/// Listeners whose holder is looked up for one report: each look-up reads all of `/proc`.
const MOST_HOLDERS: usize = 16;

/// The access log's writer, if there is to be one, with the data path's lines.
pub(super) fn access_log(
    options: &AccessLogOptions,
    data_plane: &DataPlane,
) -> anyhow::Result<Option<Arc<AccessLogWriter>>> {
    let Some(path) = &options.access_log else {
        return Ok(None);
    };
    let writer = AccessLogWriter::start(path, options.access_log_format)
        .with_context(|| format!("cannot write the access log {}", path.display()))?;
    data_plane.log_requests(writer.log());
    Ok(Some(Arc::new(writer)))
}

/// The data path's sockets, the routes that some of their addresses are there by, and who opens those of other scopes.
pub(super) struct Sockets(pub(super) DataPlane, pub(super) Routes, pub(super) Desk);

impl ListenerHost for Sockets {
    fn filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>) {
        self.0.filter(key, filter);
    }

    fn bind(
        &mut self,
        wanted: &[(ListenerKey, Mode, Arc<str>)],
        is_declared: &dyn Fn(IpAddr, u16) -> bool,
    ) {
        self.0.bind(wanted, is_declared);
    }

    fn accept(&mut self) {
        self.0.accept();
    }

    fn switch(&mut self, key: ListenerKey, mode: Mode) {
        self.0.switch(key, mode);
    }

    fn close(&mut self, keys: &[ListenerKey]) {
        self.0.close(keys);
    }

    fn retry(&mut self, now: Timestamp) -> Option<Timestamp> {
        for addr in self.1.retry() {
            tracing::info!(address = %addr, "made local by a route after all");
        }
        let (sockets, drains) = (self.0.retry(now), self.0.drain_gone(now));
        [sockets, drains].into_iter().flatten().min()
    }
}

impl RouteHost for Sockets {
    fn attach(&mut self, addrs: &[IpAddr]) {
        self.2.attach(addrs);
        for addr in addrs {
            match self.1.attach(*addr) {
                Ok(true) => {
                    tracing::info!(address = %addr, "made local by a route: a Service names it");
                }
                Ok(false) => {}
                // The sockets there say that they cannot be bound.
                Err(error) => {
                    tracing::warn!(address = %addr, error = said(error), "cannot make an external address local");
                }
            }
        }
    }

    fn detach(&mut self, addrs: &[IpAddr]) {
        self.2.detach(addrs);
        for addr in addrs {
            match self.1.detach(*addr) {
                Ok(true) => tracing::info!(address = %addr, "no longer local: no Service names it"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(address = %addr, error = said(error), "an external address stays local");
                }
            }
        }
    }
}

fn said(error: RouteError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

impl Sockets {
    /// Listeners that are not simply listening on what was declared, without who has their port: that takes long.
    pub(super) fn states(&self) -> ListenerReports {
        self.reports_with(0)
    }

    /// Listeners that are not simply listening on what was declared.
    pub(super) fn reports(&self) -> ListenerReports {
        self.reports_with(MOST_HOLDERS)
    }

    fn reports_with(&self, most_holders: usize) -> ListenerReports {
        let statuses = self.0.statuses();
        let wanted = statuses.len();
        let odd = statuses.into_iter().filter(|status| {
            status.state != ListenerState::Listening || status.filtering != Filtering::Idle
        });
        let mut holders = 0;

        odd.map(|status| {
            let wants_holder = status.error.is_some() && holders < most_holders;
            holders += usize::from(wants_holder);
            let mut report = report(&status, wants_holder);
            if is_beyond(&status) {
                report.fix = Some(descriptors_fix(wanted));
            }
            (status.key, report)
        })
        .collect()
    }
}

/// Whether it is not served for want of descriptors.
pub(super) fn is_beyond(status: &ListenerStatus) -> bool {
    let kind = status.error.as_ref().map(|error| error.kind);
    kind == Some(BindErrorKind::Exhausted)
}

fn report(status: &ListenerStatus, wants_holder: bool) -> ListenerReport {
    let declared = SocketAddr::new(status.key.bind.addr(), status.key.port);
    let kind = status.error.as_ref().map(|error| match error.kind {
        BindErrorKind::Privilege => std::io::ErrorKind::PermissionDenied,
        BindErrorKind::InUse => std::io::ErrorKind::AddrInUse,
        BindErrorKind::NotAvailable => std::io::ErrorKind::AddrNotAvailable,
        BindErrorKind::Exhausted | BindErrorKind::Pending | BindErrorKind::Other => {
            std::io::ErrorKind::Other
        }
    });
    let in_use = kind == Some(std::io::ErrorKind::AddrInUse);
    let found = (wants_holder && in_use)
        .then(|| match status.key.protocol {
            Protocol::Udp => holder::udp_holder_of(declared),
            _ => holder::holder_of(declared),
        })
        .flatten();
    ListenerReport {
        declared,
        protocol: status.key.protocol.to_string(),
        services: status.services.to_string(),
        state: match status.state {
            ListenerState::Listening => "listening",
            ListenerState::Refusing => "refusing",
            ListenerState::Fallback { .. } => "fallback",
            ListenerState::Failed => "failed",
        }
        .into(),
        // A UDP port that refuses is closed, and served there once there are endpoints.
        bound: match status.state {
            ListenerState::Refusing => Some(status.bound.unwrap_or(declared)),
            _ => status.bound,
        },
        reason: match (&status.error, status.state) {
            (Some(error), _) => Some(error.text.to_string()),
            (None, ListenerState::Refusing) => {
                Some("no usable endpoint: connections are refused".into())
            }
            (None, _) => None,
        },
        fix: kind.map(|kind| holder::fix_for(kind, declared, found.as_ref())),
        holder: found.map(|holder| holder.to_string()),
        turned_away: match &status.filtering {
            Filtering::Idle => None,
            Filtering::Dropping { .. } => Some(TurnedAway::Dropped),
            Filtering::Resetting { reason } => Some(TurnedAway::Reset(reason.to_string())),
        },
        dropped_by_filter: match status.filtering {
            Filtering::Dropping { dropped } => dropped,
            _ => None,
        },
    }
}

/// The pods' host, if pods are simulated.
pub(super) struct PodHandle(Option<PodHost>);

impl PodRunner for PodHandle {
    fn run(&mut self, actions: Vec<PodAction>) {
        if let Some(host) = self.0.as_ref().filter(|_| !actions.is_empty()) {
            host.send(&actions);
        }
    }
}

impl PodHandle {
    /// The way to the pods' logs.
    pub(super) fn logs(&self) -> Option<LogReader> {
        self.0.as_ref().map(PodHost::logs)
    }
}

/// Starts the pods' process when pods are simulated.
pub(super) fn pod_runner(
    simulate: bool,
) -> anyhow::Result<(PodHandle, Option<mpsc::Receiver<HostReport>>)> {
    if !simulate {
        return Ok((PodHandle(None), None));
    }
    // Not the path of the binary: that may have been replaced since.
    let (host, reports) =
        PodHost::start("/proc/self/exe").context("cannot start the simulated pods")?;
    Ok((PodHandle(Some(host)), Some(reports)))
}

/// The prober.
pub(super) struct Probes(pub(super) Prober);

impl ProbeHost for Probes {
    fn watch(&mut self, targets: &Arc<ProbeTargets>) {
        self.0.set(Arc::clone(targets));
    }
}

/// Starts the prober's thread.
pub(super) fn prober() -> anyhow::Result<(Probes, mpsc::Receiver<ProbeObservation>)> {
    let (prober, observations) = Prober::start().context("cannot start the prober")?;
    Ok((Probes(prober), observations))
}

/// What the loop holds beside the reconciler.
pub(super) struct Rest {
    pub(super) notify: mpsc::Sender<Notice>,
    pub(super) generations: watch::Sender<u64>,
    pub(super) instance: Instance,
    pub(super) state: (StateFile, State),
    pub(super) dns: DnsThread,
    pub(super) observing: Observing,
    pub(super) runs: Runs,
}

impl Rest {
    /// Tells whoever listens; nobody has to.
    pub(super) fn say(&self, notice: Notice) {
        self.generations.send_replace(notice.generation.0);
        let _ = self.notify.try_send(notice);
    }

    /// Saves what deviates from the hash, if that changed.
    pub(super) fn remember(&mut self, deviations: &Deviations) {
        let (file, state) = &mut self.state;
        let same = state.cluster_ips == deviations.cluster_ips
            && state.node_ports == deviations.node_ports
            && state.load_balancer_ips == deviations.load_balancer_ips;
        if same {
            return;
        }
        state.cluster_ips.clone_from(&deviations.cluster_ips);
        state.node_ports.clone_from(&deviations.node_ports);
        state
            .load_balancer_ips
            .clone_from(&deviations.load_balancer_ips);
        if let Err(error) = file.save(state) {
            tracing::warn!(file = %file.path().display(), %error, "cannot save which addresses were given");
        }
    }
}

/// DNS on a thread and a runtime of its own: neither control nor the data path waits for it.
pub(super) struct DnsThread {
    bound: Arc<Mutex<Vec<DnsStatus>>>,
    service: Arc<DnsService>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Delays between attempts at an address that could not be had.
const DNS_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl DnsThread {
    /// Binds and begins to answer. An address that cannot be had is reported and tried again, not fatal.
    pub(super) fn start(
        (settings, forward, connections): (DnsSettings, ForwardSettings, usize),
        published: Arc<Published>,
        inherited: Arc<Inherited>,
    ) -> anyhow::Result<Self> {
        let now = clock::now().as_millis();
        let started = u32::try_from(now / 1000 % (1 << 32)).unwrap_or_default();
        let service = DnsService::new(published, started, now).forwarding(forward);
        let service = Arc::new(service.holding(connections));
        let cancel = CancellationToken::new();
        let bound = Arc::new(Mutex::new(Vec::new()));
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let answering = Answering {
            service: Arc::clone(&service),
            cancel: cancel.clone(),
            bound: Arc::clone(&bound),
            inherited,
        };
        let thread = std::thread::Builder::new()
            .name("dns".into())
            .spawn(move || {
                match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime.block_on(answering.run(settings, ready)),
                    Err(error) => tracing::error!(%error, "DNS has no runtime"),
                }
            })?;
        is_ready.recv().context("the DNS thread did not start")?;
        Ok(Self {
            bound,
            service,
            cancel,
            thread: Some(thread),
        })
    }

    /// Warns if the machine's resolver was told to ask a port where we do not answer. Another address may be another
    /// instance's.
    pub(super) fn check_installed(&self) {
        let Some(asked) = resolver::installed_at() else {
            return;
        };
        let statuses = self.status();
        let mut ours = statuses
            .iter()
            .filter(|dns| dns.wanted.ip() == asked.ip() && dns.bound != Some(asked));
        if let Some(dns) = ours.next() {
            tracing::warn!(
                target: "dns",
                %asked,
                answered = ?dns.bound,
                "this machine's resolver asks where DNS is not answered: mend that (`portico status` says how), or `sudo portico dns uninstall`"
            );
        }
    }

    pub(super) fn service(&self) -> Arc<DnsService> {
        Arc::clone(&self.service)
    }

    pub(super) fn status(&self) -> Vec<DnsStatus> {
        self.bound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn missed(&self) -> Vec<MissedNameStatus> {
        let missed = self.service.missed().into_iter();
        let told = missed.map(|dns::MissedName { name, count, meant }| MissedNameStatus {
            name,
            count,
            meant,
        });
        told.collect()
    }

    pub(super) fn upstreams(&self) -> Vec<UpstreamStatus> {
        let upstreams = self.service.upstreams().into_iter();
        let status = |upstream: dns::UpstreamReport| UpstreamStatus {
            server: upstream.addr,
            domain: upstream.domain,
            problem: upstream.problem.map(str::to_owned),
        };
        upstreams.map(status).collect()
    }

    /// Ends it and waits.
    pub(super) fn stop(mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What runs on the DNS thread.
struct Answering {
    service: Arc<DnsService>,
    cancel: CancellationToken,
    bound: Arc<Mutex<Vec<DnsStatus>>>,
    inherited: Arc<Inherited>,
}

impl Answering {
    async fn run(self, settings: DnsSettings, ready: std::sync::mpsc::SyncSender<()>) {
        let mut served = tokio::task::JoinSet::new();
        let listeners = dns::bind(&settings, &self.inherited);
        *self.statuses() = listeners.bound().iter().map(dns_status).collect();
        served.spawn(dns::serve(
            listeners,
            Arc::clone(&self.service),
            self.cancel.clone(),
        ));
        let _ = ready.send(());
        let (base, cap) = DNS_RETRY;
        let mut backoff = Backoff::new(base, cap);
        while self
            .statuses()
            .iter()
            .any(|status| status.problem.is_some())
        {
            let jitter = u16::try_from(clock::now().as_millis() % 65_536).unwrap_or_default();
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = tokio::time::sleep(backoff.next(jitter)) => {}
            }
            self.retry(&mut served);
        }
        self.cancel.cancelled().await;
        while served.join_next().await.is_some() {}
    }

    /// Tries what is not where it was to be. A port that stood in goes on answering: clients may know it by now.
    fn retry(&self, served: &mut tokio::task::JoinSet<()>) {
        let missing: Vec<SocketAddr> = self
            .statuses()
            .iter()
            .filter(|status| status.problem.is_some())
            .map(|status| status.wanted)
            .collect();
        for wanted in missing {
            let settings = DnsSettings {
                listen: vec![DnsListen::exactly(wanted)],
            };
            let listeners = dns::bind(&settings, &self.inherited);
            if listeners.bound().iter().any(|bound| bound.addr.is_none()) {
                continue;
            }
            tracing::info!(address = %wanted, "DNS is answered there now");
            served.spawn(dns::serve(
                listeners,
                Arc::clone(&self.service),
                self.cancel.clone(),
            ));
            for status in self
                .statuses()
                .iter_mut()
                .filter(|status| status.wanted == wanted)
            {
                (status.bound, status.problem, status.fix) = (Some(wanted), None, None);
            }
        }
    }

    fn statuses(&self) -> MutexGuard<'_, Vec<DnsStatus>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dns_status(bound: &dns::DnsBound) -> DnsStatus {
    let reasons: Vec<String> = bound
        .failures
        .iter()
        .map(|failure| format!("{failure}: {}", failure.source))
        .collect();
    DnsStatus {
        wanted: bound.wanted.addr,
        bound: bound.addr,
        problem: (!reasons.is_empty()).then(|| reasons.join(", ")),
        fix: bound.failures.first().map(|failure| {
            let holder = holder::udp_holder_of(failure.addr);
            holder::fix_for(failure.source.kind(), failure.addr, holder.as_ref())
        }),
    }
}

/// Descriptors that the process has open, from `/proc/self/fd` (proc(5)).
pub(super) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .map(Iterator::count)
        .unwrap_or_default()
        .saturating_sub(1)
}
