//! Which of our addresses to connect from. Owns the order, what is remembered about it, and what is said when ports run
//! out; must not connect.
//!
//! Connections to one endpoint from one address differ by their local port alone, so that there are as many as
//! `net.ipv4.ip_local_port_range` has numbers (ip(7)), less those that wait for their end (`TIME_WAIT`). From another
//! address there are as many again. To 127/8 any address of 127/8 will do, and the kernel's own choice for all of them
//! is 127.0.0.1; so that is the first, and 127.0.0.2 and those after it follow, always in this order: an endpoint that
//! tells clients apart sees few addresses, and the same ones each time. To other networks only the host's routes know
//! which address answers reach, and there the kernel's choice is the only one.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use portico_core::time::Timestamp;

use crate::net;

/// How many addresses follow the kernel's choice.
const SPARES: u8 = 8;
/// So long an endpoint's dry sources are not tried first again, for the kernel looks at every port before it gives up.
const MEMORY_MS: u64 = 1_000;
/// Endpoints remembered at most; beyond, dry sources are found again by each connection.
const MOST_REMEMBERED: usize = 1_024;
/// What ran out is said at most this often.
const COMPLAINT_MS: u64 = 1_000;

/// What all workers know about sources.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// Where the order begins for endpoints that ran dry lately, and until when.
    begins: Mutex<HashMap<SocketAddr, (u8, u64)>>,
    /// How many there are, to be read without the lock.
    remembered: AtomicUsize,
    exhausted: AtomicU64,
    /// When it may be said again, in milliseconds.
    quiet_until: AtomicU64,
}

impl Sources {
    /// The sources for `endpoint` in the order in which to try them, each with its place; `None` leaves the choice to
    /// the kernel.
    pub(super) fn of(
        &self,
        endpoint: SocketAddr,
        now: Timestamp,
    ) -> impl Iterator<Item = (u8, Option<IpAddr>)> + use<> {
        let count = if is_of_127(endpoint.ip()) {
            SPARES + 1
        } else {
            1
        };
        let first = self.begin(endpoint, now);
        let places = (0..count).map(move |n| (first + n) % count);
        places
            .map(|place| (place, at(place)))
            // A socket at the endpoint's own address could be given its port, and connect to itself.
            .filter(move |(_, source)| *source != Some(endpoint.ip()))
    }

    fn begin(&self, endpoint: SocketAddr, now: Timestamp) -> u8 {
        if self.remembered.load(Relaxed) == 0 {
            return 0;
        }
        let mut begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        match begins.get(&endpoint) {
            Some((place, until)) if now.as_millis() < *until => *place,
            Some(_) => {
                begins.remove(&endpoint);
                self.remembered.store(begins.len(), Relaxed);
                0
            }
            None => 0,
        }
    }

    /// The source at `place` has no port left towards `endpoint`.
    pub(super) fn ran_dry(&self, place: u8, endpoint: SocketAddr, now: Timestamp) {
        self.exhausted.fetch_add(1, Relaxed);
        if is_of_127(endpoint.ip()) {
            let mut begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
            if begins.len() >= MOST_REMEMBERED {
                begins.clear();
            }
            let next = (place + 1) % (SPARES + 1);
            begins.insert(endpoint, (next, now.as_millis() + MEMORY_MS));
            self.remembered.store(begins.len(), Relaxed);
        }
        self.tell(place, endpoint, now);
    }

    /// Times that a source had no port left.
    pub(crate) fn exhausted(&self) -> u64 {
        self.exhausted.load(Relaxed)
    }

    fn tell(&self, place: u8, endpoint: SocketAddr, now: Timestamp) {
        let (now, until) = (now.as_millis(), self.quiet_until.load(Relaxed));
        let next = now + COMPLAINT_MS;
        let turn = |until| {
            self.quiet_until
                .compare_exchange(until, next, Relaxed, Relaxed)
        };
        if now < until || turn(until).is_err() {
            return;
        }
        let range = net::local_port_range().map_or_else(
            || "unknown".to_owned(),
            |(low, high)| format!("{low}-{high}"),
        );
        let source =
            at(place).map_or_else(|| "our address".to_owned(), |source| source.to_string());
        tracing::warn!(
            %endpoint,
            %source,
            %range,
            exhausted = self.exhausted(),
            "no local port is left for connections to an endpoint; another source address or endpoint is tried where there \
             is one; to have more ports: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", fewer long connections, or \
             more endpoints"
        );
    }
}

/// Whether a failed bind or connect means that the source has no port left for the endpoint, or is no address of ours.
pub(super) fn is_dry(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        // EAGAIN is what connect(2) said before Linux 4.
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN)
    )
}

fn is_of_127(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V4(addr) if addr.is_loopback())
}

fn at(place: u8) -> Option<IpAddr> {
    (place > 0).then(|| Ipv4Addr::new(127, 0, 0, 1 + place).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(5_000);
    const LATER: Timestamp = Timestamp::from_millis(6_000);

    fn order(sources: &Sources, endpoint: &str, now: Timestamp) -> Vec<String> {
        let found = sources.of(endpoint.parse().unwrap(), now);
        found
            .map(|(_, source)| source.map_or_else(|| "any".to_owned(), |source| source.to_string()))
            .collect()
    }

    #[test]
    fn sources_of_a_loopback_endpoint_begin_with_the_kernels_choice() {
        let sources = Sources::default();
        let all = order(&sources, "127.0.0.1:80", NOW);
        assert_eq!(all.len(), 9);
        assert_eq!(all[..3], ["any", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(all[8], "127.0.0.9");
        assert_eq!(order(&sources, "10.0.0.1:80", NOW), ["any"]);
        assert_eq!(order(&sources, "[::1]:80", NOW), ["any"]);
    }

    #[test]
    fn sources_leave_out_the_endpoints_own_address() {
        let all = order(&Sources::default(), "127.0.0.2:80", NOW);
        assert_eq!(all.len(), 8);
        assert_eq!(all[..2], ["any", "127.0.0.3"]);
    }

    #[test]
    fn sources_that_ran_dry_are_tried_last_for_a_second_and_for_their_endpoint_alone() {
        let sources = Sources::default();
        let endpoint = "127.0.0.1:80".parse().unwrap();
        sources.ran_dry(0, endpoint, NOW);
        sources.ran_dry(1, endpoint, NOW);
        let all = order(&sources, "127.0.0.1:80", NOW);
        assert_eq!((all.len(), all[0].as_str()), (9, "127.0.0.3"));
        assert_eq!(all[7..], ["any", "127.0.0.2"]);
        assert_eq!(order(&sources, "127.0.0.1:81", NOW)[0], "any");
        assert_eq!(order(&sources, "127.0.0.1:80", LATER)[0], "any");
        assert_eq!(sources.exhausted(), 2);
        sources.ran_dry(8, endpoint, NOW);
        assert_eq!(order(&sources, "127.0.0.1:80", NOW)[0], "any", "around");
    }

    #[test]
    fn sources_of_endpoints_elsewhere_are_counted_and_not_remembered() {
        let sources = Sources::default();
        sources.ran_dry(0, "10.0.0.1:80".parse().unwrap(), NOW);
        assert_eq!(
            (sources.exhausted(), sources.remembered.load(Relaxed)),
            (1, 0)
        );
    }
}
