//! Deployments and ReplicaSets.

use super::*;

pub(super) const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: nginx, ports: [{containerPort: 80}]}]
";

fn template(labels: &Value) -> Value {
    json!({
        "metadata": {"labels": labels},
        "spec": {
            "containers": [{
                "name": "main",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst",
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    })
}

#[test]
fn deployment_offline_has_defaults_and_no_status() {
    let bench = Bench::offline(DEPLOYMENT);
    assert_eq!(
        bare(bench.get(Resource::Deployments, "web")),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "generation": 1,
                "labels": {"app": "web"},
                "annotations": {"portico.dev/source": "shop.yaml:2"},
            },
            "spec": {
                "progressDeadlineSeconds": 600,
                "replicas": 2,
                "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}, "type": "RollingUpdate",
                },
                "template": template(&json!({"app": "web"})),
            },
            "status": {},
        })
    );
    assert_eq!(bench.list(Resource::Pods), Vec::<Value>::new());
}

#[test]
fn deployment_in_simulation_counts_its_pods() {
    let mut bench = Bench::simulated(DEPLOYMENT);
    bench.answer();
    let deployment = bench.get(Resource::Deployments, "web");
    let meta = &deployment["metadata"];
    assert_eq!(
        meta["annotations"]["deployment.kubernetes.io/revision"],
        "1"
    );
    let status = &deployment["status"];
    for count in [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ] {
        assert_eq!(status[count], 2, "{count}");
    }
    assert_eq!(status.get("unavailableReplicas"), None);
    let reason = |index: usize| status["conditions"][index]["reason"].as_str().unwrap();
    assert_eq!(reason(0), "MinimumReplicasAvailable");
    assert_eq!(reason(1), "NewReplicaSetAvailable");
}

#[test]
fn replica_set_of_a_deployment_is_told_apart_by_its_hash() {
    let mut bench = Bench::simulated(DEPLOYMENT);
    bench.answer();
    let deployment = bench.get(Resource::Deployments, "web");
    let meta = &deployment["metadata"];
    let sets = bench.list(Resource::ReplicaSets);
    assert_eq!(sets.len(), 1);
    let name = sets[0]["metadata"]["name"].as_str().unwrap();
    let hash = name.strip_prefix("web-").unwrap();
    let labels = json!({"app": "web", "pod-template-hash": hash});
    let generation = &sets[0]["metadata"]["generation"];
    assert_eq!(
        bare(sets[0].clone()),
        json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": "default",
                "generation": generation,
                "labels": labels,
                "annotations": {
                    "deployment.kubernetes.io/desired-replicas": "2",
                    "deployment.kubernetes.io/max-replicas": "3",
                    "deployment.kubernetes.io/revision": "1",
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": meta["uid"],
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template(&labels)},
            "status": {
                "availableReplicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": generation, "readyReplicas": 2,
                "replicas": 2, "terminatingReplicas": 0,
            },
        })
    );
    for pod in bench.list(Resource::Pods) {
        let pod_meta = &pod["metadata"];
        assert_eq!(pod_meta["generateName"], format!("{name}-"));
        assert_eq!(pod_meta["labels"], labels);
        assert_eq!(pod_meta.get("annotations"), None);
        let owner = &pod_meta["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["name"]),
            (&json!("ReplicaSet"), &json!(name))
        );
        assert_eq!(owner["uid"], sets[0]["metadata"]["uid"]);
    }
}

#[test]
fn deployment_of_an_old_version_keeps_that_versions_defaults() {
    let text = DEPLOYMENT
        .replace("apps/v1", "extensions/v1beta1")
        .replace("  selector: {matchLabels: {app: web}}\n", "");
    let deployment = Bench::offline(&text).get(Resource::Deployments, "web");
    assert_eq!(deployment["apiVersion"], "apps/v1");
    let spec = &deployment["spec"];
    assert_eq!(spec["selector"], json!({"matchLabels": {"app": "web"}}));
    assert_eq!(
        spec["strategy"]["rollingUpdate"],
        json!({"maxSurge": 1, "maxUnavailable": 1})
    );
    assert_eq!(spec["progressDeadlineSeconds"], i32::MAX);
    assert_eq!(spec["revisionHistoryLimit"], i32::MAX);
}

#[test]
fn replica_set_declared_has_its_status() {
    let text = DEPLOYMENT.replace("kind: Deployment", "kind: ReplicaSet");
    let offline = Bench::offline(&text).get(Resource::ReplicaSets, "web");
    assert_eq!(offline["status"], json!({"replicas": 0}));
    assert_eq!(
        offline["spec"]["template"],
        template(&json!({"app": "web"}))
    );
    let mut bench = Bench::simulated(&text);
    bench.answer();
    let set = bench.get(Resource::ReplicaSets, "web");
    assert_eq!(set["status"]["readyReplicas"], 2);
    assert_eq!(set["metadata"].get("ownerReferences"), None);
}

#[test]
fn daemon_set_in_simulation_counts_nodes() {
    let text = DEPLOYMENT
        .replace("kind: Deployment", "kind: DaemonSet")
        .replace("  replicas: 2\n", "");
    let mut bench = Bench::simulated(&text);
    bench.answer();
    let daemon_set = bench.get(Resource::DaemonSets, "web");
    assert_eq!(
        daemon_set["status"],
        json!({
            "currentNumberScheduled": 1,
            "desiredNumberScheduled": 1,
            "numberAvailable": 1,
            "numberMisscheduled": 0,
            "numberReady": 1,
            "observedGeneration": 1,
            "updatedNumberScheduled": 1,
        })
    );
    let annotations = &daemon_set["metadata"]["annotations"];
    assert_eq!(annotations["deprecated.daemonset.template.generation"], "1");
    let owner = &bench.list(Resource::Pods)[0]["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("DaemonSet"), &daemon_set["metadata"]["uid"])
    );
}

#[test]
fn stateful_set_in_simulation_counts_pods_and_names_its_revision() {
    let text = DEPLOYMENT
        .replace("kind: Deployment", "kind: StatefulSet")
        .replace("  replicas: 2\n", "  replicas: 2\n  serviceName: web\n");
    let mut bench = Bench::simulated(&text);
    bench.answer();
    bench.answer();
    let set = bench.get(Resource::StatefulSets, "web");
    let pod = bench.get(Resource::Pods, "web-0");
    let revision = &pod["metadata"]["labels"]["controller-revision-hash"];
    assert_eq!(
        set["status"],
        json!({
            "availableReplicas": 2,
            "collisionCount": 0,
            "currentReplicas": 2,
            "currentRevision": revision,
            "observedGeneration": 1,
            "readyReplicas": 2,
            "replicas": 2,
            "updateRevision": revision,
            "updatedReplicas": 2,
        })
    );
    assert_eq!(pod["metadata"]["generateName"], "web-");
    assert_eq!(
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
        "0"
    );
}

#[test]
fn pod_without_a_node_says_why_it_is_pending() {
    let text = DEPLOYMENT.replace(
        "containers:",
        "nodeSelector: {disk: ssd}\n      containers:",
    );
    let bench = Bench::simulated(&text);
    let pod = &bench.list(Resource::Pods)[0];
    assert_eq!(pod["spec"].get("nodeName"), None);
    let status = &pod["status"];
    assert_eq!(status["phase"], "Pending");
    let scheduled = &status["conditions"][0];
    assert_eq!(
        (&scheduled["type"], &scheduled["reason"]),
        (&json!("PodScheduled"), &json!("Unschedulable"))
    );
    assert!(
        scheduled["message"]
            .as_str()
            .unwrap()
            .contains("nodes are available")
    );
}
