//! Our annotation about source addresses: a value that cannot be read or that comes to nothing. Both are warnings: the
//! default stands in.

use crate::object::{
    SourceAddress, annotations::SOURCE_ADDRESS, decode::cursor::Cursor, service::Service,
    source_address::SOURCE_ADDRESSES,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    let wanted = annotations.key(SOURCE_ADDRESS);
    let Some(text) = wanted.text() else { return };
    match SourceAddress::parse(text) {
        None => wanted.warn(&format!(
            "Invalid value: {}: {SOURCE_ADDRESSES}; ours is used",
            wanted.shown()
        )),
        Some(SourceAddress::Keep) if !service.has_vip() => wanted.warn(
            "has no effect on a Service without a virtual address: clients connect by themselves",
        ),
        Some(_) => {}
    }
}
