//! An instance's share of the address ranges, one of sixteen. Owns the claim: a name in the abstract socket namespace
//! (unix(7)), which is one per network namespace as the addresses are, holds across users, and ends with the process.

use std::{
    fmt, fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use super::{DEFAULT_NAME, InstanceError, folders::Surroundings};

/// Number of slots.
pub const SLOTS: u8 = 16;

/// Whether a slot has to be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotGuard {
    /// The addresses come from the slot: nobody else may have it.
    Exclusive,
    /// The addresses were given by the user (`--service-cidr`): the slot is a number only.
    Unguarded,
}

/// Who has a slot, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHolder {
    /// Its user and its process, in its own pid namespace.
    pub uid_and_pid: Option<(u32, u32)>,
}

impl fmt::Display for SlotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid_and_pid {
            Some((uid, pid)) => write!(f, "pid {pid} of uid {uid}"),
            None => f.write_str("another process"),
        }
    }
}

/// A claimed slot.
#[derive(Debug)]
pub(super) struct Claim {
    _name: UnixDatagram,
    /// Says in its own name who has the slot, for the list in `/proc/net/unix`: asking by `SO_PEERCRED` would take a
    /// connection that somebody accepts.
    _card: Option<UnixDatagram>,
}

/// Chooses and claims the slot of instance `name`: 0 for `default`, else the one `remembered` from before, else a
/// hashed one, else the next free one.
pub(super) fn claim(
    name: &str,
    around: &Surroundings,
    guard: SlotGuard,
    remembered: Option<u8>,
) -> Result<(u8, Option<Claim>), InstanceError> {
    let candidates = candidates(name, around.uid, remembered);
    if guard == SlotGuard::Unguarded {
        return Ok((candidates.first().copied().unwrap_or_default(), None));
    }
    for slot in candidates {
        match try_claim(&around.slot_prefix, slot, around.uid) {
            Ok(claim) => return Ok((slot, Some(claim))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                let path = format!("@{}/{slot}", around.slot_prefix).into();
                return Err(InstanceError::Io {
                    action: "claim",
                    path,
                    source,
                });
            }
        }
    }
    if name == DEFAULT_NAME {
        let list = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let holder = holder_in(&list, &around.slot_prefix, 0);
        return Err(InstanceError::Addresses {
            name: name.to_owned(),
            holder,
        });
    }
    Err(InstanceError::NoSlot)
}

/// The slot that `name` gets if it is free.
pub(super) fn preferred(name: &str, uid: u32, remembered: Option<u8>) -> u8 {
    candidates(name, uid, remembered)
        .first()
        .copied()
        .unwrap_or_default()
}

/// Slots to try, in order.
fn candidates(name: &str, uid: u32, remembered: Option<u8>) -> Vec<u8> {
    if name == DEFAULT_NAME {
        return vec![0];
    }
    let named = u64::from(SLOTS - 1);
    let start = hash(name, uid) % named;
    let probed = (0..named).filter_map(|step| u8::try_from(1 + (start + step) % named).ok());
    let first = remembered.filter(|slot| (1..SLOTS).contains(slot));
    first
        .into_iter()
        .chain(probed.filter(|slot| Some(*slot) != first))
        .collect()
}

/// FNV-1a, which stays the same over versions of everything.
fn hash(name: &str, uid: u32) -> u64 {
    let bytes = uid.to_be_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn try_claim(prefix: &str, slot: u8, uid: u32) -> io::Result<Claim> {
    let bind = |name: String| UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?);
    let name = bind(format!("{prefix}/{slot}"))?;
    // Only for messages, so a failure changes nothing.
    let card = bind(format!(
        "{prefix}/{slot}/uid/{uid}/pid/{}",
        std::process::id()
    ))
    .ok();
    Ok(Claim {
        _name: name,
        _card: card,
    })
}

/// Looks for the card of `slot` in the text of `/proc/net/unix`.
fn holder_in(list: &str, prefix: &str, slot: u8) -> SlotHolder {
    let card = format!("@{prefix}/{slot}/uid/");
    let parse = |line: &str| {
        let (uid, pid) = line
            .split_ascii_whitespace()
            .last()?
            .strip_prefix(&card)?
            .split_once("/pid/")?;
        Some((uid.parse().ok()?, pid.parse().ok()?))
    };
    SlotHolder {
        uid_and_pid: list.lines().find_map(parse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_named_instance_tries_every_other_slot_once_from_its_own() {
        let mut slots = candidates("blue", 1000, None);
        assert_eq!(slots, candidates("blue", 1000, None));
        let remembered = slots[3];
        assert_eq!(
            candidates("blue", 1000, Some(remembered)).first(),
            Some(&remembered)
        );
        assert_eq!(candidates("blue", 1000, Some(99)), slots);
        slots.sort_unstable();
        assert_eq!(slots, (1..16).collect::<Vec<_>>());
        assert_eq!(candidates("default", 1000, Some(7)), [0]);
    }

    #[test]
    fn candidates_users_and_names_begin_at_different_slots() {
        let starts =
            |uid: u32| ["a", "b", "c", "d", "e"].map(|name| candidates(name, uid, None)[0]);
        assert_ne!(starts(1000), starts(1001));
    }

    #[test]
    fn holder_in_list_of_sockets_finds_the_card_of_the_slot() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00000000 0002 01 100 @portico/slot/0
0000000000000000: 00000002 00000000 00000000 0002 01 101 @portico/slot/1/uid/5/pid/6
0000000000000000: 00000002 00000000 00000000 0002 01 102 @portico/slot/0/uid/1000/pid/4242
0000000000000000: 00000003 00000000 00000000 0001 03 103
";
        assert_eq!(
            holder_in(list, "portico/slot", 0).uid_and_pid,
            Some((1000, 4242))
        );
        assert_eq!(
            holder_in(list, "portico/slot", 1).to_string(),
            "pid 6 of uid 5"
        );
        assert_eq!(
            holder_in(list, "portico/slot", 2).to_string(),
            "another process"
        );
    }
}
