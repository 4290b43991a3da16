//! `portico doctor`: each way in, whether it works here, and what to type where it does not. Owns arguments, layout and
//! exit status; what is tried and said belongs to [`crate::doctor`].

use std::{
    fmt::Write as _,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::say;
use crate::{
    admin::client,
    app, clock,
    control::status::{self, ListenerReports, Status},
    doctor::{
        self, Facts, Finding, Verdict,
        facts::{Asked, Program},
    },
    settings::{ClusterOptions, InstanceOptions, ManifestOptions},
    telemetry,
};

const AFTER_HELP: &str = "\
Each line says ok, warn (works in part, or another way stands in) or no (does not work), and what was tried. Of several \
fixes one is enough; they are to be typed, nothing is run or changed here. The exit status is 1 if any line says no.";

/// Arguments of `portico doctor`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct DoctorArgs {
    /// Look at the ports of these manifests instead of the running program's; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A line a check, and what to type.
    Text,
    /// The same, for scripts.
    Json,
}

/// `portico doctor`.
///
/// # Errors
/// A path that cannot be read, or an instance name that is none.
pub fn run(args: &DoctorArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let cluster = ClusterOptions::default();
    let asked = Asked {
        instance,
        program: ask(instance),
        declared: declared(&args.filename, &cluster, instance)?,
        node_ports: cluster.service_node_port_range,
    };
    let findings = doctor::examine(&Facts::read(asked, Path::new("/"))?);
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&as_json(&findings))?),
        Format::Text => say::text(text(&findings, telemetry::wants_colour(&io::stdout()))),
    }
    Ok(if count(&findings, Verdict::No) == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the running program says, if one runs.
fn ask(instance: &InstanceOptions) -> Program {
    let asked = client::get(instance, "/v1/status");
    let error = match asked.map(|body| serde_json::from_slice::<Status>(&body)) {
        Ok(Ok(status)) => return Program::Running(Box::new(status)),
        Ok(Err(error)) => return Program::Silent(format!("its status is none: {error}")),
        Err(error) => error,
    };
    let refused = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    match (refused.map(io::Error::kind), client::socket(instance)) {
        (Some(ErrorKind::NotFound), _) => Program::Absent,
        (Some(ErrorKind::ConnectionRefused), Ok(socket)) => Program::Killed(socket),
        _ => Program::Silent(format!("{error:#}")),
    }
}

/// Services of manifests, with where each would be served.
fn declared(
    paths: &[PathBuf],
    cluster: &ClusterOptions,
    instance: &InstanceOptions,
) -> anyhow::Result<Option<Vec<status::ServiceStatus>>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let manifests = ManifestOptions {
        namespace: "default".to_owned(),
        strict: false,
    };
    let offline = app::Offline::read(paths, &manifests, cluster, instance)?;
    let unheard = ListenerReports::new();
    Ok(Some(status::services(
        &offline.snapshot,
        &unheard,
        clock::now(),
    )))
}

fn count(findings: &[Finding], result: Verdict) -> usize {
    let same = findings.iter().filter(|finding| finding.result == result);
    same.count()
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    json!({
        "ok": count(findings, Verdict::Ok),
        "warn": count(findings, Verdict::Warn),
        "no": count(findings, Verdict::No),
        "checks": findings,
    })
}

fn text(findings: &[Finding], in_colour: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = format!("{:<4}", finding.result.word());
        let word = match (in_colour, finding.result) {
            (false, _) => word,
            (true, Verdict::Ok) => format!("\x1b[32m{word}\x1b[0m"),
            (true, Verdict::Warn) => format!("\x1b[33m{word}\x1b[0m"),
            (true, Verdict::No) => format!("\x1b[31m{word}\x1b[0m"),
        };
        let _ = writeln!(text, "{word}  {:<11}  {}", finding.check, finding.text);
        for fix in &finding.fix {
            let _ = writeln!(text, "{:19}fix: {fix}", "");
        }
    }
    let [ok, warn, no] =
        [Verdict::Ok, Verdict::Warn, Verdict::No].map(|result| count(findings, result));
    let _ = writeln!(text, "{ok} ok, {warn} warn, {no} no");
    text
}
