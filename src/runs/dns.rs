//! DNS of one run: the sockets at its address, and who answers there. Owns trying again; what is answered is the same
//! as outside.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use portico_core::{backoff::Backoff, object::Protocol};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Office,
    desk::Entered,
    talk::{Cut, Talk},
};
use crate::{
    clock,
    dns::{self, DnsListeners},
    handover::Socket,
};

/// Delays between attempts at what could not be had.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct RunDns {
    answering: JoinSet<()>,
    backoff: Backoff,
    /// When to try again.
    pub(super) again: Option<Instant>,
}

impl RunDns {
    pub(super) fn new() -> Self {
        Self {
            answering: JoinSet::new(),
            backoff: Backoff::new(AGAIN.0, AGAIN.1),
            again: None,
        }
    }

    /// Asks for the sockets and begins to answer there.
    pub(super) async fn open(
        &mut self,
        talk: &mut Talk,
        office: &Office,
        run: &Entered,
    ) -> Result<(), Cut> {
        let socket = |protocol| Socket {
            protocol,
            addr: office.dns_at,
            device_is_loopback: false,
        };
        let sockets = [Protocol::Udp, Protocol::Tcp].map(socket);
        let problem = match self.begin(talk.open(&sockets).await?, office) {
            Ok(()) => None,
            Err(error) => Some(format!("DNS at {}: {error}", office.dns_at)),
        };
        let jitter = u16::try_from(clock::now().as_millis() % 65_536).unwrap_or_default();
        let delay = problem.as_ref().map(|_| self.backoff.next(jitter));
        self.again = delay.map(|delay| Instant::now() + delay);
        run.set_dns(problem);
        Ok(())
    }

    /// Answers no more; the sockets are closed on return.
    pub(super) async fn end(mut self) {
        self.answering.shutdown().await;
    }

    fn begin(&mut self, sockets: Vec<Result<OwnedFd, i32>>, office: &Office) -> io::Result<()> {
        let sockets = sockets.into_iter();
        let mut sockets = sockets.map(|socket| socket.map_err(io::Error::from_raw_os_error));
        let mut next = || {
            sockets
                .next()
                .unwrap_or(Err(io::ErrorKind::NotFound.into()))
        };
        let listeners = DnsListeners::handed_over(office.dns_at, next()?, next()?)?;
        let service = Arc::clone(&office.dns);
        self.answering
            .spawn(dns::serve(listeners, service, CancellationToken::new()));
        Ok(())
    }
}
