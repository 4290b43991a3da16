//! Names that have no address for a client elsewhere. Owns telling the user of them, bounded in time and in names.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use portico_core::dns::{Name, packet};

/// Between two lines of the log.
const QUIET: Duration = Duration::from_mins(1);
/// Names that are remembered as told; there is no line about others.
const MAX_TOLD: usize = 256;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    names: Vec<Name>,
}

impl Told {
    /// Whether `name` is to be told at `now`: once, and no name within a minute of another.
    fn is_due(&mut self, name: &Name, now: Instant) -> bool {
        let is_quiet = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < QUIET);
        if is_quiet || self.names.len() >= MAX_TOLD || self.names.contains(name) {
            return false;
        }
        self.last = Some(now);
        self.names.push(name.clone());
        true
    }
}

impl Withheld {
    /// A client elsewhere got no address for this.
    pub(super) fn tell(&self, withheld: &packet::Withheld, client: IpAddr) {
        let name = &withheld.name;
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_due(name, now) {
            drop(told);
            tracing::warn!(
                target: "dns",
                %name,
                %client,
                "no address for a client on another machine or in a container: a loopback address would be its own; \
                 {} would give it one",
                advice(withheld)
            );
        }
    }
}

/// What gives such a name an address.
const fn advice(withheld: &packet::Withheld) -> &'static str {
    if withheld.is_name_server {
        "`--dns-listen` with an address that is reached from there"
    } else {
        "what `portico explain service NAME` says"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_names_are_told_once_and_one_a_minute() {
        let name = |text: &str| Name::parse(text).unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut told = Told::default();
        assert!(told.is_due(&name("a"), at(0)));
        assert!(!told.is_due(&name("b"), at(59)), "within a minute");
        assert!(told.is_due(&name("b"), at(60)));
        assert!(!told.is_due(&name("A"), at(200)), "told before");
        for number in 2..MAX_TOLD {
            let seconds = u64::try_from(number).unwrap() * 60;
            assert!(told.is_due(&name(&format!("n{number}")), at(seconds)));
        }
        assert!(!told.is_due(&name("more"), at(1_000_000)), "bounded");
    }
}
