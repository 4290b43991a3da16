//! `portico proxy`: one port by which any program reaches Services by name. Owns its arguments and where it listens.

use std::{
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
    host::listen_near,
    proxy::{self, Door},
    settings::InstanceOptions,
};

/// Where it listens when nothing is said.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7080);
/// Ports after the usual one that are tried when it is taken.
const MORE_PORTS: u16 = 19;

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
        let (wanted, more) = args
            .address
            .map_or((USUAL, MORE_PORTS), |address| (address, 0));
        let listener = listen_near(wanted, more).with_context(|| {
            let others = match more {
                0 => String::new(),
                more => format!(" or the {more} ports after it; choose one with --address"),
            };
            format!("cannot listen on {wanted}{others}")
        })?;
        let listener = TcpListener::from_std(listener)?;
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
