//! Random histories of a table, with every invariant checked after each step. A history follows from its seed alone:
//! `FLOW_SEED=17 cargo test -p portico-core flow::tests::simulation` replays one.

use std::collections::BTreeMap;

use super::*;

/// `SplitMix64`: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn port(&mut self, bound: u64) -> u16 {
        u16::try_from(50 + self.below(bound)).unwrap()
    }

    fn subset(&mut self, bound: u16) -> Vec<u16> {
        (50..50 + bound).filter(|_| self.below(2) == 0).collect()
    }
}

/// A table with the shell that would hold its sockets.
struct Run {
    chance: Chance,
    world: World,
    table: FlowTable,
    bound: usize,
    now: Timestamp,
    /// Open sockets: whose they are and what they are connected to.
    sockets: BTreeMap<u32, (u32, FlowKey, SocketAddr)>,
    /// Service ports that the address had before.
    retired: Vec<Arc<PortState>>,
    datagrams: u64,
    forwarded: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let bound = usize::try_from(1 + chance.below(20)).unwrap();
        Self {
            world: World::new(&[50, 51, 53]),
            table: FlowTable::new(bound, 3),
            chance,
            bound,
            now: at(0),
            sockets: BTreeMap::new(),
            retired: Vec::new(),
            datagrams: 0,
            forwarded: 0,
        }
    }

    fn step(&mut self) {
        match self.chance.below(82) {
            0..40 => self.datagram(),
            40..58 => self.with_some_socket(|run, id| {
                assert!(
                    run.table.answer(id, run.now),
                    "a socket that is open has a flow"
                );
            }),
            58..64 => self.with_some_socket(|run, id| run.table.refused(id, run.now, &run.world)),
            64..69 => {
                self.now = self
                    .now
                    .after(Duration::from_millis(self.chance.below(20_000)));
                self.table.tick(self.now);
                assert!(
                    self.table
                        .deadline()
                        .is_none_or(|deadline| deadline > self.now)
                );
            }
            69..74 => {
                let (chosen, serving) = (self.chance.subset(5), self.chance.subset(5));
                self.world.change(&chosen, &serving);
            }
            74 => self.late_event(),
            75 => self.change_owner(),
            76 => self.table.close_socket(self.chance.below(2)),
            77 => {
                self.bound = usize::try_from(1 + self.chance.below(20)).unwrap();
                self.table.set_bound(self.bound);
            }
            78..80 => {
                let forbidden = [Dropped::Policy, Dropped::SourceRange];
                let place = usize::try_from(self.chance.below(8)).unwrap();
                self.world.forbid(forbidden.get(place).copied());
            }
            _ => {
                let before = self.table.len();
                let shed = self.table.shed();
                assert_eq!(self.table.len() + usize::from(shed), before);
            }
        }
        self.close();
    }

    fn datagram(&mut self) {
        let key = FlowKey {
            socket: self.chance.below(2),
            client: addr(self.chance.port(12)),
            local: SocketAddr::from(([127, 96, 0, 1], self.chance.port(2))),
        };
        self.datagrams += 1;
        let step = self.table.datagram(key, self.now, &self.world);
        self.close();
        match step {
            Step::Open(id, endpoint) => {
                assert!(
                    !self.sockets.contains_key(&id.slot),
                    "its old socket was closed"
                );
                assert!(
                    self.world
                        .set
                        .endpoints()
                        .iter()
                        .any(|of| of.addr == endpoint)
                );
                if self.chance.below(10) == 0 {
                    self.table.unopened(id);
                } else {
                    self.sockets.insert(id.slot, (id.turn, key, endpoint));
                    self.forwarded += 1;
                }
            }
            Step::Forward(id) => {
                let (turn, of, endpoint) = self.sockets[&id.slot];
                assert_eq!((turn, of), (id.turn, key), "one client each");
                assert_eq!(self.world.forbidden, None, "not admitted");
                assert!(
                    self.world.serving.contains(&endpoint),
                    "{endpoint} does not serve"
                );
                self.forwarded += 1;
            }
            Step::Drop(Dropped::Unmatched) => assert!(self.world.port.is_none()),
            Step::Drop(Dropped::NoEndpoint) => assert!(self.world.set.is_empty()),
            Step::Drop(Dropped::Draining) => panic!("before the end"),
            Step::Drop(why) => assert_eq!(self.world.forbidden, Some(why)),
        }
    }

    fn with_some_socket(&mut self, act: impl Fn(&mut Self, FlowId)) {
        let count = u64::try_from(self.sockets.len()).unwrap();
        if count > 0 {
            let at = usize::try_from(self.chance.below(count)).unwrap();
            let (slot, (turn, ..)) = self.sockets.iter().nth(at).unwrap();
            let id = FlowId {
                slot: *slot,
                turn: *turn,
            };
            act(self, id);
        }
    }

    /// Something about a socket that was closed meanwhile changes nothing.
    fn late_event(&mut self) {
        let (len, counts) = (self.table.len(), self.table.counts());
        self.with_some_socket(|run, id| {
            let old = FlowId {
                turn: id.turn.wrapping_sub(1),
                ..id
            };
            assert!(!run.table.answer(old, run.now));
            run.table.refused(old, run.now, &run.world);
            run.table.unopened(old);
        });
        assert_eq!((self.table.len(), self.table.counts()), (len, counts));
    }

    fn change_owner(&mut self) {
        self.retired.extend(self.world.port.take());
        self.world.port = (self.chance.below(4) > 0).then(Arc::default);
        self.world.generation.set(self.world.generation.get() + 1);
        if self.chance.below(2) == 0 {
            (0..2).for_each(|socket| self.table.sweep(socket, &self.world));
        }
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

    fn check(&self, last_deadline: Option<Timestamp>) {
        let table = &self.table;
        assert!(table.len() <= self.bound);
        let flows: Vec<(u32, &Flow)> = (0..)
            .zip(&table.slots)
            .filter_map(|(slot, place)| Some((slot, place.flow.as_ref()?)))
            .collect();
        assert_eq!(flows.len(), table.by_key.len());
        assert_eq!(flows.len() + table.free.len(), table.slots.len());
        for (slot, flow) in &flows {
            assert_eq!(table.by_key[&flow.key], *slot);
            let socket = self
                .sockets
                .get(slot)
                .map(|(_, key, endpoint)| (*key, *endpoint));
            let flow_socket = flow
                .account
                .endpoint()
                .map(|endpoint| (flow.key, endpoint.addr));
            assert_eq!(
                socket, flow_socket,
                "a socket exactly for a flow with an endpoint"
            );
        }
        let earliest = flows.iter().map(|(_, flow)| table.end_of(flow)).min();
        assert_eq!(table.deadline(), earliest);
        assert!(earliest.is_none_or(|earliest| earliest >= self.now));
        if let (Some(last), Some(earliest), Phase::Open) = (
            last_deadline,
            earliest,
            flows
                .iter()
                .map(|(_, flow)| flow.phase)
                .find(|phase| *phase == Phase::Answered)
                .unwrap_or(Phase::Open),
        ) {
            assert!(
                earliest >= last,
                "without a time-out that got shorter, deadlines only grow"
            );
        }
        self.check_counts(&flows);
    }

    fn check_counts(&self, flows: &[(u32, &Flow)]) {
        let ports: Vec<&Arc<PortState>> = self.retired.iter().chain(&self.world.port).collect();
        let sum = |of: fn(&PortState) -> &std::sync::atomic::AtomicU64| -> u64 {
            ports.iter().map(|port| of(port).load(Relaxed)).sum()
        };
        let placed = u64::try_from(
            flows
                .iter()
                .filter(|(_, flow)| flow.account.endpoint().is_some())
                .count(),
        )
        .unwrap();
        let waiting = u64::try_from(flows.len()).unwrap() - placed;
        let (accepted, connected) = (sum(|port| &port.accepted), sum(|port| &port.connected));
        let (retries, rejected) = (sum(|port| &port.retries), sum(|port| &port.rejected));
        assert_eq!(sum(|port| &port.active), placed);
        assert_eq!(self.world.sum(|state| &state.active), placed);
        assert_eq!(
            self.world.sum(|state| &state.picks) + waiting,
            accepted + retries - rejected
        );
        assert_eq!(
            sum(|port| &port.picked),
            self.world.sum(|state| &state.picks)
        );
        let residual: i64 = ports.iter().map(|port| port.residual()).sum();
        assert_eq!(residual, i64::try_from(waiting).unwrap());
        assert_eq!(connected, self.world.sum(|state| &state.connected));
        assert_eq!(retries, self.world.sum(|state| &state.failures));
        let dialling = accepted - connected - rejected;
        assert!(dialling >= waiting && dialling <= waiting + placed);
        assert_eq!(
            self.world.sum(|state| &state.picks) - connected - retries,
            dialling - waiting
        );
        let counts = self.table.counts();
        assert!(
            counts.unmatched + counts.no_endpoint + counts.forbidden + self.forwarded
                <= self.datagrams
        );
    }
}

fn run(seed: u64) -> (FlowCounts, u64) {
    let mut run = Run::new(seed);
    let mut last = None;
    for _ in 0..400 {
        run.step();
        run.check(last.filter(|_| !run.table.is_empty()));
        last = run.table.deadline();
    }
    // At the end everything settles, by itself or soon when told to.
    let patience = if seed.is_multiple_of(2) {
        IDLE
    } else {
        DRAINED
    };
    if patience == DRAINED {
        run.table.drain();
    }
    run.now = run.now.after(patience);
    run.table.tick(run.now);
    run.close();
    assert!(run.table.is_empty() && run.sockets.is_empty());
    run.check(None);
    (run.table.counts(), run.forwarded)
}

/// Runs a seed and names it if it fails.
fn replay(seed: u64) -> (FlowCounts, u64) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay with FLOW_SEED={}", self.0);
            }
        }
    }
    let _named = Named(seed);
    run(seed)
}

#[test]
fn simulation_of_256_seeds_keeps_every_invariant() {
    if let Some(seed) = std::env::var("FLOW_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        replay(seed);
        return;
    }
    let mut sum = FlowCounts::default();
    for seed in 0..256 {
        let (counts, _) = replay(seed);
        sum.shed += counts.shed;
        sum.expired += counts.expired;
        sum.refused += counts.refused;
        sum.lost += counts.lost;
        sum.unmatched += counts.unmatched;
        sum.no_endpoint += counts.no_endpoint;
        sum.forbidden += counts.forbidden;
    }
    let seen = [
        sum.shed,
        sum.expired,
        sum.refused,
        sum.lost,
        sum.unmatched,
        sum.no_endpoint,
        sum.forbidden,
    ];
    assert!(
        seen.iter().all(|count| *count > 256),
        "every path was taken: {sum:?}"
    );
}

#[test]
fn simulation_of_one_seed_twice_is_the_same() {
    assert_eq!(replay(17), replay(17));
}
