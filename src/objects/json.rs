//! Steps on JSON objects: read a document, fill in what is absent. Owns what "absent" means (Go's zero values, as the
//! API server sees them); must not know any kind.

use serde_json::{Map, Value};

/// A JSON object.
pub(super) type Fields = Map<String, Value>;

/// A document as it was written, without its nulls: for the API server a null is as good as nothing.
pub(super) fn parsed(text: &str) -> Fields {
    let mut value = serde_json::from_str(text).unwrap_or(Value::Null);
    drop_nulls(&mut value);
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The fields of a `json!({...})`.
pub(super) fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

/// Sets a field.
pub(super) fn set(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}

/// Sets a field that is absent, empty or zero.
pub(super) fn fill(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    let is_absent = match fields.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    };
    if is_absent {
        set(fields, name, value);
    }
}

/// Sets a field that is not there at all: where zero means zero.
pub(super) fn fill_pointer(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if fields.get(name).is_none_or(Value::is_null) {
        set(fields, name, value);
    }
}

/// Sets a count, unless it is zero: the API leaves those out (`omitempty`).
pub(super) fn count(fields: &mut Fields, name: &str, number: u32) {
    if number > 0 {
        set(fields, name, number);
    }
}

/// Changes the object at `name`, which is made if it is not there.
pub(super) fn within(fields: &mut Fields, name: &str, change: impl FnOnce(&mut Fields)) {
    let mut inner = match fields.remove(name) {
        Some(Value::Object(inner)) => inner,
        _ => Fields::new(),
    };
    change(&mut inner);
    set(fields, name, inner);
}

/// Changes the object at `name` if it is there.
pub(super) fn within_present(fields: &mut Fields, name: &str, change: impl FnOnce(&mut Fields)) {
    if let Some(Value::Object(inner)) = fields.get_mut(name) {
        change(inner);
    }
}

/// Changes every object of the list at `name`.
pub(super) fn each(fields: &mut Fields, name: &str, change: impl FnMut(&mut Fields)) {
    if let Some(Value::Array(items)) = fields.get_mut(name) {
        let objects = items.iter_mut().filter_map(Value::as_object_mut);
        objects.for_each(change);
    }
}

/// The objects of the list at `name`.
pub(super) fn items<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a Fields> {
    let list = fields.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_object)
}

/// The text at `name`; empty when there is none.
pub(super) fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parsed_drops_nulls_at_every_depth() {
        let found = parsed(r#"{"a":null,"b":{"c":null,"d":[{"e":null}]}}"#);
        assert_eq!(Value::Object(found), json!({"b": {"d": [{}]}}));
    }

    #[test]
    fn fill_takes_zero_for_absent_and_fill_pointer_does_not() {
        let mut found = fields(json!({"zero": 0, "empty": "", "false": false}));
        for name in ["zero", "empty", "false", "new"] {
            fill(&mut found, name, 7);
        }
        assert_eq!(
            found,
            fields(json!({"zero": 7, "empty": 7, "false": false, "new": 7}))
        );
        let mut found = fields(json!({"zero": 0}));
        fill_pointer(&mut found, "zero", 7);
        fill_pointer(&mut found, "new", 7);
        assert_eq!(found, fields(json!({"zero": 0, "new": 7})));
    }

    #[test]
    fn within_of_something_else_makes_an_object() {
        let mut found = fields(json!({"a": 1}));
        within(&mut found, "a", |inner| set(inner, "b", 2));
        within_present(&mut found, "c", |inner| set(inner, "b", 2));
        assert_eq!(found, fields(json!({"a": {"b": 2}})));
    }
}
