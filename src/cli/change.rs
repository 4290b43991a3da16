//! Changes at run time: `scale`, `set image`, `pod fail|heal`, `overrides`, `reset`. Owns their arguments and what they
//! print, in kubectl's words where kubectl has the command.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use portico_core::world::pods::Fault;

use super::{
    Verbatim, say,
    table::TabWriter,
    target::{self, send},
};
use crate::{
    admin::client,
    control::command::{Command, OverrideLine},
    objects::Resource,
    settings::InstanceOptions,
};

/// Arguments of `portico scale`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico scale deployment web --replicas=5
  portico scale --replicas=3 deployment/web statefulset/db")]
pub struct ScaleArgs {
    /// Workloads: KIND NAME... or KIND/NAME...
    #[arg(required = true, value_name = "RESOURCE")]
    resource: Vec<String>,
    /// Number of pods
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    replicas: u32,
    /// Only if there are this many now
    #[arg(long, value_name = "N")]
    current_replicas: Option<u32>,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// Which namespace.
#[derive(Debug, Clone, Args)]
pub struct Namespace {
    /// Namespace of the objects
    #[arg(
        short,
        long,
        env = "PORTICO_NAMESPACE",
        default_value = "default",
        value_name = "NS"
    )]
    pub namespace: String,
}

/// Arguments of `portico set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(subcommand)]
    what: Set,
}

#[derive(Debug, Subcommand)]
enum Set {
    /// Set the image of containers, which begins a rollout
    #[command(before_help = "Examples:
  portico set image deployment web nginx=nginx:1.13
  portico set image deployment/web '*=nginx:1.13'      every container")]
    Image {
        /// Workloads, then CONTAINER=IMAGE...
        #[arg(required = true, value_name = "RESOURCE")]
        resource: Vec<String>,
        #[command(flatten)]
        #[allow(missing_docs)]
        namespace: Namespace,
    },
}

/// Arguments of `portico pod`.
#[derive(Debug, Args)]
pub struct PodArgs {
    #[command(subcommand)]
    what: PodVerb,
}

#[derive(Debug, Subcommand)]
enum PodVerb {
    /// Make a simulated pod fail: its readiness or liveness probe, or its ports
    #[command(before_help = "Examples:
  portico pod fail web-86b68b4c5b-8v4dg ready    it gets no traffic
  portico pod fail web-86b68b4c5b-8v4dg live     it is restarted, again and again
  portico pod fail web-86b68b4c5b-8v4dg port     it closes its ports")]
    Fail(FaultArgs),
    /// Undo what `pod fail` did
    #[command(before_help = "Examples:
  portico pod heal web-86b68b4c5b-8v4dg ready")]
    Heal(FaultArgs),
}

#[derive(Debug, Args)]
struct FaultArgs {
    /// The pod
    pod: String,
    /// What fails
    #[arg(value_enum)]
    what: FaultName,
    #[command(flatten)]
    namespace: Namespace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FaultName {
    /// Readiness
    Ready,
    /// Liveness
    Live,
    /// Its ports
    Port,
}

/// Arguments of `portico overrides`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico overrides            what was changed at run time and where it differs from the files
  portico overrides -o json")]
pub struct OverridesArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: ListFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ListFormat {
    /// A table
    Text,
    /// JSON
    Json,
}

/// Arguments of `portico reset`.
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  portico reset                        everything is as the files say again
  portico reset deployment/web         one object")]
pub struct ResetArgs {
    /// Objects: KIND NAME... or KIND/NAME...; none means all
    #[arg(value_name = "RESOURCE")]
    resource: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// `portico scale`.
///
/// # Errors
/// No program runs, or it refuses.
pub fn scale(args: &ScaleArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let targets = target::parse_alone(&args.resource, &args.namespace.namespace)?;
    target::send_each(instance, targets, |target| Command::Scale {
        target,
        replicas: args.replicas,
        current: args.current_replicas,
    })
}

/// `portico set`.
///
/// # Errors
/// No program runs, or it refuses.
pub fn set(args: &SetArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let Set::Image {
        resource,
        namespace,
    } = &args.what;
    let (targets, pairs) = target::parse(resource, &namespace.namespace)?;
    let images = pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((container, image)) if !container.is_empty() && !image.is_empty() => {
                Ok((container.to_owned(), image.to_owned()))
            }
            _ => Err(Verbatim(format!("error: '{pair}' is not CONTAINER=IMAGE"))),
        })
        .collect::<Result<Vec<_>, Verbatim>>()?;
    if images.is_empty() {
        return Err(Verbatim("error: at least one image update is required".into()).into());
    }
    target::send_each(instance, targets, |target| Command::SetImage {
        target,
        images: images.clone(),
    })
}

/// `portico pod`.
///
/// # Errors
/// No program runs, or it refuses.
pub fn pod(args: &PodArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let (fault, failing) = match &args.what {
        PodVerb::Fail(fault) => (fault, true),
        PodVerb::Heal(fault) => (fault, false),
    };
    let name = fault.pod.strip_prefix("pod/").unwrap_or(&fault.pod);
    let target = target::target(Resource::Pods, &fault.namespace.namespace, name);
    let what = match fault.what {
        FaultName::Ready => Fault::Ready,
        FaultName::Live => Fault::Live,
        FaultName::Port => Fault::Port,
    };
    target::send_each(instance, vec![target], |target| Command::Fault {
        namespace: target.namespace,
        name: target.name,
        fault: what,
        failing,
    })
}

/// `portico reset`.
///
/// # Errors
/// No program runs.
pub fn reset(args: &ResetArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    if args.resource.is_empty() {
        let done = send(instance, &Command::Reset { target: None })?;
        say::line(done.verb);
        return Ok(ExitCode::SUCCESS);
    }
    let targets = target::parse_alone(&args.resource, &args.namespace.namespace)?;
    for target in targets {
        let name = target.display();
        let done = send(
            instance,
            &Command::Reset {
                target: Some(target),
            },
        )?;
        let word = if done.verb.starts_with('0') {
            "not overridden"
        } else {
            "reset"
        };
        say::line(format!("{name} {word}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `portico overrides`.
///
/// # Errors
/// No program runs.
pub fn overrides(args: &OverridesArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let lines: Vec<OverrideLine> =
        serde_json::from_slice(&client::get(instance, "/v1/overrides")?)?;
    match args.output {
        ListFormat::Json => say::line(serde_json::to_string_pretty(&lines)?),
        ListFormat::Text if lines.is_empty() => {
            say::error_line("No overrides: everything is as the files say.");
        }
        ListFormat::Text => say::text(table(&lines)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(lines: &[OverrideLine]) -> String {
    let header = ["NAMESPACE", "NAME", "CHANGE"].map(str::to_owned);
    let rows = lines.iter().map(|line| {
        let namespace = line.target.namespace.clone();
        [namespace, line.target.display(), line.change.clone()]
    });
    let rows: Vec<[String; 3]> = std::iter::once(header).chain(rows).collect();
    TabWriter::default().lines(&rows)
}
