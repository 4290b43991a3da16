//! The admin interface over TCP on a thread of its own: neither control nor the data path waits for who reads metrics.
//! Owns which addresses it gets and its end; what is answered is the admin interface's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    thread::JoinHandle,
};

use tokio_util::sync::CancellationToken;

use crate::{
    admin::public::{self, Purpose, Seen},
    control::holder,
    host,
    settings::{AdminListen, MetricsOptions},
    telemetry,
};

/// Ports tried after the one asked for.
const MORE_PORTS: u16 = 9;
/// Where kube-proxy answers `/healthz` and `/livez`.
const KUBE_PROXY_HEALTH: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 10256);
/// Where kube-proxy answers `/metrics`, `/proxyMode` and `/healthz`.
const KUBE_PROXY_METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 10249);

/// The thread, and where it answers.
pub(super) struct Observing {
    /// The address of the admin interface, if it has one.
    pub(super) address: Option<SocketAddr>,
    cancel: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Observing {
    /// Binds what can be bound and begins to answer. An address that cannot be had is a warning: the program serves
    /// Services without it.
    pub(super) fn start(options: &MetricsOptions, seen: Seen) -> io::Result<Self> {
        telemetry::metrics::install();
        let mut listeners = Vec::new();
        let mut address = None;
        if let AdminListen::At(wanted) = options.admin_listen
            && let Some(listener) = bind(wanted, MORE_PORTS)
        {
            address = listener.local_addr().ok();
            if let Some(address) = address {
                tracing::info!(%address, "metrics and health are served at http://{address}/metrics");
            }
            listeners.push((listener, Purpose::Admin));
        }
        if options.kube_proxy_ports {
            let wanted = [
                (KUBE_PROXY_HEALTH, Purpose::KubeProxyHealth),
                (KUBE_PROXY_METRICS, Purpose::KubeProxyMetrics),
            ];
            for ((ip, port), purpose) in wanted {
                let listener = bind(SocketAddr::new(IpAddr::V4(ip), port), 0);
                listeners.extend(listener.map(|listener| (listener, purpose)));
            }
        }
        let cancel = CancellationToken::new();
        let ended = cancel.clone();
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(public::serve(listeners, seen, ended)),
                    Err(error) => tracing::error!(%error, "the admin interface has no runtime"),
                }
            })?;
        Ok(Self {
            address,
            cancel,
            thread: Some(thread),
        })
    }

    /// Ends it and waits.
    pub(super) fn stop(mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The address, or one of `more` ports after it.
fn bind(wanted: SocketAddr, more: u16) -> Option<TcpListener> {
    let bound = host::listen_near(wanted, more);
    bound.inspect_err(|error| warn(wanted, error)).ok()
}

fn warn(address: SocketAddr, error: &io::Error) {
    let holder =
        holder::holder_of(address).map_or_else(String::new, |holder| format!(", {holder}"));
    tracing::warn!(%address, "metrics and health are not served there: {error}{holder}");
}
