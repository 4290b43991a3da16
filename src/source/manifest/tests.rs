//! The last-good rules and the fixtures, held to their exact findings.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use portico_core::object::{
    ClusterIpRequest, Conditions, Container, Kind, Probe, ProbeCheck, Protocol, Service,
    ServiceType, Spec, TargetPort, Workload,
    workload::{IntOrPercent, Strategy},
};

use super::*;
use crate::source::{render::render, walk::manifest_files};

fn settings(strictness: Strictness) -> ManifestSettings {
    ManifestSettings {
        namespace: "default".into(),
        strictness,
    }
}

fn load_text(text: &str, previous: Option<&Shard>) -> Loaded {
    load(
        &"web.yaml".into(),
        text,
        &settings(Strictness::Lenient),
        previous,
    )
}

fn messages(loaded: &Loaded) -> Vec<String> {
    loaded
        .shard
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(folder);
    let files = manifest_files(&root).unwrap();
    assert!(!files.is_empty(), "no fixtures in {}", root.display());
    files
}

fn load_file(path: &Path) -> (Loaded, String) {
    let text = fs::read_to_string(path).unwrap();
    let name: Arc<str> = path.file_name().unwrap().to_str().unwrap().into();
    let loaded = load(&name, &text, &settings(Strictness::Lenient), None);
    let rendered = loaded
        .shard
        .diagnostics
        .iter()
        .map(|finding| render(finding, Some(&text), false))
        .collect();
    (loaded, rendered)
}

#[test]
fn load_of_valid_fixtures_finds_nothing() {
    for path in fixtures("valid").iter().chain(&fixtures("tutorials")) {
        if path
            .parent()
            .is_some_and(|folder| folder.ends_with("broken"))
        {
            continue;
        }
        let (loaded, rendered) = load_file(path);
        assert!(!loaded.shard.objects.is_empty(), "{}", path.display());
        assert_eq!(rendered, "", "{}", path.display());
    }
}

/// Every invalid file pins its exact findings. `PORTICO_BLESS=1` writes them anew, to be read before they are
/// committed.
#[test]
fn load_of_invalid_fixtures_reports_exactly_what_is_pinned() {
    for path in fixtures("invalid")
        .iter()
        .chain(&fixtures("tutorials/broken"))
    {
        let (_, rendered) = load_file(path);
        let pinned = path.with_extension("expected");
        if env::var_os("PORTICO_BLESS").is_some() {
            fs::write(&pinned, &rendered).unwrap();
        }
        let expected = fs::read_to_string(&pinned).unwrap_or_default();
        assert!(!expected.is_empty(), "{} pins nothing", pinned.display());
        assert_eq!(rendered, expected, "{}", path.display());
    }
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
const OTHER: &str =
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 81}]}\n";

fn names(shard: &Shard) -> Vec<String> {
    shard
        .objects
        .iter()
        .map(|object| object.key.to_string())
        .collect()
}

#[test]
fn load_of_an_equal_text_gives_the_same_objects() {
    let text = format!("{SERVICE}{OTHER}");
    let first = load_text(&text, None);
    let second = load_text(&text.replace("port: 81", "port: 82"), Some(&first.shard));
    assert!(Arc::ptr_eq(
        &first.shard.objects[0],
        &second.shard.objects[0]
    ));
    assert!(!Arc::ptr_eq(
        &first.shard.objects[1],
        &second.shard.objects[1]
    ));
}

#[test]
fn load_of_an_invalid_object_keeps_its_last_good_version_in_place() {
    let first = load_text(&format!("{SERVICE}{OTHER}"), None);
    let broken = format!(
        "{}{}",
        SERVICE.replace("port: 80", "port: 0"),
        OTHER.replace("port: 81", "port: 82")
    );
    let second = load_text(&broken, Some(&first.shard));
    assert_eq!(
        names(&second.shard),
        ["Service default/a", "Service default/b"]
    );
    assert!(Arc::ptr_eq(
        &first.shard.objects[0],
        &second.shard.objects[0]
    ));
    assert!(!Arc::ptr_eq(
        &first.shard.objects[1],
        &second.shard.objects[1]
    ));
    assert_eq!(
        messages(&second),
        [
            "web.yaml:4:23: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"
        ]
    );
    assert_eq!(
        names(&load_text(&broken, None).shard),
        ["Service default/b"]
    );
}

#[test]
fn load_of_an_undecodable_document_keeps_the_whole_file() {
    let first = load_text(&format!("{SERVICE}{OTHER}"), None);
    for broken in ["---\n- list\n", "---\na: [\n", "---\nkind: Service\n"] {
        let text = format!("{}{broken}", SERVICE.replace("name: a", "name: c"));
        let second = load_text(&text, Some(&first.shard));
        assert_eq!(second.shard.objects, first.shard.objects, "{broken}");
        assert_ne!(second.shard.diagnostics, [], "{broken}");
        assert_eq!(
            names(&load_text(&text, None).shard),
            ["Service default/c"],
            "{broken}"
        );
    }
}

#[test]
fn load_of_a_removed_document_drops_its_object() {
    let first = load_text(&format!("{SERVICE}{OTHER}"), None);
    assert_eq!(
        names(&load_text(OTHER, Some(&first.shard)).shard),
        ["Service default/b"]
    );
    assert_eq!(names(&load_text("", Some(&first.shard)).shard), [""; 0]);
}

#[test]
fn load_strictly_rejects_only_the_objects_that_are_warned_about() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}- {}",
        SERVICE
            .replace("spec: {", "spec: {portz: 1, ")
            .replace('\n', "\n  ")
            .trim_end()
            .to_owned()
            + "\n",
        OTHER
            .trim_start_matches("---\n")
            .replace('\n', "\n  ")
            .trim_end()
            .to_owned()
            + "\n"
    );
    let lenient = load_text(&text, None);
    assert_eq!(
        names(&lenient.shard),
        ["Service default/a", "Service default/b"]
    );
    let strict = load(
        &"web.yaml".into(),
        &text,
        &settings(Strictness::Strict),
        None,
    );
    assert_eq!(names(&strict.shard), ["Service default/b"]);
    assert_eq!(strict.shard.diagnostics[0].severity, Severity::Error);
    let again = load(
        &"web.yaml".into(),
        &text,
        &settings(Strictness::Strict),
        Some(&lenient.shard),
    );
    assert_eq!(
        names(&again.shard),
        ["Service default/a", "Service default/b"]
    );
}

#[test]
fn load_of_lists_and_inert_kinds_counts_what_nothing_acts_on() {
    let text = "{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}, spec: {ports: [{port: 80}]}}]}\n\
                ---\n{apiVersion: v1, kind: ConfigMapList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}\n\
                ---\n{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}}\n\
                ---\n{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: a}}\n";
    let loaded = load_text(text, None);
    assert_eq!(messages(&loaded), [""; 0]);
    assert_eq!(names(&loaded.shard), ["Service default/a"]);
    let expected = [("ConfigMap", 2), ("CronJob", 1), ("Service", 1)];
    assert_eq!(
        loaded.inert,
        expected
            .map(|(kind, count)| (Arc::from(kind), count))
            .into()
    );
}

#[test]
fn load_of_loopback_endpoints_notes_it_once_a_file() {
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: N}\naddressType: IPv4\n\
                 endpoints: [{addresses: [127.0.0.1]}, {addresses: [127.0.0.2]}]\n";
    let loaded = load_text(
        &format!("{}{}", slice.replace('N', "one"), slice.replace('N', "two")),
        None,
    );
    assert_eq!(loaded.shard.objects.len(), 2);
    let expected = "web.yaml:6:26: note: loopback endpoint addresses are accepted here; a cluster would reject them";
    assert_eq!(messages(&loaded), [expected]);
}

#[test]
fn load_marks_where_fields_are() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  clusterIP: 10.96.0.7\n  ports:\n  - port: 80\n";
    let loaded = load_text(text, None);
    let origin = &loaded.shard.objects[0].origin;
    let line = |path: &str| origin.position_of(path).line;
    assert_eq!(
        [
            line("metadata.name"),
            line("spec.clusterIP"),
            line("spec.ports[0].port")
        ],
        [4, 6, 8]
    );
    assert_eq!(line("spec.ports[0].nodePort"), 8);
    assert_eq!(line("spec.externalName"), 1);
}

#[test]
fn load_of_the_tutorials_gives_the_kinds_they_are_about() {
    let count = |folder: &str, kind: Kind| {
        let files = fixtures(&format!("tutorials/{folder}"));
        let objects = files
            .iter()
            .flat_map(|path| load_file(path).0.shard.objects);
        objects.filter(|object| object.key.kind == kind).count()
    };
    assert_eq!(count("deployment-service", Kind::Service), 4);
    assert_eq!(count("deployment-service", Kind::Deployment), 1);
    assert_eq!(count("two-labels", Kind::ReplicaSet), 2);
    assert_eq!(count("two-labels", Kind::Service), 3);
    assert_eq!(count("load-balancer", Kind::Service), 1);
    assert_eq!(count("wordpress", Kind::Pod), 1);
    assert_eq!(count("probes", Kind::Pod), 1);
    assert_eq!(count("namespaces", Kind::Namespace), 1);
    assert_eq!(count("rolling-update", Kind::Deployment), 1);
    assert_eq!(count("broken", Kind::Service), 0);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of which manifests are made, so that arbitrary texts get past the first character.
    const PIECES: [&str; 40] = [
        "apiVersion: v1",
        "apiVersion: apps/v1",
        "apiVersion: discovery.k8s.io/v1",
        "kind: Service",
        "kind: Pod",
        "kind: Deployment",
        "kind: EndpointSlice",
        "kind: Endpoints",
        "kind: List",
        "items:",
        "metadata:",
        "name: a",
        "labels:",
        "spec:",
        "ports:",
        "port: 80",
        "- port: -1",
        "targetPort: x",
        "clusterIPs: [None, 1]",
        "selector:",
        "template:",
        "containers:",
        "- name: c",
        "replicas: 1e99",
        "strategy: {rollingUpdate: {maxSurge: 99999999999%}}",
        "endpoints:",
        "- addresses: [127.0.0.1, ::]",
        "addressType: IPv4",
        "subsets: [{}]",
        "\n",
        "\n  ",
        "\n    ",
        "\n      ",
        "---\n",
        "&a ",
        "*a",
        "<<: ",
        "\t",
        "\"",
        "| ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn load_of_arbitrary_text_never_panics(text in ".{0,200}") {
            load_text(&text, None);
        }

        #[test]
        fn load_of_arbitrary_pieces_never_panics_and_points_into_the_text(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)
        ) {
            let text = pieces.concat();
            let loaded = load_text(&text, None);
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            for finding in &loaded.shard.diagnostics {
                prop_assert!(finding.position.is_some_and(|position| (1..=lines).contains(&position.line)));
                prop_assert!(!render(finding, Some(&text), false).is_empty());
            }
            let again = load_text(&text, Some(&loaded.shard));
            prop_assert_eq!(again.shard.objects.len(), loaded.shard.objects.len());
        }
    }
}

/// The one object of `text`, which has no errors in it.
fn object(text: &str) -> Arc<Object> {
    let loaded = load_text(text, None);
    assert_eq!(loaded.shard.objects.len(), 1, "{:?}", messages(&loaded));
    Arc::clone(&loaded.shard.objects[0])
}

fn service(spec: &str) -> Arc<Service> {
    let text =
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{{spec}}}}}");
    match &object(&text).spec {
        Spec::Service(service) => Arc::clone(service),
        other => panic!("{other:?}"),
    }
}

fn workload(api_version: &str, spec: &str) -> Arc<Workload> {
    let text = format!(
        "{{apiVersion: {api_version}, kind: Deployment, metadata: {{name: a}}, spec: {{{spec} template: {{metadata: \
         {{labels: {{app: a}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
    );
    match &object(&text).spec {
        Spec::Workload(workload) => Arc::clone(workload),
        other => panic!("{other:?}"),
    }
}

#[test]
fn load_of_a_minimal_service_gets_the_defaults() {
    let service = service("ports: [{port: 80}]");
    assert_eq!(service.service_type, ServiceType::ClusterIP);
    assert_eq!(service.cluster_ip, ClusterIpRequest::Auto);
    assert_eq!(service.ports[0].protocol, Protocol::Tcp);
    assert_eq!(service.ports[0].target_port, TargetPort::Number(80));
    assert_eq!(service.ports[0].node_port, None);
    assert_eq!(service.client_ip_affinity, None);
    assert!(service.allocate_load_balancer_node_ports);
}

#[test]
fn load_of_a_service_reads_what_it_says() {
    let affine = service(
        "sessionAffinity: ClientIP, clusterIP: 10.96.0.7, ports: [{port: 80, targetPort: web}]",
    );
    assert_eq!(affine.client_ip_affinity, Some(Duration::from_hours(3)));
    assert_eq!(
        affine.cluster_ip,
        ClusterIpRequest::Static(vec!["10.96.0.7".parse().unwrap()])
    );
    assert_eq!(affine.ports[0].target_port, TargetPort::Name("web".into()));
    let unaffine = service(
        "sessionAffinity: None, sessionAffinityConfig: {clientIP: {}}, ports: [{port: 80}]",
    );
    assert_eq!(unaffine.client_ip_affinity, None);
    let alias = service(
        "type: ExternalName, externalName: shop.example.com., ports: [{port: 80, nodePort: 30000}]",
    );
    assert_eq!(alias.external_name.as_deref(), Some("shop.example.com"));
    assert_eq!(alias.ports[0].node_port, None);
    assert_eq!(
        service("clusterIP: None").cluster_ip,
        ClusterIpRequest::Headless
    );
    assert_eq!(
        service("type: LoadBalancer, externalIPs: [127.0.0.9], ports: [{port: 1}]")
            .external_ips
            .len(),
        1
    );
}

#[test]
fn load_of_a_deployment_gets_the_defaults_of_its_version() {
    let check = |api_version: &str,
                 selector: &str,
                 overlap: IntOrPercent,
                 history: u32,
                 deadline: Option<u64>| {
        let workload = workload(api_version, selector);
        let strategy = Strategy::RollingUpdate {
            max_surge: overlap,
            max_unavailable: overlap,
        };
        assert_eq!(workload.replicas, 1, "{api_version}");
        assert_eq!(workload.strategy, strategy, "{api_version}");
        assert_eq!(workload.revision_history_limit, history, "{api_version}");
        assert_eq!(
            workload.progress_deadline,
            deadline.map(Duration::from_secs),
            "{api_version}"
        );
        assert!(
            workload.selector.matches(&workload.template.labels) && !workload.selector.is_empty()
        );
    };
    let quarter = IntOrPercent::Percent(25);
    check(
        "apps/v1",
        "selector: {matchLabels: {app: a}},",
        quarter,
        10,
        Some(600),
    );
    check("apps/v1beta2", "", quarter, 10, Some(600));
    check("apps/v1beta1", "", quarter, 2, Some(600));
    check(
        "extensions/v1beta1",
        "",
        IntOrPercent::Int(1),
        2_147_483_647,
        None,
    );
}

#[test]
fn load_of_templates_hashes_their_values_not_their_form() {
    let one = workload("apps/v1beta1", "replicas: 1,");
    let scaled = workload("apps/v1beta1", "\n\n replicas: 5,");
    let other = workload("apps/v1beta1", "").template.hash;
    assert_eq!(one.template.hash, scaled.template.hash);
    assert_eq!(one.template.hash, other);
    let text = "{apiVersion: apps/v1beta1, kind: Deployment, metadata: {name: a}, spec: {template: {spec: \
                {containers: [{image: j, name: c}]}, metadata: {labels: {app: a}}}}}";
    let Spec::Workload(changed) = &object(text).spec else {
        panic!("no workload")
    };
    assert_ne!(one.template.hash, changed.template.hash);
    let Spec::Workload(reordered) = &object(&text.replace("image: j", "image: i")).spec else {
        panic!("no workload")
    };
    assert_eq!(one.template.hash, reordered.template.hash);
}

/// The containers of the Pod in `text`.
fn containers(text: &str) -> Vec<Container> {
    let object = object(text);
    match &object.spec {
        Spec::Pod(pod) => pod.spec.containers.clone(),
        other => panic!("{other:?}"),
    }
}

fn seconds(seconds: [u64; 3]) -> [Duration; 3] {
    seconds.map(Duration::from_secs)
}

#[test]
fn load_of_probes_reads_them_with_defaults() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    image: i\n    \
                livenessProbe: {httpGet: {port: http}, periodSeconds: 0, terminationGracePeriodSeconds: 7}\n    \
                readinessProbe: {grpc: {port: 9, service: s}, initialDelaySeconds: 5, timeoutSeconds: 2, \
                periodSeconds: 3, successThreshold: 4, failureThreshold: 6}\n";
    let main = &containers(text)[0];
    let liveness = main.liveness.as_deref().unwrap();
    let times = |probe: &Probe| [probe.initial_delay, probe.timeout, probe.period];
    assert_eq!(times(liveness), seconds([0, 1, 10]));
    assert_eq!(
        (liveness.success_threshold, liveness.failure_threshold),
        (1, 3)
    );
    assert_eq!(liveness.termination_grace, Some(Duration::from_secs(7)));
    let readiness = main.readiness.as_deref().unwrap();
    assert_eq!(times(readiness), seconds([5, 2, 3]));
    assert_eq!(
        (readiness.success_threshold, readiness.failure_threshold),
        (4, 6)
    );
    assert_eq!(
        (&readiness.termination_grace, &main.startup),
        (&None, &None)
    );
}

#[test]
fn load_of_probes_reads_what_is_asked() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    image: i\n    \
                livenessProbe: {httpGet: {port: http}}\n    readinessProbe: {grpc: {port: 9, service: s}}\n    \
                startupProbe: {exec: {command: [a]}}\n  - name: b\n    image: i\n    \
                livenessProbe: {tcpSocket: {port: 80, host: h}}\n    \
                readinessProbe: {httpGet: {path: up, port: 81, scheme: HTTPS, host: h, httpHeaders: [{name: X, value: y}]}}\n";
    let read = containers(text);
    let check = |probe: &Option<Arc<Probe>>| probe.as_ref().map(|probe| probe.check.clone());
    let plain = ProbeCheck::HttpGet {
        path: "/".into(),
        port: TargetPort::Name("http".into()),
        host: None,
        https: false,
        headers: Vec::new(),
    };
    assert_eq!(check(&read[0].liveness), Some(plain));
    let (port, service) = (9, "s".into());
    let grpc = ProbeCheck::Grpc { port, service };
    assert_eq!(check(&read[0].readiness), Some(grpc));
    assert_eq!(check(&read[0].startup), Some(ProbeCheck::Exec));
    let tcp = ProbeCheck::TcpSocket {
        port: TargetPort::Number(80),
        host: Some("h".into()),
    };
    assert_eq!(check(&read[1].liveness), Some(tcp));
    let https = ProbeCheck::HttpGet {
        path: "/up".into(),
        port: TargetPort::Number(81),
        host: Some("h".into()),
        https: true,
        headers: vec![("X".into(), "y".into())],
    };
    assert_eq!(check(&read[1].readiness), Some(https));
}

#[test]
fn load_of_a_template_copied_from_a_replica_set_is_the_deployments_own() {
    let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}, \
                template: {metadata: {labels: {app: a, pod-template-hash: b5}}, spec: {containers: [{name: c, image: i}]}}}}";
    let template = |text: &str| {
        let Spec::Workload(workload) = &object(text).spec else {
            panic!("no workload")
        };
        Arc::clone(&workload.template)
    };
    let (copied, own) = (
        template(text),
        template(&text.replace(", pod-template-hash: b5", "")),
    );
    assert_eq!(copied, own);
    let set = text.replace("kind: Deployment", "kind: ReplicaSet");
    assert_ne!(template(&set), own, "a set's own label is its business");
}

#[test]
fn load_of_sets_gets_the_defaults_of_their_version() {
    let check = |api_version: &str, kind: &str, fields: &str, expected: Strategy| {
        let text = format!(
            "{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: a}}, spec: {{{fields} selector: \
             {{matchLabels: {{app: a}}}}, template: {{metadata: {{labels: {{app: a}}}}, spec: {{containers: \
             [{{name: c, image: i}}]}}}}}}}}"
        );
        let object = object(&text);
        let Spec::Workload(workload) = &object.spec else {
            panic!("no workload")
        };
        assert_eq!(workload.strategy, expected, "{api_version} {kind} {fields}");
        assert_eq!(workload.revision_history_limit, 10, "{api_version} {kind}");
        Arc::clone(workload)
    };
    let rolling = |surge, unavailable| Strategy::RollingUpdate {
        max_surge: surge,
        max_unavailable: unavailable,
    };
    let one = rolling(IntOrPercent::Int(0), IntOrPercent::Int(1));
    check("apps/v1", "DaemonSet", "", one);
    check("apps/v1beta2", "DaemonSet", "", one);
    check("extensions/v1beta1", "DaemonSet", "", Strategy::OnDelete);
    let surging = "updateStrategy: {rollingUpdate: {maxSurge: 20%, maxUnavailable: 0}},";
    let expected = rolling(IntOrPercent::Percent(20), IntOrPercent::Int(0));
    check("apps/v1", "DaemonSet", surging, expected);
    let ordered = check("apps/v1", "StatefulSet", "", Strategy::Partition(0));
    assert_eq!((ordered.replicas, ordered.parallel), (1, false));
    assert_eq!(ordered.service_name, None);
    check("apps/v1beta1", "StatefulSet", "", Strategy::OnDelete);
    let fields = "serviceName: peers, podManagementPolicy: Parallel, updateStrategy: {type: RollingUpdate, \
                  rollingUpdate: {partition: 3}},";
    let parallel = check(
        "apps/v1beta1",
        "StatefulSet",
        fields,
        Strategy::Partition(3),
    );
    assert!(parallel.parallel);
    assert_eq!(parallel.service_name.as_deref(), Some("peers"));
}

#[test]
fn load_of_a_slice_reads_conditions_and_topology() {
    let text = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, labels: \
                {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 80}, {name: b}], endpoints: \
                [{addresses: [192.0.2.1]}, {addresses: [192.0.2.2], conditions: {ready: false, terminating: true}, \
                nodeName: n, zone: z, hints: {forZones: [{name: z2}, {name: z1}]}}]}";
    let object = object(text);
    let Spec::EndpointSlice(slice) = &object.spec else {
        panic!("no slice")
    };
    assert_eq!(slice.service_name.as_deref(), Some("web"));
    assert_eq!(
        slice.ports.iter().map(|port| port.port).collect::<Vec<_>>(),
        [Some(80), None]
    );
    assert_eq!(slice.endpoints[0].conditions, Conditions::READY);
    let second = &slice.endpoints[1];
    assert_eq!(
        second.conditions,
        Conditions {
            ready: false,
            serving: true,
            terminating: true
        }
    );
    assert_eq!(
        (second.node_name.as_deref(), second.zone.as_deref()),
        (Some("n"), Some("z"))
    );
    assert_eq!(second.hints.zones, [Arc::from("z1"), Arc::from("z2")]);
}
