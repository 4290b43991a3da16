//! Our annotation about draining: a value that cannot be read or that comes to nothing. Both are warnings: the default
//! stands in.

use crate::object::{
    annotations::{DRAIN_TIMEOUT, TIMEOUTS, timeout},
    decode::cursor::Cursor,
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    let wanted = annotations.key(DRAIN_TIMEOUT);
    let Some(text) = wanted.text() else { return };
    if timeout(text).is_none() {
        wanted.warn(&format!(
            "Invalid value: {}: {TIMEOUTS}; connections last as long as they like",
            wanted.shown()
        ));
    } else if !service.has_vip() {
        wanted.warn(
            "has no effect on a Service without a virtual address: clients connect by themselves",
        );
    }
}
