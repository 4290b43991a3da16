//! Pods, simulated and not.

use super::*;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    image: nginx:1.27
    env: [{name: A, value: b}]
    ports: [{containerPort: 8080}]
    resources: {limits: {cpu: 1, memory: 1Gi}}
";

fn main_container() -> Value {
    json!({
        "name": "main",
        "image": "nginx:1.27",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "A", "value": "b"}],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 1, "memory": "1Gi"}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    })
}

fn spec(node: Option<&str>) -> Value {
    let toleration = |key: &str| json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300});
    let mut spec = json!({
        "containers": [main_container()],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable"),
        ],
    });
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    spec
}

fn condition(kind: &str, status: &str, since: &str) -> Value {
    json!({
        "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": 1,
    })
}

#[test]
fn pod_that_nobody_runs_is_pending() {
    let bench = Bench::offline(POD);
    assert_eq!(
        bare(bench.get(Resource::Pods, "web")),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "generation": 1,
                "labels": {"app": "web"},
                "annotations": {"portico.dev/source": "shop.yaml:2"},
            },
            "spec": spec(None),
            "status": {"phase": "Pending", "qosClass": "Guaranteed"},
        })
    );
}

#[test]
fn pod_simulated_runs_with_kubelets_status() {
    let mut bench = Bench::simulated(POD);
    let pod = bench.get(Resource::Pods, "web");
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"], waiting);
    assert_eq!(pod["status"].get("podIP"), None);
    bench.answer();
    let mut pod = bench.get(Resource::Pods, "web");
    let later = "2026-01-02T03:04:06Z";
    let ip = bench.world.pods().pods.values().next().unwrap().ip;
    let id = pod["status"]["containerStatuses"][0]["containerID"].take();
    assert_eq!(id.as_str().unwrap().len(), "portico://".len() + 64);
    assert_eq!(pod["spec"], spec(Some("here")));
    assert_eq!(
        pod["metadata"]["annotations"],
        json!({"portico.dev/source": "shop.yaml:2"})
    );
    assert_eq!(
        pod["status"],
        json!({
            "phase": "Running",
            "observedGeneration": 1,
            "qosClass": "Guaranteed",
            "startTime": STARTED_TEXT,
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [
                condition("PodReadyToStartContainers", "True", later),
                condition("Initialized", "True", STARTED_TEXT),
                condition("Ready", "True", later),
                condition("ContainersReady", "True", later),
                condition("PodScheduled", "True", STARTED_TEXT),
            ],
            "containerStatuses": [{
                "containerID": null,
                "image": "nginx:1.27",
                "imageID": "",
                "lastState": {},
                "name": "main",
                "ready": true,
                "restartCount": 0,
                "started": true,
                "state": {"running": {"startedAt": later}},
            }],
        })
    );
}

#[test]
fn pod_that_failed_to_start_waits_and_says_why() {
    let mut bench = Bench::simulated(POD);
    let uid = bench.world.pods().pods.values().next().unwrap().uid;
    let reason = "port 8080 is taken".to_owned();
    bench.round(&[PodObservation::Failed { uid, reason }]);
    let pod = bench.get(Resource::Pods, "web");
    let status = &pod["status"];
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"],
        json!({"reason": "CrashLoopBackOff", "message": "port 8080 is taken"})
    );
    let ready = &status["conditions"][2];
    assert_eq!(ready["reason"], "ContainersNotReady");
    assert_eq!(ready["message"], "containers with unready status: [main]");
}

#[test]
fn pod_that_ends_has_a_deletion_timestamp() {
    let mut bench = Bench::simulated(POD);
    bench.answer();
    let uid = bench.get(Resource::Pods, "web")["metadata"]["uid"].take();
    bench.report = [SourceReport::Synced(SourceView::default())];
    bench.round(&[]);
    let pod = bench.get(Resource::Pods, "web");
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-01-02T03:04:36Z");
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(pod["metadata"]["uid"], uid);
    assert_eq!(pod["status"]["phase"], "Running");
    // Ready until its containers have ended, as kubelet says.
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);
    let ready = &pod["status"]["conditions"][2];
    assert_eq!(
        (&ready["status"], &ready["lastTransitionTime"]),
        (&json!("True"), &json!("2026-01-02T03:04:06Z"))
    );
}

#[test]
fn pod_that_runs_elsewhere_keeps_its_status_and_gets_the_rest() {
    let bench = Bench::simulated(&format!(
        "{POD}status: {{podIP: 127.0.0.7, hostIP: 127.0.0.6}}\n"
    ));
    let mut pod = bench.get(Resource::Pods, "web");
    let id = pod["status"]["containerStatuses"][0]["containerID"].take();
    assert!(id.as_str().unwrap().starts_with("portico://"));
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": STARTED_TEXT});
    assert_eq!(
        pod["status"],
        json!({
            "phase": "Running",
            "qosClass": "Guaranteed",
            "startTime": STARTED_TEXT,
            "hostIP": "127.0.0.6",
            "podIP": "127.0.0.7",
            "podIPs": [{"ip": "127.0.0.7"}],
            "conditions": [
                condition("Initialized"), condition("Ready"), condition("ContainersReady"),
                condition("PodScheduled"),
            ],
            "containerStatuses": [{
                "name": "main", "image": "nginx:1.27", "imageID": "", "containerID": null, "ready": true, "started": true,
                "restartCount": 0, "state": {"running": {"startedAt": STARTED_TEXT}}, "lastState": {},
            }],
        })
    );
}

#[test]
fn pod_restarted_shows_how_its_container_ended() {
    let mut bench = Bench::simulated(POD);
    bench.answer();
    let ended = bench.now.after(std::time::Duration::from_secs(9));
    let mut pods = bench.world.pods().pods.values();
    let mut pod = Arc::unwrap_or_clone(Arc::clone(pods.next().unwrap()));
    drop(pods);
    let container = &mut pod.containers[0];
    container.restarts = 1;
    container.last_end = Some((ended, "Error".into()));
    container.running_since = None;
    container.waiting = Some("CrashLoopBackOff".into());
    pod.ready_since = None;
    let view = View {
        world: &bench.world,
        snapshot: &bench.snapshot,
        listeners: &BTreeMap::new(),
        started: Timestamp::from_millis(STARTED),
        now: bench.now,
    };
    let uid = meta::pod_uid(view, &pod);
    let status = pod_status::simulated(view, &pod, &json::Fields::new());
    let mut container = status["containerStatuses"][0].clone();
    let last = container["lastState"]["terminated"]
        .as_object_mut()
        .unwrap();
    assert!(last.remove("containerID").is_some());
    assert_eq!(
        container,
        json!({
            "name": "main", "image": "nginx:1.27", "imageID": "", "ready": false, "started": false,
            "restartCount": 1,
            "state": {"waiting": {
                "reason": "CrashLoopBackOff",
                "message": format!("back-off restarting failed container=main pod=web_default({uid})"),
            }},
            "lastState": {"terminated": {
                "exitCode": 137, "reason": "Error",
                "startedAt": STARTED_TEXT, "finishedAt": "2026-01-02T03:04:15Z",
            }},
        })
    );
    assert_eq!(status["phase"], "Running");
}

#[test]
fn pod_with_init_containers_shows_them_done_once_it_runs() {
    let text = POD.replace(
        "spec:\n",
        "spec:\n  initContainers: [{name: setup, image: a}, {name: proxy, image: b, restartPolicy: Always}]\n",
    );
    let mut bench = Bench::simulated(&text);
    let states = |bench: &Bench| -> Vec<String> {
        let pod = bench.get(Resource::Pods, "web");
        let statuses = pod["status"]["initContainerStatuses"]
            .as_array()
            .unwrap()
            .clone();
        let first = |status: &Value| status["state"].as_object().unwrap().keys().next().cloned();
        statuses.iter().filter_map(first).collect()
    };
    assert_eq!(states(&bench), ["waiting", "waiting"]);
    bench.answer();
    assert_eq!(states(&bench), ["terminated", "running"]);
}

#[test]
fn pod_written_as_ending_or_ended_is_not_said_to_run() {
    let ending = POD.replace(
        "name: web,",
        "name: web, deletionTimestamp: '2026-01-02T03:04:00Z',",
    );
    let pod = Bench::simulated(&ending).get(Resource::Pods, "web");
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-01-02T03:04:00Z");
    let ended = format!("{POD}status: {{phase: Succeeded}}\n");
    let pod = Bench::simulated(&ended).get(Resource::Pods, "web");
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert_eq!(pod["status"].get("conditions"), None);
}

const TWO: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: main, image: a, ports: [{containerPort: 8080}]}
  - {name: late, image: b, readinessProbe: {tcpSocket: {port: 8081}}}
";

#[test]
fn pod_with_one_unready_container_counts_the_others_as_ready() {
    let mut bench = Bench::simulated(TWO);
    bench.answer();
    let pod = bench.get(Resource::Pods, "web");
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    let ready: Vec<&Value> = statuses.iter().map(|status| &status["ready"]).collect();
    assert_eq!(ready, [true, false]);
    assert_eq!(pod["status"]["conditions"][2]["status"], "False");
    assert_eq!(
        pod["status"]["conditions"][2]["message"],
        "containers with unready status: [late]"
    );
}

#[test]
fn pod_whose_container_begins_its_next_run_is_not_created_again() {
    let mut bench = Bench::simulated(POD);
    bench.answer();
    let (uid, container) = {
        let pod = bench.world.pods().pods.values().next().unwrap();
        (pod.uid, Arc::clone(&pod.containers[0].name))
    };
    let fault = PodCommand::Fault {
        pod: ("default".into(), "web".into()),
        fault: Fault::Live,
        failing: true,
    };
    bench.command(fault);
    bench.round(&[PodObservation::Container {
        uid,
        container,
        became: ContainerChange::Ended,
    }]);
    let pod = bench.get(Resource::Pods, "web");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert!(status["state"]["running"].is_object(), "{status}");
    assert_eq!(
        (&status["ready"], &status["started"]),
        (&json!(false), &json!(false))
    );
}
