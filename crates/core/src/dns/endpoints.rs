//! The names and addresses of a Service's endpoints. Owns which endpoints DNS shows and what they are called; the
//! records are made by `tree` and `reverse`.

use std::{borrow::Cow, net::IpAddr};

use crate::{
    object::{AddressType, EndpointSlice, SliceEndpoint},
    snapshot::ServiceView,
};

/// An endpoint that DNS shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The slice it is in, for its ports.
    pub slice: &'a EndpointSlice,
    /// Its address.
    pub addr: IpAddr,
    endpoint: &'a SliceEndpoint,
}

impl Shown<'_> {
    /// The first label of its name, in lower case: its hostname, else its address with dashes.
    pub(super) fn label(&self) -> Cow<'_, str> {
        match &self.endpoint.hostname {
            Some(hostname) if hostname.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                Cow::Owned(hostname.to_ascii_lowercase())
            }
            Some(hostname) => Cow::Borrowed(hostname),
            None => Cow::Owned(dashed(self.addr)),
        }
    }

    /// Whether the manifest names it.
    pub(super) fn has_hostname(&self) -> bool {
        self.endpoint.hostname.is_some()
    }
}

/// The endpoints of `service` that are ready, or all where it publishes those that are not. The same address in two
/// slices comes twice.
pub(super) fn shown(service: &ServiceView) -> impl Iterator<Item = Shown<'_>> {
    let all = service.spec.publish_not_ready_addresses;
    let slices = service
        .slices
        .iter()
        .filter(|slice| slice.address_type != AddressType::Fqdn);
    slices.flat_map(move |slice| {
        slice.endpoints.iter().filter_map(move |endpoint| {
            let addr = endpoint
                .address
                .filter(|_| all || endpoint.conditions.ready)?;
            Some(Shown {
                slice,
                addr,
                endpoint,
            })
        })
    })
}

/// `10-1-0-11` for 10.1.0.11, `fd00-10-1--21` for `fd00:10:1::21`. A label must not end in a dash (RFC 1123), so such
/// an address gets a zero behind it.
pub(super) fn dashed(addr: IpAddr) -> String {
    let mut label = addr.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that a label with dashes stands for.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4).ok();
    v4.or_else(|| label.replace('-', ":").parse().map(IpAddr::V6).ok())
}
