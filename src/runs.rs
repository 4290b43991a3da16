//! Programs that `portico run` started: who they are, and the sockets in their network namespaces. Owns the connections
//! to their keepers, on a thread of its own, so that neither control nor data waits for one; which sockets there are
//! belongs to plans, serving them to the data path, all but those of DNS.
//!
//! Control and this thread meet at the [`Desk`]: control leaves there what is to be opened and takes what has come. A
//! keeper that is late, lies or dies loses its connection, and with it all sockets of its scope.

mod desk;
mod dns;
mod talk;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use portico_core::{
    dns::search_list,
    snapshot::{Cluster, NodePortAddresses, Scope},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use desk::{Desk, Run};

use crate::{
    dns::DnsService,
    handover::{HandoverError, Hello, Listener, VERSION, Welcome},
};
use desk::Entered;

/// Most runs at a time.
pub const MOST_RUNS: usize = 32;
/// Connections that have not said who they are, beside those of the runs.
const MOST_STRANGERS: usize = 32;
/// Events that control may be behind.
const EVENTS: usize = 64;
/// How long accepting rests after an error that is no single keeper's, such as a lack of descriptors.
const REST: Duration = Duration::from_millis(50);
/// The port of DNS, which nothing keeps from anybody inside.
const DNS_PORT: u16 = 53;

/// What control is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// A scope is to be served.
    Began(Scope),
    /// Sockets came, or failed.
    Answered,
    /// A scope is gone: its sockets are to be closed.
    Ended(Scope),
}

/// The thread.
#[derive(Debug)]
pub struct Runs {
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runs {
    /// Begins to take runs at `listener`, which control is to serve: it finds them at the desk.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        listener: Listener,
        cluster: &Cluster,
        dns: Arc<DnsService>,
    ) -> io::Result<(Self, Desk, mpsc::Receiver<RunEvent>)> {
        let (events, told) = mpsc::channel(EVENTS);
        let local = local_inside(cluster);
        let desk = Desk::new(local.clone());
        let office = Office {
            desk: desk.clone(),
            dns,
            dns_at: SocketAddr::new(cluster.dns_address, DNS_PORT),
            domains: cluster.domains.clone(),
            local,
            events,
        };
        let cancel = CancellationToken::new();
        let ended = cancel.clone();
        let thread = std::thread::Builder::new()
            .name("runs".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(ended.run_until_cancelled(serve(listener, office)));
                    }
                    Err(error) => tracing::error!(%error, "`portico run` has no runtime"),
                }
            })?;
        let thread = Some(thread);
        Ok((Self { cancel, thread }, desk, told))
    }

    /// Ends every connection and waits. Keepers try to connect again.
    pub fn stop(mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Office {
    desk: Desk,
    dns: Arc<DnsService>,
    dns_at: SocketAddr,
    domains: Vec<Arc<str>>,
    local: Vec<IpNet>,
    events: mpsc::Sender<RunEvent>,
}

impl Office {
    /// Lets a run in, or says why not.
    fn admit(&self, hello: &Hello) -> Result<Entered, String> {
        if hello.version != VERSION {
            return Err(format!(
                "this `portico run` is of another version than the running portico ({}): start both from the same program",
                env!("CARGO_PKG_VERSION")
            ));
        }
        if !is_label(&hello.namespace) {
            return Err(format!(
                "namespace {:?} is not a DNS label: lower case letters, digits and '-', at most 63",
                hello.namespace
            ));
        }
        self.desk.enter(hello, crate::clock::now()).ok_or_else(|| {
            format!("{MOST_RUNS} of `portico run` are served already: end one of them")
        })
    }

    fn welcome(&self, hello: &Hello, scope: Scope) -> Welcome {
        let lists = self.domains.iter();
        let lists = lists.map(|domain| search_list(&hello.namespace, domain));
        Welcome {
            scope: scope.0,
            dns: self.dns_at,
            search: lists.flatten().collect(),
            local: self.local.clone(),
        }
    }
}

/// Ranges that sockets inside are bound to, where 127/8 alone is local. Simulated pods are not among them: they are
/// outside, and nobody stands in for them inside.
fn local_inside(cluster: &Cluster) -> Vec<IpNet> {
    let ranges = [
        Some(cluster.service_cidr),
        Some(cluster.load_balancer_cidr),
        cluster.service_cidr_v6,
        cluster.load_balancer_cidr_v6,
        Some(IpNet::from(cluster.dns_address)),
    ];
    let listed = match &cluster.node_port_addresses {
        NodePortAddresses::All => &[][..],
        NodePortAddresses::Listed(addrs) => addrs,
    };
    let ranges = ranges.into_iter().flatten();
    let all = ranges.chain(listed.iter().map(|addr| IpNet::from(*addr)));
    let mut local: Vec<IpNet> = all.filter(|range| !range.addr().is_loopback()).collect();
    local.sort_unstable();
    local.dedup();
    IpNet::aggregate(&local)
}

/// RFC 1123: it becomes a part of resolv.conf.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Takes connections until it is dropped, and they with it.
async fn serve(listener: Listener, office: Office) {
    let office = Arc::new(office);
    let listener = match listener.watched() {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot wait for `portico run`");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(channel) if connections.len() < MOST_RUNS + MOST_STRANGERS => {
                    connections.spawn(talk::attend(channel, Arc::clone(&office)));
                }
                // Whoever floods is not told so.
                Ok(_) => {}
                Err(error @ HandoverError::Io(_)) => {
                    tracing::debug!(%error, "cannot accept a `portico run`");
                    tokio::time::sleep(REST).await;
                }
                Err(error) => tracing::warn!(%error, "a `portico run` was turned away"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
