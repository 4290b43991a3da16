//! Services with the addresses and ports that they got. Owns the defaults of `v1` Service (`SetDefaults_Service` and
//! the allocation of families in the Service registry of the API server).

use std::net::IpAddr;

use portico_core::{
    object::{Kind, ObjectKey, Protocol, Service, ServiceType, service::IpFamily},
    world::{ServiceRecord, allocate::nth},
};
use serde_json::{Value, json};

use super::{
    Resource, View,
    json::{Fields, fields, fill, fill_pointer, set, text, within},
    meta,
};

pub(super) fn list(view: View<'_>) -> Vec<Fields> {
    let records = view.world.services().values();
    let mut services: Vec<Fields> = records.map(|record| service(view, record)).collect();
    services.extend(api_server(view));
    services
}

/// The Service `kubernetes` that every cluster has; its address is reserved here too. Nobody answers at it.
fn api_server(view: View<'_>) -> Option<Fields> {
    let key = ObjectKey {
        kind: Kind::Service,
        namespace: "default".into(),
        name: "kubernetes".into(),
    };
    if view.world.services().contains_key("default/kubernetes") {
        return None;
    }
    let address = nth(view.world.cluster().service_cidr, 1);
    let mut service = meta::made(view, Resource::Services, (&key.namespace, &key.name));
    within(&mut service, "metadata", |meta| {
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        set(meta, "labels", labels);
    });
    set(
        &mut service,
        "spec",
        json!({
            "clusterIP": address,
            "clusterIPs": [address],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": [IpFamily::of(address).as_str()],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": Protocol::Tcp.as_str(), "targetPort": 6443}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        }),
    );
    set(&mut service, "status", json!({"loadBalancer": {}}));
    Some(service)
}

fn service(view: View<'_>, record: &ServiceRecord) -> Fields {
    let mut service = meta::declared(view, Resource::Services, &record.object);
    within(&mut service, "spec", |spec| {
        fill_spec(spec, &record.spec);
        addresses(spec, record);
        ports(spec, record);
        match record.addresses.health_check_node_port {
            Some(port) => set(spec, "healthCheckNodePort", port),
            None => {
                spec.remove("healthCheckNodePort");
            }
        }
    });
    let ingress = record.addresses.load_balancer_ips.iter();
    let ingress: Vec<Value> = ingress
        .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
        .collect();
    let balancer = if ingress.is_empty() {
        json!({})
    } else {
        json!({"ingress": ingress})
    };
    // What was written is of another cluster.
    set(&mut service, "status", json!({"loadBalancer": balancer}));
    service
}

fn fill_spec(spec: &mut Fields, service: &Service) {
    fill(spec, "type", service.service_type.as_str());
    fill(spec, "sessionAffinity", "None");
    match service.client_ip_affinity {
        Some(timeout) => {
            let config = json!({"clientIP": {"timeoutSeconds": timeout.as_secs()}});
            set(spec, "sessionAffinityConfig", config);
        }
        None => {
            spec.remove("sessionAffinityConfig");
        }
    }
    let external = service.service_type == ServiceType::ClusterIP
        && !service.external_ips.is_empty()
        || service.takes_node_ports();
    if external {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if service.service_type != ServiceType::ExternalName {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if service.service_type == ServiceType::LoadBalancer {
        fill_pointer(spec, "allocateLoadBalancerNodePorts", true);
    }
    for empty in ["selector", "externalIPs", "loadBalancerSourceRanges"] {
        let nothing = |value: &Value| value == &json!({}) || value == &json!([]);
        if spec.get(empty).is_some_and(nothing) {
            spec.remove(empty);
        }
    }
}

/// Cluster IPs and families.
fn addresses(spec: &mut Fields, record: &ServiceRecord) {
    let service = &record.spec;
    if service.service_type == ServiceType::ExternalName {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        return;
    }
    let got = &record.addresses.cluster_ips;
    let first = got.first().map(IpAddr::to_string);
    let first = first.unwrap_or_else(|| "None".to_owned());
    let all = if got.is_empty() {
        json!(["None"])
    } else {
        json!(got)
    };
    set(spec, "clusterIP", first);
    set(spec, "clusterIPs", all);
    set(spec, "ipFamilyPolicy", service.family_policy().as_str());
    let families = record.addresses.families.iter();
    let families: Vec<&str> = families.map(|family| family.as_str()).collect();
    set(spec, "ipFamilies", families);
}

fn ports(spec: &mut Fields, record: &ServiceRecord) {
    let Some(Value::Array(ports)) = spec.get_mut("ports") else {
        return;
    };
    if ports.is_empty() {
        spec.remove("ports");
        return;
    }
    let mut node_ports = record.addresses.node_ports.iter();
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        fill(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        fill(port, "targetPort", number);
        match node_ports.next().copied().flatten() {
            Some(node_port) => set(port, "nodePort", node_port),
            None => {
                port.remove("nodePort");
            }
        }
        if text(port, "name").is_empty() {
            port.remove("name");
        }
    }
}

/// Labels that a Service's slices and Endpoints take over from it.
pub(super) fn inherited_labels(record: &ServiceRecord) -> Fields {
    let mut labels = meta::labels(&record.object.meta.labels);
    labels.remove(portico_core::object::service::HEADLESS_LABEL);
    if !record.spec.has_vip() {
        set(
            &mut labels,
            portico_core::object::service::HEADLESS_LABEL,
            "",
        );
    }
    labels
}

/// A port of a slice or of Endpoints.
pub(super) fn endpoint_port(port: &portico_core::object::SlicePort) -> Fields {
    let mut made = fields(json!({"name": &*port.name, "protocol": port.protocol.as_str()}));
    if let Some(number) = port.port {
        set(&mut made, "port", number);
    }
    if let Some(protocol) = &port.app_protocol {
        set(&mut made, "appProtocol", &**protocol);
    }
    made
}
