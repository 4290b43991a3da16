//! `portico validate`: every problem of some manifests, and an exit code for scripts. Owns reading the paths and
//! printing; what is a problem is decided where manifests are loaded.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use ipnet::IpNet;
use portico_core::{
    object::diagnostic::{Diagnostic, Severity},
    world::{Shard, SourceView},
};

use crate::{
    app,
    settings::InstanceOptions,
    source::{
        manifest::{self, ManifestSettings, Strictness},
        render::render,
        walk,
    },
    telemetry,
    words::counted,
};

/// What standard input is called in findings.
const STDIN: &str = "<stdin>";

/// Check manifests as the API server would, without a cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ValidateArgs {
    /// Files, folders (recursively), or - for standard input.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<String>,
    /// Namespace of objects that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Treat warnings, unknown fields among them, as errors.
    #[arg(long)]
    pub strict: bool,
    /// Range of IPv6 cluster IPs; without one a Service that asks for IPv6 is invalid.
    #[arg(long, env = "PORTICO_SERVICE_CIDR_V6", value_name = "CIDR")]
    pub service_cidr_v6: Option<IpNet>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people: findings with their source lines, and a summary.
    Text,
    /// One JSON object.
    Json,
}

/// Prints the report on standard output. Exit code 0 when everything is good, else 1.
///
/// # Errors
/// When the report cannot be written.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    run_with(args, |_| Vec::new())
}

/// The command: the files by themselves, then all objects together as they would be served.
///
/// # Errors
/// When the report cannot be written.
pub fn command(args: &ValidateArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let mut failed = None;
    let code = run_with(args, |view| {
        let checked =
            app::check_together(view.clone(), args.strict, args.service_cidr_v6, instance);
        checked.unwrap_or_else(|error| {
            failed = Some(error);
            Vec::new()
        })
    })?;
    failed.map_or(Ok(code), Err)
}

/// As [`run`], with a check of all objects together (addresses and names that are claimed twice), whose findings
/// join those of the files.
///
/// # Errors
/// When the report cannot be written.
pub fn run_with(
    args: &ValidateArgs,
    check_together: impl FnOnce(&SourceView) -> Vec<Diagnostic>,
) -> anyhow::Result<ExitCode> {
    let mut report = Report::read(args, &mut io::stdin().lock());
    let findings = check_together(&report.view);
    report.findings.extend(findings);
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => {
            let colour = telemetry::wants_colour(&out);
            report.print_text(&mut out, colour)?;
        }
        Output::Json => report.print_json(&mut out)?,
    }
    out.flush()?;
    Ok(if report.is_valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything that was read and found.
#[derive(Debug, Default)]
struct Report {
    view: SourceView,
    findings: Vec<Diagnostic>,
    inert: BTreeMap<Arc<str>, usize>,
    /// Texts by file, for the source lines.
    texts: BTreeMap<Arc<str>, String>,
}

impl Report {
    fn read(args: &ValidateArgs, stdin: &mut impl Read) -> Self {
        let strictness = if args.strict {
            Strictness::Strict
        } else {
            Strictness::Lenient
        };
        let settings = ManifestSettings {
            namespace: args.namespace.as_str().into(),
            strictness,
        };
        let mut report = Self::default();
        for path in &args.paths {
            if path == "-" {
                let mut text = String::new();
                let result = stdin.read_to_string(&mut text).map(|_| text);
                report.file(STDIN.into(), result, &settings);
                continue;
            }
            match walk::manifest_files(Path::new(path)) {
                Ok(files) => {
                    for file in files {
                        let text = fs::read_to_string(&file);
                        report.file(file.to_string_lossy().into(), text, &settings);
                    }
                }
                Err(error) => report.unreadable(path.as_str().into(), &error),
            }
        }
        report
    }

    /// Takes one file, unless it was named before.
    fn file(&mut self, name: Arc<str>, text: io::Result<String>, settings: &ManifestSettings) {
        if self.view.shards.contains_key(&name) {
            return;
        }
        match text {
            Ok(text) => {
                let loaded = manifest::load(&name, &text, settings, None);
                for (kind, count) in loaded.inert {
                    *self.inert.entry(kind).or_default() += count;
                }
                self.findings
                    .extend(loaded.shard.diagnostics.iter().cloned());
                self.view
                    .shards
                    .insert(Arc::clone(&name), Arc::new(loaded.shard));
                self.texts.insert(name, text);
            }
            Err(error) => self.unreadable(name, &error),
        }
    }

    fn unreadable(&mut self, name: Arc<str>, error: &io::Error) {
        self.findings.push(Diagnostic {
            file: Arc::clone(&name),
            position: None,
            severity: Severity::Error,
            object: None,
            path: String::new(),
            message: format!("cannot read: {error}"),
        });
        self.view.shards.insert(name, Arc::new(Shard::default()));
    }

    fn is_valid(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    fn objects(&self) -> usize {
        self.view
            .shards
            .values()
            .map(|shard| shard.objects.len())
            .sum()
    }

    fn print_text(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        for finding in &self.findings {
            let text = self.texts.get(&finding.file).map(String::as_str);
            out.write_all(render(finding, text, colour).as_bytes())?;
        }
        for (kind, count) in &self.inert {
            let (objects, are, them) = if *count == 1 {
                ("object", "is", "it")
            } else {
                ("objects", "are", "them")
            };
            writeln!(
                out,
                "{kind}: {count} {objects} {are} kept but nothing acts on {them}"
            )?;
        }
        let verdict = if self.is_valid() { "valid" } else { "invalid" };
        let objects = counted(self.objects(), "good object");
        let files = counted(self.view.shards.len(), "file");
        let errors = counted(self.count(Severity::Error), "error");
        let warnings = counted(self.count(Severity::Warning), "warning");
        writeln!(out, "{verdict}: {objects} in {files}, {errors}, {warnings}")
    }

    fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        let diagnostics: Vec<_> = self.findings.iter().map(json_of).collect();
        let report = serde_json::json!({
            "valid": self.is_valid(),
            "diagnostics": diagnostics,
            "objects": self.objects(),
            "inert": &self.inert,
        });
        writeln!(out, "{report}")
    }
}

/// All fields are always there, so that scripts need not ask.
fn json_of(finding: &Diagnostic) -> serde_json::Value {
    serde_json::json!({
        "file": &*finding.file,
        "line": finding.position.map(|position| position.line),
        "column": finding.position.map(|position| position.column),
        "severity": finding.severity,
        "object": finding.object,
        "path": finding.path,
        "message": finding.message,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ValidateArgs,
    }

    const GOOD: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
    const CONFIG_MAP: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    const UNKNOWN: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {portz: 1, ports: [{port: 80}]}\n";

    fn report(arguments: &[&str], stdin: &str) -> Report {
        let arguments = ["validate"].iter().chain(arguments);
        Report::read(
            &Cli::try_parse_from(arguments).unwrap().args,
            &mut stdin.as_bytes(),
        )
    }

    fn text_of(report: &Report) -> String {
        let mut out = Vec::new();
        report.print_text(&mut out, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn validate_of_good_input_is_valid_and_names_inert_kinds() {
        let report = report(&["-"], &format!("{GOOD}{CONFIG_MAP}"));
        assert!(report.is_valid());
        let expected = "ConfigMap: 1 object is kept but nothing acts on it\n\
                        valid: 1 good object in 1 file, 0 errors, 0 warnings\n";
        assert_eq!(text_of(&report), expected);
    }

    #[test]
    fn validate_of_an_unknown_field_is_invalid_only_when_strict() {
        let input = format!("{GOOD}{UNKNOWN}");
        assert!(report(&["-"], &input).is_valid());
        let strict = report(&["-", "--strict"], &input);
        assert!(!strict.is_valid());
        assert_eq!(strict.objects(), 1);
        assert!(text_of(&strict).starts_with(
            "<stdin>:9:8: spec.portz: unknown field \"portz\", did you mean \"ports\"?"
        ));
    }

    #[test]
    fn validate_as_json_carries_every_field() {
        let report = report(&["-", "-n", "shop", "-o", "json"], UNKNOWN);
        let mut out = Vec::new();
        report.print_json(&mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "valid": true,
            "objects": 1,
            "inert": {},
            "diagnostics": [{
                "file": "<stdin>", "line": 5, "column": 8, "severity": "warning", "object": "Service shop/b",
                "path": "spec.portz", "message": "unknown field \"portz\", did you mean \"ports\"?",
            }],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn validate_of_a_missing_path_says_so_and_reads_the_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
        fs::write(folder.path().join("b.yaml"), [0xff, 0xfe]).unwrap();
        let missing = folder.path().join("missing");
        let report = report(
            &[missing.to_str().unwrap(), folder.path().to_str().unwrap()],
            "",
        );
        assert_eq!(report.objects(), 1);
        assert_eq!(report.count(Severity::Error), 2);
        assert!(text_of(&report).contains("missing: cannot read: "));
    }

    #[test]
    fn validate_of_a_file_named_twice_reads_it_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, GOOD).unwrap();
        let report = report(
            &[path.to_str().unwrap(), folder.path().to_str().unwrap()],
            "",
        );
        assert_eq!(report.objects(), 1);
    }
}
