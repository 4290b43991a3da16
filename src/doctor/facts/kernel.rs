//! What files of the system say: /proc/sys, /proc/self/status, sockets of engines. Owns their forms.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net};
use rustix::{
    fs::{getxattr, inotify},
    process::{Resource, getrlimit},
    thread::CapabilitySet,
};

use super::{Containers, Limits, Privilege};
use crate::host;

/// Network devices of container engines: bridges of Docker, of its networks, of podman and of CNI.
const BRIDGES: [&str; 4] = ["docker", "br-", "podman", "cni"];
/// Engines' sockets below the root, and below `$XDG_RUNTIME_DIR` for a user's own.
const ENGINES: [(&str, &str, &str); 2] = [
    ("docker", "run/docker.sock", "docker.sock"),
    ("podman", "run/podman/podman.sock", "podman/podman.sock"),
];

/// Files below a root.
pub(super) struct Files<'a>(pub(super) &'a Path);

impl Files<'_> {
    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    /// A number of sysctl(8).
    fn sysctl(&self, name: &str) -> Option<u64> {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        self.text(&path)?.trim().parse().ok()
    }

    /// The value of a line of `/proc/self/status` (proc(5)).
    fn own_status(&self, key: &str) -> Option<String> {
        let text = self.text("proc/self/status")?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    fn capabilities(&self) -> CapabilitySet {
        let hex = self.own_status("CapEff").unwrap_or_default();
        CapabilitySet::from_bits_retain(u64::from_str_radix(&hex, 16).unwrap_or_default())
    }

    pub(super) fn is_debian(&self) -> bool {
        self.0.join("etc/debian_version").exists()
    }

    pub(super) fn privilege(&self, binary: &Path) -> Privilege {
        let port = self.sysctl("net.ipv4.ip_unprivileged_port_start");
        Privilege {
            may_bind: self
                .capabilities()
                .contains(CapabilitySet::NET_BIND_SERVICE),
            file_may_bind: file_capabilities(binary).contains(CapabilitySet::NET_BIND_SERVICE),
            no_new_privs: self.own_status("NoNewPrivs").as_deref() == Some("1"),
            unprivileged_ports_from: port.and_then(|port| u16::try_from(port).ok()),
        }
    }

    pub(super) fn containers(&self) -> Containers {
        let is_socket = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        };
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let engines = ENGINES.into_iter().filter_map(|(name, of_all, of_user)| {
            let of_user = own.as_ref().map(|own| own.join(of_user));
            let mut sockets = [self.0.join(of_all)].into_iter().chain(of_user);
            let socket = sockets.find(is_socket)?;
            Some(format!("{name} ({})", socket.display()))
        });
        let routes = self.text("proc/net/route").unwrap_or_default();
        Containers {
            engines: engines.collect(),
            gateways: gateways(&routes, &host::addresses()),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        let exempt = CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let refused = inotify::init(inotify::CreateFlags::CLOEXEC).err();
        let text = |name: &str| {
            self.text(&format!("proc/sys/net/ipv4/{name}"))
                .unwrap_or_default()
        };
        Limits {
            // A start raises its limit to this one.
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            pipe_pages: self.sysctl("fs.pipe-user-pages-soft"),
            is_exempt_from_pipes: self.capabilities().intersects(exempt),
            workers: u64::try_from(workers).unwrap_or(u64::MAX),
            inotify_refused: refused.map(|error| error.to_string()),
            watches: self.sysctl("fs.inotify.max_user_watches"),
            local_ports: text("ip_local_port_range").trim().to_owned(),
            reserved_ports: text("ip_local_reserved_ports"),
            queue: self.sysctl("net.core.somaxconn"),
        }
    }
}

/// What the file gives to a process that starts it: `vfs_cap_data` of capabilities(7), whose second word has the lower
/// half of the permitted set.
fn file_capabilities(binary: &Path) -> CapabilitySet {
    let mut bytes = [0; 24];
    let read = getxattr(
        binary,
        OsStr::from_bytes(b"security.capability"),
        &mut bytes,
    );
    let [_, _, _, _, a, b, c, d, ..] = bytes;
    let permitted = read.map_or(0, |_| u32::from_le_bytes([a, b, c, d]));
    CapabilitySet::from_bits_retain(u64::from(permitted))
}

/// Addresses of this host in the networks of bridges, from the text of `/proc/net/route`: name, network and, in the
/// eighth column, mask, as words of the processor.
fn gateways(routes: &str, host: &[IpAddr]) -> Vec<(String, IpAddr)> {
    let word = |hex: &str| {
        let word = u32::from_str_radix(hex, 16).ok()?;
        Some(Ipv4Addr::from(word.to_ne_bytes()))
    };
    let network = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [name, network, _, _, _, _, _, mask, ..] = columns.as_slice() else {
            return None;
        };
        let is_bridge = BRIDGES.iter().any(|bridge| name.starts_with(bridge));
        let net = Ipv4Net::with_netmask(word(network)?, word(mask)?).ok()?;
        is_bridge.then(|| ((*name).to_owned(), IpNet::V4(net)))
    };
    let networks = routes.lines().skip(1).filter_map(network);
    networks
        .filter_map(|(name, net)| Some((name, *host.iter().find(|addr| net.contains(*addr))?)))
        .collect()
}

#[cfg(test)]
mod tests;
