//! `portico.dev/source-address`: which address endpoints see their clients at. Owns the values; acting on them belongs to
//! the data path.

use super::{annotations::SOURCE_ADDRESS, meta::Labels};

/// What the value must look like.
pub const SOURCE_ADDRESSES: &str = "must be ours or keep";

/// The source address of connections and flows to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceAddress {
    /// Whichever the kernel chooses of this host's.
    #[default]
    Ours,
    /// The client's, where that can be had; else ours.
    Keep,
}

impl SourceAddress {
    /// Reads a value; `None` when it is none of [`SOURCE_ADDRESSES`].
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "ours" => Some(Self::Ours),
            "keep" => Some(Self::Keep),
            _ => None,
        }
    }

    /// What these annotations of a Service ask for; ours if they do not do so readably.
    pub fn of(annotations: &Labels) -> Self {
        let value = annotations.get(SOURCE_ADDRESS);
        value
            .and_then(|value| Self::parse(value))
            .unwrap_or_default()
    }
}
