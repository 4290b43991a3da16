//! Which user the program is, and what it may do besides. Owns giving privileges up, once and for all: they belong to
//! threads (capabilities(7)), so that it is done while there is one thread, from which all others inherit.
//!
//! Sockets and routes come and go while the program runs, so that what they need is kept: capabilities, never root.

mod account;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

pub use account::Account;
use rustix::{
    fs::{AtFlags, Dir, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, open},
    process::umask,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root can.
    #[error("only root can become {0}: start with sudo, or without --user as that user")]
    NotRoot(String),
    /// A folder cannot be the user's.
    #[error("cannot make {} a folder of {user}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Whose it was to be.
        user: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What is kept beside ports below 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// `CAP_NET_ADMIN`, for routes.
    pub routes: bool,
    /// `CAP_NET_RAW`, for sockets with the address of a client on another machine.
    pub sources: bool,
}

impl Kept {
    fn capabilities(self) -> CapabilitySet {
        let mut all = CapabilitySet::NET_BIND_SERVICE;
        all.set(CapabilitySet::NET_ADMIN, self.routes);
        all.set(CapabilitySet::NET_RAW, self.sources);
        all
    }
}

/// Whether this process can become `account` at all.
///
/// # Errors
/// It is not root, or root without its capabilities.
pub fn check(account: &Account) -> Result<(), PrivilegeError> {
    let held = capabilities(None).map_err(failed("read the capabilities"))?;
    // Root of a namespace may be without them.
    if held
        .effective
        .contains(CapabilitySet::SETUID | CapabilitySet::SETGID)
    {
        Ok(())
    } else {
        Err(PrivilegeError::NotRoot(account.name.clone()))
    }
}

/// Becomes `account`, with its groups and with no capability in effect. [`keep`] is to follow, and says which come back.
///
/// # Errors
/// The system refuses.
pub fn become_user(account: &Account) -> Result<(), PrivilegeError> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).map_err(failed("set the groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(failed("become the group"))?;
    set_keep_capabilities(true).map_err(failed("keep capabilities"))?;
    set_thread_res_uid(uid, uid, uid).map_err(failed("become the user"))?;
    let held = capabilities(None).map_err(failed("read the capabilities"))?;
    let none = CapabilitySet::empty();
    set(none, held.permitted)?;
    // What the program writes is nobody else's business.
    umask(Mode::RWXG | Mode::RWXO);
    Ok(())
}

/// Gives up all capabilities but `kept`, and that any program started from here could have more.
///
/// # Errors
/// The system refuses.
pub fn keep(kept: Kept) -> Result<(), PrivilegeError> {
    let held = capabilities(None).map_err(failed("read the capabilities"))?;
    let kept = kept.capabilities() & held.permitted;
    set(held.permitted & CapabilitySet::SETPCAP, held.permitted)?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // Numbers that the kernel does not know are errors.
        let is_there = capability_is_in_bounding_set(one).unwrap_or_default();
        if is_there && !kept.contains(one) {
            let removed = remove_capability_from_bounding_set(one);
            removed.map_err(failed("bound the capabilities"))?;
        }
    }
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    set(kept, kept)?;
    set_keep_capabilities(false).map_err(failed("give capabilities up"))?;
    set_no_new_privs(true).map_err(failed("set no_new_privs"))
}

/// For a process that runs stand-ins for pods: of whatever it has been given, ports below 1024 alone.
///
/// # Errors
/// The system refuses.
pub fn keep_ports_alone() -> io::Result<()> {
    let held = capabilities(None)?;
    clear_ambient_capability_set()?;
    let ports = held.effective & CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets {
        effective: ports,
        permitted: ports,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> Result<(), PrivilegeError> {
    let sets = CapabilitySets {
        effective,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed("set the capabilities"))
}

/// Makes `path` a folder of `account` alone: made where it is missing, and handed over with what a former run as root
/// left in it.
///
/// # Errors
/// It is somebody else's, or cannot be made.
pub fn hand_over(path: &Path, account: &Account) -> Result<(), PrivilegeError> {
    give(path, account).map_err(|source| PrivilegeError::Folder {
        path: path.to_owned(),
        user: account.name.clone(),
        source,
    })
}

fn give(path: &Path, account: &Account) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // By descriptor, and never through a link: what is looked at is what is given away.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty())?;
    let owner = fstat(&folder)?.st_uid;
    if owner == account.uid {
        return Ok(());
    }
    if owner != 0 {
        return Err(io::Error::other(format!("it belongs to uid {owner}")));
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    // While it is still root's, nobody else can put anything in there.
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            chownat(&folder, entry.file_name(), Some(uid), Some(gid), flags)?;
        }
    }
    Ok(fchown(&folder, Some(uid), Some(gid))?)
}

/// The folder of `account` that outlives a restart, for instance `name`: below its home if that is its own, else one of
/// the machine's, which is handed over.
///
/// # Errors
/// It cannot be made.
pub fn state_dir(account: &Account, name: &str) -> Result<PathBuf, PrivilegeError> {
    let is_own = |home: &&PathBuf| fs::metadata(home).is_ok_and(|home| home.uid() == account.uid);
    if let Some(home) = account.home.as_ref().filter(is_own) {
        return Ok(home.join(".local/state/portico").join(name));
    }
    let folder = Path::new("/var/lib/portico").join(name);
    hand_over(&folder, account)?;
    Ok(folder)
}

fn failed(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> PrivilegeError {
    move |error| PrivilegeError::System {
        action,
        source: error.into(),
    }
}
