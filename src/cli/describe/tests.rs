//! Layouts against texts that kubectl 1.33 printed for the same objects (`tests/fixtures/kubectl`; an integration test
//! makes them anew where kubectl is installed).

use portico_core::calendar::parse_rfc3339;

use super::*;

const OBJECTS: &str = include_str!("../../../tests/fixtures/kubectl/objects.json");

/// When kubectl printed the texts.
const NOW: &str = "2026-11-21T07:20:00Z";

fn all() -> Vec<Value> {
    let list: Value = serde_json::from_str(OBJECTS).unwrap();
    let mut objects = json::items(&list, "/items").to_vec();
    objects.sort_by_key(|object| {
        (
            json::namespace(object).to_owned(),
            json::name(object).to_owned(),
        )
    });
    objects
}

fn of(resource: Resource) -> Vec<Value> {
    let mut objects = all();
    objects.retain(|object| json::text(object, "/kind") == resource.kind());
    objects
}

fn related() -> Related {
    Related {
        events: Some(of(Resource::Events)),
        pods: of(Resource::Pods),
        replica_sets: of(Resource::ReplicaSets),
        slices: of(Resource::EndpointSlices),
        listeners: Listeners::Hidden,
        connections: Vec::new(),
        zone: Zone::default(),
        now: Timestamp::from_millis(u64::try_from(parse_rfc3339(NOW).unwrap()).unwrap()),
    }
}

fn check(resource: Resource, expected: &str) {
    let related = related();
    let texts: Vec<String> = of(resource)
        .iter()
        .map(|object| describe(resource, object, &related))
        .collect();
    let text = texts.join("\n\n");
    let differing = text.lines().zip(expected.lines()).enumerate();
    for (number, (ours, theirs)) in differing {
        assert_eq!(ours, theirs, "line {} of {}", number + 1, resource.plural());
    }
    assert_eq!(text, expected, "{}", resource.plural());
}

macro_rules! as_kubectl {
    ($($test:ident: $resource:ident, $file:literal;)*) => {$(
        #[test]
        fn $test() {
            let expected =
                include_str!(concat!("../../../tests/fixtures/kubectl/describe/", $file, ".txt"));
            check(Resource::$resource, expected);
        }
    )*};
}

as_kubectl! {
    describe_services_prints_as_kubectl: Services, "services";
    describe_endpoints_prints_as_kubectl: Endpoints, "endpoints";
    describe_slices_prints_as_kubectl: EndpointSlices, "endpointslices";
    describe_pods_prints_as_kubectl: Pods, "pods";
    describe_replica_sets_prints_as_kubectl: ReplicaSets, "replicasets";
    describe_deployments_prints_as_kubectl: Deployments, "deployments";
    describe_daemon_sets_prints_as_kubectl: DaemonSets, "daemonsets";
    describe_stateful_sets_prints_as_kubectl: StatefulSets, "statefulsets";
    describe_namespaces_prints_as_kubectl: Namespaces, "namespaces";
    describe_nodes_prints_as_kubectl: Nodes, "nodes";
    describe_events_prints_as_kubectl: Events, "events";
}

#[test]
fn describe_service_traffic_distribution_is_shown() {
    let mut service = of(Resource::Services).remove(0);
    service["spec"]["trafficDistribution"] = "PreferClose".into();
    let text = describe(Resource::Services, &service, &related());
    assert!(
        text.contains("\nTraffic Distribution:     PreferClose\n"),
        "{text}"
    );
}

#[test]
fn describe_projected_volume_names_its_sources() {
    let mut pod = of(Resource::Pods).remove(0);
    pod["spec"]["volumes"] = serde_json::json!([{ "name": "all", "projected": { "sources": [
        { "configMap": { "name": "ca" } },
        { "secret": { "name": "keys", "optional": true } }
    ] } }]);
    let text = describe(Resource::Pods, &pod, &related());
    // kubectl 1.33; 1.32 printed Go's pointers here.
    let expected = "\
    ConfigMapName:  ca
    Optional:       false
    SecretName:     keys
    Optional:       true
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn describe_without_events_has_no_events() {
    let related = Related {
        events: None,
        ..related()
    };
    for resource in Resource::all() {
        for object in of(resource) {
            let text = describe(resource, &object, &related);
            assert!(!text.contains("Events:"), "{text}");
        }
    }
}

fn service(name: &str) -> Value {
    let mut all = of(Resource::Services);
    all.retain(|one| json::name(one) == name);
    all.remove(0)
}

/// The block, without what stands before and after it.
fn block(name: &str, listeners: Listeners) -> String {
    let related = Related {
        listeners,
        ..related()
    };
    let text = describe(Resource::Services, &service(name), &related);
    let start = text.find("Listeners:").unwrap();
    let end = text.find("Events:").unwrap();
    text[start..end].to_owned()
}

#[test]
fn listeners_offline_say_what_would_be_bound() {
    assert_eq!(
        block("web", Listeners::Declared),
        "\
Listeners:
  Kind       Declared            Bound   State
  ----       --------            -----   -----
  ClusterIP  127.96.0.10:80/TCP  <none>  would be bound
"
    );
    let shop = block("shop", Listeners::Declared);
    for line in [
        "ClusterIP     [fd00::11]:80/TCP    <none>  would be bound",
        "NodePort      [::]:30080/TCP       <none>  would be bound",
        "ExternalIP    198.51.100.2:53/UDP  <none>  would be bound",
        "LoadBalancer  203.0.113.8:80/TCP   <none>  would be bound",
    ] {
        assert!(shop.contains(line), "{line}\n{shop}");
    }
    assert_eq!(
        block("headless", Listeners::Declared).trim_end(),
        "Listeners:                <none>"
    );
}

#[test]
fn listeners_live_tell_bound_state_reason_holder_and_fix() {
    let way = |kind: &str, declared: &str, bound: Option<&str>, problem: Option<&str>| serde_json::json!({ "kind": kind, "declared": declared, "bound": bound, "problem": problem });
    let report = |(declared, bound): (&str, Option<&str>),
                  (state, reason): (&str, &str),
                  holder: Option<&str>,
                  fix: Option<&str>| {
        serde_json::json!({
            "declared": declared, "protocol": "TCP", "services": "default/web", "state": state, "bound": bound, "reason": reason,
            "holder": holder, "fix": fix
        })
    };
    let port = serde_json::json!({
        "name": "", "protocol": "TCP", "port": 80, "endpoints": [], "accepted": 6, "connected": 1,
        "retries": 0, "rejected": 9, "speaks": "HTTP: appProtocol: http", "droppedPolicy": 2, "droppedSourceRange": 3, "rejectedFull": 4,
        "active": 7, "maxConnections": 10, "maxConnectionsPerEndpoint": 5, "waiting": 1,
        "reachable": [
            way("ClusterIP", "127.96.0.10:80", Some("127.96.0.10:10080"), Some("permission denied")),
            way("NodePort", "0.0.0.0:30080", None, Some("address in use")),
            way("ExternalIP", "127.0.0.9:80", Some("127.0.0.9:80"), None),
            way("LoadBalancer", "127.0.0.10:81", Some("127.0.0.10:81"), None)
        ]
    });
    let status = serde_json::json!({
        "version": "0", "instance": "default", "pid": 1, "generation": 1, "synced": true, "dns": [], "pods": [],
        "listenerCount": 1, "connections": 0, "descriptors": 1, "findings": [],
        "protocol": "TCP", "services": [{
            "namespace": "default", "name": "web", "type": "NodePort", "clusterIp": "127.96.0.10",
            "externalIps": [], "portList": [], "headlessAddresses": [], "origin": "a.yaml:1", "selector": {},
            "ports": [port]
        }],
        "listeners": [
            report(("127.96.0.10:80", Some("127.96.0.10:10080")), ("fallback", "permission denied"), None,
                Some("sudo sysctl net.ipv4.ip_unprivileged_port_start=80")),
            report(("0.0.0.0:30080", None), ("failed", "address in use"), Some("nginx (pid 12)"), None),
            report(("127.0.0.10:81", Some("127.0.0.10:81")), ("refusing", "no usable endpoint"), None, None),
            {"declared": "127.0.0.9:80", "protocol": "TCP", "services": "default/web", "state": "listening", "bound": "127.0.0.9:80",
                "reason": null, "holder": null, "fix": null, "turnedAway": "dropped", "droppedByFilter": 7}
        ]
    });
    let status: Status = serde_json::from_value(status).unwrap();
    assert_eq!(
        block("web", Listeners::Live(Box::new(status))),
        "\
Listeners:
  Kind          Declared            Bound              State
  ----          --------            -----              -----
  ClusterIP     127.96.0.10:80/TCP  127.96.0.10:10080  fallback
    Reason:     permission denied
    Fix:        sudo sysctl net.ipv4.ip_unprivileged_port_start=80
  NodePort      0.0.0.0:30080/TCP   <none>             failed
    Reason:     address in use
    Holder:     nginx (pid 12)
  ExternalIP    127.0.0.9:80/TCP    127.0.0.9:80       listening
    Filter:     dropped by a socket filter: the client sees a time-out, as in a cluster (7 packets so far, repeated ones too)
  LoadBalancer  127.0.0.10:81/TCP   127.0.0.10:81      refusing
    Reason:     no usable endpoint
  Refused:      80/TCP: 2 by traffic policy, 3 by source range, 4 for want of a place in time
  Speaks:       80/TCP: HTTP: appProtocol: http
  Limits:       80/TCP: 7 of 10 connections, 0 of 0 endpoints have their 5; 1 wait
"
    );
}

/// The objects as a cluster has them.
struct Fixture;

impl Objects for Fixture {
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut objects = of(resource);
        objects.retain(|object| {
            let is_here = namespace.is_none_or(|wanted| json::namespace(object) == wanted);
            !resource.is_namespaced() || is_here
        });
        Ok(objects)
    }

    fn listeners(&self) -> anyhow::Result<Listeners> {
        Ok(Listeners::Hidden)
    }
}

fn typed(text: &str) -> anyhow::Result<Printed> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: DescribeArgs,
    }
    let words = std::iter::once("describe").chain(text.split_whitespace());
    let line = <Line as clap::Parser>::try_parse_from(words)?;
    run(&Fixture, &line.args)
}

/// Names of the objects that were printed.
fn names(printed: &Printed) -> Vec<&str> {
    let lines = printed.out.lines();
    let names = lines.filter_map(|line| line.strip_prefix("Name:"));
    names.map(str::trim).collect()
}

#[test]
fn run_finds_names_kinds_and_labels() {
    let check = |text: &str, expected: &[&str]| {
        let printed = typed(text).unwrap();
        assert_eq!(names(&printed), expected, "{text}");
        assert!(printed.errors.is_empty() && printed.remark.is_none());
    };
    check("svc web", &["web"]);
    check("svc/web deploy/db", &["web", "db"]);
    check("svc,ep lonely", &["lonely", "lonely"]);
    check("service web -n prod", &["web"]);
    check("svc -l app=shop", &["shop"]);
    check("no", &["node-1", "node-2"]);
    check("no -n nowhere", &["node-1", "node-2"]);
    check("ns,no -A", &["default", "prod", "node-1", "node-2"]);
    check("pods web-333", &["web-333-a", "web-333-b"]);
    check(
        "svc -A",
        &["headless", "lonely", "outside", "shop", "web", "web"],
    );
}

#[test]
fn run_sets_texts_apart_as_kubectl() {
    let named = typed("pods web-333-a web-333-b --show-events=false").unwrap();
    assert!(named.out.contains("app=web\n\n\nName:"), "{}", named.out);
    let prefixed = typed("pods web-333 --show-events=false").unwrap();
    assert!(
        prefixed.out.contains("app=web\n\nName:"),
        "{}",
        prefixed.out
    );
    assert!(prefixed.out.ends_with("<none>\n\n"), "{}", prefixed.out);
}

#[test]
fn run_what_is_missing_is_said_as_kubectl_does() {
    let errors = |text: &str| typed(text).unwrap().errors;
    let pod = "Error from server (NotFound): pods \"nope\" not found";
    let service = "Error from server (NotFound): services \"nope\" not found";
    assert_eq!(errors("pod nope"), [pod]);
    assert_eq!(errors("pod/nope svc/nope"), [pod, service]);
    assert_eq!(
        errors("deploy nope"),
        ["Error from server (NotFound): deployments.apps \"nope\" not found"]
    );
    let some = typed("pod nope web-lost going").unwrap();
    assert_eq!(names(&some), ["web-lost", "going"]);
    assert_eq!(some.errors, [pod]);
    let remark = |text: &str| typed(text).unwrap().remark.unwrap();
    assert_eq!(
        remark("svc -n nope"),
        "No resources found in nope namespace."
    );
    assert_eq!(remark("svc -A -l a=b"), "No resources found");
    let refused = |text: &str| typed(text).unwrap_err().to_string();
    assert_eq!(
        refused("svc web -A"),
        "error: a resource cannot be retrieved by name across all namespaces"
    );
    assert_eq!(
        refused("svc web -l a=b"),
        "error: name cannot be provided when a selector is specified"
    );
    assert_eq!(
        refused("svc,pod web"),
        "error: you may only specify a single resource type"
    );
}
