//! The wire form of DNS messages (RFC 1035 section 4, RFC 6891): reading queries, writing responses. Owns sizes,
//! compression and truncation; must not know what names mean. Everything read here comes from strangers.

mod query;
mod response;

pub use query::{Edns, Malformed, Query, read};
pub(crate) use query::{RawRecord, Reader};
pub(super) use query::{read_edns, udp_limit};
pub(crate) use response::{AUTHORITATIVE, REPEATED, RESPONSE, TRUNCATED, put, write_opt};
pub use response::{Response, write, write_error};

/// The UDP payload size that we tell: what passes an Ethernet path unfragmented (DNS flag day 2020).
pub const PAYLOAD: u16 = 1232;
/// What every client takes without EDNS (RFC 1035 section 4.2.1), and the least that EDNS may say.
const MIN_PAYLOAD: u16 = 512;
/// The flag of a query that others may be asked for (RFC 1035 section 4.1.1).
pub const RECURSION_DESIRED: u16 = 0x0100;
/// Bytes of a header.
pub(crate) const HEADER: usize = 12;
/// Bytes of an OPT record without options.
pub(crate) const OPT_BYTES: usize = 11;
/// Type number of OPT.
pub(crate) const OPT: u16 = 41;
