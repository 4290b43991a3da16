//! Histories of a flow table, three bytes a step, with the shell that would hold its sockets: what the table says of
//! sockets, deadlines and sums must fit together after each. (`flow::tests::simulation` of the core also looks
//! inside; this one gets further.)

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use portico_core::{
    balance::{Endpoint, EndpointSet, PortState},
    flow::{
        Dropped, FlowId, FlowKey, FlowTable, Step,
        routes::{Picked, Routes},
    },
    snapshot::Generation,
    time::Timestamp,
};

use super::draw::Draw;

const ENDPOINTS: usize = 6;
const MOST_STEPS: usize = 2000;

pub(crate) fn check(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let mut run = Run::new(1 + draw.below(20));
    for _ in 0..MOST_STEPS {
        if draw.is_over() {
            break;
        }
        run.step(&mut draw);
        run.check();
    }
    run.now = run.now.after(Duration::from_secs(61));
    run.table.tick(run.now);
    run.close();
    assert!(
        run.table.is_empty() && run.sockets.is_empty(),
        "everything settles"
    );
    run.check();
}

/// A Service port and what may be chosen behind it.
struct Port {
    generation: u64,
    state: Option<Arc<PortState>>,
    set: EndpointSet,
    all: Vec<Endpoint>,
    serving: BTreeSet<SocketAddr>,
    circular: Option<SocketAddr>,
    /// Why the client may not go on.
    forbidden: Option<Dropped>,
}

impl Routes for Port {
    fn generation(&self) -> Generation {
        Generation(self.generation)
    }

    fn port(&self, _: &FlowKey) -> Option<Arc<PortState>> {
        self.state.clone()
    }

    fn serves(&self, _: &FlowKey, endpoint: SocketAddr) -> bool {
        self.serving.contains(&endpoint)
    }

    fn pick(&self, _: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Result<Picked, Dropped> {
        if let Some(forbidden) = self.forbidden {
            return Err(forbidden);
        }
        let picked = self.set.pick(tried, now).ok_or(Dropped::NoEndpoint)?;
        Ok(Picked {
            endpoint: picked.clone(),
            leads_back: Some(picked.addr) == self.circular,
        })
    }

    fn admits(&self, _: &FlowKey) -> bool {
        self.forbidden.is_none()
    }

    fn forget(&self, _: &FlowKey, _: SocketAddr) {}
}

struct Run {
    port: Port,
    retired: Vec<Arc<PortState>>,
    table: FlowTable,
    bound: usize,
    now: Timestamp,
    /// Open sockets: whose they are and what they are connected to.
    sockets: BTreeMap<u32, (u32, FlowKey, SocketAddr)>,
    datagrams: u64,
    forwarded: u64,
}

impl Run {
    fn new(bound: usize) -> Self {
        let addr =
            |n: usize| SocketAddr::from(([127, 0, 0, 1], 50 + u16::try_from(n).unwrap_or(0)));
        let all: Vec<Endpoint> = (0..ENDPOINTS)
            .map(|n| Endpoint {
                addr: addr(n),
                state: Arc::default(),
            })
            .collect();
        Self {
            port: Port {
                generation: 1,
                state: Some(Arc::default()),
                set: EndpointSet::new(all.clone(), None),
                serving: all.iter().map(|of| of.addr).collect(),
                all,
                circular: None,
                forbidden: None,
            },
            retired: Vec::new(),
            table: FlowTable::new(bound, 3),
            bound,
            now: Timestamp::from_millis(1_000_000),
            sockets: BTreeMap::new(),
            datagrams: 0,
            forwarded: 0,
        }
    }

    fn step(&mut self, draw: &mut Draw<'_>) {
        match draw.byte() % 32 {
            0..=11 => self.datagram(draw),
            12..=17 => {
                if let Some(id) = self.some_socket(draw) {
                    assert!(self.table.answer(id, self.now), "an open socket has a flow");
                }
            }
            18..=20 => {
                if let Some(id) = self.some_socket(draw) {
                    self.table.refused(id, self.now, &self.port);
                }
            }
            21..=23 => self.wait(draw),
            24 | 25 => self.change(draw),
            26 => {
                self.port.circular = draw
                    .is_so()
                    .then(|| self.port.all[draw.below(ENDPOINTS)].addr);
                let forbidden = [Dropped::Policy, Dropped::SourceRange];
                self.port.forbidden = forbidden.get(draw.below(6)).copied();
                self.port.generation += 1;
            }
            27 => self.change_owner(draw),
            28 => self.table.close_socket(u64::from(draw.byte() % 2)),
            29 => {
                self.bound = 1 + draw.below(20);
                self.table.set_bound(self.bound);
            }
            30 => {
                let before = self.table.len();
                let shed = self.table.shed();
                assert_eq!(self.table.len() + usize::from(shed), before);
            }
            _ => self.late(draw),
        }
        self.close();
    }

    fn datagram(&mut self, draw: &mut Draw<'_>) {
        let (client, opens) = (draw.byte(), draw.byte());
        let key = FlowKey {
            socket: u64::from(client & 1),
            client: SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(client / 2 % 16))),
            local: SocketAddr::from(([127, 96, 0, 1], 80 + u16::from(client / 64))),
        };
        self.datagrams += 1;
        let step = self.table.datagram(key, self.now, &self.port);
        self.close();
        match step {
            Step::Open(id, endpoint) => {
                assert!(
                    !self.sockets.contains_key(&id.slot),
                    "its old socket was closed"
                );
                assert!(
                    self.port
                        .set
                        .endpoints()
                        .iter()
                        .any(|of| of.addr == endpoint)
                );
                assert_ne!(Some(endpoint), self.port.circular);
                if opens % 8 == 7 {
                    self.table.unopened(id);
                } else {
                    self.sockets.insert(id.slot, (id.turn, key, endpoint));
                    self.forwarded += 1;
                }
            }
            Step::Forward(id) => {
                let (turn, of, endpoint) = self.sockets[&id.slot];
                assert_eq!((turn, of), (id.turn, key), "one client each");
                assert!(
                    self.port.serving.contains(&endpoint),
                    "{endpoint} does not serve"
                );
                assert_eq!(self.table.key(id), Some(key));
                self.forwarded += 1;
            }
            Step::Drop(Dropped::Unmatched) => assert!(self.port.state.is_none()),
            Step::Drop(Dropped::NoEndpoint) => {
                let mut usable = self.port.set.endpoints().iter();
                assert!(usable.all(|of| Some(of.addr) == self.port.circular));
            }
            Step::Drop(Dropped::Draining) => panic!("nothing drains"),
            Step::Drop(why) => assert_eq!(self.port.forbidden, Some(why)),
        }
    }

    fn wait(&mut self, draw: &mut Draw<'_>) {
        let ms = u64::from(draw.byte()) * u64::from(draw.byte());
        self.now = self.now.after(Duration::from_millis(ms));
        self.table.tick(self.now);
        assert!(
            self.table
                .deadline()
                .is_none_or(|deadline| deadline > self.now)
        );
    }

    fn change(&mut self, draw: &mut Draw<'_>) {
        let (chosen, serving) = (draw.byte(), draw.byte());
        let of = |mask: u8| {
            let all = self.port.all.iter().enumerate();
            all.filter(move |(n, _)| mask >> n & 1 == 1)
                .map(|(_, endpoint)| endpoint.clone())
        };
        let set: Vec<Endpoint> = of(chosen).collect();
        let serving = of(chosen | serving).map(|endpoint| endpoint.addr).collect();
        self.port.set = EndpointSet::new(set, Some(&self.port.set));
        self.port.serving = serving;
        self.port.generation += 1;
    }

    fn change_owner(&mut self, draw: &mut Draw<'_>) {
        let choice = draw.byte();
        self.retired.extend(self.port.state.take());
        self.port.state = (choice & 3 > 0).then(Arc::default);
        self.port.generation += 1;
        if choice & 4 == 0 {
            (0..2).for_each(|socket| self.table.sweep(socket, &self.port));
        }
    }

    fn some_socket(&self, draw: &mut Draw<'_>) -> Option<FlowId> {
        let nth = draw.below(self.sockets.len());
        let (slot, (turn, ..)) = self.sockets.iter().nth(nth)?;
        Some(FlowId {
            slot: *slot,
            turn: *turn,
        })
    }

    /// Something about a socket that was closed meanwhile changes nothing.
    fn late(&mut self, draw: &mut Draw<'_>) {
        let (len, counts) = (self.table.len(), self.table.counts());
        if let Some(id) = self.some_socket(draw) {
            let old = FlowId {
                turn: id.turn.wrapping_sub(1 + u32::from(draw.byte() % 3)),
                ..id
            };
            assert!(!self.table.answer(old, self.now));
            self.table.refused(old, self.now, &self.port);
            self.table.unopened(old);
        }
        assert_eq!((self.table.len(), self.table.counts()), (len, counts));
    }

    fn close(&mut self) {
        while let Some(id) = self.table.closed() {
            if self
                .sockets
                .get(&id.slot)
                .is_some_and(|(turn, ..)| *turn == id.turn)
            {
                self.sockets.remove(&id.slot);
            }
        }
    }

    fn check(&self) {
        assert!(self.table.len() <= self.bound);
        assert!(
            self.sockets.len() <= self.table.len(),
            "a socket has a flow"
        );
        for (slot, (turn, key, _)) in &self.sockets {
            assert_eq!(
                self.table.key(FlowId {
                    slot: *slot,
                    turn: *turn
                }),
                Some(*key)
            );
        }
        assert_eq!(self.table.deadline().is_none(), self.table.is_empty());
        let ports: Vec<&Arc<PortState>> = self.retired.iter().chain(&self.port.state).collect();
        let sum = |of: fn(&PortState) -> &std::sync::atomic::AtomicU64| -> u64 {
            ports.iter().map(|port| of(port).load(Relaxed)).sum()
        };
        let open = u64::try_from(self.sockets.len()).unwrap_or(u64::MAX);
        assert_eq!(
            sum(|port| &port.active),
            open,
            "active is what has a socket"
        );
        let picks: u64 = self
            .port
            .all
            .iter()
            .map(|of| of.state.picks.load(Relaxed))
            .sum();
        let waiting = u64::try_from(self.table.len()).unwrap_or(u64::MAX) - open;
        let attempts = sum(|port| &port.accepted) + sum(|port| &port.retries);
        assert_eq!(
            picks + waiting,
            attempts - sum(|port| &port.rejected),
            "picks reconcile"
        );
        let counts = self.table.counts();
        assert!(counts.unmatched + counts.no_endpoint + self.forwarded <= self.datagrams);
    }
}
