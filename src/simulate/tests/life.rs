//! Containers that end and come back alone, faults, behaviour, ports that come and go, health checks, logs.

use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

impl Child {
    async fn end_container(&mut self, name: &str, grace_ms: u64) {
        self.act(PodAction::EndContainer {
            uid: UID,
            container: name.into(),
            grace_ms,
        })
        .await;
    }

    async fn adjust(&mut self, behaviour: Behaviour, faults: &[Fault]) {
        self.act(PodAction::Adjust {
            uid: UID,
            behaviour,
            faults: faults.iter().copied().collect(),
        })
        .await;
    }

    /// A page of a log of the pod, in the words after the time.
    async fn log(&mut self, query: LogQuery) -> Result<Vec<String>, LogError> {
        self.tell(&ToChild::Logs { id: 3, query }).await;
        loop {
            // Ports that were opened are told of in between.
            if let FromChild::Logs { id: 3, page } = self.hear().await {
                let text = |text: String| text.split_once(' ').unwrap().1.to_owned();
                return page
                    .map(|page| page.lines.into_iter().map(|line| text(line.text)).collect());
            }
        }
    }
}

fn lines(container: &str) -> LogQuery {
    LogQuery {
        container: Some(container.into()),
        limit: 100,
        wait: Duration::ZERO,
        ..first_line()
    }
}

fn seen(name: &str, became: ContainerChange) -> PodObservation {
    PodObservation::Container {
        uid: UID,
        container: name.into(),
        became,
    }
}

/// The status and body of one request.
async fn get(addr: SocketAddr, path: &str, header: &str) -> (u16, String) {
    let mut client = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\n{header}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = read_answer(&mut client).await;
    (head[9..12].parse().unwrap(), body)
}

fn http_probe(kind: ProbeKind, path: &str) -> ServedProbe {
    ServedProbe {
        kind,
        served: Served::Path(path.into()),
    }
}

#[tokio::test]
async fn container_ends_and_comes_back_alone() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let containers = vec![
        container("main", &[tcp(port)]),
        container("side", &[tcp(port + 1)]),
    ];
    child.act(start(ip, containers)).await;
    child.next().await;
    let mut cut = TcpStream::connect((ip, port)).await.unwrap();
    cut.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\na")
        .await
        .unwrap();
    let mut kept = TcpStream::connect((ip, port + 1)).await.unwrap();
    kept.write_all(GET).await.unwrap();
    read_answer(&mut kept).await;
    child.end_container("main", 50).await;
    assert_eq!(child.next().await, seen("main", ContainerChange::Ended));
    assert!(matches!(
        within(cut.read(&mut [0; 1])).await,
        Ok(0) | Err(_)
    ));
    wait_until_refused((ip, port).into()).await;
    kept.write_all(GET).await.unwrap();
    assert_eq!(read_answer(&mut kept).await.1, "web-1\n");
    let again = PodAction::StartContainer {
        uid: UID,
        container: "main".into(),
    };
    child.act(again).await;
    let bound = vec![(tcp(port), port)];
    let running = seen("main", ContainerChange::Running { bound });
    assert_eq!(child.next().await, running);
    assert_eq!(get((ip, port).into(), "/", "").await.0, 200);
    child.stop(60_000).await;
    assert_closed(&mut kept).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn container_whose_port_is_gone_fails_and_can_be_started_again() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    child.end_container("main", 0).await;
    child.next().await;
    let taken: Vec<_> = (0..100)
        .map(|number| std::net::TcpListener::bind((ip, port + 10_000 + number)).unwrap())
        .chain([std::net::TcpListener::bind((ip, port)).unwrap()])
        .collect();
    let again = || PodAction::StartContainer {
        uid: UID,
        container: "main".into(),
    };
    child.act(again()).await;
    let PodObservation::Container {
        became: ContainerChange::Failed { reason },
        ..
    } = child.next().await
    else {
        panic!("it has no port")
    };
    assert!(reason.contains(&format!("{ip}:{port}")), "{reason}");
    drop(taken);
    child.act(again()).await;
    let bound = vec![(tcp(port), port)];
    let running = seen("main", ContainerChange::Running { bound });
    assert_eq!(child.next().await, running);
}

#[tokio::test]
async fn faults_make_the_probes_of_their_kind_fail() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let mut main = container("main", &[tcp(port)]);
    main.probes = vec![
        http_probe(ProbeKind::Readiness, "/ready"),
        http_probe(ProbeKind::Liveness, "/alive"),
        http_probe(ProbeKind::Readiness, "/both"),
        http_probe(ProbeKind::Liveness, "/both"),
    ];
    child.act(start(ip, vec![main])).await;
    child.next().await;
    let addr = (ip, port).into();
    let (ready, live) = (&[Fault::Ready][..], &[Fault::Live][..]);
    for (faults, expected) in [
        (&[][..], [200, 200, 200, 200, 200]),
        (ready, [503, 200, 503, 200, 200]),
        (live, [200, 503, 503, 503, 200]),
    ] {
        child.adjust(Behaviour::default(), faults).await;
        // The answer to a later question means that the child has acted.
        child.log(lines("main")).await.unwrap();
        let as_liveness = "x-portico-probe: liveness\r\n";
        let found = [
            get(addr, "/ready?a=b", "").await.0,
            get(addr, "/alive", "").await.0,
            get(addr, "/both", "").await.0,
            get(addr, "/both", as_liveness).await.0,
            get(addr, "/", "").await.0,
        ];
        assert_eq!(found, expected, "{faults:?}");
    }
}

#[tokio::test]
async fn fault_of_ports_closes_and_reopens_them() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    for _ in 0..3 {
        child.adjust(Behaviour::default(), &[Fault::Port]).await;
        wait_until_refused((ip, port).into()).await;
        child.adjust(Behaviour::default(), &[]).await;
        within(async { while TcpStream::connect((ip, port)).await.is_err() {} }).await;
    }
}

#[tokio::test]
async fn ports_are_opened_and_closed_while_the_pod_runs() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let mut kept = TcpStream::connect((ip, port)).await.unwrap();
    let ports = |ports: &[WantedPort]| PodAction::Ports {
        uid: UID,
        ports: vec![ports.to_vec()],
    };
    child.act(ports(&[tcp(port), tcp(port + 1)])).await;
    let running = |bound| PodObservation::Running { uid: UID, bound };
    let both = running(vec![(tcp(port), port), (tcp(port + 1), port + 1)]);
    assert_eq!(child.next().await, both);
    assert_eq!(get((ip, port + 1).into(), "/", "").await.0, 200);
    child.act(ports(&[tcp(port)])).await;
    assert_eq!(child.next().await, running(vec![(tcp(port), port)]));
    wait_until_refused((ip, port + 1).into()).await;
    kept.write_all(GET).await.unwrap();
    assert_eq!(read_answer(&mut kept).await.1, "web-1\n");
}

#[tokio::test]
async fn errors_are_every_tenth_request_but_no_probes() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let behaviour = Behaviour {
        errors_per_10000: 1000,
        ..Behaviour::default()
    };
    let mut action = start(ip, vec![container("main", &[tcp(port)])]);
    if let PodAction::Start { behaviour: of, .. } = &mut action {
        *of = behaviour;
    }
    child.act(action).await;
    child.next().await;
    let addr = (ip, port).into();
    for number in 1..=30 {
        let probe = get(addr, "/", "user-agent: kube-probe/1.35\r\n").await.0;
        let request = get(addr, "/", "").await.0;
        let expected = if number % 10 == 0 { 500 } else { 200 };
        assert_eq!((probe, request), (200, expected), "{number}");
    }
}

#[tokio::test]
async fn latency_delays_requests_and_termination_delay_the_end() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let (latency_ms, termination_delay_ms) = (30, 60);
    child.serve(ip, &[tcp(port)]).await;
    let behaviour = Behaviour {
        latency_ms,
        termination_delay_ms,
        ..Behaviour::default()
    };
    child.adjust(behaviour, &[]).await;
    child.log(lines("main")).await.unwrap();
    let began = std::time::Instant::now();
    get((ip, port).into(), "/", "").await;
    assert!(began.elapsed() >= Duration::from_millis(latency_ms));
    let began = std::time::Instant::now();
    child.stop(60_000).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
    assert!(began.elapsed() >= Duration::from_millis(termination_delay_ms));
}

#[tokio::test]
async fn startup_delay_holds_the_ports_back_and_can_be_stopped() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let mut action = start(ip, vec![container("main", &[tcp(port)])]);
    if let PodAction::Start { behaviour, .. } = &mut action {
        behaviour.startup_delay_ms = 3_600_000;
    }
    child.act(action.clone()).await;
    // The answer means that the child has acted on what was said before.
    assert_eq!(child.log(lines("main")).await, Ok(vec![]));
    assert!(TcpStream::connect((ip, port)).await.is_err());
    child.stop(3_600_000).await;
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
    if let PodAction::Start { behaviour, .. } = &mut action {
        behaviour.startup_delay_ms = 20;
    }
    child.act(action).await;
    let bound = vec![(tcp(port), port)];
    assert_eq!(
        child.next().await,
        PodObservation::Running { uid: UID, bound }
    );
}

/// `grpc-status` and the message of a health check.
async fn check(addr: SocketAddr, service: &str) -> (String, Vec<u8>) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let task = tokio::spawn(connection);
    let mut message = vec![0, 0, 0, 0, 0];
    if !service.is_empty() {
        message[4] = u8::try_from(service.len() + 2).unwrap();
        message.extend([0x0a, u8::try_from(service.len()).unwrap()]);
        message.extend(service.as_bytes());
    }
    let request = Request::post(format!("http://{addr}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "kube-probe/1.35")
        .body(http_body_util::Full::new(hyper::body::Bytes::from(message)))
        .unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["x-portico-pod"], "web-1");
    let body = http_body_util::BodyExt::collect(response.into_body());
    let body = within(body).await.unwrap();
    let status = body.trailers().unwrap()["grpc-status"].to_str().unwrap();
    let found = (status.to_owned(), body.to_bytes().to_vec());
    drop(sender);
    within(task).await.unwrap().unwrap();
    found
}

#[tokio::test]
async fn grpc_health_says_serving_until_its_fault() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let mut main = container("main", &[tcp(port)]);
    let grpc = |kind, service: &str| ServedProbe {
        kind,
        served: Served::Grpc(service.into()),
    };
    main.probes = vec![
        grpc(ProbeKind::Readiness, "ready"),
        grpc(ProbeKind::Liveness, ""),
    ];
    child.act(start(ip, vec![main])).await;
    child.next().await;
    let addr = (ip, port).into();
    let answer = |state| ("0".to_owned(), vec![0, 0, 0, 0, 2, 8, state]);
    assert_eq!(check(addr, "ready").await, answer(1));
    assert_eq!(check(addr, "").await, answer(1));
    assert_eq!(check(addr, "other").await, ("5".to_owned(), vec![]));
    child.adjust(Behaviour::default(), &[Fault::Ready]).await;
    let log = child.log(lines("main")).await.unwrap();
    assert_eq!(check(addr, "ready").await, answer(2));
    assert_eq!(check(addr, "").await, answer(1));
    let line = &log[1];
    let words = "received request POST /grpc.health.v1.Health/Check from 127.0.0.1:";
    assert!(
        line.starts_with(words) && line.ends_with("ms probe"),
        "{line}"
    );
}

#[tokio::test]
async fn http_2_stop_finishes_the_stream_in_flight() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let behaviour = Behaviour {
        latency_ms: 40,
        ..Behaviour::default()
    };
    child.adjust(behaviour, &[]).await;
    let stream = TcpStream::connect((ip, port)).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let task = tokio::spawn(connection);
    let request = |path: &str| {
        let body = http_body_util::Empty::<hyper::body::Bytes>::new();
        Request::get(format!("http://{ip}:{port}{path}"))
            .body(body)
            .unwrap()
    };
    // The first answer tells that the connection is known to be one of HTTP/2.
    within(sender.send_request(request("/first")))
        .await
        .unwrap();
    let answer = tokio::spawn(sender.send_request(request("/last")));
    within(async {
        // The stream is under way when its connection is told to end.
        tokio::task::yield_now().await;
        child.stop(60_000).await;
    })
    .await;
    assert_eq!(within(answer).await.unwrap().unwrap().status(), 200);
    drop(sender);
    within(task).await.unwrap().unwrap();
    assert_eq!(child.next().await, PodObservation::Ended { uid: UID });
}

#[tokio::test]
async fn log_has_starts_requests_datagrams_and_the_run_before() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    let udp = WantedPort {
        number: port,
        protocol: Protocol::Udp,
    };
    child.serve(ip, &[tcp(port), udp]).await;
    get((ip, port).into(), "/hello?a=b", "").await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(b"seven b", (ip, port)).await.unwrap();
    within(client.recv_from(&mut [0; 64])).await.unwrap();
    let log = child.log(lines("main")).await.unwrap();
    assert_eq!(
        log[0],
        format!("started web-1/main at {ip}, serving {port}/TCP, {port}/UDP")
    );
    let words = "received request GET /hello?a=b from 127.0.0.1:";
    assert!(
        log[1].starts_with(words) && log[1].contains(" 200 "),
        "{log:?}"
    );
    let datagram = format!(
        "received datagram of 7 bytes from {}",
        client.local_addr().unwrap()
    );
    assert_eq!(log[2..], [datagram]);
    let previous = || LogQuery {
        previous: true,
        ..lines("main")
    };
    let none = Err(LogError::NoPrevious("main".into()));
    assert_eq!(child.log(previous()).await, none);
    child.end_container("main", 0).await;
    child.next().await;
    let again = PodAction::StartContainer {
        uid: UID,
        container: "main".into(),
    };
    child.act(again).await;
    child.next().await;
    let former = child.log(previous()).await.unwrap();
    assert_eq!(former[..3], log);
    assert_eq!(former[3..], ["stopping within 0s", "stopped"]);
    let present = child.log(lines("main")).await.unwrap();
    assert_eq!(present, log[..1]);
}

#[tokio::test]
async fn log_question_waits_for_the_next_line() {
    let (ip, port, mut child) = (own_address(), own_port(), Child::start());
    child.serve(ip, &[tcp(port)]).await;
    let query = LogQuery {
        after: 1,
        wait: Duration::from_secs(50),
        ..lines("main")
    };
    let (found, _) = tokio::join!(child.log(query), get((ip, port).into(), "/late", ""));
    let found = found.unwrap();
    assert!(
        found[0].starts_with("received request GET /late"),
        "{found:?}"
    );
}

#[tokio::test]
async fn log_of_nobody_is_an_error() {
    let mut child = Child::start();
    assert_eq!(child.log(lines("main")).await, Err(LogError::NoPod));
    child.serve(own_address(), &[]).await;
    let missing = Err(LogError::NoContainer("side".into()));
    assert_eq!(child.log(lines("side")).await, missing);
}
