//! Rules of Deployment, ReplicaSet, DaemonSet and StatefulSet that concern several fields together.

use super::{meta, syntax};
use crate::object::{
    annotations::Place,
    decode::cursor::Cursor,
    meta::{Kind, Labels},
    workload::{IntOrPercent, Strategy, Workload},
};

/// Everything about `spec` that a single value does not tell.
pub(crate) fn check(spec: &Cursor<'_>, workload: &Workload, kind: Kind, selector_defaulted: bool) {
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    if !selector_defaulted {
        check_selector(&selector);
        if !selector.is_present() {
            selector.required("");
        } else if workload.selector.is_empty() {
            let kind = kind.as_str().to_lowercase();
            selector.invalid(&format!("empty selector is invalid for {kind}"));
        }
    }
    if !template.is_present() {
        template.required("");
    }
    let template_meta = template.field("metadata");
    let labels = template_meta.field("labels");
    meta::labels(&labels);
    meta::our_annotations(&template_meta.field("annotations"), Place::Template);
    let checkable = template.is_present() && !workload.selector.is_empty();
    if checkable && !workload.selector.matches(&workload.template.labels) {
        let shown = shown_labels(&workload.template.labels);
        labels.error(format!(
            "Invalid value: {shown}: `selector` does not match template `labels`"
        ));
    }
    match kind {
        Kind::DaemonSet => check_daemon_set_strategy(spec, workload),
        Kind::StatefulSet => check_stateful_set(spec),
        _ => check_deployment(spec, workload),
    }
}

fn check_deployment(spec: &Cursor<'_>, workload: &Workload) {
    check_strategy(spec, workload);
    let deadline = spec.field("progressDeadlineSeconds");
    if let (Some(seconds), Some(min_ready)) =
        (deadline.seconds(), spec.field("minReadySeconds").int())
        && i64::try_from(seconds.as_secs()).is_ok_and(|seconds| seconds <= min_ready)
    {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

fn check_strategy(spec: &Cursor<'_>, workload: &Workload) {
    let strategy = spec.field("strategy");
    let rolling = strategy.field("rollingUpdate");
    match workload.strategy {
        Strategy::Recreate | Strategy::Partition(_) | Strategy::OnDelete => {
            if rolling.is_present() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
            }
        }
        Strategy::RollingUpdate {
            max_surge,
            max_unavailable,
        } => {
            let unavailable = rolling.field("maxUnavailable");
            at_most_all(&unavailable, max_unavailable);
            if is_zero(max_surge) && is_zero(max_unavailable) {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
        }
    }
}

fn check_daemon_set_strategy(spec: &Cursor<'_>, workload: &Workload) {
    let strategy = spec.field("updateStrategy");
    let named = strategy.field("type");
    if !matches!(
        named.non_empty().map(AsRef::as_ref),
        None | Some("RollingUpdate" | "OnDelete")
    ) {
        strategy.unsupported(&["RollingUpdate", "OnDelete"]);
    }
    let Strategy::RollingUpdate {
        max_surge,
        max_unavailable,
    } = workload.strategy
    else {
        return;
    };
    let rolling = strategy.field("rollingUpdate");
    let (surge, unavailable) = (rolling.field("maxSurge"), rolling.field("maxUnavailable"));
    at_most_all(&unavailable, max_unavailable);
    at_most_all(&surge, max_surge);
    match (is_zero(max_unavailable), is_zero(max_surge)) {
        (false, false) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn check_stateful_set(spec: &Cursor<'_>) {
    let policy = spec.field("podManagementPolicy");
    if !matches!(
        policy.non_empty().map(AsRef::as_ref),
        None | Some("OrderedReady" | "Parallel")
    ) {
        policy.invalid("must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.field("updateStrategy");
    let (named, rolling) = (strategy.field("type"), strategy.field("rollingUpdate"));
    match named.non_empty().map(AsRef::as_ref) {
        None | Some("RollingUpdate") => {}
        Some("OnDelete") if rolling.is_present() => {
            rolling.invalid("only allowed for updateStrategy 'RollingUpdate'");
        }
        Some("OnDelete") => {}
        Some(_) => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    if rolling.field("maxUnavailable").is_present() {
        rolling
            .field("maxUnavailable")
            .warn("has no effect here: pods are replaced one at a time");
    }
    let start = spec.field("ordinals");
    let start = start.field("start");
    if start.count().is_some_and(|start| start > 0) {
        start.warn("has no effect here: ordinals start at 0");
    }
    // It becomes the pods' `subdomain`.
    spec.field("serviceName").named(syntax::label);
}

/// More than all of the pods cannot be missing or above.
fn at_most_all(field: &Cursor<'_>, amount: IntOrPercent) {
    if matches!(amount, IntOrPercent::Percent(percent) if percent > 100) {
        field.invalid("must not be greater than 100%");
    }
}

const fn is_zero(value: IntOrPercent) -> bool {
    matches!(value, IntOrPercent::Int(0) | IntOrPercent::Percent(0))
}

fn check_selector(selector: &Cursor<'_>) {
    meta::labels(&selector.field("matchLabels"));
    let expressions = selector.field("matchExpressions");
    for expression in expressions.items() {
        let (key, operator, values) = (
            expression.field("key"),
            expression.field("operator"),
            expression.field("values"),
        );
        match key.non_empty() {
            None => key.required(""),
            Some(_) => drop(key.named(syntax::qualified_name)),
        }
        match operator.text().map(AsRef::as_ref) {
            Some("In" | "NotIn") if values.len() == 0 => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'");
            }
            Some("Exists" | "DoesNotExist") if values.len() > 0 => {
                values.forbidden(
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => operator.invalid("not a valid selector operator"),
        }
        for value in values.items() {
            value.named(syntax::label_value);
        }
    }
}

/// Labels as JSON.
fn shown_labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key:?}:{value:?}"))
        .collect();
    format!("{{{}}}", pairs.join(","))
}
