//! The program as a child process with folders of its own. Waits for events by its admin socket, never by time.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Instant,
};

use portico::control::status::{ServiceStatus, Status};

use super::PATIENCE;

/// A running program and its folders.
pub(crate) struct Program {
    child: Child,
    args: Vec<String>,
    folder: tempfile::TempDir,
    descriptors: Option<u32>,
}

impl Program {
    /// `portico up ARGS FOLDER/manifests` with these files in the folder; returns once it is ready.
    pub(crate) fn up(args: &[&str], files: &[(&str, &str)]) -> Self {
        Self::prepare(args, files, None)
    }

    /// The same with room for so many descriptors, which it cannot raise (`prlimit(1)`).
    pub(crate) fn up_limited(descriptors: u32, args: &[&str], files: &[(&str, &str)]) -> Self {
        Self::prepare(args, files, Some(descriptors))
    }

    fn prepare(args: &[&str], files: &[(&str, &str)], descriptors: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Whatever user the program becomes may go in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join("manifests").join(name), text).unwrap();
        }
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Self::start(args, folder, descriptors)
    }

    /// The program again with other flags, after its end, with the same folders.
    pub(crate) fn restart_with(&mut self, args: &[&str]) {
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self.restart();
    }

    /// The program again, after its end, with the same folders.
    pub(crate) fn restart(&mut self) {
        // It may have ended already.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
        }
        self.ended();
        let empty = tempfile::tempdir().unwrap();
        let folder = std::mem::replace(&mut self.folder, empty);
        *self = Self::start(std::mem::take(&mut self.args), folder, self.descriptors);
    }

    fn start(args: Vec<String>, folder: tempfile::TempDir, descriptors: Option<u32>) -> Self {
        let mut command = portico(folder.path());
        if let Some(descriptors) = descriptors {
            command = limited(&command, descriptors);
        }
        command
            .arg("up")
            .args(&args)
            .arg(folder.path().join("manifests"));
        let log = std::fs::File::create(folder.path().join("stderr")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (ready, is_ready) = std::sync::mpsc::channel();
        // Goes on reading, so that the program never waits for us; ends with it.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                println!("portico: {line}");
                if line.contains(" is ready: ") {
                    let _ = ready.send(());
                }
            }
        });
        let program = Self {
            child,
            args,
            folder,
            descriptors,
        };
        assert!(
            is_ready.recv_timeout(PATIENCE).is_ok(),
            "not ready: {}",
            program.stderr()
        );
        program
    }

    /// The folder of the manifests.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// The folder of its sockets.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Writes a manifest as careful programs do: beside it, then renamed over it.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let temporary = self.folder.path().join("new");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(temporary, self.manifests().join(name)).unwrap();
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Another command of the same instance.
    pub(crate) fn command(&self, args: &[&str]) -> Output {
        portico(self.folder.path()).args(args).output().unwrap()
    }

    /// A shell in the folder of the manifests, in which `portico` is this instance.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_portico"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = portico(self.folder.path());
        let environment: Vec<_> = command
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        command = Command::new("sh");
        command
            .args(["-c", script])
            .envs(environment)
            .env(
                "PATH",
                format!("{}:{path}", binary.parent().unwrap().display()),
            )
            .current_dir(self.manifests());
        command
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The whole status.
    pub(crate) fn status(&self) -> Status {
        serde_json::from_str(&self.ask("/v1/status")).unwrap()
    }

    /// The body of a request to the admin socket.
    pub(crate) fn ask(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("run/api.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Waits until the status is as wanted: looks again at each new generation.
    pub(crate) fn wait_for(&self, what: &str, done: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {what}; got {status:#?}\n{}",
                self.stderr()
            );
            self.ask(&format!("/v1/generation?after={}", status.generation));
        }
    }

    /// All objects of a resource, as JSON.
    pub(crate) fn objects(&self, resource: &str) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.ask(&format!("/v1/objects/{resource}"))).unwrap()
    }

    /// Waits until an object is as wanted: looks at each of its changes.
    pub(crate) fn wait_for_object(
        &self,
        resource: &str,
        name: &str,
        done: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut stream = UnixStream::connect(self.folder.path().join("run/api.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET /v1/watch/{resource} HTTP/1.0\r\nHost: test\r\n\r\n"
        )
        .unwrap();
        let mut last = String::new();
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                continue;
            };
            if event["object"]["metadata"]["name"] == name {
                if event["type"] != "DELETED" && done(&event["object"]) {
                    return event["object"].clone();
                }
                last = line;
            }
        }
        panic!(
            "waited for {resource} {name}; last seen: {last}\n{}",
            self.stderr()
        );
    }

    /// Waits until the status is as wanted in what no generation brings: looks again at once.
    pub(crate) fn watch_for(&self, what: &str, done: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "waited for {what}; {} connections and {} descriptors are open",
                status.connections,
                status.descriptors
            );
        }
    }

    /// Waits until no connection is open; relays end a moment after their clients.
    pub(crate) fn wait_for_connections_to_end(&self) -> Status {
        self.watch_for("connections to end", |status| status.connections == 0)
    }

    /// Waits until no connection and no more descriptors are open than `wanted`: a file that is being read goes by, a leak
    /// does not.
    pub(crate) fn wait_for_descriptors(&self, wanted: usize) -> Status {
        self.watch_for("descriptors to be closed", |status| {
            status.connections == 0 && status.descriptors <= wanted
        })
    }

    /// Waits until Service `name` has `count` usable endpoints on its first port.
    pub(crate) fn wait_for_endpoints(&self, name: &str, count: usize) -> ServiceStatus {
        let has = |status: &Status| {
            let service = status.services.iter().find(|service| service.name == name);
            service
                .and_then(|service| service.ports.first())
                .is_some_and(|port| port.endpoints.len() == count)
        };
        let status = self.wait_for(&format!("{count} endpoints of {name}"), has);
        status
            .services
            .into_iter()
            .find(|service| service.name == name)
            .unwrap()
    }

    /// The value of a metric without labels.
    pub(crate) fn counted(&self, metric: &str) -> u64 {
        let mut stream = TcpStream::connect(self.status().admin.unwrap()).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(name, _)| *name == metric);
        found
            .unwrap_or_else(|| panic!("no {metric} in {text}"))
            .1
            .parse()
            .unwrap()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("standard error of portico:\n{}", self.stderr());
        }
    }
}

/// The binary with lock, socket and state in `folder`, and nothing of the user's environment.
pub(crate) fn portico(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    command.env("PORTICO_RUNTIME_DIR", folder.join("run"));
    command.env("PORTICO_STATE_DIR", folder.join("state"));
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command.env("NO_COLOR", "1");
    command
}

/// The same program, which may open so many descriptors and no more.
fn limited(program: &Command, descriptors: u32) -> Command {
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={descriptors}:{descriptors}"))
        .arg(program.get_program());
    for (name, value) in program.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

/// Where a Service is reachable: the first frontend of this kind.
pub(crate) fn way(service: &ServiceStatus, kind: &str) -> SocketAddr {
    let ways = service.ports.iter().flat_map(|port| &port.reachable);
    let bound = ways
        .filter(|way| way.kind == kind)
        .find_map(|way| way.bound)
        .expect(kind);
    if bound.ip().is_unspecified() {
        SocketAddr::new([127, 0, 0, 1].into(), bound.port())
    } else {
        bound
    }
}
