//! What `healthCheckNodePort` answers: whether this node has ready endpoints of a Service (Kubernetes documentation,
//! "Create an External Load Balancer"). Owns the count and the words; the socket is the data path's.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Cluster, ServiceView};
use crate::object::AddressType;

/// The answer about one Service, as it stands in a Snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub service: Arc<str>,
    /// Ready endpoints on this node, each address once. Terminating ones do not count, so that load balancers leave
    /// while those still serve.
    pub local_endpoints: usize,
}

impl HealthCheck {
    /// The answer about `service` on the node of `cluster`.
    pub(super) fn of(service: &ServiceView, cluster: &Cluster) -> Self {
        let slices = service.slices.iter();
        let usable = slices
            .filter(|slice| slice.address_type != AddressType::Fqdn && !slice.ports.is_empty());
        let local = usable
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| {
                let node = endpoint.node_name.as_deref();
                endpoint.conditions.ready && node.is_none_or(|node| node == &*cluster.node_name)
            });
        let addresses: BTreeSet<IpAddr> = local.filter_map(|endpoint| endpoint.address).collect();
        Self {
            namespace: Arc::clone(&service.namespace),
            service: Arc::clone(&service.name),
            local_endpoints: addresses.len(),
        }
    }

    /// HTTP status code: 200 while this node has ready endpoints, else 503.
    pub const fn status(&self) -> u16 {
        if self.local_endpoints > 0 { 200 } else { 503 }
    }

    /// The body, as Kubernetes' proxy writes it.
    pub fn body(&self) -> String {
        format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {},\n\t\"serviceProxyHealthy\": true\n}}",
            self.namespace, self.service, self.local_endpoints
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_indented_by_tabs_as_in_kubernetes() {
        let check = HealthCheck {
            namespace: "ns".into(),
            service: "svc".into(),
            local_endpoints: 2,
        };
        let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"svc\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!((check.status(), check.body()), (200, expected.to_owned()));
        let none = HealthCheck {
            local_endpoints: 0,
            ..check
        };
        assert_eq!(none.status(), 503);
    }
}
