//! `portico up`: runs until interrupted and says what happens. Owns what is printed and the signals; the work is the
//! app's, the words are the printer's.

mod printer;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use printer::Printer;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{map, say};
use crate::{
    app::{self, App, AppSettings, Happening},
    control::status::Status,
    settings::{InstanceOptions, UpOptions},
    telemetry,
};

/// Arguments of `portico up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  portico up ./k8s\n  portico up --simulate service.yaml deployment.yaml\n  helm template . | portico up -"
)]
pub struct UpArgs {
    /// Files, folders (with all below them), or `-` for standard input
    #[arg(required_unless_present = "map", value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    options: UpOptions,
}

/// Runs until a signal.
///
/// # Errors
/// What keeps the program from starting.
pub fn run(args: UpArgs, instance: InstanceOptions) -> anyhow::Result<ExitCode> {
    telemetry::start(&args.options.log_level, args.options.log_format);
    let mapped = map::manifests(&args.options.map)?;
    let settings = AppSettings {
        paths: args.paths,
        mapped,
        up: args.options,
        instance,
    };
    runtime()?.block_on(async {
        let app = app::start(&settings)?;
        serve(app, &settings, &|_| String::new()).await
    })
}

/// The runtime of the control side: apart from the data path's workers.
///
/// # Errors
/// The system gives no thread.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
}

/// How long the first table waits for simulated pods to come up.
const PODS_PATIENCE: Duration = Duration::from_secs(3);

/// What to print once everything is ready.
pub type Hint<'a> = &'a (dyn Fn(&Status) -> String + Sync);

/// Prints what happens until a signal ends the program. `hint` is printed once everything is ready.
///
/// # Errors
/// A part failed unasked.
pub async fn serve(
    mut app: App,
    settings: &AppSettings,
    hint: Hint<'_>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut printer = Printer::new(settings, hint);
    let patience = tokio::time::sleep(PODS_PATIENCE);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Received::Reload => app.reload().await,
                Received::End => {
                    say_end(&app, settings.up.drain_timeout);
                    app.stop();
                }
            },
            happening = app.next() => match happening? {
                Happening::Ended(report) => return Ok(ended(report)),
                Happening::Notice(notice) => printer.notice(&app, &notice).await,
            },
            () = &mut patience, if !printer.is_ready() => {
                printer.ready(&app).await;
            }
        }
    }
}

fn say_end(app: &App, time: Duration) {
    if app.is_stopping() {
        say::error_line("ending now");
    } else if !time.is_zero() {
        say::error_line(format!(
            "stopping: connections may finish for {time:?}; a second signal ends at once"
        ));
    }
}

fn ended(report: portico_dataplane::DrainReport) -> ExitCode {
    if report.cut > 0 {
        let noun = if report.cut == 1 {
            "connection was"
        } else {
            "connections were"
        };
        say::error_line(format!(
            "{} {noun} still open when the time was over: closed",
            report.cut
        ));
    }
    ExitCode::SUCCESS
}

enum Received {
    Reload,
    End,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// # Cancel safety
    /// Cancel safe: a signal that was not taken is delivered by the next call.
    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::End,
            _ = self.interrupt.recv() => Received::End,
            _ = self.hangup.recv() => Received::Reload,
        }
    }
}
