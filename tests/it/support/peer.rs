//! Clients and servers that others made: programs, and libraries by the scripts of `tests/fixtures/peers`.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use super::{PATIENCE, is_installed};

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

/// A script in the folder of peers, to be run.
pub(crate) fn script(python: &Path, name: &str) -> Command {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/peers");
    let mut command = Command::new(python);
    command.arg("-B").arg(Path::new(folder).join(name));
    command
}

/// A server of somebody else, until it is dropped.
pub(crate) struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a script and returns once it says that it listens.
pub(crate) fn serve(python: &Path, name: &str, args: &[&str]) -> Peer {
    let mut command = script(python, name);
    command.args(args).stdout(Stdio::piped());
    let mut peer = Peer(command.spawn().unwrap());
    let mut line = String::new();
    let output = peer.0.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{name}");
    peer
}

/// Starts a program, which says nothing, and returns once it listens at all of these addresses.
pub(crate) fn start(program: impl AsRef<OsStr>, args: &[&str], listening: &[SocketAddr]) -> Peer {
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(&program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peer = Peer(child);
    let start = Instant::now();
    let program = program.as_ref().display();
    for addr in listening {
        while TcpStream::connect(addr).is_err() {
            assert_eq!(peer.0.try_wait().unwrap(), None, "{program} has ended");
            assert!(
                start.elapsed() < PATIENCE,
                "{program} does not listen at {addr}"
            );
            std::thread::yield_now();
        }
    }
    peer
}

/// nginx with this configuration and files in `folder`.
pub(crate) fn nginx(folder: &Path, text: &str, listening: &[SocketAddr]) -> Option<Peer> {
    is_installed("nginx").then(|| {
        let (file, log) = (folder.join("nginx.conf"), folder.join("nginx.log"));
        let head = "user root; daemon off; master_process off; pid nginx.pid; events {}\n";
        std::fs::write(&file, format!("{}{head}{text}", modules(text))).unwrap();
        let [file, log, prefix] = [&*file, &*log, folder].map(|path| path.to_str().unwrap());
        start("nginx", &["-p", prefix, "-e", log, "-c", file], listening)
    })
}

/// Debian has the stream module in a file of its own.
fn modules(text: &str) -> String {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if text.contains("stream {") && Path::new(module).exists() {
        format!("load_module {module};\n")
    } else {
        String::new()
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
