//! Label and field selectors (Kubernetes documentation, "Labels and Selectors", "Field Selectors"), as every command
//! reads them. Owns their grammar and which fields each kind can be selected by; must not fetch.

use std::collections::BTreeSet;

use serde_json::Value;

use super::gofmt;
use crate::{cli::Verbatim, objects::Resource};

/// What is wrong with a selector, in the API server's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectorError(String);

/// Requirements on labels, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Exists,
    Missing,
    In(BTreeSet<String>),
    /// Also true without the label.
    NotIn(BTreeSet<String>),
    Above(i64),
    Below(i64),
}

impl Selector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// What is wrong with it ([`Verbatim`]).
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let read = Self::read(text);
        Ok(read.map_err(|problem| Verbatim(format!("error: {problem}")))?)
    }

    /// The selector in `spec.selector` of `object`: a Service's map of labels, or a workload's `LabelSelector`.
    /// Without any it fits nothing, as a Service without a selector has no pods.
    pub(crate) fn of_object(object: &Value) -> Self {
        let selector = object.pointer("/spec/selector").and_then(Value::as_object);
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Self::nothing();
        };
        // A label's value is text, so that neither of the two can be a label of a Service's selector.
        let labels = selector.get("matchLabels").filter(|one| !one.is_string());
        let expressions = selector.get("matchExpressions");
        let expressions = expressions.filter(|one| !one.is_string());
        let exact = match (labels, expressions) {
            (None, None) => Some(selector),
            (labels, _) => labels.and_then(Value::as_object),
        };
        let exact = exact.into_iter().flatten().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In(value.as_str().map(str::to_owned).into_iter().collect()),
        });
        let expressions = expressions.and_then(Value::as_array).into_iter().flatten();
        Self {
            requirements: exact.chain(expressions.map(expression)).collect(),
        }
    }

    fn nothing() -> Self {
        let never = Requirement {
            key: String::new(),
            operator: Operator::In(BTreeSet::new()),
        };
        Self {
            requirements: vec![never],
        }
    }

    /// As [`Self::parse`], for a caller with words of its own.
    pub(super) fn read(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        loop {
            match tokens.next() {
                "" => break,
                // Only a comma at the end is harmless.
                "," if tokens.peek().is_empty() => break,
                "!" => {
                    let key = label_key(tokens.next())?;
                    requirements.push(Requirement {
                        key,
                        operator: Operator::Missing,
                    });
                }
                key => {
                    let key = label_key(key)?;
                    let operator = operator(&mut tokens)?;
                    requirements.push(Requirement { key, operator });
                }
            }
            match tokens.next() {
                "" => break,
                "," => match tokens.peek() {
                    "," | ")" | "=" => return found(tokens.next(), "identifier after ','"),
                    _ => {}
                },
                other => return found(other, "',' or 'end of string'"),
            }
        }
        Ok(Self { requirements })
    }

    /// Whether `object` has such labels.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.requirements.iter().all(|requirement| {
            let value = labels.and_then(|labels| labels.get(&requirement.key));
            let value = value.and_then(Value::as_str);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.operator {
                Operator::Exists => value.is_some(),
                Operator::Missing => value.is_none(),
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Above(limit) => number().is_some_and(|number| number > *limit),
                Operator::Below(limit) => number().is_some_and(|number| number < *limit),
            }
        })
    }
}

/// One of `matchExpressions`.
fn expression(one: &Value) -> Requirement {
    let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default();
    let values = || {
        let values = one.get("values").and_then(Value::as_array);
        let values = values.into_iter().flatten().filter_map(Value::as_str);
        values.map(str::to_owned).collect()
    };
    Requirement {
        key: text("key").to_owned(),
        operator: match text("operator") {
            "In" => Operator::In(values()),
            "NotIn" => Operator::NotIn(values()),
            "DoesNotExist" => Operator::Missing,
            _ => Operator::Exists,
        },
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// A word, a sign, or nothing at the end.
    fn next(&mut self) -> &'a str {
        const SIGNS: [char; 8] = ['=', '!', '(', ')', ',', '>', '<', ' '];
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let length = if text.starts_with("==") || text.starts_with("!=") {
            2
        } else {
            match text.find(|c: char| SIGNS.contains(&c) || c.is_whitespace()) {
                Some(0) => 1,
                Some(end) => end,
                None => text.len(),
            }
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest;
        token
    }

    fn peek(&self) -> &'a str {
        Tokens { rest: self.rest }.next()
    }
}

fn operator(tokens: &mut Tokens<'_>) -> Result<Operator, SelectorError> {
    if matches!(tokens.peek(), "" | ",") {
        return Ok(Operator::Exists);
    }
    let one = |tokens: &mut Tokens<'_>| -> Result<BTreeSet<String>, SelectorError> {
        // `a=` asks for the empty value.
        let value = match tokens.peek() {
            "" | "," => String::new(),
            _ => label_value(tokens.next())?,
        };
        Ok(BTreeSet::from([value]))
    };
    match tokens.next() {
        "=" | "==" => Ok(Operator::In(one(tokens)?)),
        "!=" => Ok(Operator::NotIn(one(tokens)?)),
        "in" => Ok(Operator::In(values(tokens)?)),
        "notin" => Ok(Operator::NotIn(values(tokens)?)),
        sign @ (">" | "<") => {
            let text = tokens.next();
            let number = text.parse().map_err(|_| {
                SelectorError(format!(
                    "values[0][gt]: Invalid value: \"{text}\": for 'Gt', 'Lt' operators, the value must be an integer"
                ))
            })?;
            Ok(match sign {
                ">" => Operator::Above(number),
                _ => Operator::Below(number),
            })
        }
        other => found(other, "in, notin, =, ==, !=, gt, lt"),
    }
}

fn values(tokens: &mut Tokens<'_>) -> Result<BTreeSet<String>, SelectorError> {
    match tokens.next() {
        "(" => {}
        other => return found(other, "'('"),
    }
    let mut values = BTreeSet::new();
    loop {
        match tokens.peek() {
            ")" | "," => {
                values.insert(String::new());
            }
            _ => {
                values.insert(label_value(tokens.next())?);
            }
        }
        match tokens.next() {
            "," => {}
            ")" => return Ok(values),
            other => return found(other, "',', or ')'"),
        }
    }
}

fn found<T>(token: &str, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError(format!(
        "unable to parse requirement: found '{token}', expected: {expected}"
    )))
}

fn label_key(key: &str) -> Result<String, SelectorError> {
    let (prefix, name) = key.split_once('/').unwrap_or(("x", key));
    let is_key = is_name(name) && !prefix.is_empty() && prefix.split('.').all(is_name);
    match key.chars().next() {
        None | Some(',' | '=' | '!' | '(' | ')' | '<' | '>') => found(key, "identifier"),
        Some(_) if is_key => Ok(key.to_owned()),
        Some(_) => Err(SelectorError(format!(
            "unable to parse requirement: <nil>: Invalid value: \"{key}\": name part must consist of alphanumeric \
             characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or \
             'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ))),
    }
}

fn label_value(value: &str) -> Result<String, SelectorError> {
    match value.chars().next() {
        None | Some(',' | '=' | '!' | '(' | ')' | '<' | '>') => found(value, "identifier"),
        Some(_) if is_name(value) => Ok(value.to_owned()),
        Some(_) => Err(SelectorError(format!(
            "unable to parse requirement: values[0]: Invalid value: \"{value}\": a valid label must be an empty string or \
             consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
             (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ))),
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    name.len() <= 63
        && name.starts_with(is_edge)
        && name.ends_with(is_edge)
        && name.chars().all(is_inner)
}

/// Requirements on fields, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    requirements: Vec<(String, Equality, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equality {
    Equal,
    Different,
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`, with a backslash before a comma or an equals sign that belongs to a value.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in terms(text) {
            if term.is_empty() {
                continue;
            }
            let signs = [
                ("!=", Equality::Different),
                ("==", Equality::Equal),
                ("=", Equality::Equal),
            ];
            let parts = signs
                .iter()
                .filter_map(|(sign, equality)| Some((term.find(sign)?, sign.len(), *equality)))
                .min_by_key(|(at, length, _)| (*at, usize::MAX - *length));
            let Some((at, length, equality)) = parts else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            let (field, rest) = term.split_at(at);
            let value = rest.get(length..).unwrap_or_default();
            let value = value
                .replace("\\,", ",")
                .replace("\\=", "=")
                .replace("\\\\", "\\");
            requirements.push((field.to_owned(), equality, value));
        }
        Ok(Self { requirements })
    }

    /// Whether objects of `resource` can be selected by these fields.
    pub(crate) fn check(&self, resource: Resource) -> Result<(), SelectorError> {
        let unknown = self
            .requirements
            .iter()
            .find(|(field, ..)| !is_selectable(resource, field));
        unknown.map_or(Ok(()), |(field, ..)| {
            Err(SelectorError(format!("field label not supported: {field}")))
        })
    }

    /// Whether `object` has such fields.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|(field, equality, value)| {
            let found = match field.as_str() {
                "source" => object.pointer("/source/component"),
                field => object.pointer(&format!("/{}", field.replace('.', "/"))),
            };
            let is_equal = match found {
                None | Some(Value::Null) => {
                    value.is_empty() || (value == "false" && field.ends_with("unschedulable"))
                }
                Some(Value::String(found)) => found == value,
                Some(other) => *value == gofmt::compact_json(other),
            };
            is_equal == (*equality == Equality::Equal)
        })
    }
}

/// Parts between commas that have no backslash before them.
fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !escaped {
            terms.push(text.get(start..at).unwrap_or_default());
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    terms.push(text.get(start..).unwrap_or_default());
    terms
}

fn is_selectable(resource: Resource, field: &str) -> bool {
    let own: &[&str] = match resource {
        Resource::Pods => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        Resource::Events => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        Resource::Services => &["spec.clusterIP", "spec.type"],
        Resource::Connections => &[
            "spec.service",
            "spec.port",
            "spec.client",
            "spec.clientIP",
            "spec.endpoint",
            "status.state",
        ],
        Resource::ReplicaSets => &["status.replicas"],
        Resource::Namespaces => &["status.phase"],
        Resource::Nodes => &["spec.unschedulable"],
        Resource::Endpoints
        | Resource::EndpointSlices
        | Resource::Deployments
        | Resource::DaemonSets
        | Resource::StatefulSets => &[],
    };
    own.contains(&field)
        || field == "metadata.name"
        || (field == "metadata.namespace" && resource.is_namespaced())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(text: &str) -> String {
        let objects = [
            ("web-1", json!({"app": "web", "version": "1"})),
            ("web-2", json!({"app": "web", "version": "2"})),
            ("db", json!({"app": "db", "example.com/tier": ""})),
            ("bare", json!(null)),
        ];
        let selector = match Selector::read(text) {
            Ok(selector) => selector,
            Err(error) => return error.to_string(),
        };
        let found = objects
            .iter()
            .filter(|(_, labels)| selector.matches(&json!({"metadata": {"labels": labels}})));
        found.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn label_selector_selects_as_the_api_server() {
        for (text, expected) in [
            ("", "web-1 web-2 db bare"),
            ("app=web", "web-1 web-2"),
            ("app == web", "web-1 web-2"),
            ("app!=web", "db bare"),
            ("app in (web,db)", "web-1 web-2 db"),
            ("app in ( web , db ),version", "web-1 web-2"),
            ("app notin (web)", "db bare"),
            ("version", "web-1 web-2"),
            ("!version", "db bare"),
            ("! version,app", "db"),
            ("version>1", "web-2"),
            ("version<2", "web-1"),
            ("app=web,version=2", "web-2"),
            ("example.com/tier=", "db"),
            ("app,", "web-1 web-2 db"),
            ("app in (,web)", "web-1 web-2"),
        ] {
            assert_eq!(labels(text), expected, "{text}");
        }
    }

    #[test]
    fn label_selector_that_is_wrong_says_where() {
        for (text, expected) in [
            (
                "app web",
                "found 'web', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("app in web", "found 'web', expected: '('"),
            ("app in (web", "found '', expected: ',', or ')'"),
            ("=x", "found '=', expected: identifier"),
            (
                "app=web version",
                "found 'version', expected: ',' or 'end of string'",
            ),
            ("app=web,,x", "found ',', expected: identifier after ','"),
        ] {
            let expected = format!("unable to parse requirement: {expected}");
            assert_eq!(labels(text), expected, "{text}");
        }
        for text in ["-a=b", "a=-b", "a/b/c=d", "a>x"] {
            assert!(labels(text).contains("Invalid value"), "{text}");
        }
    }

    #[test]
    fn of_object_takes_services_and_workloads() {
        let check = |selector: Value, labels: Value, expected| {
            let object = json!({"spec": {"selector": selector}});
            let pod = json!({"metadata": {"labels": labels}});
            let found = Selector::of_object(&object).matches(&pod);
            assert_eq!(found, expected, "{object}");
        };
        let web = || json!({"app": "web", "version": "1"});
        check(json!({"app": "web"}), web(), true);
        check(json!({"app": "db"}), web(), false);
        check(json!({}), web(), false);
        check(json!(null), web(), false);
        // Labels that are called like the fields.
        check(
            json!({"matchLabels": "x"}),
            json!({"matchLabels": "x"}),
            true,
        );
        check(json!({"matchLabels": {"app": "web"}}), web(), true);
        check(
            json!({"matchLabels": {"app": "web", "tier": "x"}}),
            web(),
            false,
        );
        for (operator, expected) in [
            ("In", true),
            ("NotIn", false),
            ("Exists", true),
            ("DoesNotExist", false),
        ] {
            let one = json!({"key": "version", "operator": operator, "values": ["1", "2"]});
            check(
                json!({"matchLabels": {"app": "web"}, "matchExpressions": [one]}),
                web(),
                expected,
            );
            check(json!({"matchExpressions": [one]}), web(), expected);
        }
    }

    #[test]
    fn parse_of_a_wrong_selector_is_an_error_in_plain_words() {
        let error = Selector::parse("app web").unwrap_err();
        let text = "error: unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt";
        assert_eq!(error.downcast::<Verbatim>().unwrap().0, text);
    }

    #[test]
    fn field_selector_selects_by_equality() {
        let pod = json!({"metadata": {"name": "a,b"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("status.phase=Running", true),
            ("status.phase==Running,metadata.name!=x", true),
            ("status.phase!=Running", false),
            ("metadata.name=a\\,b", true),
            ("spec.nodeName=", true),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(selector.check(Resource::Pods), Ok(()), "{text}");
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn field_selector_of_another_field_is_refused() {
        let selector = FieldSelector::parse("spec.foo=1").unwrap();
        let error = selector.check(Resource::Pods).unwrap_err();
        assert_eq!(error.to_string(), "field label not supported: spec.foo");
        let error = FieldSelector::parse("status.phase").unwrap_err();
        let expected = "invalid selector: 'status.phase'; can't understand 'status.phase'";
        assert_eq!(error.to_string(), expected);
    }
}
