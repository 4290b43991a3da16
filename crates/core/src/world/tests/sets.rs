//! Sets of simulated pods in a whole world: what Services and names make of them.

use std::time::Duration;

use super::*;
use crate::{
    dns::{Moment, Name, Question, RecordData, answer},
    object::{
        Container, ContainerPort, LabelSelector, PodTemplate, Workload,
        workload::Strategy as Update,
    },
    time::Timestamp,
    world::pods::{PodAction, PodObservation, daemon_set_status, stateful_set_status},
};

fn simulated() -> Bench {
    let settings = WorldSettings {
        simulation: Simulation::On,
        ..(*world(Deviations::default()).settings).clone()
    };
    let world = World::new(settings);
    let snapshot = Snapshot::empty(Arc::clone(world.cluster()));
    Bench {
        world,
        snapshot,
        view: SourceView::default(),
    }
}

fn workload(replicas: u32, strategy: Update) -> Workload {
    let port = ContainerPort {
        name: "".into(),
        container_port: 9000,
        protocol: Protocol::Tcp,
    };
    let spec = PodSpec {
        containers: vec![Container {
            name: "main".into(),
            ports: vec![port],
            ..Container::default()
        }],
        ..PodSpec::default()
    };
    Workload {
        replicas,
        selector: LabelSelector {
            match_labels: labels("web"),
            match_expressions: Vec::new(),
        },
        template: Arc::new(PodTemplate {
            labels: labels("web"),
            annotations: Labels::new(),
            spec: Arc::new(spec),
            hash: 1,
            manifest: "{}".into(),
        }),
        strategy,
        min_ready: Duration::ZERO,
        progress_deadline: None,
        revision_history_limit: 10,
        paused: false,
        service_name: Some("peers".into()),
        parallel: false,
    }
}

fn set(kind: Kind, wanted: Workload) -> Arc<Object> {
    object(kind, "web", Labels::new(), Spec::Workload(Arc::new(wanted)))
}

fn headless(name: &str) -> Arc<Object> {
    let mut asked = spec(ClusterIP, &[(80, Protocol::Tcp, None)]);
    asked.cluster_ip = ClusterIpRequest::Headless;
    asked.selector = labels("web");
    service(name, asked)
}

fn node(name: &str) -> Arc<Object> {
    let plain = object(Kind::Node, name, Labels::new(), Spec::Node);
    let mut node = (*plain).clone();
    node.key.namespace = "".into();
    Arc::new(node)
}

/// A host name or a node.
type Named = Option<Arc<str>>;

impl Bench {
    /// Rounds in which the host does at once what it is told, until it is told nothing more.
    fn settle(&mut self) {
        let mut observations: Vec<PodObservation> = Vec::new();
        for _ in 0..50 {
            let input = Input {
                reports: &[SourceReport::Synced(self.view.clone())],
                observations: &observations,
                now: Timestamp::from_millis(1_000),
                ..Input::default()
            };
            let stepped = step(self.world.take(), input);
            self.world = stepped.world;
            (self.snapshot, _) = compile(&self.snapshot, &self.world, &stepped.changed);
            let at_once = stepped.deadline == Some(input.now);
            let quiet = !at_once && stepped.actions.is_empty() && observations.is_empty();
            observations = stepped.actions.iter().map(obeyed).collect();
            if quiet {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Host name and node of every endpoint of a Service.
    fn named(&self, service: &str) -> Vec<(Named, Named)> {
        let record = &self.world.services()[&*format!("ns/{service}")];
        let endpoints = record.slices.iter().flat_map(|slice| &slice.endpoints);
        let mut named: Vec<_> = endpoints
            .map(|endpoint| (endpoint.hostname.clone(), endpoint.node_name.clone()))
            .collect();
        named.sort();
        named
    }

    fn key(kind: Kind) -> ObjectKey {
        ObjectKey {
            kind,
            namespace: "ns".into(),
            name: "web".into(),
        }
    }
}

fn obeyed(action: &PodAction) -> PodObservation {
    match action {
        PodAction::Start {
            uid, containers, ..
        } => {
            let ports = containers.iter().flat_map(|container| &container.ports);
            PodObservation::Running {
                uid: *uid,
                bound: ports.map(|port| (*port, port.number)).collect(),
            }
        }
        PodAction::Stop { uid, .. } => PodObservation::Ended { uid: *uid },
        other => panic!("{other:?}"),
    }
}

#[test]
fn stateful_set_behind_its_headless_service_has_endpoints_with_host_names() {
    let mut bench = simulated();
    let wanted = set(Kind::StatefulSet, workload(3, Update::Partition(0)));
    bench.file("a", &[headless("peers"), headless("others"), wanted]);
    bench.settle();
    let here = || Some(Arc::from("here"));
    assert_eq!(
        bench.named("peers"),
        ["web-0", "web-1", "web-2"].map(|name| (Some(name.into()), here()))
    );
    assert_eq!(
        bench.named("others"),
        [(None, here()), (None, here()), (None, here())],
        "another Service does not name them"
    );
    let name = Name::parse("web-1.peers.ns.svc.cluster.local.").unwrap();
    let question = Question::new(name, "A".parse().unwrap());
    let answered = answer(
        &bench.snapshot,
        &question,
        Moment {
            serial: 1,
            seed: 1,
            ..Moment::default()
        },
    );
    let ip = bench.world.pods().pods[&("ns".into(), "web-1".into())].ip;
    let addresses: Vec<_> = answered.answers.iter().map(|record| &record.data).collect();
    assert!(matches!(addresses[..], [RecordData::A(addr)] if IpAddr::from(*addr) == ip));
    let status = stateful_set_status(
        bench.world.pods(),
        &Bench::key(Kind::StatefulSet),
        Timestamp::from_millis(1_000),
    );
    assert_eq!(status.map(|status| status.available), Some(3));
}

#[test]
fn daemon_set_follows_the_declared_nodes() {
    let mut bench = simulated();
    let update = Update::RollingUpdate {
        max_surge: crate::object::workload::IntOrPercent::Int(0),
        max_unavailable: crate::object::workload::IntOrPercent::Int(1),
    };
    let wanted = set(Kind::DaemonSet, workload(0, update));
    bench.file("a", &[headless("peers"), wanted]);
    bench.settle();
    assert_eq!(bench.named("peers"), [(None, Some("here".into()))]);
    bench.file("nodes", &[node("one"), node("two")]);
    bench.settle();
    assert_eq!(
        bench.named("peers"),
        [(None, Some("one".into())), (None, Some("two".into()))]
    );
    let nodes: Vec<_> = bench.world.pod_nodes();
    assert_eq!(&*nodes[0].labels["kubernetes.io/hostname"], "one");
    let status = daemon_set_status(
        bench.world.pods(),
        &Bench::key(Kind::DaemonSet),
        Timestamp::from_millis(1_000),
    );
    let status = status.unwrap();
    assert_eq!(
        (status.desired, status.ready, status.misscheduled),
        (2, 2, 0)
    );
    bench.file("nodes", &[]);
    bench.settle();
    assert_eq!(bench.named("peers"), [(None, Some("here".into()))]);
}

#[test]
fn pod_without_a_node_is_no_endpoint() {
    let mut bench = simulated();
    let mut wanted = workload(1, Update::Recreate);
    let template = Arc::make_mut(&mut wanted.template);
    Arc::make_mut(&mut template.spec).node_selector = labels("nowhere");
    bench.file("a", &[headless("peers"), set(Kind::Deployment, wanted)]);
    bench.settle();
    assert_eq!(bench.world.pods().pods.len(), 1);
    assert_eq!(bench.named("peers"), []);
}
