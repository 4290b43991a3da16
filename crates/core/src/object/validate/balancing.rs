//! Our annotations about balancing: values that cannot be read or that come to nothing. All are warnings: another
//! program may have written them, and a default stands in. Keys in the wrong place are the table's of annotations.

use std::{collections::BTreeSet, net::IpAddr};

use crate::object::{
    annotations::{BALANCE, WEIGHT, WEIGHTS},
    balancing::{BalancePolicy, POLICIES, WEIGHT_FORM, WEIGHTS_FORM, Weight, Weights},
    decode::cursor::Cursor,
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    let balance = annotations.key(BALANCE);
    let Some(text) = balance.text() else { return };
    let Some(policy) = BalancePolicy::parse(text) else {
        invalid(&balance, POLICIES, "round-robin is used");
        return;
    };
    if !service.has_vip() {
        balance.warn(
            "has no effect on a Service without a virtual address: clients choose by themselves",
        );
    } else if service.client_ip_affinity.is_some() && policy != BalancePolicy::RoundRobin {
        balance.warn(&format!(
            "conflicts with sessionAffinity ClientIP, which comes first: {text} chooses only for clients that are new"
        ));
    }
}

/// `metadata.annotations` of an EndpointSlice or Endpoints with these addresses.
pub(crate) fn check_slice(annotations: &Cursor<'_>, addresses: &BTreeSet<IpAddr>) {
    check_weight(annotations);
    let weights = annotations.key(WEIGHTS);
    let Some(text) = weights.text() else { return };
    let Some(read) = Weights::parse(text) else {
        invalid(&weights, WEIGHTS_FORM, "it is ignored");
        return;
    };
    let strangers: Vec<String> = read
        .keys()
        .filter(|address| !addresses.contains(address))
        .map(ToString::to_string)
        .collect();
    if !strangers.is_empty() {
        weights.warn(&format!(
            "names no address of an endpoint here: {}",
            strangers.join(", ")
        ));
    }
}

/// `metadata.annotations` of a Pod, or of a workload's own template.
pub(crate) fn check_pod(annotations: &Cursor<'_>) {
    check_weight(annotations);
}

fn check_weight(annotations: &Cursor<'_>) {
    let weight = annotations.key(WEIGHT);
    if weight
        .text()
        .is_some_and(|text| Weight::parse(text).is_none())
    {
        invalid(&weight, WEIGHT_FORM, "1 is used");
    }
}

fn invalid(annotation: &Cursor<'_>, form: &str, instead: &str) {
    annotation.warn(&format!(
        "Invalid value: {}: {form}; {instead}",
        annotation.shown()
    ));
}
