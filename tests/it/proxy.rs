//! `portico proxy` and `portico env` as an unprivileged user has them, whose port 80 is served at another number: curl
//! by Host, as an HTTP proxy and by SOCKS, and what goes wrong.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use crate::support::{
    PATIENCE, host::Host, is_installed, knows_localhost, namespace::in_namespace, program::Program,
};

/// Port 80 is one that a user may not bind; `many` has two ports, one of them not for HTTP.
const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 127.96.0.80, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outer}
spec: {type: LoadBalancer, loadBalancerIP: 127.112.0.80, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: pods}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: many, namespace: shop}
spec: {clusterIP: 127.96.0.81, selector: {app: many}, ports: [{name: admin, port: 9000}, {name: api-1, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: shop}
spec:
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: many, image: many, ports: [{containerPort: 9000}, {containerPort: 8080}]}]}
";

/// A running door; ends with its value.
struct Door {
    child: Child,
    at: SocketAddr,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Door {
    fn open(program: &Program, args: &str) -> Self {
        let mut child = program
            .shell(&format!("exec portico proxy {args}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let at = first.trim().strip_prefix("Serving at ").unwrap();
        Self {
            at: at.parse().unwrap(),
            child,
        }
    }

    /// `words` with the door's address for `DOOR`, and its port for `PORT`.
    fn meant(&self, words: &str) -> String {
        words
            .replace("DOOR", &self.at.to_string())
            .replace("PORT", &self.at.port().to_string())
    }

    /// Status and body of what curl gets with these words.
    fn curl(&self, words: &str) -> (String, String) {
        let output = Command::new("curl")
            .args(["-sS", "-m", "20", "--noproxy", "", "-w", "\n%{http_code}\n"])
            .args(self.meant(words).split(' '))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.trim_end().rsplit_once('\n').unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (status.to_owned(), format!("{body}{said}"))
    }

    fn raw(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }
}

fn up() -> Program {
    let program = Program::up(&["--simulate"], &[("web.yaml", MANIFESTS)]);
    program.wait_for_endpoints("web", 3);
    program.wait_for_endpoints("many", 1);
    program
}

#[test]
fn proxy_every_way_in_reaches_a_service_by_name_and_is_balanced() {
    in_namespace!(Unprivileged);
    let program = up();
    let door = Door::open(&program, "");
    for (words, pod) in [
        ("http://web.default.svc.localhost:PORT/", "web-"),
        ("http://pods.default.svc.localhost:PORT/", "web-"),
        ("http://alias.default.svc.localhost:PORT/", "web-"),
        ("http://api-1.many.shop.svc.localhost:PORT/", "many-"),
        ("http://9000.many.shop.svc.localhost:PORT/", "many-"),
        ("--proxy http://DOOR http://web/", "web-"),
        ("--proxy http://DOOR http://pods/", "web-"),
        ("--proxy http://DOOR http://alias.default/", "web-"),
        ("--proxy http://DOOR http://many.shop:8080/", "many-"),
        (
            "--proxy http://DOOR http://web.default.svc.localhost/",
            "web-",
        ),
        (
            "--proxytunnel --proxy http://DOOR http://web.default.svc.cluster.local/",
            "web-",
        ),
        ("--proxy socks5h://DOOR http://web/", "web-"),
        ("--proxy socks5h://DOOR http://many.shop.svc:9000/", "many-"),
        ("--proxy socks5://DOOR http://127.96.0.80/", "web-"),
        ("--proxy http://DOOR http://127.112.0.80/", "web-"),
        ("--proxy http://DOOR http://127.0.0.1:30080/", "web-"),
    ] {
        let (status, body) = door.curl(words);
        assert!(
            status == "200" && body.starts_with(pod),
            "{words}: {status} {body}"
        );
    }
    // Six requests over one connection to the door are six connections to the Service.
    let url = "http://web.default.svc.localhost:PORT/[1-6]";
    let (_, bodies) = door.curl(url);
    let mut pods: Vec<_> = bodies
        .lines()
        .filter(|line| line.starts_with("web-"))
        .collect();
    pods.sort_unstable();
    let twice: Vec<_> = pods.chunks(2).map(|pair| pair[0] == pair[1]).collect();
    assert_eq!(twice, [true; 3], "{bodies}");
}

#[test]
fn proxy_names_of_others_are_looked_up_for_programs_of_this_machine_only() {
    in_namespace!(Root);
    if !knows_localhost() {
        return;
    }
    let there = Host::join();
    let program = up();
    let admin = program.status().admin.unwrap().port();
    let own = Door::open(&program, "");
    let (status, _) = own.curl(&format!(
        "--proxy http://DOOR http://localhost:{admin}/livez"
    ));
    assert_eq!(status, "200");
    let open = Door::open(&program, "--address 10.77.0.1:7081");
    let (status, _) = there.run(|| open.curl("--proxy http://DOOR http://web/"));
    assert_eq!(status, "200");
    let (_, said) = there.run(|| {
        open.curl(&format!(
            "--proxy http://DOOR http://localhost:{admin}/livez"
        ))
    });
    assert!(
        said.contains("only programs of this machine are let out"),
        "{said}"
    );
}

#[test]
fn proxy_what_cannot_be_reached_is_said_in_words() {
    in_namespace!(Unprivileged);
    let program = up();
    let door = Door::open(&program, "-n shop");
    for (words, status, says) in [
        (
            "http://wep.default.svc.localhost:PORT/",
            "404",
            "there is no Service wep in namespace default",
        ),
        (
            "http://web.svc.localhost:PORT/",
            "404",
            "write NAME.NAMESPACE.svc.localhost",
        ),
        (
            "http://many.shop.svc.localhost:PORT/",
            "404",
            "has 9000 (admin), 8080 (api-1); say which",
        ),
        (
            "http://81.web.default.svc.localhost:PORT/",
            "404",
            "has no TCP port 81; it has 80",
        ),
        (
            "--proxy http://DOOR http://web/",
            "404",
            "there is no name web",
        ),
        (
            "--proxy http://DOOR http://many:81/",
            "404",
            "Service shop/many has no TCP port 81",
        ),
        (
            "--proxy http://DOOR http://127.0.0.1:1/",
            "502",
            "cannot reach 127.0.0.1 at 127.0.0.1:1: Connection refused",
        ),
        (
            "-H Host:evil.example http://DOOR/",
            "421",
            "evil.example is no name of this door",
        ),
        ("http://DOOR/", "200", "svc.localhost"),
        ("http://DOOR/proxy.pac", "200", "FindProxyForURL"),
    ] {
        let (found, body) = door.curl(words);
        assert!(
            found == status && body.contains(says),
            "{words}: {found} {body}"
        );
    }
    let (_, said) = door.curl("--proxy socks5h://DOOR http://nobody.default/");
    assert!(said.contains("(4)"), "{said}");
    // A client that goes in the middle, or never says anything sensible, costs its own connection only.
    for bytes in [
        &b"\x05"[..],
        b"\x05\x01\x00\x05\x01\x00\x03\xff",
        b"\x04\x01\x00\x50",
        b"\xff\xff\r\n\r\n",
    ] {
        drop(door.raw(bytes));
    }
    let mut rest = Vec::new();
    let mut old = door.raw(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00");
    old.read_to_end(&mut rest).unwrap();
    assert_eq!(rest[..2], [0, 0x5b]);
    let (status, _) = door.curl("--proxy http://DOOR http://many:8080/");
    assert_eq!(status, "200");
}

#[test]
fn proxy_an_upgrade_is_a_pipe_and_a_reset_stays_one() {
    in_namespace!(Unprivileged);
    let program = up();
    let door = Door::open(&program, "--address 127.0.0.1:0");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let origin = std::thread::spawn(move || {
        let (stream, _) = server.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let mut stream = stream;
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst")
            .unwrap();
        let mut said = [0; 4];
        reader.read_exact(&mut said).unwrap();
        stream.write_all(&said).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        head
    });
    let mut client = door.raw(
        format!("GET http://{to}/ws?x HTTP/1.1\r\nHost: other\r\nProxy-Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nping")
            .as_bytes(),
    );
    let mut all = Vec::new();
    let end = client.read_to_end(&mut all);
    let text = String::from_utf8(all).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\nfirstping"),
        "{text}"
    );
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let head = origin.join().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /ws?x http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {to}\r\n")) && !head.contains("proxy-connection"),
        "{head}"
    );
}

#[test]
fn env_has_the_variables_of_kubernetes_with_the_ports_that_are_served() {
    in_namespace!(Unprivileged);
    let program = up();
    let output = program.command(&["env", "-n", "shop"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "MANY_SERVICE_HOST=127.96.0.81",
        "MANY_SERVICE_PORT=9000",
        "MANY_SERVICE_PORT_ADMIN=9000",
        "MANY_SERVICE_PORT_API_1=8080",
        "MANY_PORT=tcp://127.96.0.81:9000",
        "MANY_PORT_9000_TCP=tcp://127.96.0.81:9000",
        "MANY_PORT_9000_TCP_PROTO=tcp",
        "MANY_PORT_9000_TCP_PORT=9000",
        "MANY_PORT_9000_TCP_ADDR=127.96.0.81",
        "MANY_PORT_8080_TCP=tcp://127.96.0.81:8080",
        "MANY_PORT_8080_TCP_PROTO=tcp",
        "MANY_PORT_8080_TCP_PORT=8080",
        "MANY_PORT_8080_TCP_ADDR=127.96.0.81",
    ];
    assert_eq!(lines, expected);
    // Port 80 may not be bound, so that another number is served; headless Services and aliases have none.
    let output = program.command(&["env"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("WEB_SERVICE_PORT=10080\n") && text.contains("WEB_PORT_80_TCP_PORT=10080\n")
    );
    assert!(
        !text.contains("PODS_") && !text.contains("ALIAS_"),
        "{text}"
    );
    let output = program.command(&["env", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn proxy_a_browser_gets_there_with_nothing_set_up_and_by_each_kind_of_proxy() {
    in_namespace!(Unprivileged);
    if !is_installed("chromium") {
        return;
    }
    let program = up();
    let door = Door::open(&program, "");
    let home = tempfile::tempdir().unwrap();
    for words in [
        "http://web.default.svc.localhost:PORT/",
        "--proxy-server=socks5://DOOR http://web/",
        "--proxy-pac-url=http://DOOR/proxy.pac http://web.default.svc.cluster.local/",
    ] {
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
            .arg(format!("--user-data-dir={}", home.path().display()))
            .args(door.meant(words).split(' '))
            .output()
            .unwrap();
        let page = String::from_utf8_lossy(&output.stdout);
        assert!(page.contains(">web-"), "{words}: {page}");
    }
}
