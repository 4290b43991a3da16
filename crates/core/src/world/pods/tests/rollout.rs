//! Deployments and ReplicaSets beyond the plain rollout: proportions, conditions, revisions, whose a pod is.

use super::*;

fn key(kind: Kind) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn deployment(wanted: Workload, annotations: &[(&str, &str)]) -> Arc<Object> {
    let plain = object(
        Kind::Deployment,
        "web",
        Labels::new(),
        Spec::Workload(Arc::new(wanted)),
    );
    let mut object = (*plain).clone();
    let annotations = annotations.iter();
    object.meta.annotations = annotations
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    Arc::new(object)
}

impl Bench {
    fn status(&self) -> DeploymentStatus {
        deployment_status(&self.table, &key(Kind::Deployment), self.now).unwrap()
    }

    /// Type, status, reason of the conditions in their order.
    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions;
        conditions
            .iter()
            .map(|one| {
                format!(
                    "{} {} {}",
                    one.kind.as_str(),
                    one.status.as_str(),
                    one.reason
                )
            })
            .collect()
    }

    fn progressing(&self) -> Condition {
        let conditions = self.status().conditions;
        let mut conditions = conditions.into_iter();
        conditions
            .find(|one| one.kind == ConditionKind::Progressing)
            .unwrap()
    }
}

/// The example of Kubernetes' documentation: 10 pods, surge 3, unavailable 2, a template that does not start; then 15.
#[test]
fn deployment_scaled_in_a_stuck_rollout_spreads_pods_in_proportion() {
    let mut bench = Bench::new();
    let wanted = |replicas, hash| Workload {
        strategy: rolling(IntOrPercent::Int(3), IntOrPercent::Int(2)),
        ..workload(replicas, hash)
    };
    bench.deploy(wanted(10, 1));
    bench.settle();
    bench.deploy(wanted(10, 2));
    bench
        .unanswered
        .retain(|action| matches!(action, PodAction::Stop { .. }));
    bench.answer();
    assert_eq!(bench.revisions(), [(1, 8, 8), (2, 5, 0)]);
    bench.deploy(wanted(15, 2));
    assert_eq!(
        bench.revisions().map_sizes(),
        [11, 7],
        "three more for the old, two more for the new"
    );
    bench.deploy(wanted(10, 2));
    assert_eq!(bench.revisions().map_sizes(), [8, 5], "and back");
    bench.deploy(wanted(0, 2));
    assert_eq!(bench.revisions().map_sizes(), [0, 0]);
}

trait Sizes {
    fn map_sizes(self) -> Vec<u32>;
}

impl Sizes for Vec<(u64, u32, u32)> {
    fn map_sizes(self) -> Vec<u32> {
        self.into_iter().map(|(_, size, _)| size).collect()
    }
}

#[test]
fn deployment_paused_in_a_rollout_is_scaled_in_proportion_and_goes_on_later() {
    let mut bench = Bench::new();
    let wanted = |replicas, paused| Workload {
        paused,
        strategy: rolling(IntOrPercent::Int(0), IntOrPercent::Int(2)),
        ..workload(replicas, if paused { 2 } else { 1 })
    };
    bench.deploy(wanted(4, false));
    bench.settle();
    bench.deploy(workload(4, 2));
    assert_eq!(bench.revisions().map_sizes(), [3, 2], "25 % up, 25 % down");
    bench.deploy(wanted(8, true));
    assert_eq!(
        bench.revisions().map_sizes(),
        [5, 3],
        "8 in the shares of 3 and 2"
    );
    bench.settle();
    assert_eq!(bench.progressing().status, ConditionStatus::Unknown);
    assert_eq!(bench.progressing().reason, "DeploymentPaused");
    bench.deploy(workload(8, 2));
    assert_eq!(
        bench.progressing().reason,
        "ReplicaSetUpdated",
        "it moves at once"
    );
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 0, 0), (2, 8, 8)]);
    assert_eq!(bench.progressing().reason, "NewReplicaSetAvailable");
}

#[test]
fn conditions_of_a_rollout_follow_it() {
    let mut bench = Bench::new();
    bench.deploy(workload(1, 1));
    assert_eq!(
        bench.conditions(),
        [
            "Available False MinimumReplicasUnavailable",
            "Progressing True ReplicaSetUpdated"
        ]
    );
    assert_eq!(
        &*bench.progressing().message,
        format!(
            "ReplicaSet \"web-{}\" is progressing.",
            template_hash_text(1, 0)
        )
    );
    let created = bench.now;
    bench.now = bench.now.after(Duration::from_secs(3));
    bench.settle();
    assert_eq!(
        bench.conditions(),
        [
            "Available True MinimumReplicasAvailable",
            "Progressing True NewReplicaSetAvailable"
        ]
    );
    let progressing = bench.progressing();
    assert_eq!(progressing.last_update, bench.now);
    assert_eq!(
        progressing.last_transition, created,
        "it was true all the time"
    );
    assert_eq!(bench.last.deadline, None, "nothing is waited for");
    let status = bench.status();
    assert_eq!(
        (
            status.generation,
            status.observed_generation,
            status.revision
        ),
        (1, 1, 1)
    );
    bench.deploy(workload(2, 1));
    assert_eq!(bench.status().generation, 2);
    assert_eq!(
        bench.progressing().reason,
        "NewReplicaSetAvailable",
        "scaling is no rollout"
    );
}

#[test]
fn progress_deadline_passes_without_progress_and_is_forgotten_with_it() {
    let mut bench = Bench::new();
    let wanted = |hash| Workload {
        progress_deadline: Some(Duration::from_mins(1)),
        ..workload(2, hash)
    };
    bench.deploy(wanted(1));
    bench.settle();
    bench.deploy(wanted(2));
    let start = bench.now;
    assert_eq!(
        bench.last.deadline,
        Some(start.after(Duration::from_mins(1)))
    );
    bench.pass(Duration::from_secs(59));
    assert_eq!(bench.progressing().reason, "ReplicaSetUpdated");
    bench.pass(Duration::from_secs(1));
    let timed_out = bench.progressing();
    assert_eq!(
        (timed_out.status, timed_out.reason),
        (ConditionStatus::False, "ProgressDeadlineExceeded")
    );
    assert_eq!(timed_out.last_transition, bench.now);
    assert_eq!(
        &*timed_out.message,
        format!(
            "ReplicaSet \"web-{}\" has timed out progressing.",
            template_hash_text(2, 0)
        )
    );
    assert_eq!(bench.last.deadline, None);
    bench.settle();
    assert_eq!(bench.progressing().reason, "NewReplicaSetAvailable");
    bench.deploy(Workload {
        progress_deadline: None,
        ..workload(2, 3)
    });
    assert_eq!(
        bench.conditions(),
        ["Available True MinimumReplicasAvailable"]
    );
}

#[test]
fn available_of_a_recreated_deployment_allows_no_missing_pod() {
    let mut bench = Bench::new();
    let wanted = |hash| Workload {
        strategy: Strategy::Recreate,
        ..workload(3, hash)
    };
    bench.deploy(wanted(1));
    bench.settle();
    bench.deploy(wanted(2));
    assert!(
        bench
            .conditions()
            .contains(&"Available False MinimumReplicasUnavailable".to_owned())
    );
}

#[test]
fn change_cause_of_a_revision_is_the_one_at_its_time() {
    let mut bench = Bench::new();
    let with_cause = |hash, cause| deployment(workload(1, hash), &[(CHANGE_CAUSE, cause)]);
    bench.declare(with_cause(1, "first"));
    bench.settle();
    bench.declare(with_cause(2, "second"));
    bench.settle();
    bench.declare(with_cause(2, "second, said better"));
    let history = |bench: &Bench| -> Vec<(u64, String)> {
        let revisions = revisions(&bench.table, &key(Kind::Deployment));
        revisions
            .iter()
            .map(|one| {
                (
                    one.revision,
                    one.change_cause.as_deref().unwrap_or("<none>").to_owned(),
                )
            })
            .collect()
    };
    assert_eq!(
        history(&bench),
        [
            (1, "first".to_owned()),
            (2, "second, said better".to_owned())
        ]
    );
    assert_eq!(bench.status().generation, 2, "annotations are no spec");
    bench.declare(with_cause(1, "back"));
    assert_eq!(
        history(&bench),
        [
            (2, "second, said better".to_owned()),
            (3, "back".to_owned())
        ]
    );
    let sets = replica_sets(&bench.table, bench.now);
    let new = sets.iter().find(|set| set.revision == 3).unwrap();
    let shown = |name: &str| {
        new.annotations
            .get(&*format!("deployment.kubernetes.io/{name}"))
            .cloned()
    };
    assert_eq!(shown("revision").as_deref(), Some("3"));
    assert_eq!(shown("revision-history").as_deref(), Some("1"));
    assert_eq!(shown("desired-replicas").as_deref(), Some("1"));
    assert_eq!(shown("max-replicas").as_deref(), Some("2"));
    assert_eq!(new.change_cause.as_deref(), Some("back"));
    assert_eq!(
        new.selector.match_labels.get(TEMPLATE_HASH_LABEL),
        new.labels.get(TEMPLATE_HASH_LABEL)
    );
}

#[test]
fn events_of_a_rollout_are_the_controllers_words() {
    let mut bench = Bench::new();
    bench.deploy(Workload {
        strategy: Strategy::Recreate,
        ..workload(2, 1)
    });
    bench.settle();
    let old = format!("web-{}", template_hash_text(1, 0));
    let new = format!("web-{}", template_hash_text(2, 0));
    let mut pods = bench.alive();
    bench.deploy(Workload {
        strategy: Strategy::Recreate,
        ..workload(2, 2)
    });
    bench.settle();
    assert_eq!(
        bench.told("deployment-controller"),
        [
            format!("web ScalingReplicaSet Scaled up replica set {old} from 0 to 2"),
            format!("web ScalingReplicaSet Scaled down replica set {old} from 2 to 0"),
            format!("web ScalingReplicaSet Scaled up replica set {new} from 0 to 2"),
        ]
    );
    let told = bench.told("replicaset-controller");
    assert_eq!(told.len(), 6);
    let created = |pod: &String| format!("{old} SuccessfulCreate Created pod: {pod}");
    pods.sort();
    let mut first = told[..2].to_vec();
    first.sort();
    assert_eq!(first, pods.iter().map(created).collect::<Vec<_>>());
    assert!(told[2].starts_with(&format!("{old} SuccessfulDelete Deleted pod: {old}-")));
}

#[test]
fn pod_that_loses_its_label_is_released_replaced_and_outlives_its_set() {
    let mut bench = Bench::new();
    bench.deploy(workload(2, 1));
    bench.settle();
    let name = bench.alive().swap_remove(0);
    bench.relabel(&name, "app", Some("debug"));
    assert_eq!(bench.pod(&name).owner, None);
    assert_eq!(bench.alive().len(), 3, "one more in its place");
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 2, 2)]);
    assert!(bench.told("portico")[0].starts_with(&format!("{name} Released ")));
    bench.forget(Kind::Deployment);
    bench.settle();
    assert_eq!(bench.alive(), [name]);
}

#[test]
fn pod_that_gets_its_label_back_is_adopted_and_one_goes() {
    let mut bench = Bench::new();
    bench.deploy(workload(2, 1));
    bench.settle();
    bench.pass(Duration::from_secs(1));
    let name = bench.alive().swap_remove(0);
    bench.relabel(&name, "app", None);
    bench.settle();
    bench.relabel(&name, "app", Some("web"));
    assert!(bench.pod(&name).owner.is_some(), "the older pod stays");
    assert_eq!(bench.alive().len(), 2);
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 2, 2)]);
}

#[test]
fn bare_pod_that_a_replica_set_selects_is_adopted_and_may_be_its_surplus() {
    let mut bench = Bench::new();
    let labels = Labels::from([("app".into(), "web".into())]);
    bench.bare(labels, pod_spec(80));
    bench.settle();
    bench.run(Kind::ReplicaSet, workload(2, 1));
    bench.settle();
    assert_eq!(bench.alive().len(), 2, "one is there already");
    assert_eq!(
        bench.pod("solo").owner.as_ref().unwrap().kind,
        Kind::ReplicaSet
    );
    bench.run(Kind::ReplicaSet, workload(0, 1));
    bench.settle();
    assert_eq!(bench.table.pods.len(), 0, "it does not come back by itself");
    bench.pass(Duration::from_hours(1));
    assert_eq!(bench.last.deadline, None);
    bench.bare(Labels::new(), pod_spec(81));
    assert_eq!(bench.alive(), ["solo"], "an edit brings it back");
}

/// Adopted and ended within one round, it must not be made again in the same round, without end.
#[test]
fn bare_pod_that_comes_to_a_full_replica_set_is_ended_once() {
    let mut bench = Bench::new();
    bench.run(Kind::ReplicaSet, workload(0, 1));
    bench.settle();
    let labels = Labels::from([("app".into(), "web".into())]);
    bench.bare(labels, pod_spec(80));
    assert_eq!(bench.table.pods.len(), 0);
    bench.settle();
    assert_eq!(bench.table.pods.len(), 0, "it does not come back by itself");
    bench.bare(Labels::new(), pod_spec(80));
    assert_eq!(bench.alive(), ["solo"], "an edit brings it back");
}

#[test]
fn bare_pod_relabelled_to_match_is_noticed_by_the_set() {
    let mut bench = Bench::new();
    bench.run(Kind::ReplicaSet, workload(1, 1));
    bench.bare(Labels::new(), pod_spec(80));
    bench.settle();
    assert_eq!(bench.alive().len(), 2);
    bench.bare(Labels::from([("app".into(), "web".into())]), pod_spec(80));
    assert_eq!(bench.alive().len(), 1, "one of two is enough");
    bench.settle();
    assert_eq!(bench.table.pods.len(), 1);
}

#[test]
fn scale_down_follows_deletion_cost_before_age() {
    let mut bench = Bench::new();
    bench.deploy(workload(3, 1));
    bench.settle();
    let names = bench.alive();
    for (name, cost) in [(&names[0], "10"), (&names[1], "-1"), (&names[2], "5")] {
        let key = ("default".into(), name.as_str().into());
        let pod = Arc::make_mut(bench.table.pods.get_mut(&key).unwrap());
        let annotation = "controller.kubernetes.io/pod-deletion-cost";
        pod.annotations.insert(annotation.into(), cost.into());
    }
    bench.deploy(workload(2, 1));
    assert!(bench.pod(&names[1]).is_terminating());
    bench.deploy(workload(1, 1));
    assert!(bench.pod(&names[2]).is_terminating());
}

#[test]
fn node_selector_without_a_node_leaves_pods_pending_until_there_is_one() {
    let mut bench = Bench::new();
    let mut wanted = workload(1, 1);
    let template = Arc::make_mut(&mut wanted.template);
    Arc::make_mut(&mut template.spec).node_selector = Labels::from([("disk".into(), "ssd".into())]);
    bench.deploy(wanted);
    let pod = bench.only_pod();
    assert!(bench.last.actions.is_empty() && pod.phase == PodPhase::Pending && pod.node.is_empty());
    assert_eq!(
        bench.told("default-scheduler"),
        [format!(
            "{} FailedScheduling 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            pod.name
        )]
    );
    host_lost(&mut bench.table);
    bench.pass(Duration::from_hours(1));
    assert!(bench.last.actions.is_empty());
    bench.nodes = vec![PodNode {
        name: "fast".into(),
        labels: Labels::from([("disk".into(), "ssd".into())]),
    }];
    bench.round(&[]);
    assert_eq!(&*bench.only_pod().node, "fast");
    bench.settle();
    assert_eq!(bench.revisions(), [(1, 1, 1)]);
}
