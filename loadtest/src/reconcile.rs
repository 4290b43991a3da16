//! Scenario `reconcile`: a Service of simulated pods that come and go all the time while clients connect to it; then what
//! the clients, portico and the pods themselves counted is held against each other. Owns the churn and the rules.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tokio::{net::TcpSocket, task::JoinSet};

use crate::{
    client::{self, Failure},
    stage::{Programs, Simulated},
};

/// Patience with one connection, and with the last ones at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Replicas of the Deployment, one after the other.
const REPLICAS: [u64; 6] = [4, 6, 3, 5, 2, 4];
/// Edits between one image and the next.
const ROLL_EVERY: u64 = 8;

/// Arguments of the scenario.
#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Connections to make, each with one request
    #[arg(short = 'n', long, default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    connections: u64,
    /// Clients in parallel
    #[arg(short, long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Most seconds that it lasts: no connection is begun after them
    #[arg(short, long, default_value = "240", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Edits of the manifests in a second
    #[arg(short, long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1000))]
    edits: u32,
    /// The program under test [default: `portico` beside this program]
    #[arg(long, value_name = "FILE")]
    portico: Option<PathBuf>,
}

/// What the clients saw.
#[derive(Debug, Default, Serialize)]
struct Clients {
    /// Connections begun.
    connections: u64,
    /// Whole answers with their pod's name and number.
    answered: u64,
    /// All others, by kind.
    failures: BTreeMap<String, u64>,
    #[serde(skip)]
    pods: BTreeMap<String, Pod>,
}

/// What one pod answered.
#[derive(Debug, Clone, Copy, Default)]
struct Pod {
    /// As clients counted.
    answers: u64,
    /// As it counted itself: its largest number, since nobody else asks it.
    own: u64,
}

impl Clients {
    fn note(&mut self, answer: Result<String, Failure>) {
        self.connections += 1;
        let failure = match answer {
            Ok(answer) => match signed(&answer) {
                Some((name, number)) => {
                    self.answered += 1;
                    let pod = self.pods.entry(name.to_owned()).or_default();
                    pod.answers += 1;
                    pod.own = pod.own.max(number);
                    return;
                }
                None => Failure::Cut.to_string(),
            },
            Err(failure) => failure.to_string(),
        };
        *self.failures.entry(failure).or_default() += 1;
    }

    fn add(&mut self, part: Self) {
        self.connections += part.connections;
        self.answered += part.answered;
        for (kind, count) in part.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        for (name, of) in part.pods {
            let pod = self.pods.entry(name).or_default();
            pod.answers += of.answers;
            pod.own = pod.own.max(of.own);
        }
    }
}

/// Who answered and which of its answers it is, of a whole answer with status 200.
fn signed(answer: &str) -> Option<(&str, u64)> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n")?;
    let header = |wanted: &str| {
        let mut headers = headers.lines().filter_map(|header| header.split_once(": "));
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    let (_, name) = header("x-portico-pod")?;
    let (_, number) = header("x-portico-request")?;
    let is_good = status.split(' ').nth(1) == Some("200");
    is_good.then_some((name, number.parse().ok()?))
}

/// portico's own counters of the Service port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Counters {
    accepted: u64,
    active: u64,
    connected: u64,
    picks: u64,
    retries: u64,
    rejected: u64,
    residual: i64,
}

impl Counters {
    fn of(port: &Value) -> anyhow::Result<Self> {
        let count = |name: &str| {
            let value = port.pointer(&format!("/counts/{name}"));
            value
                .and_then(Value::as_u64)
                .with_context(|| format!("portico does not tell {name}"))
        };
        Ok(Self {
            accepted: count("connections")?,
            active: count("active")?,
            connected: count("established")?,
            picks: count("picks")?,
            retries: count("retries")?,
            rejected: count("rejections/total")?,
            residual: port
                .pointer("/counts/residual")
                .and_then(Value::as_i64)
                .context("portico does not tell residual")?,
        })
    }
}

/// What the pods themselves counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Pods {
    /// Those that answered at least once.
    count: usize,
    /// Sum of their largest numbers.
    answers: u64,
    /// Pods whose number is not that of the answers which clients got of them.
    other: usize,
}

/// Two figures that must be the same.
#[derive(Debug, Clone, Serialize)]
struct Rule {
    says: &'static str,
    left: i128,
    right: i128,
    holds: bool,
}

/// The outcome.
#[derive(Debug, Serialize)]
pub(crate) struct ReconcileReport {
    /// All rules hold.
    pub(crate) reconciles: bool,
    /// Connections that were asked for; fewer are made where time is up.
    wanted: u64,
    /// Seconds that the connections took.
    seconds: f64,
    /// Edits of the manifests meanwhile.
    edits: u64,
    clients: Clients,
    portico: Counters,
    endpoints: Pods,
    rules: Vec<Rule>,
}

impl ReconcileReport {
    fn new(clients: Clients, portico: Counters) -> Self {
        let endpoints = Pods {
            count: clients.pods.len(),
            answers: clients.pods.values().map(|pod| pod.own).sum(),
            other: clients
                .pods
                .values()
                .filter(|pod| pod.own != pod.answers)
                .count(),
        };
        let rules = rules(&clients, &portico, &endpoints);
        Self {
            reconciles: clients.connections > 0 && rules.iter().all(|rule| rule.holds),
            wanted: clients.connections,
            seconds: 0.0,
            edits: 0,
            clients,
            portico,
            endpoints,
            rules,
        }
    }
}

/// Each figure on the left comes from another place than those on the right.
fn rules(clients: &Clients, portico: &Counters, endpoints: &Pods) -> Vec<Rule> {
    let failed: u64 = clients.failures.values().sum();
    let rule = |says, left: i128, right: i128| Rule {
        says,
        left,
        right,
        holds: left == right,
    };
    let of = i128::from;
    let attempts = of(portico.accepted) + of(portico.retries) - of(portico.rejected);
    let others = i128::try_from(endpoints.other).unwrap_or(i128::MAX);
    vec![
        rule("failed = 0", of(failed), 0),
        rule("active = 0", of(portico.active), 0),
        rule(
            "accepted = connections of clients",
            of(portico.accepted),
            of(clients.connections),
        ),
        rule(
            "picks = accepted + retries - rejected",
            of(portico.picks),
            attempts,
        ),
        rule("residual = 0", i128::from(portico.residual), 0),
        rule(
            "connected = accepted - rejected",
            of(portico.connected),
            of(portico.accepted) - of(portico.rejected),
        ),
        rule(
            "connected = answers of the pods' own counts",
            of(portico.connected),
            of(endpoints.answers),
        ),
        rule("pods whose count is not the clients' = 0", others, 0),
    ]
}

impl fmt::Display for ReconcileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |of: &str, name: &str, value: i128| writeln!(f, "{of:<10} {name:<14} {value:>10}");
        line("clients", "connections", self.clients.connections.into())?;
        line("", "answered", self.clients.answered.into())?;
        for (kind, count) in &self.clients.failures {
            line("", kind, (*count).into())?;
        }
        line("portico", "accepted", self.portico.accepted.into())?;
        line("", "connected", self.portico.connected.into())?;
        line("", "picks", self.portico.picks.into())?;
        line("", "retries", self.portico.retries.into())?;
        line("", "rejected", self.portico.rejected.into())?;
        line("", "residual", self.portico.residual.into())?;
        line("endpoints", "answers", self.endpoints.answers.into())?;
        for rule in &self.rules {
            let verdict = if rule.holds { "holds" } else { "BROKEN" };
            writeln!(
                f,
                "{verdict:<7} {}: {} and {}",
                rule.says, rule.left, rule.right
            )?;
        }
        if self.clients.connections < self.wanted {
            writeln!(f, "time was up before {} connections", self.wanted)?;
        }
        let broken: Vec<&str> = self
            .rules
            .iter()
            .filter(|rule| !rule.holds)
            .map(|rule| rule.says)
            .collect();
        let verdict = if self.reconciles {
            "RECONCILES".to_owned()
        } else {
            format!("DOES NOT RECONCILE: {};", broken.join(", "))
        };
        writeln!(
            f,
            "{verdict} n={} retries={} pods={} edits={} in={:.1}s",
            self.clients.connections,
            self.portico.retries,
            self.endpoints.count,
            self.edits,
            self.seconds
        )
    }
}

/// Runs the scenario.
///
/// # Errors
/// portico does not start or answer, or the manifests cannot be written.
pub(crate) async fn run(args: &ReconcileArgs) -> anyhow::Result<ReconcileReport> {
    measure(args, &Programs::beside(args.portico.as_deref())?).await
}

async fn measure(args: &ReconcileArgs, programs: &Programs) -> anyhow::Result<ReconcileReport> {
    // Bound and not listening: who connects is refused (tcp(7)), and nobody else gets the port.
    let refuses = TcpSocket::new_v4()?;
    refuses.bind("127.0.0.1:0".parse()?)?;
    let refuses_at = refuses.local_addr()?;
    let mut stage = Simulated::prepare()?;
    stage.write("service.yaml", &service(stage.target()))?;
    stage.write("pods.yaml", &deployment(0))?;
    let [replicas, ..] = REPLICAS;
    stage.start(programs, 2, replicas).await?;
    let began = Instant::now();
    let mut edits = 0;
    let clients = tokio::select! {
        clients = load(args, stage.target()) => clients,
        result = churn(&stage, args.edits, refuses_at, &mut edits) => match result? {},
    };
    let seconds = began.elapsed().as_secs_f64();
    let portico = settled(&stage).await?;
    Ok(ReconcileReport {
        wanted: args.connections,
        seconds,
        edits,
        ..ReconcileReport::new(clients, portico)
    })
}

/// The counters once no connection is in progress, or when patience ends.
async fn settled(stage: &Simulated) -> anyhow::Result<Counters> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counters = Counters::of(&stage.port().await?)?;
        if counters.active == 0 || Instant::now() > deadline {
            return Ok(counters);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn load(args: &ReconcileArgs, target: SocketAddr) -> Clients {
    let drawn = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..args.clients {
        let (drawn, connections) = (Arc::clone(&drawn), args.connections);
        tasks.spawn(async move {
            let mut seen = Clients::default();
            while Instant::now() < until && drawn.fetch_add(1, Relaxed) < connections {
                seen.note(client::fetch(target, PATIENCE).await);
            }
            seen
        });
    }
    let mut all = Clients::default();
    while let Some(part) = tasks.join_next().await {
        match part {
            Ok(part) => all.add(part),
            Err(error) => {
                *all.failures
                    .entry(format!("the client itself: {error}"))
                    .or_default() += 1;
            }
        }
    }
    all
}

/// Edits at an even pace until it is dropped.
async fn churn(
    stage: &Simulated,
    per_second: u32,
    refuses: SocketAddr,
    edits: &mut u64,
) -> anyhow::Result<std::convert::Infallible> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
    loop {
        pace.tick().await;
        *edits += 1;
        if edits.is_multiple_of(2) {
            stage.write("pods.yaml", &deployment(*edits / 2))?;
        } else {
            stage.write("slice.yaml", &slice(*edits / 2, refuses))?;
        }
    }
}

fn service(target: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: {}\n  selector: {{app: web}}\n  \
         ports: [{{port: {}, targetPort: 8080}}]\n",
        target.ip(),
        target.port()
    )
}

/// Another number of replicas with each edit, and now and then another image: what is removed drains.
fn deployment(edit: u64) -> String {
    let place = usize::try_from(edit).unwrap_or_default() % REPLICAS.len();
    let replicas = REPLICAS.get(place).copied().unwrap_or(1);
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         containers: [{{name: web, image: 'web:{}', ports: [{{containerPort: 8080}}]}}]\n",
        edit / ROLL_EVERY
    )
}

/// An endpoint that refuses, ready or not by turns: each attempt at it goes on to a pod.
fn slice(edit: u64, refuses: SocketAddr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-flaps\n  \
         labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{port: {}}}]\n\
         endpoints: [{{addresses: [\"{}\"], conditions: {{ready: {}}}}}]\n",
        refuses.port(),
        refuses.ip(),
        edit.is_multiple_of(2)
    )
}

#[cfg(test)]
mod tests;
