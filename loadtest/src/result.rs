//! The outcome of a run as it is kept: every measurement, and what follows from them. Owns the form of the files and the
//! arithmetic of verdicts; measures and prints nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    control::{Control, Judgement},
    figure::{Figure, Figures},
    load::Step,
    provenance::Provenance,
    scenario::{Bar, Contestant, Scenario},
    stats::{self, Estimate},
};

/// Version of the form; a reader of another one says so.
pub(crate) const SCHEMA: u32 = 1;

/// One file of `results/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// `SCHEMA`.
    pub(crate) schema: u32,
    /// What was asked.
    pub(crate) scenario: Scenario,
    /// Where and with what.
    pub(crate) provenance: Provenance,
    /// Who could not take part, and how to change that.
    pub(crate) missing: Vec<String>,
    /// Every measurement in its order.
    pub(crate) samples: Vec<Sample>,
    /// What follows.
    pub(crate) summary: Summary,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Counted from 1.
    pub(crate) round: u16,
    /// Of whom.
    pub(crate) contestant: Contestant,
    /// What was measured.
    pub(crate) figures: Figures,
    /// What failed, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) failures: BTreeMap<String, u64>,
    /// Rates of a sweep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
}

/// What follows from the samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Why the run counts for nothing, if so.
    pub(crate) refused: Option<String>,
    /// The client without a proxy.
    pub(crate) control: Option<Control>,
    /// Medians of rounds.
    pub(crate) medians: BTreeMap<Contestant, BTreeMap<Figure, Estimate>>,
    /// portico by each of the others, in pairs of the same round.
    pub(crate) ratios: Vec<Ratio>,
    /// The promises.
    pub(crate) bars: Vec<Verdict>,
}

/// One figure of one by that of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    /// What.
    pub(crate) figure: Figure,
    /// Above the line.
    pub(crate) of: Contestant,
    /// Below the line.
    pub(crate) against: Contestant,
    /// Of the rounds' ratios.
    pub(crate) estimate: Estimate,
}

/// A promise and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What was promised.
    pub(crate) bar: Bar,
    /// What was measured; nothing if somebody is missing.
    pub(crate) measured: Option<Estimate>,
    /// Whether the median, or the interval, keeps it.
    pub(crate) is_met: Option<bool>,
    /// Whether the interval lies on both sides of the bound, so that more rounds may say otherwise.
    pub(crate) is_close: bool,
}

impl Summary {
    /// Of the samples of a scenario.
    pub(crate) fn new(scenario: &Scenario, samples: &[Sample]) -> Self {
        let judge = |figure| Judgement::new(figure, samples, scenario.rounds);
        let (control, refused) = match scenario.control.map(judge) {
            Some(judgement) => (Some(judgement.control), judgement.refused),
            None => (None, None),
        };
        // A refused run counts for nothing, and shows everything.
        let thrown = control.as_ref().filter(|_| refused.is_none());
        let thrown = thrown.map_or(&[][..], |control| &control.thrown);
        let by = Rounds { samples, thrown };
        let mut contestants: Vec<Contestant> = samples.iter().map(|s| s.contestant).collect();
        contestants.sort_unstable();
        contestants.dedup();
        let medians = contestants
            .iter()
            .map(|who| (*who, by.medians(*who, &scenario.figures)))
            .collect();
        let others = contestants
            .iter()
            .filter(|who| !matches!(who, Contestant::Direct | Contestant::Portico));
        let ratios = others
            .flat_map(|against| {
                let figures = scenario.figures.iter();
                figures.filter_map(|figure| by.ratio(*figure, Contestant::Portico, *against))
            })
            .collect();
        let bars = scenario.bars.iter().map(|bar| by.verdict(bar)).collect();
        Self {
            refused,
            control,
            medians,
            ratios,
            bars,
        }
    }

    /// Whether a promise is broken.
    pub(crate) fn has_missed(&self) -> bool {
        self.bars.iter().any(|bar| bar.is_met == Some(false))
    }
}

/// Samples by round, without those of rounds that were thrown away.
struct Rounds<'a> {
    samples: &'a [Sample],
    thrown: &'a [u16],
}

impl Rounds<'_> {
    /// One value a round: the median if there are several samples.
    fn values(&self, who: Contestant, figure: Figure) -> Vec<Option<f64>> {
        let rounds = self.samples.iter().map(|sample| sample.round).max();
        (1..=rounds.unwrap_or(0))
            .filter(|round| !self.thrown.contains(round))
            .map(|round| {
                let samples = self
                    .samples
                    .iter()
                    .filter(|s| s.round == round && s.contestant == who);
                let values: Vec<f64> = samples
                    .filter_map(|s| s.figures.get(&figure).copied())
                    .collect();
                stats::median(&values)
            })
            .collect()
    }

    fn medians(&self, who: Contestant, figures: &[Figure]) -> BTreeMap<Figure, Estimate> {
        let estimate = |figure: &Figure| {
            let values: Vec<f64> = self.values(who, *figure).into_iter().flatten().collect();
            Some((*figure, stats::estimate(&values, 1)?))
        };
        figures.iter().filter_map(estimate).collect()
    }

    fn ratio(&self, figure: Figure, of: Contestant, against: Contestant) -> Option<Ratio> {
        let ratios = stats::ratios(&self.values(of, figure), &self.values(against, figure));
        Some(Ratio {
            figure,
            of,
            against,
            estimate: stats::estimate(&ratios, 1).filter(|_| figure.is_compared())?,
        })
    }

    fn verdict(&self, bar: &Bar) -> Verdict {
        let ours = self.values(bar.of, bar.figure);
        let values = match bar.against {
            Some(against) => stats::ratios(&ours, &self.values(against, bar.figure)),
            None => ours.into_iter().flatten().collect(),
        };
        let measured = stats::estimate(&values, 1);
        Verdict {
            bar: bar.clone(),
            is_met: measured.map(|measured| bar.is_met(measured)),
            is_close: measured.is_some_and(|measured| bar.is_close(measured)),
            measured,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three rounds of a scenario, with the direct control moving as said.
    pub(crate) fn example(control: [f64; 3]) -> RunResult {
        let file = crate::scenario::file("tcp-versus-haproxy");
        let mut scenario = Scenario::read(&file).unwrap();
        scenario.name = "example".into();
        scenario.about = "What an example tells.".into();
        scenario.figures = vec![
            Figure::CpuPerRequest,
            Figure::RequestsPerSecond,
            Figure::Failed,
        ];
        scenario.bars.truncate(1);
        scenario.control = Some(Figure::RequestsPerSecond);
        scenario.rounds = 3;
        let mut samples = Vec::new();
        for (round, direct) in (1_u16..).zip(control) {
            for (contestant, cpu, rate) in [
                (Contestant::Direct, None, direct),
                (Contestant::Portico, Some(27.0 + f64::from(round)), 9000.0),
                (Contestant::Haproxy, Some(30.0), 10_000.0),
                (Contestant::Direct, None, direct),
            ] {
                let mut figures = Figures::from([(Figure::RequestsPerSecond, rate)]);
                figures.insert(Figure::Failed, 0.0);
                figures.extend(cpu.map(|cpu| (Figure::CpuPerRequest, cpu)));
                samples.push(Sample {
                    round,
                    contestant,
                    figures,
                    failures: BTreeMap::new(),
                    steps: Vec::new(),
                });
            }
        }
        let summary = Summary::new(&scenario, &samples);
        RunResult {
            schema: SCHEMA,
            scenario,
            provenance: Provenance::example(),
            missing: vec!["nginx stream: not there (install it)".into()],
            samples,
            summary,
        }
    }

    #[test]
    fn summary_pairs_rounds_and_judges_by_the_median() {
        let summary = example([100.0, 104.0, 109.0]).summary;
        assert_eq!(summary.refused, None);
        let verdict = &summary.bars[0];
        let measured = verdict.measured.unwrap();
        assert!((measured.median - 29.0 / 30.0).abs() < 1e-6);
        assert_eq!((verdict.is_met, verdict.is_close), (Some(true), false));
        assert!(!summary.has_missed());
        let compared: Vec<Figure> = summary.ratios.iter().map(|ratio| ratio.figure).collect();
        assert_eq!(compared, [Figure::CpuPerRequest, Figure::RequestsPerSecond]);
    }

    #[test]
    fn summary_of_a_control_that_moved_is_refused() {
        let summary = example([100.0, 104.0, 111.0]).summary;
        assert!(summary.refused.unwrap().contains("moved by 11 per cent"));
        let direct = summary.medians[&Contestant::Direct][&Figure::RequestsPerSecond];
        assert_eq!((direct.low, direct.high), (100.0, 111.0), "all are shown");
    }

    #[test]
    fn summary_leaves_out_what_was_measured_in_a_round_that_was_thrown_away() {
        let mut result = example([100.0, 60.0, 109.0]);
        result.scenario.rounds = 2;
        let summary = Summary::new(&result.scenario, &result.samples);
        assert_eq!(summary.refused, None);
        assert_eq!(summary.control.unwrap().thrown, [2]);
        // Of 28, 29 and 30 the middle one is gone; the ratio is of the same rounds.
        let of_portico = summary.medians[&Contestant::Portico][&Figure::CpuPerRequest];
        assert_eq!((of_portico.low, of_portico.high), (28.0, 30.0));
        let measured = summary.bars[0].measured.unwrap();
        assert!((measured.high - 1.0).abs() < 1e-6 && (measured.low - 28.0 / 30.0).abs() < 1e-6);
    }

    #[test]
    fn summary_without_a_peer_judges_nothing() {
        let mut result = example([100.0; 3]);
        result
            .samples
            .retain(|s| s.contestant != Contestant::Haproxy);
        let summary = Summary::new(&result.scenario, &result.samples);
        assert_eq!(summary.bars[0].is_met, None);
        assert!(!summary.has_missed());
    }

    #[test]
    fn result_is_read_back_as_it_was_written() {
        let result = example([100.0; 3]);
        let text = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<RunResult>(&text).unwrap(), result);
    }
}
