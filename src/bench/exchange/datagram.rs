//! Datagrams: something is sent, and the next datagram from there is the answer; of DNS the one with the same id.
//! Owns the socket.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, time::timeout};

use super::{Answered, Exchange, Failure, MOST_BYTES, Manner, Reuse, first_line, question};
use crate::bench::target::Protocol;

pub(in crate::bench) struct Client {
    manner: Manner,
    local: SocketAddr,
    open: Option<UdpSocket>,
    buffer: Vec<u8>,
    /// Of the last question.
    id: u16,
    used: Ports,
}

/// How often another port is asked for when one was used before.
const MOST_TRIES: usize = 16;

/// Local addresses that were used by all clients that share this.
#[derive(Debug, Clone, Default)]
pub(in crate::bench) struct Ports(Arc<Mutex<HashSet<SocketAddr>>>);

impl Ports {
    fn is_first(&self, local: SocketAddr) -> bool {
        self.used().insert(local)
    }

    /// Nearly all were used: the first ones are so long ago that they count as new.
    fn forget(&self) {
        self.used().clear();
    }

    fn used(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(super) fn new(manner: Manner, local: Option<SocketAddr>, used: Ports) -> Self {
        let any = if manner.target.addr.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        Self {
            manner,
            local: local.unwrap_or(SocketAddr::new(any, 0)),
            open: None,
            buffer: vec![0; MOST_BYTES],
            id: 0,
            used,
        }
    }

    pub(super) async fn ask(&mut self) -> Exchange {
        let mut connect = None;
        let socket = if let Some(socket) = self.open.take() {
            Ok(socket)
        } else {
            let began = Instant::now();
            let socket = self.socket().await;
            connect = Some(began.elapsed());
            socket
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                return Exchange {
                    connect: None,
                    first: Duration::ZERO,
                    result: Err(Failure::Connect(error.kind())),
                };
            }
        };
        let began = Instant::now();
        let patience = self.manner.patience;
        let result = timeout(patience, self.exchange(&socket))
            .await
            .unwrap_or(Err(Failure::Timeout));
        let first = began.elapsed();
        // After a failure a late answer could be taken for the next one's.
        if result.is_ok() && self.manner.reuse == Reuse::KeepAlive {
            self.open = Some(socket);
        }
        Exchange {
            connect,
            first,
            result,
        }
    }

    async fn socket(&self) -> io::Result<UdpSocket> {
        let mut socket = UdpSocket::bind(self.local).await?;
        // To a proxy, a port that is used again soon is the client that it had before. The kernel chooses by chance;
        // what it has given before is held while another is asked for.
        let mut held = Vec::new();
        while !self.used.is_first(socket.local_addr()?) {
            if held.len() >= MOST_TRIES {
                self.used.forget();
                break;
            }
            let another = UdpSocket::bind(self.local).await?;
            held.push(std::mem::replace(&mut socket, another));
        }
        socket.connect(self.manner.target.addr).await?;
        Ok(socket)
    }

    async fn exchange(&mut self, socket: &UdpSocket) -> Result<Answered, Failure> {
        let broken = |error: io::Error| match error.kind() {
            // What a port without a socket gives (ICMP port unreachable).
            io::ErrorKind::ConnectionRefused => Failure::Connect(error.kind()),
            kind => Failure::Broken(kind),
        };
        let is_dns = self.manner.target.protocol == Protocol::Dns;
        if is_dns {
            self.id = self.id.wrapping_add(1);
            let query = question::query(&self.manner.target.path, self.id);
            let query = query.ok_or(Failure::Protocol)?;
            socket.send(&query).await.map_err(broken)?;
        } else {
            socket.send(&self.manner.send).await.map_err(broken)?;
        }
        loop {
            let length = socket.recv(&mut self.buffer).await.map_err(broken)?;
            let answer = self.buffer.get(..length).unwrap_or_default();
            let who = if is_dns {
                match question::read(answer, self.id) {
                    question::Read::Another => continue,
                    question::Read::Error(code) => return Err(Failure::Rcode(code)),
                    question::Read::Broken => return Err(Failure::Protocol),
                    question::Read::Answer(who) => who,
                }
            } else {
                first_line(answer)
            };
            return Ok(Answered {
                who,
                bytes: u64::try_from(length).unwrap_or_default(),
                serial: None,
            });
        }
    }
}
