//! What is not answered at once: names that are not ours. Owns what becomes of them; never makes the responder wait.

use std::{net::SocketAddr, net::UdpSocket, sync::Arc};

use portico_core::dns::packet::Transport;

use super::DnsService;

/// Takes over queries for names of others.
#[derive(Debug, Clone)]
pub(super) struct Slow {
    service: Arc<DnsService>,
}

/// Who asked, and how to answer.
#[derive(Debug)]
pub(super) struct Client {
    /// Where the response goes.
    pub(super) addr: SocketAddr,
    /// Where it leaves.
    pub(super) socket: Arc<UdpSocket>,
}

/// No room for another query.
#[derive(Debug)]
pub(super) struct Full;

impl Slow {
    pub(super) const fn new(service: Arc<DnsService>) -> Self {
        Self { service }
    }

    /// Takes `packet` over: it is refused, since nobody else is asked.
    pub(super) fn offer(&self, packet: &[u8], client: Client) -> Result<(), Full> {
        let Some(response) = self.service.ordinary(packet, Transport::Udp) else {
            return Ok(());
        };
        let Client { addr, socket } = client;
        let sent = socket.send_to(&response.bytes, addr);
        self.service.counters.count_response(&response);
        sent.map(drop).map_err(|_| Full)
    }
}
