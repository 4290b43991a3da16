//! The words against those that kubectl 1.33 printed for the same objects (`tests/fixtures/kubectl`).

use super::*;

const OBJECTS: &str = include_str!("../../../tests/fixtures/kubectl/objects.json");

fn of(resource: Resource) -> Vec<Value> {
    let list: Value = serde_json::from_str(OBJECTS).unwrap();
    let mut objects = items(&list, "/items").to_vec();
    objects.retain(|object| text(object, "/kind") == resource.kind());
    objects
}

fn object(resource: Resource, wanted: &str) -> Value {
    let mut all = of(resource);
    all.retain(|object| name(object) == wanted);
    all.remove(0)
}

fn waiting(text: &str) -> RolloutState {
    RolloutState::Waiting(text.to_owned())
}

fn done(text: &str) -> RolloutState {
    RolloutState::Done(text.to_owned())
}

fn failed(text: &str) -> RolloutState {
    RolloutState::Failed(text.to_owned())
}

#[test]
fn status_deployment_has_kubectl_words() {
    let check = |name: &str, expected| {
        let object = object(Resource::Deployments, name);
        assert_eq!(status(Resource::Deployments, &object, None), expected);
    };
    check(
        "web",
        waiting(
            "Waiting for deployment \"web\" rollout to finish: 2 out of 3 new replicas have been updated...",
        ),
    );
    check(
        "ending",
        waiting(
            "Waiting for deployment \"ending\" rollout to finish: 1 old replicas are pending termination...",
        ),
    );
    check(
        "starting",
        waiting(
            "Waiting for deployment \"starting\" rollout to finish: 1 of 2 updated replicas are available...",
        ),
    );
    check("done", done("deployment \"done\" successfully rolled out"));
    check(
        "unseen",
        waiting("Waiting for deployment spec update to be observed..."),
    );
    check(
        "late",
        failed("error: deployment \"late\" exceeded its progress deadline"),
    );
}

#[test]
fn status_other_revision_fails() {
    let web = object(Resource::Deployments, "web");
    assert_eq!(
        status(Resource::Deployments, &web, Some(2)),
        failed("error: desired revision (2) is different from the running revision (3)")
    );
    assert!(matches!(
        status(Resource::Deployments, &web, Some(3)),
        RolloutState::Waiting(_)
    ));
}

#[test]
fn status_daemon_set_has_kubectl_words() {
    let check = |name: &str, expected| {
        let object = object(Resource::DaemonSets, name);
        assert_eq!(status(Resource::DaemonSets, &object, None), expected);
    };
    check(
        "agent",
        waiting(
            "Waiting for daemon set \"agent\" rollout to finish: 2 of 3 updated pods are available...",
        ),
    );
    check(
        "agent-old",
        waiting(
            "Waiting for daemon set \"agent-old\" rollout to finish: 1 out of 2 new pods have been updated...",
        ),
    );
    check(
        "agent-done",
        done("daemon set \"agent-done\" successfully rolled out"),
    );
    check(
        "agent-manual",
        failed("error: rollout status is only available for RollingUpdate strategy type"),
    );
}

#[test]
fn status_stateful_set_has_kubectl_words() {
    let check = |name: &str, expected| {
        let object = object(Resource::StatefulSets, name);
        assert_eq!(status(Resource::StatefulSets, &object, None), expected);
    };
    check(
        "db",
        waiting(
            "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...",
        ),
    );
    check("db-ready", waiting("Waiting for 2 pods to be ready..."));
    check(
        "db-roll",
        waiting("waiting for statefulset rolling update to complete 2 pods at revision db-2..."),
    );
    check(
        "db-done",
        done("statefulset rolling update complete 3 pods at revision db-2..."),
    );
    check(
        "db-parted",
        done("partitioned roll out complete: 3 new pods have been updated..."),
    );
    check(
        "db-unseen",
        waiting("Waiting for statefulset spec update to be observed..."),
    );
    check(
        "db-manual",
        failed("error: rollout status is only available for RollingUpdate strategy type"),
    );
}

#[test]
fn status_of_a_kind_without_rollouts_fails() {
    let set = object(Resource::ReplicaSets, "web-111");
    assert_eq!(
        status(Resource::ReplicaSets, &set, None),
        failed("error: no status viewer has been implemented for ReplicaSet.apps")
    );
    assert_eq!(
        history_of(Resource::ReplicaSets, "web-111", &[], None),
        Err("error: no history viewer has been implemented for \"ReplicaSet.apps\"".to_owned())
    );
}

#[test]
fn history_prints_as_kubectl() {
    let web = object(Resource::Deployments, "web");
    let sets = of(Resource::ReplicaSets);
    assert_eq!(
        history(&web, &sets, None).unwrap(),
        include_str!("../../../tests/fixtures/kubectl/history.txt")
    );
    assert_eq!(
        history(&web, &sets, Some(3)).unwrap(),
        include_str!("../../../tests/fixtures/kubectl/history-3.txt")
    );
    assert_eq!(
        history(&web, &sets, Some(9)),
        Err("error: unable to find the specified revision".to_owned())
    );
}

#[test]
fn history_without_revisions_says_so() {
    let db = object(Resource::Deployments, "db");
    assert_eq!(
        history(&db, &of(Resource::ReplicaSets), None).unwrap(),
        "deployment.apps/db \nNo rollout history found.\n"
    );
}

#[test]
fn history_of_a_stateful_set_has_no_causes() {
    let revisions = [2, 1].map(|number| Revision {
        number,
        change_cause: String::new(),
        template: Value::Null,
    });
    assert_eq!(
        history_of(Resource::StatefulSets, "db", &revisions, None).unwrap(),
        "statefulset.apps/db \nREVISION\n1\n2\n\n"
    );
    assert_eq!(
        history_of(Resource::DaemonSets, "agent", &revisions, None).unwrap(),
        "daemonset.apps/agent \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    );
}
