//! Selection against the worked cases: state letters R ready, N not ready, S serving and terminating, X terminating,
//! Q serving but not ready; `*` on this node, `-` elsewhere; `z:`/`n:` hints.

use super::*;

/// `aR*n:n1` and the like, separated by blanks; the letter gives the port.
fn candidates(text: &str) -> Vec<Candidate> {
    text.split_whitespace().map(candidate).collect()
}

fn candidate(text: &str) -> Candidate {
    let (name, rest) = text.split_at(1);
    let (state, rest) = rest.split_at(1);
    let (place, mut hints_text) = rest.split_at(1);
    let (ready, serving, terminating) = match state {
        "R" => (true, true, false),
        "N" => (false, false, false),
        "S" => (false, true, true),
        "X" => (false, false, true),
        "Q" => (false, true, false),
        "P" => (true, true, true),
        other => panic!("state {other}"),
    };
    let mut hints = Hints::default();
    while let Some((kind, after)) = hints_text.split_once(':') {
        let value = after.get(..2).unwrap();
        match kind {
            "z" => hints.zones.push(value.into()),
            "n" => hints.nodes.push(value.into()),
            other => panic!("hint {other}"),
        }
        hints_text = &after[2..];
    }
    Candidate {
        addr: SocketAddr::from(([10, 0, 0, 1], u16::from(name.as_bytes()[0]))),
        conditions: Conditions {
            ready,
            serving,
            terminating,
        },
        place: if place == "*" {
            Place::Here
        } else {
            Place::Elsewhere
        },
        hints,
    }
}

fn letters(addrs: Option<Vec<SocketAddr>>) -> String {
    addrs.map_or_else(
        || "~".into(),
        |addrs| {
            addrs
                .iter()
                .map(|a| char::from(u8::try_from(a.port()).unwrap()))
                .collect()
        },
    )
}

#[derive(Clone, Copy)]
struct Sets(bool, bool);
const CLUSTER: Sets = Sets(true, false);
const LOCAL: Sets = Sets(false, true);
const BOTH: Sets = Sets(true, true);

fn check(needs: Sets, zone: Option<&str>, endpoints: &str, expected: (&str, &str, bool)) {
    let needs = Needs {
        cluster: needs.0,
        local: needs.1,
    };
    let selected = select(&candidates(endpoints), needs, Here { node: "n1", zone });
    let got = (
        letters(selected.cluster),
        letters(selected.local),
        selected.any,
    );
    assert_eq!((&*got.0, &*got.1, got.2), expected, "{endpoints}");
}

#[test]
fn select_policy_cluster_prefers_ready_then_serving_terminating() {
    check(CLUSTER, Some("za"), "", ("", "~", false));
    check(CLUSTER, Some("za"), "aN- bN-", ("", "~", false));
    check(CLUSTER, Some("za"), "aS* bR- cS-", ("b", "~", true));
    check(CLUSTER, Some("za"), "aQ- bX-", ("", "~", false));
    check(CLUSTER, Some("za"), "aP-", ("a", "~", true));
    check(CLUSTER, Some("za"), "aS-z:za bS-z:zb", ("ab", "~", true));
}

#[test]
fn select_zone_hints_apply_only_when_every_ready_endpoint_has_them() {
    check(CLUSTER, None, "aR-z:za", ("a", "~", true));
    check(CLUSTER, Some("zb"), "aR-z:za", ("a", "~", true));
    check(CLUSTER, Some("za"), "aR-z:za bR-z:zb cN-", ("a", "~", true));
    check(
        CLUSTER,
        Some("za"),
        "aN-z:za bR-z:zb cR-z:zc dN-z:za",
        ("bc", "~", true),
    );
    check(CLUSTER, Some("za"), "aR-z:za bR-", ("ab", "~", true));
}

#[test]
fn select_node_hints_come_before_zone_hints() {
    check(CLUSTER, Some("za"), "aR*n:n1 bR-n:n2", ("a", "~", true));
    check(
        CLUSTER,
        Some("za"),
        "aR-n:n2z:zb bR-n:n3z:zc",
        ("ab", "~", true),
    );
    check(CLUSTER, Some("za"), "aR*n:n1 bR-n:n2z:zb", ("a", "~", true));
}

#[test]
fn select_policy_local_takes_this_node_without_hints() {
    check(
        BOTH,
        Some("za"),
        "aR*z:za bR*z:zb cR-z:zb dR-z:za",
        ("ad", "ab", true),
    );
    check(LOCAL, Some("za"), "", ("~", "", false));
    check(LOCAL, Some("za"), "aR* bR-", ("~", "a", true));
    check(BOTH, Some("za"), "aR* bR-", ("ab", "a", true));
    check(BOTH, Some("za"), "aR- bR-", ("ab", "", true));
    check(BOTH, Some("za"), "aR- bN* cS* dS-", ("a", "c", true));
    check(LOCAL, Some("za"), "aR-", ("~", "", true));
}

/// The rule as Kubernetes' documentation words it, step by step and without a thought for speed.
fn oracle(eps: &[Candidate], needs: Needs, here: Here<'_>) -> Selected {
    let those = |wanted: &dyn Fn(&Candidate) -> bool| -> Vec<SocketAddr> {
        eps.iter().filter(|e| wanted(e)).map(|e| e.addr).collect()
    };
    let ready = |e: &Candidate| e.conditions.ready;
    let ending = |e: &Candidate| e.conditions.serving && e.conditions.terminating;
    let is_here = |e: &Candidate| e.place == Place::Here;
    let on_node = |e: &Candidate| e.hints.nodes.iter().any(|node| **node == *here.node);
    let in_zone = |e: &Candidate| {
        here.zone
            .is_some_and(|own| e.hints.zones.iter().any(|zone| **zone == *own))
    };
    let mut result = Selected::default();
    if needs.cluster {
        let usable: Vec<&Candidate> = eps.iter().filter(|e| ready(e)).collect();
        let by_node =
            usable.iter().all(|e| !e.hints.nodes.is_empty()) && usable.iter().any(|e| on_node(e));
        let by_zone =
            usable.iter().all(|e| !e.hints.zones.is_empty()) && usable.iter().any(|e| in_zone(e));
        let mut cluster = if by_node {
            those(&|e| ready(e) && on_node(e))
        } else if by_zone {
            those(&|e| ready(e) && in_zone(e))
        } else {
            those(&ready)
        };
        if cluster.is_empty() {
            cluster = those(&ending);
        }
        result.any = !cluster.is_empty();
        result.cluster = Some(cluster);
    }
    if needs.local {
        result.any |= eps.iter().any(|e| ready(e) || ending(e));
        let mut local = those(&|e| is_here(e) && ready(e));
        if local.is_empty() {
            local = those(&|e| is_here(e) && ending(e));
        }
        result.local = Some(local);
    }
    result
}

mod random {
    use proptest::prelude::*;

    use super::*;

    fn hints() -> impl Strategy<Value = Vec<Arc<str>>> {
        let pool: [Arc<str>; 3] = ["me".into(), "za".into(), "other".into()];
        prop::sample::subsequence(pool.to_vec(), 0..=3)
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<[bool; 4]>(), hints(), hints()).prop_map(
            |([ready, serving, terminating, here], zones, nodes)| Candidate {
                addr: SocketAddr::from(([127, 0, 0, 1], 0)),
                conditions: Conditions {
                    ready,
                    serving,
                    terminating,
                },
                place: if here { Place::Here } else { Place::Elsewhere },
                hints: Hints { zones, nodes },
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn select_any_candidates_equals_the_rule_in_words(
            mut candidates in prop::collection::vec(candidate(), 0..6), cluster: bool, local: bool, zoned: bool
        ) {
            for (port, candidate) in (1..).zip(&mut candidates) {
                candidate.addr.set_port(port);
            }
            let (needs, here) = (Needs { cluster, local }, Here { node: "me", zone: zoned.then_some("za") });
            prop_assert_eq!(select(&candidates, needs, here), oracle(&candidates, needs, here));
        }
    }
}
