//! From samples to figures. Owns which sample belongs to whom, when, and in which unit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use portico_core::observe::evenness::{self, Evenness};

use super::{
    Counts, EndpointLatency, EpochOrder, EpochReport, ErrorKind, Latency, Order, Percentile,
    Second, Share, Unit, counts::counts,
};
use crate::bench::{
    pace::float,
    sample::{Outcome, Sample, Samples},
    view::{Epoch, Member, View, epochs},
};

/// What figures are made of.
pub(in crate::bench) struct Input<'a> {
    pub(in crate::bench) samples: &'a Samples,
    pub(in crate::bench) keep_alive: bool,
    pub(in crate::bench) began: Instant,
    pub(in crate::bench) took: Duration,
    /// Looks at the program, in order; none where it cannot be asked.
    pub(in crate::bench) views: &'a [View],
    /// Declared shares of those who are not known otherwise.
    pub(in crate::bench) weights: &'a BTreeMap<String, u64>,
    /// Endpoints that are known to be there, where nobody names them.
    pub(in crate::bench) endpoints: usize,
    /// Exchanges that were broken off: they may be counted elsewhere and not here.
    pub(in crate::bench) abandoned: u64,
    /// Requests by the endpoints' own count, by name.
    pub(in crate::bench) served: &'a BTreeMap<String, u64>,
}

/// The figures.
pub(in crate::bench) struct Figures {
    pub(in crate::bench) units: Vec<Unit>,
    pub(in crate::bench) epochs: Vec<EpochReport>,
    pub(in crate::bench) order: Order,
    pub(in crate::bench) latency: Latency,
    pub(in crate::bench) endpoints: Vec<EndpointLatency>,
    pub(in crate::bench) timeline: Vec<Second>,
    pub(in crate::bench) errors: Vec<ErrorKind>,
    pub(in crate::bench) counts: Counts,
    /// Those who got nothing although something was due.
    pub(in crate::bench) silent: Vec<String>,
    pub(in crate::bench) has_weights: bool,
}

/// Works out everything.
pub(in crate::bench) fn build(input: &Input<'_>) -> Figures {
    let mut sorted: Vec<&Sample> = input.samples.list.iter().collect();
    sorted.sort_by_key(|sample| sample.sent);
    let names = titles(input);
    let epochs = known_epochs(input, &names);
    let units = units(&sorted, &names, &epochs, input.keep_alive);
    let judged = units.first();
    let silent = judged.map_or_else(Vec::new, |unit| {
        let silent = unit.shares.iter();
        let silent = silent.filter(|share| share.observed == 0 && share.expected >= 1.0);
        silent.map(|share| share.name.clone()).collect()
    });
    Figures {
        epochs: epochs
            .iter()
            .map(|epoch| epoch_report(epoch, &sorted, &names, input.keep_alive))
            .collect(),
        order: order(&sorted, &names, &epochs),
        latency: latency(&sorted),
        endpoints: endpoint_latencies(&sorted, &names),
        timeline: timeline(&sorted, &names),
        errors: errors(input.samples),
        counts: counts(input, &sorted, &names),
        has_weights: epochs.iter().any(|epoch| !is_equal(&epoch.members)),
        units,
        silent,
    }
}

/// Names of who answered, by number: as the program calls them where it knows them.
fn titles(input: &Input<'_>) -> Vec<String> {
    let known = |name: &String| {
        let mut endpoints = input.views.iter().flat_map(|view| &view.endpoints);
        let known = endpoints.find(|endpoint| endpoint.is_called(name));
        known.map_or_else(|| name.clone(), super::super::view::EndpointView::title)
    };
    input.samples.names().iter().map(known).collect()
}

/// The program's epochs; without a program, or where no answer bears a name that it knows, one with all who answered.
fn known_epochs(input: &Input<'_>, names: &[String]) -> Vec<Epoch> {
    let known = epochs(input.views, input.began, input.took);
    let is_known = |name: &String| {
        known
            .iter()
            .any(|epoch| epoch.members.iter().any(|member| member.name == *name))
    };
    if names.iter().any(is_known) || (names.is_empty() && !known.is_empty()) {
        return known;
    }
    let mut members: BTreeMap<String, u64> = names.iter().map(|name| (name.clone(), 1)).collect();
    members.extend(input.weights.clone());
    for number in 1..=input.endpoints.saturating_sub(members.len()) {
        members.insert(format!("(silent {number})"), 1);
    }
    vec![Epoch {
        from: Duration::ZERO,
        to: input.took,
        members: members
            .into_iter()
            .map(|(name, weight)| Member { name, weight })
            .collect(),
    }]
}

fn is_equal(members: &[Member]) -> bool {
    members.windows(2).all(|two| match two {
        [one, other] => one.weight == other.weight,
        _ => true,
    })
}

type Amount = fn(&Sample) -> u64;

/// Connections, requests, bytes; of kept connections, requests come first.
fn kinds(keep_alive: bool) -> [(&'static str, Amount); 3] {
    let connections: (&str, Amount) = ("connections", |sample| sample.connect.is_some().into());
    let requests: (&str, Amount) = ("requests", |_| 1);
    let bytes: (&str, Amount) = ("bytes", |sample| sample.bytes.into());
    if keep_alive {
        [requests, connections, bytes]
    } else {
        [connections, requests, bytes]
    }
}

fn units(sorted: &[&Sample], names: &[String], epochs: &[Epoch], keep_alive: bool) -> Vec<Unit> {
    let unit = |(unit, amount): (&str, Amount)| {
        let mut observed: BTreeMap<&str, u64> = BTreeMap::new();
        let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
        for epoch in epochs {
            let got = amounts(epoch, sorted, names, amount);
            let total: u64 = got.values().sum();
            let weights: u64 = epoch.members.iter().map(|member| member.weight).sum();
            for member in &epoch.members {
                let due = float(total) * float(member.weight) / float(weights.max(1));
                *expected.entry(&member.name).or_default() += due;
            }
            for (name, amount) in got {
                *observed.entry(name).or_default() += amount;
            }
        }
        let shares = observed.keys().chain(expected.keys()).copied();
        let shares: BTreeSet<&str> = shares.collect();
        let share = |name: &str| {
            let observed = observed.get(name).copied().unwrap_or_default();
            let expected = expected.get(name).copied().unwrap_or_default();
            Share {
                name: name.to_owned(),
                observed,
                expected,
                z: z(observed, expected, epochs),
            }
        };
        let shares: Vec<Share> = shares.into_iter().map(share).collect();
        let pairs = shares
            .iter()
            .map(|share| (float(share.observed), share.expected));
        Unit {
            unit: unit.to_owned(),
            evenness: evenness::of_expected(&pairs.collect::<Vec<_>>()),
            shares,
        }
    };
    kinds(keep_alive).into_iter().map(unit).collect()
}

/// Standard deviations from what was due, as a binomial share has them.
fn z(observed: u64, expected: f64, epochs: &[Epoch]) -> f64 {
    let parts = epochs.iter().map(|epoch| epoch.members.len()).max();
    let parts = float(u64::try_from(parts.unwrap_or(1)).unwrap_or(1)).max(1.0);
    let deviation = (expected * (1.0 - 1.0 / parts)).sqrt();
    if deviation > 0.0 {
        (float(observed) - expected) / deviation
    } else {
        0.0
    }
}

/// What the members of an epoch got in it; strangers are left out.
fn amounts<'n>(
    epoch: &'n Epoch,
    sorted: &'n [&Sample],
    names: &'n [String],
    amount: Amount,
) -> BTreeMap<&'n str, u64> {
    let mut got: BTreeMap<&str, u64> = BTreeMap::new();
    for (sample, name) in answered(within(sorted, epoch), names) {
        *got.entry(name).or_default() += amount(sample);
    }
    let members: BTreeSet<&str> = epoch.members.iter().map(|member| &*member.name).collect();
    got.retain(|name, _| members.contains(name));
    got
}

/// The samples of an epoch, out of all by the time of sending.
fn within<'n>(sorted: &'n [&'n Sample], epoch: &Epoch) -> &'n [&'n Sample] {
    let before =
        |time: Duration| sorted.partition_point(|sample| Duration::from_nanos(sample.sent) < time);
    sorted
        .get(before(epoch.from)..before(epoch.to))
        .unwrap_or_default()
}

pub(super) fn answered<'s>(
    sorted: &'s [&'s Sample],
    names: &'s [String],
) -> impl Iterator<Item = (&'s Sample, &'s str)> {
    sorted.iter().filter_map(|sample| match sample.outcome {
        Outcome::By(number) => {
            let name = names.get(usize::try_from(number).ok()?)?;
            Some((*sample, &**name))
        }
        Outcome::Failed(_) => None,
    })
}

fn epoch_report(
    epoch: &Epoch,
    sorted: &[&Sample],
    names: &[String],
    keep_alive: bool,
) -> EpochReport {
    let own = within(sorted, epoch);
    let evenness = |(unit, amount): (&str, Amount)| {
        (unit.to_owned(), evenness_of(epoch, sorted, names, amount))
    };
    let members: BTreeSet<&str> = epoch.members.iter().map(|member| &*member.name).collect();
    let strangers = answered(own, names).filter(|(_, name)| !members.contains(name));
    let sequence = sequence(own, names, members.len());
    let usual = sequence.gaps.iter().max_by_key(|(_, count)| **count);
    let all: u64 = sequence.gaps.values().sum();
    EpochReport {
        from: epoch.from.as_secs_f64(),
        to: epoch.to.as_secs_f64(),
        members: epoch
            .members
            .iter()
            .map(|member| (member.name.clone(), member.weight))
            .collect(),
        units: kinds(keep_alive).into_iter().map(evenness).collect(),
        strangers: u64::try_from(strangers.count()).unwrap_or(u64::MAX),
        order: EpochOrder {
            repeat_rate: sequence.repeat_rate,
            client_repeat_rate: sequence.client_repeat_rate,
            usual_gap: usual.map(|(gap, _)| *gap),
            usual_gap_share: usual.map_or(0.0, |(_, count)| float(*count) / float(all)),
        },
    }
}

/// Of the members' shares in an epoch.
fn evenness_of(
    epoch: &Epoch,
    sorted: &[&Sample],
    names: &[String],
    amount: Amount,
) -> Option<Evenness> {
    let got = amounts(epoch, sorted, names, amount);
    let of = |member: &Member| got.get(&*member.name).copied().unwrap_or_default();
    let observed: Vec<u64> = epoch.members.iter().map(of).collect();
    let weights: Vec<u64> = epoch.members.iter().map(|member| member.weight).collect();
    evenness::by_weight(&observed, &weights)
}

fn order(sorted: &[&Sample], names: &[String], epochs: &[Epoch]) -> Order {
    let most = epochs.iter().map(|epoch| epoch.members.len()).max();
    let most = most.unwrap_or(1).max(1);
    let sequence = sequence(sorted, names, most);
    Order {
        repeat_rate: sequence.repeat_rate,
        client_repeat_rate: sequence.client_repeat_rate,
        repeat_rate_by_chance: 1.0 / float(u64::try_from(most).unwrap_or(1)),
        gaps: sequence.gaps,
        worst_second_cov: worst_second(sorted, names, epochs),
    }
}

/// What the order of answers shows.
struct Sequence {
    repeat_rate: f64,
    client_repeat_rate: f64,
    gaps: BTreeMap<u64, u64>,
}

fn sequence(sorted: &[&Sample], names: &[String], endpoints: usize) -> Sequence {
    let longest = 4 * u64::try_from(endpoints).unwrap_or(1).max(1);
    let mut gaps: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last_at: HashMap<&str, u64> = HashMap::new();
    let mut last_of: HashMap<u16, &str> = HashMap::new();
    let mut repeats = (0_u64, 0_u64);
    let mut own_repeats = (0_u64, 0_u64);
    let mut before = None;
    for (place, (sample, name)) in (0_u64..).zip(answered(sorted, names)) {
        if let Some(at) = last_at.insert(name, place) {
            *gaps.entry((place - at).min(longest)).or_default() += 1;
        }
        if let Some(before) = before.replace(name) {
            repeats = (repeats.0 + u64::from(before == name), repeats.1 + 1);
        }
        if let Some(before) = last_of.insert(sample.client, name) {
            own_repeats = (own_repeats.0 + u64::from(before == name), own_repeats.1 + 1);
        }
    }
    let rate = |(part, whole): (u64, u64)| float(part) / float(whole.max(1));
    Sequence {
        repeat_rate: rate(repeats),
        client_repeat_rate: rate(own_repeats),
        gaps,
    }
}

/// The coefficient of variation of the worst whole second within an epoch.
fn worst_second(sorted: &[&Sample], names: &[String], epochs: &[Epoch]) -> Option<f64> {
    let second = Duration::from_secs(1);
    let worst = epochs.iter().filter_map(|epoch| {
        let starts = std::iter::successors(Some(epoch.from), |from| Some(*from + second));
        let starts = starts.take_while(|from| *from + second <= epoch.to);
        let covs = starts.filter_map(|from| {
            let part = Epoch {
                from,
                to: from + second,
                members: epoch.members.clone(),
            };
            Some(evenness_of(&part, sorted, names, |_| 1)?.cov)
        });
        covs.fold(None, |worst: Option<f64>, cov| {
            Some(worst.map_or(cov, |worst| worst.max(cov)))
        })
    });
    worst.fold(None, |worst: Option<f64>, cov| {
        Some(worst.map_or(cov, |worst| worst.max(cov)))
    })
}

/// What percentiles are shown.
const SHOWN: [f64; 7] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// A histogram of nanoseconds up to a minute, to three digits.
fn histogram(values: impl Iterator<Item = u64>) -> Histogram<u64> {
    #[expect(
        clippy::expect_used,
        reason = "the bounds are those of the documentation: low >= 1, high >= 2 * low, digits <= 5"
    )]
    let mut histogram =
        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are allowed");
    values.for_each(|value| histogram.saturating_record(value));
    histogram
}

fn percentiles(values: impl Iterator<Item = u64>) -> Vec<Percentile> {
    let histogram = histogram(values);
    if histogram.is_empty() {
        return Vec::new();
    }
    let percentile = |percentile: f64| {
        let value = histogram.value_at_percentile(percentile);
        let below = histogram.count_between(0, value);
        Percentile {
            percentile,
            millis: float(value) / 1e6,
            above: histogram.len().saturating_sub(below),
        }
    };
    SHOWN.into_iter().map(percentile).collect()
}

/// The median and the 99th percentile of the corrected latency of answers, in milliseconds.
pub(in crate::bench) fn spread_of_latency(samples: &Samples) -> Option<(f64, f64)> {
    let answered = samples.list.iter().filter(|sample| is_answered(sample));
    let histogram = histogram(answered.map(corrected));
    let at = |percentile| float(histogram.value_at_percentile(percentile)) / 1e6;
    (!histogram.is_empty()).then(|| (at(50.0), at(99.0)))
}

/// Corrected latencies of all answers, for a log of them.
pub(in crate::bench) fn corrected_histogram(samples: &Samples) -> Histogram<u64> {
    let answered = samples.list.iter().filter(|sample| is_answered(sample));
    histogram(answered.map(corrected))
}

pub(super) fn is_answered(sample: &Sample) -> bool {
    matches!(sample.outcome, Outcome::By(_))
}

fn corrected(sample: &Sample) -> u64 {
    sample.done.saturating_sub(sample.intended)
}

fn latency(sorted: &[&Sample]) -> Latency {
    let answered = || sorted.iter().filter(|sample| is_answered(sample));
    Latency {
        corrected: percentiles(answered().map(|sample| corrected(sample))),
        uncorrected: percentiles(answered().map(|sample| sample.done - sample.sent)),
        connect: percentiles(answered().filter_map(|sample| sample.connect.map(u64::from))),
        first_byte: percentiles(answered().map(|sample| u64::from(sample.first))),
        count: u64::try_from(answered().count()).unwrap_or(u64::MAX),
    }
}

fn endpoint_latencies(sorted: &[&Sample], names: &[String]) -> Vec<EndpointLatency> {
    let mut by_name: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (sample, name) in answered(sorted, names) {
        by_name.entry(name).or_default().push(corrected(sample));
    }
    let row = |(name, values): (&str, Vec<u64>)| {
        let histogram = histogram(values.into_iter());
        EndpointLatency {
            name: name.to_owned(),
            count: histogram.len(),
            p50: float(histogram.value_at_percentile(50.0)) / 1e6,
            p99: float(histogram.value_at_percentile(99.0)) / 1e6,
        }
    };
    by_name.into_iter().map(row).collect()
}

fn timeline(sorted: &[&Sample], names: &[String]) -> Vec<Second> {
    let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
    for sample in sorted {
        let number = sample.sent / 1_000_000_000;
        let second = seconds.entry(number).or_insert_with(|| Second {
            second: number,
            answers: BTreeMap::new(),
            failed: 0,
        });
        match sample.outcome {
            Outcome::By(name) => {
                let name = usize::try_from(name).ok().and_then(|name| names.get(name));
                *second
                    .answers
                    .entry(name.cloned().unwrap_or_default())
                    .or_default() += 1;
            }
            Outcome::Failed(_) => second.failed += 1,
        }
    }
    seconds.into_values().collect()
}

fn errors(samples: &Samples) -> Vec<ErrorKind> {
    let count = |place: usize| {
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        let failed = |sample: &&Sample| sample.outcome == Outcome::Failed(number);
        u64::try_from(samples.list.iter().filter(failed).count()).unwrap_or(u64::MAX)
    };
    let kinds = samples.failures().iter().enumerate();
    let mut errors: Vec<ErrorKind> = kinds
        .map(|(place, failure)| ErrorKind {
            error: failure.to_string(),
            count: count(place),
        })
        .collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.error.cmp(&b.error)));
    errors
}
