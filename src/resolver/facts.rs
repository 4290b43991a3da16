//! What the machine's files say of its resolver. Owns reading them; what it means is for others to decide.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::dns::{self, ResolvConf};

/// The folder of our file for systemd-resolved(8), beside those of others.
pub(super) const RESOLVED_FOLDER: &str = "/etc/systemd/resolved.conf.d";
/// Our file there.
pub(super) const RESOLVED_FILE: &str = "/etc/systemd/resolved.conf.d/portico.conf";

/// As the machine is without anything of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Text of `/etc/resolv.conf`; empty if it is missing.
    pub(super) resolv_conf: String,
    /// Where it leads, if it is a symbolic link.
    pub(super) link: Option<PathBuf>,
    /// Whether the file was mounted by itself, as container engines do.
    pub(super) is_mounted: bool,
    /// Text of `/etc/nsswitch.conf`, if there is one.
    pub(super) nsswitch: Option<String>,
    /// Whether systemd-resolved runs.
    pub(super) resolved_runs: bool,
    /// Version of systemd, if that is known.
    pub(super) systemd: Option<u32>,
    /// Settings of systemd-resolved but for ours.
    pub(super) resolved_settings: Vec<(PathBuf, String)>,
    /// Settings of `NetworkManager`.
    pub(super) network_manager: String,
}

impl Facts {
    /// Reads them.
    pub(super) fn read() -> Self {
        let path = ResolvConf::default().path;
        let is_ours = text(&path).starts_with(dns::INSTALLED);
        let former = if is_ours {
            dns::former(&path)
        } else {
            path.clone()
        };
        Self {
            resolv_conf: text(&former),
            link: fs::read_link(&former).ok(),
            is_mounted: is_mount_point(&path),
            nsswitch: fs::read_to_string("/etc/nsswitch.conf").ok(),
            resolved_runs: runs("systemd-resolve"),
            systemd: systemd_version(),
            resolved_settings: resolved_settings(),
            network_manager: network_manager(),
        }
    }
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether something is mounted exactly there (statx(2), Linux 5.8); what another mount hides does not count.
fn is_mount_point(path: &Path) -> bool {
    let file = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    file.is_ok_and(|file| file.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a process has this name, of which the kernel keeps 15 characters (proc(5), `comm`).
fn runs(comm: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|process| {
        let name = process.file_name();
        name.to_str()?.parse::<u32>().ok()?;
        fs::read_to_string(process.path().join("comm")).ok()
    });
    names.any(|name| name.trim_end() == comm)
}

fn systemd_version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

/// `systemd 252 (252.39-1~deb12u1)`.
fn version_in(text: &str) -> Option<u32> {
    let version = text.strip_prefix("systemd ")?;
    let end = version.find(|c: char| !c.is_ascii_digit());
    version.get(..end.unwrap_or(version.len()))?.parse().ok()
}

/// As resolved.conf(5) has the places.
fn resolved_settings() -> Vec<(PathBuf, String)> {
    let folders = [
        "/usr/lib/systemd/resolved.conf.d",
        "/run/systemd/resolved.conf.d",
        RESOLVED_FOLDER,
    ];
    let mut files = vec![PathBuf::from("/etc/systemd/resolved.conf")];
    files.extend(
        folders
            .into_iter()
            .flat_map(|folder| files_in(Path::new(folder))),
    );
    files.retain(|file| file != Path::new(RESOLVED_FILE));
    files
        .into_iter()
        .map(|file| (text(&file), file))
        .filter(|(text, _)| !text.is_empty())
        .map(|(text, file)| (file, text))
        .collect()
}

fn network_manager() -> String {
    let mut files = vec![PathBuf::from("/etc/NetworkManager/NetworkManager.conf")];
    for folder in [
        "/usr/lib/NetworkManager/conf.d",
        "/etc/NetworkManager/conf.d",
    ] {
        files.extend(files_in(Path::new(folder)));
    }
    files.iter().map(|file| text(file) + "\n").collect()
}

/// Files that count there, in their order.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "conf")
    });
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_point_is_the_file_itself_and_not_its_folder() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/proc/self/status")));
        assert!(!is_mount_point(Path::new("/proc/no/such/file")));
    }

    #[test]
    fn version_is_the_number_of_the_first_line() {
        let debian = "systemd 252 (252.39-1~deb12u1)\n+PAM +AUDIT\n";
        assert_eq!(version_in(debian), Some(252));
        assert_eq!(version_in("systemd 237\n+PAM"), Some(237));
        assert_eq!(version_in("systemd 260~rc1"), Some(260));
        assert_eq!(version_in("busybox"), None);
    }
}
