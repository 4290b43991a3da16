//! What a service manager is told while the program runs: ready, reloading, stopping, how much it serves, and that its
//! control loop is alive. Owns when; the words of the protocol are `notify`'s.

use std::time::Duration;

use portico_core::snapshot::Snapshot;
use tokio::{
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::{
    app::{App, Pulse},
    notify::Manager,
    words::counted,
};

/// A reload that changes nothing is not reported by anybody: it is taken to be over after this time.
const RELOAD: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Service {
    manager: Manager,
    pulse: Pulse,
    beat: Option<Interval>,
    /// The question to the control loop that is not answered yet.
    asked: Option<oneshot::Receiver<()>>,
    reloaded_by: Option<Instant>,
    stopping: bool,
    status: String,
}

impl Service {
    pub(super) fn new(app: &App) -> Self {
        let manager = Manager::from_environment();
        let beat = manager.beat().map(|time| {
            let mut beat = interval(time);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        Self {
            manager,
            pulse: app.pulse(),
            beat,
            asked: None,
            reloaded_by: None,
            stopping: false,
            status: String::new(),
        }
    }

    /// The program serves for the first time.
    pub(super) fn ready(&mut self, app: &App) {
        self.status = status(&app.published.load());
        self.manager.ready(&self.status);
    }

    /// A generation was published, or files were read again.
    pub(super) fn notice(&mut self, app: &App, files: bool) {
        if !self.manager.is_there() || self.stopping {
            return;
        }
        let status = status(&app.published.load());
        if status != self.status {
            self.status = status;
            self.manager.status(&self.status);
        }
        if files {
            self.reloaded();
        }
    }

    /// Everything is to be read again.
    pub(super) fn reloading(&mut self) {
        self.manager.reloading();
        self.reloaded_by = Some(Instant::now() + RELOAD);
    }

    fn reloaded(&mut self) {
        if self.reloaded_by.take().is_some() {
            self.manager.ready(&self.status);
        }
    }

    /// The end has begun.
    pub(super) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.manager.stopping();
        }
    }

    /// Gives signs of life for ever, each once the control loop has answered; and says when a reload is over.
    ///
    /// # Cancel safety
    /// Cancel safe: what was asked and when the next beat is due is kept.
    pub(super) async fn run(&mut self) {
        loop {
            let reloaded_by = self.reloaded_by;
            tokio::select! {
                () = until(reloaded_by) => self.reloaded(),
                answered = answer(self.asked.as_mut()) => {
                    self.asked = None;
                    if answered {
                        self.manager.alive();
                    }
                }
                () = tick(self.beat.as_mut()) => {
                    // While connections finish, the loop drains and answers nobody.
                    if self.stopping {
                        self.manager.alive();
                    } else if self.asked.is_none() {
                        self.asked = self.pulse.ask();
                    }
                }
            }
        }
    }
}

/// How much is served.
fn status(snapshot: &Snapshot) -> String {
    let services = snapshot.services();
    let slices = services.iter().flat_map(|service| &service.slices);
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let endpoints = endpoints
        .filter(|endpoint| endpoint.conditions.ready)
        .count();
    format!(
        "{}, {}, generation {}",
        counted(services.len(), "Service"),
        counted(endpoints, "endpoint"),
        snapshot.generation
    )
}

async fn tick(beat: Option<&mut Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

/// Whether the loop answered; false when it has ended instead.
async fn answer(asked: Option<&mut oneshot::Receiver<()>>) -> bool {
    match asked {
        Some(asked) => asked.await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
