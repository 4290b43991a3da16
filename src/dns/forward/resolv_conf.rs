//! The servers that this machine asks, from resolv.conf(5). Owns reading it, and when to read it again.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

/// How long what was read is believed before it is looked whether the files have changed. A link in their path may
/// come to lead elsewhere, which no event tells reliably.
const BELIEVED: Duration = Duration::from_secs(1);
/// Port of DNS.
const PORT: u16 = 53;
/// Where systemd-resolved(8) listens.
const SYSTEMD: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// How a file begins that `portico dns install` wrote.
pub const INSTALLED: &str = "# Written by `portico dns install`";

/// Where what `portico dns install` replaced at `path` is kept. Beside it, so that a link that was there leads where it
/// did.
pub fn former(path: &Path) -> PathBuf {
    let mut kept = path.as_os_str().to_owned();
    kept.push(".before-portico");
    kept.into()
}

/// Files that name servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// What every program of the machine reads. Where [`INSTALLED`] begins it the [former] one counts.
    pub path: PathBuf,
    /// What counts instead where that names systemd-resolved alone: the servers that it would ask. It may itself be
    /// configured to ask us.
    pub behind_systemd: PathBuf,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/etc/resolv.conf"),
            behind_systemd: PathBuf::from("/run/systemd/resolve/resolv.conf"),
        }
    }
}

impl ResolvConf {
    /// The servers, in their order.
    fn servers(&self) -> Vec<SocketAddr> {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let mut text = read(&self.path);
        if text.starts_with(INSTALLED) {
            text = read(&former(&self.path));
        }
        let servers = parse(&text, index_of);
        let is_systemd = |addr: &SocketAddr| SYSTEMD.map(IpAddr::from).contains(&addr.ip());
        if !servers.is_empty() && servers.iter().all(is_systemd) {
            let behind = parse(&read(&self.behind_systemd), index_of);
            if !behind.is_empty() {
                return behind;
            }
        }
        servers
    }
}

/// What is known of a file without reading it.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path).ok()?;
    let (time, nanos) = (data.mtime(), data.mtime_nsec());
    Some((data.dev(), data.ino(), time, nanos, data.size()))
}

/// When the files were looked at.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next: Option<Instant>,
    stamps: Option<[Stamp; 3]>,
}

impl Watch {
    /// Reads them the next time, changed or not.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The servers, if it is time to look and `files` are not as they were.
    pub(super) fn read(&mut self, files: &ResolvConf, now: Instant) -> Option<Vec<SocketAddr>> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + BELIEVED);
        let former = former(&files.path);
        let stamps = [&files.path, &files.behind_systemd, &former].map(|path| stamp(path));
        (self.stamps.replace(stamps) != Some(stamps)).then(|| files.servers())
    }
}

/// The addresses of lines `nameserver ADDRESS`. `index_of` knows the numbers of interfaces.
fn parse(text: &str, index_of: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let lines = text.lines().map(str::split_whitespace);
    let named =
        lines.filter_map(|mut words| (words.next()? == "nameserver").then(|| words.next())?);
    named
        .filter_map(|addr| match addr.split_once('%') {
            Some((addr, scope)) => {
                let scope = scope.parse().ok().or_else(|| index_of(scope))?;
                Some(SocketAddrV6::new(addr.parse().ok()?, PORT, 0, scope).into())
            }
            None => Some((addr.parse::<IpAddr>().ok()?, PORT).into()),
        })
        .collect()
}

/// The number of a network interface.
fn index_of(name: &str) -> Option<u32> {
    let file = Path::new("/sys/class/net").join(name).join("ifindex");
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_lines_gives_servers_in_their_order() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.2 # first\n\tnameserver  2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserver fe80::2%7\nnameserver fe80::3%gone\nnameserver nonsense\nnameserver\n\
                    options ndots:2\nnameserver 127.0.0.1\n";
        let index = |name: &str| (name == "eth0").then_some(3);
        let found = parse(text, index);
        let scoped =
            |addr: &str, scope| SocketAddrV6::new(addr.parse().unwrap(), 53, 0, scope).into();
        let expected: [SocketAddr; 5] = [
            "10.0.0.2:53".parse().unwrap(),
            "[2001:db8::1]:53".parse().unwrap(),
            scoped("fe80::1", 3),
            scoped("fe80::2", 7),
            "127.0.0.1:53".parse().unwrap(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn servers_of_systemd_alone_are_those_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let [path, behind_systemd] = ["a", "b"].map(|name| folder.path().join(name));
        let files = ResolvConf {
            path,
            behind_systemd,
        };
        let check = |main: &str, behind: &str, expected: &[&str]| {
            fs::write(&files.path, main).unwrap();
            fs::write(&files.behind_systemd, behind).unwrap();
            let found: Vec<_> = files
                .servers()
                .iter()
                .map(|addr| addr.ip().to_string())
                .collect();
            assert_eq!(found, expected, "{main:?} {behind:?}");
        };
        let stub = "nameserver 127.0.0.53\n";
        check(
            stub,
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\n",
            &["10.0.0.1", "10.0.0.2"],
        );
        check(stub, "", &["127.0.0.53"]);
        check(
            "nameserver 10.0.0.9\nnameserver 127.0.0.53\n",
            "nameserver 10.0.0.1\n",
            &["10.0.0.9", "127.0.0.53"],
        );
        check("", "nameserver 10.0.0.1\n", &[]);
    }

    #[test]
    fn servers_of_a_file_that_we_wrote_are_those_of_the_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResolvConf {
            path: folder.path().join("resolv.conf"),
            behind_systemd: folder.path().join("none"),
        };
        let ours = format!("{INSTALLED}\nnameserver 127.96.0.10\n");
        fs::write(&files.path, ours).unwrap();
        assert_eq!(files.servers(), []);
        // A link is kept as it was, and who writes what it leads to goes on doing so.
        fs::write(folder.path().join("run"), "nameserver 10.0.0.1\n").unwrap();
        std::os::unix::fs::symlink("run", former(&files.path)).unwrap();
        let (start, mut watch) = (Instant::now(), Watch::default());
        let first = watch.read(&files, start).unwrap();
        assert_eq!(first, ["10.0.0.1:53".parse().unwrap()]);
        fs::write(
            folder.path().join("run"),
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\n",
        )
        .unwrap();
        assert_eq!(watch.read(&files, start + BELIEVED).unwrap().len(), 2);
    }

    #[test]
    fn read_again_only_after_a_while_and_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let files = ResolvConf {
            path: folder.path().join("resolv.conf"),
            behind_systemd: folder.path().join("none"),
        };
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut watch = Watch::default();
        assert_eq!(
            watch.read(&files, start),
            Some(Vec::new()),
            "it may come later"
        );
        fs::write(&files.path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(watch.read(&files, start + second / 2), None);
        let first = watch.read(&files, start + second).unwrap();
        assert_eq!(first, ["10.0.0.1:53".parse().unwrap()]);
        assert_eq!(watch.read(&files, start + 2 * second), None, "unchanged");
        // As careful programs write: beside it, then over it.
        fs::write(folder.path().join("new"), "nameserver 10.0.0.2\n").unwrap();
        fs::rename(folder.path().join("new"), &files.path).unwrap();
        let next = watch.read(&files, start + 3 * second).unwrap();
        assert_eq!(next, ["10.0.0.2:53".parse().unwrap()]);
    }
}
