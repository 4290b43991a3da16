//! Rolling updates under load: nothing is lost that could be saved.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use crate::support::{
    PATIENCE, get,
    namespace::in_namespace,
    program::{Program, way},
};

/// Ten pods, two more than that at a time, never fewer.
const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 10
  selector: {matchLabels: {app: web}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 20%, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      containers: [{name: web, image: 'web:0', ports: [{containerPort: 8080}]}]
";

const ROLLOUTS: usize = 20;
const THREADS: usize = 8;
/// In all, 200.
const OPEN_PER_THREAD: usize = 25;

/// What clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answered: AtomicUsize,
    pub(crate) lost: AtomicUsize,
}

impl Seen {
    fn note(&self, answer: std::io::Result<bool>) -> bool {
        match answer {
            Ok(stays) => {
                self.answered.fetch_add(1, SeqCst);
                stays
            }
            Err(error) => {
                // The first few tell enough.
                if self.lost.fetch_add(1, SeqCst) < 5 {
                    eprintln!("lost: {error}");
                }
                false
            }
        }
    }
}

/// One request on an open connection, whose answer must be a pod's; whether the connection may be used again.
fn ask(stream: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    stream
        .get_mut()
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(std::io::Error::other(format!("got {line:?}")));
    }
    let (mut length, mut stays) = (None, true);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.parse::<usize>().ok();
        }
        stays &= line != "connection: close";
    }
    let mut body = vec![0; length.ok_or(std::io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut body)?;
    Ok(stays)
}

fn open(web: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&web, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Keeps connections open and asks on one after the other until told to stop.
fn keep_asking(web: SocketAddr, stop: &AtomicBool, seen: &Seen) {
    let mut connections: Vec<Option<BufReader<TcpStream>>> =
        (0..OPEN_PER_THREAD).map(|_| open(web).ok()).collect();
    assert!(connections.iter().all(Option::is_some));
    while !stop.load(SeqCst) {
        for place in &mut connections {
            let mut stream = match place.take() {
                Some(stream) => stream,
                None => match open(web) {
                    Ok(stream) => stream,
                    Err(error) => {
                        seen.note(Err(error));
                        continue;
                    }
                },
            };
            if seen.note(ask(&mut stream)) {
                *place = Some(stream);
            }
        }
    }
}

/// Connections of one request each until told to stop.
pub(crate) fn keep_connecting(web: SocketAddr, stop: &AtomicBool, seen: &Seen) {
    while !stop.load(SeqCst) {
        let answer = get(web).and_then(|body| {
            if body.starts_with("web-") {
                Ok(true)
            } else {
                Err(std::io::Error::other(format!("answered {body:?}")))
            }
        });
        seen.note(answer);
    }
}

/// Rolls `count` times under load; how many requests were lost.
fn roll_under_load(program: &Program, text: &str, count: usize) -> Seen {
    let web = way(&program.wait_for_endpoints("web", 10), "ClusterIP");
    let (stop, seen) = (AtomicBool::new(false), Seen::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| keep_asking(web, &stop, &seen));
        }
        for _ in 0..2 {
            scope.spawn(|| keep_connecting(web, &stop, &seen));
        }
        for number in 1..=count {
            program.write("web.yaml", &text.replace("web:0", &format!("web:{number}")));
            let deployed = format!("\"web:{number}\"");
            program.wait_for_object("deployments", "web", |deployment| {
                deployment.to_string().contains(&deployed)
            });
            let status = program.command(&["rollout", "status", "deployment/web", "--timeout=60s"]);
            let said = String::from_utf8_lossy(&status.stdout).into_owned();
            if !said.contains("successfully rolled out") {
                stop.store(true, SeqCst);
                panic!(
                    "rollout {number}: {said}{}",
                    String::from_utf8_lossy(&status.stderr)
                );
            }
        }
        stop.store(true, SeqCst);
    });
    let (answered, lost) = (seen.answered.load(SeqCst), seen.lost.load(SeqCst));
    println!("{count} rollouts: {answered} requests answered, {lost} lost");
    seen
}

#[test]
fn rolling_update_of_ten_pods_under_load_loses_nothing_twenty_times() {
    in_namespace!(Root);
    let program = Program::up(&["--simulate"], &[("web.yaml", WEB)]);
    let seen = roll_under_load(&program, WEB, ROLLOUTS);
    assert_eq!(
        seen.lost.load(SeqCst),
        0,
        "of {}",
        seen.answered.load(SeqCst)
    );
    assert!(seen.answered.load(SeqCst) > 1000);
}

#[test]
fn rolling_update_behind_an_http_port_loses_no_request_of_clients_that_stay() {
    in_namespace!(Root);
    let text = WEB.replace("targetPort: 8080", "targetPort: 8080, appProtocol: http");
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    let seen = roll_under_load(&program, &text, ROLLOUTS / 4);
    let answered = seen.answered.load(SeqCst);
    assert_eq!(seen.lost.load(SeqCst), 0, "of {answered}");
    assert!(answered > 1000, "{answered}");
}

#[test]
fn rolling_update_without_draining_loses_some() {
    in_namespace!(Root);
    // No grace: a pod ends with its connections, as a process that is killed does.
    let text = WEB.replace(
        "terminationGracePeriodSeconds: 30",
        "terminationGracePeriodSeconds: 0",
    );
    let program = Program::up(&["--simulate"], &[("web.yaml", &text)]);
    let seen = roll_under_load(&program, &text, 3);
    assert!(
        seen.lost.load(SeqCst) > 0,
        "of {}",
        seen.answered.load(SeqCst)
    );
}
