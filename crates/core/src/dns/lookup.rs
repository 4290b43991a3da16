//! From a question to an answer. Owns zones' own records, aliases, the server-side search list and the choice between
//! "no such name" and "no such records"; what stands at a name belongs to `tree` and `reverse`.

use super::{
    Answer, Class, Moment, Name, Question, Rcode, Record, RecordData, RecordType, TTL,
    elsewhere::Asker,
    order::shuffle,
    reverse::{self, Reverse, ReverseNode},
    tree::{self, Node},
    zone::{self, Place, Zone},
};
use crate::snapshot::Snapshot;

/// Version of the DNS specification that `dns-version` tells, and how long that may be cached.
const SPECIFICATION: (&str, u32) = ("1.1.0", 28_800);
/// The most aliases that are followed.
const MAX_ALIASES: usize = 10;

/// Answers `question` from `snapshot`.
///
/// A name in none of our zones is looked for as if its search list had been walked, if the cluster names a namespace
/// for that: the records that it finds are given under the name that was asked, not behind a CNAME, which every stub
/// resolver accepts and which leaves no alias in a cache. What is not found so is refused, and may be asked of others.
pub fn answer(snapshot: &Snapshot, question: &Question, moment: Moment) -> Answer {
    // A transfer would need a list of who may have it.
    let is_transfer = matches!(question.rtype, RecordType::Axfr | RecordType::Ixfr);
    if question.class != Class::In || is_transfer {
        return Answer::empty(Rcode::Refused, false);
    }
    let lookup = Lookup {
        snapshot,
        rtype: question.rtype,
        moment,
        asker: Asker::at(moment.place, &snapshot.cluster),
    };
    let mut answer = Answer::empty(Rcode::NoError, true);
    match zone::place(&snapshot.cluster, &question.name) {
        Place::Forward(zone) => lookup.follow(&mut answer, question.name.clone(), zone),
        Place::Reverse(name) => {
            return lookup.reverse(&question.name, reverse::find(snapshot, name));
        }
        Place::Foreign => match lookup.search(&question.name) {
            Some(zone) => lookup.follow(&mut answer, question.name.clone(), zone),
            None => return Answer::foreign(&question.name),
        },
    }
    answer
}

struct Lookup<'a> {
    snapshot: &'a Snapshot,
    rtype: RecordType,
    moment: Moment,
    asker: Asker<'a>,
}

impl Lookup<'_> {
    /// Adds the records at `owner`, which `zone` says where to find, and those that its aliases lead to.
    fn follow(&self, answer: &mut Answer, mut owner: Name, mut zone: Zone) {
        for _ in 0..=MAX_ALIASES {
            let alias = match tree::find(self.snapshot, &zone.labels) {
                None => return self.missing(answer, &zone.origin),
                Some(Node::Alias(target)) => target,
                Some(node) => return self.records(answer, &owner, &zone, &node),
            };
            let Ok(target) = Name::parse(alias) else {
                answer.rcode = Rcode::ServFail;
                return;
            };
            let data = RecordData::Cname(target.clone());
            answer.answers.push(Record {
                name: owner,
                ttl: TTL,
                data,
            });
            // The alias itself answers these two (RFC 1034 section 3.6.2, RFC 8482 section 4.2).
            let is_answer = matches!(self.rtype, RecordType::Cname | RecordType::Any);
            if is_answer || answer.answers.iter().any(|record| record.name == target) {
                return;
            }
            match zone::place(&self.snapshot.cluster, &target) {
                Place::Forward(next) => (owner, zone) = (target, next),
                Place::Foreign => {
                    answer.foreign = Some(target);
                    return;
                }
                // Nobody means that.
                Place::Reverse(_) => return,
            }
        }
    }

    /// The records of `node`, which is no alias.
    fn records(&self, answer: &mut Answer, owner: &Name, zone: &Zone, node: &Node<'_>) {
        let before = answer.answers.len();
        match (node, self.rtype) {
            (_, RecordType::Any) => answer.answers.push(any(owner)),
            (Node::Apex, _) => {
                let server = zone.name_server(&self.snapshot.cluster);
                self.apex(answer, owner, server);
            }
            (Node::Version, RecordType::Txt) => {
                let (version, ttl) = SPECIFICATION;
                answer.answers.push(Record {
                    name: owner.clone(),
                    ttl,
                    data: RecordData::Txt(version),
                });
            }
            (Node::Addresses(addresses), rtype @ (RecordType::A | RecordType::Aaaa)) => {
                let addresses = addresses.iter().copied();
                let mine: Vec<_> = addresses
                    .filter(|addr| self.asker.may_have(*addr))
                    .collect();
                answer
                    .answers
                    .extend(tree::address_records(owner, rtype, &mine));
            }
            (Node::Service(service), rtype @ (RecordType::A | RecordType::Aaaa)) => {
                answer.answers.extend(tree::address_records(
                    owner,
                    rtype,
                    &tree::addresses(service, self.asker),
                ));
            }
            (Node::Service(service), RecordType::Srv) => {
                extend(
                    answer,
                    tree::srv_records(owner, zone, service, None, self.asker),
                );
            }
            (Node::Port(service, port), RecordType::Srv) => {
                extend(
                    answer,
                    tree::srv_records(owner, zone, service, Some(*port), self.asker),
                );
            }
            _ => {}
        }
        let found = answer.answers.get_mut(before..).unwrap_or_default();
        if found.is_empty() {
            answer.authority.push(zone::soa(&zone.origin, self.moment));
        } else if matches!(self.rtype, RecordType::A | RecordType::Aaaa) {
            shuffle(found, self.moment.seed);
        }
    }

    /// SOA and NS at a zone's own name.
    fn apex(&self, answer: &mut Answer, owner: &Name, server: Option<Name>) {
        match (self.rtype, server) {
            (RecordType::Soa, _) => answer.answers.push(zone::soa(owner, self.moment)),
            (RecordType::Ns, Some(server)) => {
                let servers = self.snapshot.cluster.name_servers().iter();
                let servers = servers.filter(|addr| self.asker.may_have(**addr));
                let addresses = servers.map(|addr| Record::address(server.clone(), *addr));
                answer.additional.extend(addresses);
                answer.answers.push(Record {
                    name: owner.clone(),
                    ttl: TTL,
                    data: RecordData::Ns(server),
                });
            }
            _ => {}
        }
    }

    fn reverse(&self, owner: &Name, found: Reverse) -> Answer {
        let Reverse::Within(length, node) = found else {
            return Answer::foreign(owner);
        };
        let mut answer = Answer::empty(Rcode::NoError, true);
        let origin = owner.tail(length);
        let exists = !matches!(node, ReverseNode::Missing);
        match (node, self.rtype) {
            (ReverseNode::Missing, _) => self.missing(&mut answer, &origin),
            (_, RecordType::Any) => answer.answers.push(any(owner)),
            (ReverseNode::Names(names), RecordType::Ptr) => {
                let record = |name| Record {
                    name: owner.clone(),
                    ttl: TTL,
                    data: RecordData::Ptr(name),
                };
                answer.answers.extend(names.into_iter().map(record));
            }
            (ReverseNode::Apex, _) => {
                let server = zone::primary(&self.snapshot.cluster)
                    .and_then(|domain| zone::name_server(&domain));
                self.apex(&mut answer, owner, server);
            }
            _ => {}
        }
        if exists && answer.answers.is_empty() {
            answer.authority.push(zone::soa(&origin, self.moment));
        }
        answer
    }

    /// No such name; or not known yet, while sources are still to report.
    fn missing(&self, answer: &mut Answer, origin: &Name) {
        answer.rcode = if self.snapshot.synced {
            Rcode::NxDomain
        } else {
            Rcode::ServFail
        };
        answer.authority.push(zone::soa(origin, self.moment));
    }

    /// Where a name that is in no zone of ours is found by the search list of the cluster's namespace: that of a Pod
    /// there. Only names with records count, or a namespace's name alone would hide a host of the network. Names
    /// under `local` belong to multicast DNS and are not looked for.
    fn search(&self, name: &Name) -> Option<Zone> {
        let cluster = &self.snapshot.cluster;
        let namespace = cluster.search_namespace.as_deref()?;
        let origin = zone::primary(cluster)?;
        let asked = name.lower_labels();
        if asked.is_empty() || asked.last().is_some_and(|label| label == "local") {
            return None;
        }
        let suffixes: [&[&str]; 3] = [&[namespace, "svc"], &["svc"], &[]];
        suffixes.into_iter().find_map(|suffix| {
            let labels: Vec<_> = asked
                .iter()
                .cloned()
                .chain(suffix.iter().map(|&label| label.to_owned()))
                .collect();
            let found =
                tree::find(self.snapshot, &labels).is_some_and(|node| !matches!(node, Node::Empty));
            found.then(|| Zone::cluster(origin.clone(), labels))
        })
    }
}

fn extend(answer: &mut Answer, records: tree::Records) {
    answer.answers.extend(records.answers);
    answer.additional.extend(records.additional);
}

/// The one record that stands for all (RFC 8482 section 4.2).
fn any(owner: &Name) -> Record {
    Record {
        name: owner.clone(),
        ttl: TTL,
        data: RecordData::Hinfo("RFC8482", ""),
    }
}
