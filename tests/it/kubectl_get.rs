//! `portico get` beside a real kubectl on the same objects: a small API server answers kubectl from a file, and the
//! printers get the same file. What comes from the server as a table (the usual columns) is not compared here.
//!
//! Skipped, with a printed reason, where there is no kubectl.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
};

use clap::Parser;
use portico::{
    cli::{
        cluster::WatchEvent,
        get::{GetArgs, Objects, Terminal, run_with},
    },
    clock,
    objects::Resource,
};
use serde_json::{Value, json};

const OBJECTS: &str = include_str!("../fixtures/kubectl_get/objects.json");
const TEMPLATES: &str = include_str!("../fixtures/kubectl_get/jsonpath.txt");

#[derive(Parser)]
struct Get {
    #[command(flatten)]
    args: GetArgs,
}

struct Fixture(BTreeMap<String, Vec<Value>>);

impl Fixture {
    fn of(&self, resource: Resource, namespace: Option<&str>) -> Vec<Value> {
        let all = self.0.get(resource.plural()).cloned().unwrap_or_default();
        let is_in = |object: &Value| {
            let of = object["metadata"]["namespace"].as_str();
            !resource.is_namespaced() || namespace.is_none_or(|wanted| of == Some(wanted))
        };
        all.into_iter().filter(is_in).collect()
    }
}

impl Objects for Fixture {
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        Ok(self.of(resource, namespace))
    }

    fn watch<'a>(
        &'a self,
        _: Resource,
        _: Option<&'a str>,
    ) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<WatchEvent>> + 'a>> {
        Ok(Box::new(std::iter::empty()))
    }
}

/// What kubectl asks for: discovery, lists and single objects.
fn answer(fixture: &Fixture, path: &str) -> (u16, Value) {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api"] => return (200, json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let groups = ["apps", "discovery.k8s.io"].map(|name| {
                let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
                json!({"name": name, "versions": [version], "preferredVersion": version})
            });
            return (
                200,
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
            );
        }
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, "v1", rest @ ..] => (*group, rest),
        _ => return (404, json!({})),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        rest => (None, rest),
    };
    let Some((plural, name)) = rest.split_first() else {
        return (200, resources(group));
    };
    let Some(resource) = Resource::named(plural) else {
        return (404, json!({}));
    };
    let mut items = fixture.of(resource, namespace);
    let Some(name) = name.first() else {
        let kind = format!("{}List", resource.kind());
        return (
            200,
            json!({"apiVersion": resource.api_version(), "kind": kind, "metadata": {"resourceVersion": "7"}, "items": items}),
        );
    };
    items.retain(|object| object["metadata"]["name"] == **name);
    if let Some(object) = items.pop() {
        return (200, object);
    }
    let message = format!("{} \"{name}\" not found", resource.qualified());
    let details = json!({"name": name, "group": group, "kind": plural});
    (
        404,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
            "reason": "NotFound", "details": details, "code": 404}),
    )
}

fn resources(group: &str) -> Value {
    let of_group = Resource::all().filter(|resource| resource.group() == group);
    let resources: Vec<Value> = of_group
        .map(|resource| {
            json!({
                "name": resource.plural(), "singularName": resource.singular(), "kind": resource.kind(),
                "namespaced": resource.is_namespaced(), "shortNames": resource.short_names(),
                "verbs": ["get", "list", "watch"],
            })
        })
        .collect();
    let version = if group.is_empty() {
        "v1".to_owned()
    } else {
        format!("{group}/v1")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
}

fn serve(fixture: Arc<Fixture>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                let _ = exchange(&fixture, stream);
            });
        }
    });
    port
}

fn exchange(fixture: &Fixture, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while header != "\r\n" {
            header.clear();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
        }
        let (status, body) = answer(fixture, request.split(' ').nth(1).unwrap_or("/"));
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
    }
}

/// Both outputs: what is printed, and the error.
struct Pair {
    fixture: Arc<Fixture>,
    port: u16,
    cache: tempfile::TempDir,
}

impl Pair {
    fn new() -> Option<Self> {
        let version = Command::new("kubectl")
            .args(["version", "--client"])
            .output();
        if !version.is_ok_and(|version| version.status.success()) {
            eprintln!("skipped: there is no kubectl to compare with");
            return None;
        }
        let fixture = Arc::new(Fixture(serde_json::from_str(OBJECTS).unwrap()));
        let port = serve(Arc::clone(&fixture));
        Some(Self {
            fixture,
            port,
            cache: tempfile::tempdir().unwrap(),
        })
    }

    fn kubectl(&self, arguments: &[&str]) -> (String, String) {
        let output = Command::new("kubectl")
            // The user's own file may be broken, and is looked at before the flag is.
            .env("HOME", self.cache.path())
            .env_remove("KUBECONFIG")
            .arg("--kubeconfig=/dev/null")
            .arg(format!("--server=http://127.0.0.1:{}", self.port))
            .arg(format!("--cache-dir={}", self.cache.path().display()))
            .arg("get")
            .args(arguments)
            .output()
            .unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn portico(&self, arguments: &[&str]) -> (String, String) {
        let get = Get::try_parse_from(["get"].iter().chain(arguments)).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            out: &mut out,
            err: &mut err,
            now: clock::now,
        };
        let result = run_with(&get.args, &*self.fixture, &mut terminal);
        let mut err = String::from_utf8(err).unwrap();
        if let Err(error) = result {
            err.push_str(&error.to_string());
        }
        (String::from_utf8(out).unwrap(), err)
    }

    fn check(&self, arguments: &[&str], differences: &mut Vec<String>) {
        let (expected, expected_error) = self.kubectl(arguments);
        let (found, found_error) = self.portico(arguments);
        // kubectl goes on to print the whole object.
        let shorten = |text: &str| {
            let text = text
                .split(". Printing more information")
                .next()
                .unwrap_or_default();
            text.trim().replace("kubectl", "portico")
        };
        let (expected_error, found_error) = (shorten(&expected_error), shorten(&found_error));
        if expected != found || expected_error != found_error {
            let at = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
            differences.push(format!(
                "{arguments:?}\n  expected: {}\n  found:    {}\n  at: {at:?}\n  errors: {expected_error:?}\n          {found_error:?}",
                expected.get(..200).unwrap_or(&expected),
                found.get(..200).unwrap_or(&found),
            ));
        }
    }
}

#[test]
fn get_formats_print_what_kubectl_prints() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let columns = "custom-columns=N:.metadata.name,L:.metadata.labels,X:.spec.nope,C:.spec.containers[*].name,\
                   W:.spec.weight,A:.spec.big,B:.spec.nothing,D:.spec.containers,H:.metadata.annotations.html";
    let mut differences = Vec::new();
    for arguments in [
        &["svc", "strs", "-o", "yaml"][..],
        &["svc", "strs", "-o", "json"],
        &["pods", "-o", "yaml"],
        &["pods", "-A", "-o", "json"],
        &["pod", "web-2", "-o", "yaml"],
        &["pod/web-2", "deployment/web", "-o", "yaml"],
        &["pod", "web-2", "nope", "-o", "name"],
        &["pod", "nope", "-o", "yaml"],
        &["pods,deployments", "-o", "name"],
        &["rs", "-o", "yaml"],
        &["rs", "-o", "json"],
        &["rs", "-o", "name"],
        &["rs", "-o", "custom-columns=N:.metadata.name"],
        &["pods", "-o", columns],
        &[
            "pods",
            "-o",
            "custom-columns=N:metadata.name,M:{.kind}",
            "--no-headers",
        ],
        &["pods", "-o", "custom-columns=N"],
        &["pods", "-o", "custom-columns=N:{a}{b}"],
        &[
            "pods",
            "-o",
            "jsonpath-as-json={.items[*].metadata.name}{.items[0].spec.containers}",
        ],
        &[
            "pods",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}",
        ],
        &["pods", "-o", "name", "--sort-by=.metadata.name"],
        &[
            "pods",
            "-o",
            "name",
            "--sort-by=.metadata.creationTimestamp",
        ],
        &["pods", "-o", "name", "--sort-by={.spec.weight}"],
        &[
            "pods",
            "-o",
            "name",
            "--sort-by=spec.containers[0].resources.requests.memory",
        ],
        &["pods", "-o", "name", "--sort-by=.metadata.labels.version"],
        &["pods", "-o", "name", "--sort-by=.spec.nope"],
        &["pods", "-o", "name", "--sort-by={.a}{.b}"],
    ] {
        pair.check(arguments, &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn get_messages_are_kubectls() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let mut differences = Vec::new();
    for arguments in [
        &["widgets"][..],
        &["po,"],
        &["po/"],
        &["po/a/b"],
        &["pods", ""],
        &["pods", "deploy/web"],
        &["po/nope", "deploy/x"],
        &["nodes", "nope"],
        &["pods", "nope", "--ignore-not-found"],
        &["pods", "a", "-l", "x=y"],
        &["po/web-2", "-l", "x=y"],
        &["-A", "po", "web-2"],
        &["rs"],
        &["rs", "-n", "shop"],
        &["rs", "-A"],
        &["svc,pods", "-w"],
        &["pods", "-o", "name", "--show-labels"],
        &["pods", "--output-watch-events"],
        &["pods", "-o", "jsonpath"],
        &["pods", "-o", "custom-columns="],
        &["pods", "-o", "jsonpath-file=/nonexistent"],
        &["pods", "-o", "custom-columns-file=/nonexistent"],
    ] {
        pair.check(arguments, &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn get_jsonpath_prints_what_kubectl_prints() {
    let Some(pair) = Pair::new() else {
        return;
    };
    let mut differences = Vec::new();
    for template in TEMPLATES.lines() {
        let output = format!("jsonpath={template}");
        pair.check(&["pod", "web-2", "-o", &output], &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
