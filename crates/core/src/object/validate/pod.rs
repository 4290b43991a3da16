//! Rules of pod specs that concern several fields together.

use std::collections::BTreeSet;

use super::{leaf::PORT_RANGE, syntax};
use crate::object::decode::cursor::Cursor;

const PROBES: [&str; 3] = ["livenessProbe", READINESS, "startupProbe"];
const READINESS: &str = "readinessProbe";
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
        check_probe(&container.field(probe), probe == READINESS);
    }
}

fn check_probe(probe: &Cursor<'_>, readiness: bool) {
    if !probe.is_present() {
        return;
    }
    let mut given = 0;
    for name in HANDLERS {
        let handler = probe.field(name);
        if !handler.is_present() {
            continue;
        }
        given += 1;
        if given > 1 {
            handler.forbidden("may not specify more than 1 handler type");
        } else {
            check_handler(&handler, name);
        }
    }
    if given == 0 {
        probe.required("must specify a handler type");
    }
    for field in TIMES {
        probe.field(field).count();
    }
    let successes = probe.field("successThreshold");
    // 0 is Go's way of saying that it is absent.
    if !readiness && !matches!(successes.int(), None | Some(0 | 1)) {
        successes.invalid("must be 1");
    }
    let grace = probe.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid("must be greater than 0");
    } else {
        grace.count();
    }
    if readiness && grace.is_present() {
        grace.invalid("must not be set for readinessProbes");
    }
}

fn check_handler(handler: &Cursor<'_>, name: &str) {
    if name == "exec" {
        let command = handler.field("command");
        if command.len() == 0 {
            command.required("");
        }
        return;
    }
    let port = handler.field("port");
    match port.text() {
        Some(text) => syntax::port_name(text)
            .into_iter()
            .for_each(|why| port.invalid(why)),
        None if port.is_present() => drop(port.port()),
        None => port.error(format!("Invalid value: 0: {PORT_RANGE}")),
    }
    let scheme = handler.field("scheme");
    scheme.one_of(&[("HTTP", ()), ("HTTPS", ())]);
    let headers = handler.field("httpHeaders");
    for header in headers.items() {
        let name = header.field("name");
        for why in syntax::header_name(name.text().map_or("", AsRef::as_ref)) {
            // The API server points at the list.
            let shown = name
                .text()
                .map_or_else(|| "\"\"".to_owned(), |_| name.shown());
            headers.error(format!("Invalid value: {shown}: {why}"));
        }
    }
}
