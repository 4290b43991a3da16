//! Groups of endpoints under the bound, and that every family of ours is in the table.

use std::{collections::BTreeSet, net::SocketAddr};

use portico_core::{
    balance::EndpointSet,
    object::{Protocol, TrafficPolicy, service::IpFamily},
    snapshot::ServicePortName,
};

use super::*;
use crate::telemetry::metrics::table;

fn port(endpoints: u16) -> PortView {
    let endpoint = |number| Endpoint {
        addr: SocketAddr::from(([10, 0, 0, 1], number)),
        state: Arc::default(),
    };
    let set = Arc::new(EndpointSet::new(
        (1..=endpoints).map(endpoint).collect(),
        None,
    ));
    PortView {
        name: Arc::new(ServicePortName {
            namespace: "default".into(),
            service: "web".into(),
            port: "".into(),
            protocol: Protocol::Tcp,
        }),
        family: IpFamily::IPv4,
        number: 80,
        node_port: None,
        local: Some(Arc::clone(&set)),
        cluster: Some(set),
        any: true,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source: portico_core::object::SourceAddress::Keep,
        app: portico_core::object::Application::default(),
        proxy: portico_core::object::ProxyProtocol::default(),
        state: Arc::default(),
    }
}

#[test]
fn groups_beyond_the_bound_are_one_series_of_their_service() {
    let mut groups = Vec::new();
    let mut room = 4;
    for count in [3, 2, 1] {
        groups_of(&port(count), "a=\"b\"", &mut room, &mut groups);
    }
    let labels: Vec<&str> = groups.iter().map(|group| group.labels.as_str()).collect();
    assert_eq!(
        labels,
        [
            "a=\"b\",endpoint=\"10.0.0.1:1\"",
            "a=\"b\",endpoint=\"10.0.0.1:2\"",
            "a=\"b\",endpoint=\"10.0.0.1:3\"",
            "a=\"b\",endpoint=\"other\"",
            "a=\"b\",endpoint=\"10.0.0.1:1\"",
        ],
        "an endpoint of both sets is one"
    );
    assert_eq!(groups[3].members.len(), 2);
}

#[test]
fn families_of_ports_and_endpoints_are_in_the_table_once() {
    let names: Vec<&str> = PORT
        .iter()
        .map(|(name, _)| *name)
        .chain(ENDPOINT.iter().map(|(name, _)| *name))
        .collect();
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len());
    for metric in table::TABLE {
        let is_ours = metric.name.starts_with("portico_service_")
            || metric.name.starts_with("portico_endpoint_");
        assert_eq!(is_ours, unique.contains(metric.name), "{}", metric.name);
    }
}
