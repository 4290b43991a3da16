//! HTTP request by request, as far as it needs no socket: what is chosen for it as a whole, and the rules for heads, errors,
//! retries and logs. Bytes of a connection are parsed by a codec; [`message`] says which of them it gets, and [`flood`] counts frames.

pub mod cookie;
pub mod error;
pub mod flood;
pub mod framing;
pub mod head;
mod json;
pub mod log;
pub mod message;
pub mod retry;
pub mod trace;

use std::net::IpAddr;

use ::http::HeaderMap;

use crate::{
    balance::Key,
    object::{Application, PortNames},
};
use head::HeaderRules;

/// What of HTTP was chosen for every Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpRules {
    /// Whether port names say what is spoken there.
    pub port_names: PortNames,
    /// What endpoints are told beside what clients say.
    pub headers: HeaderRules,
}

/// What maglev goes by for a request: the value of the port's header, else the client.
pub fn key_of(app: &Application, headers: &HeaderMap, client: Option<IpAddr>) -> Option<Key> {
    let name = app.hash_header.as_ref();
    let value = name.and_then(|name| headers.get(name));
    value
        .map(|value| Key::of(value.as_bytes()))
        .or(client.map(Key::Client))
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn key_of_a_request_is_its_header_else_its_client() {
        let client = IpAddr::from([192, 0, 2, 7]);
        let name = HeaderName::from_static("x-user");
        let app = Application {
            hash_header: Some(name.clone()),
            ..Application::default()
        };
        let key = |app, value: Option<&'static str>| {
            let value = value.map(|it| (name.clone(), HeaderValue::from_static(it)));
            key_of(app, &value.into_iter().collect(), Some(client))
        };
        assert_eq!(key(&app, Some("ann")), Some(Key::of(b"ann")));
        assert_eq!(key(&app, None), Some(Key::Client(client)));
        let plain = Application::default();
        assert_eq!(key(&plain, Some("ann")), Some(Key::Client(client)));
    }
}
