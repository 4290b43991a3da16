//! Pods and pod specs: reading and defaults.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::cursor::Cursor;
use crate::object::{
    pod::{Container, ContainerPort, DEFAULT_GRACE, Pod, PodSpec, Probe, ProbeCheck},
    service::TargetPort,
    validate::{
        balancing,
        pod::{self as rules, Owner},
        syntax,
    },
};

/// Reads a whole Pod. What it returns is good only if nothing was reported.
pub(super) fn read(object: &Cursor<'_>) -> Pod {
    let (meta, status) = (object.field("metadata"), object.field("status"));
    balancing::check_pod(&meta.field("annotations"));
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
        node_selector: spec.field("nodeSelector").labels(),
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
        backends: backends(&item.field("env")),
        readiness: probe(&item.field("readinessProbe")),
        liveness: probe(&item.field("livenessProbe")),
        startup: probe(&item.field("startupProbe")),
    }
}

/// A probe with its defaults; 0 is Go's way of saying that a number is absent. What is wrong has been reported.
fn probe(field: &Cursor<'_>) -> Option<Arc<Probe>> {
    let number = |name: &str, default: u32| {
        let given = field.field(name).int().and_then(|n| u32::try_from(n).ok());
        given.filter(|number| *number > 0).unwrap_or(default)
    };
    let seconds = |name: &str, default: u32| Duration::from_secs(u64::from(number(name, default)));
    let grace = field.field("terminationGracePeriodSeconds");
    let grace = grace.int().and_then(|seconds| u64::try_from(seconds).ok());
    Some(Arc::new(Probe {
        check: probe_check(field)?,
        initial_delay: seconds("initialDelaySeconds", 0),
        timeout: seconds("timeoutSeconds", 1),
        period: seconds("periodSeconds", 10),
        success_threshold: number("successThreshold", 1),
        failure_threshold: number("failureThreshold", 3),
        termination_grace: grace.map(Duration::from_secs),
    }))
}

fn probe_check(probe: &Cursor<'_>) -> Option<ProbeCheck> {
    let (http, tcp) = (probe.field("httpGet"), probe.field("tcpSocket"));
    let grpc = probe.field("grpc");
    if probe.field("exec").is_present() {
        return Some(ProbeCheck::Exec);
    }
    if http.is_present() {
        let list = http.field("httpHeaders");
        let text = |item: &Cursor<'_>, name: &str| item.field(name).text().cloned();
        let header = |item: Cursor<'_>| {
            (
                text(&item, "name").unwrap_or_default(),
                text(&item, "value").unwrap_or_default(),
            )
        };
        return Some(ProbeCheck::HttpGet {
            path: http_path(http.field("path").non_empty()),
            port: probe_port(&http)?,
            host: http.field("host").non_empty().cloned(),
            https: text(&http, "scheme").as_deref() == Some("HTTPS"),
            headers: list.items().map(header).collect(),
        });
    }
    if tcp.is_present() {
        return Some(ProbeCheck::TcpSocket {
            port: probe_port(&tcp)?,
            host: tcp.field("host").non_empty().cloned(),
        });
    }
    let port = grpc.field("port").int().and_then(|n| u16::try_from(n).ok());
    Some(ProbeCheck::Grpc {
        port: port.filter(|_| grpc.is_present())?,
        service: grpc.field("service").text().cloned().unwrap_or_default(),
    })
}

/// kubelet asks for `/healthy` too when `healthy` is given.
fn http_path(given: Option<&Arc<str>>) -> Arc<str> {
    match given {
        None => "/".into(),
        Some(path) if path.starts_with('/') => Arc::clone(path),
        Some(path) => format!("/{path}").into(),
    }
}

fn probe_port(handler: &Cursor<'_>) -> Option<TargetPort> {
    let port = handler.field("port");
    if let Some(name) = port.text() {
        return Some(TargetPort::Name(Arc::clone(name)));
    }
    let number = u16::try_from(port.int()?).ok()?;
    Some(TargetPort::Number(number))
}

/// Ports behind `localhost` in values of the environment.
fn backends(env: &Cursor<'_>) -> Vec<u16> {
    let port = |item: Cursor<'_>| {
        let value = item.field("value");
        let (_, rest) = value.text()?.split_once("localhost:")?;
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest.get(..digits)?.parse().ok()
    };
    env.items().filter_map(port).collect()
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
