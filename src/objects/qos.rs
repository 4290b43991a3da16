//! Quality of service classes (`status.qosClass`). Owns the rule of Kubernetes (`ComputePodQOS`) and as much of
//! quantities as it asks for.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{Fields, items};

/// The resources that count.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// The class of a pod with `spec`.
pub(super) fn class(spec: &Fields) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    let containers = items(spec, "containers").chain(items(spec, "initContainers"));
    for container in containers {
        let resources = container.get("resources").and_then(Value::as_object);
        let amounts = |kind: &str| {
            let of_kind = resources.and_then(|resources| resources.get(kind));
            of_kind.and_then(Value::as_object)
        };
        add(&mut requests, amounts("requests"));
        let limited = add(&mut limits, amounts("limits"));
        guaranteed &= limited == RESOURCES.len();
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the amounts that are not zero; tells how many there were.
fn add(sums: &mut BTreeMap<&'static str, i128>, amounts: Option<&Fields>) -> usize {
    let mut found = 0;
    for name in RESOURCES {
        let amount = amounts.and_then(|amounts| amounts.get(name));
        let amount = amount.and_then(nanos).filter(|amount| *amount > 0);
        if let Some(amount) = amount {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(amount);
            found += 1;
        }
    }
    found
}

/// A quantity in billionths (Kubernetes API reference, Quantity); digits beyond them are lost.
fn nanos(quantity: &Value) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_digit = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-');
    let end = text.find(|c| !is_digit(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let nanos = whole
        .checked_mul(NANO)?
        .checked_add(fraction.parse::<i128>().ok()?)?;
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let decimal = ["k", "M", "G", "T", "P", "E"];
    let small = ["m", "u", "n"];
    let power = |list: &[&str]| {
        let index = list.iter().position(|known| *known == suffix)?;
        u32::try_from(index + 1).ok()
    };
    if suffix.is_empty() {
        Some(nanos)
    } else if let Some(power) = power(&binary) {
        nanos.checked_mul(1024_i128.checked_pow(power)?)
    } else if let Some(power) = power(&decimal) {
        nanos.checked_mul(1000_i128.checked_pow(power)?)
    } else if let Some(power) = power(&small) {
        nanos.checked_div(1000_i128.checked_pow(power)?)
    } else {
        let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        nanos.checked_mul(10_i128.checked_pow(exponent)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::json::fields;

    #[test]
    fn class_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": 0}}), "BestEffort"),
            (json!({"requests": {"cpu": "100m"}}), "Burstable"),
            (
                json!({"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1G"}}),
                "Burstable",
            ),
            (
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": 1}}),
                "Burstable",
            ),
        ] {
            let spec = fields(json!({"containers": [{"resources": resources}]}));
            assert_eq!(class(&spec), expected, "{resources}");
        }
    }

    #[test]
    fn nanos_of_every_notation_is_the_same_number() {
        for quantity in [json!("1.5k"), json!(1500), json!("15e2"), json!("1500000m")] {
            assert_eq!(nanos(&quantity), Some(1_500_000_000_000), "{quantity}");
        }
        assert_eq!(nanos(&json!("0.5Ki")), Some(512_000_000_000));
        assert_eq!(nanos(&json!("many")), None);
    }
}
