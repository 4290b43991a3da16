//! Which families a Service has, the primary one first: defaults and demands of the API server's allocator
//! (`initIPFamilyFields` in its Service registry), as at creation. Owns no address.

use crate::{
    object::{
        Service, ServiceType,
        service::{ClusterIpRequest, IpFamily, IpFamilyPolicy},
    },
    snapshot::Cluster,
};

/// A field and what is wrong with it.
pub(super) type Finding = (String, String);

/// Where the missing range would come from.
const HINT: &str = "(see --service-cidr-v6)";

/// The families of a Service; none for an alias.
///
/// `held` is the primary family of the version in force, which one that names none keeps.
///
/// # Errors
/// It asks for a family that has no range of cluster IPs.
pub(super) fn resolve(
    spec: &Service,
    held: Option<IpFamily>,
    cluster: &Cluster,
) -> Result<Vec<IpFamily>, Vec<Finding>> {
    if spec.service_type == ServiceType::ExternalName {
        return Ok(Vec::new());
    }
    let policy = spec.family_policy();
    let mut families = with_those_of_addresses(spec, cluster)?;
    if families.is_empty() {
        families.push(held.unwrap_or(IpFamily::IPv4));
    }
    if spec.is_headless_without_selector() {
        // Whoever writes its slices decides: both families, whatever the cluster has.
        complete(&mut families, policy);
        return Ok(families);
    }
    let is_dual = cluster.service_cidr_v6.is_some();
    let mut findings = Vec::new();
    if policy == IpFamilyPolicy::RequireDualStack && !is_dual {
        let message = format!(
            "Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services {HINT}"
        );
        findings.push(("spec.ipFamilyPolicy".to_owned(), message));
    }
    for (index, family) in families.iter().enumerate() {
        if cluster.service_range(*family).is_none() {
            let message = format!(
                "Invalid value: \"{}\": not configured on this cluster {HINT}",
                family.as_str()
            );
            findings.push((format!("spec.ipFamilies[{index}]"), message));
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    complete(
        &mut families,
        if is_dual {
            policy
        } else {
            IpFamilyPolicy::SingleStack
        },
    );
    Ok(families)
}

/// The families that were given, then those of further addresses that were.
fn with_those_of_addresses(
    spec: &Service,
    cluster: &Cluster,
) -> Result<Vec<IpFamily>, Vec<Finding>> {
    let mut families = spec.ip_families.clone();
    let ClusterIpRequest::Static(asked) = &spec.cluster_ip else {
        return Ok(families);
    };
    for (index, addr) in asked.iter().enumerate().skip(families.len()) {
        let family = IpFamily::of(*addr);
        if cluster.service_range(family).is_none() {
            let all: Vec<String> = asked.iter().map(|addr| format!("\"{addr}\"")).collect();
            let message = format!(
                "Invalid value: [{}]: {} is not configured on this cluster {HINT}",
                all.join(","),
                family.as_str()
            );
            return Err(vec![(address_field(index), message)]);
        }
        families.push(family);
    }
    Ok(families)
}

/// Where an address that was asked for stands; the first may be given without the list.
pub(super) fn address_field(index: usize) -> String {
    match index {
        0 => "spec.clusterIP".to_owned(),
        _ => format!("spec.clusterIPs[{index}]"),
    }
}

/// A second family unless `policy` wants one alone.
fn complete(families: &mut Vec<IpFamily>, policy: IpFamilyPolicy) {
    if let ([only], false) = (families.as_slice(), policy == IpFamilyPolicy::SingleStack) {
        let other = only.other();
        families.push(other);
    }
}
