//! `portico run` as an unprivileged user has it, who may not bind port 80 of the machine: Services inside, and whether
//! everything about the program (status, signals, terminal, files) is as without it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::support::{
    PATIENCE, backend,
    host::{Host, ip},
    is_installed,
    namespace::in_namespace,
    program::{Program, portico},
};

/// Two Services of one name, one with UDP, and one with no endpoint.
const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 127.96.0.80, ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 127.96.0.81, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {clusterIP: 127.96.0.82, selector: {app: none}, ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: t, port: 18080}, {name: u, port: 18080, protocol: UDP}]
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 18081}]
endpoints: [{addresses: [127.0.0.1]}]
";

const LATER: &str = "
apiVersion: v1
kind: Service
metadata: {name: later}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: later, labels: {kubernetes.io/service-name: later}}
addressType: IPv4
ports: [{port: 18080}]
endpoints: [{addresses: [127.0.0.1]}]
";

/// The program with its backends.
fn up() -> Program {
    backend::tcp(([127, 0, 0, 1], 18080), "of default");
    backend::udp(([127, 0, 0, 1], 18080), "by datagram");
    backend::tcp(([127, 0, 0, 1], 18081), "of shop");
    Program::up(&[], &[("web.yaml", MANIFESTS)])
}

/// `portico run` with these words.
fn run(program: &Program, words: &str) -> Output {
    let output = program
        .shell(&format!("exec portico run --network none {words}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    println!("{words}: {output:?}");
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program inside that is talked to by its input and output.
struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output),
        }
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Everything up to the end of all who have its output.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }

    /// A command of kill(1), by the number of the process.
    fn kill(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn run_as_a_user_reaches_services_by_short_name_on_port_80() {
    in_namespace!(Nobody);
    let program = up();
    let output = run(&program, "-- curl -sS http://web/ http://web.shop/");
    assert_eq!(stdout(&output), "of defaultof shop");
    let output = run(&program, "-n shop -- curl -sS http://web/");
    assert_eq!(stdout(&output), "of shop");
    let resolv = stdout(&run(&program, "-n shop -- cat /etc/resolv.conf"));
    assert!(
        resolv.contains("search shop.svc.cluster.local svc.cluster.local cluster.local"),
        "{resolv}"
    );
    assert!(resolv.contains("options ndots:5"), "{resolv}");
}

/// Port 80 is served at another number outside, where the user may not bind it.
#[test]
fn run_inside_commands_print_addresses_that_are_reached_there() {
    in_namespace!(Nobody);
    let program = up();
    let outside = program.shell("portico url web").output().unwrap();
    assert!(stdout(&outside).starts_with("http://127.96.0.80:10080\n"));
    let script =
        "curl -sS $(portico url web | head -n 1); portico env web | grep ^WEB_SERVICE_PORT=";
    let output = run(&program, &format!("-- sh -c '{script}'"));
    assert_eq!(stdout(&output), "of defaultWEB_SERVICE_PORT=80\n");
}

/// bash(1) has sockets of both kinds.
#[test]
fn run_udp_answers_and_what_is_not_served_is_refused() {
    in_namespace!(Nobody);
    let program = up();
    let ask = |host: &str| {
        let script = format!("exec 3<>/dev/udp/{host}; printf who? >&3; dd bs=99 count=1 <&3");
        run(&program, &format!("-- timeout 20 bash -c '{script}'"))
    };
    assert_eq!(stdout(&ask("web/80")), "by datagram");
    for refused in ["empty/80", "web/81"] {
        let said = ask(refused);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("Connection refused"), "{refused}: {said}");
    }
    for refused in ["empty", "web:81"] {
        let output = run(&program, &format!("-- curl -sS -m 20 http://{refused}/"));
        assert_eq!(output.status.code(), Some(7), "{refused}");
    }
}

#[test]
fn run_two_at_once_have_names_of_their_namespaces_and_see_a_service_added_later() {
    in_namespace!(Nobody);
    let program = up();
    let script = "while read url; do until curl -sS $url; do :; done; echo; done";
    let start = |namespace: &str| {
        let words = format!("exec portico run -n {namespace} --network none -- sh -c '{script}'");
        Talk::start(program.shell(&words))
    };
    let mut both = [start("default"), start("shop")];
    for (one, name) in both.iter_mut().zip(["of default", "of shop"]) {
        one.say("http://web/\n");
        assert_eq!(one.line(), name);
    }
    program.write("later.yaml", LATER);
    for one in &mut both {
        one.say("http://later.default/\n");
        assert_eq!(one.line(), "of default");
    }
}

#[test]
fn run_goes_on_through_a_restart_of_the_running_portico() {
    in_namespace!(Nobody);
    let mut program = up();
    let script = "while read url; do until curl -sS $url; do :; done; echo; done";
    let words = format!("exec portico run --network none -- sh -c '{script}'");
    let mut inside = Talk::start(program.shell(&words));
    inside.say("http://web/\n");
    assert_eq!(inside.line(), "of default");
    program.restart();
    inside.say("http://web/\n");
    assert_eq!(inside.line(), "of default");
}

#[test]
fn run_ends_as_the_program_does_and_leaves_files_and_folder_as_they_are() {
    in_namespace!(Nobody);
    let program = up();
    let code = |words: &str| run(&program, words).status.code();
    assert_eq!(code("-- true"), Some(0));
    assert_eq!(code("-- sh -c 'exit 7'"), Some(7));
    assert_eq!(code("-- ./not-there"), Some(127));
    assert_eq!(code("-- /etc/passwd"), Some(126));
    let signal = |name: &str| {
        run(&program, &format!("-- sh -c 'kill -{name} $$'"))
            .status
            .signal()
    };
    assert_eq!(signal("TERM"), Some(15));
    assert_eq!(signal("KILL"), Some(9));
    assert_eq!(signal("SEGV"), Some(11));

    let both = "sh -c 'pwd; id; env | grep -v ^PORTICO_ | grep -v ^_= | sort; cat /proc/self/mountinfo >&2'";
    let outside = program.shell(both).output().unwrap();
    let inside = run(&program, &format!("-- {both}"));
    assert_eq!(stdout(&inside), stdout(&outside));
    let capabilities = stdout(&run(&program, "-- grep CapEff /proc/self/status"));
    assert_eq!(capabilities.trim(), "CapEff:\t0000000000000000");
    let before = String::from_utf8_lossy(&outside.stderr).into_owned();
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(after, before, "no mount comes out");

    // Its own commands find the same program; it may listen where it likes.
    let nested = run(
        &program,
        "-- portico run --network none -- curl -sS http://web/",
    );
    assert_eq!(stdout(&nested), "of default");
    let script = "portico get svc web -o name; echo $PORTICO_RUN";
    assert_eq!(
        stdout(&run(&program, &format!("-- sh -c '{script}'"))),
        "service/web\ndefault\n"
    );
}

#[test]
fn run_passes_input_and_signals_on() {
    in_namespace!(Nobody);
    let program = up();
    let start = |script: &str| {
        let words = format!("exec portico run --network none -- sh -c '{script}'");
        Talk::start(program.shell(&words))
    };
    let mut echo = start("cat");
    echo.say("one line\n");
    assert_eq!(echo.line(), "one line");
    drop(std::mem::replace(&mut echo.input, start("true").input));
    assert_eq!(echo.rest(), "");
    assert!(echo.child.wait().unwrap().success());

    for signal in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"] {
        let mut inside = start(&format!(
            "trap \"echo got; exit 9\" {signal}; echo up; read line"
        ));
        assert_eq!(inside.line(), "up");
        inside.kill(&format!("-{signal}"));
        assert_eq!(inside.line(), "got", "{signal}");
        assert_eq!(inside.child.wait().unwrap().code(), Some(9));
    }
    let mut inside = start("echo up; exec sleep 1000");
    assert_eq!(inside.line(), "up");
    inside.kill("-TERM");
    assert_eq!(inside.child.wait().unwrap().signal(), Some(15));
}

/// script(1) gives a terminal, whose `^C` is for every process of the group.
#[test]
fn run_on_a_terminal_interrupts_the_program_once() {
    in_namespace!(Nobody);
    if !is_installed("script") {
        return;
    }
    let program = up();
    let inside = "trap \"echo got\" INT; echo up; read line; read line; echo end; exit 5";
    std::fs::write(program.manifests().join("inside.sh"), inside).unwrap();
    // No shell stays between: it may end by the interrupt before the program does. Nor is it the user's own (SHELL), which
    // may be none.
    let command = "exec portico run --network none -- sh ./inside.sh";
    let script = format!("SHELL=/bin/sh exec script -qec '{command}' /dev/null");
    let mut terminal = Talk::start(program.shell(&script));
    assert_eq!(terminal.line(), "up");
    terminal.say("\u{3}");
    assert!(terminal.line().ends_with("got"));
    // Twice: it may have been interrupted before it began to read.
    terminal.say("go on\ngo on\n");
    let rest = terminal.rest();
    assert!(rest.contains("end") && !rest.contains("got"), "{rest:?}");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(5));
}

#[test]
fn run_killed_takes_the_program_with_it() {
    in_namespace!(Nobody);
    let program = up();
    let words = "exec portico run --network none -- sh -c 'echo $$; exec sleep 1000'";
    let mut inside = Talk::start(program.shell(words));
    let id = Pid::from_raw(inside.line().trim().parse().unwrap()).unwrap();
    let process = pidfd_open(id, PidfdFlags::empty()).unwrap();
    inside.kill("-KILL");
    // All who could write there are gone.
    assert_eq!(inside.rest(), "");
    // Its files were closed a moment before its end.
    let mut end = [PollFd::new(&process, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut end, Some(&patience)).unwrap(), 1, "it goes on");
}

#[test]
fn run_where_namespaces_are_forbidden_says_who_does_and_what_else_there_is() {
    in_namespace!(Root);
    let program = up();
    let script = "echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs portico run -- true";
    let output = program.shell(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "user.max_user_namespaces is 0",
        "sudo sysctl -w user.max_user_namespaces=",
        "portico proxy",
        "portico env",
        "portico doctor",
    ] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}

/// As root of a machine: no user namespace is needed.
#[test]
fn run_as_root_needs_no_user_namespace() {
    in_namespace!(Root);
    let program = up();
    let output = run(&program, "-- curl -sS http://web/");
    assert_eq!(stdout(&output), "of default");
    let user = std::fs::read_link("/proc/self/ns/user").unwrap();
    let inside = stdout(&run(&program, "-- readlink /proc/self/ns/user"));
    assert_eq!(inside.trim(), user.to_str().unwrap());
}

/// Networks change while a program runs: whoever manages resolv.conf puts a new file in the place of the one that is
/// covered, often behind a symbolic link.
#[test]
fn run_keeps_its_names_when_resolv_conf_is_replaced_outside() {
    in_namespace!(Root);
    let program = up();
    let script = r#"
        mount -t tmpfs none /etc && cd /etc && mkfifo go && ln -s real.conf resolv.conf || exit 1
        echo "nameserver 127.0.0.9" > real.conf
        echo "hosts: mdns4_minimal [NOTFOUND=return] dns" > nsswitch.conf
        portico run --network none -- sh -c '
            echo up; read line < go
            until grep -q "made by portico run" resolv.conf; do :; done
            curl -sS http://web/' | {
            read up; echo "nameserver 127.0.0.8" > new.conf; mv new.conf real.conf; echo > go; cat
        }
        cat real.conf"#;
    std::fs::write(program.manifests().join("replace.sh"), script).unwrap();
    let output = program
        .shell("timeout 60 unshare -m sh ./replace.sh")
        .output()
        .unwrap();
    assert_eq!(
        stdout(&output),
        "of defaultnameserver 127.0.0.8\n",
        "{output:?}"
    );
}

#[test]
fn run_that_cannot_be_says_what_is_missing() {
    in_namespace!(Root);
    let program = up();
    let said = |output: Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let script =
        "unshare -m sh -c 'mount -t tmpfs none /etc; exec portico run --network none -- true'";
    let text = said(program.shell(script).output().unwrap());
    assert!(text.contains("sudo touch /etc/resolv.conf"), "{text}");
    // Whoever is to carry connections may be the first to fail.
    let text = said(
        program
            .shell("exec portico run -n No -- true")
            .output()
            .unwrap(),
    );
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("portico: ") && last.contains("\"No\" is not a DNS label"),
        "{text}"
    );
    let script = "PATH=${PATH%%:*} exec portico run --network pasta -- true";
    let text = said(program.shell(script).output().unwrap());
    assert!(
        text.contains("pasta: ") && text.contains("no such program"),
        "{text}"
    );
    std::fs::remove_file(program.runtime_dir().join("run.sock")).unwrap();
    let text = said(run(&program, "-- true"));
    assert!(text.contains("older than `portico run`"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    let text = said(
        portico(empty.path())
            .args(["run", "--", "true"])
            .output()
            .unwrap(),
    );
    assert!(
        text.contains("no portico runs") && text.contains("portico up"),
        "{text}"
    );
}

/// What a user has: no capability outside, and another machine at the end of a cable.
#[test]
fn run_reaches_the_outside_world_by_each_carrier_and_services_all_the_same() {
    in_namespace!(Root);
    let there = Host::join();
    ip("route add default via 10.77.0.2");
    // Not the gateway's address, which stands for this machine with pasta.
    there.run(|| {
        ip("address add 10.77.1.9/32 dev lo");
        backend::tcp(([10, 77, 1, 9], 8000), "another machine");
    });
    let program = up();
    for carrier in ["pasta", "slirp4netns"] {
        if !is_installed(carrier) || !std::path::Path::new("/dev/net/tun").exists() {
            continue;
        }
        let words = format!(
            "portico run --network {carrier} -- curl -sS -m 20 http://web/ http://10.77.1.9:8000/"
        );
        let script = format!("exec unshare -U --map-user=1000 --map-group=1000 -- {words}");
        let output = program.shell(&script).output().unwrap();
        assert_eq!(
            stdout(&output),
            "of defaultanother machine",
            "{carrier}: {output:?}"
        );
    }
    let script = "PATH=${PATH%%:*} exec portico run -- /usr/bin/curl -sS http://web/";
    let output = program.shell(script).output().unwrap();
    assert_eq!(stdout(&output), "of default");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("pasta (package passt)"), "{said}");
}
