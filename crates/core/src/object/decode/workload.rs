//! Deployments and ReplicaSets: reading and the defaults of each API version.

use std::{sync::Arc, time::Duration};

use super::{canonical, cursor::Cursor, pod};
use crate::{
    object::{
        PodSpec,
        meta::Kind,
        validate::{pod::Owner, workload as rules},
        workload::{
            IntOrPercent, LabelExpression, LabelOperator, LabelSelector, PodTemplate, Strategy,
            Workload,
        },
    },
    world::pods::DEFAULT_GRACE,
};

/// The API versions that Deployments and ReplicaSets have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `apps/v1`.
    V1,
    /// `apps/v1beta2`.
    AppsV1Beta2,
    /// `apps/v1beta1`.
    AppsV1Beta1,
    /// `extensions/v1beta1`.
    ExtensionsV1Beta1,
}

/// What is assumed where the manifest says nothing.
struct Defaults {
    /// Both `maxSurge` and `maxUnavailable`.
    overlap: IntOrPercent,
    revision_history_limit: u32,
    progress_deadline: Option<Duration>,
    selector_from_template: bool,
}

impl Version {
    const fn defaults(self) -> Defaults {
        let quarter = IntOrPercent::Percent(25);
        let ten_minutes = Some(Duration::from_mins(10));
        // "All revisions" was spelt as the largest number.
        let all = u32::MAX >> 1;
        let (overlap, revision_history_limit, progress_deadline) = match self {
            Self::V1 | Self::AppsV1Beta2 => (quarter, 10, ten_minutes),
            Self::AppsV1Beta1 => (quarter, 2, ten_minutes),
            Self::ExtensionsV1Beta1 => (IntOrPercent::Int(1), all, None),
        };
        let selector_from_template = !matches!(self, Self::V1);
        Defaults {
            overlap,
            revision_history_limit,
            progress_deadline,
            selector_from_template,
        }
    }
}

/// Reads a whole workload. What it returns is good only if nothing was reported.
pub(super) fn read(object: &Cursor<'_>, kind: Kind, version: Version) -> Workload {
    let defaults = version.defaults();
    let spec = object.field("spec");
    let template = template(&spec.field("template"));
    let selector = spec.field("selector");
    let defaulted =
        defaults.selector_from_template && !selector.is_present() && !template.labels.is_empty();
    let label_selector = if defaulted {
        selector.warn("not given: taken from spec.template.metadata.labels, as this API version did; apps/v1 requires it");
        LabelSelector {
            match_labels: template.labels.clone(),
            match_expressions: Vec::new(),
        }
    } else {
        label_selector(&selector)
    };
    let deadline = spec.field("progressDeadlineSeconds");
    let workload = Workload {
        replicas: spec.field("replicas").count().unwrap_or(1),
        selector: label_selector,
        template: Arc::new(template),
        strategy: strategy(&spec.field("strategy"), defaults.overlap),
        min_ready: spec.field("minReadySeconds").seconds().unwrap_or_default(),
        progress_deadline: deadline_of(&deadline).or(defaults.progress_deadline),
        revision_history_limit: spec
            .field("revisionHistoryLimit")
            .count()
            .unwrap_or(defaults.revision_history_limit),
        paused: spec.field("paused").boolean().unwrap_or(false),
    };
    rules::check(&spec, &workload, kind, defaulted);
    workload
}

/// A bad value is reported by the rules, which look at it again.
fn deadline_of(field: &Cursor<'_>) -> Option<Duration> {
    field
        .int()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs)
}

fn template(template: &Cursor<'_>) -> PodTemplate {
    let meta = template.field("metadata");
    let spec = template.field("spec");
    PodTemplate {
        labels: meta.field("labels").labels(),
        annotations: meta.field("annotations").labels(),
        spec: Arc::new(if template.is_present() {
            pod::read_spec(&spec, Owner::Template)
        } else {
            // Reported as a missing template; a missing container in it says nothing more.
            PodSpec {
                containers: Vec::new(),
                hostname: None,
                subdomain: None,
                node_name: None,
                termination_grace: DEFAULT_GRACE,
            }
        }),
        hash: canonical::hash(template.node()),
    }
}

fn strategy(strategy: &Cursor<'_>, overlap: IntOrPercent) -> Strategy {
    let kind = strategy
        .field("type")
        .one_of(&[("Recreate", true), ("RollingUpdate", false)]);
    if kind == Some(true) {
        return Strategy::Recreate;
    }
    let rolling = strategy.field("rollingUpdate");
    Strategy::RollingUpdate {
        max_surge: amount(&rolling.field("maxSurge")).unwrap_or(overlap),
        max_unavailable: amount(&rolling.field("maxUnavailable")).unwrap_or(overlap),
    }
}

fn amount(field: &Cursor<'_>) -> Option<IntOrPercent> {
    let Some(text) = field.text() else {
        return field.count().map(IntOrPercent::Int);
    };
    let digits = text
        .strip_suffix('%')
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let percent = digits
        .and_then(|digits| digits.parse().ok())
        .map(IntOrPercent::Percent);
    if percent.is_none() {
        field.invalid(
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
             used for validation is '[0-9]+%')",
        );
    }
    percent
}

fn label_selector(selector: &Cursor<'_>) -> LabelSelector {
    let expressions = selector.field("matchExpressions");
    LabelSelector {
        match_labels: selector.field("matchLabels").labels(),
        match_expressions: expressions
            .items()
            .filter_map(|item| expression(&item))
            .collect(),
    }
}

/// A bad operator is reported by the rules.
fn expression(item: &Cursor<'_>) -> Option<LabelExpression> {
    let (operator, values) = (item.field("operator"), item.field("values"));
    let operator = match operator.text().map(AsRef::as_ref)? {
        "In" => LabelOperator::In(values.texts()),
        "NotIn" => LabelOperator::NotIn(values.texts()),
        "Exists" => LabelOperator::Exists,
        "DoesNotExist" => LabelOperator::DoesNotExist,
        _ => return None,
    };
    let key = item.field("key");
    Some(LabelExpression {
        key: key.text().cloned().unwrap_or_default(),
        operator,
    })
}
