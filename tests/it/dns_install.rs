//! `portico dns`: against the real files of a machine, in a mount namespace with a copy of /etc; lookups are those of the C
//! library. systemd-resolved cannot run there: programs of its and systemctl's names stand in for them, and another
//! portico answers where it would.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::Path,
    process::{Child, Command, Output},
    thread,
};

use crate::support::{
    is_installed,
    namespace::in_namespace,
    program::{Program, portico},
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const JOURNAL: &str = "/var/lib/portico/dns.json";
const DROP_IN: &str = "/etc/systemd/resolved.conf.d/portico.conf";
/// What the machine had: names of others are known at an address of the test's.
const FORMER: &str = "# our office\nnameserver 127.0.0.2\nsearch corp.example\n";
const WEB: &str = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 127.96.7.7, ports: [{port: 80}]}}";
const CRASH: &str = "PORTICO_TEST_CRASH_AFTER";

/// A machine with these files, whose DNS server knows example.com, and portico on it.
struct Machine(Program);

impl Machine {
    fn new(args: &[&str]) -> Self {
        assert!(
            Path::new("/etc/portico-test").exists(),
            "this is not a copy of /etc"
        );
        fs::write(RESOLV_CONF, FORMER).unwrap();
        fs::write("/etc/nsswitch.conf", "hosts: files dns\n").unwrap();
        fs::write("/etc/hosts", "127.0.0.1 localhost\n").unwrap();
        let server = UdpSocket::bind("127.0.0.2:53").unwrap();
        thread::spawn(move || answer(&server));
        Self(Program::up(args, &[("web.yaml", WEB)]))
    }

    fn dns(&self, args: &[&str]) -> Output {
        self.0.command(&[&["dns"], args].concat())
    }

    /// The same, cut off after a step.
    fn crash(&self, what: &str, step: &str) {
        let mut command = self.0.shell(&format!("exec portico dns {what}"));
        let output = command.env(CRASH, step).output().unwrap();
        // SIGABRT
        assert_eq!(output.status.signal(), Some(6), "{step}: {output:?}");
    }
}

/// The DNS server of the office: example.com is 127.9.9.9, of other names there is no record.
fn answer(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let asks = b"\x07example\x03com\0\0\x01";
        let mut reply = query[..length].to_vec();
        let end = reply[12..].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
        let known = reply[12..].starts_with(asks);
        reply.truncate(end);
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
        if known {
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x7f\x09\x09\x09");
        }
        let _ = socket.send_to(&reply, from);
    }
}

/// What a program of this machine gets for a name: lines, or the resolver's words.
fn look_up(name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = portico(folder.path())
        .args(["__lookup", name])
        .output()
        .unwrap();
    said(&output)
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.trim_end().to_owned()
}

/// Succeeds, and says so.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output)
}

/// Content and identity: the very file.
fn file() -> (u64, u32, String) {
    let data = fs::metadata(RESOLV_CONF).unwrap();
    (
        data.ino(),
        data.mode(),
        fs::read_to_string(RESOLV_CONF).unwrap(),
    )
}

/// Names that are in the folder of the file.
fn of_ours() -> Vec<String> {
    let entries = fs::read_dir("/etc").unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.contains("resolv.conf"))
        .collect();
    names.sort();
    names
}

#[test]
fn install_makes_every_program_ask_and_uninstall_gives_the_very_file_back() {
    in_namespace!(OwnFiles);
    let mut machine = Machine::new(&[]);
    let before = file();
    assert_eq!(look_up("example.com"), "127.9.9.9");
    let status = done(&machine.dns(&["status"]));
    assert!(status.starts_with("not installed"), "{status}");

    let dry = done(&machine.dns(&["install", "--dry-run"]));
    let lines = "\n    nameserver 127.96.0.10\n    search default.svc.cluster.local svc.cluster.local cluster.local \
                 corp.example\n    options ndots:2 timeout:2 attempts:2\n";
    assert!(dry.contains(lines), "{dry}");
    assert!(dry.contains("ns.dns.cluster.local"), "{dry}");
    assert_eq!(file(), before);
    assert!(!Path::new(JOURNAL).exists());

    let text = done(&machine.dns(&["install"]));
    assert!(
        text.contains("ns.dns.cluster.local is 127.96.0.10"),
        "{text}"
    );
    assert!(text.contains("example.com is 127.9.9.9"), "{text}");
    assert!(
        text.contains("warning: while portico does not run"),
        "{text}"
    );
    assert_eq!(look_up("web"), "127.96.7.7");
    assert_eq!(look_up("web.default.svc.cluster.local"), "127.96.7.7");
    // It goes on asking the servers that the file named, also after a restart.
    let upstreams = |machine: &Machine| {
        let status = machine.0.status();
        status
            .dns_upstreams
            .iter()
            .map(|one| one.server.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(upstreams(&machine), ["127.0.0.2:53"]);
    machine.0.restart();
    assert_eq!(look_up("example.com"), "127.9.9.9");
    assert_eq!(upstreams(&machine), ["127.0.0.2:53"]);

    let again = done(&machine.dns(&["install"]));
    assert!(again.contains("nothing to do"), "{again}");
    let status = done(&machine.dns(&["status", "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["standing"], "installed");
    assert_eq!(status["way"], "resolv.conf");
    assert_eq!(status["works"], true);
    assert_eq!(status["writer"], "nobody");
    let dry = done(&machine.dns(&["install", "-n", "shop", "--dry-run"]));
    let first = "would first rename /etc/resolv.conf.before-portico to /etc/resolv.conf\n";
    assert!(dry.starts_with(first), "{dry}");
    // Another namespace is another file, and the same former one.
    done(&machine.dns(&["install", "-n", "shop"]));
    assert!(file().2.contains("search shop.svc.cluster.local"));
    assert_eq!(look_up("web.default"), "127.96.7.7");

    // The port is lost to somebody else.
    machine.0.signal("TERM");
    machine.0.ended();
    let _taken = TcpListener::bind("127.96.0.10:53").unwrap();
    machine.0.restart();
    let said = machine.0.stderr();
    assert!(
        said.contains("this machine's resolver asks where DNS is not answered"),
        "{said}"
    );
    let text = refused(&machine.dns(&["status"]));
    assert!(text.contains("which does not lead to portico"), "{text}");

    let text = done(&machine.dns(&["uninstall"]));
    assert!(text.contains("as it was before"), "{text}");
    assert_eq!(file(), before);
    assert_eq!(of_ours(), ["resolv.conf"]);
    assert!(!Path::new(JOURNAL).exists());
    let text = done(&machine.dns(&["uninstall"]));
    assert!(text.starts_with("nothing to do"), "{text}");
    assert_eq!(look_up("example.com"), "127.9.9.9");
}

/// Steps of an install, after the last of which it is done.
const STEPS: &[&str] = &["journal", "keep", "write", "command", "lookup", "installed"];

#[test]
fn install_cut_off_after_any_step_is_told_and_undone_by_whoever_comes_next() {
    in_namespace!(OwnFiles);
    if !cfg!(debug_assertions) {
        println!("skipped: a release build is not cut off");
        return;
    }
    let mut machine = Machine::new(&[]);
    let before = file();
    let check = |machine: &Machine, what: &str| {
        assert_eq!(file(), before, "{what}");
        assert_eq!(of_ours(), ["resolv.conf"], "{what}");
        assert!(!Path::new(JOURNAL).exists(), "{what}");
        assert_eq!(look_up("example.com"), "127.9.9.9", "{what}");
        done(&machine.dns(&["status"]));
    };
    for step in STEPS {
        let is_whole = *step == "installed";
        machine.crash("install", step);
        let status = machine.dns(&["status"]);
        assert_eq!(status.status.code(), Some(i32::from(!is_whole)), "{step}");
        let word = if is_whole { "installed" } else { "half done" };
        assert!(said(&status).starts_with(word), "{step}: {}", said(&status));
        done(&machine.dns(&["uninstall"]));
        check(&machine, step);

        machine.crash("install", step);
        machine.0.signal("KILL");
        machine.0.restart();
        if is_whole {
            done(&machine.dns(&["uninstall"]));
        }
        check(&machine, &format!("{step}, and a start"));

        machine.crash("install", step);
        done(&machine.dns(&["install"]));
        assert_eq!(look_up("web"), "127.96.7.7");
        done(&machine.dns(&["uninstall"]));
        check(&machine, &format!("{step}, and an install"));
    }
    for step in ["undo journal", "undo file", "undo command"] {
        done(&machine.dns(&["install"]));
        machine.crash("uninstall", step);
        refused(&machine.dns(&["status"]));
        machine.0.signal("KILL");
        machine.0.restart();
        check(&machine, step);
    }
    // What a killed program leaves of its own is taken over, too.
    machine.0.signal("KILL");
    machine.0.restart();
    let folder = machine.0.manifests().parent().unwrap().join("run");
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["api.sock", "lock", "run.sock"]);
}

#[test]
fn uninstall_leaves_what_others_wrote_since_and_says_so() {
    in_namespace!(OwnFiles);
    let machine = Machine::new(&[]);
    done(&machine.dns(&["install"]));
    // As careful programs write.
    fs::write("/etc/new", "nameserver 127.0.0.2\n").unwrap();
    fs::rename("/etc/new", RESOLV_CONF).unwrap();
    let text = refused(&machine.dns(&["status"]));
    assert!(
        text.starts_with("gone: somebody has written another"),
        "{text}"
    );
    let text = done(&machine.dns(&["uninstall"]));
    assert!(text.contains("resolv.conf.before-portico"), "{text}");
    assert_eq!(file().2, "nameserver 127.0.0.2\n");

    done(&machine.dns(&["install"]));
    let edited = file().2 + "options edns0\n";
    fs::write(RESOLV_CONF, &edited).unwrap();
    let text = refused(&machine.dns(&["uninstall"]));
    let fix = "sudo mv /etc/resolv.conf.before-portico /etc/resolv.conf";
    assert!(text.contains(fix), "{text}");
    assert_eq!(file().2, edited);
    fs::rename("/etc/resolv.conf.before-portico", RESOLV_CONF).unwrap();
    done(&machine.dns(&["uninstall"]));
    assert_eq!(file().2, "nameserver 127.0.0.2\n");
    assert_eq!(of_ours(), ["resolv.conf"]);
}

#[test]
fn install_that_does_not_lead_to_portico_undoes_itself() {
    in_namespace!(OwnFiles);
    // Nobody is there, so that names of others do not resolve through it.
    let machine = Machine::new(&["--dns-upstream", "127.0.0.99"]);
    let before = file();
    let text = refused(&machine.dns(&["install"]));
    assert!(
        text.contains("names of others do not resolve any more: example.com: "),
        "{text}"
    );
    assert_eq!(file(), before);
    fs::write("/etc/hosts", "127.3.3.3 ns.dns.cluster.local\n").unwrap();
    let text = refused(&machine.dns(&["install"]));
    assert!(
        text.contains("ns.dns.cluster.local is 127.3.3.3, and should be 127.96.0.10"),
        "{text}"
    );
    assert_eq!(file(), before);
    assert_eq!(of_ours(), ["resolv.conf"]);
    assert!(!Path::new(JOURNAL).exists());
}

#[test]
fn install_where_another_program_writes_the_file_says_what_to_type_and_writes_nothing() {
    in_namespace!(OwnFiles);
    let machine = Machine::new(&[]);
    let theirs = "# Generated by NetworkManager\nnameserver 127.0.0.2\n";
    fs::write(RESOLV_CONF, theirs).unwrap();
    let text = refused(&machine.dns(&["install"]));
    assert!(text.contains("written by NetworkManager"), "{text}");
    assert!(
        text.contains("/etc/NetworkManager/dnsmasq.d/portico.conf"),
        "{text}"
    );
    assert_eq!(file().2, theirs);
    assert!(!Path::new(JOURNAL).exists());
    // As a container engine does it.
    fs::write("/etc/mounted", "nameserver 127.0.0.2\n").unwrap();
    let mounted = Command::new("mount")
        .args(["--bind", "/etc/mounted", RESOLV_CONF])
        .status()
        .unwrap();
    assert!(mounted.success());
    let text = refused(&machine.dns(&["install"]));
    assert!(text.contains("--dns 127.96.0.10"), "{text}");
}

/// A process that the kernel knows by the name of systemd-resolved, and a systemctl that writes down what it was told.
struct FakeSystemd {
    folder: tempfile::TempDir,
    child: Child,
}

impl FakeSystemd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let resolved = folder.path().join("systemd-resolved");
        fs::copy("/bin/sleep", &resolved).unwrap();
        let child = Command::new(resolved).arg("600").spawn().unwrap();
        let calls = folder.path().join("calls");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo 'systemd 252 (252.1)'; exit; }}\necho \"$*\" >> {}\n",
            calls.display()
        );
        let path = folder.path().join("systemctl");
        fs::write(&path, script).unwrap();
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
        Self { folder, child }
    }

    /// `portico dns ARGS` where that is the systemctl.
    fn dns(&self, machine: &Machine, args: &str) -> Output {
        let script = format!(
            "PATH={}:$PATH portico dns {args}",
            self.folder.path().display()
        );
        machine.0.shell(&script).output().unwrap()
    }

    fn calls(&self) -> usize {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        assert!(
            calls
                .lines()
                .all(|call| call == "restart systemd-resolved.service"),
            "{calls}"
        );
        calls.lines().count()
    }
}

impl Drop for FakeSystemd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn install_with_resolved_writes_settings_beside_the_others_and_restarts_it() {
    in_namespace!(OwnFiles);
    if !is_installed("sleep") {
        return;
    }
    let machine = Machine::new(&["--dns-listen", "127.96.0.10:10053"]);
    let _ = fs::remove_dir_all("/etc/systemd/resolved.conf.d");
    fs::create_dir_all("/etc/systemd").unwrap();
    fs::write(RESOLV_CONF, "nameserver 127.0.0.53\n").unwrap();
    let text = refused(&machine.dns(&["install"]));
    assert!(
        text.contains("sudo systemctl start systemd-resolved.service"),
        "{text}"
    );

    let systemd = FakeSystemd::start();
    // Nobody answers there yet: the settings come to nothing and go.
    let text = refused(&systemd.dns(&machine, "install"));
    assert!(
        text.contains("does not lead to portico: ns.dns.cluster.local: "),
        "{text}"
    );
    assert!(!Path::new(DROP_IN).parent().unwrap().exists());
    assert_eq!(systemd.calls(), 2, "once for each change");

    let others = [
        "--instance",
        "other",
        "--cluster-domain",
        "other.test",
        "--dns-listen",
        "127.0.0.53:53",
    ];
    let _resolved = Program::up(
        &[&others[..], &["--dns-upstream", "127.96.0.10:10053"]].concat(),
        &[(
            "none.yaml",
            "{apiVersion: v1, kind: Namespace, metadata: {name: none}}",
        )],
    );
    done(&systemd.dns(&machine, "install"));
    assert_eq!(systemd.calls(), 3);
    let settings = fs::read_to_string(DROP_IN).unwrap();
    assert!(
        settings
            .ends_with("\n[Resolve]\nDNS=127.96.0.10:10053\nDomains=~cluster.local ~svc.local\n"),
        "{settings}"
    );
    assert_eq!(file().2, "nameserver 127.0.0.53\n");
    done(&systemd.dns(&machine, "install"));
    assert_eq!(systemd.calls(), 3, "nothing to do");
    let text = done(&systemd.dns(&machine, "status"));
    assert!(
        text.contains("installed: /etc/systemd/resolved.conf.d/portico.conf"),
        "{text}"
    );
    let dry = done(&systemd.dns(&machine, "uninstall --dry-run"));
    let steps =
        format!("would remove {DROP_IN}\nwould run: systemctl restart systemd-resolved.service");
    assert_eq!(dry, steps);
    assert_eq!(systemd.calls(), 3);
    done(&systemd.dns(&machine, "uninstall"));
    assert_eq!(systemd.calls(), 4);
    assert!(!Path::new(DROP_IN).parent().unwrap().exists());

    // What somebody has there comes back.
    fs::create_dir(Path::new(DROP_IN).parent().unwrap()).unwrap();
    let theirs = "[Resolve]\nDNS=127.0.0.2\n";
    fs::write(DROP_IN, theirs).unwrap();
    done(&systemd.dns(&machine, "install"));
    assert!(fs::read_to_string(DROP_IN).unwrap().contains("127.96.0.10"));
    done(&systemd.dns(&machine, "uninstall"));
    assert_eq!(fs::read_to_string(DROP_IN).unwrap(), theirs);
}

#[test]
fn dns_without_root_says_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let program = portico(folder.path());
    let mut command = if rustix::process::geteuid().is_root() {
        if !is_installed("setpriv") {
            return;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups"]);
        command.arg(program.get_program());
        command
    } else {
        program
    };
    let output = command
        .args(["dns", "uninstall", "--instance", "blue"])
        .output()
        .unwrap();
    if said(&output).starts_with("setpriv: ") {
        println!("skipped: {}", said(&output));
        return;
    }
    let text = refused(&output);
    assert!(
        text.contains("\n  sudo ") && text.contains(" dns uninstall --instance blue"),
        "{text}"
    );
}
