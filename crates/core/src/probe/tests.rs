//! One probe by tables and by random histories.

use super::*;
use crate::object::TargetPort;

const START: Timestamp = Timestamp::from_millis(100_000);

fn probe(success_threshold: u32, failure_threshold: u32) -> Probe {
    Probe {
        check: ProbeCheck::TcpSocket {
            port: TargetPort::Number(80),
            host: None,
        },
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold,
        failure_threshold,
        termination_grace: None,
    }
}

/// `+` success, `-` failure in; `S` success told, `F` failure told, `u` one failure, `.` nothing out; `|` when no
/// further attempt is due.
fn check(kind: ProbeKind, thresholds: (u32, u32), attempts: &str, expected: &str) {
    let mut state = ProbeState::new(kind, &probe(thresholds.0, thresholds.1), START, 0);
    let mut said = String::new();
    for attempt in attempts.chars() {
        let Some(due) = state.next_due() else {
            said.push('|');
            break;
        };
        let attempt = match attempt {
            '+' => Ok(()),
            _ => Err(Arc::from("no")),
        };
        said.push(match state.observe(attempt, due) {
            Some(ProbeOutcome::Success) => 'S',
            Some(ProbeOutcome::Failure { .. }) => 'F',
            Some(ProbeOutcome::Unhealthy { .. }) => 'u',
            None => '.',
        });
    }
    assert_eq!(said, expected, "{kind:?} {thresholds:?} {attempts}");
}

#[test]
fn observe_readiness_tells_each_change_once() {
    check(ProbeKind::Readiness, (1, 3), "+++", "S..");
    check(ProbeKind::Readiness, (1, 3), "-----", "uuFuu");
    check(ProbeKind::Readiness, (1, 3), "+--+---++", "Suu.uuFS.");
    check(ProbeKind::Readiness, (2, 1), "+-++-+-++", ".F.SF.u.S");
    check(ProbeKind::Readiness, (3, 2), "++-+++--", "..u..SuF");
}

#[test]
fn observe_liveness_says_nothing_until_it_fails_and_then_rests() {
    check(ProbeKind::Liveness, (1, 3), "++--+---+", "..uu.uuF|");
    check(ProbeKind::Liveness, (1, 1), "-+", "F|");
}

#[test]
fn observe_startup_ends_with_the_first_decision() {
    check(ProbeKind::Startup, (1, 30), "--+-", "uuS|");
    check(ProbeKind::Startup, (1, 2), "--+", "uF|");
}

#[test]
fn observe_after_the_last_attempt_says_nothing() {
    let mut state = ProbeState::new(ProbeKind::Startup, &probe(1, 1), START, 0);
    assert_eq!(state.observe(Ok(()), START), Some(ProbeOutcome::Success));
    assert_eq!(state.observe(Err("late".into()), START), None);
}

#[test]
fn next_due_first_attempt_waits_for_the_delay_or_the_jitter() {
    let due = |probe: &Probe, jitter| {
        let state = ProbeState::new(ProbeKind::Readiness, probe, START, jitter);
        state.next_due().map(|due| due.since(START).as_millis())
    };
    let plain = probe(1, 3);
    assert_eq!(due(&plain, 0), Some(0));
    assert_eq!(due(&plain, u16::MAX), Some(1000), "at most a second");
    let quick = Probe {
        period: Duration::from_millis(500),
        ..plain.clone()
    };
    assert_eq!(due(&quick, u16::MAX), Some(500), "at most a period");
    let delayed = Probe {
        initial_delay: Duration::from_secs(5),
        ..plain
    };
    assert_eq!(due(&delayed, u16::MAX), Some(5000), "a delay has no jitter");
}

#[test]
fn next_due_slow_attempt_skips_the_ticks_that_passed() {
    let mut state = ProbeState::new(ProbeKind::Readiness, &probe(1, 3), START, 0);
    state.observe(Ok(()), START.after(Duration::from_secs(1)));
    assert_eq!(state.next_due(), Some(START.after(Duration::from_secs(10))));
    state.observe(Ok(()), START.after(Duration::from_secs(35)));
    assert_eq!(state.next_due(), Some(START.after(Duration::from_secs(40))));
}

#[test]
fn counted_as_passing_only_what_cannot_run() {
    let http = |https| ProbeCheck::HttpGet {
        path: "/".into(),
        port: TargetPort::Number(80),
        host: None,
        https,
        headers: Vec::new(),
    };
    assert_eq!(counted_as_passing(&ProbeCheck::Exec), Some(EXEC_PASSES));
    assert_eq!(counted_as_passing(&http(true)), Some(HTTPS_PASSES));
    assert_eq!(counted_as_passing(&http(false)), None);
}

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
}

/// Whatever the history: told results alternate, each follows its threshold of equal results, every failure is told
/// in some way, attempts are at ticks of one clock and never in the past.
#[test]
fn observe_any_history_keeps_its_promises() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (up, down) = (
            1 + u32::try_from(random.below(3)).unwrap(),
            1 + u32::try_from(random.below(4)).unwrap(),
        );
        let kind = [
            ProbeKind::Startup,
            ProbeKind::Readiness,
            ProbeKind::Liveness,
        ][usize::try_from(random.below(3)).unwrap()];
        let spec = probe(up, down);
        let jitter = u16::try_from(random.below(65_536)).unwrap();
        let mut state = ProbeState::new(kind, &spec, START, jitter);
        let first = state.next_due().unwrap();
        let mut history: Vec<bool> = Vec::new();
        let mut told = (kind == ProbeKind::Liveness).then_some(true);
        for _ in 0..60 {
            let Some(due) = state.next_due() else {
                assert_ne!(kind, ProbeKind::Readiness, "seed {seed}");
                break;
            };
            assert_eq!(due.since(first).as_millis() % 10_000, 0, "seed {seed}");
            let passed = random.below(2) == 0;
            let now = due.after(Duration::from_millis(random.below(25_000)));
            let attempt = if passed { Ok(()) } else { Err("no".into()) };
            let outcome = state.observe(attempt, now);
            history.push(passed);
            let decided = match outcome {
                Some(ProbeOutcome::Success) => Some(true),
                Some(ProbeOutcome::Failure { .. }) => Some(false),
                Some(ProbeOutcome::Unhealthy { .. }) => None,
                None => {
                    assert!(passed, "seed {seed}: every failure is told");
                    None
                }
            };
            let need = usize::try_from(if passed { up } else { down }).unwrap();
            let run = history.iter().rev().take_while(|had| **had == passed);
            let reached = run.count() >= need && told != Some(passed);
            assert_eq!(decided, reached.then_some(passed), "seed {seed}");
            told = decided.or(told);
            assert!(
                state.next_due().is_none_or(|next| next > now),
                "seed {seed}"
            );
        }
    }
}
