//! `portico proxy`: one port by which any program reaches Services by name. Owns its arguments and where it listens.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::{change::Namespace, say};
use crate::{
    admin::client,
    proxy::{self, Door},
    settings::InstanceOptions,
};

/// Where it listens when nothing is said.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7080);
/// Ports after the usual one that are tried when it is taken.
const MORE_PORTS: u16 = 20;

/// Arguments of `portico proxy`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico proxy                                    at 127.0.0.1:7080, or the next free port
  curl http://web.default.svc.localhost:7080/      HTTP to a Service, with nothing set up
  curl --proxy socks5h://127.0.0.1:7080 http://web.shop/
  portico proxy -n shop --address 127.0.0.1:1080   short names are of namespace shop")]
pub struct ProxyArgs {
    /// Where to listen; clients of other machines get to Services only [default: 127.0.0.1:7080, else the next free
    /// port]
    #[arg(long, value_name = "ADDR:PORT")]
    address: Option<SocketAddr>,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// `portico proxy`: until it is interrupted.
///
/// # Errors
/// No program runs under this instance name, or the address cannot be had.
pub fn run(args: &ProxyArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    // Said now, and not to the first client.
    client::get(instance, "/v1/generation")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = match args.address {
            Some(address) => TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?,
            None => next_free().await?,
        };
        let door = Door {
            instance: instance.clone(),
            namespace: args.namespace.namespace.clone(),
            address: listener.local_addr()?,
            tasks: TaskTracker::new(),
        };
        say::line(format!("Serving at {}", door.address));
        say::text(proxy::usage(door.address));
        tokio::select! {
            () = proxy::serve(listener, Arc::new(door)) => Ok(ExitCode::FAILURE),
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        }
    })
}

async fn next_free() -> anyhow::Result<TcpListener> {
    for more in 0..MORE_PORTS {
        let address = SocketAddr::new(USUAL.ip(), USUAL.port().saturating_add(more));
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound.with_context(|| format!("cannot listen on {address}")),
        }
    }
    anyhow::bail!(
        "{USUAL} and the {} ports after it are taken; choose one with --address",
        MORE_PORTS - 1
    )
}
