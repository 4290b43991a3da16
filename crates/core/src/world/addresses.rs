//! Which Service gets which addresses and node ports. Owns the order in which claims are honoured: static requests,
//! then what Services already hold, then what the state file remembers, then the hash. Bands, phrases and the
//! protocol-blind node port rule follow Kubernetes' allocators (KEP-3070, KEP-3668 and the Service API).

mod bands;
mod draft;
mod families;
mod pools;
mod round;

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, sync::Arc};

pub use bands::{mapped, static_band};
use draft::Draft;
use ipnet::IpNet;
use round::Round;

use crate::{
    object::{
        Object, Service,
        diagnostic::{Diagnostic, Severity},
        service::IpFamily,
    },
    snapshot::Cluster,
};

/// Default of `--service-node-port-range`.
pub const NODE_PORT_RANGE: RangeInclusive<u16> = 30000..=32767;

/// What a Service got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// `ipFamilies` that it has, the primary one first; none for type ExternalName.
    pub families: Vec<IpFamily>,
    /// Cluster IPs, in the order of the families; none for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Node ports, one entry a port of the manifest.
    pub node_ports: Vec<Option<u16>>,
    /// Load-balancer addresses.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
}

impl Addresses {
    /// Whether the Service has this family.
    pub fn has(&self, family: IpFamily) -> bool {
        self.families.contains(&family)
    }
}

/// Allocations that the hash alone would not give: what the state file keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Deviations {
    /// `namespace/name` to cluster IP, `namespace/name:IPv6` to that of IPv6.
    pub cluster_ips: BTreeMap<String, IpAddr>,
    /// `namespace/name:port` to node port; `namespace/name:port/PROTOCOL` for further protocols of that port,
    /// `namespace/name:healthCheck` for the health check.
    pub node_ports: BTreeMap<String, u16>,
    /// Like `cluster_ips`, to load-balancer address.
    pub load_balancer_ips: BTreeMap<String, IpAddr>,
}

impl Deviations {
    /// Takes over what `others` remember about the Services at paths that `concerns` says.
    pub(super) fn keep(&mut self, others: Self, concerns: impl Fn(&str) -> bool) {
        let path = |owner: &str| owner.split(':').next().is_some_and(&concerns);
        let ips = others.cluster_ips.into_iter();
        self.cluster_ips
            .extend(ips.filter(|(owner, _)| path(owner)));
        let ports = others.node_ports.into_iter();
        self.node_ports
            .extend(ports.filter(|(owner, _)| path(owner)));
        let ips = others.load_balancer_ips.into_iter();
        self.load_balancer_ips
            .extend(ips.filter(|(owner, _)| path(owner)));
    }
}

/// A Service that wants addresses.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// `namespace/name`.
    pub path: Arc<str>,
    /// The newest declaration.
    pub object: Arc<Object>,
    /// Its spec.
    pub spec: Arc<Service>,
    /// The version in force with what it holds.
    pub holds: Option<(Arc<Object>, Arc<Service>, Addresses)>,
}

/// The outcome for one Service.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The version in force: the newest, or the last good one when the newest was refused.
    pub object: Arc<Object>,
    /// Its spec.
    pub spec: Arc<Service>,
    /// What it got.
    pub addresses: Addresses,
}

/// The outcome of a round.
#[derive(Debug, Default)]
pub struct Allocation {
    /// Services in force by path.
    pub granted: BTreeMap<Arc<str>, Grant>,
    /// Findings: refusals, mappings.
    pub diagnostics: Vec<Diagnostic>,
    /// What the state file should remember.
    pub deviations: Deviations,
}

/// What allocation depends on.
#[derive(Debug, Clone)]
pub struct Rules<'a> {
    /// Ranges.
    pub cluster: &'a Cluster,
    /// Node port range.
    pub node_ports: RangeInclusive<u16>,
    /// Addresses that the host owns: a `loadBalancerIP` among them is used as it is.
    pub host_addresses: &'a [IpAddr],
    /// Ranges whose addresses the host may be given when a Service asks for one.
    pub external_ranges: &'a [IpNet],
    /// Severity of a mapped foreign address: error under `--strict`.
    pub foreign: Severity,
    /// What the state file remembers.
    pub remembered: &'a Deviations,
}

/// Allocates for all Services at once, so that neither the order of files nor that of edits decides who wins.
/// `applicants` come in the order of their declaration: the earlier of two static claims wins.
pub fn allocate(applicants: &[Applicant], rules: &Rules<'_>) -> Allocation {
    let mut round = Round::new(rules);
    let mut accepted: Vec<(&Applicant, Draft)> = Vec::with_capacity(applicants.len());
    // A last good version keeps what it asked for: it was there before whoever asks for it now.
    let (newest, kept): (Vec<_>, Vec<_>) = applicants
        .iter()
        .partition(|applicant| round.may_follow(applicant));
    for applicant in kept {
        accepted.extend(round.claim_held(applicant).map(|draft| (applicant, draft)));
    }
    for applicant in newest {
        accepted.extend(
            round
                .claim_static(applicant)
                .map(|draft| (applicant, draft)),
        );
    }
    for (applicant, draft) in &mut accepted {
        round.keep_held(applicant, draft);
    }
    // From here on the order must not depend on files: the hash of two Services may collide.
    accepted.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    for (applicant, draft) in &mut accepted {
        round.keep_remembered(applicant, draft);
    }
    for (applicant, draft) in accepted {
        round.grant(applicant, draft);
    }
    round.allocation
}

/// Whether two versions of a Service ask for the same addresses and ports, so that one may have what the other holds.
pub(super) fn asks_the_same(a: &Service, b: &Service) -> bool {
    let ports = |service: &Service| -> Vec<_> {
        let ports = service.ports.iter();
        ports
            .map(|port| (port.port, port.protocol, port.node_port))
            .collect()
    };
    let rest = |service: &Service| {
        let class = service.load_balancer_class.clone();
        (
            service.service_type,
            class,
            service.allocate_load_balancer_node_ports,
            service.load_balancer_ip,
            service.family_policy(),
            service.takes_health_check(),
            service.health_check_node_port,
        )
    };
    rest(a) == rest(b)
        && a.cluster_ip == b.cluster_ip
        && a.ip_families == b.ip_families
        && a.external_ips == b.external_ips
        && ports(a) == ports(b)
}

/// The usual names of a cluster's own DNS Service.
pub fn is_cluster_dns(path: &str) -> bool {
    matches!(path, "kube-system/kube-dns" | "kube-system/coredns")
}
