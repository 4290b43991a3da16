//! What is to be known of the machine. Owns reading it, all in one place: sockets are bound for a moment and let go, names
//! are looked up within a deadline, files are read below a root that tests choose. Judges nothing.

mod kernel;
mod lookup;
mod sockets;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

pub use lookup::Lookup;
use rustix::process::geteuid;

use crate::{
    control::{
        holder,
        status::{ServiceStatus, Status},
    },
    host::{self, routes},
    instance::{Instance, InstanceDirs},
    run::namespaces,
    settings::InstanceOptions,
};

/// Where `portico proxy` listens when nothing is said.
const DOOR: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7080);
/// Programs that lead from a network namespace to the outside.
const OUTSIDE: &[&str] = &["pasta", "slirp4netns"];
/// The first gives root up before it would join root's namespaces, and may not.
const OUTSIDE_OF_ROOT: &[&str] = &["slirp4netns"];
/// Ports below 1024 that Services have: the first that nobody holds is tried.
const LOW_PORTS: [u16; 3] = [80, 443, 1023];

/// What the running program says.
#[derive(Debug)]
pub enum Program {
    /// Nothing runs under this name.
    Absent,
    /// Nothing runs, and this socket is left of one that was killed.
    Killed(PathBuf),
    /// It runs and does not answer, with the reason.
    Silent(String),
    /// It runs.
    Running(Box<Status>),
}

/// A socket that was bound for a moment, or could not be.
#[derive(Debug)]
pub struct Attempt {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Where.
    pub addr: SocketAddr,
    /// Why not.
    pub failure: Option<Failure>,
}

/// Why a socket could not be bound.
#[derive(Debug)]
pub struct Failure {
    /// The system's reason.
    pub kind: io::ErrorKind,
    /// The same for people.
    pub text: String,
    /// Who is in the way.
    pub holder: Option<String>,
    /// What to type; empty where nothing is known to help.
    pub fix: String,
}

/// An address and port of a Service that cannot be had.
#[derive(Debug)]
pub struct Missing {
    /// Which.
    pub addr: SocketAddr,
    /// Of which Service.
    pub service: String,
    /// Why not.
    pub why: String,
    /// Who is in the way.
    pub holder: Option<String>,
    /// Where it is, or would be, served instead.
    pub instead: Option<SocketAddr>,
    /// What to type.
    pub fix: String,
}

/// Services whose sockets were looked at.
#[derive(Debug)]
pub enum Services {
    /// None: nothing runs, and no folder was named.
    Unknown,
    /// Those of the running program.
    Running {
        /// What it could not have.
        missing: Vec<Missing>,
        /// Its listeners.
        all: usize,
    },
    /// Those of the folder that was named.
    Declared {
        /// What could not be had.
        missing: Vec<Missing>,
        /// Addresses and ports that they declare.
        all: usize,
    },
}

/// What this process may do.
#[derive(Debug, Default)]
pub struct Privilege {
    /// It has `CAP_NET_BIND_SERVICE`.
    pub may_bind: bool,
    /// The file that it was started from has that capability.
    pub file_may_bind: bool,
    /// Starting a file gives no privilege (`no_new_privs`, prctl(2)).
    pub no_new_privs: bool,
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub unprivileged_ports_from: Option<u16>,
}

/// What `portico run` needs.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Why they could not be made.
    pub refused: Option<Refusal>,
    /// What leads from the inside to other machines.
    pub outside: Option<&'static str>,
    /// This is root, whom pasta does not serve.
    pub is_root: bool,
}

/// What the system does not let us do.
#[derive(Debug)]
pub struct Refusal {
    /// What, and why not.
    pub why: String,
    /// What to type, if anything is known to help.
    pub fix: Option<String>,
}

/// Containers of this machine.
#[derive(Debug, Default)]
pub struct Containers {
    /// Engines whose socket is there.
    pub engines: Vec<String>,
    /// Bridges, and the address of this host on each.
    pub gateways: Vec<(String, IpAddr)>,
}

/// Bounds of the system.
#[derive(Debug, Default)]
pub struct Limits {
    /// The hard limit of open files.
    pub open_files: u64,
    /// `fs.pipe-user-pages-soft`.
    pub pipe_pages: Option<u64>,
    /// That bound is not for us: root, `CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN`.
    pub is_exempt_from_pipes: bool,
    /// Worker threads that a program would have.
    pub workers: u64,
    /// Why no files can be watched.
    pub inotify_refused: Option<String>,
    /// `fs.inotify.max_user_watches`.
    pub watches: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, as it stands in the file.
    pub local_ports: String,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: String,
    /// `net.core.somaxconn`.
    pub queue: Option<u64>,
}

/// Everything that the checks look at.
#[derive(Debug)]
pub struct Facts {
    /// Name of the instance.
    pub instance: String,
    /// Our own version.
    pub version: String,
    /// The file that we were started from.
    pub binary: String,
    /// The distribution is Debian or made of it.
    pub is_debian: bool,
    /// What runs.
    pub program: Program,
    /// A connection to an address of 127/8, on any port.
    pub loopback: Attempt,
    /// The same on a port below 1024.
    pub low_port: Attempt,
    /// Who may bind those.
    pub privilege: Privilege,
    /// Addresses and ports of Services.
    pub services: Services,
    /// Ports that somebody listens on by a wildcard address, and who; looked for only without Services.
    pub wildcards: Vec<(u16, String)>,
    /// Port 53 of the DNS address; tried only while no program answers there.
    pub dns: Vec<Attempt>,
    /// A name of ours, and the addresses that it has, while a program runs.
    pub our_name: Option<(Lookup, Vec<IpAddr>)>,
    /// A name below `localhost`.
    pub localhost_name: Lookup,
    /// What `portico run` needs.
    pub namespaces: Namespaces,
    /// Where `portico proxy` listens.
    pub door: Attempt,
    /// The door is held by a portico.
    pub is_door_ours: bool,
    /// Containers.
    pub containers: Containers,
    /// Addresses of this host.
    pub host: Vec<IpAddr>,
    /// Bounds.
    pub limits: Limits,
    /// Ports of `nodePort`.
    pub node_ports: (u16, u16),
    /// Routes that a killed portico left.
    pub left_routes: Vec<routes::Left>,
}

/// What is to be looked at.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Which program.
    pub instance: &'a InstanceOptions,
    /// What it says.
    pub program: Program,
    /// Services of the folder that was named, with where each would be served.
    pub declared: Option<Vec<ServiceStatus>>,
    /// Range of node ports.
    pub node_ports: (u16, u16),
}

impl Facts {
    /// Looks at the machine, with files below `root` (`/` but for tests).
    ///
    /// # Errors
    /// The name of the instance is none.
    pub fn read(asked: Asked<'_>, root: &Path) -> anyhow::Result<Self> {
        let Asked {
            instance,
            program,
            declared,
            node_ports,
        } = asked;
        let dirs = InstanceDirs {
            runtime_dir: instance.runtime_dir.clone(),
            state_dir: instance.state_dir.clone(),
        };
        let (_, ranges) = Instance::look_up(&instance.instance, &dirs)?;
        let local = Lookup::start("web.default.svc.localhost");
        let ours = our_name(&program);
        let running = match &program {
            Program::Running(status) => Some(&**status),
            _ => None,
        };
        let services = sockets::services(declared.as_deref(), running);
        let wildcards = match services {
            Services::Unknown => sockets::wildcards(),
            _ => Vec::new(),
        };
        let free_dns =
            || ["UDP", "TCP"].map(|protocol| sockets::attempt(protocol, (ranges.dns, 53).into()));
        let dns = if running.is_none() {
            free_dns().into()
        } else {
            Vec::new()
        };
        let low_ports = LOW_PORTS.map(|port| sockets::attempt("TCP", (ranges.dns, port).into()));
        let door = sockets::attempt("TCP", DOOR);
        let files = kernel::Files(root);
        let binary = std::env::current_exe().unwrap_or_else(|_| "portico".into());
        let binary = binary.display().to_string();
        Ok(Self {
            instance: instance.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            privilege: files.privilege(Path::new(&binary)),
            is_debian: files.is_debian(),
            loopback: sockets::connect(ranges.dns),
            low_port: sockets::first_not_held(low_ports),
            services,
            wildcards,
            dns,
            our_name: ours.map(|(pending, addrs)| (pending.finish(), addrs)),
            localhost_name: local.finish(),
            namespaces: namespaces(&binary),
            binary,
            is_door_ours: holder::holder_of(DOOR)
                .is_some_and(|holder| holder.command.as_deref() == Some("portico")),
            door,
            containers: files.containers(),
            host: host::addresses(),
            limits: files.limits(),
            node_ports,
            left_routes: routes::left(),
            program,
        })
    }
}

/// Makes namespaces, in a process that ends at once, and looks for what leads out of them.
fn namespaces(binary: &str) -> Namespaces {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let is_root = geteuid().is_root();
    let candidates = if is_root { OUTSIDE_OF_ROOT } else { OUTSIDE };
    Namespaces {
        refused: namespaces::probe().err().map(|error| Refusal {
            why: error.to_string(),
            fix: error.fix(binary),
        }),
        outside: candidates.iter().copied().find(is_there),
        is_root,
    }
}

/// A name that the running program has in any case, looked up by the operating system, and what it leads to.
fn our_name(program: &Program) -> Option<(lookup::Pending, Vec<IpAddr>)> {
    let Program::Running(status) = program else {
        return None;
    };
    let domain = status
        .domains
        .first()
        .map_or("cluster.local", String::as_str);
    let places = status.dns.iter();
    let addrs = places
        .map(|dns| dns.bound.unwrap_or(dns.wanted).ip())
        .collect();
    Some((Lookup::start(&format!("ns.dns.{domain}")), addrs))
}
