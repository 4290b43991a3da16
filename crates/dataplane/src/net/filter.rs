//! A listener's filter as a program of the classic packet filter, and that program on a socket (bpf(4) of BSD, Linux
//! `Documentation/networking/filter.rst`, socket(7) `SO_ATTACH_FILTER`). Owns the translation; what is to be dropped was
//! decided by [`portico_core::snapshot::filter`].
//!
//! A program is straight: conditional jumps reach 255 instructions and stay within a comparison, everything further goes
//! by an unconditional jump, which reaches anywhere. Addresses are read relative to the network header, whose version
//! tells where they are: an IPv6 socket may hear IPv4 as well.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use portico_core::snapshot::filter::{Clause, Filter, Guard};
use socket2::{SockFilter, SockRef};

use super::SharedFd;

/// Most instructions of a program (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;
/// The start of the network header (`SKF_NET_OFF`, -0x100000).
const NETWORK: u32 = 0xfff0_0000;

/// `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// `BPF_LD | BPF_B | BPF_ABS`.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_ALU | BPF_AND | BPF_K`.
const AND: u16 = 0x54;
/// `BPF_ALU | BPF_RSH | BPF_K`.
const SHIFT_RIGHT: u16 = 0x74;
/// `BPF_MISC | BPF_TAX`.
const KEEP: u16 = 0x07;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JEQ | BPF_X`.
const JUMP_EQUAL_KEPT: u16 = 0x1d;
/// `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// All of the packet.
const PASS: u32 = u32::MAX;
/// Nothing of it.
const DROP: u32 = 0;

/// One instruction: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    /// Instructions to skip when a comparison holds.
    yes: u8,
    /// And when it does not.
    no: u8,
    k: u32,
}

/// Why a filter is not on its socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("its filter needs {0} instructions, and {MOST_INSTRUCTIONS} are the most")]
    TooLong(usize),
    #[error("the kernel does not take its filter: {0}")]
    Refused(#[source] io::Error),
}

/// Puts `filter` on a socket in place of any other. If that fails the socket has none.
pub(crate) fn attach(fd: &SharedFd, filter: &Filter) -> Result<(), FilterError> {
    let attached = assemble(filter).and_then(|program| {
        let program: Vec<SockFilter> = program
            .iter()
            .map(|it| SockFilter::new(it.code, it.yes, it.no, it.k))
            .collect();
        SockRef::from(fd)
            .attach_filter(&program)
            .map_err(FilterError::Refused)
    });
    if attached.is_err() {
        // One that drops something else is worse than none.
        detach(fd);
    }
    attached
}

/// Takes a socket's filter off, if it has one.
pub(crate) fn detach(fd: &impl std::os::fd::AsFd) {
    // Fails when there is none, which is as good.
    let _ = SockRef::from(fd).detach_filter();
}

/// The program of `filter`.
fn assemble(filter: &Filter) -> Result<Vec<Instruction>, FilterError> {
    let [v4, v6] = [Version::V4, Version::V6].map(|version| {
        let mut section = Vec::new();
        let rules = filter.rules().iter();
        for rule in rules.filter(|rule| Version::of(rule.destination) == version) {
            destination(&mut section, rule.destination, guard(&rule.guard, version));
        }
        section.push(give(PASS));
        section
    });
    let mut program = vec![
        with(LOAD_BYTE, NETWORK),
        with(SHIFT_RIGHT, 4),
        over_next(4),
        go(v4.len()),
    ];
    program.extend(v4);
    program.extend([over_next(6), go(v6.len())]);
    program.extend(v6);
    program.push(give(PASS));
    if program.len() > MOST_INSTRUCTIONS {
        return Err(FilterError::TooLong(program.len()));
    }
    Ok(program)
}

/// Where a version of IP has its addresses (RFC 791 section 3.1, RFC 8200 section 3), in words of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

impl Version {
    fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    const fn source(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    const fn destination(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }

    const fn words(self) -> u32 {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }
}

/// `body` for packets to `net`; others go on behind it.
fn destination(program: &mut Vec<Instruction>, net: IpNet, body: Vec<Instruction>) {
    let at = Version::of(net).destination();
    // Equal: over the jump away.
    program.extend(compare(net, at, go(1)));
    program.push(go(body.len()));
    program.extend(body);
}

/// Returns, one way or the other.
fn guard(guard: &Guard, version: Version) -> Vec<Instruction> {
    let mut program = Vec::new();
    for clause in guard.clauses() {
        program.extend(admitting(clause, version));
    }
    program.push(give(PASS));
    program
}

/// Goes on behind itself with a source that the clause admits, and drops others.
fn admitting(clause: &Clause, version: Version) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    if clause.itself {
        tests.push(itself(version));
    }
    let ranges = clause.ranges.iter();
    let of_version = ranges.filter(|range| Version::of(**range) == version);
    tests.extend(of_version.map(|range| compare(*range, version.source(), go(0))));
    let length = tests.iter().map(Vec::len).sum::<usize>();
    let mut program = Vec::with_capacity(length + 1);
    for mut test in tests {
        let end = program.len() + test.len();
        // Each ends in the jump that is taken when it holds: over the rest and the drop.
        if let Some(last) = test.last_mut() {
            *last = go(length - end + 1);
        }
        program.extend(test);
    }
    program.push(give(DROP));
    program
}

/// `then` for an address at `at` that is in `net`; else behind it.
fn compare(net: IpNet, at: u32, then: Instruction) -> Vec<Instruction> {
    let mut words: Vec<(u32, u32, u32)> = Vec::new();
    for (index, (word, mask)) in (0..).zip(words_of(net.network()).zip(words_of(net.netmask()))) {
        if mask != 0 {
            words.push((NETWORK + at + 4 * index, word, mask));
        }
    }
    let mut program = vec![then];
    // Backwards: each word that differs jumps to what is behind.
    for (offset, word, mask) in words.into_iter().rev() {
        let mut test = vec![with(LOAD, offset)];
        if mask != u32::MAX {
            test.push(with(AND, mask));
        }
        test.push(equal(word, length_of(&program)));
        test.extend(program);
        program = test;
    }
    program
}

/// A jump for a source that is the destination; else behind it.
fn itself(version: Version) -> Vec<Instruction> {
    let mut program = vec![go(0)];
    for index in (0..version.words()).rev() {
        let skip = length_of(&program);
        let mut test = vec![
            with(LOAD, NETWORK + version.destination() + 4 * index),
            with(KEEP, 0),
            with(LOAD, NETWORK + version.source() + 4 * index),
            Instruction {
                no: skip,
                ..with(JUMP_EQUAL_KEPT, 0)
            },
        ];
        test.extend(program);
        program = test;
    }
    program
}

fn words_of(addr: IpAddr) -> impl Iterator<Item = u32> {
    let (v4, v6) = match addr {
        IpAddr::V4(addr) => (Some(addr.to_bits()), None),
        IpAddr::V6(addr) => {
            let word = |shift: u32| u32::try_from((addr.to_bits() >> shift) & 0xffff_ffff);
            let words = [96, 64, 32, 0].map(|shift| word(shift).unwrap_or_default());
            (None, Some(words))
        }
    };
    v4.into_iter().chain(v6.into_iter().flatten())
}

/// Comparisons are at most a few dozen instructions long.
fn length_of(program: &[Instruction]) -> u8 {
    u8::try_from(program.len()).unwrap_or(u8::MAX)
}

const fn with(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        yes: 0,
        no: 0,
        k,
    }
}

/// Goes on if the accumulator is `k`; else skips `skip`.
const fn equal(k: u32, skip: u8) -> Instruction {
    Instruction {
        no: skip,
        ..with(JUMP_EQUAL, k)
    }
}

/// Skips the next instruction if the accumulator is `k`.
const fn over_next(k: u32) -> Instruction {
    Instruction {
        yes: 1,
        ..with(JUMP_EQUAL, k)
    }
}

/// Skips `count`. One that does not fit is in a program that is too long anyway.
fn go(count: usize) -> Instruction {
    with(JUMP, u32::try_from(count).unwrap_or(u32::MAX))
}

const fn give(verdict: u32) -> Instruction {
    with(RETURN, verdict)
}

#[cfg(test)]
mod tests;
