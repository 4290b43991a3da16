//! Steps: what is run, in which order, and how long each took. Owns the report; a step's meaning is its command's.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// One step with its name.
pub(crate) struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    Command(Command),
    Check(Box<dyn Fn() -> anyhow::Result<()>>),
    /// The release build's proof of itself: the program, and the folder that is its own for the time.
    Demo(PathBuf, PathBuf),
}

impl Step {
    /// A step that is a function of ours.
    pub(crate) fn check(
        name: &'static str,
        check: impl Fn() -> anyhow::Result<()> + 'static,
    ) -> Self {
        Self {
            name,
            work: Work::Check(Box::new(check)),
        }
    }

    /// Sets an environment variable of a command; other steps have no environment of their own.
    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        if let Work::Command(command) = &mut self.work {
            command.env(name, value);
        }
        self
    }

    fn run(self) -> anyhow::Result<()> {
        match self.work {
            Work::Command(command) => succeed(command),
            Work::Check(check) => check(),
            Work::Demo(program, folder) => {
                for part in ["state", "run"] {
                    private_folder(&folder.join(part))?;
                }
                let outcome = succeed(demo_command(&program, &folder));
                let _ = std::fs::remove_dir_all(&folder);
                outcome
            }
        }
    }
}

/// A call of cargo in the folder of the workspace.
pub(crate) fn cargo(root: &Path, name: &'static str, arguments: &[&str]) -> Step {
    Step {
        name,
        work: Work::Command(cargo_command(root, arguments)),
    }
}

/// All tests; plain `cargo test`, so that a fresh machine needs nothing else.
pub(crate) fn test(root: &Path, arguments: &[OsString]) -> Step {
    let mut command = cargo_command(root, &["test", "--workspace"]);
    command.args(arguments);
    Step {
        name: "tests",
        work: Work::Command(command),
    }
}

/// `portico demo --check` of the release build. Under an instance name of its own, so that it does not meet a portico
/// that the developer has running.
pub(crate) fn demo(root: &Path) -> Step {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = std::env::temp_dir().join(format!("portico-ci-{}", std::process::id()));
    Step {
        name: "demo --check",
        work: Work::Demo(target.join("release/portico"), folder),
    }
}

fn cargo_command(root: &Path, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

fn demo_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["demo", "--check", "--instance"])
        .arg(format!("ci-{}", std::process::id()));
    command
        .arg("--state-dir")
        .arg(folder.join("state"))
        .arg("--runtime-dir")
        .arg(folder.join("run"));
    command.stdin(Stdio::null());
    command
}

/// Makes a folder that only we may enter, which the program insists on.
fn private_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))
}

fn succeed(mut command: Command) -> anyhow::Result<()> {
    let line = shown(&command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// Runs steps until one fails, and tells how long each took.
///
/// # Errors
/// None; a failing step is the exit code.
pub(crate) fn run_all(steps: Vec<Step>) -> anyhow::Result<ExitCode> {
    let mut report = String::new();
    let began = Instant::now();
    let mut failed = false;
    for step in steps {
        let name = step.name;
        println!("==> {name}");
        let step_began = Instant::now();
        let outcome = step.run();
        let took = seconds(step_began.elapsed());
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("<== {name}: {verdict}, {took}");
        writeln!(report, "{took:>9}  {verdict:<6}  {name}")?;
        if let Err(error) = outcome {
            eprintln!("{name}: {error:#}");
            failed = true;
            break;
        }
    }
    print!(
        "\n{report}{:>9}  {}\n",
        seconds(began.elapsed()),
        if failed { "FAILED" } else { "all ok" }
    );
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
