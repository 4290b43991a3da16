//! Our annotations about limits: a value that cannot be read or that comes to nothing. Both are warnings: there is no
//! limit then.

use super::proxy_protocol::check_effect;
use crate::object::{
    annotations::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ENDPOINT},
    decode::cursor::Cursor,
    limits::{LIMITS, parse},
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    for key in [MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ENDPOINT] {
        let wanted = annotations.key(key);
        let Some(text) = wanted.text() else { continue };
        if parse(text).is_none() {
            wanted.warn(&format!(
                "Invalid value: {}: {LIMITS}; there is no limit",
                wanted.shown()
            ));
        } else {
            check_effect(&wanted, service);
        }
    }
}
