//! What a measurement stands on: backends and, in front of them, one proxy, each with its own ports on loopback. Owns
//! their order and their end: whatever way the value goes, nothing it started is left.

mod configuration;
mod pinned;
mod process;
mod programs;
mod simulated;
mod usage;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

pub(crate) use configuration::{Place, manifests, of as configuration};
pub(crate) use pinned::{Core, Pinned};
pub(crate) use process::bound;
pub(crate) use programs::{Programs, missing};
pub(crate) use simulated::Simulated;
pub(crate) use usage::Usage;

use crate::{
    backend::{self, Servers},
    client,
    dns::Fixture,
    http2::{self, Asked},
    load::bulk,
    scenario::{Contestant, Layer, Load, Scenario},
    udp::{self, Echo},
};
use process::Running;

/// Patience with what was started.
const PATIENCE: Duration = Duration::from_secs(10);

/// Backends of one run.
pub(crate) struct Stage {
    // The order matters: what writes into the folder ends before it goes.
    backends: Behind,
    addrs: Vec<SocketAddr>,
    /// What servers of names are to answer.
    fixture: Option<Fixture>,
    /// What is asked of those that speak HTTP/2.
    asked: Option<Asked>,
    folder: TempDir,
}

/// What runs behind the proxies; each ends with its value.
enum Behind {
    Nginx(Vec<Running>),
    Own(Servers),
    Callees(Servers),
    Sinks(Servers),
    Echoes(Vec<Echo>),
}

impl Stage {
    /// Starts the backends of a scenario: nginx where it is installed, else servers of our own.
    ///
    /// # Errors
    /// One of them does not answer.
    pub(crate) async fn new(scenario: &Scenario, programs: &Programs) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("loadtest-").context("cannot make a folder")?;
        let count = usize::from(scenario.backends);
        let asked = scenario.load.asked();
        let (backends, addrs) = if matches!(scenario.load, Load::Bulk {}) {
            let sinks = backend::sinks(count).await?;
            let addrs = sinks.addrs().to_vec();
            (Behind::Sinks(sinks), addrs)
        } else if matches!(
            scenario.load,
            Load::Udp { .. } | Load::Dns { .. } | Load::DnsReload { .. }
        ) {
            let _pinned = pinned(scenario)?;
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let echoes: Vec<Echo> = (0..count)
                .map(|_| Echo::start(any))
                .collect::<anyhow::Result<_>>()?;
            let addrs = echoes.iter().map(Echo::addr).collect();
            (Behind::Echoes(echoes), addrs)
        } else if let (Some(nginx), None | Some(Asked::Page)) = (&programs.nginx, asked) {
            let (running, addrs) = nginx_backends(nginx, folder.path(), (count, scenario.layer))?;
            (Behind::Nginx(running), addrs)
        } else if asked.is_some() {
            let callees = http2::callees(count).await?;
            let addrs = callees.addrs().to_vec();
            (Behind::Callees(callees), addrs)
        } else {
            let own = backend::named(count).await?;
            let addrs = own.addrs().to_vec();
            (Behind::Own(own), addrs)
        };
        let stage = Self {
            backends,
            addrs,
            fixture: scenario.load.fixture(range()),
            asked,
            folder,
        };
        for addr in &stage.addrs {
            stage.answer(*addr, None).await?;
        }
        Ok(stage)
    }

    /// What answers in the backends, for the record.
    pub(crate) fn served_by(&self) -> String {
        match &self.backends {
            Behind::Nginx(running) => format!("nginx, {} of one process", running.len()),
            Behind::Own(own) => format!("its own HTTP, {}", own.addrs().len()),
            Behind::Callees(callees) => format!("its own HTTP/2, {}", callees.addrs().len()),
            Behind::Sinks(sinks) => format!("its own, {} that count bytes", sinks.addrs().len()),
            Behind::Echoes(echoes) => format!("its own, {} that echo", echoes.len()),
        }
    }

    /// Where the backends are.
    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.path().join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Starts a proxy before the backends and waits until it answers.
    ///
    /// # Errors
    /// It does not start, or ends, or does not answer.
    pub(crate) async fn proxy(
        &self,
        contestant: Contestant,
        scenario: &Scenario,
        programs: &Programs,
    ) -> anyhow::Result<Proxy> {
        let target = target(contestant)?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let place = Place {
            target,
            backends: &self.addrs,
            range: range(),
        };
        let text = configuration(contestant, scenario, place);
        let pinned = pinned(scenario)?;
        let (process, manifest) = match contestant {
            Contestant::Direct => (None, None),
            Contestant::Haproxy => {
                let file = self.write("haproxy.cfg", &text)?;
                (Some(programs.haproxy(&file, self.path())?), None)
            }
            Contestant::Nginx => {
                let file = self.write("stream.conf", &text)?;
                (Some(programs.stream(&file, self.path())?), None)
            }
            Contestant::Envoy => {
                let file = self.write("envoy.json", &text)?;
                let process = programs.envoy(&file, self.path(), scenario.threads)?;
                (Some(process), None)
            }
            Contestant::Knot | Contestant::Unbound | Contestant::Dnsmasq | Contestant::Hickory => {
                for (zone, text) in self.fixture.iter().flat_map(|fixture| fixture.zones()) {
                    self.write(&format!("{zone}.zone"), &text)?;
                }
                let file = self.write("names.conf", &text)?;
                (Some(programs.names(contestant, &file, self.path())?), None)
            }
            Contestant::Portico | Contestant::PorticoRandom | Contestant::PorticoScraped => {
                let (process, manifest) =
                    self.portico(&text, (target, admin), scenario, programs)?;
                (Some(process), Some(manifest))
            }
        };
        drop(pinned);
        let target = match contestant {
            Contestant::Direct => *self.addrs.first().context("there is no backend")?,
            _ => target,
        };
        let mut proxy = Proxy {
            target,
            process,
            manifest,
            scraped: (contestant == Contestant::PorticoScraped).then_some(admin),
        };
        self.answer(target, proxy.process.as_mut()).await?;
        Ok(proxy)
    }

    /// portico with `text` for manifests, and the file that has it.
    fn portico(
        &self,
        text: &str,
        (target, admin): (SocketAddr, SocketAddr),
        scenario: &Scenario,
        programs: &Programs,
    ) -> anyhow::Result<(Running, PathBuf)> {
        let manifests = programs::portico_folders(self.path())?;
        let manifest = manifests.join("service.yaml");
        std::fs::write(&manifest, text).context("cannot write the manifests")?;
        let backend = *self.addrs.first().context("there is no backend")?;
        let extra = configuration::extra(target, backend, scenario.extra_services)?;
        std::fs::write(manifests.join("extra.yaml"), extra)
            .context("cannot write the manifests")?;
        let asked = target.to_string();
        let more: &[&str] = match self.fixture {
            Some(_) => &["--dns-listen", &asked],
            None => &[],
        };
        let process = programs.portico(self.path(), (target, admin), scenario.threads, more)?;
        Ok((process, manifest))
    }

    /// Waits for the first answer.
    async fn answer(
        &self,
        addr: SocketAddr,
        mut process: Option<&mut Running>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = match (&self.backends, self.fixture, self.asked) {
                (_, _, Some(asked)) => http2::ask(addr, asked).await,
                (Behind::Echoes(_), Some(names), _) if process.is_some() => names.check(addr).await,
                (Behind::Echoes(_), ..) => udp::probe(addr).await,
                (Behind::Sinks(_), ..) => bulk::probe(addr).await.map_err(anyhow::Error::msg),
                _ => {
                    let asked = client::ask(addr, PATIENCE).await;
                    asked.map(drop).map_err(anyhow::Error::msg)
                }
            };
            let Err(failure) = answer else { return Ok(()) };
            if let Some(process) = &mut process {
                process.check()?;
            }
            if Instant::now() > deadline {
                let log = process
                    .map(|process| process.log_tail())
                    .unwrap_or_default();
                bail!("no good answer at {addr}: {failure:#}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn nginx_backends(
    nginx: &Path,
    folder: &Path,
    (count, layer): (usize, Layer),
) -> anyhow::Result<(Vec<Running>, Vec<SocketAddr>)> {
    let mut running = Vec::new();
    let mut addrs = Vec::new();
    for number in 0..count {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let name = format!("backend-{number}");
        let file = folder.join(format!("{name}.conf"));
        std::fs::write(&file, configuration::backend(number, addr.port(), layer))?;
        running.push(programs::nginx(nginx, &file, folder, &name)?);
        addrs.push(addr);
    }
    Ok((running, addrs))
}

/// A proxy that answers, or the first backend itself. Ends with the value.
pub(crate) struct Proxy {
    /// Where clients connect.
    pub(crate) target: SocketAddr,
    /// Where its metrics are, if they are to be scraped under load.
    pub(crate) scraped: Option<SocketAddr>,
    process: Option<Running>,
    manifest: Option<PathBuf>,
}

impl Proxy {
    /// What its processes have used; `None` without a proxy.
    ///
    /// # Errors
    /// They cannot be seen.
    pub(crate) fn usage(&self) -> anyhow::Result<Option<Usage>> {
        let process = self.process.as_ref();
        process
            .map(|process| Usage::of_group(process.group()))
            .transpose()
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let process = self.process.as_ref();
        process.map_or(Ok(Vec::new()), |process| usage::pids(process.group()))
    }

    /// Declares other backends; of portico only.
    ///
    /// # Errors
    /// The manifest cannot be written, or there is none.
    pub(crate) fn declare(&self, text: &str) -> anyhow::Result<()> {
        let manifest = self
            .manifest
            .as_ref()
            .context("only portico has manifests")?;
        let temporary = manifest.with_extension("new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, manifest)?;
        Ok(())
    }
}

/// Holds what is started to the server's core, where the load wants that.
fn pinned(scenario: &Scenario) -> anyhow::Result<Option<Pinned>> {
    let is_wanted = matches!(scenario.load, Load::Dns { .. });
    is_wanted.then(|| Pinned::to(Core::First)).transpose()
}

/// The first half of portico's addresses: a range that no default touches, by process, so that two runs do not meet.
pub(crate) fn range() -> [u8; 2] {
    // Less than 230.
    [
        127,
        u8::try_from(130 + std::process::id() % 100).unwrap_or(u8::MAX),
    ]
}

/// Where a proxy listens.
fn target(contestant: Contestant) -> anyhow::Result<SocketAddr> {
    let port = free_port()?;
    Ok(match contestant {
        _ if contestant.is_portico() => {
            let [first, second] = range();
            SocketAddr::from(([first, second, 0, 7], port))
        }
        _ => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    })
}

/// A port that is free on 127.0.0.1 now, below the ports of outgoing connections (ip(7), `ip_local_port_range`) and the
/// node ports; each is given once.
fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT))?;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Relaxed) % COUNT) % COUNT;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

#[cfg(test)]
pub(crate) mod tests;
