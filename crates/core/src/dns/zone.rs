//! Which zones are ours and how a name lies in one. Owns the match of names with zones; what stands at the name
//! belongs to `tree` and `reverse`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Moment, Name, Record, RecordData, Soa, TTL};
use crate::{object::service::IpFamily, snapshot::Cluster};

/// Zone that short tutorials and some tools write for `svc.cluster.local`; it answers as that subtree does.
/// `local` above it is never ours: it belongs to multicast DNS (RFC 6762 section 3).
pub(super) const SERVICE_ALIAS: &str = "svc.local";

/// As the kubelet writes it into the resolv.conf of a pod (Kubernetes `dnsPolicy: ClusterFirst`).
pub fn search_list(namespace: &str, domain: &str) -> [String; 3] {
    [
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.to_owned(),
    ]
}

/// Every zone that is answered here, for whoever sends a resolver's questions: the primary cluster domain first, the
/// reverse zones of the Service ranges last.
pub fn zones(cluster: &Cluster) -> Vec<String> {
    let domains = cluster.domains.iter().filter(|domain| is_ours(domain));
    let mut zones: Vec<String> = domains.map(ToString::to_string).collect();
    if !zones.is_empty() {
        zones.push(SERVICE_ALIAS.to_owned());
    }
    for family in [IpFamily::IPv4, IpFamily::IPv6] {
        let range = cluster.service_range(family);
        zones.extend(range.iter().flat_map(reverse_zones));
    }
    zones
}

/// As [`ReverseName::zone_within`] cuts a range.
fn reverse_zones(range: &IpNet) -> Vec<String> {
    let bits = match range {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let labels = range.prefix_len().div_ceil(bits);
    let cut = range.subnets(labels * bits).into_iter().flatten();
    let zone = |net: IpNet| {
        let whole = Name::reverse(net.addr()).to_string();
        let hidden = (net.max_prefix_len() / bits).saturating_sub(labels);
        let zone = whole.splitn(usize::from(hidden) + 1, '.').last();
        zone.unwrap_or_default().trim_end_matches('.').to_owned()
    };
    cut.map(zone).collect()
}

/// Where a name lies.
#[derive(Debug)]
pub(super) enum Place {
    /// In a zone of Services.
    Forward(Zone),
    /// Under `in-addr.arpa` or `ip6.arpa`.
    Reverse(ReverseName),
    /// In none of ours.
    Foreign,
}

/// A zone of Services, as one name reached it.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    /// Its name in the case of the question, which answers repeat.
    pub origin: Name,
    /// Whether `origin` already stands for the `svc` subtree.
    kind: ZoneKind,
    /// The labels between the name and the cluster domain, in lower case.
    pub labels: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZoneKind {
    /// A cluster domain.
    Cluster,
    /// The `svc` subtree under another name.
    ServiceAlias,
}

/// A name under `in-addr.arpa` or `ip6.arpa`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReverseName {
    /// The part of the address that the name gives, the rest being zero.
    pub addr: IpAddr,
    /// How many labels of an address it has: up to 4 or 32.
    pub depth: usize,
    /// Whether all of its labels belong to an address.
    pub is_clean: bool,
}

/// Finds where `name` lies. Of nested cluster domains, the longest counts.
pub(super) fn place(cluster: &Cluster, name: &Name) -> Place {
    let labels = name.lower_labels();
    let domains = cluster.domains.iter().filter(|domain| is_ours(domain));
    let domain = domains
        .map(|domain| domain.split('.').collect::<Vec<_>>())
        .filter(|domain| is_suffix(&labels, domain))
        .max_by_key(Vec::len);
    if let Some(domain) = domain {
        return Place::Forward(Zone::new(name, labels, domain.len(), ZoneKind::Cluster));
    }
    let alias: Vec<_> = SERVICE_ALIAS.split('.').collect();
    if !cluster.domains.is_empty() && is_suffix(&labels, &alias) {
        return Place::Forward(Zone::new(name, labels, alias.len(), ZoneKind::ServiceAlias));
    }
    ReverseName::read(&labels).map_or(Place::Foreign, Place::Reverse)
}

/// The first cluster domain that may be a zone, as configured.
pub(super) fn primary(cluster: &Cluster) -> Option<Name> {
    cluster
        .domains
        .iter()
        .find(|domain| is_ours(domain))
        .and_then(|domain| Name::parse(domain).ok())
}

pub(super) fn is_ours(domain: &str) -> bool {
    !domain.is_empty() && domain != "local"
}

fn is_suffix(labels: &[String], zone: &[&str]) -> bool {
    labels
        .iter()
        .rev()
        .zip(zone.iter().rev())
        .filter(|(a, b)| a == b)
        .count()
        == zone.len()
}

impl Zone {
    fn new(name: &Name, mut labels: Vec<String>, length: usize, kind: ZoneKind) -> Self {
        labels.truncate(labels.len().saturating_sub(length));
        if kind == ZoneKind::ServiceAlias && !labels.is_empty() {
            labels.push("svc".to_owned());
        }
        Self {
            origin: name.tail(length),
            kind,
            labels,
        }
    }

    /// A cluster domain in which `labels` are looked for.
    pub(super) fn cluster(origin: Name, labels: Vec<String>) -> Self {
        Self {
            origin,
            kind: ZoneKind::Cluster,
            labels,
        }
    }

    /// The name of these labels in front of `<service>.<namespace>.svc.` of this zone. `None` if it gets too long.
    pub(super) fn service_name(&self, labels: &[&str]) -> Option<Name> {
        match self.kind {
            ZoneKind::ServiceAlias => Name::under(&self.origin, labels).ok(),
            ZoneKind::Cluster => {
                let labels: Vec<_> = labels.iter().copied().chain(["svc"]).collect();
                Name::under(&self.origin, &labels).ok()
            }
        }
    }

    /// The zone's name server: a name that we answer.
    pub(super) fn name_server(&self, cluster: &Cluster) -> Option<Name> {
        match self.kind {
            ZoneKind::Cluster => name_server(&self.origin),
            ZoneKind::ServiceAlias => name_server(&primary(cluster)?),
        }
    }
}

/// `ns.dns` of a cluster domain.
pub(super) fn name_server(domain: &Name) -> Option<Name> {
    Name::under(domain, &["ns", "dns"]).ok()
}

/// The SOA record of the zone at `origin`.
pub(crate) fn soa(origin: &Name, moment: Moment) -> Record {
    let under = |labels: &[&str]| Name::under(origin, labels).unwrap_or_else(|_| origin.clone());
    let data = Soa {
        mname: under(&["ns", "dns"]),
        rname: under(&["hostmaster"]),
        serial: moment.serial,
    };
    Record {
        name: origin.clone(),
        ttl: TTL,
        data: RecordData::Soa(Box::new(data)),
    }
}

impl ReverseName {
    fn read(labels: &[String]) -> Option<Self> {
        let (front, zone) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
        match zone {
            [a, b] if a == "in-addr" && b == "arpa" => Some(Self::read_v4(front)),
            [a, b] if a == "ip6" && b == "arpa" => Some(Self::read_v6(front)),
            _ => None,
        }
    }

    fn read_v4(front: &[String]) -> Self {
        let mut octets = [0; 4];
        let mut depth = 0;
        for (octet, label) in octets.iter_mut().zip(front.iter().rev()) {
            // Only the one way to write a number is a name: 01 is not 1.
            match label
                .parse::<u8>()
                .ok()
                .filter(|value| value.to_string() == **label)
            {
                Some(value) => *octet = value,
                None => break,
            }
            depth += 1;
        }
        Self {
            addr: IpAddr::from(octets),
            depth,
            is_clean: depth == front.len(),
        }
    }

    fn read_v6(front: &[String]) -> Self {
        let mut bits = 0_u128;
        let mut depth = 0;
        for label in front.iter().rev().take(32) {
            let nibble = u128::from_str_radix(label, 16)
                .ok()
                .filter(|nibble| format!("{nibble:x}") == **label);
            let Some(nibble) = nibble.filter(|nibble| *nibble < 16) else {
                break;
            };
            bits |= nibble << (124 - 4 * depth);
            depth += 1;
        }
        Self {
            addr: IpAddr::from(bits.to_be_bytes()),
            depth,
            is_clean: depth == front.len(),
        }
    }

    /// The family that its zone is for.
    pub(super) const fn family(self) -> IpFamily {
        IpFamily::of(self.addr)
    }

    /// Bits of an address in one label.
    const fn bits_per_label(self) -> usize {
        match self.addr {
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 4,
        }
    }

    /// Whether the name gives a whole address and nothing more.
    pub(super) fn whole(self) -> Option<IpAddr> {
        let full = match self.addr {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 32,
        };
        (self.is_clean && self.depth == full).then_some(self.addr)
    }

    /// The number of labels, with `in-addr.arpa` or `ip6.arpa`, of the zone of `range` that the name lies in. A range
    /// that does not end at a label is cut into the zones of the next one.
    pub(super) fn zone_within(self, range: &IpNet) -> Option<usize> {
        let labels = usize::from(range.prefix_len()).div_ceil(self.bits_per_label());
        (self.depth >= labels && range.contains(&self.addr)).then_some(labels + 2)
    }

    /// The addresses below the name.
    pub(super) fn network(self) -> Option<IpNet> {
        IpNet::new(
            self.addr,
            u8::try_from(self.depth * self.bits_per_label()).ok()?,
        )
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_a_cluster_are_its_domains_and_the_whole_reverse_ranges() {
        let cluster = |v4: &str, v6: Option<&str>| Cluster {
            domains: vec!["cluster.local".into(), "local".into(), "k8s.test".into()],
            service_cidr: v4.parse().unwrap(),
            service_cidr_v6: v6.map(|range| range.parse().unwrap()),
            ..Cluster::default()
        };
        let zones_of = |v4, v6| zones(&cluster(v4, v6)).join(" ");
        assert_eq!(
            zones_of("10.96.0.0/16", Some("fd00:10:96::/112")),
            "cluster.local k8s.test svc.local 96.10.in-addr.arpa \
             0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"
        );
        assert_eq!(
            zones_of("10.0.2.0/23", None),
            "cluster.local k8s.test svc.local 2.0.10.in-addr.arpa 3.0.10.in-addr.arpa"
        );
        assert_eq!(zones(&cluster("127.96.0.0/12", None)).len(), 3 + 16);
    }
}
