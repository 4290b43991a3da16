//! `portico resolve`: asks the running program, or files, what a name leads to. Owns its arguments and the form of
//! its output; must not know how the program is reached nor how files become a Snapshot.

mod trace;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use portico_core::{
    dns::{Name, RecordType, search_list},
    snapshot::Snapshot,
};

use crate::{
    admin::client,
    app, dns,
    settings::{ClusterOptions, InstanceOptions, ManifestOptions},
};

/// Show what a name resolves to
#[derive(Debug, Clone, clap::Args)]
pub struct ResolveArgs {
    /// Name to resolve, as an application would write it: `echo`, `echo.default`, `echo.default.svc.cluster.local`;
    /// an address asks for its names
    pub name: String,
    /// Record type, such as A, AAAA, SRV, PTR or ANY [default: A, for an address PTR]
    #[arg(value_name = "TYPE")]
    pub rtype: Option<String>,
    /// Walk the search list of a pod in the namespace (`-n`) step by step: each candidate, what is said to it, which one wins
    #[arg(long)]
    pub trace: bool,
    /// Answer from this file or folder of manifests instead of asking the running program
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ResolveOutput,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub manifests: ManifestOptions,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub cluster: ClusterOptions,
}

/// Answers from the running program, or from manifests.
struct Program<'a> {
    args: &'a ResolveArgs,
    instance: &'a InstanceOptions,
}

impl Answerer for Program<'_> {
    fn compile(&self, path: &std::path::Path) -> anyhow::Result<Snapshot> {
        let paths = [path.to_owned()];
        Ok(app::offline(
            &paths,
            &self.args.manifests,
            &self.args.cluster,
            self.instance,
        )?
        .1)
    }

    fn ask(&self, name: &str, rtype: &str) -> anyhow::Result<serde_json::Value> {
        // Names that parsed have no byte here that a query string would need escaped, but for these two.
        let name = name.replace('\\', "%5C").replace('#', "%23");
        let body = client::get(
            self.instance,
            &format!("/v1/resolve?name={name}&type={rtype}"),
        )?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// The command: resolves and prints.
///
/// # Errors
/// The question cannot be read, nobody answers, or the files cannot be read.
pub fn command(args: &ResolveArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    run(args, &Program { args, instance }, &mut io::stdout().lock())
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ResolveOutput {
    /// Lines of records
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Where answers come from.
pub trait Answerer {
    /// The Snapshot of the manifests at `path`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn compile(&self, path: &std::path::Path) -> anyhow::Result<Snapshot>;

    /// What the running program answers: the JSON form of [`dns::answer_json`].
    ///
    /// # Errors
    /// If it cannot be reached.
    fn ask(&self, name: &str, rtype: &str) -> anyhow::Result<serde_json::Value>;
}

/// Resolves and prints; the code is 0 if records were found, else 1.
///
/// # Errors
/// If the question cannot be read, put, or its answer printed.
pub fn run(
    args: &ResolveArgs,
    answerer: &impl Answerer,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let (name, rtype) = dns::parse_question(&args.name, args.rtype.as_deref())?;
    let snapshot = args.file.as_ref();
    let snapshot = snapshot.map(|path| answerer.compile(path)).transpose()?;
    let ask = |name: Name, rtype: RecordType| match &snapshot {
        Some(snapshot) => Ok(dns::answer_offline(snapshot, name, rtype)?),
        None => answerer.ask(&name.to_string(), &rtype.to_string()),
    };
    if args.trace {
        let domain = args.cluster.cluster_domain.first();
        let domain = domain.map_or("", |domain| domain.trim_matches('.'));
        let search = search_list(&args.manifests.namespace, domain).to_vec();
        return trace::run((&args.name, rtype), search, &ask, (args.output, out));
    }
    let answer = ask(name, rtype)?;
    let is_found = write_value(&answer, args.output, out)?;
    Ok(if is_found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes `answer`, which both ways lead to as JSON; returns whether records were found.
fn write_value(
    answer: &serde_json::Value,
    output: ResolveOutput,
    out: &mut impl Write,
) -> io::Result<bool> {
    let records = section(answer, "answers");
    let rcode = text(answer, "rcode");
    if output == ResolveOutput::Json {
        serde_json::to_writer(&mut *out, answer)?;
        writeln!(out)?;
    } else {
        for record in records {
            let ttl = record
                .get("ttl")
                .and_then(serde_json::Value::as_u64)
                .unwrap_or_default();
            let (name, rtype, data) = (
                text(record, "name"),
                text(record, "type"),
                text(record, "data"),
            );
            writeln!(out, "{name} {ttl} IN {rtype} {data}")?;
        }
        match (rcode, records) {
            ("NOERROR", []) => writeln!(
                out,
                "NODATA: the name exists, but has no records of this type"
            )?,
            ("NOERROR", _) => {}
            _ => writeln!(out, "{rcode}: {}", explain(answer))?,
        }
        if let Some(meant) = answer.get("didYouMean").and_then(serde_json::Value::as_str) {
            writeln!(out, "did you mean {meant}?")?;
        }
    }
    Ok(rcode == "NOERROR" && !records.is_empty())
}

/// Why there are no records.
fn explain(answer: &serde_json::Value) -> &str {
    let reason = answer.get("reason").and_then(serde_json::Value::as_str);
    let by_others = answer.get("byOthers").is_some();
    let code = text(answer, "rcode");
    reason.unwrap_or(match (code, by_others) {
        ("NXDOMAIN", _) => "the name does not exist",
        ("SERVFAIL", false) => "not known yet: manifests are still being read",
        ("REFUSED", false) => "the name is in none of our zones",
        (_, true) => "so say the DNS servers that portico asks",
        _ => "the question was not answered",
    })
}

fn section<'a>(answer: &'a serde_json::Value, name: &str) -> &'a [serde_json::Value] {
    answer
        .get(name)
        .and_then(serde_json::Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a serde_json::Value, field: &str) -> &'a str {
    value
        .get(field)
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
