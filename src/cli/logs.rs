//! `portico logs`: what simulated pods were asked. Owns its arguments, the choice of pods and containers as kubectl
//! makes it, and following.

use std::{fmt::Write as _, process::ExitCode, thread, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    Verbatim, change::Namespace, cluster::Cluster, describe::json::name as name_of, say, target,
};
use crate::{
    admin::client::{self, Refused},
    control::command::LogPage,
    objects::{Resource, time::rfc3339_millis},
    settings::InstanceOptions,
};

/// How long one request waits for new lines when following.
const WAIT: Duration = Duration::from_secs(20);

/// Lines that one request may bring.
const PAGE: usize = 1000;

/// Lines of each pod that are shown when pods are chosen by label, as kubectl has it.
const TAIL_OF_MANY: usize = 10;

/// Arguments of `portico logs`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "kubectl's flags, each by itself"
)]
#[command(before_help = "Examples:
  portico logs web-86b68b4c5b-8v4dg            the requests that this pod got
  portico logs -f -l app=web --prefix          those of all pods with a label, as they come
  portico logs deployment/web -c nginx --tail=20")]
pub struct LogsArgs {
    /// A pod, or KIND/NAME of what has pods; then optionally a container
    #[arg(value_name = "POD", num_args = 0..=2)]
    pod: Vec<String>,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Every container
    #[arg(long)]
    all_containers: bool,
    /// Pods with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only the last lines [default: all, with -l 10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only lines of the last time, as in 5s, 2m
    #[arg(long, value_name = "TIME", value_parser = crate::settings::parse_duration)]
    since: Option<Duration>,
    /// Of the container's run before its last restart
    #[arg(short, long)]
    previous: bool,
    /// Put the pod's and the container's name before each line
    #[arg(long)]
    prefix: bool,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Most containers that are followed at once
    #[arg(long, default_value_t = 5, value_name = "N")]
    max_log_requests: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    namespace: Namespace,
}

/// One container of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    pod: String,
    container: String,
}

/// `portico logs`.
///
/// # Errors
/// No program runs, there is no such pod or container, or pods are not simulated.
pub fn run(args: &LogsArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let streams = streams(args, &Cluster::Live(instance.clone()))?;
    if args.follow && streams.len() > args.max_log_requests {
        let text = format!(
            "error: you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
             --max-log-requests to increase the limit",
            streams.len(),
            args.max_log_requests
        );
        return Err(Verbatim(text).into());
    }
    if args.follow {
        say::end_with_reader();
    }
    let copy = |stream: &Stream| Reader { args, instance }.copy(stream);
    if !args.follow {
        streams.iter().try_for_each(copy)?;
        return Ok(ExitCode::SUCCESS);
    }
    thread::scope(|scope| {
        let running: Vec<_> = streams
            .iter()
            .map(|stream| scope.spawn(move || copy(stream)))
            .collect();
        for reader in running {
            reader
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a reader of logs panicked")))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Reader<'a> {
    args: &'a LogsArgs,
    instance: &'a InstanceOptions,
}

impl Reader<'_> {
    /// Prints what there is, and when following what comes, until the container is gone.
    fn copy(&self, stream: &Stream) -> anyhow::Result<()> {
        let mut first = self.page(stream, 0, Duration::ZERO)?;
        let skipped = self
            .tail()
            .map_or(0, |tail| first.lines.len().saturating_sub(tail));
        first.lines.drain(..skipped);
        if let Some(since) = self.args.since {
            let oldest = crate::clock::now()
                .as_millis()
                .saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
            first.lines.retain(|line| line.at_ms >= oldest);
        }
        self.print(stream, &first);
        let mut next = first.next;
        if !self.args.follow {
            return Ok(());
        }
        loop {
            let page = match self.page(stream, next, WAIT) {
                Ok(page) => page,
                Err(error) if error.to_string().contains("(NotFound)") => return Ok(()),
                Err(error) => return Err(error),
            };
            self.print(stream, &page);
            next = page.next;
            if page.ended {
                return Ok(());
            }
        }
    }

    fn tail(&self) -> Option<usize> {
        match self.args.tail {
            Some(tail) => usize::try_from(tail).ok(),
            None => self.args.selector.as_ref().map(|_| TAIL_OF_MANY),
        }
    }

    fn page(&self, stream: &Stream, after: u64, wait: Duration) -> anyhow::Result<LogPage> {
        let path = format!(
            "/v1/logs/{}/{}/{}?after={after}&limit={PAGE}&waitMs={}&previous={}",
            self.args.namespace.namespace,
            stream.pod,
            stream.container,
            wait.as_millis(),
            self.args.previous
        );
        match client::get_late(self.instance, &path, wait) {
            Ok(body) => Ok(serde_json::from_slice(&body)?),
            Err(error) => match error.downcast::<Refused>() {
                Ok(refused) => Err(Verbatim(refused.text).into()),
                Err(error) => Err(error),
            },
        }
    }

    fn print(&self, stream: &Stream, page: &LogPage) {
        let mut text = String::new();
        for line in &page.lines {
            if self.args.prefix {
                // Writing to a String cannot fail.
                let _ = write!(text, "[pod/{}/{}] ", stream.pod, stream.container);
            }
            if self.args.timestamps {
                text.push_str(&rfc3339_millis(portico_core::time::Timestamp::from_millis(
                    line.at_ms,
                )));
                text.push(' ');
            }
            text.push_str(&line.text);
            text.push('\n');
        }
        say::text(text);
    }
}

fn streams(args: &LogsArgs, cluster: &Cluster) -> anyhow::Result<Vec<Stream>> {
    let namespace = &args.namespace.namespace;
    let pods = cluster.list(Resource::Pods, Some(namespace))?;
    let (chosen, container) = match (&args.selector, args.pod.as_slice()) {
        (Some(selector), []) => {
            let selector = super::get::selector::Selector::parse(selector)?;
            let matching = pods.iter().filter(|pod| selector.matches(pod));
            (matching.collect::<Vec<&Value>>(), args.container.as_ref())
        }
        (None, [pod, rest @ ..]) => {
            let container = args.container.as_ref().or(rest.first());
            (vec![pod_of(pod, &pods, namespace, cluster)?], container)
        }
        (Some(_), _) => {
            return Err(
                Verbatim("error: only a selector (-l) or a POD name is allowed".into()).into(),
            );
        }
        (None, []) => {
            let text = "error: expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a \
                        required argument for the logs command";
            return Err(Verbatim(text.into()).into());
        }
    };
    if chosen.is_empty() {
        say::error_line(format!("No resources found in {namespace} namespace."));
    }
    let mut streams = Vec::new();
    for pod in chosen {
        streams.extend(containers_of(args, pod, container)?);
    }
    Ok(streams)
}

/// The pod of that name, or the first of what has pods, as kubectl takes it.
fn pod_of<'p>(
    word: &str,
    pods: &'p [Value],
    namespace: &str,
    cluster: &Cluster,
) -> anyhow::Result<&'p Value> {
    let (kind, name) = word.split_once('/').unwrap_or(("pod", word));
    let resource = target::resource(kind)?;
    let not_found = |name: &str| Verbatim(resource.not_found(name));
    if resource == Resource::Pods {
        let found = pods.iter().find(|pod| name_of(pod) == name);
        return found.ok_or_else(|| not_found(name).into());
    }
    let owners = cluster.list(resource, Some(namespace))?;
    let owner = owners
        .iter()
        .find(|object| name_of(object) == name)
        .ok_or_else(|| not_found(name))?;
    let selector = super::get::selector::Selector::of_object(owner);
    let matching: Vec<&Value> = pods.iter().filter(|pod| selector.matches(pod)).collect();
    match matching.as_slice() {
        [] => Err(Verbatim(format!("error: no pods of {word} are there")).into()),
        [only] => Ok(only),
        [first, ..] => {
            say::error_line(format!(
                "Found {} pods, using pod/{}",
                matching.len(),
                name_of(first)
            ));
            Ok(first)
        }
    }
}

fn containers_of(
    args: &LogsArgs,
    pod: &Value,
    wanted: Option<&String>,
) -> anyhow::Result<Vec<Stream>> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let names: Vec<&str> = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container.get("name")?.as_str())
        .collect();
    let stream = |container: &str| Stream {
        pod: name_of(pod).to_owned(),
        container: container.to_owned(),
    };
    if args.all_containers {
        return Ok(names.into_iter().map(stream).collect());
    }
    match (wanted, names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted.as_str()) => Ok(vec![stream(wanted)]),
        (Some(wanted), _) => {
            let pod = name_of(pod);
            Err(Verbatim(format!(
                "error: container {wanted} is not valid for pod {pod}"
            ))
            .into())
        }
        (None, [first, _, ..]) => {
            let text = format!(
                "Defaulted container \"{first}\" out of: {}",
                names.join(", ")
            );
            say::error_line(text);
            Ok(vec![stream(first)])
        }
        (None, names) => Ok(names.iter().copied().map(stream).collect()),
    }
}
