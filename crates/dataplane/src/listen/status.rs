//! What the outside is told about listeners. Owns the words; must not change anything.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use portico_core::{
    snapshot::{Scope, plan::ListenerKey},
    time::Timestamp,
};

use super::guard::Filtering;
use crate::net;

/// A listener at one moment.
#[derive(Debug, Clone)]
pub struct ListenerStatus {
    /// Which one.
    pub key: ListenerKey,
    /// The Services it is for, as the plan named them.
    pub services: Arc<str>,
    /// How it is served.
    pub state: ListenerState,
    /// What its socket is bound to; `None` exactly when it has none: it failed, or refuses UDP.
    pub bound: Option<SocketAddr>,
    /// Why it is not on its declared port; `None` exactly when it is.
    pub error: Option<BindError>,
    /// Attempts at the declared port that failed in a row.
    pub attempts: u32,
    /// When the declared port is tried again; `None` also until the first call of `retry` has set it.
    pub retry_at: Option<Timestamp>,
    /// What becomes of clients that are to be dropped.
    pub filtering: Filtering,
}

/// How a listener is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerState {
    /// On its declared port, taking connections.
    Listening,
    /// On its declared port, which the kernel answers with a refusal (UDP: the port is closed, for that).
    Refusing,
    /// On another port of the same address, until the declared one is free.
    Fallback {
        /// That port.
        port: u16,
    },
    /// Nowhere.
    Failed,
}

/// Why a socket could not be bound to what was declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BindError {
    /// The kind, for advice.
    pub kind: BindErrorKind,
    /// What was tried, on what, and what the kernel said.
    pub text: Arc<str>,
}

/// Kinds of bind failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindErrorKind {
    /// Ports below `net.ipv4.ip_unprivileged_port_start` need a privilege (EACCES, EPERM).
    Privilege,
    /// Another socket has the port, on this address or as a wildcard (EADDRINUSE).
    InUse,
    /// The host does not have the address (EADDRNOTAVAIL).
    NotAvailable,
    /// No descriptor may be taken for it: listeners have at most half of them, or all are in use (EMFILE).
    Exhausted,
    /// Somebody in another network namespace was asked for it, and has not answered yet.
    Pending,
    /// Anything else.
    Other,
}

impl BindErrorKind {
    /// Whether another port of the same address may do instead.
    pub const fn allows_fallback(self) -> bool {
        matches!(self, Self::Privilege | Self::InUse)
    }
}

impl BindError {
    pub(crate) fn new(tried: &impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => BindErrorKind::Privilege,
            Some(libc::EADDRINUSE) => BindErrorKind::InUse,
            Some(libc::EADDRNOTAVAIL) => BindErrorKind::NotAvailable,
            Some(libc::EMFILE) => BindErrorKind::Exhausted,
            _ => BindErrorKind::Other,
        };
        let why = match error.raw_os_error() {
            Some(libc::EMFILE) => format!(
                "all {} descriptors of the process are in use; raise `ulimit -n` (LimitNOFILE= in a systemd unit)",
                net::descriptor_limit()
            ),
            Some(libc::ENFILE) => {
                "all descriptors of the machine are in use; raise `sysctl fs.file-max`".to_owned()
            }
            _ => error.to_string(),
        };
        Self {
            kind,
            text: format!("binding {tried}: {why}").into(),
        }
    }

    /// Of a socket that may be another's to open, who may need some time.
    pub(crate) fn of_opening(
        key: ListenerKey,
        tried: &impl fmt::Display,
        error: &io::Error,
    ) -> Self {
        if key.scope == Scope::HOST || error.kind() != io::ErrorKind::WouldBlock {
            return Self::new(tried, error);
        }
        Self {
            kind: BindErrorKind::Pending,
            text: format!("binding {tried}: asked for, not there yet").into(),
        }
    }

    /// `most` listeners have their sockets already: all that there may be, or those beside which other scopes have some.
    pub(crate) fn exhausted(tried: &impl fmt::Display, scope: Scope, most: usize) -> Self {
        let limit = net::descriptor_limit();
        let why = if scope == Scope::HOST {
            format!("{limit} descriptors leave {most} to listeners, and these are in use")
        } else {
            format!(
                "of {limit} descriptors the first {most} of listeners may be here, and these are in use"
            )
        };
        Self {
            kind: BindErrorKind::Exhausted,
            text: format!(
                "binding {tried}: {why}; raise `ulimit -n` (LimitNOFILE= in a systemd unit)"
            )
            .into(),
        }
    }

    pub(crate) fn unsupported(tried: &impl fmt::Display, why: &str) -> Self {
        Self {
            kind: BindErrorKind::Other,
            text: format!("binding {tried}: {why}").into(),
        }
    }
}
