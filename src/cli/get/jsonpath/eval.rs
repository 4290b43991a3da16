//! Nodes against an object. Owns the meaning of each step; must not print.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value;

use super::{Filter, Node, PathError, Results, Slice, error};

/// Most values that one step may give: `..` may follow `..`.
const MAX_RESULTS: usize = 1 << 20;
/// Most steps altogether: ranges may stand in ranges.
const MAX_STEPS: usize = 1 << 20;

/// What each node stands for.
pub(super) fn find<'a>(nodes: &[Node], object: &'a Value) -> Result<Vec<Results<'a>>, PathError> {
    let mut evaluation = Evaluation {
        nodes,
        ranges: 0,
        last_end: None,
        steps: 0,
        seen: None,
    };
    let mut out = Vec::new();
    evaluation.block(0, Cow::Borrowed(object), &mut out)?;
    Ok(out)
}

/// `{range}` and `{end}` met while walking an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Range,
    End,
}

struct Evaluation<'n> {
    nodes: &'n [Node],
    /// Ranges that are open.
    ranges: usize,
    /// Where the innermost range ended last.
    last_end: Option<usize>,
    steps: usize,
    seen: Option<Seen>,
}

impl Evaluation<'_> {
    /// From node `start` to the end of the range that it lies in, or of the template.
    fn block<'a>(
        &mut self,
        start: usize,
        object: Cow<'a, Value>,
        out: &mut Vec<Results<'a>>,
    ) -> Result<(), PathError> {
        let nodes = self.nodes;
        let values = vec![object];
        let mut at = start;
        while let Some(node) = nodes.get(at) {
            self.seen = None;
            let results = self.walk(values.clone(), node)?;
            match self.seen {
                Some(Seen::End) => {
                    self.last_end = Some(at);
                    return Ok(());
                }
                Some(Seen::Range) => {
                    self.range(at + 1, &results, out)?;
                    if let Some(end) = self.last_end.filter(|end| *end > at) {
                        at = end;
                    }
                }
                None => {
                    if out.len() >= MAX_RESULTS {
                        return error("template gives too many results");
                    }
                    out.push(results);
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn range<'a>(
        &mut self,
        start: usize,
        values: &Results<'a>,
        out: &mut Vec<Results<'a>>,
    ) -> Result<(), PathError> {
        if self.ranges >= 32 {
            return error("ranges are nested too deeply");
        }
        self.ranges += 1;
        for value in values {
            self.block(start, value.clone(), out)?;
        }
        if values.is_empty() {
            // Only to learn where the range ends.
            self.block(start, Cow::Owned(Value::Null), &mut Vec::new())?;
        }
        self.ranges -= 1;
        Ok(())
    }

    fn list<'a>(
        &mut self,
        mut values: Results<'a>,
        nodes: &[Node],
    ) -> Result<Results<'a>, PathError> {
        for node in nodes {
            values = self.walk(values, node)?;
        }
        Ok(values)
    }

    fn walk<'a>(&mut self, values: Results<'a>, node: &Node) -> Result<Results<'a>, PathError> {
        self.steps += 1 + values.len();
        if self.steps > MAX_STEPS {
            return error("template takes too many steps");
        }
        match node {
            Node::List(nodes) => self.list(values, nodes),
            Node::Text(text) => Ok(vec![Cow::Owned(Value::String(text.clone()))]),
            Node::Number(number) => Ok(constant(&values, &Value::Number(number.clone()))),
            Node::Bool(value) => Ok(constant(&values, &Value::Bool(*value))),
            Node::Field(name) => Ok(values
                .into_iter()
                .filter_map(|value| member(value, name))
                .collect()),
            Node::Slice(slice) => {
                let mut out = Vec::new();
                for value in values {
                    out.extend(part(value, slice)?);
                }
                Ok(out)
            }
            Node::Wildcard => Ok(values.into_iter().flat_map(children).collect()),
            Node::Recursive => {
                let mut out = Vec::new();
                descend(values, &mut out)?;
                Ok(out)
            }
            Node::Union(parts) => {
                let mut out = Vec::new();
                for part in parts {
                    out.extend(self.list(values.clone(), part)?);
                }
                Ok(out)
            }
            Node::Filter(filter) => self.filter(values, filter),
            Node::Identifier(name) => self.identifier(values, name),
        }
    }

    fn identifier<'a>(
        &mut self,
        values: Results<'a>,
        name: &str,
    ) -> Result<Results<'a>, PathError> {
        match name {
            "range" => {
                self.seen = Some(Seen::Range);
                Ok(values)
            }
            "end" if self.ranges > 0 => {
                self.seen = Some(Seen::End);
                Ok(Vec::new())
            }
            "end" => error("not in range, nothing to end"),
            _ => error(format!("unrecognized identifier {name}")),
        }
    }

    fn filter<'a>(
        &mut self,
        values: Results<'a>,
        filter: &Filter,
    ) -> Result<Results<'a>, PathError> {
        let mut out = Vec::new();
        for value in values {
            if !value.is_array() {
                let shown = super::gofmt::go_value(&value);
                return error(format!(
                    "{shown} is not array or slice and cannot be filtered"
                ));
            }
            for item in children(value) {
                if self.passes(&item, filter)? {
                    out.push(item);
                }
            }
        }
        Ok(out)
    }

    fn passes(&mut self, item: &Value, filter: &Filter) -> Result<bool, PathError> {
        let lefts = self.list(vec![Cow::Borrowed(item)], &filter.left);
        if filter.operator == "exists" {
            // kubectl takes what cannot be looked at, such as an index out of bounds, for there.
            return Ok(lefts.map_or(true, |lefts| !lefts.is_empty()));
        }
        let lefts = lefts?;
        let left = match lefts.as_slice() {
            [] => return Ok(false),
            [left] => left,
            _ => return error("can only compare one element at a time"),
        };
        let rights = self.list(vec![Cow::Borrowed(item)], &filter.right)?;
        match rights.as_slice() {
            [] => Ok(false),
            [right] => compare(left, right, &filter.operator),
            _ => error("can only compare one element at a time"),
        }
    }
}

fn constant<'a>(values: &Results<'a>, value: &Value) -> Results<'a> {
    values.iter().map(|_| Cow::Owned(value.clone())).collect()
}

fn member<'a>(value: Cow<'a, Value>, name: &str) -> Option<Cow<'a, Value>> {
    match value {
        Cow::Borrowed(value) => value.as_object()?.get(name).map(Cow::Borrowed),
        Cow::Owned(Value::Object(mut map)) => map.remove(name).map(Cow::Owned),
        Cow::Owned(_) => None,
    }
}

/// Values of a map by key, items of a list, bytes of a string.
fn children(value: Cow<'_, Value>) -> Vec<Cow<'_, Value>> {
    match value {
        Cow::Borrowed(Value::Object(map)) => map.values().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::String(text)) => bytes(text),
        Cow::Owned(Value::Object(map)) => map.into_values().map(Cow::Owned).collect(),
        Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
        Cow::Owned(Value::String(text)) => bytes(&text),
        _ => Vec::new(),
    }
}

fn bytes<'a>(text: &str) -> Vec<Cow<'a, Value>> {
    text.bytes().map(|byte| Cow::Owned(byte.into())).collect()
}

/// Every value that has something in it, before what is in it.
fn descend<'a>(values: Results<'a>, out: &mut Results<'a>) -> Result<(), PathError> {
    for value in values {
        let children = children(value.clone());
        if children.is_empty() {
            continue;
        }
        if out.len() >= MAX_RESULTS {
            return error("template gives too many results");
        }
        let is_text = value.is_string();
        out.push(value);
        if !is_text {
            descend(children, out)?;
        }
    }
    Ok(())
}

fn part<'a>(value: Cow<'a, Value>, slice: &Slice) -> Result<Results<'a>, PathError> {
    match &*value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(_) => {}
        other => {
            return error(format!("{} is not array or slice", type_name(other)));
        }
    }
    let items = children(value);
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let mut from = slice.from.unwrap_or(0);
    if from < 0 {
        from = from.saturating_add(length);
    }
    let mut to = slice.to.unwrap_or(length);
    if to < 0 || (to == 0 && slice.single) {
        to = to.saturating_add(length);
    }
    if from == to {
        return Ok(Vec::new());
    }
    let out_of_bounds = |index: i64| {
        error(format!(
            "array index out of bounds: index {index}, length {length}"
        ))
    };
    if from >= length || from < 0 {
        return out_of_bounds(from);
    }
    if to > length || to < 0 {
        return out_of_bounds(to.saturating_sub(1));
    }
    if from > to {
        return error(format!(
            "starting index {from} is greater than ending index {to}"
        ));
    }
    let step = slice.step.unwrap_or(1);
    if step <= 0 {
        return error("step must be > 0");
    }
    let count = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
    let chosen = items.into_iter().skip(count(from)).take(count(to - from));
    Ok(chosen.step_by(count(step)).collect())
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn compare(left: &Value, right: &Value, operator: &str) -> Result<bool, PathError> {
    let is_equality = matches!(operator, "==" | "!=");
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) if is_equality => left.cmp(right),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left.cmp(&right),
            (None, None) => {
                let both = left.as_f64().zip(right.as_f64());
                both.and_then(|(left, right)| left.partial_cmp(&right))
                    .unwrap_or(Ordering::Greater)
            }
            _ => return error("incompatible types for comparison"),
        },
        (Value::Null | Value::Array(_) | Value::Object(_), _)
        | (_, Value::Null | Value::Array(_) | Value::Object(_))
        | (Value::Bool(_), Value::Bool(_)) => return error("invalid type for comparison"),
        _ => return error("incompatible types for comparison"),
    };
    match operator {
        "==" => Ok(order.is_eq()),
        "!=" => Ok(order.is_ne()),
        "<" => Ok(order.is_lt()),
        "<=" => Ok(order.is_le()),
        ">" => Ok(order.is_gt()),
        ">=" => Ok(order.is_ge()),
        _ => error(format!("unrecognized filter operator {operator}")),
    }
}
