//! Names that are the same everywhere and that no server is to be asked for (RFC 6761). Owns which ones and what they
//! are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::{Answer, Moment, Name, Question, Rcode, Record, RecordData, RecordType, TTL, soa};

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// This host.
    Localhost,
    /// An address of this host.
    LocalAddress,
    /// There, without records of its own.
    Empty,
    /// Not there.
    Missing,
}

/// The answer to `question`, if its name is such a one.
pub fn answer(question: &Question, moment: Moment) -> Option<Answer> {
    let (special, labels) = find(&question.name)?;
    let mut answer = Answer::empty(Rcode::NoError, true);
    let owner = question.name.clone();
    match (special, question.rtype) {
        (Special::Localhost, RecordType::A) => {
            let here = IpAddr::from(Ipv4Addr::LOCALHOST);
            answer.answers.push(Record::address(owner, here));
        }
        (Special::Localhost, RecordType::Aaaa) => {
            let here = IpAddr::from(Ipv6Addr::LOCALHOST);
            answer.answers.push(Record::address(owner, here));
        }
        (Special::LocalAddress, RecordType::Ptr) => {
            let data = RecordData::Ptr(Name::parse("localhost").ok()?);
            let (name, ttl) = (owner, TTL);
            answer.answers.push(Record { name, ttl, data });
        }
        (Special::Missing, _) => answer.rcode = Rcode::NxDomain,
        _ => {}
    }
    if answer.answers.is_empty() {
        let zone = question.name.tail(labels);
        answer.authority.push(soa(&zone, moment));
    }
    Some(answer)
}

/// What `name` is, and the number of labels of the zone that it then is in.
fn find(name: &Name) -> Option<(Special, usize)> {
    let here = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if here.into_iter().any(|addr| *name == Name::reverse(addr)) {
        return Some((Special::LocalAddress, name.len()));
    }
    // RFC 6761 sections 6.3 and 6.4, RFC 7686 section 2, RFC 9462 section 8.2.
    let zones = [
        ("localhost", Special::Localhost),
        ("invalid", Special::Missing),
        ("onion", Special::Missing),
        ("resolver.arpa", Special::Empty),
    ];
    let mut zones = zones
        .into_iter()
        .filter_map(|(zone, special)| Some((Name::parse(zone).ok()?, special)));
    let (zone, special) = zones.find(|(zone, _)| name.is_within(zone))?;
    Some((special, zone.len()))
}
