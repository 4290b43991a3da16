//! Our annotations about the PROXY protocol: values that cannot be read, trust everybody or come to nothing. All are
//! warnings: what cannot be read is as if it were not there.

use crate::object::{
    Protocol,
    annotations::{ACCEPT_PROXY_PROTOCOL_FROM, PROXY_PROTOCOL},
    decode::cursor::Cursor,
    proxy_protocol::{FRONT_ENDS, VERSIONS, parse_front_ends, parse_version},
    service::Service,
};

/// `metadata.annotations` of a Service.
pub(crate) fn check_service(annotations: &Cursor<'_>, service: &Service) {
    let sending = annotations.key(PROXY_PROTOCOL);
    if let Some(text) = sending.text() {
        if parse_version(text).is_some() {
            check_effect(&sending, service);
        } else {
            let shown = sending.shown();
            sending.warn(&format!(
                "Invalid value: {shown}: {VERSIONS}; no header is sent"
            ));
        }
    }
    let accepting = annotations.key(ACCEPT_PROXY_PROTOCOL_FROM);
    let Some(text) = accepting.text() else { return };
    match parse_front_ends(text) {
        None => accepting.warn(&format!(
            "Invalid value: {}: {FRONT_ENDS}; nobody is trusted",
            accepting.shown()
        )),
        Some(ranges) if ranges.iter().any(|range| range.prefix_len() == 0) => accepting.warn(
            "trusts everybody: any client can claim any address, and clients without a header are reset",
        ),
        Some(_) => check_effect(&accepting, service),
    }
}

/// Whether an annotation about TCP connections comes to anything.
pub(super) fn check_effect(annotation: &Cursor<'_>, service: &Service) {
    if !service.has_vip() {
        annotation.warn(
            "has no effect on a Service without a virtual address: clients connect by themselves",
        );
    } else if service
        .ports
        .iter()
        .all(|port| port.protocol != Protocol::Tcp)
    {
        annotation.warn("has no effect without a TCP port");
    }
}
