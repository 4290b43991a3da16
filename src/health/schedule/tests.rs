//! The schedule in paused time: attempts are futures of the test, so nothing here touches a socket or waits.

use std::{
    collections::BTreeSet,
    sync::{Mutex, atomic::AtomicUsize},
};

use portico_core::{
    object::{Probe, ProbeCheck, TargetPort},
    world::probes::{ProbeKind, ProbeOutcome},
};

use super::*;

/// Endpoints by port: how they answer, who was asked when.
#[derive(Default)]
struct Endpoints {
    failing: Mutex<BTreeSet<u16>>,
    slow: Mutex<BTreeSet<u16>>,
    asked: Mutex<Vec<(u128, u16)>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Endpoints {
    async fn answer(self: Arc<Self>, port: u16, ms: u128) -> Attempt {
        self.asked.lock().unwrap().push((ms, port));
        let now = self.at_once.fetch_add(1, Relaxed) + 1;
        self.most_at_once.fetch_max(now, Relaxed);
        if self.slow.lock().unwrap().contains(&port) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.at_once.fetch_sub(1, Relaxed);
        if self.failing.lock().unwrap().contains(&port) {
            return Err("no".into());
        }
        Ok(())
    }

    /// Seconds at which this port was asked.
    fn asked(&self, port: u16) -> Vec<u128> {
        let asked = self.asked.lock().unwrap();
        let of_port = asked.iter().filter(|(_, asked)| *asked == port);
        of_port.map(|(ms, _)| ms / 1000).collect()
    }
}

struct Bench {
    endpoints: Arc<Endpoints>,
    counters: Arc<Counters>,
    targets: watch::Sender<Arc<ProbeTargets>>,
    observed: mpsc::Receiver<ProbeObservation>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    began: Instant,
}

impl Bench {
    fn start(room: usize) -> Self {
        let endpoints = Arc::new(Endpoints::default());
        let counters = Arc::new(Counters::default());
        let (targets, wanted) = watch::channel(Arc::default());
        let (observations, observed) = mpsc::channel(room);
        let cancel = CancellationToken::new();
        let began = Instant::now();
        let asked = Arc::clone(&endpoints);
        let ask = move |_: &ProbeSubject, target: ProbeTarget| {
            let ms = began.elapsed().as_millis();
            Arc::clone(&asked).answer(target.addr.port(), ms)
        };
        let schedule = Schedule::new(ask, || 0, Arc::clone(&counters));
        let task = tokio::spawn(schedule.run(wanted, observations, cancel.clone()));
        Self {
            endpoints,
            counters,
            targets,
            observed,
            cancel,
            task,
            began,
        }
    }

    fn set(&self, targets: impl IntoIterator<Item = (ProbeKey, ProbeTarget)>) {
        self.targets
            .send_replace(Arc::new(targets.into_iter().collect()));
    }

    /// Lets this much time pass, and everything that happens in it happen.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_millis(seconds * 1000 + 1)).await;
    }

    /// What comes next, and in which second.
    async fn told(&mut self) -> String {
        let ProbeObservation { key, outcome } = self.observed.recv().await.unwrap();
        let outcome = match outcome {
            ProbeOutcome::Success => "success",
            ProbeOutcome::Failure { .. } => "failure",
            ProbeOutcome::Unhealthy { .. } => "unhealthy",
        };
        let second = self.began.elapsed().as_secs();
        format!("{second} {} {outcome}", key.container)
    }
}

fn target(name: &str, port: u16) -> (ProbeKey, ProbeTarget) {
    let key = ProbeKey {
        subject: ProbeSubject::Declared(("ns".into(), "pod".into())),
        container: name.into(),
        kind: ProbeKind::Readiness,
        run: 0,
    };
    let probe = Probe {
        check: ProbeCheck::TcpSocket {
            port: TargetPort::Number(port),
            host: None,
        },
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace: None,
    };
    let addr = ([127, 0, 0, 1], port).into();
    let probe = Arc::new(probe);
    (key, ProbeTarget { probe, addr })
}

#[tokio::test(start_paused = true)]
async fn run_failing_probe_is_told_at_its_threshold_and_when_it_heals() {
    let mut bench = Bench::start(8);
    bench.endpoints.failing.lock().unwrap().insert(80);
    bench.set([target("a", 80)]);
    assert_eq!(bench.told().await, "0 a unhealthy");
    assert_eq!(bench.told().await, "10 a unhealthy");
    assert_eq!(bench.told().await, "20 a failure");
    bench.endpoints.failing.lock().unwrap().clear();
    assert_eq!(bench.told().await, "30 a success");
    bench.pass(20).await;
    assert!(bench.observed.try_recv().is_err(), "told once");
}

#[tokio::test(start_paused = true)]
async fn set_leaves_equal_targets_undisturbed_and_restarts_changed_ones() {
    let bench = Bench::start(64);
    bench.set([target("a", 80), target("b", 81)]);
    bench.pass(5).await;
    let (key, moved) = target("b", 82);
    bench.set([target("a", 80), (key, moved), target("c", 83)]);
    bench.pass(10).await;
    assert_eq!(bench.endpoints.asked(80), [0, 10]);
    assert_eq!(bench.endpoints.asked(81), [0]);
    assert_eq!(bench.endpoints.asked(82), [5, 15]);
    assert_eq!(bench.endpoints.asked(83), [5, 15]);
    bench.set([]);
    bench.pass(60).await;
    assert_eq!(bench.endpoints.asked.lock().unwrap().len(), 7);
    assert_eq!(bench.counters.probes.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn set_without_a_probe_cuts_its_attempt_off_and_says_nothing_of_it() {
    let mut bench = Bench::start(8);
    bench.endpoints.slow.lock().unwrap().insert(80);
    bench.set([target("a", 80)]);
    bench.pass(0).await;
    assert_eq!(bench.counters.running.load(Relaxed), 1);
    bench.set([]);
    bench.pass(5).await;
    assert_eq!(bench.counters.running.load(Relaxed), 0);
    assert!(bench.observed.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn run_more_probes_than_places_asks_all_of_them_in_turn() {
    let mut bench = Bench::start(8);
    let ports = 1000..1200;
    bench.endpoints.slow.lock().unwrap().extend(ports.clone());
    bench.set(ports.clone().map(|port| target(&port.to_string(), port)));
    for _ in ports.clone() {
        assert!(bench.told().await.ends_with("success"));
    }
    // 200 attempts of a second in 64 places.
    assert_eq!(bench.began.elapsed().as_secs(), 4);
    assert_eq!(
        bench.endpoints.most_at_once.load(Relaxed),
        MOST_ATTEMPTS,
        "no more at once"
    );
    assert_eq!(bench.counters.delayed.load(Relaxed), 200 - 64);
    assert_eq!(bench.counters.attempts.load(Relaxed), 200);
}

#[tokio::test(start_paused = true)]
async fn run_without_room_for_observations_keeps_them_until_there_is() {
    let mut bench = Bench::start(1);
    bench.set((1..=20).map(|port| target(&port.to_string(), port)));
    bench.pass(100).await;
    // One answer fills the channel, one waits for it; their two probes were asked once more.
    assert_eq!(bench.counters.attempts.load(Relaxed), 22);
    let mut told = BTreeSet::new();
    for _ in 1..=20 {
        told.insert(bench.told().await);
    }
    assert_eq!(told.len(), 20, "none was lost");
}

#[tokio::test(start_paused = true)]
async fn run_ends_when_cancelled_or_when_nobody_listens() {
    let bench = Bench::start(1);
    bench.endpoints.slow.lock().unwrap().insert(80);
    bench.set([target("a", 80)]);
    bench.pass(0).await;
    bench.cancel.cancel();
    bench.task.await.unwrap();
    let bench = Bench::start(1);
    bench.set([target("a", 80)]);
    drop(bench.observed);
    bench.task.await.unwrap();
}
