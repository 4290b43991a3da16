//! `--access-log`: a line for every request, a file that is changed under it, and lines that cannot be written.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    time::Instant,
};

use super::{GET, ask, manifest, open, up, willing};
use crate::{
    metrics::{admin, scrape},
    support::{
        PATIENCE, addr,
        namespace::in_namespace,
        program::{self, Program},
    },
};

/// Waits until a file has so many lines, and returns them.
pub(super) fn lines(file: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(
            Instant::now() < deadline,
            "{} has {text:?}, not {count} lines",
            file.display()
        );
        std::thread::yield_now();
    }
}

fn dropped(program: &Program) -> f64 {
    scrape(admin(program))["portico_access_log_dropped_total"]
}

#[test]
fn access_log_has_every_request_and_goes_on_in_a_new_file_after_sighup() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let (file, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let flag = format!("--access-log={}", file.display());
    let endpoint = willing();
    let args = [&*flag, "--access-log-format=json"];
    let (mut program, web) = up(&args, "http", &[endpoint]);
    let mut client = open(web);
    for _ in 0..3 {
        assert_eq!(ask(&mut client, GET).unwrap().0, 200);
    }
    for line in lines(&file, 3) {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["service"], "web");
        assert_eq!(line["endpoint"], endpoint.to_string());
        assert_eq!(line["path"], "/some?x=y");
        assert_eq!(line["status"], 200);
        assert_eq!(line["termination"], "--");
    }
    std::fs::rename(&file, &old).unwrap();
    program.signal("HUP");
    // The new file is there at once, not only with the next request.
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "no new file");
        std::thread::yield_now();
    }
    assert_eq!(ask(&mut client, GET).unwrap().0, 200);
    assert_eq!(lines(&file, 1).len(), 1);
    assert_eq!(lines(&old, 3).len(), 3);
    // A request just before the end is written, too.
    assert_eq!(ask(&mut client, GET).unwrap().0, 200);
    drop(client);
    program.signal("TERM");
    assert!(program.ended().success());
    assert_eq!(lines(&file, 2).len(), 2);
}

#[test]
fn access_log_on_a_full_disk_loses_lines_and_counts_them_but_no_request() {
    in_namespace!(Unprivileged);
    // full(4): every write fails with ENOSPC.
    let (program, web) = up(&["--access-log=/dev/full"], "http", &[willing()]);
    let mut client = open(web);
    for _ in 0..100 {
        assert_eq!(ask(&mut client, GET).unwrap().0, 200);
    }
    let deadline = Instant::now() + PATIENCE;
    while dropped(&program) < 100.0 {
        assert!(Instant::now() < deadline, "{} counted", dropped(&program));
    }
    let said = program.stderr();
    assert_eq!(said.matches("access log are lost").count(), 1, "{said}");
}

#[test]
fn access_log_to_standard_output_is_lines_of_text() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let endpoint = willing();
    std::fs::write(
        folder.path().join("web.yaml"),
        manifest("http", &[endpoint]),
    )
    .unwrap();
    let mut child = program::portico(folder.path())
        .args(["up", "--access-log", "-"])
        .arg(folder.path().join("web.yaml"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    let is_ready = said.by_ref().map_while(Result::ok).any(|line| {
        seen.push_str(&line);
        line.contains(" is ready: ")
    });
    assert!(is_ready, "{seen}");
    let output = program::portico(folder.path())
        .args(["url", "web"])
        .output()
        .unwrap();
    // It has a port, for portico may not bind 80 here.
    let url = String::from_utf8(output.stdout).unwrap();
    let web = addr(url.trim().strip_prefix("http://").unwrap());
    assert_eq!(ask(&mut open(web), GET).unwrap().0, 200);
    let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("GET ")));
    let line = line.unwrap().unwrap();
    for (request, status, logged) in [
        (&b"no request at all\r\n\r\n"[..], 400, "\"<BADREQ>\" 400 PR "),
        (
            b"POST /some HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "\"POST web /some HTTP/1.1\" 400 PR ",
        ),
    ] {
        assert_eq!(ask(&mut open(web), request).unwrap().0, status);
        let line = said.next().unwrap().unwrap();
        assert!(line.contains(&format!(" default/web:p - {logged}")), "{line}");
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(
        line.contains(&format!(
            " default/web:p {endpoint} \"GET web /some?x=y HTTP/1.1\" 200 -- "
        )),
        "{line}"
    );
}

#[test]
fn access_log_that_cannot_be_opened_is_said_at_the_start() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("web.yaml"), manifest("http", &[])).unwrap();
    let output = program::portico(folder.path())
        .args(["up", "--access-log=/nowhere/log"])
        .arg(folder.path().join("web.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        said.contains("cannot write the access log /nowhere/log"),
        "{said}"
    );
}
