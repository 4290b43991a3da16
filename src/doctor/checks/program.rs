//! Whether a program runs under this instance's name, and what a killed one left. Owns no way in itself.

use super::super::{
    Finding,
    facts::{Facts, Program},
};

/// The running program.
pub(in super::super) fn program(facts: &Facts) -> Finding {
    const CHECK: &str = "program";
    let instance = &facts.instance;
    match &facts.program {
        Program::Running(status) if status.version != facts.version => Finding::warn(
            CHECK,
            format!(
                "portico {} runs as instance '{instance}' (pid {}), and this is {}",
                status.version, status.pid, facts.version
            ),
        )
        .fix("start it again from this file"),
        Program::Running(status) if !status.synced => Finding::warn(
            CHECK,
            format!(
                "runs as instance '{instance}' (pid {}), and has not read all of its manifests yet",
                status.pid
            ),
        )
        .fix("portico status"),
        Program::Running(status) => Finding::ok(
            CHECK,
            format!(
                "runs as instance '{instance}' (pid {}), {} Services, generation {}",
                status.pid,
                status.services.len(),
                status.generation
            ),
        ),
        Program::Silent(why) => Finding::no(
            CHECK,
            format!("a program runs as instance '{instance}' and cannot be asked: {why}"),
        ),
        Program::Absent | Program::Killed(_) => {
            Finding::warn(CHECK, format!("nothing runs as instance '{instance}'"))
                .fix("portico up FOLDER")
                .fix("portico demo")
        }
    }
}

/// Files and routes of a program that was killed; nothing is said where nothing is left.
pub(in super::super) fn left_over(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "left over";
    let socket = match &facts.program {
        Program::Killed(socket) => Some(Finding::warn(
            CHECK,
            format!(
                "{}: the socket of a program that was killed; the next start removes it",
                socket.display()
            ),
        )),
        _ => None,
    };
    let routes = facts.left_routes.iter().map(|route| {
        Finding::warn(
            CHECK,
            format!("a route of a killed portico: {}", route.text),
        )
        .fix(route.fix.clone())
    });
    socket.into_iter().chain(routes).collect()
}
