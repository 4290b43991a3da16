//! `portico describe`: objects with what belongs to them, in kubectl's layout. Owns the arguments, which objects are
//! meant and what is fetched for them; one file below for the layout of each family of kinds.

mod choice;
mod container;
mod endpoints;
mod events;
pub(crate) mod json;
mod listeners;
pub(crate) mod meta;
mod node;
mod other;
pub(crate) mod pod;
mod quantity;
mod service;
pub(crate) mod time;
mod volume;
pub(crate) mod workload;
pub(crate) mod writer;
mod zone;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use portico_core::time::Timestamp;
use serde_json::Value;

pub use listeners::Listeners;
pub use zone::Zone;

use super::{
    cluster::{Cluster, ScopeOptions},
    say,
};
use crate::{clock, control::status::Status, objects::Resource, settings::InstanceOptions};
use writer::Writer;

/// Arguments of `portico describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// What to describe: `KIND`, `KIND NAME` (or the beginning of names), `KIND/NAME`; kinds may be joined by commas
    #[arg(value_name = "KIND [NAME] | KIND/NAME")]
    objects: Vec<String>,
    /// Only objects with these labels: `a=b,c!=d,e in (f,g),h,!i`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Whether to show the events of each object
    #[arg(
        long,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    show_events: bool,
    #[command(flatten)]
    scope: ScopeOptions,
}

/// What belongs to objects: lists of everything, from which each object's own is taken.
#[derive(Debug, Default)]
pub struct Related {
    /// Events; `None` if they are not to be shown.
    pub events: Option<Vec<Value>>,
    /// Pods, for controllers and nodes.
    pub pods: Vec<Value>,
    /// ReplicaSets, for Deployments.
    pub replica_sets: Vec<Value>,
    /// EndpointSlices, for Services.
    pub slices: Vec<Value>,
    /// Sockets, for Services.
    pub listeners: Listeners,
    /// Live connections, for Services of the running program.
    pub connections: Vec<Value>,
    /// Now, for ages.
    pub now: Timestamp,
    /// In which times are shown.
    pub zone: Zone,
}

/// An object in kubectl's layout, with a line break at the end.
pub fn describe(resource: Resource, object: &Value, related: &Related) -> String {
    let mut out = Writer::new(related.zone.clone());
    let out_mut = &mut out;
    match resource {
        Resource::Services => service::describe(out_mut, object, related),
        Resource::Endpoints => endpoints::endpoints(out_mut, object, related),
        Resource::EndpointSlices => endpoints::slice(out_mut, object, related),
        Resource::Pods => pod::describe(out_mut, object, related),
        Resource::ReplicaSets => workload::replica_set(out_mut, object, related),
        Resource::Deployments => workload::deployment(out_mut, object, related),
        Resource::DaemonSets => workload::daemon_set(out_mut, object, related),
        Resource::StatefulSets => workload::stateful_set(out_mut, object, related),
        Resource::Namespaces => other::namespace(out_mut, object),
        Resource::Nodes => node::describe(out_mut, object, related),
        Resource::Events | Resource::Connections => {
            other::generic(out_mut, resource, object, related);
        }
    }
    out.tabbed()
}

/// Prints what the arguments ask for.
///
/// # Errors
/// Nothing of that name or kind ([`super::Verbatim`], in kubectl's words); no program runs under this instance name.
pub fn command(args: &DescribeArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let printed = run(&Cluster::new(&args.scope, instance)?, args)?;
    say::text(printed.out);
    if printed.errors.is_empty() {
        if let Some(remark) = printed.remark {
            say::error_line(remark);
        }
        return Ok(ExitCode::SUCCESS);
    }
    Err(super::Verbatim(printed.errors.join("\n")).into())
}

/// Where objects come from.
trait Objects {
    /// All objects of a kind, of one namespace or of all, sorted.
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>>;

    /// What is known of sockets.
    fn listeners(&self) -> anyhow::Result<Listeners>;
}

impl Objects for Cluster {
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        self.list(resource, namespace)
    }

    fn listeners(&self) -> anyhow::Result<Listeners> {
        Ok(match self {
            Self::Live(_) => {
                let status: Status = serde_json::from_slice(&self.get("/v1/status")?)?;
                Listeners::Live(Box::new(status))
            }
            Self::Offline(_) => Listeners::Declared,
        })
    }
}

/// What a run says.
#[derive(Debug)]
struct Printed {
    /// On standard output.
    out: String,
    /// On standard error, with exit code 1.
    errors: Vec<String>,
    /// On standard error, when there is nothing else to say.
    remark: Option<String>,
}

fn run(source: &impl Objects, args: &DescribeArgs) -> anyhow::Result<Printed> {
    let found = choice::objects(source, args)?;
    let mut fetched = Fetched::new(source, args);
    let mut texts = Vec::new();
    for (resource, object) in &found.objects {
        texts.push(describe(*resource, object, fetched.related(*resource)?));
    }
    let is_empty = texts.is_empty() && found.errors.is_empty();
    let out = match found.layout {
        choice::Layout::Named => texts.join("\n\n"),
        // kubectl puts a line after each object that it found by the beginning of its name.
        choice::Layout::Prefixed => texts.into_iter().map(|text| text + "\n").collect(),
    };
    Ok(Printed {
        out,
        errors: found.errors,
        remark: is_empty.then(|| nothing(args)),
    })
}

fn nothing(args: &DescribeArgs) -> String {
    if args.all_namespaces {
        "No resources found".to_owned()
    } else {
        format!("No resources found in {} namespace.", args.scope.namespace)
    }
}

/// What has been fetched for the kinds so far: each list once.
struct Fetched<'a, O> {
    source: &'a O,
    related: Related,
    resources: Vec<Resource>,
}

impl<'a, O: Objects> Fetched<'a, O> {
    fn new(source: &'a O, args: &DescribeArgs) -> Self {
        let related = Related {
            events: args.show_events.then(Vec::new),
            now: clock::now(),
            zone: Zone::local(std::env::var("TZ").ok().as_deref()),
            ..Related::default()
        };
        Self {
            source,
            related,
            resources: Vec::new(),
        }
    }

    /// What objects of `resource` need besides themselves.
    fn related(&mut self, resource: Resource) -> anyhow::Result<&Related> {
        let needs: &[Resource] = match resource {
            Resource::Services => &[Resource::EndpointSlices],
            Resource::Deployments => &[Resource::ReplicaSets],
            Resource::ReplicaSets
            | Resource::DaemonSets
            | Resource::StatefulSets
            | Resource::Nodes => &[Resource::Pods],
            _ => &[],
        };
        for need in needs {
            self.fetch(*need)?;
        }
        if self.related.events.is_some() {
            self.fetch(Resource::Events)?;
        }
        if resource == Resource::Services && matches!(self.related.listeners, Listeners::Hidden) {
            self.related.listeners = self.source.listeners()?;
            self.related.connections = self.source.list(Resource::Connections, None)?;
        }
        Ok(&self.related)
    }

    fn fetch(&mut self, resource: Resource) -> anyhow::Result<()> {
        if self.resources.contains(&resource) {
            return Ok(());
        }
        let list = self.source.list(resource, None)?;
        match resource {
            Resource::EndpointSlices => self.related.slices = list,
            Resource::ReplicaSets => self.related.replica_sets = list,
            Resource::Pods => self.related.pods = list,
            _ => self.related.events = Some(list),
        }
        self.resources.push(resource);
        Ok(())
    }
}
