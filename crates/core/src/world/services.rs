//! Services joined with their endpoints: the controllers' part of a cluster (endpoints from pods, mirroring of
//! legacy Endpoints). Owns the joined records; allocation and selection belong to others. Semantics: Kubernetes'
//! EndpointSlice controller and its mirroring controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    addresses::Addresses,
    pods::{SimulatedPod, WantedPort},
};
use crate::{
    object::{
        AddressType, Conditions, EndpointSlice, Hints, Labels, Object, Pod, PodSpec, Protocol,
        Service, ServicePort, SliceEndpoint, SlicePort, TargetPort, Weight,
        endpoints::{EndpointSubset, Endpoints},
        service::{HEADLESS_LABEL, IpFamily, SERVICE_PROXY_NAME_LABEL},
        workload::selects,
    },
    snapshot::service_path,
};

/// A Service with all that belongs to it.
#[derive(Debug, Clone)]
pub struct ServiceRecord {
    /// The version in force.
    pub object: Arc<Object>,
    /// Its spec.
    pub spec: Arc<Service>,
    /// What it got.
    pub addresses: Addresses,
    /// Slices: written ones by name, then mirrored, then derived ones.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Addresses and ports that an earlier Service has claimed, with that Service.
    pub lost: Vec<(IpAddr, u16, Protocol, Arc<str>)>,
}

impl ServiceRecord {
    /// Whether its labels keep this proxy from serving its addresses.
    pub fn is_left_to_another_proxy(&self) -> bool {
        let labels = &self.object.meta.labels;
        labels.contains_key(SERVICE_PROXY_NAME_LABEL) || labels.contains_key(HEADLESS_LABEL)
    }
}

/// A pod as endpoints see it, whether it runs elsewhere or in simulation.
pub struct PodEndpoint<'a> {
    name: &'a Arc<str>,
    spec: &'a PodSpec,
    addresses: Vec<IpAddr>,
    conditions: Conditions,
    node: Option<Arc<str>>,
    weight: Weight,
    simulated: Option<&'a SimulatedPod>,
}

impl<'a> PodEndpoint<'a> {
    /// A pod of a manifest that has an address; `None` for one without, or one that has finished. `probed` is what its
    /// probes say, if any are run; else its condition `Ready` counts.
    pub fn declared(name: &'a Arc<str>, pod: &'a Pod, probed: Option<bool>) -> Option<Self> {
        if pod.pod_ips.is_empty() || pod.finished {
            return None;
        }
        let serving = probed.or(pod.ready).unwrap_or(true);
        Some(Self {
            name,
            spec: &pod.spec,
            addresses: pod.pod_ips.clone(),
            conditions: Conditions {
                ready: serving && !pod.terminating,
                serving,
                terminating: pod.terminating,
            },
            node: pod.spec.node_name.clone(),
            weight: Weight::default(),
            simulated: None,
        })
    }

    /// The same pod with the weight that its annotations give it.
    pub fn weighed_by(self, annotations: &Labels) -> Self {
        Self {
            weight: Weight::of(annotations).unwrap_or_default(),
            ..self
        }
    }

    /// A simulated pod. It stops accepting when its end begins, so it does not serve while terminating.
    pub fn simulated(pod: &'a SimulatedPod) -> Self {
        let ready = pod.is_ready();
        Self {
            name: &pod.name,
            spec: &pod.spec,
            addresses: vec![pod.ip],
            conditions: Conditions {
                ready,
                serving: ready,
                terminating: pod.is_terminating(),
            },
            node: Some(Arc::clone(&pod.node)),
            weight: Weight::of(&pod.annotations).unwrap_or_default(),
            simulated: Some(pod),
        }
    }

    /// The pod's number for a Service port; `None` when it has no container port of that name.
    fn resolve(&self, port: &ServicePort) -> Option<u16> {
        let number = match &port.target_port {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => self.spec.port_named(name, port.protocol)?,
        };
        let wanted = WantedPort {
            number,
            protocol: port.protocol,
        };
        Some(self.simulated.map_or(number, |pod| pod.bound(wanted)))
    }

    fn slice_ports(&self, service: &Service) -> Vec<SlicePort> {
        let resolved = service
            .ports
            .iter()
            .filter_map(|port| Some((port, self.resolve(port)?)));
        resolved
            .map(|(port, number)| SlicePort {
                name: Arc::clone(&port.name),
                protocol: port.protocol,
                port: Some(number),
                app_protocol: port.app_protocol.clone(),
            })
            .collect()
    }

    fn endpoint(&self, address: IpAddr, service_name: &str, service: &Service) -> SliceEndpoint {
        let mut conditions = self.conditions;
        conditions.ready |= service.publish_not_ready_addresses;
        let named = self.spec.subdomain.as_deref() == Some(service_name);
        SliceEndpoint {
            address: Some(address),
            conditions,
            hostname: self.spec.hostname.clone().filter(|_| named),
            node_name: self.node.clone(),
            zone: None,
            pod_name: Some(Arc::clone(self.name)),
            hints: Hints::default(),
            weight: self.weight,
        }
    }
}

/// Slices for the pods that a Service selects: one for every combination of port numbers and family, of the Service's
/// own families.
pub fn slices_of_pods(
    name: &Arc<str>,
    (service, families): (&Service, &[IpFamily]),
    pods: &[PodEndpoint<'_>],
) -> Vec<Arc<EndpointSlice>> {
    let mut groups: BTreeMap<(IpFamily, Vec<SlicePort>), Vec<SliceEndpoint>> = BTreeMap::new();
    for pod in pods {
        let ports = pod.slice_ports(service);
        let of_families = |address: &&IpAddr| families.contains(&IpFamily::of(**address));
        for address in pod.addresses.iter().filter(of_families) {
            let group = groups
                .entry((IpFamily::of(*address), ports.clone()))
                .or_default();
            group.push(pod.endpoint(*address, name, service));
        }
    }
    groups
        .into_iter()
        .map(|((family, ports), mut endpoints)| {
            endpoints.sort_by_key(|endpoint| endpoint.address);
            Arc::new(slice(name, family, ports, endpoints))
        })
        .collect()
}

/// Slices for legacy Endpoints: one a subset and family.
pub fn mirrored(name: &Arc<str>, endpoints: &Endpoints) -> Vec<Arc<EndpointSlice>> {
    if endpoints.skip_mirror {
        return Vec::new();
    }
    endpoints
        .subsets
        .iter()
        .flat_map(|subset| mirrored_subset(name, subset))
        .collect()
}

fn mirrored_subset(name: &Arc<str>, subset: &EndpointSubset) -> Vec<Arc<EndpointSlice>> {
    [IpFamily::IPv4, IpFamily::IPv6]
        .into_iter()
        .filter_map(|family| {
            let of_family =
                |endpoint: &&SliceEndpoint| endpoint.address.map(IpFamily::of) == Some(family);
            let endpoints: Vec<SliceEndpoint> =
                subset.endpoints.iter().filter(of_family).cloned().collect();
            let slice = || Arc::new(slice(name, family, subset.ports.clone(), endpoints.clone()));
            (!endpoints.is_empty()).then(slice)
        })
        .collect()
}

fn slice(
    name: &Arc<str>,
    family: IpFamily,
    ports: Vec<SlicePort>,
    endpoints: Vec<SliceEndpoint>,
) -> EndpointSlice {
    let address_type = match family {
        IpFamily::IPv4 => AddressType::IPv4,
        IpFamily::IPv6 => AddressType::IPv6,
    };
    EndpointSlice {
        is_for_another_proxy: false,
        service_name: Some(Arc::clone(name)),
        address_type,
        ports,
        endpoints,
    }
}

/// Namespace, label, value.
type LabelKey = (Arc<str>, Arc<str>, Arc<str>);

/// Which pods a Service may select and which Services a pod concerns, found by one label instead of by asking all.
#[derive(Debug, Clone, Default)]
pub struct LabelIndex {
    by_label: BTreeMap<LabelKey, BTreeSet<Arc<str>>>,
}

impl LabelIndex {
    /// Enters `name` under every pair of `labels`.
    pub fn insert(&mut self, namespace: &Arc<str>, labels: &Labels, name: &Arc<str>) {
        for (label, value) in labels {
            let key = (Arc::clone(namespace), Arc::clone(label), Arc::clone(value));
            self.by_label
                .entry(key)
                .or_default()
                .insert(Arc::clone(name));
        }
    }

    /// Takes `name` away from every pair of `labels`.
    pub fn remove(&mut self, namespace: &Arc<str>, labels: &Labels, name: &Arc<str>) {
        for (label, value) in labels {
            let key = (Arc::clone(namespace), Arc::clone(label), Arc::clone(value));
            if let Some(names) = self.by_label.get_mut(&key) {
                names.remove(name);
                if names.is_empty() {
                    self.by_label.remove(&key);
                }
            }
        }
    }

    /// Names under one pair.
    pub fn get(
        &self,
        namespace: &Arc<str>,
        label: &Arc<str>,
        value: &Arc<str>,
    ) -> impl Iterator<Item = &Arc<str>> {
        let key = (Arc::clone(namespace), Arc::clone(label), Arc::clone(value));
        self.by_label.get(&key).into_iter().flatten()
    }
}

/// The numbers that the Services which select a pod with `labels` send to.
pub fn target_ports(
    services: &LabelIndex,
    records: &BTreeMap<Arc<str>, Arc<ServiceRecord>>,
    namespace: &Arc<str>,
    labels: &Labels,
) -> Vec<WantedPort> {
    let near = labels
        .iter()
        .flat_map(|(label, value)| services.get(namespace, label, value));
    let near = near.filter_map(|name| records.get(&*service_path(namespace, name)));
    let selecting = near.filter(|record| selects(&record.spec.selector, labels));
    let ports = selecting.flat_map(|record| &record.spec.ports);
    let numbers = ports.filter_map(|port| match port.target_port {
        TargetPort::Number(number) => Some(WantedPort {
            number,
            protocol: port.protocol,
        }),
        TargetPort::Name(_) => None,
    });
    let numbers: BTreeSet<WantedPort> = numbers.collect();
    numbers.into_iter().collect()
}

/// The one pair of a selector under which a Service is indexed: the first.
pub fn index_pair(selector: &Labels) -> Labels {
    selector
        .iter()
        .take(1)
        .map(|(label, value)| (Arc::clone(label), Arc::clone(value)))
        .collect()
}
