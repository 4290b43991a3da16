//! Tables of every resource as golden texts, selection, messages and watches, on objects as an API server gives them.

use std::{cell::RefCell, fmt::Write as _};

use clap::Parser;

use serde_json::json;

use super::{super::Verbatim, *};

/// 2024-01-02T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_704_153_600_000);

#[derive(Parser)]
struct Get {
    #[command(flatten)]
    args: GetArgs,
}

#[derive(Default)]
struct Fixture {
    objects: Vec<(Resource, Value)>,
    events: RefCell<Vec<(&'static str, Value)>>,
}

impl Objects for Fixture {
    fn list(&self, resource: Resource, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let is_in = |object: &Value| {
            let of = object["metadata"]["namespace"].as_str();
            !resource.is_namespaced() || namespace.is_none_or(|wanted| of == Some(wanted))
        };
        let all = self
            .objects
            .iter()
            .filter(|(of, object)| *of == resource && is_in(object));
        Ok(all.map(|(_, object)| object.clone()).collect())
    }

    fn watch<'a>(
        &'a self,
        resource: Resource,
        namespace: Option<&'a str>,
    ) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<WatchEvent>> + 'a>> {
        let present = self
            .list(resource, namespace)?
            .into_iter()
            .map(|object| ("ADDED", object));
        let all = present.chain(self.events.take()).map(|(kind, object)| {
            Ok(WatchEvent {
                kind: kind.to_owned(),
                object,
            })
        });
        Ok(Box::new(all))
    }
}

/// What stands on standard output, and on standard error with the error that ends the command.
fn get(fixture: &Fixture, arguments: &[&str]) -> (String, String) {
    let get = Get::try_parse_from(["get"].iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        now: || NOW,
    };
    let result = run_with(&get.args, fixture, &mut terminal);
    let mut err = String::from_utf8(err).unwrap();
    if let Err(error) = result {
        assert!(error.is::<Verbatim>(), "{error}");
        // Writing to a String cannot fail.
        let _ = writeln!(err, "{error}");
    }
    (String::from_utf8(out).unwrap(), err)
}

#[track_caller]
fn check(fixture: &Fixture, arguments: &[&str], expected: &str) {
    let (out, err) = get(fixture, arguments);
    assert_eq!(out, expected, "{arguments:?}\n{out}");
    assert_eq!(err, "", "{arguments:?}");
}

#[track_caller]
fn check_error(fixture: &Fixture, arguments: &[&str], out: &str, expected: &str) {
    let found = get(fixture, arguments);
    assert_eq!(
        found,
        (out.to_owned(), format!("{expected}\n")),
        "{arguments:?}"
    );
}

/// An object of a day's age, with `more` beside its metadata.
fn object(resource: Resource, name: &str, more: &Value) -> (Resource, Value) {
    let mut object = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind(),
        "metadata": {"name": name, "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"app": name}},
    });
    if resource.is_namespaced() {
        object["metadata"]["namespace"] = json!("default");
    }
    merge(&mut object, more);
    (resource, object)
}

fn merge(object: &mut Value, more: &Value) {
    match (object, more) {
        (Value::Object(object), Value::Object(more)) => {
            for (key, value) in more {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, more) => object.clone_from(more),
    }
}

fn of(resource: Resource, objects: &[(&str, Value)]) -> Fixture {
    let objects = objects
        .iter()
        .map(|(name, more)| object(resource, name, more));
    Fixture {
        objects: objects.collect(),
        ..Fixture::default()
    }
}

fn services() -> Fixture {
    let service = |kind: &str, ip: &str, ports: Value| json!({"spec": {"type": kind, "clusterIP": ip, "clusterIPs": [ip], "ports": ports, "selector": {"b": "2", "a": "1"}}});
    let http = json!([{"port": 80, "protocol": "TCP"}]);
    let mut balanced = service(
        "LoadBalancer",
        "10.96.0.3",
        json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}]),
    );
    let ingress = json!([{"ip": "203.0.113.20"}, {"ip": "203.0.113.10"}]);
    balanced["status"] = json!({"loadBalancer": {"ingress": ingress}});
    let mut external = service("ClusterIP", "10.96.0.4", http.clone());
    external["spec"]["externalIPs"] = json!(["192.0.2.1", "192.0.2.2"]);
    of(
        Resource::Services,
        &[
            ("balanced", balanced),
            ("external", external),
            ("headless", service("ClusterIP", "None", json!([]))),
            (
                "named",
                json!({"spec": {"type": "ExternalName", "externalName": "example.com"}}),
            ),
            (
                "pending",
                service("LoadBalancer", "10.96.0.5", http.clone()),
            ),
            (
                "web",
                service(
                    "NodePort",
                    "10.96.0.1",
                    json!([{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]),
                ),
            ),
        ],
    )
}

#[test]
fn get_services_shows_addresses_and_ports() {
    let usual = "\
NAME       TYPE           CLUSTER-IP   EXTERNAL-IP           PORT(S)               AGE
balanced   LoadBalancer   10.96.0.3    203.0.113.10,...      80:30080/TCP          24h
external   ClusterIP      10.96.0.4    192.0.2.1,192.0.2.2   80/TCP                24h
headless   ClusterIP      None         <none>                <none>                24h
named      ExternalName   <none>       example.com           <none>                24h
pending    LoadBalancer   10.96.0.5    <pending>             80/TCP                24h
web        NodePort       10.96.0.1    <none>                80:30000/TCP,53/UDP   24h
";
    check(&services(), &["svc"], usual);
    let wide = "\
NAME       TYPE           CLUSTER-IP   EXTERNAL-IP                 PORT(S)        AGE   SELECTOR
balanced   LoadBalancer   10.96.0.3    203.0.113.10,203.0.113.20   80:30080/TCP   24h   a=1,b=2
";
    check(&services(), &["service/balanced", "-o", "wide"], wide);
}

#[test]
fn get_endpoints_shows_three_addresses() {
    let addresses = |count: u8| {
        (1..=count)
            .map(|n| json!({"ip": format!("10.0.0.{n}")}))
            .collect::<Vec<_>>()
    };
    let ports = json!([{"port": 80}, {"port": 443}]);
    let fixture = of(
        Resource::Endpoints,
        &[
            (
                "many",
                json!({"subsets": [{"addresses": addresses(4), "ports": ports}]}),
            ),
            ("none", json!({})),
            (
                "six",
                json!({"subsets": [{"addresses": [{"ip": "2001:db8::1"}], "ports": [{"port": 80}]}]}),
            ),
        ],
    );
    let expected = "\
NAME   ENDPOINTS                                         AGE
many   10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 5 more...   24h
none   <none>                                            24h
six    [2001:db8::1]:80                                  24h
";
    check(&fixture, &["endpoints"], expected);
}

#[test]
fn get_endpointslices_shows_ports_and_addresses() {
    let endpoint = |addresses: &[&str]| json!({"addresses": addresses});
    let fixture = of(
        Resource::EndpointSlices,
        &[
            (
                "web-1",
                json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "any", "port": null}],
                "endpoints": [endpoint(&["10.0.0.1", "10.0.0.2"]), endpoint(&["10.0.0.3"]), endpoint(&["10.0.0.4"])]}),
            ),
            (
                "web-2",
                json!({"addressType": "IPv6", "ports": [], "endpoints": []}),
            ),
        ],
    );
    let expected = "\
NAME    ADDRESSTYPE   PORTS     ENDPOINTS                                AGE
web-1   IPv4          80,any    10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...   24h
web-2   IPv6          <unset>   <unset>                                  24h
";
    check(&fixture, &["endpointslices"], expected);
}

fn container(name: &str, state: &Value) -> Value {
    json!({"name": name, "restartCount": 0, "ready": state.get("running").is_some(), "state": state})
}

fn pod(phase: &str, containers: &[Value], more: &Value) -> Value {
    let declared: Vec<Value> = containers
        .iter()
        .map(|status| json!({"name": status["name"], "image": "x"}))
        .collect();
    let mut pod = json!({
        "spec": {"containers": declared, "nodeName": "node"},
        "status": {"phase": phase, "containerStatuses": containers, "podIPs": [{"ip": "10.0.0.1"}]},
    });
    merge(&mut pod, more);
    pod
}

#[expect(clippy::too_many_lines, reason = "one pod for each state")]
fn pods() -> Fixture {
    let running = json!({"running": {"startedAt": "2024-01-01T00:00:00Z"}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let ended =
        |code: i64, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
    let mut crashed = container("a", &waiting("CrashLoopBackOff"));
    crashed["restartCount"] = json!(3);
    crashed["lastState"] =
        json!({"terminated": {"exitCode": 1, "finishedAt": "2024-01-01T23:55:00Z"}});
    let unready = json!({"name": "b", "ready": false, "restartCount": 2, "state": running});
    let none = json!({});
    let deleted = json!({"metadata": {"deletionTimestamp": "2024-01-02T00:00:30Z"}});
    let init = |state: &Value| {
        json!({
            "spec": {"initContainers": [{"name": "i"}, {"name": "j"}]},
            "status": {"initContainerStatuses": [container("i", &ended(0, "Completed")), container("j", state)]},
        })
    };
    let sidecar = json!({
        "spec": {"initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        "status": {"initContainerStatuses": [{"name": "s", "ready": true, "started": true, "restartCount": 1, "state": running}]},
    });
    let gates = json!({
        "spec": {"readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
        "status": {"conditions": [{"type": "x", "status": "True"}], "nominatedNodeName": "other"},
    });
    let bare = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Pending"}});
    of(
        Resource::Pods,
        &[
            (
                "completed",
                pod(
                    "Succeeded",
                    &[container("a", &ended(0, "Completed"))],
                    &none,
                ),
            ),
            ("crashing", pod("Running", &[crashed], &none)),
            (
                "creating",
                pod(
                    "Pending",
                    &[container("a", &waiting("ContainerCreating"))],
                    &none,
                ),
            ),
            (
                "deleted",
                pod("Running", &[container("a", &running)], &deleted),
            ),
            (
                "evicted",
                pod("Failed", &[], &json!({"status": {"reason": "Evicted"}})),
            ),
            (
                "failed",
                pod("Failed", &[container("a", &ended(1, "Error"))], &none),
            ),
            ("gated", pod("Running", &[container("a", &running)], &gates)),
            (
                "half",
                pod("Running", &[container("a", &running), unready], &none),
            ),
            (
                "init",
                pod(
                    "Pending",
                    &[container("a", &waiting("PodInitializing"))],
                    &init(&running),
                ),
            ),
            (
                "init-failed",
                pod(
                    "Pending",
                    &[container("a", &waiting("PodInitializing"))],
                    &init(&ended(2, "")),
                ),
            ),
            (
                "killed",
                pod(
                    "Failed",
                    &[container(
                        "a",
                        &json!({"terminated": {"exitCode": 137, "signal": 9}}),
                    )],
                    &none,
                ),
            ),
            ("pending", bare),
            (
                "sidecar",
                pod("Running", &[container("a", &running)], &sidecar),
            ),
        ],
    )
}

#[test]
fn get_pods_says_their_state_in_one_word() {
    let expected = "\
NAME          READY   STATUS              RESTARTS     AGE
completed     0/1     Completed           0            24h
crashing      0/1     CrashLoopBackOff    3 (5m ago)   24h
creating      0/1     ContainerCreating   0            24h
deleted       1/1     Terminating         0            24h
evicted       0/0     Evicted             0            24h
failed        0/1     Error               0            24h
gated         1/1     Running             0            24h
half          1/2     Running             2            24h
init          0/1     Init:1/2            0            24h
init-failed   0/1     Init:ExitCode:2     0            24h
killed        0/1     Signal:9            0            24h
pending       0/1     Pending             0            24h
sidecar       2/2     Running             1            24h
";
    check(&pods(), &["po"], expected);
}

#[test]
fn get_pods_wide_adds_address_node_and_gates() {
    let expected = "\
NAME      READY   STATUS    RESTARTS   AGE   IP         NODE     NOMINATED NODE   READINESS GATES
gated     1/1     Running   0          24h   10.0.0.1   node     other            1/2
pending   0/1     Pending   0          24h   <none>     <none>   <none>           <none>
";
    check(&pods(), &["po", "gated", "pending", "-o", "wide"], expected);
}

fn workload(spec: &Value, status: &Value) -> Value {
    let containers =
        json!([{"name": "a", "image": "nginx:1.27"}, {"name": "b", "image": "busybox"}]);
    let mut workload = json!({
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]}, {"key": "old", "operator": "DoesNotExist"},
            ]},
            "template": {"spec": {"containers": containers}},
        },
        "status": status,
    });
    merge(&mut workload["spec"], spec);
    workload
}

#[test]
fn get_replicasets_shows_replicas() {
    let status = json!({"replicas": 2, "readyReplicas": 1});
    let fixture = of(
        Resource::ReplicaSets,
        &[("web-1", workload(&json!({}), &status))],
    );
    let usual = "\
NAME    DESIRED   CURRENT   READY   AGE
web-1   3         2         1       24h
";
    check(&fixture, &["rs"], usual);
    let wide = "\
NAME    DESIRED   CURRENT   READY   AGE   CONTAINERS   IMAGES               SELECTOR
web-1   3         2         1       24h   a,b          nginx:1.27,busybox   app=web,!old,tier in (a,b)
";
    check(&fixture, &["rs", "-o", "wide"], wide);
}

#[test]
fn get_deployments_shows_progress() {
    let status =
        json!({"replicas": 4, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
    let fixture = of(
        Resource::Deployments,
        &[
            ("new", workload(&json!({"replicas": 0}), &json!({}))),
            ("web", workload(&json!({}), &status)),
        ],
    );
    let usual = "\
NAME   READY   UP-TO-DATE   AVAILABLE   AGE
new    0/0     0            0           24h
web    2/3     1            2           24h
";
    check(&fixture, &["deploy"], usual);
    let wide = "\
NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES               SELECTOR
web    2/3     1            2           24h   a,b          nginx:1.27,busybox   app=web,!old,tier in (a,b)
";
    check(&fixture, &["deployment/web", "-o", "wide"], wide);
}

#[test]
fn get_daemonsets_shows_nodes() {
    let status = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "updatedNumberScheduled": 2});
    let picky = json!({"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}});
    let fixture = of(
        Resource::DaemonSets,
        &[
            ("agent", workload(&json!({}), &status)),
            ("picky", workload(&picky, &json!({}))),
        ],
    );
    let expected = "\
NAME    DESIRED   CURRENT   READY   UP-TO-DATE   AVAILABLE   NODE SELECTOR   AGE
agent   3         2         1       2            0           <none>          24h
picky   0         0         0       0            0           disk=ssd        24h
";
    check(&fixture, &["ds"], expected);
    let (wide, _) = get(&fixture, &["ds", "agent", "-o", "wide"]);
    assert!(
        wide.ends_with("24h   a,b          nginx:1.27,busybox   app=web,!old,tier in (a,b)\n"),
        "{wide}"
    );
}

#[test]
fn get_statefulsets_shows_ready_replicas() {
    let fixture = of(
        Resource::StatefulSets,
        &[("db", workload(&json!({}), &json!({"readyReplicas": 2})))],
    );
    check(
        &fixture,
        &["sts"],
        "NAME   READY   AGE\ndb     2/3     24h\n",
    );
    let wide = "\
NAME   READY   AGE   CONTAINERS   IMAGES
db     2/3     24h   a,b          nginx:1.27,busybox
";
    check(&fixture, &["sts", "-o", "wide"], wide);
}

#[test]
fn get_namespaces_and_nodes_show_their_status() {
    let fixture = of(
        Resource::Namespaces,
        &[("default", json!({"status": {"phase": "Active"}}))],
    );
    check(
        &fixture,
        &["ns"],
        "NAME      STATUS   AGE\ndefault   Active   24h\n",
    );
    let info = json!({"kubeletVersion": "v1.35.0", "osImage": "Linux", "kernelVersion": "6.18", "containerRuntimeVersion": "simulated"});
    let ready = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]},
    });
    let cordoned = json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "False"}], "nodeInfo": {"kubeletVersion": "v1.35.0"}}});
    let fixture = of(Resource::Nodes, &[("here", ready), ("there", cordoned)]);
    let usual = "\
NAME    STATUS                        ROLES                AGE   VERSION
here    Ready                         control-plane,edge   24h   v1.35.0
there   NotReady,SchedulingDisabled   <none>               24h   v1.35.0
";
    check(&fixture, &["no"], usual);
    let wide = "\
NAME   STATUS   ROLES                AGE   VERSION   INTERNAL-IP   EXTERNAL-IP   OS-IMAGE   KERNEL-VERSION   CONTAINER-RUNTIME
here   Ready    control-plane,edge   24h   v1.35.0   127.0.0.1     <none>        Linux      6.18             simulated
";
    check(&fixture, &["node", "here", "-o", "wide"], wide);
}

#[test]
fn get_events_shows_what_happened() {
    let event = json!({
        "type": "Normal", "reason": "Scaled", "message": "up\nto 3", "count": 4, "firstTimestamp": "2024-01-01T23:00:00Z",
        "lastTimestamp": "2024-01-01T23:59:30Z", "source": {"component": "deployment-controller"},
        "involvedObject": {"kind": "Deployment", "name": "web", "fieldPath": "spec"},
    });
    let new = json!({
        "type": "Warning", "reason": "Failed", "message": "no", "eventTime": "2024-01-01T23:58:00.000000Z",
        "reportingComponent": "portico", "reportingInstance": "here", "involvedObject": {"kind": "Pod", "name": "a"},
    });
    let fixture = of(Resource::Events, &[("a.1", event), ("b.2", new)]);
    let usual = "\
LAST SEEN   TYPE      REASON   OBJECT           MESSAGE
30s         Normal    Scaled   deployment/web   up...
2m          Warning   Failed   pod/a            no
";
    check(&fixture, &["ev"], usual);
    let wide = "\
LAST SEEN   TYPE      REASON   OBJECT           SUBOBJECT   SOURCE                  MESSAGE   FIRST SEEN   COUNT   NAME
30s         Normal    Scaled   deployment/web   spec        deployment-controller   up...     60m          4       a.1
2m          Warning   Failed   pod/a                        portico, here           no        2m           1       b.2
";
    check(&fixture, &["ev", "-o", "wide"], wide);
    check(
        &fixture,
        &[
            "ev",
            "--field-selector",
            "involvedObject.name=a,type!=Normal",
            "-o",
            "name",
        ],
        "event/b.2\n",
    );
}

fn several() -> Fixture {
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    let shop = json!({"metadata": {"namespace": "shop", "labels": {"tier": "front"}}});
    let mut fixture = of(Resource::Namespaces, &[("default", phase("Active"))]);
    fixture.objects.extend([
        object(
            Resource::Services,
            "web",
            &json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.1"]}}),
        ),
        object(
            Resource::Deployments,
            "web",
            &workload(&json!({}), &json!({})),
        ),
        object(Resource::Deployments, "web", &shop),
    ]);
    fixture
}

#[test]
fn get_of_several_kinds_prints_tables_with_kinds() {
    let expected = "\
NAME          TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
service/web   ClusterIP   10.96.0.1    <none>        <none>    24h

NAME                  READY   UP-TO-DATE   AVAILABLE   AGE
deployment.apps/web   0/3     0            0           24h
";
    check(&several(), &["all"], expected);
    check(&several(), &["po,svc,deploy"], expected);
    check(&several(), &["svc/web", "deploy/web"], expected);
}

#[test]
fn get_of_all_namespaces_prints_them_first() {
    let expected = "\
NAMESPACE   NAME                  READY   UP-TO-DATE   AVAILABLE   AGE   TIER   TIER    APP   LABELS
default     deployment.apps/web   0/3     0            0           24h                  web   app=web
shop        deployment.apps/web   0/1     0            0           24h          front   web   app=web,tier=front
";
    let arguments = [
        "deploy",
        "-A",
        "--show-kind",
        "--show-labels",
        "-L",
        "example.com/tier,tier,app",
    ];
    check(&several(), &arguments, expected);
    check(
        &several(),
        &["ns", "-A"],
        "NAME      STATUS   AGE\ndefault   Active   24h\n",
    );
}

#[test]
fn get_without_headers_has_no_blank_lines() {
    let expected = "\
service/web   ClusterIP   10.96.0.1   <none>   <none>   24h
deployment.apps/web   0/3   0     0     24h
";
    check(&several(), &["svc,deploy", "--no-headers"], expected);
}

#[test]
fn get_of_nothing_says_so_on_standard_error() {
    let none = "No resources found in shop namespace.";
    check_error(&several(), &["svc", "-n", "shop"], "", none);
    check_error(&several(), &["pods", "-A"], "", "No resources found");
    check_error(&several(), &["nodes"], "", "No resources found");
    check_error(
        &several(),
        &["svc", "-l", "a=b"],
        "",
        "No resources found in default namespace.",
    );
    check(&several(), &["svc", "-n", "shop", "--ignore-not-found"], "");
    check(&several(), &["svc", "-n", "shop", "-o", "name"], "");
}

#[test]
fn get_of_what_is_not_there_prints_the_rest() {
    let out = "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    0/3     0            0           24h\n";
    let error = "Error from server (NotFound): deployments.apps \"nope\" not found";
    check_error(&several(), &["deploy", "nope", "web"], out, error);
    check(
        &several(),
        &["deploy", "nope", "web", "--ignore-not-found"],
        out,
    );
}

#[test]
fn get_with_a_wrong_selector_is_a_bad_request() {
    let error = "Error from server (BadRequest): Unable to find \"apps/v1, Resource=deployments\" that match label \
                 selector \"\", field selector \"status.x=1\": field label not supported: status.x";
    check_error(
        &several(),
        &["deploy", "--field-selector", "status.x=1"],
        "",
        error,
    );
}

#[test]
fn get_with_a_go_template_names_jsonpath() {
    let error =
        "error: Go templates are not supported: use -o jsonpath=TEMPLATE instead of -o go-template";
    check_error(&several(), &["svc", "-o", "go-template={{.x}}"], "", error);
}

#[test]
fn get_with_a_repeated_selector_takes_the_last() {
    check(
        &several(),
        &["svc", "-l", "app=x", "-l", "app=web", "-o", "name"],
        "service/web\n",
    );
}

fn watched() -> Fixture {
    let pod = |phase: &str, app: &str| {
        let labels = json!({"metadata": {"labels": {"app": app}}, "status": {"phase": phase}});
        object(Resource::Pods, "web-1", &labels).1
    };
    let other = object(
        Resource::Pods,
        "a-longer-name",
        &json!({"status": {"phase": "Pending"}, "metadata": {"labels": {"app": "web"}}}),
    )
    .1;
    Fixture {
        objects: vec![(Resource::Pods, pod("Pending", "web"))],
        events: RefCell::new(vec![
            ("MODIFIED", pod("Running", "web")),
            ("ADDED", other),
            ("MODIFIED", pod("Running", "out")),
            ("DELETED", pod("Running", "out")),
        ]),
    }
}

#[test]
fn watch_prints_the_list_and_then_each_change() {
    let expected = "\
NAME    READY   STATUS    RESTARTS   AGE
web-1   0/0     Pending   0          24h
web-1   0/0     Running   0          24h
a-longer-name   0/0     Pending   0          24h
web-1           0/0     Running   0          24h
web-1           0/0     Running   0          24h
";
    check(&watched(), &["pods", "-w"], expected);
}

#[test]
fn watch_with_a_selector_deletes_what_no_longer_fits() {
    let expected = "\
EVENT      NAME    READY   STATUS    RESTARTS   AGE
ADDED      web-1   0/0     Pending   0          24h
MODIFIED   web-1   0/0     Running   0          24h
ADDED      a-longer-name   0/0     Pending   0          24h
DELETED    web-1           0/0     Running   0          24h
";
    check(
        &watched(),
        &["pods", "-l", "app=web", "-w", "--output-watch-events"],
        expected,
    );
}

#[test]
fn watch_only_leaves_out_what_is_there() {
    let expected = "\
NAME    READY   STATUS    RESTARTS   AGE
web-1   0/0     Running   0          24h
web-1   0/0     Running   0          24h
web-1   0/0     Running   0          24h
";
    check(&watched(), &["pod", "web-1", "--watch-only"], expected);
}

#[test]
fn watch_in_another_format_prints_one_object_after_the_other() {
    check(
        &watched(),
        &["pods", "-w", "-o", "jsonpath={.metadata.name} "],
        "web-1 web-1 a-longer-name web-1 web-1 ",
    );
    let (yaml, _) = get(&watched(), &["pod/web-1", "-w", "-o", "yaml"]);
    assert_eq!(yaml.matches("---\n").count(), 3, "{yaml}");
    let (json, _) = get(
        &watched(),
        &[
            "pods",
            "--watch-only",
            "--output-watch-events",
            "-o",
            "json",
        ],
    );
    assert!(
        json.starts_with("{\"type\":\"MODIFIED\",\"object\":{\"apiVersion\":\"v1\","),
        "{json}"
    );
}

#[test]
fn watch_of_several_kinds_is_refused() {
    check_error(
        &watched(),
        &["pods,svc", "-w"],
        "",
        "error: you may only specify a single resource type",
    );
    let several = "error: watch is only supported on individual resources and resource collections - more than 1 resource \
                   was found";
    check_error(&watched(), &["pods", "web-1", "b", "-w"], "", several);
    let none = "Error from server (NotFound): pods \"nope\" not found";
    check_error(&watched(), &["pods", "nope", "-w"], "", none);
}

/// Takes some lines and then is gone, as `head` does.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0 -= 1;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn watch_into_a_closed_pipe_ends_without_an_error() {
    for lines in 0..3 {
        let get = Get::try_parse_from(["get", "pods", "-w"]).unwrap();
        let mut terminal = Terminal {
            out: &mut Pipe(lines),
            err: &mut Vec::new(),
            now: || NOW,
        };
        run_with(&get.args, &watched(), &mut terminal).unwrap();
    }
}

fn connections() -> Fixture {
    let open = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "spec": {"address": "127.96.0.7:80", "client": "127.0.0.1:40000", "clientIP": "127.0.0.1",
            "endpoint": "127.98.0.1:8080", "port": "http", "protocol": "TCP", "service": "web"},
        "status": {"state": "Open", "bytesIn": 812, "bytesOut": 5_000_000},
    });
    let mut draining = open.clone();
    draining["spec"]["service"] = json!("db");
    draining["spec"]["port"] = json!("5432");
    draining["status"] = json!({"state": "Draining", "bytesIn": 0, "bytesOut": 0, "finished": "client",
        "reason": "EndpointGone", "deadline": "2024-01-02T00:00:30Z"});
    of(
        Resource::Connections,
        &[("tcp-1", open), ("tcp-2", draining)],
    )
}

#[test]
fn get_with_a_limit_shows_the_first_in_order_and_says_how_many_there_are_beyond() {
    let named = |arguments: &[&str]| {
        let arguments = [&["connections", "-o", "name"], arguments].concat();
        get(&connections(), &arguments)
    };
    let (first, second) = (
        "connection.portico.dev/tcp-1\n",
        "connection.portico.dev/tcp-2\n",
    );
    let more = "and 1 more\n".to_owned();
    assert_eq!(named(&["--limit", "1"]), (first.to_owned(), more.clone()));
    let by_service = ["--limit", "1", "--sort-by", ".spec.service"];
    assert_eq!(named(&by_service), (second.to_owned(), more.clone()));
    assert_eq!(
        named(&["--limit", "2"]),
        (format!("{first}{second}"), String::new())
    );
    let (table, said) = get(&connections(), &["connections", "--limit", "1"]);
    assert_eq!((table.lines().count(), said), (2, more));
}

#[test]
fn get_connections_shows_both_ends_and_what_is_to_end() {
    check(
        &connections(),
        &["connections"],
        "\
NAME    CLIENT            SERVICE   PORT   ENDPOINT          AGE   STATE      IN    OUT
tcp-1   127.0.0.1:40000   web       http   127.98.0.1:8080   24h   Open       812   4.7Mi
tcp-2   127.0.0.1:40000   db        5432   127.98.0.1:8080   24h   Draining   0     0
",
    );
    check(
        &connections(),
        &["conn", "svc/db", "-o", "wide"],
        "\
NAME    CLIENT            SERVICE   PORT   ENDPOINT          AGE   STATE      IN    OUT   ADDRESS         FINISHED   REASON         CLOSED IN
tcp-2   127.0.0.1:40000   db        5432   127.98.0.1:8080   24h   Draining   0     0     127.96.0.7:80   client     EndpointGone   30s
",
    );
    check(
        &connections(),
        &[
            "connections",
            "--field-selector",
            "status.state=Draining",
            "-o",
            "name",
        ],
        "connection.portico.dev/tcp-2\n",
    );
    check(
        &connections(),
        &[
            "connections",
            "service/web",
            "--field-selector",
            "status.state=Open",
            "-o",
            "name",
        ],
        "connection.portico.dev/tcp-1\n",
    );
}
