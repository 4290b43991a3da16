//! `portico demo`: a small folder of manifests, served with simulated pods, and what to try; or, with `--check`, a
//! proof that every way in is balanced exactly. Owns the folder's content, the check and its verdict.

mod check;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;

use super::{say, up};
use crate::{
    app::{self, AppSettings},
    control::status::Status,
    settings::{InstanceOptions, UpOptions},
    telemetry,
};

/// Arguments of `portico demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder to write the manifests to; files that are there already stay as they are
    /// [default: a fresh one in the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Prove it and exit: 100 connections by ClusterIP, by NodePort and by name; 0 only if each is exactly even
    #[arg(long)]
    check: bool,
    /// With --check: list one pod twice, so that the proof must fail
    #[arg(long, hide = true, requires = "check")]
    heavier: bool,
    #[command(flatten)]
    options: UpOptions,
}

/// The manifests of the demo. Four pods, so that a hundred connections divide evenly.
const FILES: [(&str, &str); 2] = [
    ("web.yaml", include_str!("../../config/demo/web.yaml")),
    ("names.yaml", include_str!("../../config/demo/names.yaml")),
];

/// Runs the demo.
///
/// # Errors
/// What keeps the program from starting, or the folder from being written.
pub fn run(mut args: DemoArgs, mut instance: InstanceOptions) -> anyhow::Result<ExitCode> {
    telemetry::start(&args.options.log_level, args.options.log_format);
    up::become_user(&args.options, &[], &mut instance)?;
    let (folder, temporary) = folder(args.dir.take())?;
    write_files(&folder)?;
    args.options.simulate = true;
    if args.options.cluster.nodeport_addresses.is_empty() {
        // A demo has no business on other people's networks.
        args.options.cluster.nodeport_addresses.push(loopback());
    }
    let settings = AppSettings {
        paths: vec![folder.clone()],
        mapped: String::new(),
        up: args.options,
        instance,
        inherited: std::sync::Arc::default(),
    };
    let outcome = up::runtime()?.block_on(async {
        let app = app::start(&settings)?;
        if args.check {
            check::run(app, &folder, args.heavier).await
        } else {
            say::line(format!("Manifests: {}", folder.display()));
            up::serve(app, &settings, &|status| hint(&folder, status)).await
        }
    });
    if temporary {
        let _ = std::fs::remove_dir_all(&folder);
    }
    outcome
}

fn loopback() -> ipnet::IpNet {
    ipnet::IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]))
}

/// The folder, and whether it goes at the end.
fn folder(asked: Option<PathBuf>) -> anyhow::Result<(PathBuf, bool)> {
    let (folder, temporary) = match asked {
        Some(folder) => (folder, false),
        None => (
            std::env::temp_dir().join(format!("portico-demo-{}", std::process::id())),
            true,
        ),
    };
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok((folder, temporary))
}

fn write_files(folder: &Path) -> anyhow::Result<()> {
    for (name, text) in FILES {
        let file = folder.join(name);
        if !file.exists() {
            std::fs::write(&file, text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

/// What to try, with the addresses as they are.
fn hint(folder: &Path, status: &Status) -> String {
    let portico = std::env::args().next().unwrap_or_else(|| "portico".into());
    let web = status.services.iter().find(|service| service.name == "web");
    let ways = || {
        web.iter()
            .flat_map(|web| &web.ports)
            .flat_map(|port| &port.reachable)
    };
    let way = |kind: &str| {
        ways()
            .filter(|way| way.kind == kind)
            .find_map(|way| way.bound)
    };
    // What is not served is not for trying; the table has said why.
    let lines = [
        way("NodePort").map(|at| {
            format!(
                "for i in 1 2 3 4; do curl -s http://{at}/; done   # by NodePort: four pods in turn"
            )
        }),
        way("ClusterIP").map(|at| format!("curl http://{at}/   # by ClusterIP")),
        status.dns.iter().find_map(|dns| dns.bound).map(|dns| {
            let (ip, port) = (dns.ip(), dns.port());
            format!("dig +short @{ip} -p {port} web.default.svc.cluster.local   # by name")
        }),
        Some(format!("{portico} status")),
        Some(format!("{portico} bench service/web   # is it even?")),
        Some(format!(
            "sed -i 's/replicas: 4/replicas: 6/' {}/web.yaml   # two more pods join, live",
            folder.display()
        )),
    ];
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    format!(
        "Try, in another terminal:\n  {}\nCtrl-C ends it.",
        lines.join("\n  ")
    )
}

/// Whether all of the demo's pods serve.
fn is_complete(status: &Status) -> bool {
    let web = status.services.iter().find(|service| service.name == "web");
    web.and_then(|web| web.ports.first())
        .is_some_and(|port| port.endpoints.len() >= 4)
}
