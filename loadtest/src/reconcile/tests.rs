//! The rules, and a short run of them.

use super::*;
use crate::stage::tests::{ALONE, programs};

fn answer(pod: &str, number: u64) -> String {
    format!("HTTP/1.0 200 OK\r\nX-Portico-Pod: {pod}\r\nx-portico-request: {number}\r\n\r\n{pod}\n")
}

fn clients(answers: &[(&str, u64)]) -> Clients {
    let mut clients = Clients::default();
    for (pod, number) in answers {
        clients.note(Ok(answer(pod, *number)));
    }
    clients
}

const COUNTERS: Counters = Counters {
    accepted: 3,
    active: 0,
    connected: 3,
    picks: 5,
    retries: 2,
    rejected: 0,
    residual: 0,
};

fn broken(clients: Clients, portico: Counters) -> Vec<&'static str> {
    let report = ReconcileReport::new(clients, portico);
    let broken: Vec<_> = report.rules.iter().filter(|rule| !rule.holds).collect();
    assert_eq!(report.reconciles, broken.is_empty());
    assert_eq!(report.to_string().contains("DOES NOT"), !broken.is_empty());
    broken.iter().map(|rule| rule.says).collect()
}

#[test]
fn report_of_counts_that_agree_reconciles() {
    let mut all = clients(&[("a", 2)]);
    all.add(clients(&[("a", 1), ("b", 1)]));
    assert_eq!(broken(all, COUNTERS), Vec::<&str>::new());
}

#[test]
fn report_of_a_pod_that_answered_more_does_not_reconcile() {
    assert_eq!(
        broken(clients(&[("a", 1), ("a", 3), ("b", 1)]), COUNTERS),
        [
            "connected = answers of the pods' own counts",
            "pods whose count is not the clients' = 0"
        ]
    );
}

#[test]
fn report_of_a_failure_or_a_lost_pick_does_not_reconcile() {
    let mut all = clients(&[("a", 1), ("a", 2)]);
    all.note(Err(Failure::Late));
    let portico = Counters {
        picks: 4,
        connected: 2,
        ..COUNTERS
    };
    assert_eq!(
        broken(all, portico),
        [
            "failed = 0",
            "picks = accepted + retries - rejected",
            "connected = accepted - rejected"
        ]
    );
}

#[test]
fn signed_of_an_answer_without_a_number_or_with_an_error_is_none() {
    assert_eq!(signed(&answer("a", 7)), Some(("a", 7)));
    assert_eq!(signed("HTTP/1.0 200 OK\r\nx-portico-pod: a\r\n\r\n"), None);
    let failed = answer("a", 7).replace("200 OK", "500 No");
    assert_eq!(signed(&failed), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_of_two_thousand_connections_under_churn_reconciles() {
    let Some(programs) = programs() else {
        eprintln!("skipped: `cargo build` has not built portico beside this test");
        return;
    };
    let _alone = ALONE.lock().await;
    let args = ReconcileArgs {
        connections: 2_000,
        clients: 4,
        seconds: 60,
        edits: 40,
        portico: None,
    };
    let report = measure(&args, &programs).await.unwrap();
    assert!(report.reconciles, "{report}");
    assert_eq!(report.clients.answered, 2_000);
    assert!(report.edits > 4 && report.portico.retries > 0, "{report}");
}
