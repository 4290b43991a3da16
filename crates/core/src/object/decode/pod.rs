//! Pods and pod specs: reading and defaults.

use std::{net::IpAddr, sync::Arc};

use super::cursor::Cursor;
use crate::{
    object::{
        pod::{Container, ContainerPort, Pod, PodSpec},
        validate::{
            pod::{self as rules, Owner},
            syntax,
        },
    },
    world::pods::DEFAULT_GRACE,
};

/// Reads a whole Pod. What it returns is good only if nothing was reported.
pub(super) fn read(object: &Cursor<'_>) -> Pod {
    let (meta, status) = (object.field("metadata"), object.field("status"));
    let phase = status.field("phase");
    Pod {
        spec: Arc::new(read_spec(&object.field("spec"), Owner::Pod)),
        pod_ips: pod_ips(&status),
        ready: ready(&status.field("conditions")),
        terminating: meta.field("deletionTimestamp").is_present(),
        finished: phase
            .text()
            .is_some_and(|phase| matches!(&**phase, "Succeeded" | "Failed")),
    }
}

/// Reads a `spec`.
pub(super) fn read_spec(spec: &Cursor<'_>, owner: Owner) -> PodSpec {
    rules::check(spec, owner);
    let containers = spec.field("containers");
    PodSpec {
        containers: containers.items().map(|item| container(&item)).collect(),
        hostname: spec.field("hostname").named(syntax::label),
        subdomain: spec.field("subdomain").named(syntax::label),
        node_name: spec.field("nodeName").named(syntax::subdomain),
        termination_grace: spec
            .field("terminationGracePeriodSeconds")
            .seconds()
            .unwrap_or(DEFAULT_GRACE),
    }
}

fn container(item: &Cursor<'_>) -> Container {
    let ports = item.field("ports");
    Container {
        name: item.field("name").text().cloned().unwrap_or_default(),
        image: item.field("image").text().cloned().unwrap_or_default(),
        ports: ports.items().map(|port| container_port(&port)).collect(),
    }
}

fn container_port(port: &Cursor<'_>) -> ContainerPort {
    ContainerPort {
        name: port
            .field("name")
            .named(syntax::port_name)
            .unwrap_or_default(),
        container_port: port
            .field("containerPort")
            .optional_port()
            .unwrap_or_default(),
        protocol: port.field("protocol").protocol(),
    }
}

/// `status.podIPs`, else `status.podIP`.
fn pod_ips(status: &Cursor<'_>) -> Vec<IpAddr> {
    let listed = status.field("podIPs");
    let all: Vec<IpAddr> = listed
        .items()
        .filter_map(|item| item.field("ip").reachable_address())
        .collect();
    let single = status.field("podIP");
    if !all.is_empty() || single.non_empty().is_none() {
        return all;
    }
    single.reachable_address().into_iter().collect()
}

fn ready(conditions: &Cursor<'_>) -> Option<bool> {
    let is_ready = |condition: &Cursor<'_>| {
        condition
            .field("type")
            .text()
            .is_some_and(|text| &**text == "Ready")
    };
    let condition = conditions.items().find(is_ready)?;
    let status = condition.field("status");
    status.text().map(|status| &**status == "True")
}
