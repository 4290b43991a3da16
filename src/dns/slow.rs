//! What is not answered at once: names that are not ours. Owns the queue towards whoever asks others, and how their
//! response becomes ours; never makes the responder wait.

use std::{net::SocketAddr, net::UdpSocket, sync::Arc};

use portico_core::{
    dns::{
        self, Answer, Moment, Question,
        packet::{self, Transport},
        wire::{self, Query, Response},
    },
    dns_cache::{
        message::{self, Relayed},
        special,
    },
    snapshot::ClientPlace,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{DnsService, forward::Failure};

/// Queries that have come and are not looked at yet.
const QUEUE: usize = 1024;

/// Takes over queries for names of others.
#[derive(Debug, Clone)]
pub(super) struct Slow(mpsc::Sender<Waiting>);

/// A query that is to be answered.
#[derive(Debug)]
pub(super) struct Waiting {
    packet: Box<[u8]>,
    client: Client,
}

/// Who asked, and how to answer.
#[derive(Debug)]
pub(super) struct Client {
    /// Where the response goes.
    pub(super) addr: SocketAddr,
    /// Whether that is this host.
    pub(super) place: ClientPlace,
    /// Where it leaves.
    pub(super) socket: Arc<UdpSocket>,
}

/// No room for another query.
#[derive(Debug)]
pub(super) struct Full;

/// The two ends of the queue.
pub(super) fn queue() -> (Slow, mpsc::Receiver<Waiting>) {
    let (offers, waiting) = mpsc::channel(QUEUE);
    (Slow(offers), waiting)
}

impl Slow {
    /// Takes `packet` over.
    pub(super) fn offer(&self, packet: &[u8], client: Client) -> Result<(), Full> {
        let packet = Box::from(packet);
        let offered = self.0.try_send(Waiting { packet, client });
        offered.map_err(|_| Full)
    }
}

/// Answers what is `waiting`, until nothing more can come. As many at a time as the forwarder lets wait.
pub(super) async fn answer(mut waiting: mpsc::Receiver<Waiting>, service: Arc<DnsService>) {
    let mut answers = JoinSet::new();
    loop {
        // Both are cancel safe.
        tokio::select! {
            Some(_) = answers.join_next() => {}
            next = waiting.recv() => match next {
                Some(next) => {
                    answers.spawn(answer_one(next, Arc::clone(&service)));
                }
                None => return,
            },
        }
    }
}

async fn answer_one(Waiting { packet, client }: Waiting, service: Arc<DnsService>) {
    let Some(response) = resolve(&service, &packet, (Transport::Udp, client.place)).await else {
        return;
    };
    service.counters.count_response(&response);
    // A full buffer of the socket is as a loss on the way: the client asks again.
    let _ = client.socket.send_to(&response.bytes, client.addr);
}

/// What we say ourselves to a question, and the one that is then left to ask of others.
struct Begun {
    answer: Answer,
    left: Option<Question>,
    moment: Moment,
}

impl Begun {
    fn of(service: &DnsService, question: &Question, place: ClientPlace) -> Self {
        let snapshot = service.published.load();
        let moment = Moment {
            place,
            ..service.moment(&snapshot, 1)
        };
        let mut answer = dns::answer(&snapshot, question, moment);
        let left = answer.foreign.take().map(|name| Question {
            name,
            ..question.clone()
        });
        let Some(special) = left.as_ref().and_then(|left| special::answer(left, moment)) else {
            return Self {
                answer,
                left,
                moment,
            };
        };
        answer.rcode = special.rcode;
        answer.authoritative = true;
        answer.answers.extend(special.answers);
        answer.authority.extend(special.authority);
        Self {
            answer,
            left: None,
            moment,
        }
    }
}

/// The response to `packet` with what others say. `None` if it is no query.
pub(super) async fn resolve(
    service: &DnsService,
    packet: &[u8],
    (transport, place): (Transport, ClientPlace),
) -> Option<Response> {
    let query = wire::read(packet).ok()?;
    let limit = packet::limit(&query, transport);
    let Begun {
        mut answer,
        left,
        moment,
    } = Begun::of(service, &query.question, place);
    let Some(Question { name, .. }) = left else {
        return Some(wire::write(&query, &answer, limit));
    };
    let is_alias = !answer.answers.is_empty();
    let relayed = if is_alias {
        Relayed::instead(&query, &name)
    } else {
        Relayed::of(packet)?
    };
    let response = match service.forwarder.resolve(&name, relayed).await {
        Ok(found) if is_alias => {
            found.message.extend(&mut answer, found.age, moment.seed);
            let mut response = wire::write(&query, &answer, limit);
            if found.message.is_truncated() {
                message::cut(&mut response);
            }
            response
        }
        Ok(found) => found.message.respond(&query, limit, found.age, moment.seed),
        // Whoever asked may have somebody to ask for what the alias leads to.
        Err(Failure::NoUpstream(_) | Failure::NotWanted) if is_alias => {
            wire::write(&query, &answer, limit)
        }
        Err(failure) => {
            answer.rcode = failure.rcode();
            let mut response = wire::write(&query, &answer, limit);
            let (code, text) = failure.explanation();
            message::explain(&query, &mut response, (code, &text));
            response
        }
    };
    Some(response)
}

/// Who had the last word.
pub(super) enum Source {
    /// We ourselves.
    Ours,
    /// Other servers.
    Others,
    /// They were to be asked, and could not, for this reason.
    Nobody(String),
}

/// The answer to `question` for people, with what others say.
pub(super) async fn answer_for_people(
    service: &DnsService,
    question: Question,
) -> (Answer, Source) {
    let Begun {
        mut answer,
        left,
        moment,
    } = Begun::of(service, &question, ClientPlace::OnNode);
    let Some(Question { name, .. }) = left else {
        return (answer, Source::Ours);
    };
    let query = Query {
        id: 0,
        flags: wire::RECURSION_DESIRED,
        question,
        edns: None,
    };
    let relayed = Relayed::instead(&query, &name);
    match service.forwarder.resolve(&name, relayed).await {
        Ok(found) => {
            found.message.extend(&mut answer, found.age, moment.seed);
            (answer, Source::Others)
        }
        Err(failure) => {
            answer.rcode = failure.rcode();
            (answer, Source::Nobody(failure.explanation().1))
        }
    }
}
