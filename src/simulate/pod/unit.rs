//! One container of a simulated pod: its ports, each a task, and its log. Owns what is open; when it is opened and
//! closed is the pod's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use portico_core::world::pods::{ContainerPlan, WantedPort};
use tokio::{sync::watch, time::Instant};

use super::{
    Wish,
    answer::{Answers, Manner},
    bind::{Bound, Kind},
    cut,
    log::ContainerLog,
    serve,
};

/// What a container does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// It runs.
    Up,
    /// It ends when its last port is closed.
    Ending,
    /// It has ended.
    Down,
    /// It begins then.
    Starting(Instant),
}

/// A port whose task has ended.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) unit: usize,
    pub(super) port: WantedPort,
}

/// See the module's documentation.
pub(super) struct Unit {
    name: Arc<str>,
    answers: Arc<Answers>,
    ports: Vec<WantedPort>,
    /// Ports with a socket, also those that are closing.
    open: BTreeMap<WantedPort, watch::Sender<Wish>>,
    /// The number that a port has or had last.
    numbers: BTreeMap<WantedPort, u16>,
    step: Step,
    /// It ran before.
    again: bool,
}

impl Unit {
    /// A container with its log, and those of the containers that it passes on to what it gets.
    pub(super) fn new(
        plan: ContainerPlan,
        manner: &Arc<Manner>,
        log: Arc<ContainerLog>,
        backends: Vec<Arc<ContainerLog>>,
    ) -> Self {
        Self {
            name: plan.name,
            answers: Arc::new(Answers {
                manner: Arc::clone(manner),
                probes: plan.probes,
                log,
                backends,
            }),
            ports: plan.ports,
            open: BTreeMap::new(),
            numbers: BTreeMap::new(),
            step: Step::Down,
            again: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn plan_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn log(&self) -> (Arc<str>, Arc<ContainerLog>) {
        (Arc::clone(&self.name), Arc::clone(&self.answers.log))
    }

    pub(super) const fn step(&self) -> Step {
        self.step
    }

    pub(super) const fn starts_at(&self) -> Option<Instant> {
        match self.step {
            Step::Starting(at) => Some(at),
            Step::Up | Step::Ending | Step::Down => None,
        }
    }

    /// The ports that it is to have.
    pub(super) fn ports(&self) -> &[WantedPort] {
        &self.ports
    }

    pub(super) fn replan(&mut self, ports: Vec<WantedPort>) {
        self.numbers.retain(|port, _| ports.contains(port));
        self.ports = ports;
    }

    /// Whether no socket of it is left.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_empty()
    }

    /// Every port that it is to have, as it was last bound.
    pub(super) fn bound(&self) -> Vec<(WantedPort, u16)> {
        self.numbers.iter().map(|(port, to)| (*port, *to)).collect()
    }

    /// Ports that no other may be moved to: those wanted and those bound.
    pub(super) fn taken(&self) -> BTreeSet<WantedPort> {
        let open = self.numbers.iter();
        let open = open.filter(|(port, _)| self.open.contains_key(*port));
        let bound = open.map(|(port, number)| WantedPort {
            number: *number,
            ..*port
        });
        self.ports.iter().copied().chain(bound).collect()
    }

    /// What its port does until it is closed.
    pub(super) fn serve(
        &mut self,
        unit: usize,
        socket: Bound,
    ) -> impl Future<Output = Closed> + use<> {
        let (sender, wishes) = watch::channel(Wish::Serve);
        let port = socket.wanted;
        self.numbers.insert(port, socket.number);
        self.open.insert(port, sender);
        let answers = Arc::clone(&self.answers);
        async move {
            let over = cut(wishes.clone());
            let served = async {
                match socket.kind {
                    Kind::Tcp(listener) => serve::serve_tcp(listener, answers, wishes).await,
                    Kind::Udp(socket) => serve::serve_udp(socket, answers, wishes).await,
                    Kind::Unserved => serve::wait_for_end(wishes).await,
                }
            };
            // Past the deadline what is left is cut with its task.
            tokio::select! {
                () = served => {}
                () = over => {}
            }
            Closed { unit, port }
        }
    }

    /// A port's task has ended.
    pub(super) fn forget(&mut self, port: WantedPort) {
        self.open.remove(&port);
    }

    /// Its ports are open.
    pub(super) fn begin(&mut self, ip: IpAddr) {
        self.step = Step::Up;
        if std::mem::replace(&mut self.again, true) {
            self.answers.log.turn();
        }
        let ports: Vec<String> = self.numbers.iter().map(shown).collect();
        let ports = if ports.is_empty() {
            "without ports".to_owned()
        } else {
            format!("serving {}", ports.join(", "))
        };
        let name = &self.answers.manner.name;
        let log = &self.answers.log;
        log.say(format!("started {name}/{} at {ip}, {ports}", self.name));
    }

    /// Its ports are to be closed by `deadline`; said again, the deadline is another one.
    pub(super) fn end(&mut self, deadline: Instant) {
        if let Step::Up = self.step {
            let seconds = deadline
                .saturating_duration_since(Instant::now())
                .as_secs_f64();
            let log = &self.answers.log;
            log.say(format!("stopping within {seconds:.0}s"));
        }
        self.step = Step::Ending;
        for wish in self.open.values() {
            wish.send_replace(Wish::End(deadline));
        }
    }

    /// It has ended.
    pub(super) fn rest(&mut self) {
        self.step = Step::Down;
        self.answers.log.say("stopped");
    }

    pub(super) const fn start_at(&mut self, at: Instant) {
        if let Step::Down = self.step {
            self.step = Step::Starting(at);
        }
    }

    /// It could not start.
    pub(super) fn fail(&mut self, reason: &str) {
        self.step = Step::Down;
        self.complain(reason);
    }

    pub(super) fn complain(&self, reason: &str) {
        self.answers.log.say(format!("cannot serve: {reason}"));
    }

    /// Closes what is not wanted, and returns what is wanted and not open. A port that is still closing is neither.
    pub(super) fn match_ports(&self, closed: bool, deadline: Instant) -> Vec<WantedPort> {
        let Step::Up = self.step else {
            return Vec::new();
        };
        let wanted = |port: &WantedPort| !closed && self.ports.contains(port);
        for (_, wish) in self.open.iter().filter(|(port, _)| !wanted(port)) {
            wish.send_if_modified(|wish| {
                let serves = wish.deadline().is_none();
                if serves {
                    *wish = Wish::End(deadline);
                }
                serves
            });
        }
        let missing = |port: &&WantedPort| wanted(port) && !self.open.contains_key(*port);
        self.ports.iter().filter(missing).copied().collect()
    }
}

fn shown((port, number): (&WantedPort, &u16)) -> String {
    if port.number == *number {
        format!("{number}/{}", port.protocol)
    } else {
        format!("{}/{} as {number}", port.number, port.protocol)
    }
}
