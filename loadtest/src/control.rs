//! The direct control: which rounds were quiet enough to count, and when a run has too few of them. Pure, and blind to
//! what the contestants did: it is given the control's slices and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    figure::Figure,
    result::Sample,
    scenario::Contestant,
    stats::{self, rounded},
};

/// A slice may lie this far from the median of all slices, and the rounds that count this far apart.
const MOST_MOVEMENT: f64 = 0.10;
/// So many times the rounds that were asked for are tried at most.
pub(crate) const MOST_TRIES: u16 = 3;

/// How steady the machine was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// What was looked at.
    pub(crate) figure: Figure,
    /// The median of its slices in each round that counts; in each round at all if the run is refused.
    pub(crate) rounds: Vec<f64>,
    /// The largest of them by the smallest, minus one.
    pub(crate) moved: Option<f64>,
    /// Rounds that were not quiet and count for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) thrown: Vec<u16>,
}

/// The control's slices by round.
type Slices = BTreeMap<u16, Vec<f64>>;

/// What the control says of a run.
pub(crate) struct Judgement {
    /// For the record.
    pub(crate) control: Control,
    /// Why the run counts for nothing, if so.
    pub(crate) refused: Option<String>,
}

impl Judgement {
    /// Of all samples, when `needed` rounds must be quiet.
    pub(crate) fn new(figure: Figure, samples: &[Sample], needed: u16) -> Self {
        let slices = slices(figure, samples);
        let quiet = quiet(&slices);
        let thrown: Vec<u16> = slices
            .keys()
            .filter(|round| !quiet.contains(round))
            .copied()
            .collect();
        let is_refused = quiet.len() < usize::from(needed);
        let rounds: Vec<f64> = slices
            .iter()
            .filter(|(round, _)| is_refused || quiet.contains(round))
            .filter_map(|(_, slices)| stats::median(slices))
            .collect();
        let control = Control {
            figure,
            moved: stats::movement(&rounds).map(rounded),
            rounds,
            thrown,
        };
        let refused = is_refused.then(|| refusal(&control, quiet.len(), needed));
        Self { control, refused }
    }
}

/// The rounds whose control was quiet: what counts of a run so far.
pub(crate) fn quiet_rounds(figure: Figure, samples: &[Sample]) -> BTreeSet<u16> {
    quiet(&slices(figure, samples))
}

fn slices(figure: Figure, samples: &[Sample]) -> Slices {
    let mut slices = Slices::new();
    for sample in samples {
        let of_round = slices.entry(sample.round).or_default();
        if sample.contestant == Contestant::Direct {
            // A control without its figure is one that stood still.
            of_round.push(sample.figures.get(&figure).copied().unwrap_or_default());
        }
    }
    slices
}

/// The rounds with every slice near the median of all, and of those the most whose medians do not lie further apart than
/// a run's may. The quicker ones if two choices are as large.
fn quiet(slices: &Slices) -> BTreeSet<u16> {
    let all: Vec<f64> = slices.values().flatten().copied().collect();
    let Some(middle) = stats::median(&all).filter(|middle| *middle > 0.0) else {
        return BTreeSet::new();
    };
    let is_near = |slice: &f64| (slice / middle - 1.0).abs() <= MOST_MOVEMENT;
    let mut near: Vec<(f64, u16)> = slices
        .iter()
        .filter(|(_, slices)| slices.iter().all(is_near))
        .filter_map(|(round, slices)| Some((stats::median(slices)?, *round)))
        .collect();
    near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let windows = near.iter().enumerate().map(|(from, (least, _))| {
        let is_within = |(median, _): &&(f64, u16)| median / least - 1.0 <= MOST_MOVEMENT;
        let window = near.iter().skip(from).take_while(is_within);
        window.map(|(_, round)| *round).collect::<BTreeSet<_>>()
    });
    windows.max_by_key(BTreeSet::len).unwrap_or_default()
}

fn refusal(control: &Control, quiet: usize, needed: u16) -> String {
    let name = control.figure.name();
    let Some(moved) = control.moved else {
        return format!("the direct control has no {name}");
    };
    format!(
        "{name} of the direct control moved by {:.0} per cent, and {quiet} of {} rounds were within {:.0}, fewer than {needed}: \
         the machine was not quiet",
        moved * 100.0,
        control.rounds.len(),
        MOST_MOVEMENT * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slices: &[&[f64]], kept: &[u16]) {
        let slices: Slices = (1..).zip(slices.iter().map(|s| s.to_vec())).collect();
        assert_eq!(quiet(&slices), kept.iter().copied().collect(), "{slices:?}");
    }

    #[test]
    fn quiet_of_a_steady_control_is_every_round() {
        check(
            &[&[100.0, 104.0], &[97.0, 99.0], &[103.0, 96.0]],
            &[1, 2, 3],
        );
    }

    #[test]
    fn quiet_throws_away_a_round_with_one_slow_slice_though_its_median_is_good() {
        check(&[&[100.0, 60.0, 101.0], &[99.0; 3], &[101.0; 3]], &[2, 3]);
    }

    #[test]
    fn quiet_throws_away_a_round_that_is_too_quick_as_well() {
        check(&[&[100.0, 100.0], &[100.0, 111.0], &[99.0, 101.0]], &[1, 3]);
    }

    #[test]
    fn quiet_rounds_near_the_median_but_far_apart_are_not_all_kept() {
        // All within 10 per cent of 100, but 92 and 108 are 17 apart.
        let slices: [&[f64]; 5] = [&[92.0], &[95.0], &[100.0], &[101.0], &[108.0]];
        check(&slices, &[1, 2, 3, 4]);
    }

    #[test]
    fn quiet_of_a_machine_with_two_speeds_is_none() {
        check(&[&[70.0], &[100.0], &[70.0], &[100.0]], &[]);
    }

    #[test]
    fn quiet_of_a_round_without_a_control_or_with_one_at_zero_is_none() {
        check(&[&[]], &[]);
        check(&[&[0.0], &[0.0]], &[]);
        check(&[&[100.0], &[], &[100.0, 0.0], &[100.0]], &[1, 4]);
    }

    fn samples(rounds: &[&[f64]], of_portico: f64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (round, slices) in (1..).zip(rounds) {
            let direct = slices.iter().map(|slice| (Contestant::Direct, *slice));
            for (contestant, rate) in direct.chain([(Contestant::Portico, of_portico)]) {
                samples.push(Sample {
                    round,
                    contestant,
                    figures: [(Figure::RequestsPerSecond, rate)].into(),
                    failures: BTreeMap::new(),
                    steps: Vec::new(),
                });
            }
        }
        samples
    }

    #[test]
    fn judgement_with_enough_quiet_rounds_names_those_thrown_away() {
        let rounds: [&[f64]; 4] = [&[100.0, 101.0], &[50.0, 100.0], &[99.0, 100.0], &[104.0; 2]];
        let judgement = Judgement::new(Figure::RequestsPerSecond, &samples(&rounds, 1.0), 3);
        assert_eq!(judgement.refused, None);
        assert_eq!(judgement.control.thrown, [2]);
        assert_eq!(judgement.control.rounds, [100.5, 99.5, 104.0]);
    }

    #[test]
    fn judgement_with_too_few_quiet_rounds_refuses_and_shows_all() {
        let rounds: [&[f64]; 4] = [&[100.0], &[50.0], &[99.0], &[130.0]];
        let judgement = Judgement::new(Figure::RequestsPerSecond, &samples(&rounds, 1.0), 3);
        let refused = judgement.refused.unwrap();
        assert!(refused.contains("2 of 4 rounds"), "{refused}");
        assert_eq!(judgement.control.rounds.len(), 4);
    }

    #[test]
    fn judgement_does_not_look_at_the_contestants() {
        let rounds: [&[f64]; 3] = [&[100.0], &[80.0], &[99.0]];
        let judge = |of_portico| {
            let samples = samples(&rounds, of_portico);
            Judgement::new(Figure::RequestsPerSecond, &samples, 2).control
        };
        assert_eq!(judge(1.0), judge(1e9));
    }
}
