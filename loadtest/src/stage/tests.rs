//! What a stage starts ends with it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, Read as _},
    path::Path,
};

use super::*;
use crate::{compare, figure::Figure};

/// Held while portico runs: its instance and addresses are one of each for a process of tests.
pub(crate) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Processes whose arguments name a folder of a stage, and that this program started.
fn started() -> BTreeSet<String> {
    let mine = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(')').map(|(_, behind)| behind.to_owned());
        let parent = behind.and_then(|behind| behind.split(' ').nth(2).map(str::to_owned));
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == Some(mine.clone()) && String::from_utf8_lossy(&arguments).contains("/loadtest-")
    })
    .collect()
}

fn scenario(name: &str) -> Scenario {
    let mut scenario = Scenario::read(&crate::scenario::file(name)).unwrap();
    scenario.rounds = 1;
    scenario.seconds = 0.1;
    scenario
}

/// The program of the same build, if there is one: a test of this package alone does not build it.
pub(crate) fn programs() -> Option<Programs> {
    let here = std::env::current_exe().unwrap();
    let portico = here
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("portico");
    Programs::find(&portico).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn stage_of_a_short_run_measures_and_leaves_no_process() {
    let Some(programs) = programs() else {
        eprintln!("skipped: `cargo build` has not built portico beside this test");
        return;
    };
    let _alone = ALONE.lock().await;
    let mut scenario = scenario("even-tcp");
    scenario.contestants = vec![Contestant::Portico];
    scenario.bars.clear();
    let result = compare::measure(scenario, &programs).await.unwrap();
    let portico = &result.summary.medians[&Contestant::Portico];
    assert!(portico[&Figure::ConnectionsPerSecond].median > 0.0);
    assert!(portico[&Figure::Spread].median <= 1.0, "{result:?}");
    assert!(portico[&Figure::Failed].median < 1.0, "{result:?}");
    assert_eq!(started(), BTreeSet::new());
}

#[test]
fn bound_program_ends_when_its_parent_is_killed() {
    let mut program = bound("sleep");
    program.arg("300");
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut parent = std::process::Command::new("sh")
        .args(["-c", &format!("{} & echo $!; wait", words.join(" "))])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(parent.stdout.take().unwrap());
    let mut pid = String::new();
    said.read_line(&mut pid).unwrap();
    let name = || fs::read_to_string(format!("/proc/{}/comm", pid.trim()));
    let deadline = Instant::now() + PATIENCE;
    while name().unwrap().trim() != "sleep" {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The other end of the pipe is the program's alone now.
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(Instant::now() < deadline);
}

#[tokio::test]
async fn running_group_ends_with_the_value_children_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bound("sh");
    command.args(["-c", "sleep 300 & sleep 300"]);
    let running = Running::start(&mut command, &folder.path().join("log")).unwrap();
    let group = running.group();
    assert!(!usage::pids(group).unwrap().is_empty());
    drop(running);
    // The kernel needs a moment for what is not our child.
    let deadline = Instant::now() + PATIENCE;
    while usage::pids(group).is_ok() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
