//! What the daemon and a keeper say to each other. A keeper is the process of `portico run` inside a network namespace:
//! it binds there what the daemon asks for and hands the sockets out, so that the daemon serves them as it does its own.
//! Owns the messages; must not bind or serve anything.
//!
//! The keeper connects to `run.sock` beside the admin socket and says [`FromKeeper::Hello`]; the daemon answers with
//! [`ToKeeper::Welcome`] or [`ToKeeper::Refused`]. From then on the daemon speaks and the keeper answers
//! [`ToKeeper::Open`] alone. The end of the connection, from either side, is the end of the sockets: a keeper whose
//! command still runs connects again and begins anew.

pub mod channel;

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use portico_core::object::Protocol;
use serde::{Deserialize, Serialize};

pub use channel::{Channel, HandoverError, Listener, Received};

/// Both sides say the same, or do not speak. To be raised with every change of the messages but new optional fields.
pub const VERSION: u32 = 1;

/// Most sockets of one [`ToKeeper::Open`], and so most descriptors of a message.
pub const MOST_SOCKETS: usize = 64;

/// How long a keeper may take to answer, and the daemon to welcome; whoever is later is cut off.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// From a keeper to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromKeeper {
    /// The first message.
    Hello(Hello),
    /// What became of an [`ToKeeper::Open`]. The sockets that could be had come with it as descriptors, in the order of
    /// the results, and the keeper has closed its own: so that closing one needs no message.
    Opened {
        /// That of the request.
        id: u64,
        /// One for each socket that was asked for: nothing, or the error number (errno(3)).
        results: Vec<Result<(), i32>>,
    },
}

/// Who a keeper is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`VERSION`] of the keeper.
    pub version: u32,
    /// Its process, for people.
    pub pid: u32,
    /// The command that runs inside, for people.
    pub command: String,
    /// The namespace whose Services have short names inside.
    pub namespace: String,
}

/// From the daemon to a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToKeeper {
    /// The answer to a hello; comes as soon as the daemon runs.
    Welcome(Welcome),
    /// The other answer to a hello; nothing comes after it.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// More addresses that are to be local inside, before any socket needs them.
    Local {
        /// Ranges; a single address is one, too.
        add: Vec<IpNet>,
    },
    /// Bind these and hand them over, within [`ANSWER_WITHIN`]. One is asked at a time.
    Open {
        /// Given back with the answer.
        id: u64,
        /// At least one, at most [`MOST_SOCKETS`].
        sockets: Vec<Socket>,
    },
    /// All that there is to serve now was asked for: the command may start. Said once, when the manifests were read and
    /// each of their sockets is open or has failed.
    Ready {
        /// The generation that is served.
        generation: u64,
        /// What could not be opened and why, for people.
        failed: Vec<String>,
    },
}

/// What holds for the whole connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The number of this connection in the daemon's reports.
    pub scope: u32,
    /// Where DNS will be asked inside; the daemon asks for its sockets like for all others.
    pub dns: SocketAddr,
    /// The search list of the namespace (resolv.conf(5)).
    pub search: Vec<String>,
    /// Ranges and addresses outside 127/8 that are to be local inside.
    pub local: Vec<IpNet>,
}

/// One socket. It is bound to this address and nothing else as `portico_dataplane::open_for_another` does it, and does
/// not listen: the daemon lets it, once it has its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where; `0.0.0.0` and `::` hear every address of their family, and of no other.
    pub addr: SocketAddr,
    /// It hears only what comes through the device `lo` (`SO_BINDTODEVICE`).
    pub device_is_loopback: bool,
}
