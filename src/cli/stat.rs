//! `portico stat`: what Service ports and their endpoints got, over a time. Owns arguments and requests; the figures are
//! the running program's, the layouts those of `table` and `detail`.

mod detail;
mod figures;
pub(crate) mod table;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Verbatim, say, target};
use crate::{
    admin::{
        client,
        stat::{PortStat, Stat},
    },
    clock,
    objects::Resource,
    settings::InstanceOptions,
};

const AFTER_HELP: &str = "\
RATE and ACTIVE are of connections, of HTTP ports requests, of UDP flows, and so are P50 and P99: how long they lasted.
Examples:
  portico stat                        all Services of the namespace
  portico stat service/web            one in detail: each endpoint's share beside the expected one
  portico stat --mark                 count from now";

/// Arguments of `portico stat`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatArgs {
    /// A Service in detail: NAME or service/NAME; all of them in a table without
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    place: Place,
    /// Over which time: rates are over 10s and shares since the mark, unless this says otherwise
    #[arg(short, long, value_enum)]
    window: Option<WindowName>,
    /// Begin the window `mark` now, for all Services
    #[arg(long, conflicts_with_all = ["service", "window", "output"])]
    mark: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

/// Which namespaces.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Namespace of the Services
    #[arg(
        short,
        long,
        env = "PORTICO_NAMESPACE",
        default_value = "default",
        value_name = "NS"
    )]
    namespace: String,
    /// Services of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// How far back figures reach; never behind the last change of the endpoints where shares are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WindowName {
    /// One second.
    #[value(name = "1s")]
    Second,
    /// Ten seconds.
    #[value(name = "10s")]
    TenSeconds,
    /// One minute.
    #[value(name = "1m")]
    Minute,
    /// Since `portico stat --mark`, else since the last change of the endpoints.
    Mark,
    /// Since the last change of the endpoints.
    Epoch,
}

impl WindowName {
    /// As reports call it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "1s",
            Self::TenSeconds => "10s",
            Self::Minute => "1m",
            Self::Mark => "mark",
            Self::Epoch => "epoch",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// Everything, over every window, in a versioned shape.
    Json,
}

/// The command.
///
/// # Errors
/// No program runs under this instance name, or there is no such Service.
pub fn run(args: &StatArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    if args.mark {
        client::post(instance, "/v1/mark", &Value::Null)?;
        say::line("marked: the window `mark` begins now");
        return Ok(ExitCode::SUCCESS);
    }
    match &args.service {
        Some(service) => one(args, service, instance),
        None => list(args, instance),
    }
}

fn list(args: &StatArgs, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    let detail = match args.output {
        Format::Json => Endpoints::Listed,
        Format::Text => Endpoints::LeftOut,
    };
    let stat = args.place.fetch(instance, detail)?;
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&stat)?),
        Format::Text if stat.ports.is_empty() => say::error_line(args.place.nothing()),
        Format::Text => {
            let windows = table::Windows {
                rates: args.window.unwrap_or(WindowName::TenSeconds),
                shares: args.window.unwrap_or(WindowName::Mark),
            };
            let rows = table::services(&stat.ports, windows, args.place.column());
            say::text(rows.text(usize::MAX));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one(args: &StatArgs, service: &str, instance: &InstanceOptions) -> anyhow::Result<ExitCode> {
    if args.place.all_namespaces {
        let text = "error: a resource cannot be retrieved by name across all namespaces";
        return Err(Verbatim(text.to_owned()).into());
    }
    let name = service_name(service)?;
    let stat = fetch_one(instance, &args.place.namespace, name)?;
    match args.output {
        Format::Json => say::line(serde_json::to_string_pretty(&stat)?),
        Format::Text if stat.ports.is_empty() => {
            let text = format!(
                "error: service \"{name}\" has no address of its own: nothing is forwarded or counted for it"
            );
            return Err(Verbatim(text).into());
        }
        Format::Text => {
            let window = args.window.unwrap_or(WindowName::Mark);
            let ports = stat.ports.iter();
            let texts = ports.map(|port| detail::text(port, window, clock::now()));
            say::text(texts.collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `web`, `service/web`, `svc/web`.
fn service_name(text: &str) -> anyhow::Result<&str> {
    let (kind, name) = text.split_once('/').unwrap_or(("service", text));
    if target::resource(kind)? != Resource::Services {
        return Err(Verbatim(format!("error: {kind}/{name} is no Service")).into());
    }
    // It becomes part of a path; no name of an object has other letters.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Verbatim(Resource::Services.not_found(name)).into());
    }
    Ok(name)
}

fn fetch_one(instance: &InstanceOptions, namespace: &str, name: &str) -> anyhow::Result<Stat> {
    let path = format!("/v1/stat/{namespace}/{name}");
    match client::get(instance, &path) {
        Ok(body) => Ok(serde_json::from_slice(&body)?),
        Err(error) => match error.downcast::<client::Refused>() {
            Ok(refused) if refused.status == 404 => Err(Verbatim(refused.text).into()),
            Ok(refused) => Err(refused.into()),
            Err(error) => Err(error),
        },
    }
}

/// Whether endpoints are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoints {
    Listed,
    LeftOut,
}

impl Place {
    /// What the Services there got.
    pub(crate) fn fetch(
        &self,
        instance: &InstanceOptions,
        endpoints: Endpoints,
    ) -> anyhow::Result<Stat> {
        let endpoints = endpoints == Endpoints::Listed;
        let body = client::get(instance, &format!("/v1/stat?endpoints={endpoints}"))?;
        let mut stat: Stat = serde_json::from_slice(&body)?;
        let is_here = |port: &PortStat| self.all_namespaces || port.namespace == self.namespace;
        stat.ports.retain(is_here);
        Ok(stat)
    }

    /// What to say where there is nothing.
    pub(crate) fn nothing(&self) -> String {
        if self.all_namespaces {
            "No resources found".to_owned()
        } else {
            format!("No resources found in {} namespace.", self.namespace)
        }
    }

    /// Whether tables name the namespace.
    pub(crate) const fn column(&self) -> table::Namespace {
        if self.all_namespaces {
            table::Namespace::Shown
        } else {
            table::Namespace::Hidden
        }
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests;
