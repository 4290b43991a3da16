//! `portico doctor` on machines that were prepared to fail, each in one way: namespaces whose kernel settings, sockets
//! and files the test itself has made.

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::{
    namespace::in_namespace,
    program::{Program, portico},
};

/// A Service on a port that may be taken and one that needs a privilege.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 127.96.0.80, ports: [{name: high, port: 8080}, {name: low, port: 80}]}
";

/// What the doctor says, and its exit status.
struct Report {
    checks: Vec<Value>,
    code: i32,
}

impl Report {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
        let count = |word: &str| u64::try_from(of(&said, word).len()).unwrap();
        for word in ["ok", "warn", "no"] {
            assert_eq!(said[word], count(word), "{text}");
        }
        Self {
            checks: said["checks"].as_array().unwrap().clone(),
            code: output.status.code().unwrap(),
        }
    }

    /// That one finding of the check says this.
    #[track_caller]
    fn says(&self, check: &str, result: &str, words: &str, fix: &str) {
        let found = self.checks.iter().any(|finding| {
            let fixes = finding["fix"].as_array().unwrap();
            finding["check"] == check
                && finding["result"] == result
                && finding["text"].as_str().unwrap().contains(words)
                && (fix.is_empty() && fixes.is_empty()
                    || fixes
                        .iter()
                        .any(|text| !fix.is_empty() && text.as_str().unwrap().contains(fix)))
        });
        assert!(
            found,
            "{check} {result} '{words}' '{fix}': {:#?}",
            self.checks
        );
    }
}

fn of<'a>(said: &'a Value, word: &str) -> Vec<&'a Value> {
    let checks = said["checks"].as_array().unwrap().iter();
    checks.filter(|finding| finding["result"] == word).collect()
}

/// The doctor without a program.
fn examine(folder: &Path, args: &[&str]) -> Report {
    Report::of(
        &portico(folder)
            .args(["doctor", "-o", "json"])
            .args(args)
            .output()
            .unwrap(),
    )
}

/// The doctor as the program's own.
fn examine_beside(program: &Program) -> Report {
    Report::of(&program.command(&["doctor", "-o", "json"]))
}

/// The doctor behind `script`, which ends in `exec "$@"`.
fn examine_after(script: &str, folder: &Path) -> Report {
    let doctor = portico(folder);
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(doctor.get_program())
        .args(["doctor", "-o", "json"])
        .envs(
            doctor
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    Report::of(&output)
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(Path::new("/proc/sys").join(name), value).unwrap();
}

#[test]
fn low_ports_and_dns_without_privilege_name_both_ways_out() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let report = examine(folder.path(), &[]);
    let sysctl = "sudo sysctl net.ipv4.ip_unprivileged_port_start=53";
    report.says(
        "low ports",
        "warn",
        "127.96.0.10:80: Permission denied",
        sysctl,
    );
    report.says("low ports", "warn", "no_new_privs", sysctl);
    report.says("dns", "warn", "127.96.0.10:53: Permission denied", sysctl);
    report.says(
        "addresses",
        "ok",
        "127.96.0.10 can be bound and reached",
        "",
    );
    report.says(
        "program",
        "warn",
        "nothing runs as instance 'default'",
        "portico up",
    );
    report.says("ports", "ok", "nobody listens", "");
}

#[test]
fn low_ports_that_the_kernel_leaves_to_everybody_are_ok() {
    in_namespace!(Root);
    sysctl("net/ipv4/ip_unprivileged_port_start", "80");
    let folder = tempfile::tempdir().unwrap();
    let report = examine_after(
        r#"exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@""#,
        folder.path(),
    );
    report.says("low ports", "ok", "ip_unprivileged_port_start=80", "");
    report.says(
        "dns",
        "warn",
        "127.96.0.10:53: Permission denied",
        "ip_unprivileged_port_start=53",
    );
}

#[test]
fn low_ports_with_the_capability_are_ok() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let report = examine(folder.path(), &[]);
    report.says("low ports", "ok", "CAP_NET_BIND_SERVICE", "");
    report.says("dns", "ok", "127.96.0.10:53 is free", "");
}

#[test]
fn loopback_that_is_down_is_a_no() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let report = examine_after(r#"exec unshare -n "$@""#, folder.path());
    report.says("addresses", "no", "127.96.0.10", "sudo ip link set lo up");
    assert_eq!(report.code, 1);
}

#[test]
fn wildcard_listener_is_named_without_services_with_a_folder_and_by_the_program() {
    in_namespace!(Root);
    let _taken = TcpListener::bind("0.0.0.0:8080").unwrap();
    let me = std::fs::read_to_string("/proc/self/comm").unwrap();
    let (me, pid) = (me.trim(), std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("web.yaml");
    std::fs::write(&manifest, WEB).unwrap();

    let report = examine(folder.path(), &[]);
    report.says("ports", "ok", &format!("8080 ({me})"), "");

    let report = examine(folder.path(), &["-f", manifest.to_str().unwrap()]);
    let words = format!(
        "127.96.0.80:8080 (default/web): Address already in use (os error 98), held by {me} (pid {pid}) \
         on 0.0.0.0:8080; served at 127.96.0.80:18080"
    );
    let fix = format!("stop it (kill {pid}), or bind it to 127.0.0.1");
    report.says("ports", "warn", &words, &fix);
    assert_eq!(
        report
            .checks
            .iter()
            .filter(|check| check["check"] == "ports")
            .count(),
        1,
        "80 is free"
    );

    let program = Program::up(&[], &[("web.yaml", WEB)]);
    let report = examine_beside(&program);
    report.says("ports", "warn", "served at 127.96.0.80:18080", &fix);
    report.says("program", "ok", &format!("pid {}", program.pid()), "");
    report.says("dns", "ok", "answered at 127.96.0.10:53", "");
    // What the program has itself is in nobody's way.
    let args = ["doctor", "-o", "json", "-f", manifest.to_str().unwrap()];
    let report = Report::of(&program.command(&args));
    assert_eq!(
        report
            .checks
            .iter()
            .filter(|check| check["check"] == "ports")
            .count(),
        1
    );
    assert_eq!(report.code, 0);
}

#[test]
fn dns_port_taken_by_a_wildcard_is_a_warning_and_by_the_stub_of_resolved_is_none() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let stub = (
        UdpSocket::bind("127.0.0.53:53").unwrap(),
        TcpListener::bind("127.0.0.53:53").unwrap(),
    );
    examine(folder.path(), &[]).says("dns", "ok", "127.96.0.10:53 is free", "");
    drop(stub);
    let _taken = UdpSocket::bind("0.0.0.0:53").unwrap();
    let pid = std::process::id();
    let report = examine(folder.path(), &[]);
    report.says(
        "dns",
        "warn",
        "UDP 127.96.0.10:53: Address already in use",
        &format!("kill {pid}"),
    );
    let program = Program::up(&[], &[("web.yaml", WEB)]);
    let report = examine_beside(&program);
    report.says(
        "dns",
        "warn",
        "answered at 127.96.0.10:10053 and not 127.96.0.10:53",
        &format!("kill {pid}"),
    );
}

#[test]
fn names_are_known_once_the_machine_asks_our_dns() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("web.yaml", WEB)]);
    let report = examine_beside(&program);
    report.says(
        "names",
        "warn",
        "does not know ns.dns.cluster.local",
        "dns install",
    );
    // Files of the machine, in a mount namespace that ends with the command.
    let script = r#"
        set -e
        printf 'nameserver 127.96.0.10\n' > "$PORTICO_RUNTIME_DIR/resolv.conf"
        printf 'hosts: files dns\n' > "$PORTICO_RUNTIME_DIR/nsswitch.conf"
        mount --bind "$PORTICO_RUNTIME_DIR/resolv.conf" /etc/resolv.conf
        mount --bind "$PORTICO_RUNTIME_DIR/nsswitch.conf" /etc/nsswitch.conf
        exec portico doctor -o json"#;
    let shell = program.shell(script);
    let mut inside = Command::new("unshare");
    inside
        .args(["-m", "--"])
        .arg(shell.get_program())
        .args(shell.get_args());
    inside.envs(
        shell
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = inside.output().unwrap();
    let report = Report::of(&output);
    report.says(
        "names",
        "ok",
        "knows ns.dns.cluster.local, so every program does",
        "",
    );
    // Our DNS says what RFC 6761 has everybody say.
    report.says("localhost", "ok", "web.default.svc.localhost", "");
}

#[test]
fn namespaces_that_are_forbidden_are_a_no_and_without_a_way_out_a_warning() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let without_path = examine_after(r#"PATH=/nowhere exec "$@""#, folder.path());
    without_path.says(
        "run",
        "warn",
        "slirp4netns is not installed",
        "install slirp4netns",
    );
    // Of this user namespace and all below it (namespaces(7)).
    sysctl("user/max_user_namespaces", "0");
    let report = examine_after(
        r#"exec setpriv --bounding-set=-all --inh-caps=-all "$@""#,
        folder.path(),
    );
    report.says(
        "run",
        "no",
        "user.max_user_namespaces is 0",
        "user.max_user_namespaces=15000",
    );
    report.says(
        "run",
        "no",
        "user.max_user_namespaces is 0",
        "portico proxy",
    );
    assert_eq!(report.code, 1);
}

#[test]
fn open_files_that_are_few_are_a_warning() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let report = examine_after(r#"exec prlimit --nofile=512:512 "$@""#, folder.path());
    report.says("open files", "warn", "512 at most", "sudo prlimit");
}

#[test]
fn files_that_cannot_be_watched_are_a_warning() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    // Limits of a user namespace hold for those inside (namespaces(7)).
    sysctl("user/max_inotify_instances", "0");
    let report = examine_after(r#"exec unshare -U "$@""#, folder.path());
    report.says("edits", "warn", "cannot watch files", "max_user_instances");
}

#[test]
fn kernel_settings_of_the_network_are_read_where_the_program_is() {
    in_namespace!(Root);
    sysctl("net/ipv4/ip_local_port_range", "1024 60999");
    sysctl("net/core/somaxconn", "128");
    let folder = tempfile::tempdir().unwrap();
    let report = examine(folder.path(), &[]);
    report.says(
        "local ports",
        "warn",
        "node ports 30000-32767",
        "ip_local_reserved_ports=30000-32767",
    );
    report.says("queue", "warn", "128 connections", "somaxconn=4096");
    sysctl("net/ipv4/ip_local_port_range", "60000 60999");
    let report = examine(folder.path(), &[]);
    report.says("local ports", "warn", "1000 ports", "ip_local_port_range");
}

#[test]
fn proxy_door_that_is_taken_names_who_has_it() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    examine(folder.path(), &[]).says("proxy", "ok", "127.0.0.1:7080 is free", "");
    let _taken = TcpListener::bind("127.0.0.1:7080").unwrap();
    let pid = std::process::id();
    let report = examine(folder.path(), &[]);
    report.says(
        "proxy",
        "warn",
        &format!("(pid {pid}) on 127.0.0.1:7080"),
        &format!("kill {pid}"),
    );
}

#[test]
fn ipv6_switched_off_is_a_warning() {
    in_namespace!(Root);
    sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
    let folder = tempfile::tempdir().unwrap();
    let report = examine(folder.path(), &[]);
    report.says("ipv6", "warn", "no IPv6 address", "disable_ipv6=0");
}

#[test]
fn killed_program_leaves_a_socket_and_routes_that_are_named_and_left_alone() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let program = |args: &[&str]| {
        let mut all = vec!["--runtime-dir", "", "--service-cidr", "10.96.0.0/16"];
        let run = folder.path().join("run");
        all[1] = run.to_str().unwrap();
        all.extend(args);
        Program::up(&all, &[("empty.yaml", "")])
    };
    let mut first = program(&[]);
    first.signal("KILL");
    first.ended();
    for _ in 0..2 {
        let report = examine(folder.path(), &[]);
        report.says("program", "warn", "nothing runs", "portico up");
        report.says("left over", "warn", "run/api.sock", "");
        report.says(
            "left over",
            "warn",
            "local 10.96.0.0/16 dev lo",
            "sudo ip route del local 10.96.0.0/16",
        );
    }
    let again = program(&[]);
    let report = examine(folder.path(), &[]);
    assert!(
        report
            .checks
            .iter()
            .all(|check| check["check"] != "left over"),
        "{:#?}",
        report.checks
    );
    drop(again);
}

#[test]
fn program_that_does_not_answer_is_a_no() {
    in_namespace!(Unprivileged);
    let program = Program::up(&[], &[("web.yaml", WEB)]);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    Command::new("chmod")
        .args(["700", run.to_str().unwrap()])
        .status()
        .unwrap();
    // Takes connections and closes them without a word.
    let listener = UnixListener::bind(run.join("api.sock")).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let report = examine(folder.path(), &[]);
    report.says("program", "no", "cannot be asked", "");
    assert_eq!(report.code, 1);
    examine_beside(&program).says("program", "ok", &format!("pid {}", program.pid()), "");
}

#[test]
fn text_has_a_line_a_check_and_fixes_below() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let output = portico(folder.path()).arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("ok    addresses    127.96.0.10 can be bound and reached"),
        "{text}"
    );
    assert!(
        text.contains("\n                   fix: sudo sysctl "),
        "{text}"
    );
    let last = text.lines().next_back().unwrap();
    assert!(last.ends_with(" no") && last.contains(" ok, "), "{text}");
    let output = portico(folder.path())
        .args(["doctor", "-f", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/nowhere"), "{said}");
}
