//! One simulated pod: its containers open their ports, answer on them with its name, end and come back one by one, and
//! end together within the pod's grace. Owns that order; how a port is found, what is done on it and what is answered
//! belongs to `bind`, `serve` and `answer`.

mod answer;
mod bind;
mod log;
mod serve;
mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use portico_core::world::pods::{
    Behaviour, ContainerChange, ContainerPlan, Fault, PodObservation, PodUid, WantedPort,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::protocol::FromChild;
use answer::Manner;
use log::ContainerLog;
pub(super) use log::PodLogs;
use unit::{Closed, Step, Unit};

/// Longest grace that is counted, a year: beyond any use, and within what timers can hold.
pub(super) const LONGEST_GRACE_MS: u64 = 365 * 24 * 3600 * 1000;

/// How long connections of a port that is closed while its container runs may take to finish.
const CLOSING: Duration = Duration::from_secs(1);

/// How long to wait before a port that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is wanted of one port.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// Serve.
    Serve,
    /// Take no new connections, and end by this time.
    End(Instant),
}

impl Wish {
    const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Serve => None,
            Self::End(deadline) => Some(deadline),
        }
    }
}

/// What a running pod is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Be like this, and say how you are.
    Repeat(Vec<Vec<WantedPort>>, Behaviour, BTreeSet<Fault>),
    /// Serve these ports, container by container, and say how you are.
    Ports(Vec<Vec<WantedPort>>),
    /// Behave and fail like this.
    Adjust(Behaviour, BTreeSet<Fault>),
    /// End a container by this time.
    EndContainer(Arc<str>, Instant),
    /// Open a container's ports again.
    StartContainer(Arc<str>),
    /// End by this time.
    Stop(Instant),
}

/// A pod as it was asked for.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) uid: PodUid,
    pub(super) name: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) containers: Vec<ContainerPlan>,
    pub(super) behaviour: Behaviour,
    pub(super) faults: BTreeSet<Fault>,
}

/// What a pod as a whole does.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Its ports are opened then.
    Delayed(Instant),
    /// Its containers run, as far as they have not ended.
    Up,
    /// It ends when its last connection is done, and not before.
    Ending(Instant),
    /// There is nothing left of it.
    Over,
}

/// A pod at work.
pub(super) struct Pod {
    uid: PodUid,
    ip: IpAddr,
    units: Vec<Unit>,
    manner: Arc<Manner>,
    behaviour: Behaviour,
    /// Its ports are to be closed.
    closed: bool,
    phase: Phase,
    /// When a port that could not be opened is tried again.
    retry: Option<Instant>,
    /// What was last said to be bound.
    said: Option<Vec<(WantedPort, u16)>>,
    tasks: JoinSet<Closed>,
    reports: mpsc::Sender<FromChild>,
}

impl Pod {
    /// A pod that has not begun, and its logs.
    pub(super) fn new(plan: Plan, reports: mpsc::Sender<FromChild>) -> (Self, Arc<PodLogs>) {
        let manner = Arc::new(Manner::new(&plan.name));
        manner.adjust(&plan.behaviour, &plan.faults);
        let names = plan.containers.iter().map(|plan| Arc::clone(&plan.name));
        let logs: BTreeMap<Arc<str>, Arc<ContainerLog>> =
            names.map(|name| (name, Arc::default())).collect();
        let unit = |container: ContainerPlan| {
            let backends = container.backends.iter();
            let backends = backends
                .filter_map(|name| logs.get(name).cloned())
                .collect();
            let log = logs.get(&container.name).cloned().unwrap_or_default();
            Unit::new(container, &manner, log, backends)
        };
        let units: Vec<Unit> = plan.containers.into_iter().map(unit).collect();
        let logs = units.iter().map(Unit::log).collect();
        let delay = Duration::from_millis(plan.behaviour.startup_delay_ms);
        let pod = Self {
            uid: plan.uid,
            ip: plan.ip,
            units,
            manner,
            behaviour: plan.behaviour,
            closed: plan.faults.contains(&Fault::Port),
            phase: Phase::Delayed(Instant::now() + delay),
            retry: None,
            said: None,
            tasks: JoinSet::new(),
            reports,
        };
        (pod, Arc::new(PodLogs(logs)))
    }

    /// From the opening of its ports to its last report.
    pub(super) async fn live(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut last = None;
        loop {
            self.tend(&mut last).await;
            if let Phase::Over = self.phase {
                break;
            }
            let wake = self.wake();
            // All are cancel safe: an order that is not taken stays in the channel, a task that ended in the set.
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    // The whole child ends.
                    None => return,
                },
                Some(closed) = self.tasks.join_next() => if let Ok(closed) = closed {
                    self.forget(&closed);
                },
                () = until(wake) => {}
            }
        }
        // Orders from here on are for a pod that is not there.
        drop(orders);
        self.tasks.shutdown().await;
        if let Some(last) = last {
            self.report(last).await;
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Repeat(ports, behaviour, faults) => {
                self.replan(ports);
                self.adjust(behaviour, &faults);
            }
            Order::Ports(ports) => self.replan(ports),
            Order::Adjust(behaviour, faults) => self.adjust(behaviour, &faults),
            Order::EndContainer(name, deadline) => {
                if let Some(unit) = self.unit(&name) {
                    unit.end(deadline);
                }
            }
            Order::StartContainer(name) => {
                let delay = Duration::from_millis(self.behaviour.startup_delay_ms);
                if let Some(unit) = self.unit(&name) {
                    unit.start_at(Instant::now() + delay);
                }
            }
            Order::Stop(deadline) => self.stop(deadline),
        }
    }

    fn unit(&mut self, name: &str) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.name() == name)
    }

    /// Takes other ports over; what is bound is said again.
    fn replan(&mut self, ports: Vec<Vec<WantedPort>>) {
        for (unit, ports) in self.units.iter_mut().zip(ports) {
            unit.replan(ports);
        }
        self.said = None;
    }

    fn adjust(&mut self, behaviour: Behaviour, faults: &BTreeSet<Fault>) {
        self.manner.adjust(&behaviour, faults);
        self.behaviour = behaviour;
        self.closed = faults.contains(&Fault::Port);
    }

    fn stop(&mut self, deadline: Instant) {
        let delay = Duration::from_millis(self.behaviour.termination_delay_ms);
        let begun = match self.phase {
            Phase::Ending(begun) => begun,
            Phase::Delayed(_) => Instant::now(),
            Phase::Up | Phase::Over => Instant::now() + delay,
        };
        self.phase = Phase::Ending(begun.min(deadline));
        for unit in &mut self.units {
            unit.end(deadline);
        }
    }

    fn forget(&mut self, closed: &Closed) {
        if let Some(unit) = self.units.get_mut(closed.unit) {
            unit.forget(closed.port);
        }
    }

    /// When there is something to do even if nothing happens.
    fn wake(&self) -> Option<Instant> {
        match self.phase {
            Phase::Delayed(at) | Phase::Ending(at) => Some(at).filter(|_| self.tasks.is_empty()),
            Phase::Up => {
                let starts = self.units.iter().filter_map(Unit::starts_at);
                starts.chain(self.retry).min()
            }
            Phase::Over => None,
        }
    }

    /// Does what is due, and says what came of it; `last` gets what is to be said when nothing of the pod is left.
    async fn tend(&mut self, last: &mut Option<PodObservation>) {
        let (now, uid) = (Instant::now(), self.uid);
        match self.phase {
            Phase::Delayed(at) if at <= now => {
                if let Err(error) = self.open_all() {
                    let reason = error.to_string();
                    *last = Some(PodObservation::Failed { uid, reason });
                    self.phase = Phase::Over;
                } else {
                    self.phase = Phase::Up;
                    self.say_bound().await;
                }
            }
            Phase::Up => {
                self.tend_units(now).await;
                self.match_ports(now);
                if self.said.as_ref() != Some(&self.bound()) {
                    self.say_bound().await;
                }
            }
            Phase::Ending(at) if at <= now && self.tasks.is_empty() => {
                *last = Some(PodObservation::Ended { uid });
                self.phase = Phase::Over;
            }
            Phase::Delayed(_) | Phase::Ending(_) | Phase::Over => {}
        }
    }

    fn open_all(&mut self) -> Result<(), bind::BindError> {
        for index in 0..self.units.len() {
            self.open(index)?;
        }
        Ok(())
    }

    /// Opens the ports of a container.
    fn open(&mut self, index: usize) -> Result<(), bind::BindError> {
        let mut taken = self.taken();
        let Some(unit) = self.units.get_mut(index) else {
            return Ok(());
        };
        let ports = if self.closed { &[][..] } else { unit.ports() };
        for socket in bind::bind_all(self.ip, ports, &mut taken)? {
            self.tasks.spawn(unit.serve(index, socket));
        }
        unit.begin(self.ip);
        Ok(())
    }

    /// Ports that nothing may be moved to.
    fn taken(&self) -> BTreeSet<WantedPort> {
        self.units.iter().flat_map(Unit::taken).collect()
    }

    /// Says which containers have ended, opens those that are to come back.
    async fn tend_units(&mut self, now: Instant) {
        for index in 0..self.units.len() {
            let Some(unit) = self.units.get_mut(index) else {
                return;
            };
            let container = Arc::clone(unit.plan_name());
            let became = match unit.step() {
                Step::Ending if unit.is_closed() => {
                    unit.rest();
                    ContainerChange::Ended
                }
                Step::Starting(at) if at <= now => match self.open(index) {
                    Ok(()) => {
                        let bound = self.units.get(index).map(Unit::bound);
                        ContainerChange::Running {
                            bound: bound.unwrap_or_default(),
                        }
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        if let Some(unit) = self.units.get_mut(index) {
                            unit.fail(&reason);
                        }
                        ContainerChange::Failed { reason }
                    }
                },
                Step::Up | Step::Ending | Step::Down | Step::Starting(_) => continue,
            };
            if matches!(became, ContainerChange::Running { .. }) {
                self.said = Some(self.bound());
            }
            let uid = self.uid;
            let seen = PodObservation::Container {
                uid,
                container,
                became,
            };
            self.report(seen).await;
        }
    }

    /// Closes and opens ports of running containers until they are those that are wanted.
    fn match_ports(&mut self, now: Instant) {
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
        }
        for index in 0..self.units.len() {
            let mut taken = self.taken();
            let Some(unit) = self.units.get_mut(index) else {
                return;
            };
            for port in unit.match_ports(self.closed, now + CLOSING) {
                if self.retry.is_some() {
                    break;
                }
                match bind::bind_all(self.ip, &[port], &mut taken) {
                    Ok(sockets) => {
                        for socket in sockets {
                            self.tasks.spawn(unit.serve(index, socket));
                        }
                    }
                    Err(error) => {
                        unit.complain(&error.to_string());
                        self.retry = Some(now + RETRY);
                    }
                }
            }
        }
    }

    /// Every port that is or was served, with its number.
    fn bound(&self) -> Vec<(WantedPort, u16)> {
        self.units.iter().flat_map(Unit::bound).collect()
    }

    async fn say_bound(&mut self) {
        let (uid, bound) = (self.uid, self.bound());
        self.said = Some(bound.clone());
        self.report(PodObservation::Running { uid, bound }).await;
    }

    /// Nobody hears it only when the child is ending.
    async fn report(&self, observation: PodObservation) {
        let _ending = self.reports.send(FromChild::Pod(observation)).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until the port's time is over; a later wish may shorten it.
async fn cut(mut wishes: watch::Receiver<Wish>) {
    loop {
        let deadline = wishes.borrow_and_update().deadline();
        tokio::select! {
            () = until(deadline) => return,
            changed = wishes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
