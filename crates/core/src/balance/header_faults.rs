//! Connections of trusted front ends without a usable PROXY header. Owns the reasons, their words and their counters.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection that must begin with a PROXY header was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Its first bytes are something else.
    Absent,
    /// It begins like one and goes on otherwise, is too long, or its checksum is wrong.
    Malformed,
    /// It was not complete in time.
    Late,
    /// The connection ended before it was complete.
    Closed,
}

impl HeaderFault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Absent, Self::Malformed, Self::Late, Self::Closed];

    /// As it stands in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Malformed => "malformed",
            Self::Late => "late",
            Self::Closed => "closed",
        }
    }

    /// The same in words, after "because".
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Absent => "a trusted front end sent something else than a PROXY header",
            Self::Malformed => "a trusted front end sent a malformed PROXY header",
            Self::Late => "a trusted front end sent no whole PROXY header within 3 s",
            Self::Closed => "a trusted front end ended them before a whole PROXY header",
        }
    }
}

/// Connections without a usable header, by reason.
#[derive(Debug, Default)]
pub struct HeaderFaults([AtomicU64; HeaderFault::ALL.len()]);

impl HeaderFaults {
    /// Counts one.
    pub fn count(&self, fault: HeaderFault) {
        let mut found = HeaderFault::ALL.into_iter().zip(&self.0);
        if let Some((_, count)) = found.find(|(reason, _)| *reason == fault) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many by each reason.
    pub fn load(&self) -> impl Iterator<Item = (HeaderFault, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        HeaderFault::ALL.into_iter().zip(counts)
    }

    /// How many altogether.
    pub fn total(&self) -> u64 {
        self.load().map(|(_, count)| count).sum()
    }
}
