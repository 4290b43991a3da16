//! Names as every program of this machine looks them up: getaddrinfo(3), within a deadline. Owns nothing of DNS.

use std::{net::IpAddr, sync::mpsc, time::Duration};

use crate::resolver::ask;

/// Patience with the resolver: that of resolv.conf(5) for one server.
const PATIENCE: Duration = Duration::from_secs(5);

/// A name and what the operating system knows of it.
#[derive(Debug)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// Its addresses, or what the resolver said.
    pub answer: Result<Vec<IpAddr>, String>,
}

/// A lookup on its way.
#[derive(Debug)]
pub(super) struct Pending {
    name: String,
    answer: mpsc::Receiver<Result<Vec<IpAddr>, String>>,
}

impl Lookup {
    /// Asks on a thread of its own, for the call knows no deadline; one that stays behind ends with the process.
    pub(super) fn start(name: &str) -> Pending {
        let (reply, answer) = mpsc::sync_channel(1);
        let asked = name.to_owned();
        std::thread::spawn(move || {
            let _ = reply.send(ask(&asked));
        });
        Pending {
            name: name.to_owned(),
            answer,
        }
    }
}

impl Pending {
    /// The answer, or that there is none in time.
    pub(super) fn finish(self) -> Lookup {
        let late = |_| Err(format!("no answer within {} s", PATIENCE.as_secs()));
        Lookup {
            name: self.name,
            answer: self.answer.recv_timeout(PATIENCE).unwrap_or_else(late),
        }
    }
}
