//! The child's core over in-memory pipes with real sockets on addresses of this process's own, and the keeper with
//! small scripts for children.

mod life;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use portico_core::{
    object::Protocol,
    world::{
        pods::{
            Behaviour, ContainerChange, ContainerPlan, Fault, PodAction, PodObservation, PodUid,
            Served, ServedProbe, WantedPort,
        },
        probes::ProbeKind,
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use super::{
    child,
    host::{HostReport, PodHost},
    protocol::{FromChild, LogError, LogPage, LogQuery, ToChild},
};

/// Nothing here takes that long; it only ends a test that would wait for ever.
const DEADLINE: Duration = Duration::from_secs(20);

const UID: PodUid = PodUid(1);

/// An address that no other test or test process has: 127.121.x.y by process and a counter.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(
        127,
        121,
        low,
        NEXT.fetch_add(1, Ordering::Relaxed),
    ))
}

/// A port by process, below the ephemeral ones and such that a move of 10 000 is too.
fn own_port() -> u16 {
    10_000 + u16::try_from(std::process::id() / 256 % 10_000).unwrap()
}

fn tcp(number: u16) -> WantedPort {
    WantedPort {
        number,
        protocol: Protocol::Tcp,
    }
}

fn container(name: &str, ports: &[WantedPort]) -> ContainerPlan {
    ContainerPlan {
        name: name.into(),
        ports: ports.to_vec(),
        probes: Vec::new(),
        backends: Vec::new(),
    }
}

fn start(ip: IpAddr, containers: Vec<ContainerPlan>) -> PodAction {
    PodAction::Start {
        uid: UID,
        name: "web-1".into(),
        ip,
        containers,
        behaviour: Behaviour::default(),
        faults: BTreeSet::new(),
    }
}

/// A child inside this process.
struct Child {
    actions: Option<DuplexStream>,
    observations: Lines<BufReader<DuplexStream>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Child {
    fn start() -> Self {
        let (actions, reader) = tokio::io::duplex(4096);
        let (writer, observations) = tokio::io::duplex(4096);
        let task = tokio::spawn(child::run(reader, writer));
        Self {
            actions: Some(actions),
            observations: BufReader::new(observations).lines(),
            task,
        }
    }

    async fn act(&mut self, action: PodAction) {
        self.tell(&ToChild::Pod(action)).await;
    }

    async fn tell(&mut self, what: &ToChild) {
        let line = format!("{}\n", serde_json::to_string(what).unwrap());
        self.actions
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .await
            .unwrap();
    }

    async fn hear(&mut self) -> FromChild {
        let line = within(self.observations.next_line())
            .await
            .unwrap()
            .unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn next(&mut self) -> PodObservation {
        match self.hear().await {
            FromChild::Pod(observation) => observation,
            other @ FromChild::Logs { .. } => panic!("{other:?}"),
        }
    }

    async fn serve(&mut self, ip: IpAddr, ports: &[WantedPort]) -> PodObservation {
        self.act(start(ip, vec![container("main", ports)])).await;
        self.next().await
    }

    async fn stop(&mut self, grace_ms: u64) {
        self.act(PodAction::Stop { uid: UID, grace_ms }).await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it takes too long")
}

/// Waits until nothing listens at `addr` any more.
async fn wait_until_refused(addr: SocketAddr) {
    within(async { while TcpStream::connect(addr).await.is_ok() {} }).await;
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";

/// Reads one answer: its head in lower case, and its body by its content-length.
async fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let mut text = Vec::new();
    let head = loop {
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        text.push(within(stream.read_u8()).await.unwrap());
    };
    let head = String::from_utf8(text[..head].to_vec())
        .unwrap()
        .to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    within(stream.read_exact(&mut body)).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn assert_closed(stream: &mut TcpStream) {
    assert_eq!(
        within(stream.read(&mut [0; 1])).await.unwrap(),
        0,
        "closed in order, not reset"
    );
}

#[tokio::test]
async fn pod_get_answers_its_name_and_keeps_the_connection() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let running = child.serve(ip, &[tcp(port)]).await;
    assert_eq!(
        running,
        PodObservation::Running {
            uid: UID,
            bound: vec![(tcp(port), port)]
        }
    );
    let mut client = TcpStream::connect((ip, port)).await.unwrap();
    let upload = b"POST /healthz HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\n\r\nabc";
    for request in [GET, upload, GET] {
        client.write_all(request).await.unwrap();
        let (head, body) = read_answer(&mut client).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain\r\n"), "{head}");
        assert!(head.contains("x-portico-pod: web-1\r\n"), "{head}");
        assert_eq!(body, "web-1\n");
    }
}

#[tokio::test]
async fn pod_without_ports_runs_at_once() {
    let mut child = Child::start();
    assert_eq!(
        child.serve(own_address(), &[]).await,
        PodObservation::Running {
            uid: UID,
            bound: vec![]
        }
    );
}

#[tokio::test]
async fn pod_datagram_is_answered_with_its_name() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let wanted = WantedPort {
        number: port,
        protocol: Protocol::Udp,
    };
    assert_eq!(
        child.serve(ip, &[wanted]).await,
        PodObservation::Running {
            uid: UID,
            bound: vec![(wanted, port)]
        }
    );
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for datagram in [&b"x"[..], &[b'x'; 2000], b""] {
        client.send_to(datagram, (ip, port)).await.unwrap();
        let mut answer = [0; 64];
        let (length, from) = within(client.recv_from(&mut answer)).await.unwrap();
        assert_eq!(
            (&answer[..length], from),
            (&b"web-1"[..], SocketAddr::new(ip, port))
        );
    }
}

#[tokio::test]
async fn pod_port_taken_moves_past_taken_and_wanted_numbers() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let _taken = TcpListener::bind((ip, port)).await.unwrap();
    let _too = TcpListener::bind((ip, port + 10_000)).await.unwrap();
    let bound = vec![
        (tcp(port), port + 10_002),
        (tcp(port + 10_001), port + 10_001),
    ];
    let running = child.serve(ip, &[tcp(port), tcp(port + 10_001)]).await;
    assert_eq!(running, PodObservation::Running { uid: UID, bound });
    TcpStream::connect((ip, port + 10_002)).await.unwrap();
}

#[tokio::test]
async fn pod_privileged_port_moves_where_the_privilege_lacks() {
    let (ip, mut child) = (own_address(), Child::start());
    let privileged = std::net::TcpListener::bind((ip, 80)).is_ok();
    let number = if privileged { 80 } else { 10_080 };
    let running = child.serve(ip, &[tcp(80)]).await;
    assert_eq!(
        running,
        PodObservation::Running {
            uid: UID,
            bound: vec![(tcp(80), number)]
        }
    );
}

#[tokio::test]
async fn pod_sctp_port_is_said_to_be_bound() {
    let wanted = WantedPort {
        number: 5000,
        protocol: Protocol::Sctp,
    };
    let running = Child::start().serve(own_address(), &[wanted]).await;
    assert_eq!(
        running,
        PodObservation::Running {
            uid: UID,
            bound: vec![(wanted, 5000)]
        }
    );
}

#[tokio::test]
async fn pod_address_of_nobody_here_fails_and_can_be_tried_again() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    // TEST-NET-1 (RFC 5737) is no address of this machine.
    let failed = child
        .serve(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), &[tcp(port)])
        .await;
    let PodObservation::Failed { uid: UID, reason } = failed else {
        panic!("{failed:?}")
    };
    assert!(reason.contains(&format!("192.0.2.1:{port}")), "{reason}");
    assert!(matches!(
        child.serve(ip, &[tcp(port)]).await,
        PodObservation::Running { .. }
    ));
}

#[tokio::test]
async fn pod_started_twice_says_again_that_it_runs() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let first = child.serve(ip, &[tcp(port)]).await;
    assert_eq!(child.serve(ip, &[tcp(port)]).await, first);
}

#[tokio::test]
async fn pod_unknown_stop_has_ended() {
    let mut child = Child::start();
    child.stop(1000).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn pod_stop_finishes_the_request_in_flight_and_refuses_new_connections() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let mut busy = TcpStream::connect((ip, port)).await.unwrap();
    // The answer to `Expect` tells that the request is being served.
    let head = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    busy.write_all(head).await.unwrap();
    let mut on = [0; 25];
    within(busy.read_exact(&mut on)).await.unwrap();
    assert_eq!(&on, b"HTTP/1.1 100 Continue\r\n\r\n");
    child.stop(60_000).await;
    wait_until_refused((ip, port).into()).await;
    busy.write_all(b"ab").await.unwrap();
    let (head, body) = read_answer(&mut busy).await;
    assert_eq!(body, "web-1\n");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_closed(&mut busy).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn pod_stop_closes_a_resting_connection_at_once() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let mut resting = TcpStream::connect((ip, port)).await.unwrap();
    resting.write_all(GET).await.unwrap();
    read_answer(&mut resting).await;
    child.stop(3_600_000).await;
    assert_closed(&mut resting).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn pod_stop_serves_connections_that_the_kernel_had_accepted() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    // Nothing is awaited here, so the pod, on the same thread, cannot accept before it is told to end.
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = std::net::TcpStream::connect((ip, port)).unwrap();
            std::io::Write::write_all(&mut client, GET).unwrap();
            client.set_nonblocking(true).unwrap();
            TcpStream::from_std(client).unwrap()
        })
        .collect();
    child.stop(60_000).await;
    for mut client in clients {
        assert_eq!(read_answer(&mut client).await.1, "web-1\n");
        assert_closed(&mut client).await;
    }
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn pod_stop_cuts_what_is_left_at_the_end_of_its_grace() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let mut busy = TcpStream::connect((ip, port)).await.unwrap();
    busy.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\na")
        .await
        .unwrap();
    child.stop(50).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
    assert!(matches!(
        within(busy.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
}

#[tokio::test]
async fn child_input_ends_ends_it_and_its_pods() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    child.actions = None;
    within(&mut child.task).await.unwrap().unwrap();
    wait_until_refused((ip, port).into()).await;
}

#[tokio::test]
async fn child_line_that_is_no_action_is_an_error() {
    let mut child = Child::start();
    child
        .actions
        .as_mut()
        .unwrap()
        .write_all(b"hello\n")
        .await
        .unwrap();
    assert!(within(&mut child.task).await.unwrap().is_err());
}

/// A child that runs `text` with `sh`. Another process writes it, for a file that this one has open for writing,
/// even by a fork of another test, cannot be executed (`ETXTBSY` in execve(2)).
fn script(folder: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("child");
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#;
    let written = std::process::Command::new("sh")
        .args(["-c", write])
        .arg(&path)
        .arg(text)
        .status();
    assert!(written.unwrap().success());
    path
}

#[tokio::test]
async fn host_child_that_dies_is_lost_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    // Says for each life, once it was told something, that pod 1 has ended, and dies.
    let path = script(
        &folder,
        r#"[ "$1" = __pods ] && read -r line && echo '{"pod":{"ended":{"uid":1}}}'"#,
    );
    let (host, mut reports) = PodHost::start(path).unwrap();
    for _ in 0..2 {
        host.send(&[PodAction::Stop {
            uid: UID,
            grace_ms: 0,
        }]);
        let observed = HostReport::Observed(PodObservation::Ended { uid: UID });
        assert_eq!(within(reports.recv()).await, Some(observed));
        assert_eq!(within(reports.recv()).await, Some(HostReport::Lost));
    }
}

#[tokio::test]
async fn host_child_that_says_nonsense_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (_host, mut reports) = PodHost::start(script(&folder, "echo hello; read -r line")).unwrap();
    assert_eq!(within(reports.recv()).await, Some(HostReport::Lost));
}

#[tokio::test]
async fn host_child_that_does_not_read_is_replaced_when_too_much_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (host, mut reports) = PodHost::start(script(&folder, "exec sleep 600")).unwrap();
    let actions = vec![
        PodAction::Stop {
            uid: UID,
            grace_ms: 0
        };
        1 << 17
    ];
    for _ in 0..3 {
        host.send(&actions);
    }
    // What the keeper has taken off the queue waits in the pipe, so a second lot is needed to see it full.
    while reports.try_recv().is_err() {
        host.send(&actions);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn host_dropped_ends_its_child() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(
        &folder,
        r#"echo "{\"pod\":{\"ended\":{\"uid\":$$}}}"; exec sleep 600"#,
    );
    let (host, mut reports) = PodHost::start(path).unwrap();
    let Some(HostReport::Observed(PodObservation::Ended { uid })) = within(reports.recv()).await
    else {
        panic!("the child does not say its process number");
    };
    assert!(fs::exists(format!("/proc/{}", uid.0)).unwrap());
    drop(host);
    assert!(!fs::exists(format!("/proc/{}", uid.0)).unwrap());
}

fn first_line() -> LogQuery {
    LogQuery {
        uid: UID,
        container: None,
        previous: false,
        after: 0,
        limit: 1,
        wait: Duration::from_secs(30),
    }
}

#[tokio::test]
async fn host_logs_pass_the_question_and_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let page = r#"{"logs":{"id":1,"page":{"Ok":{"lines":[],"next":7,"lost":true}}}}"#;
    let says = format!("read -r line; echo '{page}'; exec sleep 600");
    let (host, _reports) = PodHost::start(script(&folder, &says)).unwrap();
    let page = LogPage {
        lines: Vec::new(),
        next: 7,
        lost: true,
    };
    assert_eq!(within(host.logs().read(first_line())).await, Ok(page));
}

#[tokio::test]
async fn host_logs_of_a_child_that_dies_or_has_ended_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (host, _reports) = PodHost::start(script(&folder, "read -r line; exit 1")).unwrap();
    let logs = host.logs();
    let lost = Err(LogError::Lost);
    assert_eq!(within(logs.read(first_line())).await, lost);
    drop(host);
    assert_eq!(within(logs.read(first_line())).await, lost);
}

#[test]
fn host_missing_executable_is_an_error() {
    assert_eq!(
        PodHost::start("/nonexistent").unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}
