//! The composition root: the only file that knows everyone. Owns start, the wiring of the control loop and shutdown.
//! Must not decide anything that a part could decide.

mod build;
mod commands;
mod control_loop;
mod happenings;
mod logs;
mod observing;
mod overrides;
mod parts;
mod runs;
mod watchers;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use ipnet::IpNet;
use portico_core::{
    object::{SourceAddress, Spec, diagnostic::Diagnostic},
    snapshot::{Cluster, Snapshot},
    time::Timestamp,
    world::{Shard, SourceReport, SourceView, World, compile_once},
};
use portico_dataplane::{DataPlane, DrainReport, Inherited, Observer, Published};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use control_loop::Notice;
use control_loop::{ControlLoop, Watches};
use observing::Observing;

use crate::{
    admin,
    control::{
        Reconciler,
        status::{ListenerReports, Status},
    },
    explain::{self, Explanation},
    host::routes::Routes,
    instance::{Instance, State, StateFile},
    objects::{self, Resource},
    resolver,
    settings::{ClusterOptions, InstanceOptions, ManifestOptions, UpOptions},
    telemetry::access_log::AccessLogWriter,
};

/// What a program is started with.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// Files, folders, `-`.
    pub paths: Vec<PathBuf>,
    /// Manifests for local processes, as YAML text; empty without any.
    pub mapped: String,
    /// Everything else.
    pub up: UpOptions,
    /// Which instance.
    pub instance: InstanceOptions,
    /// Sockets that the process was started with.
    pub inherited: Arc<Inherited>,
}

/// What [`App::next`] waits for.
#[derive(Debug)]
pub enum Happening {
    /// Something that people may want to know.
    Notice(Notice),
    /// The program has ended.
    Ended(DrainReport),
}

/// A program that runs.
#[derive(Debug)]
pub struct App {
    /// The snapshot in force.
    pub published: Arc<Published>,
    /// What the data path does, to the end and after.
    pub data_path: Observer,
    /// Notices that nobody takes are dropped.
    notices: mpsc::Receiver<Notice>,
    control: mpsc::Sender<admin::Request>,
    access_log: Option<Arc<AccessLogWriter>>,
    stop: CancellationToken,
    hurry: CancellationToken,
    finished: oneshot::Receiver<anyhow::Result<DrainReport>>,
}

impl App {
    /// The whole status.
    ///
    /// # Errors
    /// The program is ending.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let (reply, answer) = oneshot::channel();
        self.control
            .send(admin::Request::Status(reply))
            .await
            .context("the control loop has ended")?;
        Ok(*answer.await.context("the control loop has ended")?)
    }

    /// What there is to say about the manifests.
    ///
    /// # Errors
    /// The program is ending.
    pub async fn findings(&self) -> anyhow::Result<admin::Findings> {
        let (reply, answer) = oneshot::channel();
        let asked = self.control.send(admin::Request::Findings(reply)).await;
        asked.context("the control loop has ended")?;
        answer.await.context("the control loop has ended")
    }

    /// A handle to ask whether the control loop is alive.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.control.clone())
    }

    /// Reads everything again, and opens the access log anew.
    pub async fn reload(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        let _ = self.control.send(admin::Request::Reload).await;
    }

    /// Begins the end: stop accepting, let connections finish. A second call ends at once.
    pub fn stop(&self) {
        if self.stop.is_cancelled() {
            self.hurry.cancel();
        }
        self.stop.cancel();
    }

    /// Whether the end has begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the next notice, or for the end.
    ///
    /// # Errors
    /// A part failed unasked.
    ///
    /// # Cancel safety
    /// Cancel safe: notices and the outcome stay in their channels.
    pub async fn next(&mut self) -> anyhow::Result<Happening> {
        tokio::select! {
            biased;
            report = &mut self.finished => Ok(Happening::Ended(report.context("the control loop was lost")??)),
            Some(notice) = self.notices.recv() => Ok(Happening::Notice(notice)),
        }
    }

    /// Waits for the end; tells what was cut.
    ///
    /// # Errors
    /// A part failed unasked.
    pub async fn finished(mut self) -> anyhow::Result<DrainReport> {
        (&mut self.finished)
            .await
            .context("the control loop was lost")?
    }
}

/// A way to ask whether the control loop still takes its turns.
#[derive(Debug, Clone)]
pub struct Pulse(mpsc::Sender<admin::Request>);

impl Pulse {
    /// Asks; the answer comes with the loop's next turn. `None` when there is no room to ask: it is stuck, or ending.
    pub fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let (reply, answer) = oneshot::channel();
        let asked = self.0.try_send(admin::Request::Alive(reply));
        asked.is_ok().then_some(answer)
    }
}

/// Starts a program on the current tokio runtime. What can fail for the user's reasons fails here: manifests that
/// are not there, another program with the same name.
///
/// # Errors
/// Says what could not be had, and who has it.
pub fn start(settings: &AppSettings) -> anyhow::Result<App> {
    let up = &settings.up;
    let Base {
        instance,
        routes,
        cluster,
        world,
        state,
    } = Base::claim(settings)?;
    let files = build::files(&settings.paths, &up.manifests)?;
    let published = Arc::new(Published::from_pointee(Snapshot::empty(cluster.clone())));
    let (mut data_plane, dns, access_log) = start_serving(settings, &cluster, &published)?;
    let ((control, requests), (notify, notices)) = (mpsc::channel(64), mpsc::channel(256));
    let (generations, newest) = watch::channel(0);
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    let most = up.metrics.metrics_max_endpoints;
    let seen = seen(&published, (&data_plane, &dns), (&control, &stop), most);
    let admin = AdminTask::start(&instance, &seen, newest)?;
    let data_path = seen.data_path.clone();
    let observing = Observing::start(&up.metrics, seen).context("cannot start the admin thread")?;
    let (runner, pods) = parts::pod_runner(up.simulate)?;
    let logs = runner.logs();
    let (health, probed) = parts::prober()?;
    let budget = data_plane.most_listeners();
    let (runs, desk, told) = runs::start(&instance, &cluster, dns.service(), &mut data_plane)?;
    let held = (parts::Sockets(data_plane, routes, desk), runner, health);
    let own_ports = build::own_ports(up, &build::dns_settings(up, &cluster));
    let reconciler = Reconciler::new(world, Arc::clone(&published), held, budget)
        .keeping_apart(own_ports)
        .sharing(settings.inherited.wildcard_ports());
    let watches = Watches {
        files,
        pods,
        probed,
        requests,
        runs: told,
        stop: stop.clone(),
        hurry: hurry.clone(),
        logs,
    };
    let rest = parts::Rest {
        notify,
        generations,
        instance,
        state,
        dns,
        observing,
        runs,
    };
    let mapped = build::mapped_report(&settings.mapped, &up.manifests);
    let looping = ControlLoop::new(reconciler, watches, mapped, rest);
    Ok(App {
        finished: run(looping, up.drain_timeout, (admin, access_log.clone())),
        published,
        data_path,
        notices,
        control,
        access_log,
        stop,
        hurry,
    })
}

/// What can be read of the program over TCP.
fn seen(
    published: &Arc<Published>,
    (data_plane, dns): (&DataPlane, &parts::DnsThread),
    (control, stop): (&mpsc::Sender<admin::Request>, &CancellationToken),
    most_endpoints: usize,
) -> admin::public::Seen {
    admin::public::Seen {
        published: Arc::clone(published),
        data_path: data_plane.observer(),
        dns: dns.service(),
        sampler: Arc::default(),
        control: control.clone(),
        stop: stop.clone(),
        most_endpoints,
    }
}

/// Lets the loop run to its end. Its owner waits for the outcome, which tells a panic too: the sender is dropped.
fn run(
    control_loop: ControlLoop,
    drain: Duration,
    (admin, access_log): (AdminTask, Option<Arc<AccessLogWriter>>),
) -> oneshot::Receiver<anyhow::Result<DrainReport>> {
    let (done, finished) = oneshot::channel();
    tokio::spawn(async move {
        let report = control_loop.run(drain).await;
        admin.end().await;
        if let Some(log) = access_log {
            log.end();
        }
        let _ = done.send(report);
    });
    finished
}

/// The data path with its access log, and DNS, which both may find their sockets among the inherited ones.
fn start_serving(
    settings: &AppSettings,
    cluster: &Cluster,
    published: &Arc<Published>,
) -> anyhow::Result<(DataPlane, parts::DnsThread, Option<Arc<AccessLogWriter>>)> {
    let (up, inherited) = (&settings.up, &settings.inherited);
    let data_settings = build::data_settings(up);
    let (view, sockets) = (Arc::clone(published), Arc::clone(inherited));
    let data_plane = DataPlane::start_with(data_settings, view, sockets)
        .context("cannot start the data path")?;
    let access_log = parts::access_log(&up.access_log, &data_plane)?;
    let dns_settings = build::dns_settings(up, cluster);
    let (view, sockets) = (Arc::clone(published), Arc::clone(inherited));
    let kept_back = data_plane.descriptors_kept_back();
    let forward = build::forward_settings(&up.forward, kept_back);
    let settings = (dns_settings, forward, build::dns_connections(kept_back));
    let dns = parts::DnsThread::start(settings, view, sockets)?;
    dns.check_installed();
    Ok((data_plane, dns, access_log))
}

/// What a start needs before anything is bound.
struct Base {
    instance: Instance,
    routes: Routes,
    cluster: Arc<Cluster>,
    world: World,
    state: (StateFile, State),
}

impl Base {
    /// Claims the instance and its ranges, and remembers what was allocated last time.
    fn claim(settings: &AppSettings) -> anyhow::Result<Self> {
        let up = &settings.up;
        let dirs = build::instance_dirs(&settings.instance);
        let guard = build::slot_use(&up.cluster);
        let instance = Instance::acquire(&settings.instance.instance, &dirs, guard)?;
        resolver::recover();
        // Before the host's addresses are looked at: some may be left over from a killed run.
        let mut routes = Routes::open(&build::route_owner(&instance));
        let mut cluster = build::cluster(&up.cluster, &up.manifests, &instance.ranges())?;
        cluster.dns.listened = build::listened(up);
        build::make_local(&mut routes, &up.cluster, &cluster)?;
        let cluster = Arc::new(cluster);
        let mut file = instance.state_file();
        let state = file.load();
        let world = World::new(build::world_settings(up, &cluster, &state));
        Ok(Self {
            instance,
            routes,
            cluster,
            world,
            state: (file, state),
        })
    }
}

/// The admin interface while it serves.
struct AdminTask {
    task: tokio::task::JoinHandle<()>,
    cancel: CancellationToken,
}

impl AdminTask {
    fn start(
        instance: &Instance,
        seen: &admin::public::Seen,
        generations: watch::Receiver<u64>,
    ) -> anyhow::Result<Self> {
        let state = admin::AdminState {
            published: Arc::clone(&seen.published),
            dns: Arc::clone(&seen.dns),
            control: seen.control.clone(),
            generations,
            sampler: Arc::clone(&seen.sampler),
            data_path: seen.data_path.clone(),
        };
        let path = instance.socket_path();
        let socket = admin::bind(&path)
            .with_context(|| format!("cannot bind the admin socket {}", path.display()))?;
        let cancel = CancellationToken::new();
        let task = tokio::spawn(admin::serve(socket, state, cancel.clone()));
        Ok(Self { task, cancel })
    }

    async fn end(self) {
        self.cancel.cancel();
        let _ = self.task.await;
    }
}

/// Whether a Service of these manifests, as they are now, wants its endpoints to see clients' addresses. Standard input
/// is not looked at, for it can be read once.
pub fn keeps_sources(paths: &[PathBuf], manifests: &ManifestOptions) -> bool {
    let files: Vec<PathBuf> = paths
        .iter()
        .filter(|path| path.as_os_str() != "-")
        .cloned()
        .collect();
    let Ok(SourceReport::Synced(view)) = build::read_once(&files, manifests) else {
        return false;
    };
    let mut objects = view.shards.values().flat_map(|shard| &shard.objects);
    objects.any(|object| match &object.spec {
        Spec::Service(_) => SourceAddress::of(&object.meta.annotations) == SourceAddress::Keep,
        _ => false,
    })
}

/// What is wrong with objects that are each good by themselves: claimed twice, out of range, no address left.
///
/// # Errors
/// The instance's name is none.
pub fn check_together(
    view: SourceView,
    strict: bool,
    service_cidr_v6: Option<IpNet>,
    instance: &InstanceOptions,
) -> anyhow::Result<Vec<Diagnostic>> {
    let manifests = ManifestOptions {
        namespace: "default".into(),
        strict,
    };
    let options = ClusterOptions {
        service_cidr_v6,
        ..ClusterOptions::default()
    };
    let remembered = build::remembered(instance)?;
    let cluster = Arc::new(build::cluster(&options, &manifests, &remembered.ranges)?);
    let settings = build::offline_settings(&manifests, &options, &cluster, &remembered.state);
    // What the files say by themselves has been said.
    let shards = view.shards.into_iter().map(|(file, shard)| {
        let objects = shard.objects.clone();
        (
            file,
            Arc::new(Shard {
                objects,
                diagnostics: Vec::new(),
            }),
        )
    });
    let report = SourceReport::Synced(SourceView {
        shards: shards.collect(),
        ..SourceView::default()
    });
    let (world, _) = compile_once(World::new(settings), &[report], crate::clock::now());
    Ok(world.diagnostics())
}

/// Manifests by themselves, compiled once: what commands with `-f` look at.
#[derive(Debug)]
pub struct Offline {
    /// Objects, without simulated pods.
    pub world: World,
    /// Services as they would be forwarded.
    pub snapshot: Snapshot,
    now: Timestamp,
}

impl Offline {
    /// Reads and compiles.
    ///
    /// # Errors
    /// A path that cannot be read.
    pub fn read(
        paths: &[PathBuf],
        manifests: &ManifestOptions,
        cluster: &ClusterOptions,
        instance: &InstanceOptions,
    ) -> anyhow::Result<Self> {
        let (world, snapshot) = offline(paths, manifests, cluster, instance)?;
        let now = crate::clock::now();
        Ok(Self {
            world,
            snapshot,
            now,
        })
    }

    /// All objects of one resource.
    pub fn objects(&self, resource: Resource) -> Vec<serde_json::Value> {
        objects::list(self.view(&ListenerReports::new()), resource)
    }

    /// Why a Service would be served as it would be; what to say if there is no such Service.
    ///
    /// # Errors
    /// The text for a Service that is not there.
    pub fn explain(&self, namespace: &str, name: &str) -> Result<Explanation, String> {
        let listeners = ListenerReports::new();
        let view = self.view(&listeners);
        explain::explain(view, namespace, name)
            .ok_or_else(|| explain::not_found(view, namespace, name))
    }

    fn view<'a>(&'a self, listeners: &'a ListenerReports) -> objects::View<'a> {
        objects::View {
            world: &self.world,
            snapshot: &self.snapshot,
            listeners,
            started: self.now,
            now: self.now,
        }
    }
}

/// The world and snapshot of manifests by themselves: what offline commands read. Nothing is watched or bound.
///
/// # Errors
/// A path that cannot be read.
pub fn offline(
    paths: &[PathBuf],
    manifests: &ManifestOptions,
    cluster: &ClusterOptions,
    instance: &InstanceOptions,
) -> anyhow::Result<(World, Snapshot)> {
    let remembered = build::remembered(instance)?;
    let options = cluster;
    let cluster = Arc::new(build::cluster(options, manifests, &remembered.ranges)?);
    let settings = build::offline_settings(manifests, options, &cluster, &remembered.state);
    let report = build::read_once(paths, manifests)?;
    Ok(compile_once(
        World::new(settings),
        &[report],
        crate::clock::now(),
    ))
}
