//! Our annotation about what is spoken on ports: a value that cannot be read, or names no TCP port. Both are warnings: such
//! ports are as if nothing were said.

use super::proxy_protocol::check_effect;
use crate::object::{
    Protocol,
    annotations::PROTOCOL,
    app_protocol::{PROTOCOLS, Wanted},
    decode::cursor::Cursor,
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
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
