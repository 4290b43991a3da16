//! Which endpoint a request goes to where something says so: cookies, headers and clients' addresses, over several connections and
//! changes of the endpoints; requests in progress, and how long answers take.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::{ONE, VERSIONS, curl, curl_times, parsed, picks, service};
use crate::support::{
    PATIENCE, is_installed,
    namespace::in_namespace,
    peer::{Peer, python, serve},
    program::{Program, way},
};

const PODS: [&str; 3] = ["127.1.0.1", "127.1.0.2", "127.1.0.3"];

/// A Service with these annotations (and what else goes below `metadata`), and endpoints at these pods.
fn manifest(annotations: &str, pods: &[&str]) -> String {
    let plain = service("web", &[("http", ONE)], pods);
    let metadata = format!("metadata: {{name: web, annotations: {{{annotations}}}}}");
    plain.replace("metadata: {name: web}", &metadata)
}

/// Three origins, and portico before them.
fn up(text: &str) -> Option<(Peer, Program, SocketAddr)> {
    let python = python(&["http.server"]).filter(|_| is_installed("curl"))?;
    let pods = PODS.map(|pod| format!("{pod}:{}", ONE + 1000));
    let [a, b, c] = pods.each_ref().map(String::as_str);
    let servers = serve(&python, "origin.py", &["http1", a, b, c]);
    let program = Program::up(&[], &[("web.yaml", text)]);
    let door = way(&program.wait_for_endpoints("web", 3), "ClusterIP");
    Some((servers, program, door))
}

/// Who answered, by address.
fn pod(answer: &str) -> String {
    let seen = parsed(answer);
    let pod = seen["pod"].as_str().unwrap();
    pod.split(':').next().unwrap().to_owned()
}

#[test]
fn cookie_keeps_a_client_at_its_endpoint_until_that_is_gone() {
    in_namespace!(Root);
    let cookie = "portico.dev/affinity-cookie: SHOP; Max-Age=600";
    let Some((_servers, program, door)) = up(&manifest(cookie, &PODS)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{door}/");
    let ask = |client: &str, flags: &[&str]| {
        let jar = folder.path().join(client);
        let jar = jar.to_str().unwrap();
        pod(&curl(&[&["-b", jar, "-c", jar, &*url], flags].concat()))
    };
    // Without a cookie they take turns.
    let homes = ["ann", "bob", "cem"].map(|client| (client, ask(client, &[])));
    assert_eq!(
        homes
            .iter()
            .map(|(_, home)| home)
            .collect::<BTreeSet<_>>()
            .len(),
        3
    );
    for (client, home) in &homes {
        for (version, _) in VERSIONS {
            assert_eq!(ask(client, &[version]), *home, "{client} {version}");
        }
    }
    // Who has a cookie is given none.
    let heads = curl(&[
        "-i",
        "-b",
        folder.path().join("ann").to_str().unwrap(),
        &url,
    ]);
    assert!(!heads.contains("set-cookie"), "{heads}");

    let gone = &homes[0].1;
    let left: Vec<&str> = PODS.into_iter().filter(|pod| pod != gone).collect();
    program.write("web.yaml", &manifest(cookie, &left));
    program.wait_for_endpoints("web", 2);
    let moved = ask("ann", &[]);
    assert!(left.contains(&&*moved), "{moved}");
    for _ in 0..3 {
        assert_eq!(ask("ann", &[]), moved, "it has a new cookie");
        assert_eq!(ask("bob", &[]), homes[1].1);
        assert_eq!(ask("cem", &[]), homes[2].1);
    }
    // What comes back is nobody's home before somebody was sent there.
    program.write("web.yaml", &manifest(cookie, &PODS));
    program.wait_for_endpoints("web", 3);
    assert_eq!(ask("ann", &[]), moved);
    assert_eq!(ask("bob", &[]), homes[1].1);
}

#[test]
fn header_chooses_the_endpoint_and_few_move_when_one_leaves() {
    in_namespace!(Root);
    let maglev = "portico.dev/balance: maglev, portico.dev/hash-header: X-User";
    let Some((_servers, program, door)) = up(&manifest(maglev, &PODS)) else {
        return;
    };
    let url = format!("http://{door}/");
    let ask = |flags: &[&str], user: &str| {
        let user = format!("X-User: {user}");
        pod(&curl(&[flags, &["-H", &user, &url]].concat()))
    };
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let homes: BTreeMap<&str, String> =
        users.iter().map(|user| (&**user, ask(&[], user))).collect();
    for (user, home) in homes.iter().take(10) {
        for (version, _) in VERSIONS {
            assert_eq!(ask(&[version], user), *home, "{user} {version}");
        }
    }
    let at = |pod: &str| homes.values().filter(|home| *home == pod).count();
    for pod in PODS {
        assert!((10..=30).contains(&at(pod)), "{pod}: {homes:?}");
    }
    program.write("web.yaml", &manifest(maglev, &PODS[..2]));
    program.wait_for_endpoints("web", 2);
    let moved = homes
        .iter()
        .filter(|(user, home)| *home != PODS[2] && ask(&[], user) != **home);
    let moved = moved.count();
    assert!(moved <= 3, "{moved} moved whose endpoint is there");
    // Without the header the client's address counts, which is the same each time.
    let nameless: BTreeSet<String> = (0..5).map(|_| pod(&curl(&[&url]))).collect();
    assert_eq!(nameless.len(), 1, "{nameless:?}");
}

#[test]
fn session_affinity_keeps_each_client_address_at_one_endpoint_on_every_connection() {
    in_namespace!(Root);
    let text = manifest("", &PODS).replace(
        "  ports: [{name",
        "  sessionAffinity: ClientIP\n  ports: [{name",
    );
    let Some((_servers, _program, door)) = up(&text) else {
        return;
    };
    let mut homes = BTreeSet::new();
    for client in ["127.9.0.1", "127.9.0.2", "127.9.0.3"] {
        let mut seen = BTreeSet::new();
        for (version, _) in VERSIONS {
            let said = curl_times(
                &[version, "--interface", client],
                &format!("http://{door}/"),
                3,
            );
            seen.extend(said.lines().map(pod));
        }
        assert_eq!(seen.len(), 1, "{client}: {seen:?}");
        homes.extend(seen);
    }
    assert_eq!(homes.len(), 3, "each has one of its own");
}

#[test]
fn least_request_leaves_an_endpoint_alone_while_its_request_is_in_progress() {
    in_namespace!(Root);
    let text = manifest("portico.dev/balance: least-request", &PODS);
    let Some((_servers, program, door)) = up(&text) else {
        return;
    };
    // Its body does not come, so that its endpoint waits.
    let mut busy = TcpStream::connect(door).unwrap();
    busy.set_read_timeout(Some(PATIENCE)).unwrap();
    busy.write_all(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    let status = program.watch_for("the request to be counted", |status| {
        picks(&status.services[0].ports[0]).contains(&1)
    });
    let before = picks(&status.services[0].ports[0]);
    let busy_one = before.iter().position(|picks| *picks == 1).unwrap();
    // On one connection, which is a client's way to be sent to one endpoint by who counts connections.
    let said = curl(&["--http1.1", &format!("http://{door}/[1-30]")]);
    assert_eq!(said.lines().count(), 30);
    let after = picks(&program.status().services[0].ports[0]);
    assert_eq!(after[busy_one], 1, "{after:?}");
    assert_eq!(after.iter().sum::<u64>(), 31, "{after:?}");
    busy.write_all(b"hi").unwrap();
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Two Deployments behind one Service, of which one takes its time.
const SLOW_AND_FAST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portico.dev/balance: peak-ewma}}
spec:
  selector: {app: web}
  ports: [{port: 8080, appProtocol: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: fast}
spec:
  replicas: 1
  selector: {matchLabels: {of: fast}}
  template:
    metadata: {labels: {app: web, of: fast}}
    spec: {containers: [{name: web, image: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow}
spec:
  replicas: 1
  selector: {matchLabels: {of: slow}}
  template:
    metadata: {labels: {app: web, of: slow}, annotations: {portico.dev/latency: 100ms}}
    spec: {containers: [{name: web, image: web}]}
";

#[test]
fn peak_ewma_sends_little_to_the_one_that_takes_its_time() {
    in_namespace!(Root);
    if !is_installed("curl") {
        return;
    }
    let program = Program::up(&["--simulate"], &[("web.yaml", SLOW_AND_FAST)]);
    let door = way(&program.wait_for_endpoints("web", 2), "ClusterIP");
    let said = curl(&["--http1.1", &format!("http://{door}/[1-100]")]);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in said
        .lines()
        .filter(|line| line.starts_with("slow") || line.starts_with("fast"))
    {
        *counts.entry(&line[..4]).or_default() += 1;
    }
    let slow = counts.get("slow").copied().unwrap_or_default();
    assert_eq!(slow + counts["fast"], 100, "{said}");
    assert!(slow <= 15, "{counts:?}");
}
