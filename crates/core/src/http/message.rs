//! Where requests begin and end in the bytes of a client that speaks HTTP/1, and which of them the codec behind may read at all.
//! What it would answer by itself, without a word of why, or settle in silence, is found here before: heads that are none, that
//! are too large, and what says in two ways how long a body is. Bytes pass unchanged; reading them is the codec's.
//!
//! Nothing passes here that the codec would end elsewhere: a head is read by the parser that it uses (httparse), and a chunked
//! body by the grammar of RFC 9112, section 7.1, of which the codec accepts more.

use std::mem::MaybeUninit;

use http::{Method, Uri, Version};
use httparse::{Error, Header, Request, Status};

use super::framing::{self, BadHead, BodyLength, HeadLimits};

/// Bytes of extensions that the chunks of one body may have together: more is no use of them (as hyper has it).
const EXTENSION_BYTES: u16 = 16 << 10;
/// Digits of a chunk's size.
const SIZE_DIGITS: u8 = 16;
/// Most fields that a parser has room for; [`HeadLimits::fields`] is no more.
const MOST_FIELDS: usize = 100;
/// Fields about the connection or a body, which a [`stand_in`] has not.
const FRAMING: [&str; 6] = [
    "connection",
    "content-length",
    "expect",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// How far the requests of a connection have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Messages {
    state: State,
    limits: HeadLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before or in a head.
    Head,
    /// In a body of which so many bytes are to come.
    Body(u64),
    /// In a chunked one.
    Chunks(Chunks),
    /// Behind a request.
    Between,
}

impl Messages {
    /// Of a connection of which nothing has come.
    pub const fn new(limits: HeadLimits) -> Self {
        Self {
            state: State::Head,
            limits,
        }
    }

    /// Whether a request has passed to its end, and the next one is not begun.
    pub const fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Whether what comes next belongs to a head.
    pub const fn is_head(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Begins the next request.
    pub const fn begin(&mut self) {
        self.state = State::Head;
    }

    /// How many of `bytes`, the next ones of the connection, may be read by now: of a head all or nothing, and nothing behind the
    /// end of a request. Of the first bytes so many are `known` to be no whole head.
    ///
    /// # Errors
    /// It is no request that may be read, from its head, or from here on. Nothing has passed.
    pub fn pass(&mut self, bytes: &[u8], known: usize) -> Result<usize, BadHead> {
        let mut state = self.state;
        let mut passed = 0;
        if state == State::Head {
            if known > 0 && bytes.len() < self.limits.bytes && !may_end(bytes, known) {
                return Ok(0);
            }
            let Some(head) = head(bytes, self.limits)? else {
                return Ok(0);
            };
            (passed, state) = head;
        }
        let rest = bytes.get(passed..).unwrap_or_default();
        passed += match &mut state {
            State::Head | State::Between => 0,
            State::Body(left) => {
                let here = skip(left, rest);
                if *left == 0 {
                    state = State::Between;
                }
                here
            }
            State::Chunks(chunks) => {
                let here = chunks.pass(rest)?;
                if chunks.step == Step::End {
                    state = State::Between;
                }
                here
            }
        };
        self.state = state;
        Ok(passed)
    }
}

/// Passes over what is left; says how many of `bytes` that are.
fn skip(left: &mut u64, bytes: &[u8]) -> usize {
    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
    here
}

/// Whether an empty line may end behind the first `known` bytes: a head that comes byte by byte is not read anew for each.
fn may_end(bytes: &[u8], known: usize) -> bool {
    let new = bytes.get(known.saturating_sub(3)..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

/// The length of the head that `bytes` begin with and what follows it, if it is complete.
fn head(bytes: &[u8], limits: HeadLimits) -> Result<Option<(usize, State)>, BadHead> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut room) {
        Ok(Status::Complete(length)) if length <= limits.bytes => length,
        Ok(Status::Partial) if bytes.len() < limits.bytes => return Ok(None),
        Ok(_) => return Err(too_large(bytes)),
        Err(Error::TooManyHeaders) => return Err(BadHead::TooManyFields),
        Err(Error::Version) => return Err(misread_version(bytes)),
        Err(_) => return Err(BadHead::NoRequest),
    };
    if !request.path.is_some_and(is_target) {
        return Err(BadHead::Target);
    }
    let version = match request.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let state = match body_length(version, request.headers)? {
        BodyLength::Empty => State::Between,
        BodyLength::Exactly(length) => State::Body(length),
        BodyLength::Unknown => State::Chunks(Chunks::default()),
    };
    Ok(Some((length, state)))
}

fn body_length(version: Version, fields: &[Header<'_>]) -> Result<BodyLength, BadHead> {
    let lines = |name: &'static str| {
        fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    framing::body_of(version, lines("transfer-encoding"), lines("content-length"))
}

/// What is longer than the bound: the target, or the fields behind it.
fn too_large(bytes: &[u8]) -> BadHead {
    let start = bytes.iter().position(|byte| !b"\r\n".contains(byte));
    let line = bytes.get(start.unwrap_or_default()..).unwrap_or_default();
    if line.contains(&b'\n') {
        BadHead::TooLarge
    } else {
        BadHead::LongTarget
    }
}

/// What is wrong with a line in which no version stands behind the target: it says another one than 1.0 and 1.1 (RFC 9112,
/// section 2.3), one of these behind a target with a blank in it (section 3.2), or none.
fn misread_version(bytes: &[u8]) -> BadHead {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.find(|line| !line.is_empty() && *line != b"\r");
    let line = line.unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b' ').next();
    match last.unwrap_or_default() {
        b"HTTP/1.0" | b"HTTP/1.1" => BadHead::Target,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            BadHead::Version
        }
        _ => BadHead::NoRequest,
    }
}

/// Whether the codec can take a target for one. Most are clear at a glance.
fn is_target(target: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%?".contains(&byte);
    (target.starts_with('/') && target.bytes().all(is_plain)) || target.parse::<Uri>().is_ok()
}

/// A request without a body in the place of one that is refused for `fault`: what it asks for, in what form it wants the answer
/// and whom, where that can be read, so that it is answered and logged like any other. `None` where nothing can be read.
pub fn stand_in(bytes: &[u8], fault: BadHead) -> Option<Vec<u8>> {
    // Whose fields cannot be told apart is not asked for some of them.
    if matches!(
        fault,
        BadHead::NoRequest | BadHead::Version | BadHead::LongTarget | BadHead::Target
    ) {
        return None;
    }
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut room);
    if !parsed.is_ok_and(|status| status.is_complete()) {
        return None;
    }
    let (method, target) = (request.method?, request.path?);
    // The codec has rules of its own for it.
    if method == Method::CONNECT.as_str() || !is_target(target) {
        return None;
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    for field in request.headers {
        if !FRAMING.iter().any(|it| field.name.eq_ignore_ascii_case(it)) {
            head.extend([field.name.as_bytes(), b": ", field.value, b"\r\n"].concat());
        }
    }
    head.extend(b"\r\n");
    Some(head)
}

/// A chunked body up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Chunks {
    step: Step,
    /// Of the chunk: its size, as far as it is read, or what is left of it.
    left: u64,
    /// Of its size.
    digits: u8,
    /// Bytes of extensions.
    extensions: u16,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    /// A digit of a size, or what ends it.
    #[default]
    Size,
    /// Blanks behind a size.
    Blank,
    Extension,
    /// The end of the line of a size.
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    /// The first byte of a trailer, or of the line that ends everything.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    End,
}

impl Chunks {
    /// See [`Messages::pass`].
    fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadHead> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at)
            && self.step != Step::End
        {
            if self.step == Step::Data {
                at += skip(&mut self.left, bytes.get(at..).unwrap_or_default());
                if self.left == 0 {
                    self.step = Step::DataReturn;
                }
                continue;
            }
            self.step = self.next(*byte).ok_or(BadHead::Chunk)?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Option<Step> {
        Some(match (self.step, byte) {
            (Step::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?;
                Step::Size
            }
            (Step::Size, b'\t' | b' ') if self.digits > 0 => Step::Blank,
            (Step::Size, b';') if self.digits > 0 => Step::Extension,
            (Step::Size, b'\r') if self.digits > 0 => Step::SizeEnd,
            (Step::Blank, b'\t' | b' ') => Step::Blank,
            (Step::Blank, b';') => Step::Extension,
            (Step::Blank | Step::Extension, b'\r') => Step::SizeEnd,
            (Step::Extension, b'\t' | b' '..) if byte != 0x7f => {
                self.extensions += 1;
                if self.extensions >= EXTENSION_BYTES {
                    return None;
                }
                Step::Extension
            }
            (Step::SizeEnd, b'\n') if self.left == 0 => Step::TrailerStart,
            (Step::SizeEnd, b'\n') => Step::Data,
            (Step::DataReturn, b'\r') => Step::DataEnd,
            (Step::DataEnd, b'\n') => {
                self.digits = 0;
                Step::Size
            }
            (Step::TrailerStart, b'\r') => Step::LastEnd,
            (Step::TrailerStart | Step::Trailer, b'\t' | b' '..) if byte != 0x7f => Step::Trailer,
            (Step::Trailer, b'\r') => Step::TrailerEnd,
            (Step::TrailerEnd, b'\n') => Step::TrailerStart,
            (Step::LastEnd, b'\n') => Step::End,
            _ => return None,
        })
    }

    fn digit(&mut self, byte: u8) -> Option<()> {
        self.digits += 1;
        let digit = char::from(byte).to_digit(16)?;
        self.left = self.left.checked_mul(16)?.checked_add(digit.into())?;
        (self.digits <= SIZE_DIGITS).then_some(())
    }
}

#[cfg(test)]
mod tests;
