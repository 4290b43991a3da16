//! What the loop tells of its rounds as metrics, under kube-proxy's names where they mean the same. Owns which figure is
//! which; must not decide anything.

use portico_core::{object::diagnostic::Severity, time::Timestamp};

use super::ControlLoop;
use crate::{clock, control::reconcile::Outcome, telemetry::metrics::table};

impl ControlLoop {
    /// Records a round that began at `began`.
    pub(super) fn measure(&mut self, outcome: &Outcome, files: bool, began: Timestamp) {
        let now = clock::now();
        if outcome.published.is_some() {
            self.updated = now;
            let seconds = |from: Timestamp| now.since(from).as_secs_f64();
            metrics::histogram!(table::SYNC).record(seconds(began));
            let from = self.noticed.unwrap_or(began);
            metrics::histogram!(table::NETWORK_PROGRAMMING).record(seconds(from));
            let published = now.since(Timestamp::default()).as_secs_f64();
            metrics::gauge!("kubeproxy_sync_proxy_rules_last_timestamp_seconds").set(published);
        }
        self.noticed = None;
        let world = self.reconciler.world();
        if files && world.is_synced() {
            let findings = world.diagnostics();
            let is_error = |severity: Severity| severity == Severity::Error;
            let errors = findings.iter().filter(|finding| is_error(finding.severity));
            let errors = errors.count();
            let result = if errors == 0 { "success" } else { "error" };
            metrics::counter!("portico_config_reloads_total", "result" => result).increment(1);
            metrics::gauge!("portico_manifest_errors").set(number(errors));
            if errors == 0 {
                let read = now.since(Timestamp::default()).as_secs_f64();
                metrics::gauge!("portico_config_last_reload_success_timestamp_seconds").set(read);
            }
        }
        metrics::gauge!("portico_runs").set(number(self.reconciler.listeners().2.len()));
        self.measure_listeners(outcome);
    }

    /// Counting them takes a look at each, so only when some changed or one is where it should not be.
    fn measure_listeners(&self, outcome: &Outcome) {
        let plan = &outcome.plan;
        let quiet = plan.bind.is_empty() && plan.close.is_empty() && plan.switch.is_empty();
        if quiet && !self.happenings.is_troubled() {
            return;
        }
        let sockets = self.reconciler.listeners();
        let odd = sockets.states();
        let all = sockets.0.statuses().len();
        metrics::gauge!("portico_listeners", "state" => "listening")
            .set(number(all.saturating_sub(odd.len())));
        for state in ["refusing", "fallback", "failed"] {
            let count = odd.values().filter(|report| report.state == state).count();
            metrics::gauge!("portico_listeners", "state" => state).set(number(count));
        }
    }
}

fn number(count: usize) -> f64 {
    portico_core::observe::real(u64::try_from(count).unwrap_or(u64::MAX))
}
