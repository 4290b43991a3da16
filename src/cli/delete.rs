//! `portico delete pod`: ends simulated pods, whose controllers make new ones. Owns its arguments and the waiting;
//! everything else is deleted by deleting it from the folder.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::{
    Verbatim,
    change::Namespace,
    cluster::Cluster,
    describe::json::{name, text},
    say,
    target::{self, Many, send},
};
use crate::{
    control::command::{Command, Target},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico delete`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico delete pod web-86b68b4c5b-8v4dg           its ReplicaSet makes another one
  portico delete pod/a pod/b --wait=false
  portico delete pods -l app=web
  portico delete pods --all --grace-period=1")]
pub struct DeleteArgs {
    /// Pods: `pod NAME...` or `pod/NAME...`, or `pods` with --all or --selector
    #[arg(required = true, value_name = "RESOURCE")]
    resource: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    many: Many,
    /// Seconds to end in, instead of the pod's own
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// End within a second
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// Return when the pods are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    wait: bool,
    /// Say nothing about pods that are not there
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// `portico delete`.
///
/// # Errors
/// No program runs, or a pod is not there.
pub fn run(args: &DeleteArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::Live(instance.clone());
    let targets = targets(args, &cluster)?;
    if let Some(other) = targets
        .iter()
        .find(|target| target.resource != Resource::Pods)
    {
        let text = format!(
            "error: {} is deleted by deleting it from the manifests; `portico reset` takes back run-time changes",
            other.display()
        );
        return Err(Verbatim(text).into());
    }
    // From before the deletion, so that its end is not missed.
    let mut events = cluster.watch(Resource::Pods, Some(&args.namespace.namespace))?;
    let present = cluster.list(Resource::Pods, Some(&args.namespace.namespace))?;
    let mut waited = Vec::new();
    let mut failed = None;
    for target in targets {
        let command = Command::DeletePod {
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            grace_seconds: if args.now { Some(1) } else { args.grace_period },
        };
        match send(instance, &command) {
            Ok(_) => {
                say::line(format!("pod \"{}\" deleted", target.name));
                waited.extend(uid_of(&present, &target.name));
            }
            Err(error) if args.ignore_not_found && error.to_string().contains("(NotFound)") => {}
            Err(error) => failed = Some(error),
        }
    }
    while args.wait && !waited.is_empty() {
        let Some(event) = events.next().transpose()? else {
            break;
        };
        if event.kind == "DELETED" {
            waited.retain(|waited| text(&event.object, "/metadata/uid") != waited);
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn targets(args: &DeleteArgs, cluster: &Cluster) -> anyhow::Result<Vec<Target>> {
    let namespace = &args.namespace.namespace;
    let (targets, rest) = target::parse_many(&args.resource, namespace, &args.many, cluster)?;
    if let Some(word) = rest.first() {
        return Err(Verbatim(format!("error: unexpected argument '{word}'")).into());
    }
    if targets.is_empty() {
        say::line("No resources found");
    }
    Ok(targets)
}

fn uid_of(objects: &[Value], wanted: &str) -> Option<String> {
    let found = objects.iter().find(|object| name(object) == wanted)?;
    Some(text(found, "/metadata/uid").to_owned())
}
