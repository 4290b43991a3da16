//! The records of one Service in the form in which they are sent. Owns the names at and below a Service and the bytes
//! of their records; what exists is decided by `tree`, which this asks once for each Service.

use std::{collections::BTreeSet, net::IpAddr};

use super::few::Few;
use crate::{
    dns::{
        Name, Record, RecordData, TTL,
        elsewhere::Asker,
        endpoints,
        tree::{self, PortName},
        zone::Zone,
    },
    object::ServiceType,
    snapshot::ServiceView,
};

/// Where the owner of every record is: at the question, right behind the header (RFC 1035 section 4.1.4).
pub(super) const OWNER: [u8; 2] = [0xc0, 12];

/// The names at and below one Service, which share its Snapshot entry: a change costs one of these.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// `None` for an alias, which may lead anywhere.
    names: Option<Names>,
}

/// Under what a Service is found: its name and its namespace. The usual ones fit.
pub(crate) type Key = Few<u8, 38>;

#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// At the Service's own name: most questions end here, beside the key and one line of memory further.
    own: Records,
    /// Sorted by name.
    below: Box<[Named]>,
}

/// The labels in front of the Service's own, in wire form and lower case, and what stands there.
type Named = (Labels, Records);
type Labels = Few<u8, 22>;

/// What stands at a name. None of them at all: the name exists because others lie below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// A records, whole.
    pub(super) v4: Few<[u8; 16], 1>,
    /// AAAA records, whole.
    pub(super) v6: Few<[u8; 28], 1>,
    /// SRV records, if there are any.
    pub(super) srv: Option<Box<Located>>,
}

/// SRV records with the addresses of their targets. The end of every target depends on the question's zone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// In the order of the answer.
    pub(super) answers: Box<[Srv]>,
    /// In the order of the additional section, those of one target together.
    pub(super) additional: Box<[(u32, IpAddr)]>,
    /// The labels in front of the Service's own name, in wire form; none for the Service itself.
    pub(super) targets: Box<[Box<[u8]>]>,
}

/// One SRV record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) weight: u16,
    pub(super) port: u16,
    /// Place in `targets`.
    pub(super) target: u32,
}

/// What is known of a name below a Service.
pub(super) enum Found<'a> {
    /// Its records.
    Records(&'a Records),
    /// That it does not exist.
    Missing,
    /// Nothing: the ordinary way has to be asked.
    Alias,
}

impl Prepared {
    /// Under what the answers of `service` are found. A name that cannot be asked for finds nothing.
    pub(crate) fn key(service: &ServiceView) -> Key {
        wire(&[&service.name, &service.namespace]).unwrap_or_default()
    }

    /// What `service` answers; `None` if neither it nor anything below it exists.
    pub(crate) fn of(service: &ServiceView) -> Option<Self> {
        if let Some(target) = &service.spec.external_name {
            let is_name = target.parse::<IpAddr>().is_err();
            return is_name.then_some(Self { names: None });
        }
        if service.spec.service_type == ServiceType::ExternalName {
            return Some(Self { names: None });
        }
        let is_headless = tree::is_headless(service);
        if is_headless && endpoints::shown(service).next().is_none() {
            return None;
        }
        let mut names: Vec<Named> = Vec::new();
        let ports = tree::ports(service);
        let protocols: BTreeSet<_> = ports.iter().map(|port| port.protocol.srv_label()).collect();
        for protocol in protocols {
            names.extend(wire(&[&format!("_{protocol}")]).map(|name| (name, Records::default())));
        }
        for port in ports {
            let labels = [
                format!("_{}", port.name),
                format!("_{}", port.protocol.srv_label()),
            ];
            let srv = located(service, Some(port));
            names.extend(wire(&[&labels[0], &labels[1]]).map(|name| {
                (
                    name,
                    Records {
                        srv,
                        ..Records::default()
                    },
                )
            }));
        }
        names.extend(endpoint_names(service));
        // The names of protocols come before endpoints that are called like them.
        names.sort_by(|(a, _), (b, _)| a[..].cmp(b));
        names.dedup_by(|(a, _), (b, _)| a == b);
        let own = Records {
            srv: located(service, None),
            ..Records::of(&tree::addresses(service, Asker::Here))
        };
        let below = names.into_boxed_slice();
        Some(Self {
            names: Some(Names { own, below }),
        })
    }

    /// What stands at the name of these labels in front of the Service's own.
    pub(super) fn find(&self, front: &[u8]) -> Found<'_> {
        let Some(names) = &self.names else {
            return if front.is_empty() {
                Found::Alias
            } else {
                Found::Missing
            };
        };
        if front.is_empty() {
            return Found::Records(&names.own);
        }
        let below = &names.below;
        let at = below.binary_search_by(|(name, _)| (**name).cmp(front));
        match at.ok().and_then(|at| below.get(at)) {
            Some((_, records)) => Found::Records(records),
            None => Found::Missing,
        }
    }
}

impl Records {
    fn of(addresses: &[IpAddr]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for addr in addresses {
            match addr {
                IpAddr::V4(addr) => v4.push(record(1, 4, &addr.octets())),
                IpAddr::V6(addr) => v6.push(record(28, 16, &addr.octets())),
            }
        }
        Self {
            v4: v4.as_slice().into(),
            v6: v6.as_slice().into(),
            srv: None,
        }
    }
}

/// An address record at the question's name.
fn record<const N: usize>(rtype: u16, length: u16, data: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let head = [
        &OWNER[..],
        &rtype.to_be_bytes(),
        &1_u16.to_be_bytes(),
        &TTL.to_be_bytes(),
        &length.to_be_bytes(),
        data,
    ];
    for (place, byte) in bytes.iter_mut().zip(head.into_iter().flatten()) {
        *place = *byte;
    }
    bytes
}

/// Labels in wire form; `None` where one is too long to be asked for.
fn wire<const N: usize>(labels: &[&str]) -> Option<Few<u8, N>> {
    let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
    let (_, labels) = name.as_wire().split_last()?;
    Some(labels.into())
}

fn endpoint_names(service: &ServiceView) -> Vec<Named> {
    let mut shown: Vec<_> = endpoints::shown(service)
        .filter_map(|endpoint| Some((wire(&[&endpoint.label()])?, endpoint.addr)))
        .collect();
    // Stable, so that the addresses of one name stay in their order.
    shown.sort_by(|(a, _), (b, _)| a[..].cmp(b));
    let named = shown.chunk_by(|(a, _), (b, _)| a == b).filter_map(|same| {
        let (name, _) = same.first()?;
        let mut seen = BTreeSet::new();
        let addresses: Vec<_> = same
            .iter()
            .map(|(_, addr)| *addr)
            .filter(|addr| seen.insert(*addr))
            .collect();
        Some((name.clone(), Records::of(&addresses)))
    });
    named.collect()
}

/// The SRV records of all ports or of one. They are made as for a zone at the root, whose name is then the whole end
/// that the question's zone replaces.
fn located(service: &ServiceView, port: Option<PortName<'_>>) -> Option<Box<Located>> {
    let zone = Zone::cluster(Name::root(), Vec::new());
    let records = tree::srv_records(&Name::root(), &zone, service, port, Asker::Here);
    let mut targets: Vec<Box<[u8]>> = Vec::new();
    let mut answers = Vec::with_capacity(records.answers.len());
    let mut places = std::collections::HashMap::new();
    let mut place_of = |target: &Name| {
        let place = *places
            .entry(Box::<[u8]>::from(target.as_wire()))
            .or_insert_with(|| {
                // Beside its own label a target has the Service's, its namespace's and `svc`.
                let own = if target.len() > 3 {
                    target.labels().next()
                } else {
                    None
                };
                let own = own
                    .and_then(|label| Some([&[u8::try_from(label.len()).ok()?], label].concat()));
                targets.push(own.unwrap_or_default().into());
                targets.len() - 1
            });
        u32::try_from(place).ok()
    };
    for Record { data, .. } in &records.answers {
        if let RecordData::Srv {
            weight,
            port,
            target,
        } = data
        {
            answers.push(Srv {
                weight: *weight,
                port: *port,
                target: place_of(target)?,
            });
        }
    }
    let mut additional = Vec::with_capacity(records.additional.len());
    for Record { name, data, .. } in &records.additional {
        let addr = match data {
            RecordData::A(addr) => IpAddr::V4(*addr),
            RecordData::Aaaa(addr) => IpAddr::V6(*addr),
            _ => continue,
        };
        additional.push((place_of(name)?, addr));
    }
    (!answers.is_empty()).then(|| {
        Box::new(Located {
            answers: answers.into(),
            additional: additional.into(),
            targets: targets.into(),
        })
    })
}
