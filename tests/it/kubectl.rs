//! Our texts beside those of a real kubectl, for the same objects: a small API server in this process gives kubectl
//! the fixtures, we read them from the file. Where no kubectl is installed the tests say so and pass.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use portico::{
    cli::{
        describe::{Listeners, Related, Zone, describe},
        rollout_text::{self, RolloutState},
    },
    objects::Resource,
};
use portico_core::time::Timestamp;
use serde_json::{Value, json};

const OBJECTS: &str = include_str!("../fixtures/kubectl/objects.json");

/// Where both are, with summer time; where the zones are not installed both are in UTC.
const ZONE: &str = "Europe/Berlin";

/// Resources that kubectl asks for beside the described ones.
const EXTRA: [(&str, &str); 2] = [
    ("resourcequotas", "ResourceQuota"),
    ("limitranges", "LimitRange"),
];

/// Everything in the fixtures, as an API server would list it.
fn objects() -> Vec<Value> {
    let mut list: Value = serde_json::from_str(OBJECTS).unwrap();
    let mut objects: Vec<Value> = serde_json::from_value(list["items"].take()).unwrap();
    let of =
        |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
    objects.sort_by_key(|object| (of(object, "namespace"), of(object, "name")));
    objects
}

fn of(objects: &[Value], resource: Resource) -> Vec<Value> {
    let own = objects
        .iter()
        .filter(|object| object["kind"] == resource.kind());
    own.cloned().collect()
}

/// kubectl with a server of its own.
struct Kubectl {
    server: SocketAddr,
    home: tempfile::TempDir,
}

impl Kubectl {
    /// `None` after saying why.
    fn start(objects: &[Value]) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let version = Command::new("kubectl")
            .args(["version", "--client", "-o", "json"])
            .env("HOME", home.path())
            .output();
        let version: Option<Value> = version
            .ok()
            .and_then(|out| serde_json::from_slice(&out.stdout).ok());
        let Some(version) = version else {
            println!("skipped: no kubectl is installed");
            return None;
        };
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or("");
        let minor = minor.trim_end_matches('+').parse().unwrap_or(0);
        if minor < 32 {
            println!("skipped: kubectl 1.{minor} is older than the layouts compared here (1.32)");
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let objects = Arc::new(objects.to_vec());
        // Ends with the test process: it owns nothing that outlives it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = Arc::clone(&objects);
                std::thread::spawn(move || serve(&stream, &objects));
            }
        });
        Some(Self { server, home })
    }

    /// Standard output and standard error.
    fn run(&self, args: &[&str]) -> (String, String) {
        let output = Command::new("kubectl")
            .args([
                "--kubeconfig=/dev/null",
                "-s",
                &format!("http://{}", self.server),
            ])
            .args(args)
            .env("HOME", self.home.path())
            .env("TZ", ZONE)
            .env_remove("KUBECONFIG")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }
}

/// One connection, request after request.
fn serve(stream: &TcpStream, objects: &[Value]) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let target = line.split(' ').nth(1).unwrap_or("/").to_owned();
        while line.trim_end() != "" {
            line.clear();
            if !reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                return;
            }
        }
        line.clear();
        if target.contains("watch=true") {
            watch(stream, &mut reader);
            return;
        }
        let (code, body) = answer(&target, objects);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {code} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut writer = stream;
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// Nothing changes: the answer begins, and ends when the client has heard enough.
fn watch(mut stream: &TcpStream, reader: &mut impl std::io::Read) {
    let head =
        "HTTP/1.1 200 -\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = stream.write_all(head.as_bytes());
    let _ = reader.read(&mut [0]);
}

/// Plain discovery, lists with field selectors and `key=value` label selectors, and single objects.
fn answer(target: &str, objects: &[Value]) -> (u16, Value) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api"] => return (200, json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ["apis"] => return (200, groups()),
        ["version"] => {
            return (
                200,
                json!({ "major": "1", "minor": "33", "gitVersion": "v1.33.0" }),
            );
        }
        _ => {}
    }
    let of_group = if parts[0] == "api" { 2 } else { 3 };
    let (version, mut rest) = (parts[1..of_group].join("/"), parts.split_off(of_group));
    if rest.is_empty() {
        return (200, resources(&version));
    }
    let mut namespace = None;
    if rest[0] == "namespaces" && rest.len() > 2 {
        namespace = Some(rest[1]);
        rest.drain(..2);
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let of_version = kinds(&version).into_iter();
    let Some((_, kind, _)) = of_version
        .into_iter()
        .find(|(plural, ..)| *plural == rest[0])
    else {
        return not_found(rest[0], group, rest.last().unwrap());
    };
    let mut found: Vec<&Value> = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect();
    found.retain(|object| namespace.is_none_or(|wanted| object["metadata"]["namespace"] == wanted));
    if let Some(name) = rest.get(1) {
        let object = found
            .into_iter()
            .find(|object| object["metadata"]["name"] == *name);
        return object.map_or_else(
            || not_found(rest[0], group, name),
            |object| (200, object.clone()),
        );
    }
    let query = parameters(query);
    found.retain(|object| is_selected(object, &query));
    let list = json!({ "kind": format!("{kind}List"), "apiVersion": version, "metadata": {}, "items": found });
    (200, list)
}

fn groups() -> Value {
    let groups = ["apps", "discovery.k8s.io"].map(|name| {
        let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
        json!({ "name": name, "versions": [version], "preferredVersion": version })
    });
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// Plural, kind and whether it has namespaces.
fn kinds(version: &str) -> Vec<(&'static str, &'static str, bool)> {
    let own = Resource::all().filter(|resource| resource.api_version() == version);
    let mut kinds: Vec<_> = own
        .map(|resource| (resource.plural(), resource.kind(), resource.is_namespaced()))
        .collect();
    if version == "v1" {
        kinds.extend(EXTRA.map(|(plural, kind)| (plural, kind, true)));
    }
    kinds
}

fn resources(version: &str) -> Value {
    let kinds = kinds(version).into_iter().map(|(plural, kind, namespaced)| {
        json!({
            "name": plural, "singularName": kind.to_lowercase(), "kind": kind, "namespaced": namespaced,
            "verbs": ["get", "list"]
        })
    });
    let kinds: Vec<Value> = kinds.collect();
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds })
}

fn not_found(resource: &str, group: &str, name: &str) -> (u16, Value) {
    let dot = if group.is_empty() { "" } else { "." };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": format!("{resource}{dot}{group} \"{name}\" not found"),
        "details": { "name": name, "kind": resource, "group": group }
    });
    (404, status)
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// As far as kubectl's describe asks: fields with `=` and `!=`; of labels, `key=value` and the set forms of the
/// fixtures' selectors, which choose by the `app` label.
fn is_selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let fields = query.get("fieldSelector").map_or("", String::as_str);
    let by_field = fields.split(',').filter(|one| !one.is_empty()).all(|one| {
        let (path, value, wanted) = match one.split_once("!=") {
            Some((path, value)) => (path, value, false),
            None => one
                .split_once('=')
                .map(|(path, value)| (path, value, true))
                .unwrap(),
        };
        let found = object.pointer(&format!("/{}", path.replace('.', "/")));
        (found.and_then(Value::as_str).unwrap_or("") == value) == wanted
    });
    let labels = query.get("labelSelector").map_or("", String::as_str);
    let by_label = labels
        .split(',')
        .filter_map(|one| one.split_once('='))
        .all(|(key, value)| object["metadata"]["labels"][key].as_str() == Some(value));
    by_field && by_label
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

/// Ours without what kubectl prints only since 1.33, if this one does not: the namespace of a DaemonSet.
fn as_old_as(theirs: &str, ours: &str) -> String {
    let is_namespace = |line: &str| line.starts_with("Namespace:");
    let is_new = !theirs.lines().any(is_namespace);
    ours.split_inclusive('\n')
        .filter(|line| !(is_new && is_namespace(line)))
        .collect()
}

#[test]
fn describe_prints_what_kubectl_prints() {
    let objects = objects();
    let Some(kubectl) = Kubectl::start(&objects) else {
        return;
    };
    let related = Related {
        events: Some(of(&objects, Resource::Events)),
        pods: of(&objects, Resource::Pods),
        replica_sets: of(&objects, Resource::ReplicaSets),
        slices: of(&objects, Resource::EndpointSlices),
        listeners: Listeners::Hidden,
        connections: Vec::new(),
        now: now(),
        zone: Zone::local(Some(ZONE)),
    };
    for resource in Resource::all() {
        let texts = of(&objects, resource).into_iter();
        let texts: Vec<String> = texts
            .map(|object| describe(resource, &object, &related))
            .collect();
        let (theirs, errors) = kubectl.run(&["describe", resource.plural(), "-A"]);
        assert_eq!(errors, "");
        let ours = texts.join("\n\n");
        let ours = match resource {
            Resource::DaemonSets => as_old_as(&theirs, &ours),
            _ => ours,
        };
        let differing = ours
            .lines()
            .zip(theirs.lines())
            .find(|(ours, theirs)| ours != theirs);
        assert_eq!(differing, None, "{}", resource.plural());
        assert_eq!(ours, theirs, "{}", resource.plural());
    }
}

#[test]
fn rollout_texts_are_those_of_kubectl() {
    let objects = objects();
    let Some(kubectl) = Kubectl::start(&objects) else {
        return;
    };
    for resource in [
        Resource::Deployments,
        Resource::DaemonSets,
        Resource::StatefulSets,
    ] {
        for object in of(&objects, resource) {
            let name = format!(
                "{}/{}",
                resource.plural(),
                object["metadata"]["name"].as_str().unwrap()
            );
            let theirs = kubectl.run(&["rollout", "status", &name, "--watch=false"]);
            let ours = match rollout_text::status(resource, &object, None) {
                RolloutState::Waiting(text) | RolloutState::Done(text) => {
                    (text + "\n", String::new())
                }
                RolloutState::Failed(text) => (String::new(), text + "\n"),
            };
            assert_eq!(ours, theirs, "{name}");
        }
    }
    let sets = of(&objects, Resource::ReplicaSets);
    for deployment in of(&objects, Resource::Deployments) {
        let name = format!(
            "deployments/{}",
            deployment["metadata"]["name"].as_str().unwrap()
        );
        for wanted in [None, Some(1), Some(3), Some(9)] {
            let revision = format!("--revision={}", wanted.unwrap_or(0));
            let theirs = kubectl.run(&["rollout", "history", &name, &revision]);
            let ours = match rollout_text::history(&deployment, &sets, wanted) {
                Ok(text) => (text, String::new()),
                Err(text) => (String::new(), text + "\n"),
            };
            assert_eq!(ours, theirs, "{name} {wanted:?}");
        }
    }
}
