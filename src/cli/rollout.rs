//! `portico rollout`: how far a rollout is, what came before, and going back. Owns arguments and waiting; the words
//! belong to `rollout_text`.

use std::{
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Verbatim,
    change::Namespace,
    cluster::Cluster,
    describe::json::name,
    rollout_text::{self, Revision, RolloutState},
    say, target,
};
use crate::{
    control::command::{Command, Target},
    objects::Resource,
    settings::{InstanceOptions, parse_duration},
};

/// Arguments of `portico rollout`.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Wait until a rollout is through, and say how far it is
    #[command(before_help = "Examples:
  portico rollout status deployment/web
  portico rollout status deployment web --timeout=60s")]
    Status(StatusArgs),
    /// List the revisions of a workload, or show one
    #[command(before_help = "Examples:
  portico rollout history deployment/web
  portico rollout history deployment web --revision=2")]
    History(HistoryArgs),
    /// Go back to a former revision
    #[command(before_help = "Examples:
  portico rollout undo deployment/web
  portico rollout undo deployment web --to-revision=2")]
    Undo(UndoArgs),
    /// Replace all pods by new ones of the same template
    #[command(before_help = "Examples:
  portico rollout restart deployment/web")]
    Restart(Workloads),
    /// Stop a rollout where it is
    #[command(before_help = "Examples:
  portico rollout pause deployment/web")]
    Pause(Workloads),
    /// Let a paused rollout go on
    #[command(before_help = "Examples:
  portico rollout resume deployment/web")]
    Resume(Workloads),
}

#[derive(Debug, Args)]
struct Workloads {
    /// Workloads: KIND NAME... or KIND/NAME...; KIND alone means all
    #[arg(required = true, value_name = "RESOURCE")]
    resource: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    workloads: Workloads,
    /// Wait for the end; `--watch=false` says only how it is
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    watch: bool,
    /// Longest time to wait; 0 is no limit
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,
    /// Fail when another revision than this one is rolled out
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

#[derive(Debug, Args)]
struct HistoryArgs {
    #[command(flatten)]
    workloads: Workloads,
    /// Show the template of this revision
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    revision: Option<i64>,
}

#[derive(Debug, Args)]
struct UndoArgs {
    #[command(flatten)]
    workloads: Workloads,
    /// Which revision; 0 is the one before
    #[arg(long, default_value_t = 0, value_name = "N")]
    to_revision: u64,
}

impl Workloads {
    fn targets(&self, cluster: &Cluster) -> anyhow::Result<Vec<Target>> {
        target::parse_or_all(&self.resource, &self.namespace.namespace, cluster)
    }
}

/// `portico rollout`.
///
/// # Errors
/// No program runs, there is no such workload, or it refuses.
pub fn run(args: &RolloutArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let each = |workloads: &Workloads, command: &dyn Fn(Target) -> Command| {
        let cluster = Cluster::Live(instance.clone());
        target::send_each(instance, workloads.targets(&cluster)?, command)
    };
    match &args.verb {
        Verb::Status(args) => status(args, instance),
        Verb::History(args) => history(args, instance),
        Verb::Undo(args) => each(&args.workloads, &|target| Command::Undo {
            target,
            to_revision: args.to_revision,
        }),
        Verb::Restart(workloads) => each(workloads, &|target| Command::Restart { target }),
        Verb::Pause(workloads) => each(workloads, &|target| Command::Pause {
            target,
            paused: true,
        }),
        Verb::Resume(workloads) => each(workloads, &|target| Command::Pause {
            target,
            paused: false,
        }),
    }
}

fn status(args: &StatusArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let deadline = (!args.timeout.is_zero()).then(|| Instant::now() + args.timeout);
    let cluster = Cluster::Live(instance.clone());
    for target in args.workloads.targets(&cluster)? {
        let object = find(&cluster, &target)?;
        if !args.watch {
            report(&rollout_text::status(
                target.resource,
                &object,
                args.revision,
            ))?;
            continue;
        }
        follow(&cluster, &target, args, deadline)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints each state that differs from the one before, until the rollout is through.
fn follow(
    cluster: &Cluster,
    target: &Target,
    args: &StatusArgs,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    let events = cluster.watch(target.resource, Some(&target.namespace))?;
    let (sender, received) = mpsc::sync_channel(64);
    let wanted = target.name.clone();
    // A blocking reader of its own, so that a time-out does not wait for the next event; it ends with the process.
    thread::spawn(move || {
        for event in events {
            let is_ours = |object: &Value| name(object) == wanted;
            let relevant = event.as_ref().map_or(true, |event| is_ours(&event.object));
            if relevant && sender.send(event).is_err() {
                return;
            }
        }
    });
    let mut said = String::new();
    loop {
        let event = match deadline {
            None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                received.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        };
        let event = match event {
            Ok(event) => event?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Verbatim("error: timed out waiting for the condition".into()).into());
            }
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("portico has ended"),
        };
        if event.kind == "DELETED" {
            return Err(Verbatim("error: object has been deleted".into()).into());
        }
        match rollout_text::status(target.resource, &event.object, args.revision) {
            RolloutState::Waiting(text) if text == said => {}
            RolloutState::Waiting(text) => {
                say::line(&text);
                said = text;
            }
            end => return report(&end),
        }
    }
}

fn report(state: &RolloutState) -> anyhow::Result<()> {
    match state {
        RolloutState::Waiting(text) | RolloutState::Done(text) => {
            say::line(text);
            Ok(())
        }
        RolloutState::Failed(text) => Err(Verbatim(text.clone()).into()),
    }
}

fn history(args: &HistoryArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::Live(instance.clone());
    for target in args.workloads.targets(&cluster)? {
        let object = find(&cluster, &target)?;
        let text = if target.resource == Resource::Deployments {
            let sets = cluster.list(Resource::ReplicaSets, Some(&target.namespace))?;
            rollout_text::history(&object, &sets, args.revision)
        } else {
            let revisions = revisions(&cluster, &target)?;
            rollout_text::history_of(target.resource, &target.name, &revisions, args.revision)
        };
        say::text(text.map_err(Verbatim)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Revisions of workloads whose history is not made of other objects.
fn revisions(cluster: &Cluster, target: &Target) -> anyhow::Result<Vec<Revision>> {
    let path = format!(
        "/v1/revisions/{}/{}/{}",
        target.resource.plural(),
        target.namespace,
        target.name
    );
    let listed: Vec<crate::control::command::Revision> =
        serde_json::from_slice(&cluster.get(&path)?)?;
    let revision = |one: crate::control::command::Revision| Revision {
        number: one.revision,
        change_cause: one.change_cause,
        template: one.template,
    };
    Ok(listed.into_iter().map(revision).collect())
}

fn find(cluster: &Cluster, target: &Target) -> anyhow::Result<Value> {
    let objects = cluster.list(target.resource, Some(&target.namespace))?;
    let found = objects
        .into_iter()
        .find(|object| name(object) == target.name);
    found.ok_or_else(|| Verbatim(target.resource.not_found(&target.name)).into())
}
