//! The short way from a packet to its response: no allocation beyond the response's buffer, no lock, one lookup. Owns
//! the choice of what takes it; every record was made by the ordinary way when its Service was compiled.
//!
//! Whatever is rare, malformed, from another machine or not plainly below a Service takes the ordinary way of [`super::packet`], which gives
//! the same response to everything that is answered here.

mod few;
mod prepared;
mod question;
mod response;

use std::net::Ipv4Addr;

use super::{Moment, Rcode, RecordType, packet::Transport, wire};
use crate::snapshot::{ClientPlace, Cluster, Snapshot};
use prepared::{Found, Records};
pub(crate) use prepared::{Key, Prepared};
use question::Asked;
use response::Reply;

/// What was answered, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The type asked for.
    pub rtype: RecordType,
    /// The code of the response.
    pub rcode: Rcode,
    /// Whether records of the answer had to be left out.
    pub truncated: bool,
}

/// Where a name lies in a zone of Services.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Number of its labels in front of the zone's name.
    labels: usize,
    /// Whether the zone's name stands for the `svc` below a cluster domain.
    is_alias: bool,
}

/// Writes the response to `packet` into `out`, which is cleared; `None` leaves it to the ordinary way.
pub fn respond(
    snapshot: &Snapshot,
    packet: &[u8],
    (transport, moment): (Transport, Moment),
    out: &mut Vec<u8>,
) -> Option<Hit> {
    if moment.place == ClientPlace::Elsewhere {
        return None;
    }
    let asked = Asked::read(packet)?;
    let limit = match transport {
        Transport::Udp => wire::udp_limit(asked.edns),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let reply = Reply::start(out, &asked, limit, moment);
    match place(&snapshot.cluster, &asked) {
        Some(place) => in_zone(snapshot, &asked, place, reply),
        None => reverse(snapshot, &asked, reply),
    }
}

/// The longest cluster domain that the name lies in, else the zone that stands for `svc` of the first one.
fn place(cluster: &Cluster, asked: &Asked<'_>) -> Option<Place> {
    let domains = cluster
        .domains
        .iter()
        .filter(|domain| super::zone::is_ours(domain));
    let longest = domains
        .filter_map(|domain| asked.labels_before(domain))
        .min();
    let is_alias = longest.is_none() && !cluster.domains.is_empty();
    let labels = match longest {
        None if is_alias => asked.labels_before(super::zone::SERVICE_ALIAS),
        longest => longest,
    }?;
    Some(Place { labels, is_alias })
}

fn in_zone(
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    place: Place,
    mut reply: Reply<'_>,
) -> Option<Hit> {
    let zone = asked.start(place.labels)?;
    // The labels in front of `svc`, or of the zone that stands for it.
    let front = if place.is_alias {
        // These two are in the SOA record, where the name can be a part of that of another.
        let namespace = asked.label(place.labels.checked_sub(1)?)?;
        if matches!(namespace, b"dns" | b"hostmaster") {
            return None;
        }
        place.labels
    } else {
        let last = place.labels.checked_sub(1)?;
        match asked.label(last)? {
            b"svc" => last,
            // Beside what is rare: the one that the SOA record has, too.
            b"dns" | b"pod" | b"dns-version" | b"hostmaster" => return None,
            _ => return reply.negative(missing(snapshot), zone),
        }
    };
    let [service, namespace] = match front {
        0 => return reply.negative(Rcode::NoError, zone),
        1 => {
            let name = asked
                .label(0)
                .and_then(|label| std::str::from_utf8(label).ok());
            let exists = name.is_some_and(|name| snapshot.has_namespace(name));
            let rcode = if exists {
                Rcode::NoError
            } else {
                missing(snapshot)
            };
            return reply.negative(rcode, zone);
        }
        _ => [asked.start(front - 2)?, asked.start(front)?],
    };
    let Some(prepared) = snapshot.prepared.get(asked.folded(service..namespace)?) else {
        return reply.negative(missing(snapshot), zone);
    };
    match prepared.find(asked.folded(0..service)?) {
        Found::Alias => None,
        Found::Missing => reply.negative(missing(snapshot), zone),
        Found::Records(records) => found(asked, records, [service, namespace, zone], reply),
    }
}

/// The records of the type that is asked for. `places` are where the Service's name, `svc` and the zone begin.
fn found(
    asked: &Asked<'_>,
    records: &Records,
    places: [usize; 3],
    mut reply: Reply<'_>,
) -> Option<Hit> {
    let [_, _, zone] = places;
    match (asked.rtype, &records.srv) {
        (RecordType::A, _) if !records.v4.is_empty() => Some(reply.addresses(&records.v4)),
        (RecordType::Aaaa, _) if !records.v6.is_empty() => Some(reply.addresses(&records.v6)),
        (RecordType::Srv, Some(located)) => reply.services(located, places),
        _ => reply.negative(Rcode::NoError, zone),
    }
}

/// The name of an IPv4 cluster IP.
fn reverse(snapshot: &Snapshot, asked: &Asked<'_>, mut reply: Reply<'_>) -> Option<Hit> {
    if asked.rtype != RecordType::Ptr {
        return None;
    }
    if asked.labels_before("in-addr.arpa") != Some(4) {
        return None;
    }
    let mut octets = [0; 4];
    for (place, octet) in octets.iter_mut().rev().enumerate() {
        *octet = decimal(asked.label(place)?)?;
    }
    let owner = snapshot
        .address_owners(Ipv4Addr::from(octets).into())?
        .cluster_ip_of
        .as_ref()?;
    let mut domains = snapshot.cluster.domains.iter();
    let domain = domains.find(|domain| super::zone::is_ours(domain))?;
    // Such a name could be a part of the question.
    if domain.ends_with("arpa") {
        return None;
    }
    let labels = [&*owner.name, &owner.namespace, "svc"];
    reply.pointer(labels.into_iter().chain(domain.split('.')))
}

/// A number as names of addresses have it: without leading zeros.
fn decimal(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let is_plain =
        label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// What a name is that is not there: unknown, as long as sources are still to report.
fn missing(snapshot: &Snapshot) -> Rcode {
    if snapshot.synced {
        Rcode::NxDomain
    } else {
        Rcode::ServFail
    }
}
