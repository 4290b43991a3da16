//! `portico settings`: what `portico up` would run with, and who says so. Owns the layout.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::say;
use crate::settings::{Origin, Parsed, Setting, UpOptions};

/// Arguments of `portico settings`.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// How to print them
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    _options: UpOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A table for people; warnings go to standard error.
    Text,
    /// One object with settings and warnings.
    Json,
}

/// Prints them.
///
/// # Errors
/// None of its own.
pub fn run(args: &SettingsArgs, parsed: &Parsed) -> anyhow::Result<ExitCode> {
    let settings = parsed.settings();
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&rendered(
            &settings,
            &parsed.warnings,
        ))?),
        Format::Text => {
            say::text(table(&settings));
            for warning in &parsed.warnings {
                say::error_line(format!("warning: {warning}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rendered(settings: &[Setting], warnings: &[String]) -> Value {
    let settings: Vec<Value> = settings.iter().map(one).collect();
    json!({ "settings": settings, "warnings": warnings })
}

fn one(setting: &Setting) -> Value {
    let value = match setting.values.as_slice() {
        values if setting.is_list => json!(values),
        [] => Value::Null,
        [value, ..] => json!(value),
    };
    let mut object =
        json!({ "name": setting.name, "value": value, "origin": setting.origin.word() });
    let fields = object.as_object_mut();
    if let Some(fields) = fields {
        match &setting.origin {
            Origin::Flag(_) | Origin::Default => {}
            Origin::Environment(variable) => {
                fields.insert("variable".into(), json!(variable));
            }
            Origin::File(file, line) => {
                fields.insert("file".into(), json!(file.display().to_string()));
                fields.insert("line".into(), json!(line));
            }
        }
    }
    object
}

fn table(settings: &[Setting]) -> String {
    let mut rows = vec![[
        "SETTING".to_owned(),
        "VALUE".to_owned(),
        "ORIGIN".to_owned(),
    ]];
    rows.extend(settings.iter().map(|setting| {
        let value = match setting.values.join(",") {
            value if value.is_empty() => "-".to_owned(),
            value => value,
        };
        [setting.name.clone(), value, setting.origin.to_string()]
    }));
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let (first, second) = (width(0), width(1));
    let lines = rows
        .iter()
        .map(|[name, value, origin]| format!("{name:first$}   {value:second$}   {origin}\n"));
    lines.collect()
}
