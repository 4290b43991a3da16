//! DaemonSets and StatefulSets step by step.

use super::*;

fn key(kind: Kind) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn node(name: &str, labels: &[(&str, &str)]) -> PodNode {
    let labels = labels.iter();
    PodNode {
        name: name.into(),
        labels: labels
            .map(|(label, value)| ((*label).into(), (*value).into()))
            .collect(),
    }
}

/// A DaemonSet with Kubernetes' default strategy.
fn daemon(hash: u32) -> Workload {
    Workload {
        strategy: rolling(IntOrPercent::Int(0), IntOrPercent::Int(1)),
        ..workload(0, hash)
    }
}

fn stateful(replicas: u32, hash: u32) -> Workload {
    Workload {
        strategy: Strategy::Partition(0),
        service_name: Some("peers".into()),
        ..workload(replicas, hash)
    }
}

impl Bench {
    fn with_nodes(count: u32) -> Self {
        let nodes = (0..count).map(|number| node(&format!("n{number}"), &[]));
        Self {
            nodes: nodes.collect(),
            ..Self::new()
        }
    }

    fn daemons(&self) -> DaemonSetStatus {
        daemon_set_status(&self.table, &key(Kind::DaemonSet), self.now).unwrap()
    }

    /// desired, current, ready, updated, available, misscheduled.
    fn numbers(&self) -> [u32; 6] {
        let status = self.daemons();
        [
            status.desired,
            status.current,
            status.ready,
            status.updated,
            status.available,
            status.misscheduled,
        ]
    }

    fn stateful(&self) -> StatefulSetStatus {
        stateful_set_status(&self.table, &key(Kind::StatefulSet), self.now).unwrap()
    }

    /// Pods with the hash of their revision.
    fn hashes(&self) -> Vec<(String, String)> {
        let pods = self.table.pods.values();
        pods.filter(|pod| !pod.is_terminating())
            .map(|pod| {
                (
                    pod.name.to_string(),
                    pod.labels[REVISION_HASH_LABEL].to_string(),
                )
            })
            .collect()
    }
}

#[test]
fn daemon_set_runs_one_pod_on_every_node() {
    let mut bench = Bench::with_nodes(3);
    bench.run(Kind::DaemonSet, daemon(1));
    assert_eq!(bench.numbers(), [3, 3, 0, 3, 0, 0]);
    bench.settle();
    assert_eq!(bench.numbers(), [3, 3, 3, 3, 3, 0]);
    let nodes: Vec<&str> = bench.table.pods.values().map(|pod| &*pod.node).collect();
    let mut sorted = nodes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["n0", "n1", "n2"]);
    for pod in bench.table.pods.values() {
        assert!(
            pod.name.starts_with("web-") && pod.name.len() == 9,
            "{}",
            pod.name
        );
        assert_eq!(&*pod.labels[REVISION_HASH_LABEL], template_hash_text(1, 0));
        assert_eq!(&*pod.labels["pod-template-generation"], "1");
    }
    let told = bench.told("daemonset-controller");
    assert_eq!(told.len(), 3);
    assert!(
        told[0].starts_with("web SuccessfulCreate Created pod: web-"),
        "{}",
        told[0]
    );
}

#[test]
fn daemon_set_without_declared_nodes_runs_on_this_one() {
    let mut bench = Bench::new();
    bench.run(Kind::DaemonSet, daemon(1));
    assert_eq!(&*bench.only_pod().node, "node");
    bench.settle();
    bench.forget(Kind::DaemonSet);
    bench.settle();
    assert!(bench.table.pods.is_empty());
}

#[test]
fn daemon_set_follows_its_node_selector_and_the_nodes() {
    let mut bench = Bench::with_nodes(2);
    bench.nodes.push(node("ssd", &[("disk", "ssd")]));
    let mut wanted = daemon(1);
    let template = Arc::make_mut(&mut wanted.template);
    Arc::make_mut(&mut template.spec).node_selector = Labels::from([("disk".into(), "ssd".into())]);
    bench.run(Kind::DaemonSet, wanted);
    bench.settle();
    assert_eq!(bench.numbers(), [1, 1, 1, 1, 1, 0]);
    bench.nodes[0] = node("n0", &[("disk", "ssd")]);
    bench.nodes[2] = node("ssd", &[("disk", "hdd")]);
    bench.round(&[]);
    assert_eq!(
        bench.numbers(),
        [1, 1, 0, 1, 0, 1],
        "one comes, one is in the wrong place"
    );
    bench.settle();
    assert_eq!(bench.numbers(), [1, 1, 1, 1, 1, 0]);
    bench.nodes.clear();
    bench.nodes.push(node("bare", &[]));
    bench.round(&[]);
    bench.settle();
    assert_eq!(bench.numbers(), [0; 6]);
    assert!(bench.table.pods.is_empty());
}

#[test]
fn daemon_set_rolls_one_node_at_a_time_after_the_old_pod_has_gone() {
    let mut bench = Bench::with_nodes(3);
    bench.run(Kind::DaemonSet, daemon(1));
    bench.settle();
    bench.run(Kind::DaemonSet, daemon(2));
    assert_eq!(
        bench.phases(),
        [0, 2, 0, 1],
        "one ends, none comes before it has gone"
    );
    bench.answer();
    assert_eq!(bench.phases(), [1, 2, 0, 0]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(
        bench.phases(),
        [1, 2, 0, 0],
        "the next waits for the new one"
    );
    bench.settle();
    assert_eq!(bench.numbers(), [3, 3, 3, 3, 3, 0]);
    assert_eq!(bench.daemons().template_generation, 2);
    let revisions = revisions(&bench.table, &key(Kind::DaemonSet));
    let names: Vec<_> = revisions
        .iter()
        .map(|one| (one.revision, one.name.to_string()))
        .collect();
    let name = |hash| format!("web-{}", template_hash_text(hash, 0));
    assert_eq!(names, [(1, name(1)), (2, name(2))]);
}

#[test]
fn daemon_set_with_surge_ends_old_pods_beside_available_ones() {
    let mut bench = Bench::with_nodes(3);
    let wanted = |hash| Workload {
        strategy: rolling(IntOrPercent::Int(2), IntOrPercent::Int(0)),
        ..workload(0, hash)
    };
    bench.run(Kind::DaemonSet, wanted(1));
    bench.settle();
    bench.run(Kind::DaemonSet, wanted(2));
    assert_eq!(bench.phases(), [2, 3, 0, 0], "two come, none goes");
    bench.answer();
    assert_eq!(bench.phases(), [1, 3, 0, 2], "two go, one more comes");
    bench.settle();
    assert_eq!(bench.numbers(), [3, 3, 3, 3, 3, 0]);
    assert_eq!(bench.table.pods.len(), 3);
}

#[test]
fn daemon_set_on_delete_keeps_old_pods_until_they_go() {
    let mut bench = Bench::with_nodes(2);
    let wanted = |hash| Workload {
        strategy: Strategy::OnDelete,
        ..workload(0, hash)
    };
    bench.run(Kind::DaemonSet, wanted(1));
    bench.settle();
    bench.run(Kind::DaemonSet, wanted(2));
    assert!(bench.last.actions.is_empty());
    assert_eq!(bench.numbers(), [2, 2, 2, 0, 2, 0]);
    // One loses its label: it is another's from then on.
    let name = bench.alive().swap_remove(0);
    bench.relabel(&name, "app", None);
    bench.settle();
    assert_eq!(bench.numbers(), [2, 2, 2, 1, 2, 0]);
    assert_eq!(bench.table.pods.len(), 3);
}

#[test]
fn daemon_set_history_beyond_its_limit_is_forgotten_unless_pods_come_from_it() {
    let mut bench = Bench::with_nodes(1);
    for hash in 1..=4 {
        bench.run(
            Kind::DaemonSet,
            Workload {
                revision_history_limit: 1,
                ..daemon(hash)
            },
        );
        bench.settle();
    }
    let numbers = |bench: &Bench| -> Vec<u64> {
        let revisions = revisions(&bench.table, &key(Kind::DaemonSet));
        revisions.iter().map(|one| one.revision).collect()
    };
    assert_eq!(numbers(&bench), [3, 4]);
    bench.run(Kind::DaemonSet, daemon(3));
    bench.settle();
    assert_eq!(
        numbers(&bench),
        [4, 5],
        "a template that comes back is a new revision"
    );
}

#[test]
fn stateful_set_makes_pods_in_order_each_after_the_former_is_ready() {
    let mut bench = Bench::new();
    bench.run(Kind::StatefulSet, stateful(3, 1));
    assert_eq!(bench.alive(), ["web-0"]);
    bench.answer();
    assert_eq!(bench.alive(), ["web-0", "web-1"]);
    bench.settle();
    assert_eq!(bench.alive(), ["web-0", "web-1", "web-2"]);
    let revision = format!("web-{}", template_hash_text(1, 0));
    for (number, pod) in bench.table.pods.values().enumerate() {
        assert_eq!(pod.spec.hostname.as_ref(), Some(&pod.name));
        assert_eq!(pod.spec.subdomain.as_deref(), Some("peers"));
        assert_eq!(pod.labels["statefulset.kubernetes.io/pod-name"], pod.name);
        assert_eq!(
            &*pod.labels["apps.kubernetes.io/pod-index"],
            number.to_string()
        );
        assert_eq!(&*pod.labels[REVISION_HASH_LABEL], revision);
    }
    let status = bench.stateful();
    assert_eq!(
        [
            status.replicas,
            status.ready,
            status.available,
            status.current,
            status.updated
        ],
        [3; 5]
    );
    assert_eq!(&*status.update_revision, revision);
    assert_eq!(
        bench.told("statefulset-controller"),
        [0, 1, 2].map(|number| format!(
            "web SuccessfulCreate create Pod web-{number} in StatefulSet web successful"
        ))
    );
}

#[test]
fn stateful_set_scales_down_from_the_top_one_at_a_time() {
    let mut bench = Bench::new();
    bench.run(Kind::StatefulSet, stateful(3, 1));
    bench.settle();
    bench.run(Kind::StatefulSet, stateful(1, 1));
    assert_eq!(bench.alive(), ["web-0", "web-1"]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.alive(), ["web-0", "web-1"], "the first has not gone");
    bench.answer();
    assert_eq!(bench.alive(), ["web-0"]);
    bench.settle();
    assert_eq!(bench.table.pods.len(), 1);
}

#[test]
fn stateful_set_parallel_does_not_wait() {
    let mut bench = Bench::new();
    let wanted = |replicas| Workload {
        parallel: true,
        ..stateful(replicas, 1)
    };
    bench.run(Kind::StatefulSet, wanted(3));
    assert_eq!(bench.alive().len(), 3);
    bench.settle();
    bench.run(Kind::StatefulSet, wanted(1));
    assert_eq!(bench.alive(), ["web-0"]);
}

#[test]
fn stateful_set_min_ready_holds_the_next_pod() {
    let mut bench = Bench::new();
    bench.run(
        Kind::StatefulSet,
        Workload {
            min_ready: Duration::from_secs(10),
            ..stateful(2, 1)
        },
    );
    bench.settle();
    assert_eq!(bench.alive(), ["web-0"]);
    assert_eq!(
        bench.last.deadline,
        Some(bench.now.after(Duration::from_secs(10)))
    );
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.alive(), ["web-0", "web-1"]);
}

#[test]
fn stateful_set_updates_from_the_top_down_to_the_partition() {
    let mut bench = Bench::new();
    bench.run(Kind::StatefulSet, stateful(3, 1));
    bench.settle();
    let partitioned = |hash, partition| Workload {
        strategy: Strategy::Partition(partition),
        ..stateful(3, hash)
    };
    bench.run(Kind::StatefulSet, partitioned(2, 1));
    assert_eq!(bench.alive(), ["web-0", "web-1"], "the highest first");
    bench.answer();
    assert_eq!(bench.alive().len(), 3, "it comes back by name");
    assert!(
        bench.table.pods.values().all(|pod| !pod.is_terminating()),
        "then the next"
    );
    bench.settle();
    let name = |hash| format!("web-{}", template_hash_text(hash, 0));
    let expected = [(0, 1), (1, 2), (2, 2)];
    let expected = expected.map(|(number, hash)| (format!("web-{number}"), name(hash)));
    assert_eq!(bench.hashes(), expected);
    let status = bench.stateful();
    assert_eq!((status.current, status.updated), (1, 2));
    assert_eq!(
        (&*status.current_revision, &*status.update_revision),
        (&*name(1), &*name(2))
    );

    bench.run(
        Kind::StatefulSet,
        Workload {
            replicas: 4,
            ..partitioned(2, 4)
        },
    );
    bench.settle();
    assert_eq!(
        bench.hashes()[3],
        ("web-3".to_owned(), name(1)),
        "below the partition, a new pod is of the former revision"
    );
    bench.run(Kind::StatefulSet, partitioned(2, 0));
    bench.settle();
    let status = bench.stateful();
    assert_eq!((status.current, status.updated), (3, 3));
    assert_eq!(&*status.current_revision, name(2));
}

#[test]
fn stateful_set_on_delete_keeps_old_pods() {
    let mut bench = Bench::new();
    let wanted = |replicas, hash| Workload {
        strategy: Strategy::OnDelete,
        ..stateful(replicas, hash)
    };
    bench.run(Kind::StatefulSet, wanted(2, 1));
    bench.settle();
    bench.run(Kind::StatefulSet, wanted(2, 2));
    assert!(bench.last.actions.is_empty());
    bench.run(Kind::StatefulSet, wanted(3, 2));
    bench.settle();
    let name = |hash| format!("web-{}", template_hash_text(hash, 0));
    let expected = [(0, 1), (1, 1), (2, 2)];
    assert_eq!(
        bench.hashes(),
        expected.map(|(number, hash)| (format!("web-{number}"), name(hash)))
    );
}

#[test]
fn stateful_set_whose_pod_name_is_taken_says_so_and_waits() {
    let mut bench = Bench::new();
    bench.run(Kind::StatefulSet, stateful(2, 1));
    bench.settle();
    bench.relabel("web-0", "app", Some("debug"));
    assert_eq!(bench.pod("web-0").owner, None);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.alive(), ["web-0", "web-1"]);
    let unplaced: Vec<u32> = bench.table.unplaced().map(|(_, missing)| missing).collect();
    assert_eq!(unplaced, [1]);
    bench.relabel("web-0", "app", Some("web"));
    assert_eq!(
        bench.pod("web-0").owner.as_ref().unwrap().kind,
        Kind::StatefulSet
    );
    assert_eq!(bench.table.unplaced().count(), 0);
}

#[test]
fn stateful_set_pod_comes_back_under_its_name_when_the_old_one_has_gone() {
    let mut bench = Bench::new();
    bench.run(Kind::StatefulSet, stateful(2, 1));
    bench.settle();
    let uid = bench.pod("web-1").uid;
    bench.run(Kind::StatefulSet, stateful(1, 1));
    bench.run(Kind::StatefulSet, stateful(2, 1));
    assert!(bench.pod("web-1").is_terminating());
    bench.answer_for("web-1");
    assert_ne!(bench.pod("web-1").uid, uid);
    bench.settle();
    assert_eq!(bench.stateful().ready, 2);
}

#[test]
fn sets_with_another_selector_or_service_are_new_ones() {
    for kind in [Kind::ReplicaSet, Kind::DaemonSet, Kind::StatefulSet] {
        let mut bench = Bench::new();
        let wanted = match kind {
            Kind::DaemonSet => daemon(1),
            _ => stateful(1, 1),
        };
        bench.run(kind, wanted.clone());
        bench.settle();
        let mut other = wanted.clone();
        other.selector.match_labels = Labels::from([("app".into(), "shop".into())]);
        let template = Arc::make_mut(&mut other.template);
        template.labels.clone_from(&other.selector.match_labels);
        bench.run(kind, other.clone());
        bench.settle();
        let pod = bench.only_pod();
        assert_eq!(pod.labels["app"], "shop".into(), "{kind}");
        bench.run(
            kind,
            Workload {
                service_name: Some("others".into()),
                ..other
            },
        );
        bench.settle();
        assert_ne!(bench.only_pod().uid, pod.uid, "{kind}");
        assert_eq!(generation(&bench.table, &key(kind)), Some(1), "{kind}");
    }
}
