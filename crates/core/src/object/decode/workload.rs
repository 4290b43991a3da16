//! Deployments, ReplicaSets, DaemonSets and StatefulSets: reading and the defaults of each API version.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{canonical, cursor::Cursor, pod};
use crate::object::{
    PodSpec,
    meta::Kind,
    tree::{Node, Value},
    validate::{balancing, pod::Owner, workload as rules},
    workload::{
        IntOrPercent, LabelExpression, LabelOperator, LabelSelector, PodTemplate, Strategy,
        TEMPLATE_HASH_LABEL, Workload,
    },
};

/// The API versions that workloads have had.
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
    /// Both `maxSurge` and `maxUnavailable` of a Deployment.
    overlap: IntOrPercent,
    /// `updateStrategy` of a DaemonSet or StatefulSet is `OnDelete`.
    on_delete: bool,
    revision_history_limit: u32,
    progress_deadline: Option<Duration>,
    selector_from_template: bool,
}

impl Version {
    const fn defaults(self, kind: Kind) -> Defaults {
        let quarter = IntOrPercent::Percent(25);
        let ten_minutes = Some(Duration::from_mins(10));
        // "All revisions" was spelt as the largest number.
        let all = u32::MAX >> 1;
        let (overlap, revision_history_limit, progress_deadline) = match self {
            Self::V1 | Self::AppsV1Beta2 => (quarter, 10, ten_minutes),
            Self::AppsV1Beta1 => (quarter, 2, ten_minutes),
            Self::ExtensionsV1Beta1 => (IntOrPercent::Int(1), all, None),
        };
        // Only Deployments had other numbers of revisions.
        let revision_history_limit = match kind {
            Kind::DaemonSet | Kind::StatefulSet => 10,
            _ => revision_history_limit,
        };
        let selector_from_template = !matches!(self, Self::V1);
        let on_delete = matches!(self, Self::AppsV1Beta1 | Self::ExtensionsV1Beta1);
        Defaults {
            overlap,
            on_delete,
            revision_history_limit,
            progress_deadline,
            selector_from_template,
        }
    }
}

/// Reads a whole workload. What it returns is good only if nothing was reported.
pub(super) fn read(object: &Cursor<'_>, kind: Kind, version: Version) -> Workload {
    let defaults = version.defaults(kind);
    let spec = object.field("spec");
    let template = template(&spec.field("template"), kind);
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
        strategy: strategy(&spec, kind, &defaults),
        min_ready: spec.field("minReadySeconds").seconds().unwrap_or_default(),
        progress_deadline: deadline_of(&deadline).or(defaults.progress_deadline),
        revision_history_limit: spec
            .field("revisionHistoryLimit")
            .count()
            .unwrap_or(defaults.revision_history_limit),
        paused: spec.field("paused").boolean().unwrap_or(false),
        service_name: spec.field("serviceName").non_empty().cloned(),
        parallel: spec.field("podManagementPolicy").text().map(AsRef::as_ref) == Some("Parallel"),
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

fn template(template: &Cursor<'_>, kind: Kind) -> PodTemplate {
    let meta = template.field("metadata");
    let spec = template.field("spec");
    balancing::check_pod(&meta.field("annotations"));
    let mut labels = meta.field("labels").labels();
    let mut node = template.node().map(Cow::Borrowed);
    // A template copied from a ReplicaSet carries the hash label, which is no part of what it says: the Deployment
    // controller compares templates without it, and the set's own label replaces it.
    if kind == Kind::Deployment && labels.remove(TEMPLATE_HASH_LABEL).is_some() {
        node = node.map(|node| Cow::Owned(without_hash_label(node.into_owned())));
    }
    PodTemplate {
        labels,
        annotations: meta.field("annotations").labels(),
        spec: Arc::new(if template.is_present() {
            pod::read_spec(&spec, Owner::Template)
        } else {
            // Reported as a missing template; a missing container in it says nothing more.
            PodSpec::default()
        }),
        hash: canonical::hash(node.as_deref()),
        manifest: node
            .as_deref()
            .map(canonical::json)
            .unwrap_or_default()
            .into(),
    }
}

fn without_hash_label(mut template: Node) -> Node {
    let meta = child(&mut template, "metadata");
    let labels = meta.and_then(|meta| child(meta, "labels"));
    if let Some(Node {
        value: Value::Map(entries),
        ..
    }) = labels
    {
        entries.retain(|entry| &*entry.key != TEMPLATE_HASH_LABEL);
    }
    template
}

fn child<'n>(node: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries
            .iter_mut()
            .find(|entry| &*entry.key == name)
            .map(|entry| &mut entry.node),
        _ => None,
    }
}

/// The strategy; a type that does not exist is reported by the rules where its kind has words of its own for it.
fn strategy(spec: &Cursor<'_>, kind: Kind, defaults: &Defaults) -> Strategy {
    let field = match kind {
        Kind::DaemonSet | Kind::StatefulSet => "updateStrategy",
        _ => "strategy",
    };
    let strategy = spec.field(field);
    let rolling = strategy.field("rollingUpdate");
    let named = strategy.field("type");
    let named = named.non_empty().map(AsRef::as_ref);
    let on_delete = named.map_or(defaults.on_delete, |named| named == "OnDelete");
    match kind {
        Kind::DaemonSet | Kind::StatefulSet if on_delete => Strategy::OnDelete,
        Kind::StatefulSet => {
            Strategy::Partition(rolling.field("partition").count().unwrap_or_default())
        }
        Kind::DaemonSet => {
            let surge = amount(&rolling.field("maxSurge")).unwrap_or(IntOrPercent::Int(0));
            let unavailable = amount(&rolling.field("maxUnavailable"));
            Strategy::RollingUpdate {
                max_surge: surge,
                max_unavailable: unavailable.unwrap_or(IntOrPercent::Int(1)),
            }
        }
        _ => deployment_strategy(&strategy, defaults.overlap),
    }
}

fn deployment_strategy(strategy: &Cursor<'_>, overlap: IntOrPercent) -> Strategy {
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
