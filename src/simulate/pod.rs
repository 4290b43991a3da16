//! One simulated pod: binds its ports, answers on them with its name, and ends within its grace. Owns that order;
//! how a port is found and how connections are served belongs to `bind` and `serve`.

mod bind;
mod serve;

use std::{net::IpAddr, sync::Arc};

use portico_core::world::pods::{PodObservation, PodUid, WantedPort};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// Longest grace that is counted, a year: beyond any use, and within what timers can hold.
pub(super) const LONGEST_GRACE_MS: u64 = 365 * 24 * 3600 * 1000;

/// What the world wants of a pod.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    /// Serve; the number changes when the pod is to say again that it does.
    Serve(u32),
    /// Take no new connections, and end by this time.
    End(Instant),
}

impl Wish {
    pub(super) const fn repeat(&mut self) {
        if let Self::Serve(times) = self {
            *times = times.wrapping_add(1);
        }
    }

    const fn deadline(self) -> Option<Instant> {
        match self {
            Self::Serve(_) => None,
            Self::End(deadline) => Some(deadline),
        }
    }
}

/// A pod as it was asked for.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) uid: PodUid,
    pub(super) name: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) ports: Vec<WantedPort>,
}

impl Pod {
    /// From the binding of its ports to its last report.
    pub(super) async fn live(
        self,
        mut wishes: watch::Receiver<Wish>,
        reports: mpsc::Sender<PodObservation>,
    ) {
        let uid = self.uid;
        let sockets = match bind::bind_all(self.ip, &self.ports) {
            Ok(sockets) => sockets,
            Err(error) => {
                report(
                    &reports,
                    PodObservation::Failed {
                        uid,
                        reason: error.to_string(),
                    },
                )
                .await;
                return;
            }
        };
        let bound: Vec<(WantedPort, u16)> = sockets
            .iter()
            .map(|socket| (socket.wanted, socket.number))
            .collect();
        let mut tasks = self.serve(sockets, &wishes);
        let deadline = loop {
            // The first round says it unasked.
            let wish = *wishes.borrow_and_update();
            if let Some(deadline) = wish.deadline() {
                break deadline;
            }
            report(
                &reports,
                PodObservation::Running {
                    uid,
                    bound: bound.clone(),
                },
            )
            .await;
            if wishes.changed().await.is_err() {
                // The whole child ends.
                return;
            }
        };
        // Past the deadline what is left is cut with its task.
        let finished = async { while tasks.join_next().await.is_some() {} };
        let _late = tokio::time::timeout_at(deadline, finished).await;
        tasks.shutdown().await;
        report(&reports, PodObservation::Ended { uid }).await;
    }

    /// A task for each socket.
    fn serve(&self, sockets: Vec<bind::Bound>, wishes: &watch::Receiver<Wish>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let (name, wishes) = (Arc::clone(&self.name), wishes.clone());
            match socket.kind {
                bind::Kind::Tcp(listener) => {
                    drop(tasks.spawn(serve::serve_tcp(listener, name, wishes)));
                }
                bind::Kind::Udp(socket) => {
                    drop(tasks.spawn(serve::serve_udp(socket, name, wishes)));
                }
                bind::Kind::Unserved => {}
            }
        }
        tasks
    }
}

/// Nobody hears it only when the child is ending.
async fn report(reports: &mpsc::Sender<PodObservation>, observation: PodObservation) {
    let _ending = reports.send(observation).await;
}
