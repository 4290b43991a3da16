//! Why shares are not even, and what else to know, by rules over what was counted. Owns the rules and their words; must
//! not guess: what no counter shows is not said.

use portico_core::{
    balance::EndpointSet,
    object::BalancePolicy,
    observe::{evenness, window::Totals},
    snapshot::{PortView, ServiceView},
};

use super::super::sampler::Tracked;

/// What is known of one Service port over one window.
pub(super) struct Facts {
    pub(super) balance: BalancePolicy,
    /// Time-out of session affinity; `None` without.
    pub(super) affinity_seconds: Option<u64>,
    /// Some clients may reach fewer endpoints than others.
    pub(super) has_both_policies: bool,
    pub(super) members: Vec<Member>,
}

/// One endpoint.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) is_ejected: bool,
    pub(super) active: u64,
    pub(super) gained: Totals,
}

/// Why picks are not even, the strongest first; never empty.
pub(super) fn of(facts: &Facts) -> Vec<String> {
    let causes = [
        affinity(facts),
        failures(facts),
        ejected(facts),
        policy(facts),
        local(facts),
    ];
    let mut found: Vec<String> = causes.into_iter().flatten().collect();
    if found.is_empty() {
        found.push(
            "no counter tells: endpoints may have sat out for a time that is over".to_owned(),
        );
    }
    found
}

fn sum(facts: &Facts, of: impl Fn(&Totals) -> u64) -> u64 {
    facts.members.iter().map(|member| of(&member.gained)).sum()
}

fn affinity(facts: &Facts) -> Option<String> {
    let seconds = facts.affinity_seconds?;
    let picks = sum(facts, |gained| gained.picks);
    let affine = picks.saturating_sub(sum(facts, |gained| gained.turns));
    (affine > 0).then(|| {
        format!(
            "session affinity (ClientIP, {seconds} s): {affine} of {picks} picks went where their client had been \
             before; few clients use few endpoints"
        )
    })
}

fn failures(facts: &Facts) -> Option<String> {
    let all = sum(facts, |gained| gained.failures);
    let most = facts
        .members
        .iter()
        .max_by_key(|member| member.gained.failures)?;
    let failed = most.gained.failures;
    (all > 0).then(|| {
        format!(
            "retries moved picks: {all} attempts failed ({failed} of them at {}) and went on to another endpoint",
            most.name
        )
    })
}

fn ejected(facts: &Facts) -> Option<String> {
    let out = facts.members.iter().filter(|member| member.is_ejected);
    let names: Vec<&str> = out.map(|member| member.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let verb = if names.len() == 1 { "sits" } else { "sit" };
        format!(
            "{} {verb} out after failures: the others share its turns",
            names.join(", ")
        )
    })
}

fn policy(facts: &Facts) -> Option<String> {
    let picks = sum(facts, |gained| gained.picks);
    match facts.balance {
        BalancePolicy::RoundRobin => None,
        BalancePolicy::Random => Some(format!(
            "policy random: chance alone gives a cov of about {:.3} to {picks} picks",
            evenness::cov_of_chance(picks, facts.members.len())
        )),
        BalancePolicy::LeastRequest => {
            let active = facts.members.iter().map(|member| member.active);
            let (least, most) = (active.clone().min()?, active.max()?);
            Some(format!(
                "policy least-request: who has fewer connections in progress ({least} to {most} now) gets more; \
                 long connections keep picks away"
            ))
        }
        BalancePolicy::PeakEwma => {
            let active = facts.members.iter().map(|member| member.active);
            let (least, most) = (active.clone().min()?, active.max()?);
            Some(format!(
                "policy peak-ewma: who answers sooner and has fewer requests in progress ({least} to {most} now) gets more"
            ))
        }
        BalancePolicy::Maglev => Some(
            "policy maglev: a client address always goes to the same endpoint; few clients use few endpoints"
                .to_owned(),
        ),
    }
}

fn local(facts: &Facts) -> Option<String> {
    facts.has_both_policies.then(|| {
        "traffic policy Local: some addresses of the Service lead to this node's endpoints only"
            .to_owned()
    })
}

/// Whether clients of one address reach other endpoints than those of another one.
pub(super) fn has_both_policies(port: &PortView) -> bool {
    match (&port.cluster, &port.local) {
        (Some(cluster), Some(local)) => addresses(cluster) != addresses(local),
        _ => false,
    }
}

fn addresses(set: &EndpointSet) -> Vec<std::net::SocketAddr> {
    set.endpoints()
        .iter()
        .map(|endpoint| endpoint.addr)
        .collect()
}

/// What explains figures that are not wrong: weights, open connections, families.
pub(super) fn notes(service: &ServiceView, port: &PortView, tracked: &Tracked) -> Vec<String> {
    let mut notes = Vec::new();
    let weights = tracked.weights();
    if weights.iter().any(|weight| Some(weight) != weights.first()) {
        let weights: Vec<String> = weights.iter().take(8).map(u64::to_string).collect();
        notes.push(format!("shares are by weight: {}", weights.join(":")));
    }
    if let Some(scaled) = tracked.set.scaled_to() {
        notes.push(format!(
            "the weights were scaled to a cycle of {scaled}: shares are approximate"
        ));
    }
    let active = tracked.set.endpoints().iter().map(|endpoint| {
        let active = &endpoint.state.active;
        active.load(std::sync::atomic::Ordering::Relaxed)
    });
    if let (Some(least), Some(most)) = (active.clone().min(), active.max())
        && open_differ(least, most)
    {
        notes.push(format!(
            "connections in progress differ ({least} to {most}): long ones stay where they are, whoever comes or goes"
        ));
    }
    let is_other = |other: &PortView| other.name == port.name && other.family != port.family;
    if service.ports.iter().any(|other| is_other(other)) {
        notes.push("each family has endpoints, turns and counts of its own".to_owned());
    }
    notes
}

/// More than what a turn or the ends of short connections explain.
fn open_differ(least: u64, most: u64) -> bool {
    let difference = most - least;
    difference > 3 && difference * 4 > most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, picks: u64, turns: u64, failures: u64) -> Member {
        Member {
            name: name.to_owned(),
            is_ejected: false,
            active: 0,
            gained: Totals {
                turns,
                picks,
                failures,
                ..Totals::default()
            },
        }
    }

    fn facts(members: Vec<Member>) -> Facts {
        Facts {
            balance: BalancePolicy::RoundRobin,
            affinity_seconds: None,
            has_both_policies: false,
            members,
        }
    }

    #[track_caller]
    fn check(facts: &Facts, expected: &[&str]) {
        let found = of(facts);
        let begins = found.iter().map(|cause| cause.split(':').next().unwrap());
        assert_eq!(begins.collect::<Vec<_>>(), expected, "{found:?}");
    }

    #[test]
    fn of_affinity_counts_the_picks_that_drew_no_ticket() {
        let mut sticky = facts(vec![member("a", 90, 1, 0), member("b", 1, 1, 0)]);
        sticky.affinity_seconds = Some(10_800);
        check(&sticky, &["session affinity (ClientIP, 10800 s)"]);
        assert!(of(&sticky)[0].contains("89 of 91 picks"));
    }

    #[test]
    fn of_failures_names_the_endpoint_that_failed_most() {
        let mut failing = facts(vec![member("a", 10, 10, 9), member("b", 30, 30, 1)]);
        failing.members[0].is_ejected = true;
        check(
            &failing,
            &["retries moved picks", "a sits out after failures"],
        );
        assert!(of(&failing)[0].contains("10 attempts failed (9 of them at a)"));
    }

    #[test]
    fn of_policies_says_what_each_does() {
        let mut by = facts(vec![member("a", 60, 60, 0), member("b", 40, 40, 0)]);
        by.balance = BalancePolicy::Random;
        check(&by, &["policy random"]);
        assert!(of(&by)[0].contains("about 0.100 to 100 picks"));
        by.balance = BalancePolicy::Maglev;
        check(&by, &["policy maglev"]);
        by.balance = BalancePolicy::LeastRequest;
        by.members[1].active = 7;
        assert!(of(&by)[0].contains("(0 to 7 now)"), "{:?}", of(&by));
        by.balance = BalancePolicy::PeakEwma;
        check(&by, &["policy peak-ewma"]);
        by.balance = BalancePolicy::RoundRobin;
        by.has_both_policies = true;
        check(&by, &["traffic policy Local"]);
        by.has_both_policies = false;
        check(&by, &["no counter tells"]);
    }

    #[test]
    fn open_differ_only_by_more_than_short_connections_explain() {
        assert!(!open_differ(0, 3));
        assert!(!open_differ(100, 120));
        assert!(open_differ(3, 40));
    }
}
