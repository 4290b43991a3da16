//! Our annotations about what is spoken on ports, and about HTTP ports: values that cannot be read or come to nothing. All are
//! warnings: it is as if they were not there.

use super::proxy_protocol::check_effect;
use crate::http::cookie::{AffinityCookie, COOKIES};
use crate::object::{
    BalancePolicy, Protocol,
    annotations::{
        AFFINITY_COOKIE, BALANCE, HASH_HEADER, HTTP_RESPONSE_TIMEOUT, PROTOCOL, TIMEOUTS, timeout,
    },
    app_protocol::{Application, HEADERS, PROTOCOLS, PortNames, Wanted, header},
    decode::cursor::Cursor,
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    check_protocol(annotations, service);
    let is_cookie = |text: &str| AffinityCookie::parse(text).is_some();
    check_http(annotations, service, (AFFINITY_COOKIE, COOKIES), is_cookie);
    let is_header = |text: &str| header(text).is_some();
    check_http(annotations, service, (HASH_HEADER, HEADERS), is_header);
    let is_timeout = |text: &str| timeout(text).is_some();
    let response = (HTTP_RESPONSE_TIMEOUT, TIMEOUTS);
    check_http(annotations, service, response, is_timeout);
    let hashed = annotations.key(HASH_HEADER);
    let policy = annotations.key(BALANCE);
    let policy = policy.text().and_then(|text| BalancePolicy::parse(text));
    if hashed.text().is_some() && policy != Some(BalancePolicy::Maglev) {
        hashed.warn("has no effect without portico.dev/balance: maglev");
    }
}

/// An annotation that needs an HTTP port. Whose ports slices or a flag may say more about, is left alone.
fn check_http(
    annotations: &Cursor<'_>,
    service: &Service,
    (key, form): (&str, &str),
    is_good: impl Fn(&str) -> bool,
) {
    let annotation = annotations.key(key);
    let Some(text) = annotation.text() else {
        return;
    };
    if !is_good(text) {
        annotation.warn(&format!(
            "Invalid value: {}: {form}; it is ignored",
            annotation.shown()
        ));
        return;
    }
    let labels = annotations.labels();
    let is_http = |port| {
        let app = Application::of(port, &[], &labels, PortNames::Honoured);
        app.protocol.is_http()
    };
    if !service.selector.is_empty() && !service.ports.iter().any(is_http) {
        annotation.warn("has no effect without an HTTP port (appProtocol: http)");
    }
}

fn check_protocol(annotations: &Cursor<'_>, service: &Service) {
    let annotation = annotations.key(PROTOCOL);
    let Some(text) = annotation.text() else {
        return;
    };
    let Some(wanted) = Wanted::parse(text) else {
        annotation.warn(&format!(
            "Invalid value: {}: {PROTOCOLS}; it is ignored",
            annotation.shown()
        ));
        return;
    };
    let is_tcp = |name: &str| {
        let mut ports = service.ports.iter();
        ports.any(|port| *port.name == *name && port.protocol == Protocol::Tcp)
    };
    let strangers: Vec<&str> = wanted.names().filter(|name| !is_tcp(name)).collect();
    if strangers.is_empty() {
        check_effect(&annotation, service);
    } else {
        annotation.warn(&format!("names no TCP port: {}", strangers.join(", ")));
    }
}
