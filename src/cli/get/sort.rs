//! `--sort-by`. Owns kubectl's order of values; must not print.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    super::Verbatim,
    jsonpath::{Template, relaxed},
};

/// Sorts `objects` by what `path` stands for; those without it come first.
pub(crate) fn by(path: &str, objects: &mut Vec<Value>) -> Result<(), Verbatim> {
    let wrong = |error: &dyn std::fmt::Display| Verbatim(format!("error: {error}"));
    let full = relaxed(path).map_err(|error| wrong(&error))?;
    let template = Template::parse(&full).map_err(|error| wrong(&error))?;
    let mut keyed = Vec::with_capacity(objects.len());
    for object in objects.iter() {
        let found = template.find(object).map_err(|error| wrong(&error))?;
        let first = found.first().and_then(|results| results.first());
        keyed.push((
            first.map(|value| value.clone().into_owned()),
            object.clone(),
        ));
    }
    if keyed.is_empty() {
        return Ok(());
    }
    if keyed.iter().all(|(key, _)| key.is_none()) {
        return Err(Verbatim(format!(
            "error: couldn't find any field with path \"{full}\" in the list of objects"
        )));
    }
    let unsortable = keyed.iter().find_map(|(key, _)| unsortable(key.as_ref()));
    if let Some(kind) = unsortable.filter(|_| keyed.len() > 1) {
        return Err(Verbatim(format!(
            "error: field {full} is of a type that cannot be sorted by: {kind}"
        )));
    }
    let sorted = stable(keyed, &|left, right| {
        order(left.0.as_ref(), right.0.as_ref())
    });
    *objects = sorted.into_iter().map(|(_, object)| object).collect();
    Ok(())
}

/// Sorts by merging. Unlike the standard library's sort it does not mind an order that is not total, as kubectl's are:
/// `2` is less than `10` as a quantity, `10` less than `1a` and `1a` less than `2` as text.
pub(super) fn stable<T>(mut items: Vec<T>, order: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let right = items.split_off(items.len() / 2);
    let mut left = stable(items, order).into_iter().peekable();
    let mut right = stable(right, order).into_iter().peekable();
    let mut sorted = Vec::with_capacity(left.len() + right.len());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        let from = if order(second, first).is_lt() {
            &mut right
        } else {
            &mut left
        };
        sorted.extend(from.next());
    }
    sorted.extend(left);
    sorted.extend(right);
    sorted
}

fn unsortable(key: Option<&Value>) -> Option<&'static str> {
    match key? {
        Value::Bool(_) => Some("boolean"),
        Value::Array(_) => Some("list"),
        Value::Object(_) => Some("map"),
        Value::Null | Value::Number(_) | Value::String(_) => None,
    }
}

fn order(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let rank = |value: Option<&Value>| match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Number(_)) => 2,
        Some(_) => 3,
    };
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            let floats = (left.as_f64(), right.as_f64());
            match (left.as_i64(), right.as_i64(), floats) {
                (Some(left), Some(right), _) => left.cmp(&right),
                (_, _, (Some(left), Some(right))) => left.total_cmp(&right),
                _ => Ordering::Equal,
            }
        }
        (Some(Value::String(left)), Some(Value::String(right))) => {
            match (quantity(left), quantity(right)) {
                (Some(left), Some(right)) => left.total_cmp(&right),
                _ => left.cmp(right),
            }
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

/// `100Mi`, `250m`, `1.5` (Kubernetes API, resource quantities).
fn quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => exponent
            .strip_prefix(['e', 'E'])
            .and_then(|power| power.parse::<i32>().ok())
            .map(|power| 10_f64.powi(power))?,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(values: &[Value], expected: &[Value]) {
        let mut objects: Vec<Value> = values.iter().map(|value| json!({"a": value})).collect();
        by(".a", &mut objects).unwrap();
        let found: Vec<Value> = objects.iter().map(|object| object["a"].clone()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn by_sorts_numbers_quantities_and_text() {
        check(
            &[json!(10), json!(9), json!(1.5)],
            &[json!(1.5), json!(9), json!(10)],
        );
        check(
            &[json!("2Gi"), json!("100Mi"), json!("500m")],
            &[json!("500m"), json!("100Mi"), json!("2Gi")],
        );
        check(
            &[json!("web-2"), json!("web-10"), json!("db")],
            &[json!("db"), json!("web-10"), json!("web-2")],
        );
    }

    #[test]
    fn by_puts_objects_without_the_field_first() {
        let mut objects = vec![json!({"a": 1}), json!({"b": 1})];
        by("a", &mut objects).unwrap();
        assert_eq!(objects, [json!({"b": 1}), json!({"a": 1})]);
    }

    #[test]
    fn by_an_order_in_circles_keeps_every_object() {
        let values = ["2", "10", "1a", "3", "100", "20x", "1", "9", "x"];
        let mut objects: Vec<Value> = (0..40)
            .map(|n| json!({"a": values[n % 9], "n": n}))
            .collect();
        by("a", &mut objects).unwrap();
        let mut numbers: Vec<u64> = objects
            .iter()
            .map(|object| object["n"].as_u64().unwrap())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn by_a_field_that_cannot_be_sorted_by_is_an_error() {
        let message = |path: &str| {
            let mut objects = vec![json!({"a": true}), json!({"a": false})];
            by(path, &mut objects).unwrap_err().0
        };
        let none = "error: couldn't find any field with path \"{.nope}\" in the list of objects";
        assert_eq!(message("nope"), none);
        assert!(message("a").ends_with("cannot be sorted by: boolean"));
        assert!(message("{.a}{.b}").starts_with("error: unexpected path string"));
    }
}
