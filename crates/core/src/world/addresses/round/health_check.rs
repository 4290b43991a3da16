//! The node port of a Service's health check, through the phases of an allocation. Owns only that: it comes from the
//! pool of node ports, which is the round's.

use std::sync::Arc;

use super::{Round, claim_port, dynamic_ports, natural_offset};
use crate::{object::diagnostic::Severity, world::addresses::draft::Draft};

impl Round<'_> {
    /// The port of the health check that was asked for. `Some(None)`: nothing asked for. `None`: refused.
    #[expect(
        clippy::option_option,
        reason = "refused, nothing asked, granted: three outcomes, used once above"
    )]
    pub(super) fn check_health_port(
        &mut self,
        draft: &Draft,
        own: &[Option<u16>],
    ) -> Option<Option<u16>> {
        let Some(number) = draft
            .spec
            .health_check_node_port
            .filter(|_| draft.spec.takes_health_check())
        else {
            return Some(None);
        };
        let (first, last) = (*self.rules.node_ports.start(), *self.rules.node_ports.end());
        let holder = self.node_ports.get(&number).cloned();
        let why = if !self.rules.node_ports.contains(&number) {
            format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )
        } else if let Some(holder) = holder {
            format!("provided port is already allocated (to {holder})")
        } else if own.contains(&Some(number)) {
            "provided port is already allocated (to a port of this Service)".to_owned()
        } else {
            return Some(Some(number));
        };
        let message = format!(
            "Invalid value: {number}: failed to allocate requested HealthCheck NodePort {number}: {why}"
        );
        let path = "spec.healthCheckNodePort";
        self.report(Severity::Error, &draft.object, path, message);
        None
    }

    /// Gives the health check the number that it had, unless it has one or another has taken that.
    pub(super) fn keep_health_port(&mut self, path: &str, draft: &mut Draft, number: Option<u16>) {
        let is_missing = draft.spec.takes_health_check() && draft.health_check.is_none();
        let kept = number.filter(|number| {
            is_missing
                && self.rules.node_ports.contains(number)
                && claim_port(&mut self.node_ports, *number, &health_owner(path))
        });
        draft.health_check = draft.health_check.or(kept);
    }

    pub(super) fn fill_health_port(&mut self, path: &str, draft: &mut Draft) {
        if !draft.spec.takes_health_check() || draft.health_check.is_some() {
            return;
        }
        draft.health_check = self.free_port(path, 0);
        match draft.health_check {
            Some(number) => {
                self.node_ports.insert(number, health_owner(path));
            }
            None => self.report(
                Severity::Error,
                &draft.object,
                "spec.healthCheckNodePort",
                "range is full".to_owned(),
            ),
        }
    }

    /// Enters what was asked for.
    pub(super) fn take_health_port(&mut self, path: &str, draft: &mut Draft, asked: Option<u16>) {
        if let Some(port) = asked {
            self.node_ports.insert(port, health_owner(path));
        }
        draft.health_check = asked;
    }

    /// Gives the health check what the state file remembers.
    pub(super) fn keep_remembered_health_port(&mut self, path: &str, draft: &mut Draft) {
        let remembered = &self.rules.remembered.node_ports;
        if !remembered.is_empty() {
            let number = remembered.get(&health_key(path)).copied();
            self.keep_health_port(path, draft, number);
        }
    }

    /// Notes what the hash alone would not give again.
    pub(super) fn remember_health_port(&mut self, path: &str, draft: &Draft) {
        let (first, count) = dynamic_ports(&self.rules.node_ports);
        let asked = draft.spec.health_check_node_port;
        if let Some(number) = draft.health_check.filter(|number| Some(*number) != asked)
            && number != first + natural_offset(path, 0, count)
        {
            let remembered = &mut self.allocation.deviations.node_ports;
            remembered.insert(health_key(path), number);
        }
    }
}

/// What the state file calls the port of a Service's health check.
fn health_key(path: &str) -> String {
    format!("{path}:healthCheck")
}

/// The holder of that port, for people: another one than the Service, whose own ports must not have its number.
fn health_owner(path: &str) -> Arc<str> {
    format!("the health check of {path}").into()
}
