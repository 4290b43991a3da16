//! The threads that answer over UDP: one for each core, as a rule, all at the same sockets. Owns their loop and their end; what is
//! said is the core's, and what needs waiting is offered to `slow`.
//!
//! A socket is shared by the threads, since `SO_REUSEPORT` would let a second program take a part of the queries and
//! cannot be set on sockets that were bound by others. `EPOLLEXCLUSIVE` (epoll(7)) wakes one thread, not all.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    num::NonZeroU64,
    ops::RangeInclusive,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Instant,
};

use arc_swap::Guard;
use portico_core::{
    dns::{
        Moment, Rcode,
        packet::{self, Transport},
        wire::Response,
    },
    snapshot::{ClientPlace, Snapshot},
};
use portico_dataplane::{Answers, Exchange};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll},
    thread::set_current_timer_slack,
};

use super::{
    DnsService,
    counters::Tally,
    forward::count,
    slow::{Client, Slow},
};

/// Marks the event that ends a thread; others carry the place of their socket.
const STOP: u64 = u64::MAX;
/// How long a thread rests after an error that is no single client's, such as a lack of memory.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Batches of one socket before the others have a turn.
const TURN: usize = 16;
/// Queries of a batch that is not full but says that more are on their way: more than the pair (A and AAAA) that one
/// lookup is. Gathering them costs less than being woken for each, for us and for whoever waits for the responses.
const GATHERED: RangeInclusive<usize> = 3..=31;
/// How long they are gathered; a query or a pair alone never waits for it.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 30_000,
};

/// Running threads; dropping it ends them and waits for that, which takes no longer than a batch.
#[derive(Debug)]
pub(super) struct Responders {
    stop: Arc<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Responders {
    /// Begins to answer at `sockets` with so many threads.
    pub(super) fn start(
        (sockets, threads): (Vec<UdpSocket>, usize),
        service: &Arc<DnsService>,
        slow: &Slow,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut started = Self {
            stop,
            threads: Vec::new(),
        };
        if sockets.is_empty() {
            return Ok(started);
        }
        let sockets: Arc<[_]> = sockets.into_iter().map(Arc::new).collect();
        for number in 0..threads {
            let responder = Responder {
                sockets: Arc::clone(&sockets),
                stop: Arc::clone(&started.stop),
                service: Arc::clone(service),
                slow: slow.clone(),
            };
            let epoll = responder.watch()?;
            let thread = thread::Builder::new().name(format!("dns-{number}"));
            started
                .threads
                .push(thread.spawn(move || responder.run(&epoll))?);
        }
        Ok(started)
    }
}

impl Drop for Responders {
    fn drop(&mut self) {
        // The counter never overflows by one addition, so that this cannot fail.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One thread.
struct Responder {
    sockets: Arc<[Arc<UdpSocket>]>,
    stop: Arc<OwnedFd>,
    service: Arc<DnsService>,
    slow: Slow,
}

impl Responder {
    fn watch(&self) -> io::Result<OwnedFd> {
        let watched = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let exclusive = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        for (socket, place) in self.sockets.iter().zip(0..) {
            epoll::add(
                &watched,
                socket,
                epoll::EventData::new_u64(place),
                exclusive,
            )?;
        }
        let stop = epoll::EventData::new_u64(STOP);
        epoll::add(&watched, &self.stop, stop, epoll::EventFlags::IN)?;
        Ok(watched)
    }

    fn run(&self, watched: &OwnedFd) {
        // Timers are 50 microseconds late by default (PR_SET_TIMERSLACK(2const)), longer than what is waited here.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let mut exchange = Exchange::new();
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            let waited = epoll::wait(watched, spare_capacity(&mut events), None);
            if let Err(error) = waited
                && error != rustix::io::Errno::INTR
            {
                tracing::error!(target: "dns", %error, "cannot wait for queries");
                return;
            }
            for event in &events {
                let place = event.data.u64();
                if place == STOP {
                    return;
                }
                let socket = usize::try_from(place)
                    .ok()
                    .and_then(|place| self.sockets.get(place));
                if let Some(socket) = socket {
                    self.answer(socket, events.len() == 1, &mut exchange);
                }
            }
        }
    }

    /// Answers what has come to `socket`, which may be the only one that something has come to.
    fn answer(&self, socket: &Arc<UdpSocket>, is_only: bool, exchange: &mut Exchange) {
        for _ in 0..TURN {
            match self.batch(socket, exchange) {
                // A single one is most likely all.
                Ok(0 | 1) => return,
                Ok(received) if is_only && GATHERED.contains(&received) => {
                    self.rest(&MOMENT);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(target: "dns", %error, "cannot receive");
                    self.rest(&REST);
                    return;
                }
            }
        }
    }

    /// Waits so long, or until the end.
    fn rest(&self, time: &Timespec) {
        let _ = poll(&mut [PollFd::new(&*self.stop, PollFlags::IN)], Some(time));
    }

    /// Answers one batch; returns the number of queries.
    fn batch(&self, socket: &Arc<UdpSocket>, exchange: &mut Exchange) -> io::Result<usize> {
        let exchanged = exchange.run(socket, |received| Batch::begin(self, socket, received))?;
        if exchanged.unsent > 0 {
            let unsent = u64::try_from(exchanged.unsent).unwrap_or_default();
            self.service.counters.unsent.fetch_add(unsent, Relaxed);
        }
        Ok(exchanged.received)
    }
}

/// Queries that are answered from one Snapshot, with two readings of the clock. They are counted before the responses
/// leave, so that whoever got one finds it counted.
struct Batch<'a> {
    responder: &'a Responder,
    socket: &'a Arc<UdpSocket>,
    snapshot: Guard<Arc<Snapshot>>,
    moment: Moment,
    began: Instant,
    received: usize,
    tally: Tally,
}

impl<'a> Batch<'a> {
    fn begin(responder: &'a Responder, socket: &'a Arc<UdpSocket>, received: usize) -> Self {
        let snapshot = responder.service.published.load();
        Self {
            responder,
            socket,
            moment: responder.service.moment(&snapshot, received),
            snapshot,
            began: Instant::now(),
            received,
            tally: Tally::default(),
        }
    }

    /// Only a client that is no process of this host for certain costs a system call.
    fn place_of(&self, client: IpAddr) -> ClientPlace {
        if client.is_loopback() {
            return ClientPlace::OnNode;
        }
        let local = self
            .socket
            .local_addr()
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |local| local.ip());
        self.snapshot.cluster.place_of(Some(client), local)
    }

    /// The response to a name of others, if it is not given later.
    fn offer(&mut self, packet: &[u8], addr: SocketAddr) -> Option<Response> {
        let client = Client {
            addr,
            place: self.moment.place,
            socket: Arc::clone(self.socket),
        };
        if self.responder.slow.offer(packet, client).is_ok() {
            return None;
        }
        count(&self.responder.service.forward_counters().overflowed);
        packet::refuse(packet, Rcode::ServFail)
    }
}

impl Answers for Batch<'_> {
    fn answer(&mut self, packet: &[u8], client: Option<SocketAddr>, reply: &mut Vec<u8>) {
        // Nobody listens at port 0 (RFC 6335 section 6): the sender is forged.
        let Some(client) = client.filter(|client| client.port() != 0) else {
            return self.tally.note(None);
        };
        self.moment = Moment {
            place: self.place_of(client.ip()),
            ..self.moment.next()
        };
        let carried = (Transport::Udp, self.moment);
        let service = &self.responder.service;
        let said = service.respond(&self.snapshot, (packet, client.ip()), carried, reply);
        if said.is_none_or(|said| !said.is_foreign) {
            return self.tally.note(said);
        }
        reply.clear();
        if let Some(response) = self.offer(packet, client) {
            self.tally
                .count(response.rtype, response.rcode, response.truncated);
            reply.extend_from_slice(&response.bytes);
        }
    }

    fn end(self) {
        let took = self.began.elapsed().as_micros();
        let counters = &self.responder.service.counters;
        counters.count_batch(&self.tally, (self.received, took));
    }
}
