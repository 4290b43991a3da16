//! Edits under way: followed live, without losing a connection.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use crate::support::{
    get,
    namespace::in_namespace,
    program::{Program, way},
};

/// A backend that counts and answers until the end of the process.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut request = [0; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok\n");
            });
        }
    });
    addr
}

fn slice(name: &str, backends: &[SocketAddr]) -> String {
    let mut text = String::new();
    for (index, backend) in backends.iter().enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{index}\n  labels:\n    \
             kubernetes.io/service-name: {name}\naddressType: IPv4\nports:\n  - port: {}\nendpoints:\n  - addresses: [\"{}\"]\n",
            backend.port(),
            backend.ip()
        );
    }
    text
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n    - port: 80\n";

/// Ten thousand by the measure is a benchmark; this many prove the same here and stay quick.
const EDITS: usize = 400;

#[test]
fn edits_under_load_fail_no_connection_and_leak_nothing() {
    in_namespace!(Root);
    let backends: Vec<SocketAddr> = (0..4).map(|_| backend()).collect();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", SERVICE),
            ("slices.yaml", &slice("web", &backends)),
        ],
    );
    let web = way(&program.wait_for_endpoints("web", 4), "ClusterIP");
    assert_eq!(get(web).unwrap(), "ok");
    // The relay of that connection ends a moment after its client.
    let before = program.wait_for_connections_to_end();
    let (stop, failed, done) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    match get(web) {
                        Ok(answer) if answer == "ok" => done.fetch_add(1, SeqCst),
                        other => {
                            eprintln!("{other:?}");
                            failed.fetch_add(1, SeqCst)
                        }
                    };
                }
            });
        }
        for edit in 0..EDITS {
            // Some endpoint is always there; which ones changes with every edit.
            let chosen: Vec<SocketAddr> = backends
                .iter()
                .enumerate()
                .filter(|(index, _)| index % 4 != edit % 4)
                .map(|(_, b)| *b)
                .collect();
            program.write("slices.yaml", &slice("web", &chosen));
            if edit % 5 == 0 {
                program.write(
                    &format!("more-{}.yaml", edit % 3),
                    &SERVICE.replace("name: web", &format!("name: more-{edit}")),
                );
            }
        }
        program.write("slices.yaml", &slice("web", &backends));
        program.wait_for_endpoints("web", 4);
        stop.store(true, SeqCst);
    });
    assert_eq!(failed.load(SeqCst), 0, "of {}", done.load(SeqCst));
    for n in 0..3 {
        let _ = std::fs::remove_file(program.manifests().join(format!("more-{n}.yaml")));
    }
    program.wait_for("only web is left", |status| status.services.len() == 1);
    let after = program.wait_for_descriptors(before.descriptors);
    assert_eq!(after.listener_count, before.listener_count);
}

#[test]
fn rejected_change_keeps_the_last_good_version() {
    in_namespace!(Root);
    let backend = backend();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", SERVICE),
            ("slices.yaml", &slice("web", &[backend])),
        ],
    );
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    program.write("service.yaml", &SERVICE.replace("port: 80", "port: 70000"));
    let says = |status: &portico::control::status::Status| status.findings_text().contains("70000");
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !says(&program.status()) {
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(get(web).unwrap(), "ok", "the Service as it was goes on");
    program.write(
        "service.yaml",
        &SERVICE.replace("spec:\n", "spec:\n  clusterIP: None\n"),
    );
    program.wait_for("the refusal in the API server's words", |status| {
        let words = "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set";
        status.findings_text().contains(words)
    });
    assert_eq!(get(web).unwrap(), "ok", "nor does it lose its address");
    program.write("service.yaml", "apiVersion: v1\nkind: [\n");
    while !program.status().findings_text().contains("service.yaml") {
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(
        get(web).unwrap(),
        "ok",
        "and so through text that does not parse"
    );
    program.write("service.yaml", "");
    program.wait_for("an empty file is an empty world", |status| {
        status.services.is_empty()
    });
}

#[test]
fn whole_folder_is_replaced_at_once() {
    in_namespace!(Root);
    let backend = backend();
    let program = Program::up(
        &[],
        &[
            ("service.yaml", SERVICE),
            ("slices.yaml", &slice("web", &[backend])),
        ],
    );
    program.wait_for_endpoints("web", 1);
    let next = program.manifests().with_file_name("next");
    std::fs::create_dir(&next).unwrap();
    std::fs::write(
        next.join("other.yaml"),
        SERVICE.replace("name: web", "name: other"),
    )
    .unwrap();
    std::fs::rename(
        program.manifests(),
        program.manifests().with_file_name("old"),
    )
    .unwrap();
    std::fs::rename(next, program.manifests()).unwrap();
    program.wait_for("the new folder", |status| {
        status.services.iter().map(|s| &*s.name).eq(["other"])
    });
}

#[test]
fn terminate_drains_and_a_second_signal_ends_at_once() {
    in_namespace!(Root);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let files = [
        ("service.yaml", SERVICE),
        ("slices.yaml", &*slice("web", &[target])),
    ];
    let mut program = Program::up(&[], &files);
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    let mut client = std::net::TcpStream::connect(web).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    program.signal("TERM");
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let mut later = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect(web) {
        later.push(stream);
        assert!(std::time::Instant::now() < deadline, "it goes on accepting");
    }
    client.write_all(b"ping").unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).unwrap();
    // Control is busy with the end; what is left can be asked for all the same.
    let left = program.command(&["get", "connections", "service/web", "-o", "wide"]);
    let table = String::from_utf8(left.stdout).unwrap();
    assert!(
        table.contains("Draining") && table.contains("Shutdown"),
        "{table}"
    );
    // How many: those of `later` that came in before it stopped accepting are among them.
    while !program.stderr().contains(" of default/web") {
        assert!(std::time::Instant::now() < deadline, "{}", program.stderr());
        std::thread::yield_now();
    }
    program.signal("TERM");
    let status = program.ended();
    assert!(status.success(), "{status}");
    assert!(
        program.stderr().contains("still open"),
        "{}",
        program.stderr()
    );
}

#[test]
fn hangup_reads_everything_again() {
    in_namespace!(Root);
    let program = Program::up(&[], &[("service.yaml", SERVICE)]);
    // A file that is written without an event: a hard link's other name outside the folder.
    let outside = program.manifests().with_file_name("outside.yaml");
    std::fs::write(&outside, SERVICE.replace("name: web", "name: linked")).unwrap();
    std::fs::hard_link(&outside, program.manifests().join("linked.yaml")).unwrap();
    program.signal("HUP");
    program.wait_for("the linked file", |status| status.services.len() == 2);
    std::fs::write(&outside, SERVICE.replace("name: web", "name: renamed")).unwrap();
    program.signal("HUP");
    program.wait_for("its new text", |status| {
        status
            .services
            .iter()
            .any(|service| service.name == "renamed")
    });
}

#[test]
fn connections_of_a_removed_endpoint_go_on_or_end_as_their_service_says() {
    in_namespace!(Root);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let hurried = SERVICE.replace(
        "name: web",
        "name: hurried\n  annotations: {portico.dev/drain-timeout: 0s}",
    );
    let program = Program::up(
        &[],
        &[
            ("service.yaml", SERVICE),
            ("hurried.yaml", &hurried),
            ("slices.yaml", &slice("web", &[target])),
            ("more.yaml", &slice("hurried", &[target])),
        ],
    );
    let open = |name| {
        let addr = way(&program.wait_for_endpoints(name, 1), "ClusterIP");
        let client = std::net::TcpStream::connect(addr).unwrap();
        client
            .set_read_timeout(Some(crate::support::PATIENCE))
            .unwrap();
        (client, listener.accept().unwrap().0)
    };
    let (mut client, mut server) = open("web");
    let (mut cut, mut cut_server) = open("hurried");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let instead = other.local_addr().unwrap();
    program.write("slices.yaml", &slice("web", &[instead]));
    program.write("more.yaml", &slice("hurried", &[instead]));
    let mut read = [0; 4];
    for end in [&mut cut, &mut cut_server] {
        let error = end.read(&mut read).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while program.objects("connections")[0]["status"]["reason"] != "EndpointGone" {
        assert!(std::time::Instant::now() < deadline, "it is not told");
    }
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"ping");
    let shown = program.command(&["get", "connections", "service/web"]);
    let table = String::from_utf8(shown.stdout).unwrap();
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[1], client.local_addr().unwrap().to_string());
    assert_eq!(row[2..5], ["web", "80", &*target.to_string()]);
    assert_eq!(row[6..], ["Draining", "4", "0"], "{table}");
}
