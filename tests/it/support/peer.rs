//! Clients and servers that others made, by the scripts of `tests/fixtures/peers`.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A Python that has these modules: that of `PORTICO_PEERS`, or else `python3`; says so if there is none.
pub(crate) fn python(modules: &[&str]) -> Option<PathBuf> {
    let python = std::env::var_os("PORTICO_PEERS").unwrap_or_else(|| "python3".into());
    let import = format!("import {}", modules.join(", "));
    let probe = Command::new(&python).args(["-c", &import]).output();
    if probe.is_ok_and(|output| output.status.success()) {
        return Some(python.into());
    }
    eprintln!(
        "skipped: {} has no {}",
        python.display(),
        modules.join(" or ")
    );
    None
}

fn script(python: &Path, name: &str) -> Command {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/peers");
    let mut command = Command::new(python);
    command.arg("-B").arg(Path::new(folder).join(name));
    command
}

/// A server that listens. Dropped, it ends.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(python: &Path, name: &str, args: &[&str]) -> Self {
        let mut command = script(python, name);
        command.args(args).stdout(Stdio::piped());
        let mut server = Self(command.spawn().unwrap());
        let mut line = String::new();
        let output = server.0.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a client prints, which must succeed.
pub(crate) fn client(python: &Path, name: &str, args: &[&str]) -> String {
    let output = script(python, name).args(args).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {said}{error}");
    said
}
