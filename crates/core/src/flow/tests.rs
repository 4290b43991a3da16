//! The rules of flows, one by one; [`simulation`] holds the invariants over random histories.

mod simulation;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{routes::Picked, *};
use crate::balance::{Endpoint, EndpointSet, PortState};

/// A Service port made by hand.
struct World {
    generation: Cell<u64>,
    port: Option<Arc<PortState>>,
    set: EndpointSet,
    serving: BTreeSet<SocketAddr>,
    circular: BTreeSet<SocketAddr>,
    /// Why nobody is admitted.
    forbidden: Option<Dropped>,
    /// What session affinity was told to forget.
    forgotten: RefCell<Vec<SocketAddr>>,
    /// Every endpoint that there ever was.
    all: Vec<Endpoint>,
}

impl World {
    fn new(ports: &[u16]) -> Self {
        let endpoints: Vec<Endpoint> = ports.iter().map(|port| endpoint(*port)).collect();
        Self {
            generation: Cell::new(1),
            port: Some(Arc::default()),
            serving: endpoints.iter().map(|endpoint| endpoint.addr).collect(),
            circular: BTreeSet::new(),
            forbidden: None,
            forgotten: RefCell::default(),
            set: EndpointSet::new(endpoints.clone(), None),
            all: endpoints,
        }
    }

    /// The endpoints chosen for new flows, and those that serve beside them.
    fn change(&mut self, chosen: &[u16], also_serving: &[u16]) {
        self.generation.set(self.generation.get() + 1);
        for port in chosen {
            if !self.all.iter().any(|known| known.addr.port() == *port) {
                self.all.push(endpoint(*port));
            }
        }
        let of = |port: &u16| {
            let mut all = self.all.iter();
            all.find(|known| known.addr.port() == *port)
                .unwrap()
                .clone()
        };
        self.set = EndpointSet::new(chosen.iter().map(of).collect(), Some(&self.set));
        self.serving = chosen
            .iter()
            .chain(also_serving)
            .map(|port| addr(*port))
            .collect();
    }

    fn forbid(&mut self, forbidden: Option<Dropped>) {
        self.generation.set(self.generation.get() + 1);
        self.forbidden = forbidden;
    }

    fn sum(&self, of: fn(&crate::balance::EndpointState) -> &std::sync::atomic::AtomicU64) -> u64 {
        self.all
            .iter()
            .map(|endpoint| of(&endpoint.state).load(Relaxed))
            .sum()
    }
}

impl Routes for World {
    fn generation(&self) -> Generation {
        Generation(self.generation.get())
    }

    fn port(&self, _: &FlowKey) -> Option<Arc<PortState>> {
        self.port.clone()
    }

    fn admits(&self, _: &FlowKey) -> bool {
        self.forbidden.is_none()
    }

    fn serves(&self, _: &FlowKey, endpoint: SocketAddr) -> bool {
        self.serving.contains(&endpoint)
    }

    fn pick(&self, _: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Result<Picked, Dropped> {
        if let Some(why) = self.forbidden {
            return Err(why);
        }
        let endpoint = self.set.pick(tried, now).ok_or(Dropped::NoEndpoint)?;
        Ok(Picked {
            endpoint: endpoint.clone(),
            leads_back: self.circular.contains(&endpoint.addr),
        })
    }

    fn forget(&self, _: &FlowKey, endpoint: SocketAddr) {
        self.forgotten.borrow_mut().push(endpoint);
    }
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        addr: addr(port),
        state: Arc::default(),
    }
}

fn from(client: u16) -> FlowKey {
    FlowKey {
        socket: 1,
        client: addr(client),
        local: SocketAddr::from(([127, 96, 0, 1], 80)),
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1000)
}

/// The flow that is to be opened, and where to.
fn opened(step: Step) -> (FlowId, u16) {
    match step {
        Step::Open(id, addr) => (id, addr.port()),
        other => panic!("not opened: {other:?}"),
    }
}

fn closed(table: &mut FlowTable) -> Vec<FlowId> {
    std::iter::from_fn(|| table.closed()).collect()
}

fn counts(world: &World) -> [u64; 5] {
    let port = world.port.as_ref().unwrap();
    [
        &port.accepted,
        &port.connected,
        &port.retries,
        &port.rejected,
        &port.active,
    ]
    .map(|count| count.load(Relaxed))
}

#[test]
fn datagram_of_new_clients_goes_to_endpoints_in_turn_and_stays_there() {
    let (world, mut table) = (World::new(&[1, 2, 3]), FlowTable::new(100, 3));
    let flows: Vec<(FlowId, u16)> = (0..6)
        .map(|client| opened(table.datagram(from(client), at(0), &world)))
        .collect();
    let order: Vec<u16> = flows.iter().map(|(_, endpoint)| *endpoint).collect();
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
    for (client, (id, _)) in (0..).zip(&flows) {
        assert_eq!(
            table.datagram(from(client), at(1), &world),
            Step::Forward(*id)
        );
    }
    assert_eq!(counts(&world), [6, 6, 0, 0, 6]);
}

#[test]
fn flow_of_another_address_or_socket_is_another_one() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let other_address = FlowKey {
        local: addr(80),
        ..from(1)
    };
    let other_socket = FlowKey {
        socket: 2,
        ..from(1)
    };
    for key in [from(1), other_address, other_socket] {
        opened(table.datagram(key, at(0), &world));
    }
    table.close_socket(1);
    assert_eq!((table.len(), closed(&mut table).len()), (1, 2));
}

#[test]
fn flow_idle_for_a_minute_ends_and_either_direction_keeps_it() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (id, _) = opened(table.datagram(from(1), at(0), &world));
    assert_eq!(table.deadline(), Some(at(60)));
    assert!(table.answer(id, at(30)));
    assert_eq!(table.deadline(), Some(at(90)));
    assert_eq!(table.datagram(from(1), at(80), &world), Step::Forward(id));
    table.tick(at(139));
    assert_eq!(table.len(), 1);
    table.tick(at(140));
    assert_eq!((table.len(), table.deadline()), (0, None));
    assert_eq!(closed(&mut table), [id]);
    assert!(!table.answer(id, at(140)));
    assert_eq!(
        (table.counts().expired, counts(&world)),
        (1, [1, 1, 0, 0, 0])
    );
}

#[test]
fn flow_answered_by_port_53_ends_after_ten_seconds() {
    let (world, mut table) = (World::new(&[53]), FlowTable::new(100, 3));
    let (id, _) = opened(table.datagram(from(1), at(0), &world));
    opened(table.datagram(from(2), at(1), &world));
    assert!(table.answer(id, at(2)));
    assert_eq!(table.deadline(), Some(at(12)));
    table.tick(at(12));
    assert_eq!(
        (closed(&mut table), table.deadline()),
        (vec![id], Some(at(61)))
    );
}

#[test]
fn clock_that_goes_back_moves_no_deadline_back() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (id, _) = opened(table.datagram(from(1), at(100), &world));
    assert!(table.answer(id, at(0)));
    assert_eq!(table.deadline(), Some(at(160)));
}

#[test]
fn new_flow_above_the_bound_sheds_the_one_used_longest_ago() {
    let (world, mut table) = (World::new(&[1, 53]), FlowTable::new(3, 3));
    let flows: Vec<FlowId> = (0..3)
        .map(|client| opened(table.datagram(from(client), at(client.into()), &world)).0)
        .collect();
    // The second one is on port 53, so that it is in another list than the third.
    assert!(table.answer(flows[1], at(3)));
    assert_eq!(
        table.datagram(from(0), at(4), &world),
        Step::Forward(flows[0])
    );
    opened(table.datagram(from(7), at(5), &world));
    assert_eq!(closed(&mut table), [flows[2]]);
    opened(table.datagram(from(8), at(6), &world));
    assert_eq!(closed(&mut table), [flows[1]]);
    assert_eq!((table.len(), table.counts().shed), (3, 2));
    table.set_bound(1);
    assert_eq!((table.len(), table.counts().shed), (1, 4));
    opened(table.datagram(from(9), at(7), &world));
    assert_eq!((table.len(), table.counts().shed), (1, 5));
}

#[test]
fn datagram_without_endpoint_sheds_nobody() {
    let (mut world, mut table) = (World::new(&[1]), FlowTable::new(1, 3));
    opened(table.datagram(from(1), at(0), &world));
    world.change(&[], &[1]);
    assert_eq!(
        table.datagram(from(2), at(1), &world),
        Step::Drop(Dropped::NoEndpoint)
    );
    assert_eq!((table.len(), counts(&world)), (1, [2, 0, 0, 1, 1]));
}

#[test]
fn endpoint_that_leaves_loses_its_flow_at_the_next_datagram_and_one_that_serves_keeps_it() {
    let (mut world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (first, _) = opened(table.datagram(from(1), at(0), &world));
    world.change(&[2], &[1]);
    assert_eq!(
        table.datagram(from(1), at(1), &world),
        Step::Forward(first),
        "it serves while it terminates"
    );
    world.change(&[2], &[]);
    assert!(table.answer(first, at(2)), "until the next datagram");
    let (second, endpoint) = opened(table.datagram(from(1), at(3), &world));
    assert_eq!((endpoint, closed(&mut table)), (2, vec![first]));
    assert!(!table.answer(first, at(4)), "too late");
    assert_eq!(
        table.datagram(from(1), at(5), &world),
        Step::Forward(second)
    );
    assert_eq!((table.counts().lost, counts(&world)), (1, [2, 2, 0, 0, 1]));
}

#[test]
fn endpoint_that_refuses_loses_its_flow_and_is_ejected_after_five() {
    let (world, mut table) = (World::new(&[1, 2]), FlowTable::new(100, 3));
    for client in 0..20 {
        let (id, endpoint) = opened(table.datagram(from(client), at(0), &world));
        if endpoint == 1 {
            table.refused(id, at(0), &world);
            assert_eq!(closed(&mut table), [id]);
            let (id, endpoint) = opened(table.datagram(from(client), at(0), &world));
            assert_eq!(endpoint, 2);
            assert!(table.answer(id, at(0)));
        }
    }
    let refusing = &world.all[0].state;
    assert!(refusing.ejection.is_ejected(at(0)));
    assert_eq!(refusing.failures.load(Relaxed), 5);
    assert_eq!((table.counts().refused, counts(&world)[2]), (5, 5));
}

#[test]
fn flow_refused_by_all_begins_anew() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (first, _) = opened(table.datagram(from(1), at(0), &world));
    table.refused(first, at(0), &world);
    let (second, endpoint) = opened(table.datagram(from(1), at(1), &world));
    assert_eq!(endpoint, 1, "it may be back");
    assert!(table.answer(second, at(1)));
    assert_eq!(counts(&world), [2, 1, 1, 1, 1]);
    table.refused(second, at(2), &world);
    assert_eq!(
        counts(&world),
        [3, 1, 1, 1, 0],
        "a connection that was made has ended, another one waits"
    );
    table.tick(at(90));
    assert_eq!(counts(&world), [3, 1, 1, 2, 0]);
}

#[test]
fn flow_to_one_of_our_own_frontends_goes_elsewhere() {
    let (mut world, mut table) = (World::new(&[1, 2]), FlowTable::new(100, 3));
    world.circular = [addr(1)].into();
    assert_eq!(opened(table.datagram(from(1), at(0), &world)).1, 2);
    world.circular = [addr(1), addr(2)].into();
    assert_eq!(
        table.datagram(from(2), at(0), &world),
        Step::Drop(Dropped::NoEndpoint)
    );
    assert_eq!(counts(&world), [2, 0, 3, 1, 1]);
}

#[test]
fn flow_of_an_address_that_is_another_services_begins_anew() {
    let (mut world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (first, _) = opened(table.datagram(from(1), at(0), &world));
    let old = world.port.replace(Arc::default()).unwrap();
    world.generation.set(9);
    let (second, _) = opened(table.datagram(from(1), at(1), &world));
    assert_eq!(closed(&mut table), [first]);
    assert_eq!(
        (old.active.load(Relaxed), counts(&world)),
        (0, [1, 0, 0, 0, 1])
    );
    world.port = None;
    world.generation.set(10);
    table.sweep(2, &world);
    assert_eq!(table.len(), 1, "another socket's generation");
    table.sweep(1, &world);
    assert_eq!((table.len(), closed(&mut table)), (0, vec![second]));
    assert_eq!(
        table.datagram(from(1), at(2), &world),
        Step::Drop(Dropped::Unmatched)
    );
}

#[test]
fn flow_without_a_socket_ends_and_the_endpoint_is_not_to_blame() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    for _ in 0..10 {
        let (id, _) = opened(table.datagram(from(1), at(0), &world));
        table.unopened(id);
    }
    assert!(table.is_empty());
    assert!(!world.all[0].state.ejection.is_ejected(at(0)));
    assert_eq!(counts(&world), [10, 0, 10, 10, 0]);
}

#[test]
fn client_that_is_not_admitted_any_more_loses_its_flow_and_is_counted_by_reason() {
    for why in [Dropped::Policy, Dropped::SourceRange] {
        let (mut world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
        let (flow, _) = opened(table.datagram(from(1), at(0), &world));
        world.forbid(Some(why));
        for client in 1..=2 {
            assert_eq!(table.datagram(from(client), at(1), &world), Step::Drop(why));
        }
        assert_eq!((closed(&mut table), table.len()), (vec![flow], 0));
        let port = world.port.clone().unwrap();
        let reasons =
            [&port.dropped_policy, &port.dropped_source_range].map(|count| count.load(Relaxed));
        let expected = if why == Dropped::Policy {
            [2, 0]
        } else {
            [0, 2]
        };
        assert_eq!((reasons, table.counts().forbidden), (expected, 2));
        assert_eq!(counts(&world), [3, 1, 0, 2, 0]);
        world.forbid(None);
        opened(table.datagram(from(1), at(2), &world));
    }
}

#[test]
fn datagram_without_endpoint_counts_as_refused_unless_all_were_tried() {
    let (mut world, mut table) = (World::new(&[]), FlowTable::new(100, 3));
    let count = |world: &World| {
        let port = world.port.as_ref().unwrap();
        port.refused_no_endpoints.load(Relaxed)
    };
    for n in 1..=3 {
        assert_eq!(
            table.datagram(from(1), at(0), &world),
            Step::Drop(Dropped::NoEndpoint)
        );
        assert_eq!(count(&world), n);
    }
    world.change(&[1], &[]);
    world.circular = [addr(1)].into();
    assert_eq!(
        table.datagram(from(1), at(0), &world),
        Step::Drop(Dropped::NoEndpoint)
    );
    assert_eq!(count(&world), 3);
    assert_eq!(*world.forgotten.borrow(), [addr(1)], "one of our own");
}

#[test]
fn refusal_is_forgotten_by_affinity() {
    let (world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (id, _) = opened(table.datagram(from(1), at(0), &world));
    table.refused(id, at(0), &world);
    table.refused(id, at(0), &world);
    assert_eq!(*world.forgotten.borrow(), [addr(1)], "once");
}

#[test]
fn table_that_drains_begins_no_flow_and_ends_the_others_after_a_second() {
    let (mut world, mut table) = (World::new(&[1]), FlowTable::new(100, 3));
    let (quiet, _) = opened(table.datagram(from(1), at(0), &world));
    let (busy, _) = opened(table.datagram(from(2), at(9), &world));
    table.drain();
    assert_eq!(table.deadline(), Some(at(1)));
    table.tick(at(9));
    assert_eq!(closed(&mut table), [quiet]);
    assert_eq!(
        table.datagram(from(3), at(9), &world),
        Step::Drop(Dropped::Draining)
    );
    assert_eq!(table.sockets(), [1].into());
    assert!(table.answer(busy, at(10)));
    world.change(&[2], &[]);
    let (moved, endpoint) = opened(table.datagram(from(2), at(10), &world));
    assert_eq!((endpoint, closed(&mut table)), (2, vec![busy]));
    table.tick(at(11));
    assert_eq!((closed(&mut table), table.deadline()), (vec![moved], None));
    assert!(table.sockets().is_empty());
}

#[test]
fn table_that_is_dropped_settles_every_count() {
    let world = World::new(&[1, 2]);
    let mut table = FlowTable::new(100, 3);
    for client in 0..5 {
        opened(table.datagram(from(client), at(0), &world));
    }
    drop(table);
    assert_eq!(counts(&world), [5, 5, 0, 0, 0]);
    assert_eq!(world.sum(|state| &state.connected), 5);
}
