//! Rules of Deployment and ReplicaSet that concern several fields together.

use super::{meta, syntax};
use crate::object::{
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
            let kind = if kind == Kind::Deployment {
                "deployment"
            } else {
                "replicaset"
            };
            selector.invalid(&format!("empty selector is invalid for {kind}"));
        }
    }
    if !template.is_present() {
        template.required("");
    }
    let template_meta = template.field("metadata");
    let labels = template_meta.field("labels");
    meta::labels(&labels);
    let checkable = template.is_present() && !workload.selector.is_empty();
    if checkable && !workload.selector.matches(&workload.template.labels) {
        let shown = shown_labels(&workload.template.labels);
        labels.error(format!(
            "Invalid value: {shown}: `selector` does not match template `labels`"
        ));
    }
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
        Strategy::Recreate => {
            if rolling.is_present() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
            }
        }
        Strategy::RollingUpdate {
            max_surge,
            max_unavailable,
        } => {
            let unavailable = rolling.field("maxUnavailable");
            if matches!(max_unavailable, IntOrPercent::Percent(percent) if percent > 100) {
                unavailable.invalid("must not be greater than 100%");
            }
            if is_zero(max_surge) && is_zero(max_unavailable) {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
        }
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
