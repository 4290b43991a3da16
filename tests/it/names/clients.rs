//! What resolvers of C libraries make of our answers: glibc by getent(1) and busybox, musl by a program of few lines.
//! Each has a resolv.conf(5) of its own, mounted over the machine's.

use std::{
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::support::{namespace::in_namespace, program::Program};

/// As a pod of namespace default has it.
const POD: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2 attempts:1\n";
/// The namespace `web` exists: the first candidate for `web` has no records.
const NODATA_FIRST: &str =
    "search svc.cluster.local default.svc.cluster.local\noptions ndots:5 timeout:2 attempts:1\n";

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 127.96.7.7, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: big}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: big-1, labels: {kubernetes.io/service-name: big}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
";

/// Prints the addresses of a name, or why there is none.
const MUSL: &str = r"
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int count, char **words) {
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found;
    int code = getaddrinfo(words[1], 0, &hints, &found);
    if (code) { puts(gai_strerror(code)); return 1; }
    for (; found; found = found->ai_next) {
        char text[64];
        void *addr = found->ai_family == AF_INET
            ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
            : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, addr, text, sizeof text));
    }
}
";

/// The program, and where clients have their files.
struct Clients {
    folder: tempfile::TempDir,
    _program: Program,
}

impl Clients {
    /// Answers at the address that clients have in their resolv.conf, in front of `more` lines.
    fn new(more: &str) -> Self {
        let endpoints = (1..=60).map(|last| format!("- {{addresses: [127.0.9.{last}]}}\n"));
        let endpoints: Vec<String> = endpoints.collect();
        let manifests = MANIFESTS.to_owned() + &endpoints.concat();
        let program = Program::up(&[], &[("all.yaml", &manifests)]);
        let server = program.status().dns[0].bound.unwrap();
        assert_eq!(server.port(), 53);
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "resolv.conf",
            &format!("nameserver {}\n{more}", server.ip()),
        );
        write("nsswitch.conf", "hosts: dns\n");
        Self {
            folder,
            _program: program,
        }
    }

    /// Runs a command with these files; `None` if it is not there, which is printed.
    fn run(&self, command: &Path, args: &[&str]) -> Option<Output> {
        if let Err(error) = Command::new(command).output() {
            println!("skipped: {} cannot be run: {error}", command.display());
            return None;
        }
        let script = r#"mount --bind "$0/resolv.conf" /etc/resolv.conf &&
            mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && exec "$@""#;
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(self.folder.path())
            .arg(command)
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("mount"), "{stderr}");
        Some(output)
    }

    /// The addresses that glibc gives, each once; none with the exit code of "not found".
    fn glibc(&self, database: &str, name: &str) -> Option<Vec<String>> {
        let output = self.run(Path::new("getent"), &[database, name])?;
        let mut addresses = lines(&output);
        for line in &mut addresses {
            line.truncate(line.find(' ').unwrap_or(line.len()));
        }
        addresses.sort();
        addresses.dedup();
        assert_eq!(output.status.success(), !addresses.is_empty());
        Some(addresses)
    }

    /// The program against musl, linked statically.
    fn musl(&self) -> Option<PathBuf> {
        let (source, program) = (
            self.folder.path().join("ask.c"),
            self.folder.path().join("ask"),
        );
        std::fs::write(&source, MUSL).unwrap();
        let compiled = Command::new("musl-gcc")
            .args(["-static", "-o"])
            .args([&program, &source])
            .output();
        match compiled {
            Ok(output) if output.status.success() => Some(program),
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                println!("skipped: musl-gcc cannot be run: {error}");
                None
            }
        }
    }
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn glibc_resolves_names_aliases_and_sixty_addresses() {
    in_namespace!(Root);
    let clients = Clients::new(POD);
    for name in [
        "web",
        "web.default",
        "web.default.svc.cluster.local.",
        "alias",
    ] {
        let Some(found) = clients.glibc("ahosts", name) else {
            return;
        };
        assert_eq!(found, ["127.96.7.7"], "{name}");
    }
    // Truncated over UDP: asked again over TCP.
    let all = clients.glibc("ahosts", "big").unwrap();
    assert_eq!(all.len(), 60, "{all:?}");
    assert_eq!(clients.glibc("ahosts", "nobody"), Some(Vec::new()));
}

#[test]
fn glibc_takes_no_records_for_an_answer_and_asks_nobody_else() {
    in_namespace!(Root);
    let other = UdpSocket::bind("127.0.0.54:53").unwrap();
    other.set_nonblocking(true).unwrap();
    let clients = Clients::new(&format!("nameserver 127.0.0.54\n{POD}"));
    // It asks for an IPv6 address first: an empty answer without recursion or authority would count as a lame server's.
    let name = "web.default.svc.cluster.local.";
    let Some(found) = clients.glibc("hosts", name) else {
        return;
    };
    assert_eq!(found, ["127.96.7.7"]);
    let none: [&str; 0] = [];
    assert_eq!(
        clients
            .glibc("ahosts", "nobody.default.svc.cluster.local.")
            .unwrap(),
        none
    );
    let asked = other.recv(&mut [0; 512]).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock));
}

#[test]
fn glibc_goes_on_after_a_name_without_records_and_musl_ends_there() {
    in_namespace!(Root);
    let clients = Clients::new(NODATA_FIRST);
    if let Some(found) = clients.glibc("ahosts", "web") {
        assert_eq!(found, ["127.96.7.7"]);
    }
    if let Some(musl) = clients.musl() {
        let output = clients.run(&musl, &["web"]).unwrap();
        assert!(!output.status.success(), "{:?}", lines(&output));
    }
}

#[test]
fn musl_resolves_names_aliases_and_what_fits_a_datagram() {
    in_namespace!(Root);
    let clients = Clients::new(POD);
    let Some(musl) = clients.musl() else {
        return;
    };
    let ask = |name: &str| {
        let output = clients.run(&musl, &[name]).unwrap();
        (output.status.success(), lines(&output))
    };
    for name in [
        "web",
        "web.default",
        "web.default.svc.cluster.local.",
        "alias",
    ] {
        assert_eq!(ask(name), (true, vec!["127.96.7.7".to_owned()]), "{name}");
    }
    // Up to 1.2.3 it knows no TCP and takes the part that it gets, which is never empty.
    let (is_found, found) = ask("big");
    assert!(is_found && found.len() >= 29, "{found:?}");
    assert!(!ask("nobody").0);
}

#[test]
fn busybox_nslookup_shows_the_address_by_name_and_back() {
    in_namespace!(Root);
    let clients = Clients::new(POD);
    let busybox = Path::new("busybox");
    for (asked, expected) in [
        ("web.default.svc.cluster.local", "127.96.7.7"),
        ("alias.default.svc.cluster.local", "127.96.7.7"),
        ("127.96.7.7", "web.default.svc.cluster.local"),
    ] {
        let Some(output) = clients.run(busybox, &["nslookup", asked]) else {
            return;
        };
        let text = lines(&output).join("\n");
        assert!(
            text.contains(expected) && !text.contains("NXDOMAIN"),
            "{asked}: {text}"
        );
    }
    let missing = clients
        .run(busybox, &["nslookup", "nobody.default.svc.cluster.local"])
        .unwrap();
    let text = lines(&missing).join("\n") + &String::from_utf8_lossy(&missing.stderr);
    assert!(
        text.contains("NXDOMAIN") && !missing.status.success(),
        "{text}"
    );
}
