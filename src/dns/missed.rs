//! Names of ours that were asked for lately and do not exist. Owns a bounded account of them, which never makes whoever
//! answers wait, nor allocates then.

use std::sync::{Mutex, PoisonError};

use portico_core::dns::Name;

/// Names that are kept, the ones asked for last.
const MAX_NAMES: usize = 32;
/// The longest name in wire form.
const MAX_WIRE: usize = 255;
/// Where the question begins: behind the header.
const QUESTION: usize = 12;

/// The account.
#[derive(Debug, Default)]
pub(super) struct Missed {
    latest: Mutex<Latest>,
}

#[derive(Debug)]
struct Latest {
    names: Vec<Entry>,
    /// Grows with every note.
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    wire: [u8; MAX_WIRE],
    length: usize,
    count: u64,
    turn: u64,
}

impl Default for Latest {
    fn default() -> Self {
        Self {
            names: Vec::with_capacity(MAX_NAMES),
            turn: 0,
        }
    }
}

impl Missed {
    /// Notes the name that `packet` asks for, unless another thread is at it.
    pub(super) fn note(&self, packet: &[u8]) {
        if let Some(name) = name_in(packet)
            && let Ok(mut latest) = self.latest.try_lock()
        {
            latest.note(name);
        }
    }

    /// The names and how often each was noted, the last one first.
    pub(super) fn latest(&self) -> Vec<(Name, u64)> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<&Entry> = latest.names.iter().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.turn));
        let named =
            |entry: &&Entry| Some((Name::from_labels(labels(entry.name())).ok()?, entry.count));
        entries.iter().filter_map(named).collect()
    }
}

impl Latest {
    fn note(&mut self, name: &[u8]) {
        self.turn += 1;
        let turn = self.turn;
        let mut known = self.names.iter_mut();
        if let Some(entry) = known.find(|entry| entry.name().eq_ignore_ascii_case(name)) {
            (entry.count, entry.turn) = (entry.count + 1, turn);
            return;
        }
        let mut wire = [0; MAX_WIRE];
        for (place, byte) in wire.iter_mut().zip(name) {
            *place = *byte;
        }
        let entry = Entry {
            wire,
            length: name.len(),
            count: 1,
            turn,
        };
        if self.names.len() < MAX_NAMES {
            self.names.push(entry);
        } else if let Some(oldest) = self.names.iter_mut().min_by_key(|entry| entry.turn) {
            *oldest = entry;
        }
    }
}

impl Entry {
    fn name(&self) -> &[u8] {
        self.wire.get(..self.length).unwrap_or_default()
    }
}

/// The name of a question in wire form, without the root's byte.
fn name_in(packet: &[u8]) -> Option<&[u8]> {
    let name = packet.get(QUESTION..)?;
    let length: usize = labels(name).map(|label| label.len() + 1).sum();
    name.get(..length).filter(|name| name.len() < MAX_WIRE)
}

/// Labels up to the root, or as far as there are any.
fn labels(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, tail) = rest
            .split_first()
            .filter(|(length, _)| (1..64).contains(*length))?;
        let (label, tail) = tail.split_at_checked(usize::from(*length))?;
        rest = tail;
        Some(label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str) -> Vec<u8> {
        let mut packet = vec![0; QUESTION];
        packet.extend(Name::parse(name).unwrap().as_wire());
        packet.extend([0, 1, 0, 1]);
        packet
    }

    fn shown(missed: &Missed) -> Vec<String> {
        let latest = missed.latest().into_iter();
        latest
            .map(|(name, count)| format!("{name} {count}"))
            .collect()
    }

    #[test]
    fn missed_names_are_counted_the_last_one_first() {
        let missed = Missed::default();
        for name in ["wbe.shop", "x", "WBE.Shop"] {
            missed.note(&packet(name));
        }
        missed.note(&[0; 11]);
        missed.note(&packet("cut.off")[..15]);
        assert_eq!(shown(&missed)[1..], ["wbe.shop. 2", "x. 1"]);
    }

    #[test]
    fn missed_names_beyond_the_bound_replace_the_oldest() {
        let missed = Missed::default();
        for number in 0..MAX_NAMES {
            missed.note(&packet(&format!("n{number}")));
        }
        missed.note(&packet("n0"));
        missed.note(&packet("more"));
        let shown = shown(&missed);
        assert_eq!(shown.len(), MAX_NAMES);
        assert_eq!(shown[..2], ["more. 1", "n0. 2"]);
        assert!(!shown.contains(&"n1. 1".to_owned()), "{shown:?}");
    }
}
