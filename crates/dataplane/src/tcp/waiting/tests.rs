//! Whatever comes, goes and is edited: there are never more connections than limits allow, no place is free while somebody
//! waits for it, and of those who want the same, who came first goes first.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroU32,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use portico_core::{
    balance::{Balance, Endpoint, EndpointSet, EndpointState, Turn, Unpicked},
    snapshot::Scope,
    time::Timestamp,
};
use proptest::prelude::*;
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::{LocalSet, yield_now},
};

use super::*;
use crate::tcp::{
    account::{Accepted, Attempt},
    connect::Arrival,
    registry::Registry,
};

const ENDPOINTS: u8 = 3;
const NOW: Timestamp = Timestamp::from_millis(1);

/// What happens to a Service.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A connection begins, for any endpoint or for this one.
    Begin(Option<u8>),
    /// One of those that have an endpoint ends.
    End(usize),
    /// One of those that wait gives up.
    GiveUp(usize),
    LimitPort(Option<NonZeroU32>),
    LimitEndpoints(Option<NonZeroU32>),
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || proptest::option::of((1_u32..6).prop_map(|most| NonZeroU32::new(most).unwrap()));
    prop_oneof![
        8 => proptest::option::weighted(0.3, 0..ENDPOINTS).prop_map(Step::Begin),
        6 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => limit().prop_map(Step::LimitPort),
        1 => limit().prop_map(Step::LimitEndpoints),
    ]
}

/// A connection, as the test sees it.
struct Seen {
    wants: Option<u8>,
    entered: bool,
    /// Where it went.
    at: Option<u8>,
    /// Ends it.
    end: Option<oneshot::Sender<()>>,
}

struct Service {
    port: Arc<PortState>,
    set: RefCell<EndpointSet>,
    changed: Notify,
    /// In the order in which they began; `None` when over.
    seen: RefCell<Vec<Option<Seen>>>,
    /// How often somebody looked for a place.
    looks: Cell<usize>,
}

fn endpoint(n: u8) -> Endpoint {
    Endpoint {
        addr: ([10, 0, 0, n], 80).into(),
        state: Arc::default(),
    }
}

impl Service {
    fn new() -> Rc<Self> {
        let endpoints = (0..ENDPOINTS).map(endpoint).collect();
        Rc::new(Self {
            port: Arc::default(),
            set: RefCell::new(EndpointSet::new(endpoints, None)),
            changed: Notify::new(),
            seen: RefCell::default(),
            looks: Cell::default(),
        })
    }

    /// As `choose` does.
    fn look(&self, account: &mut Accepted, wants: Option<u8>, turn: Turn<'_>) -> Option<Attempt> {
        self.looks.set(self.looks.get() + 1);
        let is_called = matches!(turn, Turn::Called(_));
        if !account.enter() || (!is_called && !self.port.line.is_empty()) {
            return None;
        }
        let set = self.set.borrow();
        let picked = match wants {
            Some(n) => set.pick_affine(endpoint(n).addr, &[], NOW, turn),
            None => set.pick_for(None, &[], NOW),
        };
        match picked {
            Ok(endpoint) => Some(Attempt::at(&self.port, &endpoint.state)),
            Err(why) => {
                assert!(!matches!(why, Unpicked::Unusable));
                None
            }
        }
    }

    fn state(&self, n: u8) -> Arc<EndpointState> {
        let set = self.set.borrow();
        Arc::clone(&set.endpoints()[usize::from(n)].state)
    }

    fn update(&self, id: usize, change: impl FnOnce(&mut Seen)) {
        change(self.seen.borrow_mut()[id].as_mut().unwrap());
    }

    async fn connection(
        self: Rc<Self>,
        id: usize,
        wants: Option<u8>,
        ended: oneshot::Receiver<()>,
    ) {
        let mut account = Accepted::by(&self.port);
        let attempt = self.look(&mut account, wants, Turn::Newcomer);
        let attempt = if let Some(attempt) = attempt {
            attempt
        } else {
            account.enter_in_turn(&self.changed).await;
            self.update(id, |seen| seen.entered = true);
            let at = wants.map(|n| self.state(n));
            let any = &self.port.line;
            let lines = at.as_ref().map_or((any, None), |at| (&at.line, Some(any)));
            let look = || {
                let found = self.look(&mut account, wants, Turn::Called(lines.0));
                let is_more = match wants {
                    Some(_) => found.is_some(),
                    None => self.set.borrow().has_room(NOW),
                };
                Looked { found, is_more }
            };
            in_turn(&self.changed, lines, look).await
        };
        let at = {
            let set = self.set.borrow();
            let mut states = set.endpoints().iter().map(|endpoint| &*endpoint.state);
            states.position(|state| std::ptr::eq(state, Arc::as_ptr(attempt.endpoint())))
        };
        self.update(id, |seen| {
            seen.entered = true;
            seen.at = Some(u8::try_from(at.unwrap()).unwrap());
        });
        let is_passed = |seen: &&Seen| seen.at.is_none() && seen.wants == wants;
        let passed = self.seen.borrow()[..id]
            .iter()
            .flatten()
            .filter(is_passed)
            .count();
        assert_eq!(passed, 0, "by {id}");
        let arrival = Arrival {
            local: ([127, 0, 0, 1], 80).into(),
            peer: None,
            declared_port: 80,
            scope: Scope::HOST,
            peer_port: 0,
        };
        let live = Registry::of_workers(1)[0].enter(&arrival, NOW);
        let active = attempt.succeeded(account, live);
        let _ = ended.await;
        drop(active);
    }

    /// The `nth` of those that have an endpoint, or that have none.
    fn nth(&self, nth: usize, has_endpoint: bool) -> Option<usize> {
        let seen = self.seen.borrow();
        let mut these: Vec<_> = (0..seen.len()).collect();
        these.retain(|id| matches!(&seen[*id], Some(seen) if seen.at.is_some() == has_endpoint));
        (!these.is_empty()).then(|| these[nth % these.len()])
    }

    fn limit_endpoints(&self, limit: Option<NonZeroU32>) {
        let endpoints = self.set.borrow().endpoints().to_vec();
        let balance = Balance {
            limit,
            ..Balance::default()
        };
        let next = EndpointSet::balanced(endpoints, balance, Some(&self.set.borrow()));
        self.set.replace(next);
        self.changed.notify_waiters();
    }

    /// Connections of each endpoint and of the port.
    fn active(&self) -> Vec<u64> {
        let set = self.set.borrow();
        let states = set
            .endpoints()
            .iter()
            .map(|endpoint| &endpoint.state.active);
        let all = states.chain([&self.port.active]);
        all.map(|active| active.load(Relaxed)).collect()
    }

    fn check(&self, before: &[u64]) {
        let limit = |limit: Option<NonZeroU32>| limit.map_or(u64::MAX, |most| most.get().into());
        let of_endpoint = limit(self.set.borrow().balance().limit);
        let of_port = limit(self.port.limit.get());
        let limits = [vec![of_endpoint; ENDPOINTS.into()], vec![of_port]].concat();
        let active = self.active();
        for ((active, before), limit) in active.iter().zip(before).zip(&limits) {
            assert!(active <= limit || active <= before, "{active} of {limit}");
        }
        let seen = self.seen.borrow();
        for seen in seen.iter().flatten().filter(|seen| seen.at.is_none()) {
            let has_place = |n: &u8| active[usize::from(*n)] < of_endpoint;
            let is_free = match seen.wants {
                _ if !seen.entered => self.port.has_room(),
                Some(n) => has_place(&n),
                None => (0..ENDPOINTS).any(|n| has_place(&n)),
            };
            assert!(
                !is_free,
                "waits beside a free place: {active:?} of {limits:?}"
            );
        }
        let waiting = seen.iter().flatten().filter(|seen| seen.at.is_none());
        assert_eq!(self.port.waiting(), waiting.count() as u64);
    }
}

async fn history(service: Rc<Service>, steps: Vec<Step>) {
    let mut tasks = Vec::new();
    for step in steps {
        let before = service.active();
        match step {
            Step::Begin(wants) => {
                let (end, ended) = oneshot::channel();
                let id = tasks.len();
                service.seen.borrow_mut().push(Some(Seen {
                    wants,
                    entered: false,
                    at: None,
                    end: Some(end),
                }));
                let connection = Rc::clone(&service).connection(id, wants, ended);
                tasks.push(tokio::task::spawn_local(connection));
            }
            Step::End(nth) => {
                if let Some(id) = service.nth(nth, true) {
                    let over = service.seen.borrow_mut()[id].take();
                    let _ = over.and_then(|over| over.end).unwrap().send(());
                }
            }
            Step::GiveUp(nth) => {
                if let Some(id) = service.nth(nth, false) {
                    tasks[id].abort();
                    service.seen.borrow_mut()[id] = None;
                }
            }
            Step::LimitPort(limit) => {
                service.port.limit.set(limit);
                service.changed.notify_waiters();
            }
            Step::LimitEndpoints(limit) => service.limit_endpoints(limit),
        }
        // A call goes through the line at most once, and wakes one task at a time.
        for _ in 0..(4 * tasks.len() + 4) {
            yield_now().await;
        }
        service.check(&before);
    }
    // All come to their turn.
    while let Some(id) = service.nth(0, true) {
        let over = service.seen.borrow_mut()[id].take();
        let _ = over.and_then(|over| over.end).unwrap().send(());
        (&mut tasks[id]).await.unwrap();
        for _ in 0..(4 * tasks.len() + 4) {
            yield_now().await;
        }
    }
    assert_eq!((service.port.waiting(), service.active()), (0, vec![0; 4]));
    assert_eq!(service.nth(0, false), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn waiting_any_history_keeps_limits_and_order_and_leaves_no_place_free(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, history(Service::new(), steps));
    }
}

#[test]
fn waiting_for_one_endpoint_looks_no_more_often_than_something_happens_there() {
    const WAITING: usize = 100;
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let service = Service::new();
    let mut steps = vec![Step::LimitEndpoints(NonZeroU32::new(1))];
    steps.extend(vec![Step::Begin(Some(0)); WAITING + 1]);
    // Others come and go beside them: the first in the order of those that have an endpoint is who keeps it full.
    steps.extend([Step::Begin(Some(1)), Step::End(1)].repeat(WAITING));
    LocalSet::new().block_on(&runtime, history(Rc::clone(&service), steps));
    // Each when it comes, for a place that it takes or when another one joins or goes; with one line for all, every event
    // made all of them look.
    let events = 2 * WAITING + 1;
    assert!(service.looks.get() <= 4 * events, "{}", service.looks.get());
}
