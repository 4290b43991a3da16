//! The README's recipes for containers, word for word. `docker` stands for namespaces, of which engines make
//! containers, and, where it can be started, for podman(1).

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use portico::source::yaml;
use portico_core::object::tree::{Node, Value};

use crate::support::{
    get,
    host::Host,
    is_installed,
    namespace::in_namespace,
    page::{chapter, check, commands, said, serves},
    program::{Program, portico},
};

/// The bridge's gateway in the README, which is Docker's.
const GATEWAY: &str = "172.17.0.1";
const WEB: &str = include_str!("../../config/demo/web.yaml");
const COMPOSE: &str = "config/compose/compose.yaml";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Compose file.
struct Compose(Node);

impl Compose {
    fn read() -> Self {
        let text = fs::read_to_string(here(COMPOSE)).unwrap();
        let mut documents = yaml::parse(&text, &yaml::Limits::default());
        let document = documents.remove(0);
        assert!(
            documents.is_empty() && document.problems.is_empty(),
            "{:?}",
            document.problems
        );
        Self(document.root.unwrap())
    }

    fn service(&self, name: &str) -> &Node {
        let services = self.0.get("services").unwrap();
        services.get(name).unwrap()
    }

    /// A list of strings of a service.
    fn list(&self, service: &str, key: &str) -> Vec<String> {
        let Some(Value::List(items)) = self.service(service).get(key).map(|node| &node.value)
        else {
            panic!("{service} has no list {key}");
        };
        items.iter().map(text).collect()
    }

    /// What a service mounts: the file or folder here, and the path that it has there.
    fn volume(&self, service: &str) -> (PathBuf, String) {
        let volumes = self.list(service, "volumes");
        let [volume] = &volumes[..] else {
            panic!("{volumes:?}")
        };
        let parts: Vec<&str> = volume.split(':').collect();
        assert_eq!(parts[2], "ro");
        let path = here(COMPOSE).parent().unwrap().join(parts[0]);
        (path.canonicalize().expect(volume), parts[1].to_owned())
    }
}

fn text(node: &Node) -> String {
    match &node.value {
        Value::String(text) => text.to_string(),
        other => panic!("{other:?} is not a string"),
    }
}

/// What `docker run` is asked for.
#[derive(Default)]
struct Container<'a> {
    in_hosts_network: bool,
    hosts: Vec<(&'a str, &'a str)>,
    dns: Option<&'a str>,
    words: Vec<&'a str>,
}

impl<'a> Container<'a> {
    /// From the words after `docker run`. The image is always one that runs curl(1).
    fn parse(words: &[&'a str]) -> Self {
        let mut asked = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word.split_once('=').unwrap_or((word, "")) {
                ("--rm", _) => {}
                ("--network", _) => asked.in_hosts_network = words.next() == Some("host"),
                ("--dns", _) => asked.dns = words.next(),
                ("--add-host", host) => {
                    let (name, at) = host.split_once(':').unwrap();
                    let at = if at == "host-gateway" { GATEWAY } else { at };
                    asked.hosts.push((name, at));
                }
                ("curlimages/curl", _) => {
                    asked.words = ["curl"].into_iter().chain(words.by_ref()).collect();
                }
                _ => panic!("what is {word}?"),
            }
        }
        asked
    }
}

/// An engine as far as the README uses it.
trait Engine {
    /// `docker run`.
    fn run(&self, asked: &Container<'_>) -> Output;
    /// `docker compose up`.
    fn up(&mut self, compose: &Compose);
    /// `docker compose exec client`.
    fn exec_in_client(&self, compose: &Compose, words: &[&str]) -> Output;
    /// `docker compose down`.
    fn down(&mut self);
}

/// All of the chapter's commands, in their order.
fn play(engine: &mut impl Engine) {
    let compose = Compose::read();
    let mut program = None;
    let steps = commands(&chapter("### From a container"));
    assert!(steps.len() > 6);
    for step in &steps {
        let said = said(step);
        if let Some(flags) = serves(&said) {
            drop(program.take());
            program = Some(Program::up(&flags, &[("web.yaml", WEB)]));
        } else if let Some(words) = said.strip_prefix(&["docker", "run"]) {
            check(step, &engine.run(&Container::parse(words)));
        } else if let Some(words) = said.strip_prefix(&["docker", "compose", "-f", COMPOSE]) {
            match words {
                ["up", ..] => engine.up(&compose),
                ["exec", "client", words @ ..] => {
                    check(step, &engine.exec_in_client(&compose, words));
                }
                ["down"] => engine.down(),
                _ => panic!("{words:?}"),
            }
        } else {
            panic!("{} is not known here", step.command);
        }
    }
}

/// Containers as namespaces: one at the other end of a cable to the bridge's gateway, and portico's.
struct Namespaces {
    bridge: Host,
    own: Host,
    files: tempfile::TempDir,
    program: Option<Program>,
}

impl Namespaces {
    fn new() -> Self {
        Self {
            bridge: Host::join_by(["docker0", "eth0"], "172.17.0"),
            own: Host::join_by(["compose0", "eth0"], "172.18.0"),
            files: tempfile::tempdir().unwrap(),
            program: None,
        }
    }

    /// A command with files of its own at these paths.
    fn command(&self, words: &[&str], files: &[(&str, &str)]) -> Command {
        let mut script = String::new();
        for (path, text) in files {
            let own = self.files.path().join(path.replace('/', "-"));
            fs::write(&own, text).unwrap();
            let _ = write!(script, "mount --bind {} {path} && ", own.display());
        }
        script += r#"exec "$0" "$@""#;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).args(words);
        command
    }
}

impl Engine for Namespaces {
    fn run(&self, asked: &Container<'_>) -> Output {
        let line = |(name, at): &(&str, &str)| format!("{at} {name}\n");
        let hosts: String = asked.hosts.iter().map(line).collect();
        let dns = asked
            .dns
            .map_or_else(String::new, |dns| format!("nameserver {dns}\n"));
        let files = [
            ("/etc/hosts", &*hosts),
            ("/etc/resolv.conf", &*dns),
            ("/etc/nsswitch.conf", "hosts: files dns\n"),
        ];
        let mut command = self.command(&asked.words, &files);
        if asked.in_hosts_network {
            command.output().unwrap()
        } else {
            self.bridge.run(|| command.output().unwrap())
        }
    }

    fn up(&mut self, compose: &Compose) {
        let command = compose.list("portico", "command");
        let (folder, at) = compose.volume("portico");
        let [verb, flags @ .., path] = &command[..] else {
            panic!("{command:?}")
        };
        assert_eq!((&**verb, path), ("up", &at));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let web = fs::read_to_string(folder.join("web.yaml")).unwrap();
        self.program = Some(self.own.run(|| Program::up(&flags, &[("web.yaml", &web)])));
    }

    fn exec_in_client(&self, compose: &Compose, words: &[&str]) -> Output {
        let (file, at) = compose.volume("client");
        let file = fs::read_to_string(file).unwrap();
        let files = [(&*at, &*file), ("/etc/nsswitch.conf", "hosts: files dns\n")];
        let mut command = self.command(words, &files);
        self.own.run(|| command.output().unwrap())
    }

    fn down(&mut self) {
        self.program = None;
    }
}

#[test]
fn recipes_of_the_readme_work_in_namespaces() {
    in_namespace!(Root);
    if is_installed("curl") {
        play(&mut Namespaces::new());
    }
}

#[test]
fn service_with_the_gateways_address_is_reached_on_its_own_ports() {
    in_namespace!(Root);
    let bridge = Host::join_by(["docker0", "eth0"], "172.17.0");
    let service = |name: &str, port: u16, spec: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}, selector: {{app: web}}, ports: [{{port: {port}, targetPort: http}}]}}\n"
        )
    };
    let balanced = format!("type: LoadBalancer, loadBalancerIP: {GATEWAY}");
    let external = format!("externalIPs: [{GATEWAY}]");
    let text = WEB.to_owned() + &service("a", 80, &balanced) + &service("b", 81, &external);
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    program.wait_for_endpoints("b", 4);
    for port in [80, 81] {
        let addr = SocketAddr::new(GATEWAY.parse().unwrap(), port);
        assert!(bridge.run(|| get(addr).unwrap()).starts_with("web-"));
    }
}

/// podman(1) with storage and networks of its own, and an image without anything: programs are this machine's.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    /// The engine with Docker's bridge, if it can run anything here.
    fn start() -> Option<Self> {
        // An engine takes these for granted, and must not find the machine's own.
        for (kind, path) in [("tmpfs", "/run"), ("cgroup2", "/sys/fs/cgroup")] {
            let _ = Command::new("mount")
                .args(["-t", kind, "none", path])
                .output();
        }
        let podman = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let image = podman.folder.path().join("image");
        for folder in [
            "etc", "lib64", "opt", "usr", "proc", "sys", "dev", "run", "tmp",
        ] {
            fs::create_dir_all(image.join(folder)).unwrap();
        }
        fs::write(image.join("etc/nsswitch.conf"), "hosts: files dns\n").unwrap();
        std::os::unix::fs::symlink("usr/lib", image.join("lib")).unwrap();
        let archive = podman.folder.path().join("image.tar");
        let mut pack = Command::new("tar");
        pack.arg("-C")
            .arg(&image)
            .args(["-c", "."])
            .arg("-f")
            .arg(&archive);
        let mut import = podman.command(&["import"]);
        import.arg(&archive).arg("localhost/empty");
        let network = [
            "network",
            "create",
            "--subnet",
            "172.17.0.0/16",
            "--disable-dns",
            "docker0",
        ];
        // A bridge is there as long as somebody is at it.
        let mut keeper = podman.container(&["-d", "--network", "docker0"], &["sleep", "infinity"]);
        for command in [
            &mut pack,
            &mut import,
            &mut podman.command(&network),
            &mut keeper,
        ] {
            let output = command.output().unwrap();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: podman cannot be started here: {}", said.trim());
                return None;
            }
        }
        Some(podman)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "podman",
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
        ]);
        for folder in ["--root", "--runroot", "--tmpdir", "--network-config-dir"] {
            command.arg(folder).arg(self.folder.path().join(folder));
        }
        command.args(words);
        command
    }

    fn container(&self, flags: &[&str], words: &[&str]) -> Command {
        let mut command = self.command(&["run", "--cgroups=disabled"]);
        // The engine's own defaults may be more than it is allowed to set.
        command.args([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        command.args(["-v", "/usr:/usr:ro", "-v", "/lib64:/lib64:ro"]);
        let program = env!("CARGO_BIN_EXE_portico");
        command.args([
            "-v",
            &format!("{program}:/opt/portico:ro"),
            "-e",
            "PATH=/opt:/usr/bin",
        ]);
        command.args(flags).arg("localhost/empty").args(words);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "-f", "-t", "0", "-a"]).output();
    }
}

impl Engine for Podman {
    fn run(&self, asked: &Container<'_>) -> Output {
        let network = if asked.in_hosts_network {
            "host"
        } else {
            "docker0"
        };
        let mut flags = vec!["--rm", "--network", network];
        let hosts: Vec<String> = asked
            .hosts
            .iter()
            .map(|(name, at)| format!("{name}:{at}"))
            .collect();
        flags.extend(hosts.iter().flat_map(|host| ["--add-host", host]));
        flags.extend(asked.dns.iter().flat_map(|dns| ["--dns", dns]));
        self.container(&flags, &asked.words).output().unwrap()
    }

    fn up(&mut self, compose: &Compose) {
        let (folder, at) = compose.volume("portico");
        let volume = format!("{}:{at}:ro", folder.display());
        let sysctl = &*compose.list("portico", "sysctls")[0];
        let flags = [
            "-d",
            "--name",
            "portico",
            "--network",
            "docker0",
            "--tmpfs",
            "/tmp",
            "--user",
            "65534:65534",
            "-v",
            &volume,
            "--sysctl",
            sysctl,
        ];
        let command = compose.list("portico", "command");
        let mut words = vec!["portico"];
        words.extend(command.iter().map(String::as_str));
        let output = self.container(&flags, &words).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let Some(Value::List(check)) = compose
            .service("portico")
            .get("healthcheck")
            .and_then(|check| check.get("test"))
            .map(|test| &test.value)
        else {
            panic!("no health check");
        };
        let check: Vec<String> = check.iter().skip(1).map(text).collect();
        let mut healthy = vec!["exec", "portico"];
        healthy.extend(check.iter().map(String::as_str));
        let deadline = std::time::Instant::now() + crate::support::PATIENCE;
        while !self.command(&healthy).output().unwrap().status.success() {
            let log = self.command(&["logs", "portico"]).output().unwrap();
            assert!(
                std::time::Instant::now() < deadline,
                "{}",
                String::from_utf8_lossy(&log.stdout)
            );
        }
    }

    fn exec_in_client(&self, compose: &Compose, words: &[&str]) -> Output {
        let mode = text(compose.service("client").get("network_mode").unwrap());
        let network = mode.replace("service:", "container:");
        let (file, at) = compose.volume("client");
        let volume = format!("{}:{at}:ro", file.display());
        let flags = ["--rm", "--network", &network, "-v", &volume];
        self.container(&flags, words).output().unwrap()
    }

    fn down(&mut self) {
        let output = self.command(&["rm", "-f", "-t", "1", "portico"]).output();
        assert!(output.unwrap().status.success());
    }
}

#[test]
fn recipes_of_the_readme_work_with_podman() {
    if !is_installed("podman") || !is_installed("curl") {
        return;
    }
    in_namespace!(Machine);
    if let Some(mut podman) = Podman::start() {
        play(&mut podman);
        let own = ["--rm", "--network", "podman"];
        let hosts = podman.container(&own, &["cat", "/etc/hosts"]).output();
        let hosts = String::from_utf8(hosts.unwrap().stdout).unwrap();
        assert!(
            hosts.contains("10.88.0.1\thost.containers.internal\n"),
            "{hosts}"
        );
    }
}

#[test]
fn compose_file_names_what_there_is() {
    let compose = Compose::read();
    let build = compose.service("portico").get("build").unwrap();
    let folder = here(COMPOSE).parent().unwrap().to_owned();
    let context = folder.join(text(build.get("context").unwrap()));
    let file = context.join(text(build.get("dockerfile").unwrap()));
    assert_eq!(context.canonicalize().unwrap(), here("."));
    let dockerfile = fs::read_to_string(file).unwrap();
    let toolchain = fs::read_to_string(here("rust-toolchain.toml")).unwrap();
    let version = dockerfile.split("FROM rust:").nth(1).unwrap();
    let version = version.split('-').next().unwrap();
    assert!(
        toolchain.contains(&format!("channel = \"{version}.")),
        "{version}"
    );

    let (manifests, at) = compose.volume("portico");
    assert_eq!(compose.list("portico", "command").last(), Some(&at));
    assert!(dockerfile.contains(&format!("CMD [\"up\", \"{at}\"]")));
    let home = tempfile::tempdir().unwrap();
    let valid = portico(home.path())
        .args(["validate", "--strict"])
        .arg(&manifests)
        .output()
        .unwrap();
    assert!(
        valid.status.success(),
        "{}",
        String::from_utf8_lossy(&valid.stdout)
    );
    let web = fs::read_to_string(manifests.join("web.yaml")).unwrap();
    for port in compose.list("portico", "ports") {
        let node_port = port.rsplit(':').next().unwrap();
        assert!(web.contains(&format!("nodePort: {node_port} ")), "{port}");
    }
    assert_eq!(
        text(compose.service("client").get("network_mode").unwrap()),
        "service:portico"
    );
    assert_eq!(compose.volume("client").1, "/etc/resolv.conf");
}
