//! The namespaces that `portico run` gives a program (`namespaces(7)`): a user, a network and a mount namespace of the
//! calling process. Owns their making and, where the system forbids it, who forbids it and what to do; must not know
//! what is served inside.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, mount_change},
    process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior},
    thread::UnshareFlags,
};
use serde::{Deserialize, Serialize};

use crate::host::routes;

/// The hidden argument of a process that only tries.
pub(super) const PROBE_ARGUMENT: &str = "__run-probe";

/// Where the kernel has its settings.
const SETTINGS: &str = "/proc/sys";

/// Why there are no namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("cannot {step}: {}", self.text())]
pub struct NoNamespaces {
    /// What was tried.
    step: Step,
    /// What the kernel said; 0 if it was not asked.
    errno: i32,
    /// Who is behind it, as far as that can be told.
    cause: Cause,
}

/// The steps, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Step {
    /// Starting the process that tries.
    #[error("start a process that makes namespaces")]
    Start,
    /// unshare(2).
    #[error("make a user, network and mount namespace")]
    Unshare,
    /// `/proc/PID/uid_map` and its kin.
    #[error("keep the user and group in a user namespace")]
    Map,
    /// Propagation of mounts.
    #[error("mount anything in a mount namespace")]
    Mount,
    /// `lo`.
    #[error("set up the loopback device of a network namespace")]
    Loopback,
}

/// Who forbids namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// A kernel without them.
    Kernel,
    /// This limit of `user.*` is 0, or as many exist (`namespaces(7)`, "The `/proc/sys/user` directory").
    Limit(String),
    /// `kernel.unprivileged_userns_clone`, of Debian's kernels, is 0.
    Unprivileged,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu's kernels, is 1.
    AppArmor,
    /// Root that may not be root in a user namespace either (`user_namespaces(7)`, "`CAP_SETFCAP`").
    Root,
    /// A filter of system calls or a security module: a container, most often.
    Sandbox,
    /// Something else.
    Unknown,
}

impl NoNamespaces {
    fn new(step: Step, error: Errno, settings: &Path) -> Self {
        Self {
            step,
            errno: error.raw_os_error(),
            cause: cause(step, error, settings),
        }
    }

    fn text(&self) -> String {
        match &self.cause {
            Cause::Kernel => "this kernel has none (CONFIG_USER_NS, CONFIG_NET_NS)".to_owned(),
            Cause::Limit(name) => format!("user.{name} is 0, or as many exist already"),
            Cause::Unprivileged => {
                "kernel.unprivileged_userns_clone is 0: for root only".to_owned()
            }
            Cause::AppArmor => {
                "AppArmor leaves user namespaces to programs with a profile that allows them"
                    .to_owned()
            }
            Cause::Root => {
                "root needs CAP_SYS_ADMIN or CAP_SETFCAP for it, and has neither".to_owned()
            }
            Cause::Sandbox => {
                "the container or sandbox that this runs in forbids it (EPERM)".to_owned()
            }
            Cause::Unknown => io::Error::from_raw_os_error(self.errno).to_string(),
        }
    }

    /// What to do about it, if anything is known, for the program at `program`.
    pub(crate) fn fix(&self, program: &str) -> Option<String> {
        match &self.cause {
            Cause::Limit(name) => Some(format!("sudo sysctl -w user.{name}=15000")),
            Cause::Unprivileged => {
                Some("sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned())
            }
            Cause::AppArmor => Some(format!(
                "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile portico {program} flags=(unconfined) \
                 {{ userns, }}\\n' | sudo tee /etc/apparmor.d/portico && sudo apparmor_parser -r /etc/apparmor.d/portico"
            )),
            Cause::Root => Some(
                "start the container with --cap-add SETFCAP, or be a user that is not root"
                    .to_owned(),
            ),
            Cause::Sandbox => Some(
                "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
                    .to_owned(),
            ),
            Cause::Kernel | Cause::Unknown => None,
        }
    }
}

/// Whether a process of this user may have such namespaces; makes some in a child process, which ends at once.
///
/// # Errors
/// It may not; the error says who forbids it.
pub(crate) fn probe() -> Result<(), NoNamespaces> {
    let failed = |error: io::Error| NoNamespaces {
        step: Step::Start,
        errno: error.raw_os_error().unwrap_or_default(),
        cause: Cause::Unknown,
    };
    let child = Command::new(super::EXECUTABLE)
        .arg(PROBE_ARGUMENT)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(failed)?;
    serde_json::from_slice(&child.stdout).map_err(|error| failed(error.into()))?
}

/// Moves this process, which must have one thread only, into namespaces of its own: same user and group, every
/// capability inside, loopback up, every port free to bind for everybody, no mount that comes out.
pub(super) fn enter() -> Result<(), NoNamespaces> {
    let failed = |step| move |error| NoNamespaces::new(step, error, Path::new(SETTINGS));
    // A program file with capabilities makes a process whose maps belong to root (proc(5), "dumpable").
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed(Step::Map))?;
    let network_and_mounts = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // Root needs no user namespace, in which it would be root over its own files only.
    let is_root = geteuid().is_root() && unshare(network_and_mounts).is_ok();
    if !is_root {
        // In a user namespace without maps these numbers are those of nobody.
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        unshare(UnshareFlags::NEWUSER | network_and_mounts).map_err(failed(Step::Unshare))?;
        map_user(user, group).map_err(|error| match (user, error) {
            (0, Errno::PERM) => NoNamespaces {
                step: Step::Map,
                errno: error.raw_os_error(),
                cause: Cause::Root,
            },
            _ => failed(Step::Map)(error),
        })?;
    }
    // What is mounted outside later is seen inside; never the other way round.
    let outside_in = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", outside_in).map_err(failed(Step::Mount))?;
    routes::set_loopback_up().map_err(|error| failed(Step::Loopback)(errno(&error)))?;
    // A convenience: where `/proc/sys` cannot be written, low ports stay the keeper's privilege.
    let _read_only = fs::write(
        Path::new(SETTINGS).join("net/ipv4/ip_unprivileged_port_start"),
        "0",
    );
    Ok(())
}

#[expect(
    deprecated,
    reason = "the newer form is unsafe for CLONE_FILES only, which is not among the flags"
)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

/// User and group are themselves inside; nobody else is there (`user_namespaces(7)`).
fn map_user(user: u32, group: u32) -> Result<(), Errno> {
    for (file, text) in [
        // Before a map of groups may be written without privilege.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(Path::new("/proc/self").join(file), text).map_err(|error| errno(&error))?;
    }
    Ok(())
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Who is behind `error`, from the settings that say so.
fn cause(step: Step, error: Errno, settings: &Path) -> Cause {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(settings.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let limits = [
        "max_user_namespaces",
        "max_net_namespaces",
        "max_mnt_namespaces",
    ];
    let closed = limits
        .into_iter()
        .find(|name| number(&format!("user/{name}")) == Some(0));
    let is_forbidden = [Errno::PERM, Errno::ACCESS].contains(&error);
    match (step, error) {
        (Step::Unshare, Errno::INVAL | Errno::NOSYS) => Cause::Kernel,
        (Step::Unshare, Errno::NOSPC) => {
            Cause::Limit(closed.unwrap_or("max_user_namespaces").to_owned())
        }
        _ if is_forbidden && number("kernel/unprivileged_userns_clone") == Some(0) => {
            Cause::Unprivileged
        }
        // It lets the namespace be made, and takes every capability in it away.
        _ if is_forbidden && number("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => {
            Cause::AppArmor
        }
        _ if is_forbidden => Cause::Sandbox,
        _ => Cause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: Step, error: Errno, settings: &[(&str, &str)], wanted: &Cause) {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        assert_eq!(&cause(step, error, folder.path()), wanted, "{settings:?}");
    }

    #[test]
    fn cause_is_told_by_the_error_and_the_settings() {
        let limit = |name: &str| Cause::Limit(name.to_owned());
        let clone = ("kernel/unprivileged_userns_clone", "0\n");
        let apparmor = ("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        let (users, nets) = ("user/max_user_namespaces", "user/max_net_namespaces");
        let unshare = Step::Unshare;
        check(unshare, Errno::INVAL, &[], &Cause::Kernel);
        check(
            unshare,
            Errno::NOSPC,
            &[(users, "0\n")],
            &limit("max_user_namespaces"),
        );
        check(
            unshare,
            Errno::NOSPC,
            &[(users, "100\n"), (nets, "0\n")],
            &limit("max_net_namespaces"),
        );
        check(
            unshare,
            Errno::PERM,
            &[clone, apparmor],
            &Cause::Unprivileged,
        );
        check(unshare, Errno::PERM, &[], &Cause::Sandbox);
        check(Step::Map, Errno::PERM, &[apparmor], &Cause::AppArmor);
        check(Step::Mount, Errno::ACCESS, &[apparmor], &Cause::AppArmor);
        let open = ("kernel/apparmor_restrict_unprivileged_userns", "0\n");
        check(Step::Mount, Errno::ACCESS, &[open], &Cause::Sandbox);
        check(Step::Loopback, Errno::NODEV, &[apparmor], &Cause::Unknown);
    }

    #[test]
    fn error_says_what_was_tried_who_forbids_it_and_what_to_do() {
        let error = NoNamespaces {
            step: Step::Unshare,
            errno: Errno::NOSPC.raw_os_error(),
            cause: Cause::Limit("max_user_namespaces".to_owned()),
        };
        assert_eq!(
            error.to_string(),
            "cannot make a user, network and mount namespace: user.max_user_namespaces is 0, or as many exist already"
        );
        assert_eq!(
            error.fix("/usr/bin/portico").unwrap(),
            "sudo sysctl -w user.max_user_namespaces=15000"
        );
        let told = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<NoNamespaces>(&told).unwrap(), error);
    }
}
