//! HTTP request by request, as far as it needs no socket: what is chosen for it as a whole, and the rules for heads, errors,
//! retries and logs. Must not parse bytes of a connection, which a codec does before, nor know which codec.

pub mod framing;
pub mod head;

use crate::object::PortNames;
use head::HeaderRules;

/// What of HTTP was chosen for every Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpRules {
    /// Whether port names say what is spoken there.
    pub port_names: PortNames,
    /// What endpoints are told beside what clients say.
    pub headers: HeaderRules,
}
