//! Questions, records and answers as values, with their JSON form. Owns type, class and response codes (IANA "Domain
//! Name System Parameters") and the text form of record data; must not know the wire form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{Name, text::text};
use crate::snapshot::ClientPlace;

/// What a client wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, in the client's case.
    pub name: Name,
    /// The type.
    pub rtype: RecordType,
    /// The class.
    pub class: Class,
}

impl Question {
    /// A question of class IN.
    pub fn new(name: Name, rtype: RecordType) -> Self {
        Self {
            name,
            rtype,
            class: Class::In,
        }
    }
}

/// What an answer depends on beside the Snapshot and the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Serial of every zone: grows with each Snapshot.
    pub serial: u32,
    /// Decides the order of address records: another one for every response.
    pub seed: u64,
    /// Where the client is.
    pub place: ClientPlace,
}

impl Moment {
    /// What seeds go on by: an odd step of this size makes neighbours differ in most bits.
    pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The moment of the next response.
    pub const fn next(self) -> Self {
        Self {
            seed: self.seed.wrapping_add(Self::STEP),
            ..self
        }
    }
}

macro_rules! record_types {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $text:literal,)*) => {
        /// The type of a record or question.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RecordType {
            $($(#[$doc])* $variant,)*
            /// Any other; no name has records of it.
            Other(u16),
        }

        impl From<u16> for RecordType {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    _ => Self::Other(number),
                }
            }
        }

        impl RecordType {
            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            const fn mnemonic(self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some($text),)*
                    Self::Other(_) => None,
                }
            }

            fn from_mnemonic(text: &str) -> Option<Self> {
                [$(Self::$variant,)*].into_iter().find(|rtype| {
                    rtype.mnemonic().is_some_and(|known| known.eq_ignore_ascii_case(text))
                })
            }
        }
    };
}

record_types! {
    /// IPv4 address.
    A = 1 "A",
    /// Name server of a zone.
    Ns = 2 "NS",
    /// Alias.
    Cname = 5 "CNAME",
    /// Start of a zone.
    Soa = 6 "SOA",
    /// Name of an address.
    Ptr = 12 "PTR",
    /// Host information; stands for "all records" since RFC 8482.
    Hinfo = 13 "HINFO",
    /// Mail exchange.
    Mx = 15 "MX",
    /// Text.
    Txt = 16 "TXT",
    /// IPv6 address.
    Aaaa = 28 "AAAA",
    /// Service location.
    Srv = 33 "SRV",
    /// Delegation signer.
    Ds = 43 "DS",
    /// Zone key.
    Dnskey = 48 "DNSKEY",
    /// Service binding.
    Svcb = 64 "SVCB",
    /// Service binding of HTTP.
    Https = 65 "HTTPS",
    /// Incremental zone transfer.
    Ixfr = 251 "IXFR",
    /// Zone transfer.
    Axfr = 252 "AXFR",
    /// All records.
    Any = 255 "ANY",
    /// Certification authorities that may issue.
    Caa = 257 "CAA",
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(text) => f.write_str(text),
            None => write!(f, "TYPE{}", self.number()),
        }
    }
}

/// A text that names no record type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown record type {0:?}: give a name such as A or SRV, or TYPE and a number")]
pub struct UnknownType(String);

impl FromStr for RecordType {
    type Err = UnknownType;

    /// A mnemonic in any case, or `TYPEn` (RFC 3597 section 5).
    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let numbered = || {
            let (prefix, number) = text.split_at_checked(4)?;
            prefix
                .eq_ignore_ascii_case("TYPE")
                .then(|| number.parse::<u16>().ok())?
                .map(Self::from)
        };
        Self::from_mnemonic(text)
            .or_else(numbered)
            .ok_or_else(|| UnknownType(text.to_owned()))
    }
}

/// The class of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The Internet.
    In,
    /// Any other, refused.
    Other(u16),
}

impl From<u16> for Class {
    fn from(number: u16) -> Self {
        if number == 1 {
            Self::In
        } else {
            Self::Other(number)
        }
    }
}

impl Class {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::In => 1,
            Self::Other(number) => number,
        }
    }
}

/// Response codes that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rcode {
    /// The name exists.
    NoError,
    /// The query cannot be read.
    FormErr,
    /// Nothing certain is known (yet).
    ServFail,
    /// The name does not exist.
    NxDomain,
    /// The kind of query is not served.
    NotImp,
    /// Not ours to answer.
    Refused,
    /// An EDNS version that we do not speak.
    BadVers,
}

impl Rcode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::BadVers,
    ];

    /// The number, of which EDNS carries all beyond the low four bits.
    pub const fn number(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }

    /// The code of this number, if we ever send it ourselves.
    pub fn from_number(number: u16) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|rcode| u16::from(rcode.number()) == number)
    }

    /// As `dig` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVers => "BADVERS",
        }
    }
}

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Rcode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One record of class IN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub name: Name,
    /// Seconds that it may be cached.
    pub ttl: u32,
    /// Type and content.
    pub data: RecordData,
}

impl Record {
    /// An A or AAAA record.
    pub fn address(name: Name, addr: IpAddr) -> Self {
        let data = match addr {
            IpAddr::V4(v4) => RecordData::A(v4),
            IpAddr::V6(v6) => RecordData::Aaaa(v6),
        };
        Self {
            name,
            ttl: super::TTL,
            data,
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("Record", 4)?;
        record.serialize_field("name", &self.name)?;
        record.serialize_field("type", &self.data.rtype().to_string())?;
        record.serialize_field("ttl", &self.ttl)?;
        record.serialize_field("data", &self.data.to_string())?;
        record.end()
    }
}

/// `name TTL IN TYPE data`, as `dig` prints it.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} IN {} {}",
            self.name,
            self.ttl,
            self.data.rtype(),
            self.data
        )
    }
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordData {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias of this name.
    Cname(Name),
    /// This server serves the zone.
    Ns(Name),
    /// The address has this name.
    Ptr(Name),
    /// Service location (RFC 2782); priority is always 0.
    Srv {
        /// Share among records of one priority.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// One text, shorter than 256 bytes.
    Txt(&'static str),
    /// Processor and operating system, or what RFC 8482 puts there.
    Hinfo(&'static str, &'static str),
    /// Start of a zone.
    Soa(Box<Soa>),
    /// What others said, without compression.
    Other(RecordType, Box<[u8]>),
}

/// Content of an SOA record (RFC 1035 section 3.3.13); the times are the same for every zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    /// First name server.
    pub mname: Name,
    /// Mailbox of who is responsible.
    pub rname: Name,
    /// Version of the zone.
    pub serial: u32,
}

impl Soa {
    /// Seconds: refresh, retry, expire, minimum. The last is how long a negative answer lives (RFC 2308 section 4).
    pub const TIMES: [u32; 4] = [7200, 1800, 86_400, super::TTL];
}

impl RecordData {
    /// The type.
    pub const fn rtype(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::Aaaa,
            Self::Cname(_) => RecordType::Cname,
            Self::Ns(_) => RecordType::Ns,
            Self::Ptr(_) => RecordType::Ptr,
            Self::Srv { .. } => RecordType::Srv,
            Self::Txt(_) => RecordType::Txt,
            Self::Hinfo(..) => RecordType::Hinfo,
            Self::Soa(_) => RecordType::Soa,
            Self::Other(rtype, _) => *rtype,
        }
    }
}

impl fmt::Display for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(addr) => addr.fmt(f),
            Self::Aaaa(addr) => addr.fmt(f),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => name.fmt(f),
            Self::Srv {
                weight,
                port,
                target,
            } => write!(f, "0 {weight} {port} {target}"),
            Self::Txt(text) => write!(f, "\"{text}\""),
            Self::Hinfo(cpu, os) => write!(f, "\"{cpu}\" \"{os}\""),
            Self::Soa(soa) => {
                let [refresh, retry, expire, minimum] = Soa::TIMES;
                write!(
                    f,
                    "{} {} {} {refresh} {retry} {expire} {minimum}",
                    soa.mname, soa.rname, soa.serial
                )
            }
            // RFC 3597 section 5.
            Self::Other(rtype, data) => {
                if let Some(text) = text(*rtype, data) {
                    return f.write_str(&text);
                }
                write!(f, "\\# {}", data.len())?;
                data.iter().enumerate().try_for_each(|(at, byte)| {
                    write!(f, "{}{byte:02x}", if at == 0 { " " } else { "" })
                })
            }
        }
    }
}

/// What a question gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Response code: that of the last name where aliases were followed (RFC 6604).
    pub rcode: Rcode,
    /// Whether the name is ours.
    pub authoritative: bool,
    /// The records asked for; aliases stand before what they lead to.
    pub answers: Vec<Record>,
    /// The zone's SOA in a negative answer (RFC 2308).
    pub authority: Vec<Record>,
    /// Addresses of the names in `answers`.
    pub additional: Vec<Record>,
    /// The name that is still to be asked for, of others: that of the question, or what the last alias leads to.
    #[serde(skip)]
    pub foreign: Option<Name>,
}

impl Answer {
    /// An answer with nothing but a code.
    pub(crate) fn empty(rcode: Rcode, authoritative: bool) -> Self {
        Self {
            rcode,
            authoritative,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            foreign: None,
        }
    }

    /// The answer to a question for `name` that others may have.
    pub(crate) fn foreign(name: &Name) -> Self {
        Self {
            foreign: Some(name.clone()),
            ..Self::empty(Rcode::Refused, false)
        }
    }
}
