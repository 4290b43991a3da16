//! What other DNS servers say, handed on: never longer than the client takes, with its identifier and question, readable
//! again, kept for no longer than it may be. The first byte chooses the question, the client and the age; then come flags,
//! the counts of three sections, and their bytes, behind the question that belongs there.

use std::{sync::Arc, time::Duration};

use hickory_proto::{op::Message as Decoded, rr::Record};
use portico_core::{
    dns::{Answer, Moment, Name, Question, RecordType, packet, wire},
    dns_cache::{
        Cache, Found,
        message::{Age, Message, Relayed, is_cut},
        special,
    },
    time::Timestamp,
};

/// A client's packet: example.org, type A, without EDNS.
const PLAIN: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07eXample\x03org\0\0\x01\0\x01";
/// The same with an OPT record: it takes 1232 bytes, DNSSEC records, and has a cookie.
const EDNS: &[u8] = b"\x12\x34\x01\x10\0\x01\0\0\0\0\0\x01\x07eXample\x03org\0\0\xff\0\x01\
    \0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08cookie42";
/// The longest that anything is kept.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes of the question behind the header.
const QUESTION: usize = 17;

pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, said)) = bytes.split_first() else {
        return;
    };
    let client = if choice & 1 == 0 { PLAIN } else { EDNS };
    let relayed = Relayed::of(client).expect("a query");
    let asked = relayed.packet(0xabcd);
    // As it comes from anybody: that no more than a look at it is needed to know that it does not belong.
    if Message::read(said, &asked).is_some() {
        assert_eq!(said[..2], asked[..2], "the identifier");
    }
    let _ = (is_cut(said, &asked), special_name(said));
    let Some(response) = response(said, &asked) else {
        return;
    };
    let Some(message) = Message::read(&response, &asked) else {
        return;
    };
    let age = match choice >> 1 & 3 {
        0 | 1 => Age::Fresh,
        2 => Age::Kept(Duration::from_secs(7)),
        _ => Age::Stale,
    };
    let query = wire::read(client).expect("a query");
    for transport in [packet::Transport::Udp, packet::Transport::Tcp] {
        let limit = packet::limit(&query, transport);
        check_response(
            &message,
            (client, limit),
            (age, u64::from(*choice)),
            &response,
        );
    }
    check_alias(&message, &query, age);
    check_kept(&relayed, message);
}

/// The response that `said` is the flags, counts and sections of.
fn response(said: &[u8], asked: &[u8]) -> Option<Vec<u8>> {
    let (head, sections) = said.split_at_checked(8)?;
    let mut response = asked[..2].to_vec();
    response.extend([head[0] & 0x87 | 0x80, head[1], 0, 1]);
    response.extend(&head[2..]);
    response.extend(&asked[12..12 + QUESTION]);
    response.extend(sections);
    response.truncate(usize::from(u16::MAX));
    Some(response)
}

fn check_response(
    message: &Message,
    (client, limit): (&[u8], usize),
    (age, seed): (Age, u64),
    response: &[u8],
) {
    let query = wire::read(client).expect("a query");
    let handed_on = message.respond(&query, limit, age, seed);
    let bytes = &handed_on.bytes;
    assert!(bytes.len() <= limit, "{} bytes of {limit}", bytes.len());
    assert_eq!(bytes[..2], client[..2], "the identifier");
    let question = 12..12 + QUESTION;
    assert_eq!(bytes[question.clone()], client[question], "the question");
    assert_eq!(handed_on.truncated, bytes[2] & 2 != 0);
    assert!(Message::read(bytes, client).is_some(), "read again");
    // Addresses change places and times to live are counted down; what points into those was no name before.
    let is_address = |record: &&Record| record.data.ip_addr().is_some();
    // The same goes for names in the header, which is the client's, and behind OPT, which is left out.
    let mut pairs = response[12 + QUESTION..].windows(2);
    let is_odd = pairs.any(|pair| (pair[0] == 0xc0 && pair[1] < 12) || pair == [0, 41]);
    if let Ok(before) = Decoded::from_vec(response)
        && age == Age::Fresh
        && !is_odd
        && before.answers.iter().filter(is_address).count() < 2
    {
        let after = Decoded::from_vec(bytes).expect("what others can read");
        assert!(
            before.answers.starts_with(&after.answers),
            "{before} then {after}"
        );
    }
}

/// What an alias of ours leads to.
fn check_alias(message: &Message, query: &wire::Query, age: Age) {
    let mut answer = special_answer();
    message.extend(&mut answer, age, 1);
    for limit in [512, usize::from(u16::MAX)] {
        let response = wire::write(query, &answer, limit);
        assert!(response.bytes.len() <= limit);
    }
}

fn check_kept(relayed: &Relayed, message: Message) {
    let Some(key) = relayed.key() else {
        return;
    };
    let (message, begin) = (Arc::new(message), Timestamp::default());
    let mut cache = Cache::new(1);
    cache.store(&key, &message, begin);
    let lifetime = message.lifetime().unwrap_or_default();
    assert!(lifetime <= LONGEST && cache.len() == usize::from(!lifetime.is_zero()));
    let found = cache.find(&key, begin.after(LONGEST));
    assert!(!matches!(found, Found::Kept(..)), "{lifetime:?}");
}

/// Whether the name at the beginning of `said` is answered without asking anybody.
fn special_name(said: &[u8]) -> Option<usize> {
    let question = wire::read(said).ok()?.question;
    let special = special::answer(&question, Moment::default())?;
    Some(special.answers.len())
}

/// The answer for `localhost`, to which more is added.
fn special_answer() -> Answer {
    let name = Name::parse("localhost").expect("a name");
    special::answer(&Question::new(name, RecordType::A), Moment::default()).expect("a special name")
}
