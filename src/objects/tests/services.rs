//! Services, EndpointSlices, Endpoints.

use super::*;

pub(super) const WEB: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  creationTimestamp: null
  labels: {app: web}
spec:
  selector: {app: web}
  ports:
  - port: 80
status:
  loadBalancer: {}
";

/// Two pods that run elsewhere: one ready, one not, one on its way out.
const PODS: &str = "
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: web}}
spec: {nodeName: here, containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 127.0.0.3}
---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec: {containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 8080}]}]}
status: {podIP: 127.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: c, labels: {app: web}, deletionTimestamp: '2026-01-02T03:04:00Z'}
spec: {containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 9090}]}]}
status: {podIP: 127.0.0.4}
";

fn pod_reference(bench: &Bench, name: &str) -> Value {
    let uid = bench.get(Resource::Pods, name)["metadata"]["uid"].take();
    json!({"kind": "Pod", "namespace": "default", "name": name, "uid": uid})
}

fn spec(text: &str) -> Value {
    let bench = Bench::offline(text);
    bench.get(Resource::Services, "web")["spec"].take()
}

#[test]
fn service_with_nothing_but_a_port_has_all_defaults() {
    let bench = Bench::offline(WEB);
    let service = bench.get(Resource::Services, "web");
    assert_eq!(service["metadata"]["creationTimestamp"], STARTED_TEXT);
    let address = bench.world.services()["default/web"].addresses.cluster_ips[0];
    assert_eq!(
        bare(service),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "labels": {"app": "web"},
                "annotations": {"portico.dev/source": "shop.yaml:2"},
            },
            "spec": {
                "clusterIP": address,
                "clusterIPs": [address],
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
                "selector": {"app": "web"},
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
            "status": {"loadBalancer": {}},
        })
    );
}

#[test]
fn service_of_type_load_balancer_has_node_ports_and_ingress() {
    let bench = Bench::offline(
        "
apiVersion: v1
kind: Service
metadata: {name: web, finalizers: [service.kubernetes.io/load-balancer-cleanup]}
spec:
  type: LoadBalancer
  sessionAffinity: ClientIP
  externalTrafficPolicy: Local
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP, appProtocol: example.com/dns}
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
",
    );
    let got = &bench.world.services()["default/web"].addresses;
    let service = bench.get(Resource::Services, "web");
    let meta = &service["metadata"];
    assert_eq!(
        meta["finalizers"],
        json!(["service.kubernetes.io/load-balancer-cleanup"])
    );
    assert_eq!(
        service["spec"],
        json!({
            "allocateLoadBalancerNodePorts": true,
            "clusterIP": got.cluster_ips[0],
            "clusterIPs": got.cluster_ips,
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": got.health_check_node_port.unwrap(),
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "http", "nodePort": 30080, "port": 80, "protocol": "TCP", "targetPort": "http"},
                {
                    "appProtocol": "example.com/dns", "name": "dns", "nodePort": got.node_ports[1].unwrap(),
                    "port": 53, "protocol": "UDP", "targetPort": 53,
                },
            ],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "type": "LoadBalancer",
        })
    );
    assert_eq!(
        service["status"],
        json!({"loadBalancer": {"ingress": [{"ip": got.load_balancer_ips[0], "ipMode": "VIP"}]}})
    );
}

#[test]
fn service_headless_without_selector_has_both_families() {
    let headless = |selector: &str| {
        spec(&format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: None, {selector}}}
"
        ))
    };
    assert_eq!(
        headless(""),
        json!({
            "clusterIP": "None",
            "clusterIPs": ["None"],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "sessionAffinity": "None",
            "type": "ClusterIP",
        })
    );
    let with_selector = headless("selector: {app: web}");
    assert_eq!(with_selector["ipFamilies"], json!(["IPv4"]));
    assert_eq!(with_selector["ipFamilyPolicy"], "SingleStack");
}

#[test]
fn service_external_name_has_no_addresses() {
    let found = spec(
        "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: ExternalName, externalName: example.com}
",
    );
    let expected =
        json!({"externalName": "example.com", "sessionAffinity": "None", "type": "ExternalName"});
    assert_eq!(found, expected);
}

#[test]
fn service_with_external_addresses_has_an_external_policy() {
    let found = spec(
        "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {externalIPs: [203.0.113.9], ports: [{port: 80, targetPort: 0}]}
",
    );
    assert_eq!(found["externalTrafficPolicy"], "Cluster");
    assert_eq!(found["ports"][0]["targetPort"], 80);
}

#[test]
fn services_have_the_api_server_unless_it_is_declared() {
    let bench = Bench::offline("");
    let service = bare(bench.get(Resource::Services, "kubernetes"));
    assert_eq!(
        service,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": "127.96.0.1",
                "clusterIPs": ["127.96.0.1"],
                "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
            "status": {"loadBalancer": {}},
        })
    );
    let declared = WEB.replace("name: web", "name: kubernetes");
    let services = Bench::offline(&declared).list(Resource::Services);
    assert_eq!(services.len(), 1);
    assert_eq!(services[0]["spec"]["ports"][0]["port"], 80);
}

#[test]
fn slices_of_a_selector_without_pods_are_one_empty_slice() {
    let bench = Bench::offline(WEB);
    let slices = bench.list(Resource::EndpointSlices);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["endpoints"], Value::Null);
    assert_eq!(slices[0]["ports"], Value::Null);
    assert_eq!(slices[0]["addressType"], "IPv4");
    let endpoints = bench.get(Resource::Endpoints, "web");
    assert_eq!(endpoints.get("subsets"), None);
}

#[test]
fn slice_of_pods_is_what_the_controller_makes() {
    let text = WEB.replace("- port: 80", "- {port: 80, targetPort: 8080}") + PODS;
    let bench = Bench::offline(&text);
    let service = bench.get(Resource::Services, "web");
    let pod = |name: &str| pod_reference(&bench, name);
    let slices = bench.list(Resource::EndpointSlices);
    assert_eq!(slices.len(), 1);
    let name = slices[0]["metadata"]["name"].as_str().unwrap();
    assert_eq!((&name[..4], name.len()), ("web-", 9));
    let conditions = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
    assert_eq!(
        bare(slices[0].clone()),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": "default",
                "generateName": "web-",
                "generation": 1,
                "labels": {
                    "app": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": "web",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": "web", "uid": service["metadata"]["uid"],
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["127.0.0.2"], "conditions": conditions(false, false, false), "targetRef": pod("a")},
                {
                    "addresses": ["127.0.0.3"], "conditions": conditions(true, true, false),
                    "nodeName": "here", "zone": "desk", "targetRef": pod("b"),
                },
                {"addresses": ["127.0.0.4"], "conditions": conditions(false, true, true), "targetRef": pod("c")},
            ],
        })
    );
}

#[test]
fn endpoints_of_pods_are_ready_or_not_and_leave_out_those_that_end() {
    let text = WEB.replace("- port: 80", "- {port: 80, targetPort: 8080}") + PODS;
    let bench = Bench::offline(&text);
    let pod = |name: &str| pod_reference(&bench, name);
    let endpoints = bare(bench.get(Resource::Endpoints, "web"));
    assert_eq!(
        endpoints,
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "labels": {"app": "web", "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
            },
            "subsets": [{
                "addresses": [{"ip": "127.0.0.3", "nodeName": "here", "targetRef": pod("b")}],
                "notReadyAddresses": [{"ip": "127.0.0.2", "targetRef": pod("a")}],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }],
        })
    );
}

#[test]
fn endpoints_of_pods_with_different_numbers_are_grouped_by_ports() {
    let service = WEB.replace(
        "- port: 80",
        "- {name: http, port: 80, targetPort: http}\n  - {name: admin, port: 81}",
    );
    let text = service.replace("spec:", "spec:\n  publishNotReadyAddresses: true") + PODS;
    let bench = Bench::offline(&text);
    let endpoints = bench.get(Resource::Endpoints, "web");
    let subsets = endpoints["subsets"].as_array().unwrap();
    let shape = |subset: &Value| {
        let ips = subset["addresses"].as_array().unwrap().iter();
        let ips: Vec<String> = ips.map(|address| address["ip"].to_string()).collect();
        let ports = subset["ports"].as_array().unwrap().iter();
        let ports: Vec<String> = ports
            .map(|port| format!("{}={}", port["name"].as_str().unwrap(), port["port"]))
            .collect();
        (ips.join(" "), ports.join(" "))
    };
    let mut shapes: Vec<_> = subsets.iter().map(shape).collect();
    shapes.sort();
    let expected = [
        ("\"127.0.0.2\" \"127.0.0.3\" \"127.0.0.4\"", "admin=81"),
        ("\"127.0.0.2\" \"127.0.0.3\"", "http=8080"),
        ("\"127.0.0.4\"", "http=9090"),
    ]
    .map(|(ips, ports)| (ips.to_owned(), ports.to_owned()));
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(shapes, expected);
}

#[test]
fn slices_written_keep_their_form_with_defaults() {
    let bench = Bench::offline(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mine, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
- {addresses: [127.0.0.2], hints: {forZones: [{name: desk}]}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
",
    );
    let slices = bench.list(Resource::EndpointSlices);
    assert_eq!(slices.len(), 1, "without a selector nothing is derived");
    assert_eq!(
        bare(slices[0].clone()),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "mine",
                "namespace": "default",
                "generation": 1,
                "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"portico.dev/source": "shop.yaml:2"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["127.0.0.2"], "conditions": {}, "hints": {"forZones": [{"name": "desk"}]},
            }],
        })
    );
    assert_eq!(bench.list(Resource::Endpoints), Vec::<Value>::new());
}

#[test]
fn slices_of_written_endpoints_are_mirrored() {
    let bench = Bench::offline(
        "
apiVersion: v1
kind: Service
metadata: {name: db, labels: {of: service}}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: db, labels: {tier: db}, annotations: {note: x}}
subsets:
- addresses: [{ip: 127.0.0.9}]
  ports: [{port: 5432}]
",
    );
    let endpoints = bench.get(Resource::Endpoints, "db");
    let ports = json!([{"port": 5432, "protocol": "TCP"}]);
    assert_eq!(endpoints["subsets"][0]["ports"], ports);
    let slices = bench.list(Resource::EndpointSlices);
    assert_eq!(slices.len(), 1);
    let meta = &slices[0]["metadata"];
    assert_eq!(
        meta["labels"],
        json!({
            "tier": "db",
            "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        })
    );
    assert_eq!(meta["annotations"], json!({"note": "x"}));
    assert_eq!(meta["ownerReferences"][0]["kind"], "Endpoints");
    assert_eq!(
        meta["ownerReferences"][0]["uid"],
        endpoints["metadata"]["uid"]
    );
    assert_eq!(slices[0]["endpoints"][0]["addresses"], json!(["127.0.0.9"]));
}

#[test]
fn slices_of_many_pods_have_at_most_a_hundred_endpoints() {
    use std::fmt::Write as _;
    let mut text = WEB.to_owned();
    for number in 0..250 {
        write!(
            text,
            "
---
apiVersion: v1
kind: Pod
metadata: {{name: p{number}, labels: {{app: web}}}}
spec: {{containers: [{{name: c, image: nginx}}]}}
status: {{podIP: 127.1.0.{number}}}
"
        )
        .unwrap();
    }
    let slices = Bench::offline(&text).list(Resource::EndpointSlices);
    let mut sizes: Vec<usize> = slices
        .iter()
        .map(|slice| slice["endpoints"].as_array().unwrap().len())
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    let names: std::collections::BTreeSet<String> = slices
        .iter()
        .map(|slice| slice["metadata"]["name"].to_string())
        .collect();
    assert_eq!(names.len(), 3);
}

#[test]
fn uid_that_is_written_stays_and_is_referred_to() {
    let uid = "0d9a5c0e-0000-4000-8000-000000000001";
    let text = WEB.replace("name: web", &format!("uid: {uid}\n  name: web"));
    let bench = Bench::offline(&text);
    assert_eq!(bench.get(Resource::Services, "web")["metadata"]["uid"], uid);
    let slices = bench.list(Resource::EndpointSlices);
    assert_eq!(slices[0]["metadata"]["ownerReferences"][0]["uid"], uid);
}
