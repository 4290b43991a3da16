//! Edits of the endpoints while a load runs: which backends are declared after each step. Pure but for the pace.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What happens to the endpoints of the Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Edit {
    /// One that is missing comes, if one is.
    Add,
    /// The first goes, unless it is the only one.
    Remove,
    /// The first goes and comes back.
    Flap,
    /// One after the other gives way to one that is missing, as in a rolling update: first come, then go.
    Roll,
}

/// The sets of backends in the order in which they are declared, one a write; begins with all but the last.
pub(crate) fn plan(backends: usize, edits: &[Edit]) -> Vec<Vec<usize>> {
    let mut served: Vec<usize> = (0..backends.saturating_sub(1).max(1)).collect();
    let mut steps = vec![served.clone()];
    for edit in edits {
        match edit {
            Edit::Add => add(&mut served, backends, &mut steps),
            Edit::Remove => remove(&mut served, &mut steps),
            Edit::Flap => {
                let before = served.clone();
                remove(&mut served, &mut steps);
                if before != served {
                    served = before;
                    steps.push(served.clone());
                }
            }
            Edit::Roll => {
                for _ in 0..served.len() {
                    add(&mut served, backends, &mut steps);
                    remove(&mut served, &mut steps);
                }
            }
        }
    }
    steps
}

fn add(served: &mut Vec<usize>, backends: usize, steps: &mut Vec<Vec<usize>>) {
    if let Some(missing) = (0..backends).find(|backend| !served.contains(backend)) {
        served.push(missing);
        steps.push(served.clone());
    }
}

fn remove(served: &mut Vec<usize>, steps: &mut Vec<Vec<usize>>) {
    if served.len() > 1 {
        served.remove(0);
        steps.push(served.clone());
    }
}

/// Writes the steps of a plan in turn at an even pace until `until`; returns how many were written.
///
/// # Errors
/// A step cannot be written.
pub(crate) async fn run(
    plan: &[Vec<usize>],
    per_second: u16,
    until: Instant,
    write: impl Fn(&[usize]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::from(per_second.max(1)));
    let mut written = 0;
    for step in plan.iter().cycle() {
        pace.tick().await;
        if Instant::now() >= until {
            break;
        }
        write(step).context("cannot edit the manifests")?;
        written += 1;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_of_each_edit_is_the_sets_after_it() {
        assert_eq!(plan(3, &[Edit::Add]), [vec![0, 1], vec![0, 1, 2]]);
        assert_eq!(plan(3, &[Edit::Remove]), [vec![0, 1], vec![1]]);
        assert_eq!(plan(3, &[Edit::Flap]), [vec![0, 1], vec![1], vec![0, 1]]);
        assert_eq!(
            plan(3, &[Edit::Roll]),
            [
                vec![0, 1],
                vec![0, 1, 2],
                vec![1, 2],
                vec![1, 2, 0],
                vec![2, 0]
            ]
        );
    }

    #[test]
    fn plan_never_leaves_the_service_without_a_backend() {
        let edits = [
            Edit::Remove,
            Edit::Flap,
            Edit::Remove,
            Edit::Roll,
            Edit::Add,
        ];
        for backends in 1..5 {
            assert!(plan(backends, &edits).iter().all(|set| !set.is_empty()));
        }
    }
}
