//! What the processes of a group have used, as proc(5) tells it. Owns reading it; the kernel counts.

use std::{fs, time::Duration};

use anyhow::Context as _;

use crate::figure::number;

/// Sums over all processes and threads of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time, also of threads that have ended.
    pub(crate) cpu: Duration,
    /// Context switches, wanted and unwanted, of the threads there are.
    pub(crate) switches: u64,
    /// Private dirty memory in KiB.
    pub(crate) private_kib: u64,
}

impl Usage {
    /// Of the processes of a group.
    ///
    /// # Errors
    /// There is none, or they may not be looked at.
    pub(crate) fn of_group(group: u32) -> anyhow::Result<Self> {
        let tick = rustix::param::clock_ticks_per_second();
        let mut usage = Self::default();
        for pid in pids(group)? {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("process {pid} of the proxy is gone"))?;
            let (_, ticks) = parse_stat(&stat).context("/proc/PID/stat has another form")?;
            usage.cpu += Duration::from_secs_f64(number(ticks) / number(tick));
            usage.switches += switches(pid)?;
            let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .context("cannot read the proxy's memory")?;
            usage.private_kib += field(&memory, "Private_Dirty:");
        }
        Ok(usage)
    }
}

/// The processes of a group.
pub(super) fn pids(group: u32) -> anyhow::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list processes")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ends meanwhile is none of ours.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if parse_stat(&stat).is_some_and(|(of, _)| of == group) && !is_dead(&stat) {
            pids.push(pid);
        }
    }
    anyhow::ensure!(!pids.is_empty(), "the proxy is gone");
    Ok(pids)
}

/// Process group and user plus system time in ticks. The name in brackets may hold anything, brackets too.
fn parse_stat(text: &str) -> Option<(u32, u64)> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields 3 (state), 5 (pgrp), 14 (utime) and 15 (stime) of proc_pid_stat(5).
    let group = fields.get(2)?.parse().ok()?;
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some((group, user + system))
}

/// It has ended and waits for its parent to ask.
fn is_dead(stat: &str) -> bool {
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

fn switches(pid: u32) -> anyhow::Result<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("cannot list threads")?;
    let mut sum = 0;
    for thread in threads {
        // A thread that ends meanwhile counts no more.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        sum += field(&status, "voluntary_ctxt_switches:");
        sum += field(&status, "nonvoluntary_ctxt_switches:");
    }
    Ok(sum)
}

/// The number behind a label at a line's start.
fn field(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_stat_of_a_name_with_brackets_gives_group_and_ticks() {
        let text = "42 (a) b) S 1 77 42 0 -1 4194560 1 2 3 4 100 23 5 6 20 0 1 0 5";
        assert_eq!(parse_stat(text), Some((77, 123)));
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn field_of_a_label_is_at_the_start_of_a_line() {
        let text = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\nPrivate_Dirty:   116 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 5);
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:"), 7);
        assert_eq!(field(text, "Private_Dirty:"), 116);
    }
}
