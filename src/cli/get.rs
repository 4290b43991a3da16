//! `portico get`: objects as kubectl shows them. Owns the options, what is selected by them and the order of the
//! output; columns, formats and `JSONPath` are below, and where objects come from belongs to [`super::cluster`].

mod columns;
mod gofmt;
mod jsonpath;
mod output;
mod request;
mod rows;
pub(crate) mod selector;
mod sort;
mod watch;
mod yaml;

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Args;
use portico_core::time::Timestamp;
use serde_json::Value;

use super::{
    cluster::{Cluster, ScopeOptions, WatchEvent},
    say,
};
use crate::{clock, objects::Resource, settings::InstanceOptions};

use request::Request;

const EXAMPLES: &str = "\
Examples:
  portico get pods,services                  two tables
  portico get svc web -o yaml                one object with everything that is known of it
  portico get pods -l app=web -w             what changes, as it changes
  portico get all -A                         every namespace
  portico get connections service/web        who is connected, to which endpoint, and what is to end
  portico get connections --limit 20         the first of many, and how many more there are
  portico get svc -f ./k8s                   offline, from manifests";

/// Show objects as kubectl does.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct GetArgs {
    #[command(flatten)]
    scope: ScopeOptions,
    #[command(flatten)]
    options: GetOptions,
}

/// What is shown, and how.
#[derive(Debug, Default, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "kubectl's flags are switches"
)]
pub struct GetOptions {
    /// KIND[,KIND...] [NAME...], or KIND/NAME...
    #[arg(value_name = "KIND")]
    targets: Vec<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with such labels, as in app=web,tier!=db,version in (1,2); the last one counts
    #[arg(short = 'l', long, value_name = "LABELS", overrides_with = "selector")]
    selector: Option<String>,
    /// Only objects with such fields, as in status.phase=Running
    #[arg(long, value_name = "FIELDS", overrides_with = "field_selector")]
    field_selector: Option<String>,
    /// wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-as-json=, jsonpath-file=, custom-columns=HEADER:PATH,...,
    /// custom-columns-file=
    #[arg(short, long, value_name = "FORMAT", overrides_with = "output")]
    output: Option<String>,
    /// Go on with every change
    #[arg(short, long)]
    watch: bool,
    /// Every change, without what is there already
    #[arg(long)]
    watch_only: bool,
    /// With --watch, say what happened: ADDED, MODIFIED, DELETED
    #[arg(long)]
    output_watch_events: bool,
    /// Add a column with all labels
    #[arg(long)]
    show_labels: bool,
    /// Add a column for a label; may be repeated
    #[arg(short = 'L', long, value_name = "KEY", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Leave out the names of the columns
    #[arg(long)]
    no_headers: bool,
    /// Sort by a field, as in .metadata.name
    #[arg(long, value_name = "JSONPATH", overrides_with = "sort_by")]
    sort_by: Option<String>,
    /// Show names as kind/name
    #[arg(long)]
    show_kind: bool,
    /// What does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// At most so many objects (of each kind in tables); how many there are beyond is said on standard error
    #[arg(long, value_name = "N", conflicts_with_all = ["watch", "watch_only"], overrides_with = "limit")]
    limit: Option<NonZeroUsize>,
}

/// Where objects come from.
pub trait Objects {
    /// All objects of `resource`, of one namespace or of all.
    ///
    /// # Errors
    /// They cannot be had.
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>>;

    /// All objects, and then every change.
    ///
    /// # Errors
    /// They cannot be had.
    fn watch<'a>(
        &'a self,
        resource: Resource,
        namespace: Option<&'a str>,
    ) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<WatchEvent>> + 'a>>;
}

impl Objects for Cluster {
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        Self::list(self, resource, namespace)
    }

    fn watch<'a>(
        &'a self,
        resource: Resource,
        namespace: Option<&'a str>,
    ) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<WatchEvent>> + 'a>> {
        Ok(Box::new(Self::watch(self, resource, namespace)?))
    }
}

/// Where the output goes, and what time it is.
pub struct Terminal<'t> {
    /// Standard output.
    pub out: &'t mut dyn Write,
    /// Standard error.
    pub err: &'t mut dyn Write,
    /// The clock behind ages.
    pub now: fn() -> Timestamp,
}

impl Terminal<'_> {
    /// Writes all of `text` at once, so that rows come as they happen.
    fn put(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// The command.
///
/// # Errors
/// What kubectl would say, or no program runs under this instance name.
pub fn run(args: &GetArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    // What is wrong with the arguments is said before anything is asked for.
    let request = Request::new(&args.options, &args.scope)?;
    let cluster = Cluster::new(&args.scope, instance)?;
    if args.options.watch || args.options.watch_only {
        say::end_with_reader();
    }
    let mut terminal = Terminal {
        out: &mut io::stdout().lock(),
        err: &mut io::stderr().lock(),
        now: clock::now,
    };
    request.run(&cluster, &mut terminal)?;
    Ok(ExitCode::SUCCESS)
}

/// As [`run`], with objects from anywhere.
///
/// # Errors
/// As for [`run`].
pub fn run_with(
    args: &GetArgs,
    objects: &impl Objects,
    terminal: &mut Terminal<'_>,
) -> anyhow::Result<()> {
    Request::new(&args.options, &args.scope)?.run(objects, terminal)
}

#[cfg(test)]
mod tests;
