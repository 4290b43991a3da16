//! The head of a request as a client sends it: what is passed on means one thing to every reader. The parser is hyper's own; the
//! readers behind us are careless on purpose, each in another way.

use http::{Method, Request, Uri, Version, request::Parts};
use portico_core::http::{
    framing::{BodyLength, HeadLimits, judge},
    head::{Arrival, HeaderRules, Onward, to_endpoint},
};

pub(crate) fn check(bytes: &[u8]) {
    let Some(head) = parsed(bytes) else { return };
    let limits = HeadLimits::default();
    let body = match judge(&head, limits) {
        Ok(body) => body,
        Err(fault) => {
            return assert!(fault.status().as_u16() >= 400 && !fault.to_string().is_empty());
        }
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut sent = head.clone();
        let rules = HeaderRules::default();
        let arrival = Arrival::new(([192, 0, 2, 7], 4000).into(), &rules);
        let onward = Onward {
            version,
            body,
            service: "web.shop:80",
            chance: [7; 24],
        };
        to_endpoint(&mut sent, onward, &arrival, &rules)
            .expect("a head that was passed can be said");
        assert!(
            judge(&sent, limits).is_ok_and(|again| again == body || version == Version::HTTP_2)
        );
        if version == Version::HTTP_11 {
            check_sent(&written(&sent), body);
        }
    }
}

/// As hyper reads it, from nothing to the first empty line.
fn parsed(bytes: &[u8]) -> Option<Parts> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let mut made = Request::builder()
        .method(Method::from_bytes(request.method?.as_bytes()).ok()?)
        .uri(Uri::try_from(request.path?).ok()?)
        .version(match request.version? {
            0 => Version::HTTP_10,
            _ => Version::HTTP_11,
        });
    for field in request.headers.iter() {
        made = made.header(field.name, field.value);
    }
    Some(made.body(()).ok()?.into_parts().0)
}

/// As hyper writes it.
fn written(head: &Parts) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method, head.uri).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

fn check_sent(bytes: &[u8], body: BodyLength) {
    let again = parsed(bytes).expect("what is sent can be read");
    assert_eq!(judge(&again, HeadLimits::default()), Ok(body));
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(text.matches("\r\n\r\n").count(), 1, "one end, at the end");
    assert!(text.ends_with("\r\n\r\n"));
    let lines: Vec<&str> = text
        .split(['\r', '\n'])
        .filter(|line| !line.is_empty())
        .collect();
    let read = lengths(&lines[1..]);
    assert!(
        read.iter().all(|length| *length == read[0]),
        "{text}: {read:?}"
    );
    let expected = match body {
        BodyLength::Empty => Read::Length(0),
        BodyLength::Exactly(length) => Read::Length(length),
        BodyLength::Unknown => Read::Chunked,
    };
    assert_eq!(read[0], expected, "{text}");
    let hosts = lines.iter().filter(|line| key(line) == "host");
    assert_eq!(hosts.count(), 1, "{text}");
}

#[derive(Debug, PartialEq)]
enum Read {
    Length(u64),
    Chunked,
}

/// What careless readers make of it: the first or the last length, `_` for `-`, "chunked" anywhere, or only where nothing else is, with
/// a length before or after it.
fn lengths(lines: &[&str]) -> [Read; 4] {
    let values = |wanted: &str| -> Vec<&str> {
        let fields = lines.iter().filter(|line| key(line) == wanted);
        fields
            .map(|line| line.split_once(':').map_or("", |(_, value)| value.trim()))
            .collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let is_coded = codings
        .iter()
        .any(|coding| coding.to_ascii_lowercase().contains("chunked"));
    let is_plain = codings.len() == 1 && codings[0].eq_ignore_ascii_case("chunked");
    let number =
        |text: Option<&&str>| Read::Length(text.map_or(0, |it| it.parse().unwrap_or(u64::MAX)));
    let coded = |is: bool, otherwise: Read| if is { Read::Chunked } else { otherwise };
    [
        coded(is_coded, number(lengths.first())),
        coded(is_plain, number(lengths.last())),
        coded(is_coded && lengths.is_empty(), number(lengths.first())),
        coded(!codings.is_empty(), number(lengths.last())),
    ]
}

fn key(line: &str) -> String {
    let name = line.split_once(':').map_or("", |(name, _)| name);
    name.trim().to_ascii_lowercase().replace('_', "-")
}

/// Pieces that heads are broken with.
const PIECES: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\t",
    " ",
    "\0",
    "\x0b",
    ",",
    ":",
    ";",
    "_",
    "0",
    "5",
    "+",
    "chunked",
    "identity",
    "gzip, ",
    "Content-Length: 5\r\n",
    "Content_Length: 7\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Host: b\r\n",
    "Connection: content-length, host, transfer-encoding\r\n",
    "Upgrade: websocket\r\n",
];

/// `seed` broken in `number`'s way: pieces put in or over what is there, bytes taken out, a line said twice.
pub(crate) fn mutated(seed: &[u8], number: u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |count: usize| {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (count as u64).max(1)).unwrap()
    };
    for _ in 0..=below(3) {
        let at = below(bytes.len() + 1);
        let end = (at + below(4)).min(bytes.len());
        let piece = match below(8) {
            0 => bytes
                .split_inclusive(|byte| *byte == b'\n')
                .nth(below(4))
                .unwrap_or_default()
                .to_vec(),
            1 => Vec::new(),
            _ => PIECES[below(PIECES.len())].as_bytes().to_vec(),
        };
        let taken = if below(2) == 0 { at..at } else { at..end };
        bytes.splice(taken, piece);
    }
    bytes
}
