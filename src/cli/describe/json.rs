//! Reading Kubernetes JSON as kubectl's typed objects read it: what is absent has its type's zero value. Owns the
//! accessors; must not print.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// A string; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A whole number; 0 where there is none.
pub(crate) fn number(value: &Value, path: &str) -> i64 {
    value
        .pointer(path)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// A boolean; false where there is none.
pub(crate) fn boolean(value: &Value, path: &str) -> bool {
    value
        .pointer(path)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// An array; empty where there is none.
pub(crate) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Strings of an array.
pub(crate) fn texts<'a>(value: &'a Value, path: &str) -> Vec<&'a str> {
    let items = items(value, path).iter();
    items.filter_map(Value::as_str).collect()
}

/// A map of strings, sorted by key.
pub(crate) fn pairs<'a>(value: &'a Value, path: &str) -> BTreeMap<&'a str, &'a str> {
    let map = value.pointer(path).and_then(Value::as_object);
    let entries = map.into_iter().flatten();
    entries
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect()
}

/// What stands at `path`, unless that is nothing or `null`.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(path).filter(|value| !value.is_null())
}

/// A string or a number, as Kubernetes' `IntOrString`; `""` where there is none.
pub(crate) fn scalar<'a>(value: &'a Value, path: &str) -> Scalar<'a> {
    Scalar(value.pointer(path))
}

/// What [`scalar`] found.
pub(crate) struct Scalar<'a>(Option<&'a Value>);

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Value::String(text)) => out.pad(text),
            None | Some(Value::Null) => Ok(()),
            Some(other) => out.pad(&other.to_string()),
        }
    }
}

/// The controller among the owner references.
pub(crate) fn controller(value: &Value) -> Option<&Value> {
    let owners = items(value, "/metadata/ownerReferences").iter();
    owners
        .into_iter()
        .find(|owner| boolean(owner, "/controller"))
}

/// Whether `owner` is the controller of `object`.
pub(crate) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object).is_some_and(|found| {
        text(found, "/uid") == text(owner, "/metadata/uid") && text(found, "/name") == name(owner)
    })
}

/// The object's name.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The object's namespace; empty if it has none.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}
