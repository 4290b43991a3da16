//! Endpoints and EndpointSlices. Owns their layout.

use serde_json::Value;

use super::{
    Related, events,
    json::{at, items, number, scalar, text, texts},
    meta::{self, UNSET, or_none},
    writer::Writer,
};
use crate::objects::Resource;

/// Endpoints, the older form.
pub(super) fn endpoints(out: &mut Writer, endpoints: &Value, related: &Related) {
    meta::name(out, endpoints);
    meta::labels_and_annotations(out, endpoints);
    out.line(0, "Subsets:");
    for subset in items(endpoints, "/subsets") {
        for (title, path) in [
            ("Addresses", "/addresses"),
            ("NotReadyAddresses", "/notReadyAddresses"),
        ] {
            let addrs: Vec<&str> = items(subset, path)
                .iter()
                .map(|addr| text(addr, "/ip"))
                .collect();
            out.pair(1, title, or_none(addrs.join(",")));
        }
        let ports = items(subset, "/ports");
        if !ports.is_empty() {
            out.line(1, "Ports:");
            out.line(2, "Name\tPort\tProtocol");
            out.line(2, "----\t----\t--------");
        }
        for port in ports {
            let (name, number) = (or_unset(text(port, "/name")), number(port, "/port"));
            let protocol = text(port, "/protocol");
            out.line(2, format_args!("{name}\t{number}\t{protocol}"));
        }
        out.line(0, "");
    }
    events::write(out, Resource::Endpoints, endpoints, related);
}

/// An EndpointSlice.
pub(super) fn slice(out: &mut Writer, slice: &Value, related: &Related) {
    meta::name(out, slice);
    meta::labels_and_annotations(out, slice);
    out.pair(0, "AddressType", text(slice, "/addressType"));
    let ports = items(slice, "/ports");
    if ports.is_empty() {
        out.line(0, "Ports: <unset>");
    } else {
        out.line(0, "Ports:");
        out.line(1, "Name\tPort\tProtocol");
        out.line(1, "----\t----\t--------");
    }
    for port in ports {
        let number = scalar(port, "/port").to_string();
        let (name, number) = (or_unset(text(port, "/name")), or_unset(&number));
        let protocol = text(port, "/protocol");
        out.line(1, format_args!("{name}\t{number}\t{protocol}"));
    }
    let endpoints = items(slice, "/endpoints");
    if endpoints.is_empty() {
        out.line(0, "Endpoints: <none>");
    } else {
        out.line(0, "Endpoints:");
    }
    for endpoint in endpoints {
        write_endpoint(out, endpoint);
    }
    events::write(out, Resource::EndpointSlices, slice, related);
}

fn write_endpoint(out: &mut Writer, endpoint: &Value) {
    let addrs = texts(endpoint, "/addresses").join(", ");
    out.pair(1, "- Addresses", or_none(addrs));
    out.line(2, "Conditions:");
    let show =
        |path: &str| at(endpoint, path).map_or(UNSET.to_owned(), |it| scalar(it, "").to_string());
    out.pair(3, "Ready", show("/conditions/ready"));
    out.pair(2, "Hostname", show("/hostname"));
    if let Some(target) = at(endpoint, "/targetRef") {
        let (kind, name) = (text(target, "/kind"), text(target, "/name"));
        out.pair(2, "TargetRef", format_args!("{kind}/{name}"));
    }
    out.pair(2, "NodeName", show("/nodeName"));
    out.pair(2, "Zone", show("/zone"));
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { UNSET } else { text }
}
