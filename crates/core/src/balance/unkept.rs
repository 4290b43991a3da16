//! Clients' addresses that endpoints were to see and do not. Owns the reasons, their words and their counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection or flow goes on from our own address though the client's was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkept {
    /// The address is not this host's, and we may not use those of others.
    Privilege,
    /// The client is on the endpoint's own machine, which discards what comes from outside with its own address.
    Hairpin,
    /// No port is free at that address towards the endpoint.
    NoPort,
    /// That address cannot be used towards the endpoint.
    NoRoute,
    /// Nothing came back in time.
    Silence,
}

impl Unkept {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Privilege,
        Self::Hairpin,
        Self::NoPort,
        Self::NoRoute,
        Self::Silence,
    ];

    /// As it stands in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Privilege => "privilege",
            Self::Hairpin => "hairpin",
            Self::NoPort => "no_port",
            Self::NoRoute => "no_route",
            Self::Silence => "silence",
        }
    }

    /// The same in words, after "because".
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Privilege => "an address of another machine needs a privilege",
            Self::Hairpin => {
                "the client is on its endpoint's machine, which discards what comes in with its own address"
            }
            Self::NoPort => "no port was free at the client's address towards the endpoint",
            Self::NoRoute => {
                "the endpoint cannot be reached from the client's address, such as another machine from 127.0.0.1"
            }
            Self::Silence => {
                "no answer came back: the endpoint sent it to the client itself, or there is no way for it at all"
            }
        }
    }

    /// What to do about it.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::Privilege => {
                "give portico CAP_NET_RAW: `AmbientCapabilities=CAP_NET_RAW` in its systemd unit, or `setcap \
                 cap_net_raw+ep PROGRAM`"
            }
            Self::Hairpin | Self::NoRoute => {
                "nothing can keep the address here: make the client's another one, or the annotation `ours`"
            }
            Self::NoPort => "widen net.ipv4.ip_local_port_range, or add endpoints",
            Self::Silence => {
                "route the endpoint's answers to these clients through this host, and into it: \
                 docs/adr/0013-source-address.md has the commands"
            }
        }
    }
}

/// Connections and flows that went on from our own address, by reason.
#[derive(Debug, Default)]
pub struct UnkeptCounts([AtomicU64; Unkept::ALL.len()]);

impl UnkeptCounts {
    /// Counts one; whether it is the first with that reason.
    pub fn count(&self, why: Unkept) -> bool {
        let mut found = Unkept::ALL.into_iter().zip(&self.0);
        found
            .find(|(reason, _)| *reason == why)
            .is_some_and(|(_, count)| count.fetch_add(1, Relaxed) == 0)
    }

    /// How many by each reason.
    pub fn load(&self) -> impl Iterator<Item = (Unkept, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        Unkept::ALL.into_iter().zip(counts)
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.load().map(|(_, count)| count).sum()
    }
}
