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

/// Number, policies (`i` internal Local, `e` external Local, `x` an external frontend), zone, endpoints; what policy
/// Cluster and Local may choose (`~`: not computed), and whether any endpoint can be used anywhere.
type Case = (
    u8,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
);

const ZA: &str = "za";
const CASES: [Case; 41] = [
    (1, "", ZA, "", "", "~", false),
    (2, "", ZA, "aR- bR*", "ab", "~", true),
    (3, "", ZA, "aN- bN-", "", "~", false),
    (4, "", ZA, "aR- bN-", "a", "~", true),
    (5, "", ZA, "aS* bR- cS-", "b", "~", true),
    (6, "", ZA, "aS* bN-", "a", "~", true),
    (7, "", ZA, "aQ- bX-", "", "~", false),
    (8, "", ZA, "aQ- bR-", "b", "~", true),
    (9, "", ZA, "aP-", "a", "~", true),
    (10, "", ZA, "aP- bS-", "a", "~", true),
    (11, "", "", "aR-z:za", "a", "~", true),
    (12, "", ZA, "aR-z:za bR-z:zb", "a", "~", true),
    (13, "", "zb", "aR-z:za", "a", "~", true),
    (14, "", ZA, "aR-z:za bR-", "ab", "~", true),
    (15, "", ZA, "aR-z:za bR-z:zb cN-", "a", "~", true),
    (16, "", ZA, "aR-z:za bR-z:zbz:za cR-z:zc", "ab", "~", true),
    (
        17,
        "",
        ZA,
        "aN-z:za bR-z:zb cR-z:zc dN-z:za",
        "bc",
        "~",
        true,
    ),
    (18, "", ZA, "aR-z:zb bS-z:za", "a", "~", true),
    (19, "", ZA, "aS-z:za bS-z:zb", "ab", "~", true),
    (20, "", ZA, "aS*n:n1 bS-n:n2", "ab", "~", true),
    (21, "", ZA, "aR*n:n1 bR-n:n2", "a", "~", true),
    (22, "", ZA, "aR*n:n1 bR-", "ab", "~", true),
    (23, "", ZA, "aR-n:n2z:zb bR-n:n3z:zc", "ab", "~", true),
    (24, "", ZA, "aR-n:n2z:za bR-n:n3z:zb", "a", "~", true),
    (25, "", ZA, "aR*n:n1 bR-n:n2z:zb", "a", "~", true),
    (26, "", ZA, "aR*n:n1z:za bR-n:n2z:za", "a", "~", true),
    (
        27,
        "ex",
        ZA,
        "aR*z:za bR*z:zb cR-z:zb dR-z:za",
        "ad",
        "ab",
        true,
    ),
    (28, "ex", ZA, "aR-z:za bR-z:zb", "a", "", true),
    (29, "i", ZA, "", "~", "", false),
    (30, "i", ZA, "aR-", "~", "", true),
    (31, "i", ZA, "aR* bR-", "~", "a", true),
    (32, "i", ZA, "aS* bR-", "~", "a", true),
    (33, "ex", ZA, "aR* bR-", "ab", "a", true),
    (34, "ex", ZA, "aN* bN-", "", "", false),
    (35, "iex", ZA, "aR- bR-", "ab", "", true),
    (36, "iex", ZA, "aR* bS*", "a", "a", true),
    (37, "ex", ZA, "aR- bN* cS* dS-", "a", "c", true),
    (38, "ex", ZA, "aS* bS-", "ab", "a", true),
    (39, "e", ZA, "aR- bR*", "ab", "~", true),
    (40, "ix", ZA, "aR- bR*", "ab", "b", true),
    (41, "i", ZA, "aR-", "~", "", true),
];

#[test]
fn select_worked_cases_give_what_kubernetes_proxy_gives() {
    for (number, policies, zone, endpoints, cluster, local, any) in CASES {
        let policy = |letter| {
            if policies.contains(letter) {
                TrafficPolicy::Local
            } else {
                TrafficPolicy::Cluster
            }
        };
        let needs = Needs::of(policy('i'), policy('e'), policies.contains('x'));
        let zone = Some(zone).filter(|zone| !zone.is_empty());
        let selected = select(&candidates(endpoints), needs, Here { node: "n1", zone });
        let got = (
            letters(selected.cluster),
            letters(selected.local),
            selected.any,
        );
        assert_eq!(
            (&*got.0, &*got.1, got.2),
            (cluster, local, any),
            "case {number}: {endpoints}"
        );
    }
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
