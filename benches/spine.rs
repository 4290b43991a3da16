//! The spine's figures at 10 000 Services and 100 000 endpoints: parsing, compiling, binding, picking, one change,
//! start to ready, memory. Each figure stands beside its target; nothing fails on time, for machines differ.
//!
//! `cargo bench --bench spine`. Sockets are bound on 127/8 in a network namespace of the benchmark's own where that
//! is possible, else on the host's.

#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on stops, and its figures are rounded anyway"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hint::black_box,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use portico::source::manifest::{self, ManifestSettings, Strictness};
use portico_core::{
    balance::{Endpoint, EndpointSet},
    dns::{self, Moment, Name, Question, RecordType},
    object::diagnostic::Severity,
    snapshot::{Cluster, Scope, Snapshot, compile::compile, plan::ListenerTable},
    time::Timestamp,
    world::{
        Deviations, Input, Shard, Simulation, SourceReport, SourceView, World, WorldSettings,
        addresses::NODE_PORT_RANGE, step,
    },
};
use portico_dataplane::{DataPlane, DataSettings, Published};

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
/// Manifests are spread over this many files.
const FILES: usize = 100;
/// Port numbers that the Services use.
const PORTS: usize = 20;
/// Set inside the benchmark's own network namespace.
const INSIDE: &str = "PORTICO_BENCH_INSIDE";

fn main() {
    if std::env::var_os(INSIDE).is_none() && enter_namespace() {
        return;
    }
    let texts: Vec<String> = (0..FILES).map(|file| text(file, 0)).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    println!(
        "{SERVICES} Services, {} endpoints, {:.1} MB in {FILES} files",
        SERVICES * ENDPOINTS,
        bytes as f64 / 1e6
    );
    let began = Instant::now();
    let view = parse(&texts);
    let took = began.elapsed();
    figure(
        "parse, decode, default, validate",
        &format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64()),
        "at least 10 MB/s",
    );
    let mut bench = Bench::new();
    let began = Instant::now();
    bench.round(view.clone());
    figure(
        "compile from objects",
        &millis(began.elapsed()),
        "under 400 ms",
    );
    bench.binding();
    bench.one_change(view.clone());
    bench.one_service(view);
    picks();
    up(&texts);
}

/// Runs this benchmark again in a user and network namespace; false where that is not possible.
fn enter_namespace() -> bool {
    let inside = r#"ip link set lo up && exec "$0""#;
    let status = Command::new("unshare")
        .args(["-Urn", "--", "sh", "-c", inside])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .status();
    status.is_ok_and(|status| status.success())
}

fn figure(what: &str, value: &str, target: &str) {
    println!("{what:<52} {value:>14}   {target}");
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// One file: a hundred Services with their slices. `edit` moves one endpoint of the first one.
fn text(file: usize, edit: usize) -> String {
    let mut text = String::new();
    for service in (0..SERVICES / FILES).map(|n| file * (SERVICES / FILES) + n) {
        let (namespace, port) = (service % 50, 8000 + service % PORTS);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: svc-{service}\n  namespace: ns-{namespace}\n  labels:\n    \
             app: svc-{service}\n    tier: backend\nspec:\n  type: ClusterIP\n  ports:\n    - name: http\n      port: {port}\n      \
             targetPort: 8080\n      protocol: TCP\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: svc-{service}-1\n  namespace: ns-{namespace}\n  labels:\n    kubernetes.io/service-name: svc-{service}\n\
             addressType: IPv4\nports:\n  - name: http\n    port: 8080\n    protocol: TCP\nendpoints:\n"
        );
        for endpoint in 0..ENDPOINTS {
            let moved = if service % (SERVICES / FILES) == 0 && endpoint == 0 {
                edit % 100
            } else {
                0
            };
            let (a, b, c) = (
                1 + service / 256 % 60,
                service % 256,
                1 + endpoint + moved * 2,
            );
            let _ = writeln!(
                text,
                "  - addresses: [\"127.{a}.{b}.{c}\"]\n    conditions:\n      ready: true"
            );
        }
    }
    text
}

fn parse(texts: &[String]) -> SourceView {
    let shards = texts
        .iter()
        .enumerate()
        .map(|(file, text)| shard(file, text, None));
    SourceView {
        shards: shards.collect::<BTreeMap<_, _>>(),
        ..SourceView::default()
    }
}

/// `previous` is what was in force of the file: unchanged objects are the same again.
fn shard(file: usize, text: &str, previous: Option<&Shard>) -> (Arc<str>, Arc<Shard>) {
    let settings = ManifestSettings {
        namespace: "default".into(),
        strictness: Strictness::Lenient,
    };
    let name: Arc<str> = format!("f{file:03}.yaml").into();
    let loaded = manifest::load(&name, text, &settings, previous);
    (name, Arc::new(loaded.shard))
}

fn cluster() -> Arc<Cluster> {
    Arc::new(Cluster {
        search_namespace: Some("default".into()),
        node_name: "here".into(),
        ..Cluster::default()
    })
}

/// The way from a report to a published snapshot, without sockets.
struct Bench {
    world: World,
    published: Arc<Published>,
    table: ListenerTable,
    plan: portico_core::snapshot::plan::ListenerPlan,
}

impl Bench {
    fn new() -> Self {
        let cluster = cluster();
        let published = Arc::new(Published::from_pointee(Snapshot::empty(Arc::clone(
            &cluster,
        ))));
        let world = World::new(WorldSettings {
            cluster,
            node_ports: NODE_PORT_RANGE,
            host_addresses: Vec::new(),
            external_ranges: Vec::new(),
            simulation: Simulation::Off,
            foreign_addresses: Severity::Warning,
            remembered: Deviations::default(),
            seed: 1,
        });
        Self {
            world,
            published,
            table: ListenerTable::new(usize::MAX),
            plan: portico_core::snapshot::plan::ListenerPlan::default(),
        }
    }

    /// Step, compile, plan, publish: what the control loop does with a report.
    fn round(&mut self, view: SourceView) -> BTreeSet<Arc<str>> {
        let reports = [SourceReport::Synced(view)];
        let input = Input {
            reports: &reports,
            now: Timestamp::from_millis(1),
            waited_enough: true,
            ..Input::default()
        };
        let stepped = step(self.world.take(), input);
        self.world = stepped.world;
        let (snapshot, transitions) =
            compile(&self.published.load(), &self.world, &stepped.changed);
        self.plan = self.table.apply(&transitions);
        self.published.store(Arc::new(snapshot));
        stepped.changed
    }

    /// Binds every listener of the first plan.
    fn binding(&self) {
        let mut plane =
            DataPlane::start(DataSettings::default(), Arc::clone(&self.published)).unwrap();
        let most = (plane.descriptor_limit() / 2).min(self.plan.bind.len());
        let wanted = self.plan.bind.get(..most).unwrap_or_default();
        let began = Instant::now();
        plane.bind(wanted, &|_, _| false);
        plane.accept();
        let took = began.elapsed();
        let listening = plane
            .statuses()
            .iter()
            .filter(|status| status.error.is_none())
            .count();
        figure(
            &format!("bind {listening} listeners"),
            &millis(took),
            "under 200 ms",
        );
        figure(
            "descriptors for them",
            &plane.descriptors_used().to_string(),
            "one each",
        );
    }

    /// From the report of one moved endpoint to the first pick and the first answer.
    fn one_change(&mut self, mut view: SourceView) {
        let mut samples = Vec::new();
        for edit in 1..=50 {
            let before = view.shards.get(&*format!("f{edit:03}.yaml")).cloned();
            let (name, shard) = shard(edit, &text(edit, edit), before.as_deref());
            view.shards.insert(name, shard);
            let report = view.clone();
            let service = edit * (SERVICES / FILES);
            let began = Instant::now();
            let changed = self.round(report);
            let snapshot = self.published.load();
            let path = format!("ns-{}/svc-{service}", service % 50);
            assert!(changed.contains(&*path));
            let view = snapshot.service(&path).unwrap();
            let local = SocketAddr::new(
                *view.cluster_ips.first().unwrap(),
                view.ports.first().unwrap().number,
            );
            let frontend = snapshot
                .frontend(
                    Scope::HOST,
                    local,
                    local.port(),
                    portico_core::object::Protocol::Tcp,
                )
                .unwrap();
            let picked = frontend
                .port
                .cluster
                .as_ref()
                .unwrap()
                .pick(&[], Timestamp::default());
            assert!(black_box(picked).is_some());
            let name = Name::parse(&format!(
                "svc-{service}.ns-{}.svc.cluster.local",
                service % 50
            ))
            .unwrap();
            let answer = dns::answer(
                &snapshot,
                &Question::new(name, RecordType::A),
                Moment {
                    serial: 1,
                    seed: 1,
                    ..Moment::default()
                },
            );
            assert!(!black_box(answer).answers.is_empty());
            samples.push(began.elapsed());
        }
        samples.sort_unstable();
        let at = |share: usize| millis(*samples.get(samples.len() * share / 100).unwrap());
        figure(
            "one endpoint: report to pick and answer, median",
            &at(50),
            "under 5 ms",
        );
        figure("one endpoint: report to pick and answer, p98", &at(98), "");
    }

    /// From the report of one edited Service, which keeps its addresses, to the published snapshot.
    fn one_service(&mut self, mut view: SourceView) {
        self.round(view.clone());
        let mut samples = Vec::new();
        for edit in 51..=90 {
            let before = view.shards.get(&*format!("f{edit:03}.yaml")).cloned();
            let edited = text(edit, 0).replacen("tier: backend", "tier: edited", 1);
            let (name, shard) = shard(edit, &edited, before.as_deref());
            view.shards.insert(name, shard);
            let report = view.clone();
            let began = Instant::now();
            assert_eq!(self.round(report).len(), 1);
            samples.push(began.elapsed());
        }
        samples.sort_unstable();
        let median = samples.get(samples.len() / 2).copied().unwrap();
        figure(
            "one Service: report to snapshot, median",
            &millis(median),
            "",
        );
    }
}

/// Nanoseconds a pick, alone and with another thread on the same set.
fn picks() {
    const PICKS: u32 = 5_000_000;
    let endpoints = (0..10_u16).map(|n| Endpoint {
        addr: ([127, 0, 0, 1], 9000 + n).into(),
        state: Arc::default(),
    });
    let set = EndpointSet::new(endpoints.collect(), None);
    let run = || {
        for _ in 0..PICKS {
            black_box(set.pick(&[], Timestamp::default()));
        }
    };
    let began = Instant::now();
    run();
    figure(
        "pick among 10, one thread",
        &format!(
            "{:.0} ns",
            began.elapsed().as_nanos() as f64 / f64::from(PICKS)
        ),
        "",
    );
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(run);
        scope.spawn(run);
    });
    figure(
        "pick among 10, two threads, each",
        &format!(
            "{:.0} ns",
            began.elapsed().as_nanos() as f64 / f64::from(PICKS)
        ),
        "",
    );
}

/// The real program on the same manifests: start to ready, memory, descriptors.
fn up(texts: &[String]) {
    let folder = std::env::temp_dir().join(format!("portico-bench-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("manifests")).unwrap();
    for (file, text) in texts.iter().enumerate() {
        std::fs::write(
            folder.join("manifests").join(format!("f{file:03}.yaml")),
            text,
        )
        .unwrap();
    }
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_portico"))
        .args(["up", "--log-level", "error", "--runtime-dir"])
        .arg(folder.join("run"))
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg(folder.join("manifests"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let is_ready = |line: &std::io::Result<String>| {
        line.as_ref().is_ok_and(|line| line.contains(" is ready: "))
    };
    let ready = output.lines().find(is_ready).is_some();
    figure(
        "up to ready",
        &millis(began.elapsed()),
        if ready { "under 3 s" } else { "IT NEVER WAS" },
    );
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("?")
        .trim()
        .to_owned();
    figure("resident memory", &memory, "");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", child.id()))
        .map(Iterator::count)
        .unwrap_or_default();
    figure("descriptors", &descriptors.to_string(), "");
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_dir_all(&folder);
}
