//! What bounds a program here (docs/limits.md): files, pipes, watches, ports, queues.

use super::{
    super::{
        Finding,
        facts::{Facts, Program, Services},
    },
    reach::with_fix,
};
use crate::control::status::descriptors_fix;

/// Open files from which on nobody need think of them.
const ENOUGH_FILES: u64 = 4096;
/// Pages of the smallest pipe that is worth its calls, 64 KiB.
const PIPE_PAGES: u64 = 16;
/// Most pipes of a worker.
const PIPES_OF_A_WORKER: u64 = 64;
/// Folders that are watched without a thought.
const ENOUGH_WATCHES: u64 = 1024;
/// The queue that listeners ask for.
const QUEUE: u64 = 4096;

/// Open files (`RLIMIT_NOFILE`).
pub(in super::super) fn files(facts: &Facts) -> Finding {
    const CHECK: &str = "open files";
    if let Program::Running(status) = &facts.program
        && status.beyond_descriptors > 0
    {
        let (beyond, all) = (status.beyond_descriptors, status.listener_count);
        return Finding::no(
            CHECK,
            format!("{beyond} of {all} listeners are not served for want of them"),
        )
        .fix(descriptors_fix(all));
    }
    let limit = facts.limits.open_files;
    if let Services::Declared { all, .. } = facts.services
        && u64::try_from(all).unwrap_or(u64::MAX) > limit / 2
    {
        return Finding::no(
            CHECK,
            format!("{limit}, of which {all} listeners may have half"),
        )
        .fix(descriptors_fix(all));
    }
    if limit < ENOUGH_FILES {
        return Finding::warn(CHECK, format!("{limit} at most; a connection takes two, a listener one"))
            .fix("sudo prlimit --pid $$ --nofile=65536:65536  # this shell; LimitNOFILE=65536 in a systemd unit");
    }
    Finding::ok(
        CHECK,
        format!("{limit}; a connection takes two, a listener one"),
    )
}

/// Pipes, by which busy streams are moved without copying (pipe(7), `pipe-user-pages-soft`).
pub(in super::super) fn pipes(facts: &Facts) -> Finding {
    const CHECK: &str = "pipes";
    let limits = &facts.limits;
    let Some(pages) = limits
        .pipe_pages
        .filter(|pages| *pages > 0 && !limits.is_exempt_from_pipes)
    else {
        return Finding::ok(CHECK, "no bound on what pipes hold");
    };
    let wanted = limits
        .workers
        .saturating_mul(PIPES_OF_A_WORKER * PIPE_PAGES);
    if pages >= wanted {
        return Finding::ok(
            CHECK,
            format!("{pages} pages for all of this user's (fs.pipe-user-pages-soft)"),
        );
    }
    Finding::warn(
        CHECK,
        format!("{pages} pages for all of this user's; busy streams of {} workers use up to {wanted}, and are copied beyond", limits.workers),
    )
    .fix(format!("sudo sysctl fs.pipe-user-pages-soft={wanted}"))
}

/// Watches of folders (inotify(7)): edits are seen at once by them, and once a second without.
pub(in super::super) fn edits(facts: &Facts) -> Finding {
    const CHECK: &str = "edits";
    let limits = &facts.limits;
    if let Some(why) = &limits.inotify_refused {
        return Finding::warn(
            CHECK,
            format!("cannot watch files: {why}; edits are seen by looking, once a second"),
        )
        .fix("sudo sysctl fs.inotify.max_user_instances=1024");
    }
    match limits.watches {
        Some(watches) if watches < ENOUGH_WATCHES => Finding::warn(
            CHECK,
            format!("{watches} folders can be watched; edits in others are seen by looking, once a second"),
        )
        .fix("sudo sysctl fs.inotify.max_user_watches=65536"),
        Some(watches) => Finding::ok(CHECK, format!("seen at once, in {watches} folders (fs.inotify.max_user_watches)")),
        None => Finding::ok(CHECK, "seen at once"),
    }
}

/// Ports that the kernel gives to outgoing connections: towards each endpoint, and those of node ports.
pub(in super::super) fn local_ports(facts: &Facts) -> Finding {
    const CHECK: &str = "local ports";
    let limits = &facts.limits;
    let range = limits.local_ports.as_str();
    if let Some(clash) = crate::host::clash(facts.node_ports, range, &limits.reserved_ports) {
        return with_fix(CHECK, &clash);
    }
    let mut ends = range.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return Finding::ok(CHECK, "net.ipv4.ip_local_port_range is not known here");
    };
    let count = (last + 1).saturating_sub(first);
    if count < 10_000 {
        return Finding::warn(
            CHECK,
            format!(
                "{count} ports ({first}-{last}) for connections to one endpoint from one address"
            ),
        )
        .fix("sudo sysctl net.ipv4.ip_local_port_range=\"32768 60999\"");
    }
    Finding::ok(
        CHECK,
        format!(
            "{count} connections to one endpoint from one address ({first}-{last}), node ports apart"
        ),
    )
}

/// The longest queue of a listener.
pub(in super::super) fn queue(facts: &Facts) -> Finding {
    const CHECK: &str = "queue";
    match facts.limits.queue {
        Some(queue) if queue < QUEUE => Finding::warn(
            CHECK,
            format!("{queue} connections may wait at a listener (net.core.somaxconn); more at once try again a second later"),
        )
        .fix(format!("sudo sysctl net.core.somaxconn={QUEUE}")),
        Some(_) | None => Finding::ok(CHECK, format!("{QUEUE} connections may wait at a listener")),
    }
}
