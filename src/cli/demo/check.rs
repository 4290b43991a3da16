//! `portico demo --check`: real connections through every way in, counted by the pod that answered. Owns the three
//! doors and the verdict.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::is_complete;
use crate::{
    app::{App, Happening},
    control::status::{ServiceStatus, Status},
};

use crate::{bench, cli::say};

/// Connections a door.
const CONNECTIONS: u64 = 100;
/// Patience with one connection, and with the pods to come up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The other container port of the demo's pods.
const OTHER_PORT: u16 = 9090;
/// The file that makes one pod heavier.
const HEAVIER: &str = "heavier.yaml";

/// Runs the proof, then ends the program.
pub(super) async fn run(mut app: App, folder: &Path, heavier: bool) -> anyhow::Result<ExitCode> {
    let outcome = timeout(PATIENCE * 2, prove(&mut app, folder, heavier)).await;
    app.stop();
    app.stop();
    let _ = app.finished().await;
    let even = outcome.context("the check did not come to an end in time")??;
    say::line(if even {
        "EVEN: every door is exactly even"
    } else {
        "UNEVEN"
    });
    Ok(if even {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn prove(app: &mut App, folder: &Path, heavier: bool) -> anyhow::Result<bool> {
    let mut status = wait_for(app, is_complete).await?;
    if heavier {
        std::fs::write(folder.join(HEAVIER), heavier_slice(&status)?)?;
        status = wait_for(app, |status| {
            web(status).is_ok_and(|web| endpoints(web) > 4)
        })
        .await?;
    }
    let cluster_ip = door(&status, "ClusterIP")?;
    let node_port = door(&status, "NodePort")?;
    let dns = status
        .dns
        .iter()
        .find_map(|dns| dns.bound)
        .context("DNS is not served anywhere")?;
    say::line(format!("{} pods, DNS at {dns}", status.pods.len()));
    let mut even = count("ClusterIP", cluster_ip, None).await?;
    even &= count("NodePort", node_port, None).await?;
    even &= count("name", cluster_ip, Some(dns)).await?;
    Ok(even)
}

async fn wait_for(app: &mut App, done: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
    let waiting = async {
        loop {
            let status = app.status().await?;
            if done(&status) {
                return Ok(status);
            }
            if let Happening::Ended(_) = app.next().await? {
                bail!("the program ended");
            }
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .context("the demo's pods did not come up in time")?
}

/// 100 connections to `target`; with `dns`, each looks the name up first and takes the address from the answer.
async fn count(door: &str, target: SocketAddr, dns: Option<SocketAddr>) -> anyhow::Result<bool> {
    let mut pods: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..CONNECTIONS {
        let target = match dns {
            None => target,
            Some(server) => SocketAddr::new(look_up(server).await?, target.port()),
        };
        let name = timeout(PATIENCE, ask(target))
            .await
            .context("no answer in time")??;
        *pods.entry(name).or_default() += 1;
    }
    say::line(format!("{door} ({target}):"));
    for (pod, connections) in &pods {
        say::line(format!("  {connections:>4}  {pod}"));
    }
    let (least, most) = (pods.values().min(), pods.values().max());
    Ok(least == most && pods.len() >= 4)
}

async fn look_up(server: SocketAddr) -> anyhow::Result<IpAddr> {
    let answer = bench::ask_name(server, "web.default.svc.cluster.local", PATIENCE).await?;
    answer
        .parse()
        .with_context(|| format!("the name has no address: {answer}"))
}

/// The pod that answers.
async fn ask(target: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(target)
        .await
        .with_context(|| format!("cannot connect to {target}"))?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    let body = answer
        .split("\r\n\r\n")
        .nth(1)
        .context("not an HTTP answer")?;
    Ok(body.lines().next().unwrap_or_default().to_owned())
}

fn web(status: &Status) -> anyhow::Result<&ServiceStatus> {
    status
        .services
        .iter()
        .find(|service| service.name == "web")
        .context("the Service web is gone")
}

fn endpoints(service: &ServiceStatus) -> usize {
    service.ports.first().map_or(0, |port| port.endpoints.len())
}

fn door(status: &Status, kind: &str) -> anyhow::Result<SocketAddr> {
    let ways = web(status)?.ports.iter().flat_map(|port| &port.reachable);
    let bound = ways
        .filter(|way| way.kind == kind)
        .find_map(|way| way.bound);
    bound.with_context(|| format!("the {kind} is not served"))
}

/// A slice that lists the first pod once more, by its other port, which leads to the same pod: its share doubles.
fn heavier_slice(status: &Status) -> anyhow::Result<String> {
    let endpoint = web(status)?
        .ports
        .first()
        .and_then(|port| port.endpoints.first())
        .context("no endpoint")?;
    Ok(format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: heavier\n  labels:\n    \
         kubernetes.io/service-name: web\naddressType: IPv4\nports:\n  - name: http\n    port: {OTHER_PORT}\nendpoints:\n  - \
         addresses: [\"{}\"]\n",
        endpoint.address.ip()
    ))
}
