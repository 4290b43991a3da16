//! The arguments of `portico get`, understood: what is selected by them, in which order, and as what it is shown. Owns
//! what kubectl says about arguments, and about what is not there; must not know where objects come from.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::NonZeroUsize,
};

use serde_json::{Value, json};

use super::{
    GetOptions, Objects, Terminal,
    columns::Detail,
    output::{Headers, Output, Printer},
    rows::{Decoration, Kind, Labels, Namespace, Rows},
    selector::{FieldSelector, Selector},
    sort, watch,
};
use crate::{
    cli::{
        Verbatim,
        cluster::ScopeOptions,
        wanted::{self, Form, Wanted},
    },
    objects::Resource,
};

/// The arguments, understood.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "kubectl's flags are switches"
)]
pub(super) struct Request {
    pub(super) targets: Vec<Wanted>,
    form: Form,
    /// `None` means all.
    pub(super) namespace: Option<String>,
    label_text: String,
    field_text: String,
    labels: Result<Selector, String>,
    fields: Result<FieldSelector, String>,
    output: Output,
    decoration: Decoration,
    sort_by: Option<String>,
    limit: Option<NonZeroUsize>,
    ignore_not_found: bool,
    watch: bool,
    pub(super) watch_only: bool,
    pub(super) output_watch_events: bool,
}

/// Objects of one kind that belong together.
#[derive(Debug)]
pub(super) struct Group {
    resource: Resource,
    pub(super) items: Vec<Value>,
}

/// What turns objects into text.
#[derive(Debug)]
pub(super) enum Sink {
    Table(Rows),
    Printer(Printer),
}

impl Request {
    pub(super) fn new(options: &GetOptions, scope: &ScopeOptions) -> Result<Self, Verbatim> {
        let mut arguments = options.targets.clone();
        if arguments.is_empty() && !scope.filename.is_empty() {
            arguments.push("all".to_owned());
        }
        let of_service = service_of_connections(&mut arguments);
        let (targets, form) = wanted::parse(&arguments)?;
        let output = Output::parse(options.output.as_deref())?;
        let label_text = options.selector.clone().unwrap_or_default();
        let mut field_text = options.field_selector.clone().unwrap_or_default();
        if let Some(service) = of_service {
            if !field_text.is_empty() {
                field_text.push(',');
            }
            field_text.push_str("spec.service=");
            field_text.push_str(&service);
        }
        let request = Self {
            targets,
            form,
            namespace: (!options.all_namespaces).then(|| scope.namespace.clone()),
            labels: Selector::read(&label_text).map_err(|problem| problem.to_string()),
            fields: FieldSelector::parse(&field_text).map_err(|problem| problem.to_string()),
            label_text,
            field_text,
            decoration: decoration(options, &output),
            output,
            sort_by: options.sort_by.clone().filter(|path| !path.is_empty()),
            limit: options.limit,
            ignore_not_found: options.ignore_not_found,
            watch: options.watch || options.watch_only,
            watch_only: options.watch_only,
            output_watch_events: options.output_watch_events,
        };
        request.check(options)?;
        Ok(request)
    }

    fn check(&self, options: &GetOptions) -> Result<(), Verbatim> {
        let selects = !self.label_text.is_empty() || !self.field_text.is_empty();
        let message = match self.form {
            Form::Kinds if self.targets.is_empty() => {
                let known: Vec<&str> = Resource::known().map(Resource::plural).collect();
                return Err(Verbatim(format!(
                    "You must specify the type of resource to get: {}.\n\nerror: Required resource not specified.\n\
                     See 'portico get -h' for help and examples",
                    known.join(", ")
                )));
            }
            Form::Names if selects => "name cannot be provided when a selector is specified",
            Form::Pairs if selects => {
                "selectors and the all flag cannot be used when passing resource/name arguments"
            }
            Form::Names | Form::Pairs if options.all_namespaces => {
                "a resource cannot be retrieved by name across all namespaces"
            }
            _ if options.show_labels && matches!(self.output, Output::Format(_)) => {
                let output = options.output.as_deref().unwrap_or_default();
                return Err(Verbatim(format!(
                    "error: --show-labels option cannot be used with {output} printer"
                )));
            }
            _ if options.output_watch_events && !self.watch => {
                "--output-watch-events option can only be used with --watch or --watch-only"
            }
            _ => return Ok(()),
        };
        Err(Verbatim(format!("error: {message}")))
    }

    pub(super) fn run(
        &self,
        objects: &impl Objects,
        terminal: &mut Terminal<'_>,
    ) -> anyhow::Result<()> {
        if self.watch {
            if self.sort_by.is_some() {
                let text = "warning: --watch requested, --sort-by will be ignored for watch events received";
                let _ = writeln!(terminal.err, "{text}");
            }
            return watch::run(self, objects, terminal);
        }
        let (mut groups, problems) = self.collect(objects)?;
        match &self.output {
            Output::Table(_) => self.tables(&mut groups, &problems, terminal)?,
            Output::Format(_) => self.format(groups, &problems, terminal)?,
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Verbatim(problems.join("\n")).into())
        }
    }

    /// What is asked for, in the order asked for, and what was not found.
    pub(super) fn collect(
        &self,
        objects: &impl Objects,
    ) -> anyhow::Result<(Vec<Group>, Vec<String>)> {
        let mut lists: BTreeMap<Resource, Vec<Value>> = BTreeMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut problems = Vec::new();
        for target in &self.targets {
            let resource = target.resource;
            self.check_selectors(resource)?;
            let all = match lists.entry(resource) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let mut all = objects.list(resource, self.namespace.as_deref())?;
                    // Keys come in any order, and are shown sorted everywhere.
                    all.iter_mut().for_each(Value::sort_all_objects);
                    new.insert(all)
                }
            };
            let chosen = all.iter().filter(|object| match &target.name {
                Some(name) => object.pointer("/metadata/name") == Some(&json!(name)),
                None => self.selects(object),
            });
            let items: Vec<Value> = chosen.cloned().collect();
            match (&target.name, groups.last_mut()) {
                (Some(name), _) if items.is_empty() => {
                    if !self.ignore_not_found {
                        problems.push(resource.not_found(name));
                    }
                }
                (_, Some(last)) if last.resource == resource => last.items.extend(items),
                _ => groups.push(Group { resource, items }),
            }
        }
        Ok((groups, problems))
    }

    fn check_selectors(&self, resource: Resource) -> Result<(), Verbatim> {
        let labels = self.labels.as_ref().map(|_| ());
        let fields = self.fields.as_ref().map_err(String::clone);
        let fields = fields.and_then(|fields| {
            let checked = fields.check(resource);
            checked.map_err(|problem| problem.to_string())
        });
        let checked = labels.map_err(String::clone).and(fields);
        checked.map_err(|problem| {
            Verbatim(format!(
                "Error from server (BadRequest): Unable to find \"{}/v1, Resource={}\" that match label selector \"{}\", \
                 field selector \"{}\": {problem}",
                resource.group(),
                resource.plural(),
                self.label_text,
                self.field_text
            ))
        })
    }

    /// Whether the selectors, and the one name that may be asked for, fit `object`.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let labels = self
            .labels
            .as_ref()
            .is_ok_and(|labels| labels.matches(object));
        let fields = self
            .fields
            .as_ref()
            .is_ok_and(|fields| fields.matches(object));
        let wanted = self.targets.iter().find_map(|target| target.name.as_ref());
        let named =
            wanted.is_none_or(|name| object.pointer("/metadata/name") == Some(&json!(name)));
        // Several names are never asked about in this way: they are looked up one by one.
        labels && fields && (named || self.targets.len() > 1)
    }

    pub(super) fn sink(&self, resource: Resource) -> Sink {
        match &self.output {
            Output::Table(_) => Sink::Table(Rows::new(resource, self.decoration.clone())),
            Output::Format(format) => {
                Sink::Printer(Printer::new(format.clone(), self.decoration.headers))
            }
        }
    }

    fn tables(
        &self,
        groups: &mut [Group],
        problems: &[String],
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Verbatim> {
        let mut decoration = self.decoration.clone();
        let first = groups.first().map(|group| group.resource);
        if groups.iter().any(|group| Some(group.resource) != first) {
            decoration.kind = Kind::Shown;
        }
        let mut text = String::new();
        let mut beyond = 0;
        for group in groups.iter_mut().filter(|group| !group.items.is_empty()) {
            beyond += self.arrange(&mut group.items)?;
            if !text.is_empty() && decoration.headers == Headers::Shown {
                text.push('\n');
            }
            let objects: Vec<_> = group.items.iter().map(|object| (None, object)).collect();
            let mut rows = Rows::new(group.resource, decoration.clone());
            text.push_str(&rows.lines(&objects, (terminal.now)()));
        }
        // A reader that has gone is no error.
        let _ = terminal.put(&text);
        tell_beyond(beyond, terminal);
        if text.is_empty() && problems.is_empty() && !self.ignore_not_found {
            let _ = writeln!(terminal.err, "{}", self.nothing());
        }
        Ok(())
    }

    /// Sorts `items` and leaves as many of them as are wanted; how many there are beyond.
    fn arrange(&self, items: &mut Vec<Value>) -> Result<usize, Verbatim> {
        if let Some(path) = &self.sort_by {
            sort::by(path, items)?;
        }
        let most = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        let beyond = items.len().saturating_sub(most);
        items.truncate(most);
        Ok(beyond)
    }

    fn nothing(&self) -> String {
        let mut targets = self.targets.iter();
        match &self.namespace {
            Some(namespace) if targets.all(|target| target.resource.is_namespaced()) => {
                format!("No resources found in {namespace} namespace.")
            }
            _ => "No resources found".to_owned(),
        }
    }

    /// One object by itself when one was named, else a `List`.
    fn format(
        &self,
        groups: Vec<Group>,
        problems: &[String],
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Verbatim> {
        let Output::Format(format) = &self.output else {
            return Ok(());
        };
        let mut items: Vec<Value> = groups.into_iter().flat_map(|group| group.items).collect();
        let names: Vec<&String> = self
            .targets
            .iter()
            .filter_map(|target| target.name.as_ref())
            .collect();
        let is_single = !names.is_empty()
            && (self.targets.len() == 1
                || (self.form == Form::Names
                    && names.iter().all(|name| Some(name) == names.first())));
        if (is_single && !problems.is_empty()) || (items.is_empty() && self.ignore_not_found) {
            return Ok(());
        }
        let beyond = self.arrange(&mut items)?;
        let object = match items.pop() {
            Some(item) if is_single && items.is_empty() => item,
            last => {
                items.extend(last);
                json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
            }
        };
        let text = Printer::new(format.clone(), self.decoration.headers).object(&object)?;
        let _ = terminal.put(&text);
        tell_beyond(beyond, terminal);
        Ok(())
    }
}

/// Beside the output, which scripts read.
fn tell_beyond(beyond: usize, terminal: &mut Terminal<'_>) {
    if beyond > 0 {
        let _ = writeln!(terminal.err, "and {beyond} more");
    }
}

/// `connections service/NAME` asks for the connections of a Service: the name is taken off.
fn service_of_connections(arguments: &mut Vec<String>) -> Option<String> {
    let [kind, owner] = arguments.as_slice() else {
        return None;
    };
    let (owner_kind, name) = owner.split_once('/')?;
    let is_meant = Resource::named(kind) == Some(Resource::Connections)
        && Resource::named(owner_kind) == Some(Resource::Services)
        && !name.is_empty();
    let name = is_meant.then(|| name.to_owned())?;
    arguments.truncate(1);
    Some(name)
}

fn decoration(options: &GetOptions, output: &Output) -> Decoration {
    Decoration {
        detail: match output {
            Output::Table(detail) => *detail,
            Output::Format(_) => Detail::Usual,
        },
        headers: if options.no_headers {
            Headers::Hidden
        } else {
            Headers::Shown
        },
        kind: if options.show_kind {
            Kind::Shown
        } else {
            Kind::Hidden
        },
        namespace: if options.all_namespaces {
            Namespace::Shown
        } else {
            Namespace::Hidden
        },
        label_columns: options.label_columns.clone(),
        labels: if options.show_labels {
            Labels::Shown
        } else {
            Labels::Hidden
        },
    }
}
