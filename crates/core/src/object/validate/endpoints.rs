//! Rules of EndpointSlice and Endpoints that concern several fields together.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    address::{self, Fault},
    leaf::PORT_RANGE,
    syntax::{self, Broken},
};
use crate::object::{decode::cursor::Cursor, endpoints::AddressType};

/// Most entries of a slice (`discovery.k8s.io/v1` EndpointSlice).
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 100;
const MAX_HINTS: usize = 8;

/// A slice's own limits and the uniqueness of its ports' names.
pub(crate) fn check_slice(slice: &Cursor<'_>) {
    let endpoints = slice.field("endpoints");
    endpoints.at_most(MAX_ENDPOINTS);
    for endpoint in endpoints.items() {
        let hints = endpoint.field("hints");
        check_hints(&hints.field("forZones"), syntax::label_value);
        check_hints(&hints.field("forNodes"), syntax::subdomain);
    }
    let ports = slice.field("ports");
    ports.at_most(MAX_PORTS);
    let mut names = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        let text = name.text().map_or("", |text| text);
        if !names.insert(text.to_owned()) {
            name.duplicate(&format!("{text:?}"));
        }
    }
}

/// Names of zones or nodes: few, each once, and such as those may have.
fn check_hints(list: &Cursor<'_>, rule: fn(&str) -> Broken) {
    list.at_most(MAX_HINTS);
    let mut seen = BTreeSet::new();
    for item in list.items().take(MAX_HINTS) {
        let name = item.field("name");
        let text = name.text().map_or("", |text| text);
        if !seen.insert(text.to_owned()) {
            name.duplicate(&format!("{text:?}"));
        }
        for why in rule(text) {
            name.error(format!("Invalid value: {text:?}: {why}"));
        }
    }
}

/// The addresses of one endpoint of a slice; the first one if all are good.
pub(crate) fn check_addresses(
    addresses: &Cursor<'_>,
    address_type: Option<AddressType>,
) -> Option<IpAddr> {
    if addresses.len() == 0 {
        addresses.required("must contain at least 1 address");
    }
    addresses.at_most(MAX_ADDRESSES);
    let mut first = None;
    for (index, item) in addresses.items().enumerate() {
        let addr = check_address(&item, address_type);
        if index == 0 {
            first = addr;
        }
    }
    first
}

fn check_address(item: &Cursor<'_>, address_type: Option<AddressType>) -> Option<IpAddr> {
    let Some(text) = item.text() else {
        item.required("");
        return None;
    };
    let why = match (address_type?, address::parse(text)) {
        (AddressType::IPv4, Ok(IpAddr::V4(_))) | (AddressType::IPv6, Ok(IpAddr::V6(_))) => {
            return item.reachable_address();
        }
        (AddressType::Fqdn, _) => {
            for why in syntax::subdomain(text.strip_suffix('.').unwrap_or(text)) {
                item.invalid(why);
            }
            if !text.contains('.') {
                item.invalid("should be a domain with at least two segments separated by dots");
            }
            return None;
        }
        (_, Err(fault @ (Fault::LeadingZeros | Fault::Mapped))) => fault.as_str(),
        (AddressType::IPv4, _) => "must be a valid IPv4 address",
        (AddressType::IPv6, _) => "must be a valid IPv6 address",
    };
    item.invalid(why);
    None
}

/// One subset of legacy Endpoints.
pub(crate) fn check_subset(subset: &Cursor<'_>) {
    if subset.field("addresses").len() + subset.field("notReadyAddresses").len() == 0 {
        subset.required("must specify `addresses` or `notReadyAddresses`");
    }
    let ports = subset.field("ports");
    for port in ports.items() {
        let (name, number) = (port.field("name"), port.field("port"));
        if ports.len() > 1 && name.non_empty().is_none() {
            name.required("");
        }
        match number.int() {
            _ if !number.is_present() => number.required(""),
            // Other numbers out of range are told where they are read.
            Some(0) => number.invalid(PORT_RANGE),
            _ => {}
        }
    }
}
