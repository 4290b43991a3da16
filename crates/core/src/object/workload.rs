//! `apps/v1` Deployment, ReplicaSet, DaemonSet and StatefulSet. Owns the desired state; the controllers that act on it are in the world.

use std::{sync::Arc, time::Duration};

use super::{meta::Labels, pod::PodSpec};

/// The label that tells the pods of a Deployment's revisions apart.
pub const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// `spec` of a Deployment, ReplicaSet, DaemonSet or StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `replicas`; default 1; unused in a DaemonSet.
    pub replicas: u32,
    /// `selector`.
    pub selector: LabelSelector,
    /// `template`.
    pub template: Arc<PodTemplate>,
    /// `strategy`; a ReplicaSet has the default, unused.
    pub strategy: Strategy,
    /// `minReadySeconds`; default 0.
    pub min_ready: Duration,
    /// `progressDeadlineSeconds`; default 600 s, `None` where an old API version meant "no deadline".
    pub progress_deadline: Option<Duration>,
    /// `revisionHistoryLimit`; default 10.
    pub revision_history_limit: u32,
    /// `paused`; default false.
    pub paused: bool,
    /// `serviceName` of a StatefulSet.
    pub service_name: Option<Arc<str>>,
    /// `podManagementPolicy: Parallel` of a StatefulSet; default OrderedReady.
    pub parallel: bool,
}

/// `template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTemplate {
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// `spec`.
    pub spec: Arc<PodSpec>,
    /// FNV-1a (32 bits) of the canonical JSON text of the whole template, unknown fields included: what makes two
    /// templates different for a rollout. Names made from it use Kubernetes' safe alphabet.
    pub hash: u32,
    /// The template as it was written, as JSON with sorted keys.
    pub manifest: Arc<str>,
}

/// `strategy` of a Deployment, `updateStrategy` of a DaemonSet or StatefulSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All old pods end before new ones start.
    Recreate,
    /// Old and new overlap within bounds.
    RollingUpdate {
        /// Pods above `replicas`; default 25 %.
        max_surge: IntOrPercent,
        /// Pods that may be missing; default 25 % (of a DaemonSet: 1, and no surge).
        max_unavailable: IntOrPercent,
    },
    /// `RollingUpdate` of a StatefulSet: from the last ordinal down to this one, one at a time.
    Partition(u32),
    /// A pod is replaced when somebody deletes it.
    OnDelete,
}

/// A number of pods, or a share of `replicas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntOrPercent {
    /// A number.
    Int(u32),
    /// Per cent.
    Percent(u32),
}

impl IntOrPercent {
    /// The number of pods it means for `replicas`, rounded up.
    pub fn of_rounded_up(self, replicas: u32) -> u32 {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => scaled(replicas, percent, 99),
        }
    }

    /// The number of pods it means for `replicas`, rounded down.
    pub fn of_rounded_down(self, replicas: u32) -> u32 {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => scaled(replicas, percent, 0),
        }
    }
}

/// `(replicas * percent + round) / 100`, saturating.
fn scaled(replicas: u32, percent: u32, round: u64) -> u32 {
    u32::try_from((u64::from(replicas) * u64::from(percent) + round) / 100).unwrap_or(u32::MAX)
}

/// A label selector: `matchLabels` and `matchExpressions`, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub match_labels: Labels,
    /// `matchExpressions`.
    pub match_expressions: Vec<LabelExpression>,
}

/// One entry of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelExpression {
    /// `key`.
    pub key: Arc<str>,
    /// `operator` with its `values`.
    pub operator: LabelOperator,
}

/// `operator` of a label expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelOperator {
    /// The value is one of these.
    In(Vec<Arc<str>>),
    /// The label is absent or its value is none of these.
    NotIn(Vec<Arc<str>>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether `labels` match; an empty selector matches everything.
    pub fn matches(&self, labels: &Labels) -> bool {
        selects(&self.match_labels, labels)
            && self
                .match_expressions
                .iter()
                .all(|expression| expression.matches(labels))
    }

    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl LabelExpression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            LabelOperator::In(values) => value.is_some_and(|value| values.contains(value)),
            LabelOperator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether every pair of `selector` is in `labels` (the selector of a Service).
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int_or_percent_of_ten_rounds_as_kubernetes_does() {
        assert_eq!(IntOrPercent::Percent(25).of_rounded_up(10), 3);
        assert_eq!(IntOrPercent::Percent(25).of_rounded_down(10), 2);
        assert_eq!(IntOrPercent::Int(4).of_rounded_up(10), 4);
    }

    #[test]
    fn selector_expression_not_in_matches_an_absent_label() {
        let selector = LabelSelector {
            match_labels: Labels::new(),
            match_expressions: vec![LabelExpression {
                key: "tier".into(),
                operator: LabelOperator::NotIn(vec!["db".into()]),
            }],
        };
        assert!(selector.matches(&Labels::new()));
        assert!(!selector.matches(&Labels::from([("tier".into(), "db".into())])));
    }
}
