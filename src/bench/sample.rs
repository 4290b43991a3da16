//! What was measured, exchange by exchange, and the names of who answered. Owns the bound on both; what it means
//! belongs to `report`.

use std::{collections::HashMap, time::Duration};

use super::exchange::{Exchange, Failure};

/// Most exchanges of a run: each takes 56 bytes.
pub const MOST_REQUESTS: u64 = 5_000_000;

/// Most names that are told apart; whoever comes after them is `OTHERS`.
const MOST_NAMES: usize = 4096;

/// Stands for those beyond the bound.
const OTHERS: &str = "(others)";

/// One exchange. Times are nanoseconds since the run began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// When it was to be sent.
    pub(super) intended: u64,
    /// When it was.
    pub(super) sent: u64,
    /// When its answer was complete, or it had failed.
    pub(super) done: u64,
    /// How long connecting took; `None` on a connection that was there.
    pub(super) connect: Option<u32>,
    /// From sending to the first byte, in nanoseconds, at most 4.2 s.
    pub(super) first: u32,
    /// The client that asked.
    pub(super) client: u16,
    /// Bytes of the answer.
    pub(super) bytes: u32,
    /// Who answered, or what went wrong.
    pub(super) outcome: Outcome,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered by the one with this number.
    By(u32),
    /// The failure with this number.
    Failed(u32),
}

/// All exchanges of a run, in the order in which they ended.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) list: Vec<Sample>,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    failures: Vec<Failure>,
    /// By number of name: the highest serial number that was seen.
    serials: HashMap<u32, u64>,
}

/// When an exchange was to be, was, and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) intended: Duration,
    pub(super) sent: Duration,
    pub(super) done: Duration,
}

impl Samples {
    /// Enters an exchange of `client`.
    pub(super) fn add(&mut self, client: u16, times: Times, exchange: Exchange) {
        let (bytes, outcome) = match exchange.result {
            Ok(answered) => {
                let number = self.number(answered.who);
                if let Some(serial) = answered.serial {
                    let highest = self.serials.entry(number).or_default();
                    *highest = serial.max(*highest);
                }
                (answered.bytes, Outcome::By(number))
            }
            Err(failure) => (0, Outcome::Failed(self.failure(failure))),
        };
        self.list.push(Sample {
            intended: nanos(times.intended),
            sent: nanos(times.sent),
            done: nanos(times.done),
            connect: exchange.connect.map(short),
            first: short(exchange.first),
            client,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            outcome,
        });
    }

    /// How many exchanges there are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.list.len()).unwrap_or(u64::MAX)
    }

    /// Everybody who answered, by number.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// All kinds of failure, by number.
    pub(super) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    fn number(&mut self, name: String) -> u32 {
        let name = if name.is_empty() {
            "(nameless)".to_owned()
        } else if self.names.len() >= MOST_NAMES && !self.numbers.contains_key(&name) {
            OTHERS.to_owned()
        } else {
            name
        };
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    fn failure(&mut self, failure: Failure) -> u32 {
        let known = self.failures.iter().position(|known| *known == failure);
        let place = known.unwrap_or_else(|| {
            self.failures.push(failure);
            self.failures.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn short(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
