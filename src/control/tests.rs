//! The reconciler with the second implementation of what it needs: sockets and pods that only take notes. Manifests
//! go in as text, so that these read as what a user does.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc, sync::Arc};

use portico_core::{
    object::diagnostic::Severity,
    snapshot::{
        Cluster, Snapshot,
        filter::Filter,
        plan::{ListenerKey, Mode},
    },
    time::Timestamp,
    world::{
        Deviations, Input, Simulation, SourceReport, SourceView, World, WorldSettings,
        addresses::NODE_PORT_RANGE,
        pods::{PodAction, PodObservation},
        probes::{ProbeObservation, ProbeOutcome, ProbeTargets},
    },
};
use portico_dataplane::Published;

use super::{ListenerHost, PodRunner, ProbeHost, Reconciler, RouteHost};
use crate::source::manifest::{self, ManifestSettings, Strictness};

type Notes = Rc<RefCell<Vec<String>>>;

struct Sockets {
    notes: Notes,
    published: Arc<Published>,
}

impl Sockets {
    fn note(&self, what: &str) {
        self.notes
            .borrow_mut()
            .push(format!("{what}@{}", self.published.load().generation));
    }
}

impl ListenerHost for Sockets {
    fn filter(&mut self, key: ListenerKey, filter: Option<&Arc<Filter>>) {
        let what = if filter.is_some() { "filter" } else { "open" };
        self.note(&format!("{what} {}", key.port));
    }
    fn bind(&mut self, wanted: &[(ListenerKey, Mode, Arc<str>)], _: &dyn Fn(IpAddr, u16) -> bool) {
        for (key, mode, _) in wanted {
            self.note(&format!("bind {} {mode:?}", key.port));
        }
    }
    fn accept(&mut self) {
        self.note("accept");
    }
    fn switch(&mut self, key: ListenerKey, mode: Mode) {
        self.note(&format!("switch {} {mode:?}", key.port));
    }
    fn close(&mut self, keys: &[ListenerKey]) {
        for key in keys {
            self.note(&format!("close {}", key.port));
        }
    }
    fn retry(&mut self, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

impl RouteHost for Sockets {
    fn attach(&mut self, addrs: &[IpAddr]) {
        for addr in addrs {
            self.note(&format!("attach {addr}"));
        }
    }
    fn detach(&mut self, addrs: &[IpAddr]) {
        for addr in addrs {
            self.note(&format!("detach {addr}"));
        }
    }
}

fn late_input(reports: &[SourceReport], ms: u64, waited_enough: bool) -> Input<'_> {
    Input {
        reports,
        now: Timestamp::from_millis(ms),
        waited_enough,
        ..Input::default()
    }
}

struct Pods {
    notes: Notes,
    published: Arc<Published>,
}

impl PodRunner for Pods {
    fn run(&mut self, actions: Vec<PodAction>) {
        for action in actions {
            let what = match action {
                PodAction::Start { name, .. } => {
                    format!("start {}", name.split('-').next().unwrap_or_default())
                }
                PodAction::Stop { .. } => "stop".into(),
                other => format!("{other:?}"),
            };
            self.notes
                .borrow_mut()
                .push(format!("{what}@{}", self.published.load().generation));
        }
    }
}

struct Probes {
    notes: Notes,
    published: Arc<Published>,
}

impl ProbeHost for Probes {
    fn watch(&mut self, targets: &Arc<ProbeTargets>) {
        let generation = self.published.load().generation;
        let note = format!("probe {}@{generation}", targets.len());
        self.notes.borrow_mut().push(note);
    }
}

/// A program without sockets, files and processes.
struct Bench {
    reconciler: Reconciler<Sockets, Pods, Probes>,
    notes: Notes,
    view: SourceView,
    settings: ManifestSettings,
    now: u64,
}

impl Bench {
    fn new(simulation: Simulation, remembered: Deviations) -> Self {
        let cluster = Arc::new(cluster());
        let published = Arc::new(Published::from_pointee(Snapshot::empty(Arc::clone(
            &cluster,
        ))));
        let notes = Notes::default();
        let world = World::new(WorldSettings {
            cluster,
            node_ports: NODE_PORT_RANGE,
            host_addresses: vec![[10, 0, 0, 5].into()],
            external_ranges: Vec::new(),
            simulation,
            foreign_addresses: Severity::Warning,
            remembered,
            seed: 7,
        });
        let sockets = Sockets {
            notes: Rc::clone(&notes),
            published: Arc::clone(&published),
        };
        let pods = Pods {
            notes: Rc::clone(&notes),
            published: Arc::clone(&published),
        };
        let probes = Probes {
            notes: Rc::clone(&notes),
            published: Arc::clone(&published),
        };
        let reconciler = Reconciler::new(world, published, (sockets, pods, probes), 10_000);
        let settings = ManifestSettings {
            namespace: "default".into(),
            strictness: Strictness::Lenient,
        };
        Self {
            reconciler,
            notes,
            view: SourceView::default(),
            settings,
            now: 1,
        }
    }

    fn plain() -> Self {
        Self::new(Simulation::Off, Deviations::default())
    }

    /// Saves a file; an empty text deletes it.
    fn file(&mut self, name: &str, text: &str) -> &mut Self {
        let name: Arc<str> = name.into();
        if text.is_empty() {
            self.view.shards.remove(&name);
        } else {
            let previous = self.view.shards.get(&name).cloned();
            let loaded = manifest::load(&name, text, &self.settings, previous.as_deref());
            self.view.shards.insert(name, Arc::new(loaded.shard));
        }
        self
    }

    fn round(&mut self) -> Vec<String> {
        self.observe(&[])
    }

    fn observe(&mut self, observations: &[PodObservation]) -> Vec<String> {
        self.see(observations, &[])
    }

    /// A round in which every probe says this.
    fn probe(&mut self, outcome: &ProbeOutcome) -> Vec<String> {
        let targets = self.reconciler.world().probe_targets().keys();
        let observations: Vec<ProbeObservation> = targets
            .map(|key| ProbeObservation {
                key: key.clone(),
                outcome: outcome.clone(),
            })
            .collect();
        self.see(&[], &observations)
    }

    fn see(&mut self, observations: &[PodObservation], probes: &[ProbeObservation]) -> Vec<String> {
        self.now += 1;
        let reports = [SourceReport::Synced(self.view.clone())];
        let now = Timestamp::from_millis(self.now);
        self.reconciler.round(Input {
            reports: &reports,
            observations,
            probes,
            now,
            ..Input::default()
        });
        self.notes.borrow_mut().drain(..).collect()
    }

    fn addresses(&self) -> BTreeMap<String, String> {
        let services = self.reconciler.world().services().iter();
        services
            .map(|(path, record)| {
                let ips: Vec<String> = record
                    .addresses
                    .cluster_ips
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let ports: Vec<String> = record
                    .addresses
                    .node_ports
                    .iter()
                    .flatten()
                    .map(ToString::to_string)
                    .collect();
                (
                    path.to_string(),
                    format!("{} {}", ips.join(","), ports.join(","))
                        .trim()
                        .to_owned(),
                )
            })
            .collect()
    }

    fn findings(&self) -> String {
        self.reconciler
            .world()
            .diagnostics()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn cluster() -> Cluster {
    Cluster {
        search_namespace: Some("default".into()),
        node_name: "here".into(),
        ..Cluster::default()
    }
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn slice(service: &str, addresses: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{port: 9000}}]\nendpoints: \
         [{{addresses: [{addresses}]}}]\n"
    )
}

const PORT: &str = "ports: [{port: 80}]";

#[test]
fn round_new_service_binds_before_it_publishes_and_accepts_after() {
    let mut bench = Bench::plain();
    let notes = bench
        .file("a", &service("a", PORT))
        .file("s", &slice("a", "127.0.0.1"))
        .round();
    assert_eq!(notes, ["bind 80 Listening@0", "accept@1"]);
    assert_eq!(
        bench.round(),
        Vec::<String>::new(),
        "nothing changed, nothing is published"
    );
    assert_eq!(
        bench.file("s", "").round(),
        ["accept@2", "switch 80 Refusing@2"]
    );
    assert_eq!(bench.file("a", "").round(), ["accept@3", "close 80@3"]);
}

#[test]
fn round_external_address_has_its_route_before_it_is_bound_and_until_it_is_closed() {
    let mut bench = Bench::plain();
    let external = "externalIPs: [203.0.113.7], ports: [{port: 80}]";
    let notes = bench
        .file("a", &service("a", external))
        .file("s", &slice("a", "127.0.0.1"))
        .round();
    assert_eq!(
        notes,
        [
            "attach 203.0.113.7@0",
            "bind 80 Listening@0",
            "bind 80 Listening@0",
            "accept@1"
        ]
    );
    // A second Service names it on another port: it stays as long as one of them does.
    let also = "externalIPs: [203.0.113.7, 203.0.113.8], ports: [{port: 81}]";
    let notes = bench.file("b", &service("b", also)).round();
    assert_eq!(
        notes.first().map(String::as_str),
        Some("attach 203.0.113.8@1")
    );
    let notes = bench.file("a", "").round();
    assert_eq!(notes, ["accept@3", "close 80@3", "close 80@3"]);
    let notes = bench.file("b", "").round();
    assert_eq!(
        notes.get(1..),
        Some(
            &[
                "close 81@4",
                "close 81@4",
                "close 81@4",
                "detach 203.0.113.7@4",
                "detach 203.0.113.8@4"
            ]
            .map(str::to_owned)[..]
        )
    );
}

#[test]
fn round_pods_stop_only_after_the_snapshot_without_them_is_published() {
    let mut bench = Bench::new(Simulation::On, Deviations::default());
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 1, selector: {matchLabels: {app: web}}, \
        template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: a, ports: [{containerPort: 8080}]}]}}}\n";
    bench.file(
        "s",
        &service(
            "web",
            "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]",
        ),
    );
    let notes = bench.file("d", deployment).round();
    assert_eq!(notes, ["bind 80 Refusing@0", "accept@1"], "it is pending");
    assert_eq!(bench.round(), ["accept@2", "start web@2"]);
    let uid = bench
        .reconciler
        .world()
        .pods()
        .pods
        .values()
        .next()
        .unwrap()
        .uid;
    assert_eq!(
        bench.observe(&[PodObservation::Running {
            uid,
            bound: Vec::new()
        }]),
        ["accept@3", "switch 80 Listening@3"]
    );
    assert_eq!(
        bench.file("d", "").round(),
        ["accept@4", "switch 80 Refusing@4", "stop@4"]
    );
}

#[test]
fn round_probes_follow_what_is_published_and_their_results_publish() {
    let mut bench = Bench::plain();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: {portico.dev/readiness-probe: tcp}}\n\
        spec: {ports: [{port: 80}]}\n";
    let notes = bench
        .file("a", service)
        .file("s", &slice("a", "127.0.0.1"))
        .round();
    assert_eq!(notes, ["bind 80 Refusing@0", "accept@1", "probe 1@1"]);
    assert_eq!(
        bench.probe(&ProbeOutcome::Success),
        ["accept@2", "switch 80 Listening@2"]
    );
    let reason: Arc<str> = "dial tcp 127.0.0.1:9000: connect: connection refused".into();
    let unhealthy = ProbeOutcome::Unhealthy {
        reason: Arc::clone(&reason),
    };
    assert_eq!(
        bench.probe(&unhealthy),
        Vec::<String>::new(),
        "it may still be well"
    );
    assert_eq!(
        bench.probe(&ProbeOutcome::Failure { reason }),
        ["accept@3", "switch 80 Refusing@3"]
    );
    assert_eq!(
        bench.file("a", "").round(),
        ["accept@4", "close 80@4", "probe 0@4"]
    );
}

#[test]
fn allocate_static_request_wins_whatever_the_order_of_files() {
    let mut first = Bench::plain();
    first.file("a", &service("a", PORT)).round();
    let natural = first.addresses()["default/a"].clone();
    let claims = format!("clusterIP: {natural}, {PORT}");
    first.file("z", &service("z", &claims)).round();
    let mut second = Bench::plain();
    second
        .file("a", &service("a", PORT))
        .file("z", &service("z", &claims))
        .round();
    assert_eq!(first.addresses()["default/z"], natural);
    assert_eq!(
        first.addresses(),
        second.addresses(),
        "live and offline agree"
    );
}

#[test]
fn allocate_same_static_address_twice_is_refused_in_the_api_servers_words() {
    let mut bench = Bench::plain();
    let spec = format!("clusterIP: 127.96.1.1, {PORT}");
    bench
        .file("a", &service("a", &spec))
        .file("b", &service("b", &spec))
        .round();
    assert_eq!(bench.addresses().len(), 1);
    let findings = bench.findings();
    assert!(findings.contains("b:4:19: spec.clusterIP: Invalid value: \"127.96.1.1\": failed to allocate IP 127.96.1.1: provided IP is already allocated (to default/a)"), "{findings}");
    bench.file("a", "").round();
    assert_eq!(
        bench.addresses()["default/b"],
        "127.96.1.1",
        "it is free again"
    );
}

#[test]
fn allocate_foreign_range_is_mapped_by_offset_with_a_warning() {
    let mut bench = Bench::plain();
    bench
        .file("a", &service("a", &format!("clusterIP: 10.96.7.8, {PORT}")))
        .round();
    assert_eq!(bench.addresses()["default/a"], "127.96.7.8");
    assert!(
        bench
            .findings()
            .contains("warning: spec.clusterIP: Invalid value: \"10.96.7.8\""),
        "{}",
        bench.findings()
    );
}

#[test]
fn allocate_reserved_addresses_go_to_nobody_else() {
    let mut bench = Bench::plain();
    for (name, addr) in [
        ("a", "127.96.0.1"),
        ("b", "127.96.0.10"),
        ("c", "127.96.0.0"),
    ] {
        bench.file(name, &service(name, &format!("clusterIP: {addr}, {PORT}")));
    }
    bench.round();
    assert_eq!(bench.addresses(), BTreeMap::new());
}

#[test]
fn allocate_node_ports_conflict_and_range_name_the_field() {
    let mut bench = Bench::plain();
    let node_port =
        |number: u16| format!("type: NodePort, ports: [{{port: 80, nodePort: {number}}}]");
    bench
        .file("a", &service("a", &node_port(30080)))
        .file("b", &service("b", &node_port(30080)));
    bench.file("c", &service("c", &node_port(80))).round();
    let findings = bench.findings();
    assert!(findings.contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated (to default/a)"), "{findings}");
    assert!(findings.contains("spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"), "{findings}");
}

#[test]
fn allocate_edit_that_is_refused_keeps_the_service_as_it_was() {
    let mut bench = Bench::plain();
    bench.file(
        "a",
        &service("a", "type: NodePort, ports: [{port: 80, nodePort: 30080}]"),
    );
    bench
        .file(
            "b",
            &service("b", "type: NodePort, ports: [{port: 80, nodePort: 30081}]"),
        )
        .round();
    let before = bench.addresses();
    bench
        .file(
            "b",
            &service("b", "type: NodePort, ports: [{port: 80, nodePort: 30080}]"),
        )
        .round();
    assert_eq!(bench.addresses(), before);
    assert!(bench.findings().contains("already allocated"));
}

#[test]
fn allocate_type_change_keeps_the_cluster_ip() {
    let mut bench = Bench::plain();
    bench.file("a", &service("a", PORT)).round();
    let before = bench.addresses()["default/a"].clone();
    bench
        .file("a", &service("a", "type: NodePort, ports: [{port: 80}]"))
        .round();
    let after = bench.addresses()["default/a"].clone();
    assert!(
        after.starts_with(&format!("{before} 3")),
        "{before} then {after}"
    );
    bench
        .file(
            "a",
            &service("a", "type: NodePort, ports: [{port: 80, protocol: TCP}]"),
        )
        .round();
    assert_eq!(
        bench.addresses()["default/a"],
        after,
        "the node port stays too"
    );
}

#[test]
fn allocate_udp_and_tcp_on_one_number_share_a_node_port() {
    let mut bench = Bench::plain();
    let spec = "type: NodePort, ports: [{name: t, port: 53}, {name: u, port: 53, protocol: UDP}]";
    bench.file("a", &service("a", spec)).round();
    let got = bench.addresses()["default/a"].clone();
    let ports = got
        .split(' ')
        .nth(1)
        .unwrap()
        .split(',')
        .collect::<Vec<_>>();
    assert_eq!(ports[0], ports[1]);
}

#[test]
fn allocate_remembered_deviation_comes_before_the_hash() {
    let mut bench = Bench::plain();
    bench.file("a", &service("a", PORT)).round();
    assert_eq!(
        bench.reconciler.deviations(),
        &Deviations::default(),
        "the hash alone needs no memory"
    );
    let remembered = Deviations {
        cluster_ips: [("default/a".to_owned(), [127, 96, 200, 200].into())].into(),
        ..Deviations::default()
    };
    let mut bench = Bench::new(Simulation::Off, remembered.clone());
    bench.file("a", &service("a", PORT)).round();
    assert_eq!(bench.addresses()["default/a"], "127.96.200.200");
    assert_eq!(bench.reconciler.deviations(), &remembered);
}

#[test]
fn merge_same_object_twice_the_first_file_wins_and_the_second_is_told() {
    let mut bench = Bench::plain();
    bench
        .file(
            "b",
            &service("a", &format!("clusterIP: 127.96.1.2, {PORT}")),
        )
        .file(
            "a",
            &service("a", &format!("clusterIP: 127.96.1.1, {PORT}")),
        )
        .round();
    assert_eq!(bench.addresses()["default/a"], "127.96.1.1");
    assert!(
        bench
            .findings()
            .contains("b:3:18: metadata.name: already declared at a:1"),
        "{}",
        bench.findings()
    );
    bench.file("a", "").round();
    let stays = "the other declaration asks for what may not change once set";
    assert_eq!(bench.addresses()["default/a"], "127.96.1.1", "{stays}");
}

#[test]
fn compile_equal_endpoints_keep_their_tickets_and_state() {
    let mut bench = Bench::plain();
    bench
        .file("a", &service("a", PORT))
        .file("s", &slice("a", "127.0.0.1"))
        .round();
    let set = |bench: &Bench| {
        let snapshot = bench.reconciler.snapshot();
        Arc::clone(
            snapshot.service("default/a").unwrap().ports[0]
                .cluster
                .as_ref()
                .unwrap(),
        )
    };
    let before = set(&bench);
    bench
        .file(
            "s",
            &format!("# moved down a line\n{}", slice("a", "127.0.0.1")),
        )
        .round();
    assert!(
        Arc::ptr_eq(&before, &set(&bench)),
        "the same set is the same epoch"
    );
    bench
        .file("s2", &slice("a", "127.0.0.2").replace("a-1", "a-2"))
        .round();
    let after = set(&bench);
    assert_eq!(after.len(), 2);
    assert!(
        Arc::ptr_eq(&before.endpoints()[0].state, &after.endpoints()[0].state),
        "an endpoint keeps its state"
    );
}

#[test]
fn mirror_legacy_endpoints_serve_a_service_without_selector() {
    let mut bench = Bench::plain();
    bench.file("a", &service("a", PORT));
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 127.0.0.1}], notReadyAddresses: [{ip: 127.0.0.2}], ports: [{port: 9000}]}]\n";
    bench.file("e", endpoints).round();
    let snapshot = bench.reconciler.snapshot();
    let set = snapshot.service("default/a").unwrap().ports[0]
        .cluster
        .clone()
        .unwrap();
    assert_eq!(
        set.endpoints()
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect::<Vec<_>>(),
        ["127.0.0.1:9000"]
    );
}

#[test]
fn edit_of_a_cluster_ip_is_refused_at_its_line_and_the_address_stays() {
    let mut bench = Bench::plain();
    bench
        .file(
            "a",
            &service("a", &format!("clusterIP: 127.96.1.1, {PORT}")),
        )
        .round();
    bench
        .file(
            "a",
            &service("a", &format!("clusterIP: 127.96.1.2, {PORT}")),
        )
        .round();
    assert_eq!(bench.addresses()["default/a"], "127.96.1.1");
    let refused =
        "4:19: spec.clusterIPs[0]: Invalid value: [\"127.96.1.2\"]: may not change once set";
    assert!(bench.findings().contains(refused), "{}", bench.findings());
}

#[test]
fn edit_that_names_the_address_it_has_is_no_change_of_it() {
    let mut bench = Bench::plain();
    bench.file("a", &service("a", PORT)).round();
    let given = bench.addresses()["default/a"].clone();
    bench
        .file("a", &service("a", &format!("clusterIP: {given}, {PORT}")))
        .round();
    assert_eq!(bench.addresses()["default/a"], given);
    assert_eq!(bench.findings(), "");
}

#[test]
fn pending_source_serves_nothing_until_its_deadline() {
    let mut bench = Bench::plain();
    bench.file("a", &service("a", PORT));
    let reports = [
        SourceReport::Synced(bench.view.clone()),
        SourceReport::Pending,
    ];
    let first = bench.reconciler.round(late_input(&reports, 1, false));
    assert_eq!(first.published, None);
    let second = bench.reconciler.round(late_input(&reports, 2, true));
    assert_eq!(
        (
            second.published.map(|generation| generation.0),
            second.services
        ),
        (Some(1), 1)
    );
}

#[test]
fn round_namespace_renamed_publishes_the_new_name() {
    let namespace =
        |name: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
    let mut bench = Bench::plain();
    bench.file("a.yaml", &namespace("old")).round();
    bench.file("a.yaml", &namespace("new")).round();
    let snapshot = bench.reconciler.snapshot();
    assert!(snapshot.has_namespace("new") && !snapshot.has_namespace("old"));
}

#[test]
fn scope_has_all_services_that_there_are_and_come_until_it_is_closed() {
    let mut bench = Bench::plain();
    bench
        .file("a", &service("a", PORT))
        .file("s", &slice("a", "127.0.0.1"))
        .round();
    let scope = portico_core::snapshot::Scope(1);
    let notes = |bench: &Bench| bench.notes.borrow_mut().drain(..).collect::<Vec<_>>();
    bench.reconciler.open_scope(scope, 64);
    assert_eq!(notes(&bench), ["bind 80 Listening@1", "accept@1"]);
    assert_eq!(
        bench
            .file("b", &service("b", "ports: [{port: 81}]"))
            .round(),
        ["bind 81 Refusing@1", "bind 81 Refusing@1", "accept@2"]
    );
    assert_eq!(
        bench.file("a", "").round(),
        ["accept@3", "close 80@3", "close 80@3"]
    );
    bench.reconciler.close_scope(scope);
    assert_eq!(notes(&bench), ["close 81@3"]);
    bench.reconciler.close_scope(scope);
    assert_eq!(bench.file("b", "").round(), ["accept@4", "close 81@4"]);

    // One that begins before anything was read has what the first round brings.
    let mut early = Bench::plain();
    early.reconciler.open_scope(scope, 64);
    notes(&early);
    let both = early.file("a", &service("a", PORT)).round();
    assert_eq!(both.len(), 3);
}
