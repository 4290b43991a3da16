//! The project's own commands. Owns what `cargo xtask NAME` means; a check that compilers and linters can do
//! belongs to them, not here.

mod conformance;
mod steps;
mod tidy;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};

use steps::Step;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test [ARGS]   every test of the workspace; ARGS go to `cargo test`
  tidy          the house rules that no linter knows
  conformance   runs the tests of Kubernetes' demands and writes docs/conformance.md; with --check only compares it with
                the tests that there are
  ci            format, lints, tidy, tests, conformance, docs, release build, and the release build's proof of itself";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let root = root()?;
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    match command.to_string_lossy().as_ref() {
        "test" => steps::run_all(vec![steps::test(&root, &rest)]),
        "tidy" => steps::run_all(vec![tidy_step(&root)]),
        "conformance" => steps::run_all(vec![conformance_step(&root, &rest)?]),
        "ci" => steps::run_all(ci(&root)),
        "" | "-h" | "--help" | "help" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown command '{other}'\n\n{USAGE}"),
    }
}

/// The folder of the workspace: the one above this package. Cargo says where that is when it runs us, which holds also
/// where several checkouts share a target folder.
fn root() -> anyhow::Result<PathBuf> {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    let root = package
        .parent()
        .context("the package has no folder above it")?;
    if !root.join("Cargo.toml").is_file() {
        bail!(
            "{} has no Cargo.toml: run me by `cargo xtask`",
            root.display()
        );
    }
    Ok(root.to_owned())
}

fn tidy_step(root: &Path) -> Step {
    let root = root.to_owned();
    Step::check("tidy", move || tidy::run(&root))
}

/// Writes the document, or with `--check` compares it.
fn conformance_step(root: &Path, arguments: &[OsString]) -> anyhow::Result<Step> {
    match arguments {
        [] => {
            let root = root.to_owned();
            Ok(Step::check("conformance", move || {
                conformance::write(&root)
            }))
        }
        [only] if only == "--check" => Ok(conformance_check(root)),
        _ => bail!("conformance takes --check or nothing\n\n{USAGE}"),
    }
}

fn conformance_check(root: &Path) -> Step {
    let root = root.to_owned();
    Step::check("conformance", move || conformance::check(&root))
}

/// Everything that must hold before a change is good, cheapest first.
fn ci(root: &Path) -> Vec<Step> {
    vec![
        steps::cargo(root, "format", &["fmt", "--all", "--check"]),
        tidy_step(root),
        steps::cargo(
            root,
            "lints",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        steps::test(root, &[]),
        conformance_check(root),
        steps::cargo(root, "docs", &["doc", "--workspace", "--no-deps"])
            .with_env("RUSTDOCFLAGS", "-D warnings"),
        steps::cargo(root, "release build", &["build", "--release"]),
        steps::demo(root),
    ]
}
