//! A Service with its endpoints. Owns kubectl's part of the layout; our block is `listeners`.

use serde_json::Value;

use super::{
    Related, events,
    json::{at, items, name, namespace, number, pairs, scalar, text, texts},
    listeners,
    meta::{self, NONE, UNSET, or_none},
    writer::Writer,
};
use crate::{cli::draining, objects::Resource};

/// Most endpoints that are named.
const MOST_ENDPOINTS: usize = 3;

/// A Service.
pub(super) fn describe(out: &mut Writer, service: &Value, related: &Related) {
    meta::name(out, service);
    meta::labels_and_annotations(out, service);
    let selector = pairs(service, "/spec/selector");
    out.pair(0, "Selector", meta::joined(&selector));
    addresses(out, service);
    for port in items(service, "/spec/ports") {
        write_port(out, service, port, related);
    }
    out.pair(
        0,
        "Session Affinity",
        text(service, "/spec/sessionAffinity"),
    );
    out.pair_if(
        0,
        "External Traffic Policy",
        text(service, "/spec/externalTrafficPolicy"),
    );
    out.pair_if(
        0,
        "Internal Traffic Policy",
        text(service, "/spec/internalTrafficPolicy"),
    );
    match number(service, "/spec/healthCheckNodePort") {
        0 => {}
        port => out.pair(0, "HealthCheck NodePort", port),
    }
    let ranges = texts(service, "/spec/loadBalancerSourceRanges").join(",");
    out.pair_if(0, "LoadBalancer Source Ranges", &ranges);
    out.pair_if(
        0,
        "Traffic Distribution",
        text(service, "/spec/trafficDistribution"),
    );
    listeners::write(out, service, &related.listeners);
    let connections = &related.connections;
    for line in draining::lines(connections, namespace(service), name(service), related.now) {
        out.pair(1, "Draining", &line);
    }
    events::write(out, Resource::Services, service, related);
}

fn addresses(out: &mut Writer, service: &Value) {
    out.pair(0, "Type", text(service, "/spec/type"));
    if at(service, "/spec/ipFamilyPolicy").is_some() {
        let policy = text(service, "/spec/ipFamilyPolicy");
        out.pair(0, "IP Family Policy", policy);
    }
    let list = |path: &str| texts(service, path).join(",");
    out.pair(0, "IP Families", or_none(list("/spec/ipFamilies")));
    out.pair(0, "IP", text(service, "/spec/clusterIP"));
    out.pair(0, "IPs", or_none(list("/spec/clusterIPs")));
    out.pair_if(0, "External IPs", &list("/spec/externalIPs"));
    let desired = text(service, "/spec/loadBalancerIP");
    out.pair_if(0, "Desired LoadBalancer IP", desired);
    out.pair_if(0, "External Name", text(service, "/spec/externalName"));
    let ingress = items(service, "/status/loadBalancer/ingress").iter();
    let ingress: Vec<String> = ingress
        .map(|one| match (text(one, "/ip"), text(one, "/ipMode")) {
            ("", _) => text(one, "/hostname").to_owned(),
            (ip, "") => ip.to_owned(),
            (ip, mode) => format!("{ip} ({mode})"),
        })
        .collect();
    out.pair_if(0, "LoadBalancer Ingress", &ingress.join(", "));
}

fn write_port(out: &mut Writer, service: &Value, port: &Value, related: &Related) {
    let name = text(port, "/name");
    let shown = if name.is_empty() { UNSET } else { name };
    let protocol = text(port, "/protocol");
    let number_of = |path: &str| format!("{}/{protocol}", number(port, path));
    out.pair(0, "Port", format_args!("{shown}\t{}", number_of("/port")));
    let target = scalar(port, "/targetPort").to_string();
    let target = if target.is_empty() { "0" } else { &target };
    out.pair(0, "TargetPort", format_args!("{target}/{protocol}"));
    if number(port, "/nodePort") != 0 {
        let node_port = number_of("/nodePort");
        out.pair(0, "NodePort", format_args!("{shown}\t{node_port}"));
    }
    out.pair(0, "Endpoints", endpoints(service, name, related));
}

/// Ready addresses behind the port of this name, the first three of them.
fn endpoints(service: &Value, port_name: &str, related: &Related) -> String {
    let mut own = related
        .slices
        .iter()
        .filter(|slice| is_of(slice, service))
        .peekable();
    if own.peek().is_none() {
        return NONE.to_owned();
    }
    let mut named: Vec<String> = Vec::new();
    let (mut ready, mut is_cut) = (0, false);
    for (endpoint, number) in own.flat_map(|slice| at_port(slice, port_name)) {
        // kubectl says "more" as soon as it looks at a fourth endpoint, ready or not.
        is_cut |= named.len() == MOST_ENDPOINTS;
        if at(endpoint, "/conditions/ready").is_some_and(|ready| ready == &Value::Bool(false)) {
            continue;
        }
        ready += 1;
        if !is_cut {
            let addr = text(endpoint, "/addresses/0");
            named.push(match number {
                None => addr.to_owned(),
                Some(port) if addr.contains([':', '%']) => format!("[{addr}]:{port}"),
                Some(port) => format!("{addr}:{port}"),
            });
        }
    }
    let more = ready - named.len();
    let named = named.join(",");
    if is_cut {
        format!("{named} + {more} more...")
    } else {
        named
    }
}

/// Endpoints of a slice with the number of the port of this name. A slice without ports gives its addresses alone, as
/// headless Services have them.
fn at_port<'a>(
    slice: &'a Value,
    port_name: &str,
) -> impl Iterator<Item = (&'a Value, Option<i64>)> + use<'a> {
    let ports = items(slice, "/ports");
    let numbers: Vec<Option<i64>> = if ports.is_empty() {
        vec![None]
    } else {
        let same = ports.iter().filter(|port| text(port, "/name") == port_name);
        same.map(|port| Some(number(port, "/port"))).collect()
    };
    numbers.into_iter().flat_map(move |number| {
        items(slice, "/endpoints")
            .iter()
            .map(move |endpoint| (endpoint, number))
    })
}

fn is_of(slice: &Value, service: &Value) -> bool {
    namespace(slice) == namespace(service)
        && pairs(slice, "/metadata/labels").get("kubernetes.io/service-name")
            == Some(&name(service))
}
