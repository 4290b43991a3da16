//! Objects made of manifests, against what an API server and the controllers of a cluster would give.

mod pods;
mod services;
mod workloads;

use std::{collections::BTreeMap, sync::Arc};

use portico_core::{
    object::diagnostic::Severity,
    snapshot::{Cluster, Snapshot, compile::compile},
    time::Timestamp,
    world::{
        Deviations, Input, Simulation, SourceReport, SourceView, World, WorldSettings,
        addresses::NODE_PORT_RANGE,
        pods::{ContainerChange, Fault, PodAction, PodCommand, PodObservation},
        step,
    },
};
use serde_json::{Value, json};

use super::*;
use crate::source::manifest::{self, ManifestSettings, Strictness};

/// When everything begins: 2026-01-02T03:04:05Z.
const STARTED: u64 = 1_767_323_045_000;
const STARTED_TEXT: &str = "2026-01-02T03:04:05Z";

/// A world of manifests whose pod host does what it is told when `answer` is called.
struct Bench {
    world: World,
    snapshot: Snapshot,
    report: [SourceReport; 1],
    now: Timestamp,
    actions: Vec<PodAction>,
}

impl Bench {
    /// Pods are only known.
    fn offline(text: &str) -> Self {
        Self::new(text, Simulation::Off)
    }

    /// Pods are simulated; nobody has answered yet.
    fn simulated(text: &str) -> Self {
        Self::new(text, Simulation::On)
    }

    fn new(text: &str, simulation: Simulation) -> Self {
        let settings = ManifestSettings {
            namespace: "default".into(),
            strictness: Strictness::Lenient,
        };
        let file: Arc<str> = "shop.yaml".into();
        let loaded = manifest::load(&file, text, &settings, None);
        let errors = loaded.shard.diagnostics.iter();
        let errors: Vec<_> = errors
            .filter(|found| found.severity == Severity::Error)
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        let view = SourceView {
            shards: [(file, Arc::new(loaded.shard))].into(),
            ..SourceView::default()
        };
        let cluster = Arc::new(cluster());
        let mut bench = Self {
            world: World::new(world_settings(&cluster, simulation)),
            snapshot: Snapshot::empty(cluster),
            report: [SourceReport::Synced(view)],
            now: Timestamp::from_millis(STARTED),
            actions: Vec::new(),
        };
        bench.round(&[]);
        bench
    }

    /// A round, and the one in which new pods get their node.
    fn round(&mut self, observations: &[PodObservation]) {
        if self.turn(observations) {
            self.turn(&[]);
        }
    }

    /// One round; whether another one is to follow at once.
    fn turn(&mut self, observations: &[PodObservation]) -> bool {
        let input = Input {
            reports: &self.report,
            observations,
            now: self.now,
            ..Input::default()
        };
        let stepped = step(self.world.take(), input);
        (self.snapshot, _) = compile(&self.snapshot, &stepped.world, &stepped.changed);
        self.world = stepped.world;
        self.actions.extend(stepped.actions);
        stepped.deadline == Some(self.now)
    }

    fn command(&mut self, command: PodCommand) {
        let commands = [command];
        let input = Input {
            reports: &self.report,
            commands: &commands,
            now: self.now,
            ..Input::default()
        };
        self.world = step(self.world.take(), input).world;
    }

    /// A second later every pod that was asked to start runs.
    fn answer(&mut self) {
        self.now = self.now.after(std::time::Duration::from_secs(1));
        let actions = std::mem::take(&mut self.actions);
        let running = actions.into_iter().filter_map(|action| match action {
            PodAction::Start {
                uid, containers, ..
            } => {
                let ports = containers.into_iter().flat_map(|container| container.ports);
                let bound = ports.map(|port| (port, port.number)).collect();
                Some(PodObservation::Running { uid, bound })
            }
            _ => None,
        });
        let observations: Vec<_> = running.collect();
        self.round(&observations);
    }

    fn list(&self, resource: Resource) -> Vec<Value> {
        let view = View {
            world: &self.world,
            snapshot: &self.snapshot,
            listeners: &BTreeMap::new(),
            started: Timestamp::from_millis(STARTED),
            now: self.now,
        };
        list(view, resource)
    }

    fn get(&self, resource: Resource, name: &str) -> Value {
        let all = self.list(resource);
        let found = all.iter().find(|object| object["metadata"]["name"] == name);
        let names: Vec<_> = all
            .iter()
            .map(|object| &object["metadata"]["name"])
            .collect();
        found
            .unwrap_or_else(|| panic!("no {name} in {names:?}"))
            .clone()
    }
}

fn cluster() -> Cluster {
    Cluster {
        service_cidr: "127.96.0.0/16".parse().unwrap(),
        load_balancer_cidr: "127.112.0.0/24".parse().unwrap(),
        pod_cidr: "127.120.0.0/16".parse().unwrap(),
        node_name: "here".into(),
        zone: Some("desk".into()),
        ..Cluster::default()
    }
}

fn world_settings(cluster: &Arc<Cluster>, simulation: Simulation) -> WorldSettings {
    WorldSettings {
        cluster: Arc::clone(cluster),
        node_ports: NODE_PORT_RANGE,
        host_addresses: Vec::new(),
        external_ranges: Vec::new(),
        simulation,
        foreign_addresses: Severity::Warning,
        remembered: Deviations::default(),
        seed: 1,
    }
}

/// Takes what every object has but no test wants to spell out, after looking at its form.
fn bare(mut object: Value) -> Value {
    let meta = object["metadata"].as_object_mut().unwrap();
    let uid = meta.remove("uid").unwrap();
    assert_eq!(uid.as_str().unwrap().len(), 36);
    assert_ne!(meta.remove("resourceVersion").unwrap(), json!(""));
    assert!(meta.remove("creationTimestamp").unwrap().is_string());
    object
}

#[test]
fn list_of_anything_has_sorted_keys_and_complete_metadata() {
    let mut bench = Bench::simulated(workloads::DEPLOYMENT);
    bench.answer();
    for resource in Resource::all() {
        for object in bench.list(resource) {
            let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
            assert!(keys.is_sorted(), "{keys:?}");
            assert_eq!(object["kind"], resource.kind());
            assert_eq!(object["apiVersion"], json!(resource.api_version()));
            assert_eq!(
                object["metadata"]["namespace"].is_string(),
                resource.is_namespaced()
            );
            bare(object);
        }
    }
}

#[test]
fn namespaces_are_declared_or_in_use_and_default() {
    let bench = Bench::offline(
        "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: back}
spec: {ports: [{port: 80}]}
",
    );
    let names: Vec<Value> = bench
        .list(Resource::Namespaces)
        .into_iter()
        .map(|mut object| object["metadata"]["name"].take())
        .collect();
    assert_eq!(names, ["back", "default", "shop"]);
    assert_eq!(
        bare(bench.get(Resource::Namespaces, "shop")),
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": "shop",
                "labels": {"kubernetes.io/metadata.name": "shop", "team": "a"},
                "annotations": {"portico.dev/source": "shop.yaml:2"},
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        })
    );
}

#[test]
fn nodes_without_any_declared_are_this_one() {
    let bench = Bench::offline("");
    let nodes = bench.list(Resource::Nodes);
    assert_eq!(nodes.len(), 1);
    let node = &nodes[0];
    assert_eq!(node["metadata"]["name"], "here");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "here");
    assert_eq!(
        node["metadata"]["labels"]["topology.kubernetes.io/zone"],
        "desk"
    );
    assert_eq!(
        node["status"]["addresses"],
        json!([{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "here"}])
    );
    let ready = &node["status"]["conditions"][3];
    assert_eq!(
        (&ready["type"], &ready["status"]),
        (&json!("Ready"), &json!("True"))
    );
    let version = format!("portico/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], version);
}

#[test]
fn nodes_declared_without_status_are_ready_and_others_keep_theirs() {
    let bench = Bench::offline(
        "
apiVersion: v1
kind: Node
metadata: {name: a}
---
apiVersion: v1
kind: Node
metadata: {name: b}
status:
  conditions: [{type: Ready, status: Unknown}]
  capacity: {cpu: '4'}
",
    );
    let nodes = bench.list(Resource::Nodes);
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0]["status"]["conditions"][3]["status"], "True");
    assert_eq!(
        nodes[0]["metadata"]["labels"]["kubernetes.io/hostname"],
        "a"
    );
    let kept = json!([{"type": "Ready", "status": "Unknown"}]);
    assert_eq!(nodes[1]["status"]["conditions"], kept);
    assert_eq!(nodes[1]["status"]["allocatable"], json!({"cpu": "4"}));
}

#[test]
fn nodes_have_this_one_beside_declared_ones_while_pods_run_on_it() {
    let node = "
---
apiVersion: v1
kind: Node
metadata: {name: a}
";
    let names = |bench: &Bench| -> Vec<Value> {
        let nodes = bench.list(Resource::Nodes);
        let names = nodes.into_iter();
        names
            .map(|mut node| node["metadata"]["name"].take())
            .collect()
    };
    let text = format!(
        "{}{node}",
        workloads::DEPLOYMENT.replace("containers:", "nodeName: here\n      containers:")
    );
    assert_eq!(names(&Bench::offline(&text)), ["a"]);
    assert_eq!(names(&Bench::simulated(&text)), ["a", "here"]);
}

#[test]
fn events_are_v1_events_about_the_object() {
    use portico_core::{
        object::{Kind, ObjectKey},
        world::{EventKind, NewEvent},
    };
    let mut bench = Bench::offline(services::WEB);
    let about = ObjectKey {
        kind: Kind::Service,
        namespace: "default".into(),
        name: "web".into(),
    };
    for second in [1, 3] {
        let event = NewEvent {
            about: about.clone(),
            kind: EventKind::Warning,
            reason: "Unbound",
            message: "cannot bind".to_owned(),
            component: "portico",
        };
        let at = Timestamp::from_millis(STARTED + second * 1000);
        bench.world.record(event, at);
    }
    let events = bench.list(Resource::Events);
    let uid = bench.get(Resource::Services, "web")["metadata"]["uid"].take();
    assert_eq!(events.len(), 1);
    assert_eq!(
        bare(events[0].clone()),
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "web.1886caf25830fc01", "namespace": "default"},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "name": "web", "namespace": "default",
                "resourceVersion": "1", "uid": uid,
            },
            "type": "Warning",
            "reason": "Unbound",
            "message": "cannot bind",
            "count": 2,
            "firstTimestamp": "2026-01-02T03:04:06Z",
            "lastTimestamp": "2026-01-02T03:04:08Z",
            "eventTime": null,
            "source": {"component": "portico"},
            "reportingComponent": "portico",
            "reportingInstance": "",
        })
    );
}
