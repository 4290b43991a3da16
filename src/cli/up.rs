//! `portico up`: runs until interrupted and says what happens. Owns what is printed and the signals; the work is the
//! app's, the words are the printer's.

mod drain;
mod printer;
mod service;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use drain::DrainReporter;
use portico_dataplane::{InheritedKind, Unused};
use printer::Printer;
use service::Service;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{map, say};
use crate::{
    app::{self, App, AppSettings, Happening},
    control::status::Status,
    host::routes::left as left_routes,
    notify,
    privilege::{self, Kept},
    settings::{InstanceOptions, UpOptions},
    telemetry,
};

/// Arguments of `portico up`.
#[derive(Debug, Args)]
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
pub fn run(args: UpArgs, mut instance: InstanceOptions) -> anyhow::Result<ExitCode> {
    // First of all: their numbers are free for anything else otherwise.
    let inherited = Arc::new(notify::inherited());
    telemetry::start(&args.options.log_level, args.options.log_format);
    become_user(&args.options, &args.paths, &mut instance)?;
    let mapped = map::manifests(&args.options.map)?;
    let settings = AppSettings {
        paths: args.paths,
        mapped,
        up: args.options,
        instance,
        inherited,
    };
    runtime()?.block_on(async {
        let app = app::start(&settings)?;
        serve(app, &settings, &|_| String::new()).await
    })
}

/// Becomes `--user`. Must be called before there is a second thread.
///
/// # Errors
/// We are not root, or a folder cannot be the user's.
pub fn become_user(
    options: &UpOptions,
    paths: &[PathBuf],
    instance: &mut InstanceOptions,
) -> anyhow::Result<()> {
    let Some(account) = &options.user else {
        return Ok(());
    };
    privilege::check(account)?;
    let given = [&instance.runtime_dir, &instance.state_dir];
    for folder in given.into_iter().flatten() {
        privilege::hand_over(folder, account)?;
    }
    if instance.state_dir.is_none() {
        // The environment is root's.
        instance.state_dir = Some(privilege::state_dir(account, &instance.instance)?);
    }
    privilege::become_user(account)?;
    // Read as that user, who has no capability in effect: what it may not read is said by the start.
    let kept = Kept {
        // Also to remove those of a run that was killed.
        routes: options.cluster.wants_routes() || !left_routes().is_empty(),
        sources: app::keeps_sources(paths, &options.manifests),
    };
    privilege::keep(kept)?;
    tracing::info!(
        user = account.name,
        uid = account.uid,
        ?kept,
        "no longer root"
    );
    Ok(())
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
    let mut service = Service::new(&app);
    let mut left = DrainReporter::default();
    let patience = tokio::time::sleep(PODS_PATIENCE);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Received::Reload => {
                    service.reloading();
                    app.reload().await;
                }
                Received::End => {
                    service.stopping();
                    say_end(&app, settings.up.drain_timeout);
                    app.stop();
                    left.begin();
                }
            },
            happening = app.next() => match happening? {
                Happening::Ended(report) => return Ok(ended(report)),
                Happening::Notice(notice) => {
                    let was_ready = printer.is_ready();
                    printer.notice(&app, &notice).await;
                    service.notice(&app, notice.files);
                    if !was_ready && printer.is_ready() {
                        first_ready(&app, settings, &mut service);
                    }
                }
            },
            () = &mut patience, if !printer.is_ready() => {
                printer.ready(&app).await;
                first_ready(&app, settings, &mut service);
            }
            () = left.due() => {
                if let Some(report) = left.report(&app.data_path.connections()) {
                    say::error_line(report);
                }
            }
            () = service.run() => {}
        }
    }
}

/// The first time that everything is as it should be.
fn first_ready(app: &App, settings: &AppSettings, service: &mut Service) {
    let dns = app.published.load().cluster.dns_address;
    for unused in settings.inherited.unused() {
        say::error_line(format!("warning: {}", idle(&unused, dns)));
    }
    service.ready(app);
}

/// An inherited socket that nothing uses, and what it could serve.
fn idle(unused: &Unused, dns: IpAddr) -> String {
    let name = &unused.name;
    match unused.socket {
        None => format!(
            "inherited '{name}' is neither a listening TCP socket nor a UDP one: it is not used"
        ),
        Some((InheritedKind::Udp, addr)) => format!(
            "inherited socket '{name}' (UDP {addr}) is not used: UDP is for DNS, which is asked at {dns}:53 or where \
             --dns-listen says"
        ),
        Some((InheritedKind::Tcp, addr)) if addr.ip().is_unspecified() => format!(
            "inherited socket '{name}' (TCP {addr}) is not used yet: it would serve any Service with port or nodePort {}",
            addr.port()
        ),
        Some((InheritedKind::Tcp, addr)) => format!(
            "inherited socket '{name}' (TCP {addr}) is not used yet: it would serve a Service with address {} and \
             port {}, or DNS with --dns-listen {addr}",
            addr.ip(),
            addr.port()
        ),
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
