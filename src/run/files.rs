//! Files of `/etc` as programs inside see them: names lead to our DNS, by way of every resolver. Owns their text and
//! that they are laid over the host's without touching those; which server and names they say is told.

use std::{
    convert::Infallible,
    fmt::Write as _,
    fs::{self, File, Permissions},
    io,
    net::IpAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::CWD,
    mount::{
        MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, move_mount,
        open_tree, unmount,
    },
};

/// resolv.conf(5).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// nsswitch.conf(5).
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";
/// Where daemons of the host answer for the C library: nscd(8) and systemd-resolved, by nss-resolve(8). What they say
/// is true outside.
const SOCKETS: [&str; 2] = [
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
];
/// A folder that every system has, hidden for the moment in which the files come into being.
const STAGE: &str = "/tmp";
/// When to look again for a file that is gone.
const SOON: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Options of resolv.conf(5) that concern the program that asks; others concern the host's servers.
const OPTIONS: [&str; 7] = [
    "timeout",
    "attempts",
    "edns0",
    "single-request",
    "single-request-reopen",
    "use-vc",
    "no-aaaa",
];

/// Why names do not work inside.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// There is nothing that could be covered.
    #[error(
        "{RESOLV_CONF} is missing, where programs look for DNS; to have one: sudo touch {RESOLV_CONF}"
    )]
    Missing,
    /// The system refuses.
    #[error("cannot {action} {path}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn refused<E: Into<io::Error>>(
    action: &'static str,
    path: &'static str,
) -> impl Fn(E) -> FilesError {
    move |source| FilesError::Refused {
        action,
        path,
        source: source.into(),
    }
}

/// The files, laid over the host's in this mount namespace.
#[derive(Debug)]
pub(super) struct Files {
    resolv_conf: File,
    /// The host's.
    outside: String,
}

impl Files {
    /// Lays them. What they are made of is in no folder: it goes with the namespace.
    ///
    /// # Errors
    /// There is no resolv.conf, or the system refuses to mount.
    pub(super) fn lay(dns: IpAddr, search: &[String]) -> Result<Self, FilesError> {
        let outside = fs::read_to_string(RESOLV_CONF).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FilesError::Missing,
            _ => refused("read", RESOLV_CONF)(error),
        })?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", STAGE, "tmpfs", flags, c"mode=0755").map_err(refused("mount", STAGE))?;
        let laid = lay_staged();
        unmount(STAGE, UnmountFlags::DETACH).map_err(refused("unmount", STAGE))?;
        let files = Self {
            resolv_conf: laid?,
            outside,
        };
        files.say(dns, search)?;
        Ok(files)
    }

    /// Writes what resolv.conf says.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn say(&self, dns: IpAddr, search: &[String]) -> Result<(), FilesError> {
        let text = resolv_conf(dns, search, &self.outside);
        let length = u64::try_from(text.len()).unwrap_or_default();
        // In this order who reads meanwhile sees no server less.
        let written = self.resolv_conf.write_all_at(text.as_bytes(), 0);
        written
            .and_then(|()| self.resolv_conf.set_len(length))
            .map_err(refused("write", RESOLV_CONF))
    }
}

/// Sees to it that resolv.conf stays laid; returns when it cannot. If a program outside puts another file in the place of
/// the one that is covered, as every change of networks does, the kernel takes away what covered it.
///
/// # Errors
/// The kernel has no detached mounts (before Linux 5.2), or refuses one.
pub(super) fn stay() -> io::Result<Infallible> {
    // Every change of mounts is an event there (proc(5)).
    let mounts = File::open("/proc/self/mountinfo")?;
    let laid = which(RESOLV_CONF);
    let mut spare = spare()?;
    let mut patience = None;
    loop {
        let mut events = [PollFd::new(&mounts, PollFlags::PRI)];
        let _event_or_time = poll(&mut events, patience.as_ref());
        patience = None;
        if which(RESOLV_CONF) == laid {
            continue;
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        match move_mount(&spare, "", CWD, RESOLV_CONF, flags) {
            Ok(()) => spare = self::spare()?,
            // The new file is not there yet, which is no event.
            Err(_) => patience = Some(SOON),
        }
    }
}

/// What is laid, once more and nowhere yet.
fn spare() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, RESOLV_CONF, flags)?)
}

/// Which file it is.
fn which(path: &str) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Returns the resolv.conf, empty.
fn lay_staged() -> Result<File, FilesError> {
    let resolv_conf = cover(RESOLV_CONF, "")?;
    let switch = fs::read_to_string(NSSWITCH_CONF).ok();
    if let Some(text) = switch.and_then(|text| nsswitch_conf(&text)) {
        cover(NSSWITCH_CONF, &text)?;
    }
    for socket in SOCKETS {
        if Path::new(socket).exists() {
            // Nobody can connect to a file, and whoever tried goes on to ask by DNS.
            cover(socket, "")?;
        }
    }
    Ok(resolv_conf)
}

/// Lays a new file over `path`, or over what it leads to.
fn cover(path: &'static str, text: &str) -> Result<File, FilesError> {
    let staged = Path::new(STAGE).join(path.replace('/', "-"));
    let made = File::create_new(&staged).and_then(|file| {
        file.write_all_at(text.as_bytes(), 0)?;
        // Whatever the user's mask for new files.
        file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(file)
    });
    let file = made.map_err(refused("write a file for", path))?;
    mount_bind(&staged, path).map_err(refused("mount a file over", path))?;
    Ok(file)
}

/// One server, the search list of a pod and then the host's, and the options that are not about the host's servers.
fn resolv_conf(dns: IpAddr, search: &[String], outside: &str) -> String {
    let mut domains: Vec<&str> = search.iter().map(String::as_str).collect();
    let mut options = vec!["ndots:5"];
    let mut own = Vec::new();
    for line in outside.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            // The last one counts.
            Some("search" | "domain") => own = words.collect(),
            Some("options") => {
                let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
                options.extend(words.filter(|option| OPTIONS.contains(&&*name(option))));
            }
            _ => {}
        }
    }
    for domain in own.into_iter().filter(|domain| *domain != ".") {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    let (domains, options) = (domains.join(" "), options.join(" "));
    let mut text = String::from("# made by portico run; the file outside is as it was\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "nameserver {dns}\nsearch {domains}\noptions {options}"
    );
    text
}

/// `outside` with a line for hosts that asks DNS, whatever it asked before; `None` if it does so already.
fn nsswitch_conf(outside: &str) -> Option<String> {
    let is_hosts = |line: &&str| line.trim_start().starts_with("hosts:");
    let line = outside.lines().find(is_hosts)?;
    let (_, rest) = line.split_once(':')?;
    let rest = rest.split('#').next().unwrap_or_default();
    // `resolve` and `mdns*` ask daemons outside; an action (`[NOTFOUND=return]`) may end the search before DNS.
    let asks_outside = |word: &&str| *word == "resolve" || word.starts_with("mdns");
    let is_action = |word: &&str| word.starts_with('[') || word.ends_with(']');
    let words: Vec<&str> = rest.split_whitespace().collect();
    let before = words.iter().take_while(|word| **word != "dns");
    let is_fine =
        words.contains(&"dns") && !before.clone().any(|w| asks_outside(w) || is_action(w));
    if is_fine {
        return None;
    }
    let mut kept: Vec<&str> = words
        .iter()
        .copied()
        .filter(|word| *word != "dns" && !asks_outside(word) && !is_action(word))
        .collect();
    kept.push("dns");
    let fixed = format!("hosts: {}", kept.join(" "));
    let lines = outside
        .lines()
        .map(|one| if one == line { &fixed } else { one });
    Some(lines.collect::<Vec<_>>().join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_our_server_and_search_first_and_the_hosts_own_after_it() {
        let outside = "# by hand\nnameserver 192.0.2.1\ndomain old.example\nsearch corp.example cluster.local .\n\
                       options rotate ndots:1 timeout:1 trust-ad edns0\n";
        let search = [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        let text = resolv_conf([127, 96, 0, 10].into(), &search.map(str::to_owned), outside);
        let said: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            said,
            [
                "nameserver 127.96.0.10",
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example",
                "options ndots:5 timeout:1 edns0",
            ]
        );
    }

    #[test]
    fn nsswitch_conf_is_changed_only_where_something_is_asked_before_dns() {
        let check = |hosts: &str, wanted: Option<&str>| {
            let text = format!("passwd: files\nhosts:  {hosts}\nservices: db files\n");
            let wanted =
                wanted.map(|hosts| format!("passwd: files\nhosts: {hosts}\nservices: db files\n"));
            assert_eq!(nsswitch_conf(&text), wanted, "{hosts}");
        };
        check("files dns", None);
        check("files myhostname dns mdns4", None);
        check("files dns [!UNAVAIL=return] resolve", None);
        check(
            "files mdns4_minimal [NOTFOUND=return] dns",
            Some("files dns"),
        );
        check(
            "mymachines resolve [!UNAVAIL=return] files myhostname dns # as shipped",
            Some("mymachines files myhostname dns"),
        );
        check("files", Some("files dns"));
        check(
            "files [NOTFOUND=return SUCCESS=return] dns",
            Some("files dns"),
        );
        assert_eq!(nsswitch_conf("passwd: files\n"), None);
    }
}
