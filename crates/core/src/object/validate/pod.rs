//! Rules of pod specs that concern several fields together.

use std::collections::BTreeSet;

use super::syntax;
use crate::object::decode::cursor::Cursor;

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const TIMES: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];

/// Whose pod spec it is: the API server allows a Pod more than a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A Pod.
    Pod,
    /// A Deployment or ReplicaSet.
    Template,
}

/// Everything about a pod's `spec` that is not read into the typed object.
pub(crate) fn check(spec: &Cursor<'_>, owner: Owner) {
    let containers = spec.field("containers");
    if containers.len() == 0 {
        containers.required("");
    }
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        let list = spec.field(list);
        for container in list.items() {
            check_container(&container, &mut names);
        }
    }
    let restart = spec.field("restartPolicy");
    match owner {
        Owner::Pod => drop(restart.one_of(&[("Always", ()), ("OnFailure", ()), ("Never", ())])),
        Owner::Template => drop(restart.one_of(&[("Always", ())])),
    }
}

fn check_container(container: &Cursor<'_>, names: &mut BTreeSet<String>) {
    let name = container.field("name");
    match name.named(syntax::label) {
        None => name.required(""),
        Some(text) if !names.insert(text.to_string()) => name.duplicate(&name.shown()),
        Some(_) => {}
    }
    let image = container.field("image");
    if image.non_empty().is_none() {
        image.warn("Required value in a cluster; nothing here runs it");
    }
    let ports = container.field("ports");
    let mut port_names = BTreeSet::new();
    for port in ports.items() {
        let number = port.field("containerPort");
        if number.int().is_none_or(|number| number == 0) {
            number.required("");
        }
        port.field("hostPort").optional_port();
        let name = port.field("name");
        if let Some(text) = name.non_empty()
            && !port_names.insert(text.to_string())
        {
            name.duplicate(&name.shown());
        }
    }
    for probe in PROBES {
        check_probe(&container.field(probe));
    }
}

fn check_probe(probe: &Cursor<'_>) {
    if !probe.is_present() {
        return;
    }
    let mut given = 0;
    for handler in HANDLERS {
        let handler = probe.field(handler);
        given += usize::from(handler.is_present());
        if given > 1 && handler.is_present() {
            handler.forbidden("may not specify more than 1 handler type");
        }
        let port = handler.field("port");
        port.port();
        port.named(syntax::port_name);
    }
    if given == 0 {
        probe.required("must specify a handler type");
    }
    for field in TIMES {
        probe.field(field).count();
    }
}
