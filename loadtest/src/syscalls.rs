//! System calls of a proxy for one request, by `strace -c`. Owns a measurement of its own, since tracing slows everything:
//! nothing else is taken from it.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{figure::number, stage::bound};

/// Patience with strace.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls of `pids` while `work` goes on, and what that gave.
///
/// # Errors
/// strace may not look at them, or prints another form.
pub(crate) async fn count<T>(
    strace: &Path,
    pids: &[u32],
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(f64, T)> {
    let report = tempfile::NamedTempFile::new().context("cannot make a file")?;
    let mut command = Command::from(bound(strace));
    command.args(["-f", "-c", "-o"]).arg(report.path());
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start strace")?;
    attached(&mut child, pids.len()).await?;
    let done = work.await?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).context("strace is gone")?;
    kill_process(pid, Signal::INT).context("cannot end strace")?;
    timeout(PATIENCE, child.wait())
        .await
        .context("strace does not end")??;
    let text = std::fs::read_to_string(report.path())?;
    let calls = total(&text).with_context(|| format!("strace printed another form:\n{text}"))?;
    Ok((number(calls), done))
}

/// Waits until strace says of each process that it is attached.
async fn attached(child: &mut Child, processes: usize) -> anyhow::Result<()> {
    let stderr = child.stderr.take().context("strace says nothing")?;
    let mut lines = BufReader::new(stderr).lines();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < processes {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = timeout(left, lines.next_line())
            .await
            .context("strace does not attach")??;
        let line = line.context("strace ended at once")?;
        ensure!(!line.contains("ptrace"), "strace may not attach: {line}");
        if line.contains(" attached") {
            seen += 1;
        }
    }
    Ok(())
}

/// The number of calls in the last line of the table.
fn total(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_end().ends_with("total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_the_calls_of_the_last_line() {
        let text = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.100000           5     20000           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.166000           5     30123        45 total
";
        assert_eq!(total(text), Some(30123));
        assert_eq!(total(""), None);
    }
}
