//! What a service manager sees of the program: notifications, and sockets that it passes (`sd_notify(3)`,
//! `sd_listen_fds(3)`).

use std::{
    net::{TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
    process::{Child, Command, Stdio},
};

use portico::control::status::Status;

use crate::support::{
    PATIENCE, get,
    namespace::in_namespace,
    program::{portico, way},
};

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {app: web}\n  \
                   ports:\n    - port: 80\n      targetPort: 8080\n---\n\
                   apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: 2\n  \
                   selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    \
                   spec:\n      containers:\n        - name: web\n          image: nginx\n          ports:\n            \
                   - containerPort: 8080\n";

/// A service manager of one program.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
    child: Option<Child>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        std::fs::write(folder.path().join("manifests/web.yaml"), WEB).unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            folder,
            socket,
            child: None,
        }
    }

    /// Starts the program, without any privilege, with these sockets as descriptors 3, 4 and 5: they travel as the
    /// standard ones of a shell, which becomes the program.
    fn start(&mut self, [first, second, third]: [OwnedFd; 3]) {
        let script = r#"exec 3<&0 4<&1 5<&2 </dev/null >"$FOLDER/stdout" 2>"$FOLDER/stderr"
            LISTEN_PID=$$ exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$0" up --simulate "$1""#;
        let program = portico(self.path());
        let mut command = Command::new("sh");
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap());
        }
        let child = command
            .args(["-c", script])
            .arg(program.get_program())
            .arg(self.path().join("manifests"))
            .env("FOLDER", self.path())
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "http:dns:dns")
            .env("NOTIFY_SOCKET", self.path().join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .stdin(Stdio::from(first))
            .stdout(Stdio::from(second))
            .stderr(Stdio::from(third))
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The next message with a line that begins with `wanted`.
    fn hears(&self, wanted: &str) -> String {
        let mut buffer = [0; 1024];
        loop {
            let length = self.socket.recv(&mut buffer);
            let length = length
                .map_err(|error| format!("no {wanted}: {error}: {}", self.stderr()))
                .unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(wanted)) {
                return text;
            }
        }
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.path().join("stderr")).unwrap_or_default()
    }

    fn status(&self) -> Status {
        let output = portico(self.path())
            .args(["status", "-o", "json"])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", self.stderr()))
            .unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn passed_sockets_serve_ports_that_the_program_may_not_bind() {
    in_namespace!(Root);
    let mut manager = Manager::new();
    let http = TcpListener::bind("0.0.0.0:80").unwrap();
    let next = http.try_clone().unwrap();
    let dns = UdpSocket::bind("127.96.0.10:53").unwrap();
    let dns_tcp = TcpListener::bind("127.96.0.10:53").unwrap();
    manager.start([http.into(), dns.into(), dns_tcp.into()]);
    manager.hears("READY=1");
    let status = manager.status();
    let door = way(&status.services[0], "ClusterIP");
    assert_eq!(door.port(), 80, "{}", manager.stderr());
    assert!(get(door).is_ok());
    assert_eq!(status.dns[0].bound.map(|addr| addr.port()), Some(53));
    assert_eq!(status.dns[0].problem, None);
    assert!(
        !manager.stderr().contains("inherited"),
        "{}",
        manager.stderr()
    );
    manager.signal("TERM");
    assert!(manager.child.as_mut().unwrap().wait().unwrap().success());
    // What comes after the end waits for the next process.
    let _client = std::net::TcpStream::connect(door).unwrap();
    assert!(next.accept().is_ok());
}

#[test]
fn notifications_tell_ready_reload_life_and_end() {
    in_namespace!(Root);
    let mut manager = Manager::new();
    let idle = TcpListener::bind("127.0.0.1:8443").unwrap();
    let wild = TcpListener::bind("0.0.0.0:9999").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:9999").unwrap();
    manager.start([idle.into(), wild.into(), udp.into()]);
    let ready = manager.hears("READY=1");
    assert!(
        ready.contains("STATUS=1 Service, 2 endpoints, generation "),
        "{ready}"
    );
    let errors = manager.stderr();
    for said in [
        "'http' (TCP 127.0.0.1:8443) is not used yet: it would serve a Service with address 127.0.0.1 and port 8443",
        "'dns' (TCP 0.0.0.0:9999) is not used yet: it would serve any Service with port or nodePort 9999",
        "'dns' (UDP 127.0.0.1:9999) is not used: UDP is for DNS",
    ] {
        assert!(errors.contains(said), "{said}: {errors}");
    }
    manager.hears("WATCHDOG=1");
    manager.signal("HUP");
    let reloading = manager.hears("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1");
    manager.signal("TERM");
    manager.hears("STOPPING=1");
    assert!(manager.child.as_mut().unwrap().wait().unwrap().success());
}
