//! The verdict: is the load even, and after which pattern. Owns the rules and their order; reads figures that others
//! have worked out.
//!
//! Chi-square alone misleads both ways: round robin is more even than chance, and with many requests a skew that
//! nobody minds is significant. So strict round robin is judged by its invariant, chance by its p, and everything else
//! by how large the skew is.

use portico_core::observe::evenness::{Evenness, cov_of_chance};
use serde::{Deserialize, Serialize};

use super::report::Order;

/// A skew that nobody minds, as a coefficient of variation.
const SMALL: f64 = 0.02;

/// Below this p a skew is no chance.
const UNLIKELY: f64 = 0.001;

/// From this share of failures on, a run says more of them than of evenness.
const MANY_FAILURES: f64 = 0.01;

/// Above this share of answers by the same endpoint as before, a client stays with it.
const STAYS: f64 = 0.9;

/// Below this part of the rate by chance, answers that repeat the endpoint before are too few for chance.
const FEW_REPEATS: f64 = 0.5;

/// Fewest requests that each endpoint should have got before its absence says something.
const FEWEST: f64 = 20.0;

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Word {
    /// Everybody got the share that was due, within what the pattern allows.
    Even,
    /// The shares are as declared, and not the same for all.
    Weighted,
    /// One client stays with one endpoint, as declared.
    Sticky,
    /// One endpoint answered, and nobody says whether there are others.
    Single,
    /// They are not.
    Uneven,
    /// Too much failed, or somebody never answered.
    Broken,
    /// The generator could not keep its times: nothing of it can be relied on.
    Invalid,
}

impl Word {
    /// As it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Even => "EVEN",
            Self::Weighted => "WEIGHTED",
            Self::Sticky => "STICKY",
            Self::Single => "SINGLE",
            Self::Uneven => "UNEVEN",
            Self::Broken => "BROKEN",
            Self::Invalid => "INVALID",
        }
    }

    /// The exit code of the command.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Even | Self::Weighted | Self::Sticky | Self::Single => 0,
            Self::Uneven | Self::Broken => 1,
            Self::Invalid => 3,
        }
    }
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// In one word.
    pub word: Word,
    /// The pattern: `strict-rr`, `rr`, `random`, `sticky`, `skewed`, ...
    pub pattern: String,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
}

/// What is judged: one unit of work over all epochs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case<'a> {
    /// Over the whole run, against what was due.
    pub(super) whole: Option<Evenness>,
    /// Of each epoch.
    pub(super) epochs: Vec<Evenness>,
    /// In which order they answered.
    pub(super) order: &'a Order,
    /// Whether it is known who should answer.
    pub(super) is_known: bool,
    /// Those who got nothing although something was due.
    pub(super) silent: &'a [String],
    /// Whether shares are declared that are not all the same.
    pub(super) has_weights: bool,
    /// Whether session affinity is declared.
    pub(super) is_sticky: bool,
    pub(super) asked: u64,
    pub(super) failed: u64,
}

/// Judges it.
pub(super) fn judge(case: &Case<'_>) -> Verdict {
    let verdict = |word, pattern: &str, reasons: Vec<String>| Verdict {
        word,
        pattern: pattern.to_owned(),
        reasons,
    };
    let failures = share(case.failed, case.asked);
    if failures >= MANY_FAILURES {
        let text = format!("{} of {} failed", case.failed, case.asked);
        return verdict(Word::Broken, "failing", vec![text]);
    }
    let Some(whole) = case.whole else {
        return verdict(
            Word::Broken,
            "silent",
            vec!["nothing was answered".to_owned()],
        );
    };
    if whole.parts == 1 {
        let (word, text) = if case.is_known {
            (Word::Even, "there is one endpoint: nothing to share out")
        } else {
            (
                Word::Single,
                "one endpoint answered: whether others should have is not known (--endpoints N, --weight NAME=N)",
            )
        };
        return verdict(word, "single", vec![text.to_owned()]);
    }
    let repeats = case.order.client_repeat_rate;
    if repeats > STAYS {
        let (word, pattern, text) = staying(case, &whole);
        return verdict(word, pattern, vec![text]);
    }
    if case.is_sticky && whole.total >= FEWEST {
        let text = format!(
            "clients should stay with one endpoint, but only {:.0} % of answers came from the same one as the client's last",
            repeats * 100.0
        );
        return verdict(Word::Broken, "not-sticky", vec![text]);
    }
    if let Some(verdict) = pattern_of(case, &whole) {
        return verdict;
    }
    let due = whole.total / super::pace::float(u64::try_from(whole.parts).unwrap_or(u64::MAX));
    if !case.silent.is_empty() && due >= FEWEST {
        let text = format!("never answered: {}", case.silent.join(", "));
        return verdict(Word::Broken, "absent", vec![text]);
    }
    let text = format!(
        "shares differ by {:.1} % from what is due, {:.1} % would be chance",
        whole.cov * 100.0,
        chance(&whole) * 100.0
    );
    verdict(Word::Uneven, "skewed", vec![text])
}

/// Clients that stay where they are: declared, or an effect of something else.
fn staying(case: &Case<'_>, whole: &Evenness) -> (Word, &'static str, String) {
    let percent = case.order.client_repeat_rate * 100.0;
    if case.is_sticky {
        let text = "each client stays with one endpoint, as declared: evenness is that of clients";
        (Word::Sticky, "client-ip", text.to_owned())
    } else if whole.cov <= SMALL {
        let text = format!("each client stays with one endpoint ({percent:.0} % of its answers)");
        (Word::Even, "by-client", text)
    } else {
        let text = format!(
            "{percent:.0} % of answers came from the same endpoint as the client's last one: something keeps clients \
             there (session affinity, a kept connection, a hash of the client)"
        );
        (Word::Uneven, "sticky", text)
    }
}

/// A pattern that is as it should be.
fn pattern_of(case: &Case<'_>, whole: &Evenness) -> Option<Verdict> {
    let word = if case.has_weights {
        Word::Weighted
    } else {
        Word::Even
    };
    let found = |pattern: &str, text: String| {
        Some(Verdict {
            word,
            pattern: pattern.to_owned(),
            reasons: vec![text],
        })
    };
    let spread = case.epochs.iter().map(|epoch| epoch.spread);
    let spread = spread.fold(0.0, f64::max);
    // Requests on their way when the endpoints changed may be counted on either side.
    let allowed = if case.epochs.len() > 1 { 2.0 } else { 1.0 };
    // Shares by weight are exact over whole cycles; within one each may be a turn early and a turn late.
    let allowed = if case.has_weights { 2.0 } else { allowed };
    if spread <= allowed + 1e-9 {
        let pattern = if case.has_weights {
            "weighted-rr"
        } else {
            "strict-rr"
        };
        return found(pattern, format!("most less least is {spread:.0}"));
    }
    // More even than chance by far: several cursors in turn, as one for each thread, or least connections. With few
    // endpoints p says little, and the order more.
    let order = case.order;
    let takes_turns = order.repeat_rate < FEW_REPEATS * order.repeat_rate_by_chance;
    let is_too_even = whole.p > 1.0 - UNLIKELY || takes_turns;
    if is_too_even && whole.cov < chance(whole) / 2.0 {
        return found(
            "rr",
            format!(
                "most less least is {spread:.0}: nearly in turn, as several cursors or least connections are"
            ),
        );
    }
    if whole.p >= UNLIKELY {
        let pattern = if case.has_weights {
            "weighted-random"
        } else {
            "random"
        };
        return found(
            pattern,
            format!("as independent random picks are (p = {:.3})", whole.p),
        );
    }
    let is_small = whole.cov <= SMALL && case.silent.is_empty();
    if is_small {
        return found(
            "nearly",
            format!(
                "no chance (p = {:.2e}), but {:.2} % from what is due",
                whole.p,
                whole.cov * 100.0
            ),
        );
    }
    None
}

fn chance(evenness: &Evenness) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, as it was before it was added up"
    )]
    let total = evenness.total as u64;
    cov_of_chance(total, evenness.parts)
}

fn share(part: u64, whole: u64) -> f64 {
    super::pace::float(part) / super::pace::float(whole.max(1))
}

#[cfg(test)]
mod tests {
    use portico_core::observe::evenness::by_weight;

    use super::*;

    struct Setup<'a> {
        counts: &'a [u64],
        weights: &'a [u64],
        repeats: f64,
        known: bool,
        sticky: bool,
        failed: u64,
    }

    fn check(setup: &Setup<'_>, word: Word, pattern: &str) {
        let whole = by_weight(setup.counts, setup.weights);
        let pairs = setup.counts.iter().enumerate();
        let silent: Vec<String> = pairs
            .filter(|(_, count)| **count == 0)
            .map(|(place, _)| place.to_string())
            .collect();
        let answered: u64 = setup.counts.iter().sum();
        let order = Order {
            repeat_rate: setup.repeats,
            client_repeat_rate: setup.repeats,
            repeat_rate_by_chance: 0.25,
            gaps: std::collections::BTreeMap::new(),
            worst_second_cov: None,
        };
        let verdict = judge(&Case {
            whole,
            epochs: whole.into_iter().collect(),
            order: &order,
            is_known: setup.known,
            silent: &silent,
            has_weights: setup
                .weights
                .iter()
                .any(|weight| *weight != setup.weights[0]),
            is_sticky: setup.sticky,
            asked: answered + setup.failed,
            failed: setup.failed,
        });
        assert_eq!(
            (verdict.word, &*verdict.pattern),
            (word, pattern),
            "{verdict:?}"
        );
    }

    const PLAIN: Setup<'_> = Setup {
        counts: &[],
        weights: &[1, 1, 1, 1],
        repeats: 0.25,
        known: true,
        sticky: false,
        failed: 0,
    };

    #[test]
    fn judge_turns_are_strict_round_robin() {
        let counts = &[250, 250, 251, 250];
        check(
            &Setup {
                counts,
                repeats: 0.0,
                ..PLAIN
            },
            Word::Even,
            "strict-rr",
        );
        let counts = &[2503, 2497, 2500, 2500];
        check(
            &Setup {
                counts,
                repeats: 0.01,
                ..PLAIN
            },
            Word::Even,
            "rr",
        );
    }

    #[test]
    fn judge_chance_is_even_and_random() {
        let counts = &[268, 241, 255, 236];
        check(&Setup { counts, ..PLAIN }, Word::Even, "random");
    }

    #[test]
    fn judge_a_skew_is_uneven_unless_it_is_small_or_declared() {
        let counts = &[500, 200, 200, 100];
        check(&Setup { counts, ..PLAIN }, Word::Uneven, "skewed");
        let counts = &[1_010_000, 1_000_000, 1_000_000, 990_000];
        check(&Setup { counts, ..PLAIN }, Word::Even, "nearly");
        let (counts, weights) = (&[501, 199, 200, 100], &[5, 2, 2, 1]);
        check(
            &Setup {
                counts,
                weights,
                ..PLAIN
            },
            Word::Weighted,
            "weighted-rr",
        );
        let (counts, weights) = (&[520, 190, 205, 85], &[5, 2, 2, 1]);
        check(
            &Setup {
                counts,
                weights,
                ..PLAIN
            },
            Word::Weighted,
            "weighted-random",
        );
        let (counts, weights) = (&[250, 250, 250, 250], &[5, 2, 2, 1]);
        check(
            &Setup {
                counts,
                weights,
                ..PLAIN
            },
            Word::Uneven,
            "skewed",
        );
    }

    #[test]
    fn judge_one_for_all_is_sticky_and_right_only_where_it_is_declared() {
        let counts = &[1000, 0, 0, 0];
        let sticky = Setup {
            counts,
            repeats: 0.999,
            ..PLAIN
        };
        check(&sticky, Word::Uneven, "sticky");
        check(
            &Setup {
                sticky: true,
                ..sticky
            },
            Word::Sticky,
            "client-ip",
        );
        let counts = &[310, 290, 180, 220];
        check(
            &Setup {
                counts,
                sticky: true,
                ..PLAIN
            },
            Word::Broken,
            "not-sticky",
        );
        let counts = &[250, 250, 250, 250];
        check(
            &Setup {
                counts,
                repeats: 0.99,
                ..PLAIN
            },
            Word::Even,
            "by-client",
        );
    }

    #[test]
    fn judge_failures_and_absence_are_broken() {
        let counts = &[250, 250, 250, 0];
        check(
            &Setup {
                counts,
                repeats: 0.0,
                ..PLAIN
            },
            Word::Broken,
            "absent",
        );
        let counts = &[250, 250, 250, 240];
        check(
            &Setup {
                counts,
                failed: 20,
                ..PLAIN
            },
            Word::Broken,
            "failing",
        );
        check(
            &Setup {
                counts: &[0, 0, 0, 0],
                ..PLAIN
            },
            Word::Broken,
            "silent",
        );
        let (counts, weights) = (&[9], &[1]);
        check(
            &Setup {
                counts,
                weights,
                ..PLAIN
            },
            Word::Even,
            "single",
        );
        check(
            &Setup {
                counts,
                weights,
                known: false,
                ..PLAIN
            },
            Word::Single,
            "single",
        );
    }

    #[test]
    fn judge_turns_with_few_endpoints_are_told_by_their_order() {
        let counts = &[256, 244, 252, 248];
        check(&Setup { counts, ..PLAIN }, Word::Even, "random");
        check(
            &Setup {
                counts,
                repeats: 0.02,
                ..PLAIN
            },
            Word::Even,
            "rr",
        );
    }
}
