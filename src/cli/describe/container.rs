//! Containers of a pod or of a template. Owns their layout; what a volume is, `volume` knows.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    json::{at, boolean, items, number, scalar, text, texts},
    meta::{NONE, capital, or_none},
    quantity::{self, Quantity},
    writer::Writer,
};

/// Where containers stand: a pod with its statuses, or a template without.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A pod: fields that the environment refers to are read from it.
    Pod(&'a Value),
    /// A template.
    Template,
}

/// Containers below `label`; `statuses` are found by name.
pub(super) fn write_all(
    out: &mut Writer,
    label: &str,
    containers: &[Value],
    statuses: &[Value],
    place: Place<'_>,
) {
    let (space, indent) = match place {
        Place::Pod(_) => ("", ""),
        Place::Template => ("  ", " "),
    };
    let none = if containers.is_empty() { " <none>" } else { "" };
    out.line(0, format_args!("{space}{label}:{none}"));
    for container in containers {
        let name = text(container, "/name");
        let status = statuses.iter().find(|status| text(status, "/name") == name);
        out.line(1, format_args!("{indent}{name}:"));
        basics(out, container, status);
        command(out, container);
        if let Some(status) = status {
            states(out, status);
        }
        resources(out, 2, at(container, "/resources").unwrap_or(&Value::Null));
        for (title, path) in [
            ("Liveness", "/livenessProbe"),
            ("Readiness", "/readinessProbe"),
            ("Startup", "/startupProbe"),
        ] {
            if let Some(found) = at(container, path) {
                out.pair(2, title, probe(found));
            }
        }
        environment_from(out, container);
        environment(out, container, place);
        mounts(out, container);
    }
}

fn basics(out: &mut Writer, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        out.pair(2, "Container ID", text(status, "/containerID"));
    }
    out.pair(2, "Image", text(container, "/image"));
    if let Some(status) = status {
        out.pair(2, "Image ID", text(status, "/imageID"));
    }
    let ports = items(container, "/ports");
    for (title, path) in [("Port", "/containerPort"), ("Host Port", "/hostPort")] {
        let numbers: Vec<String> = ports
            .iter()
            .map(|port| format!("{}/{}", number(port, path), text(port, "/protocol")))
            .collect();
        let plural = if numbers.len() > 1 { "s" } else { "" };
        out.pair(
            2,
            format_args!("{title}{plural}"),
            or_none(numbers.join(", ")),
        );
    }
    if let Some(profile) = at(container, "/securityContext/seccompProfile") {
        out.pair(2, "SeccompProfile", text(profile, "/type"));
        if text(profile, "/type") == "Localhost" {
            out.pair(3, "LocalhostProfile", text(profile, "/localhostProfile"));
        }
    }
}

fn command(out: &mut Writer, container: &Value) {
    for (title, path) in [("Command", "/command"), ("Args", "/args")] {
        let words = texts(container, path);
        if !words.is_empty() {
            out.line(2, format_args!("{title}:"));
        }
        for line in words.iter().flat_map(|word| word.split('\n')) {
            out.line(3, line);
        }
    }
}

fn states(out: &mut Writer, status: &Value) {
    state(out, "State", at(status, "/state").unwrap_or(&Value::Null));
    if let Some(last) = at(status, "/lastState").filter(|last| at(last, "/terminated").is_some()) {
        state(out, "Last State", last);
    }
    out.pair(2, "Ready", capital(status, "/ready"));
    out.pair(2, "Restart Count", number(status, "/restartCount"));
}

fn state(out: &mut Writer, title: &str, state: &Value) {
    if let Some(running) = at(state, "/running") {
        out.pair(2, title, "Running");
        moment(out, "Started", text(running, "/startedAt"));
    } else if let Some(ended) = at(state, "/terminated").filter(|_| at(state, "/waiting").is_none())
    {
        out.pair(2, title, "Terminated");
        out.pair_if(3, "Reason", text(ended, "/reason"));
        out.pair_if(3, "Message", text(ended, "/message"));
        out.pair(3, "Exit Code", number(ended, "/exitCode"));
        if number(ended, "/signal") > 0 {
            out.pair(3, "Signal", number(ended, "/signal"));
        }
        moment(out, "Started", text(ended, "/startedAt"));
        moment(out, "Finished", text(ended, "/finishedAt"));
    } else {
        out.pair(2, title, "Waiting");
        out.pair_if(3, "Reason", text(state, "/waiting/reason"));
    }
}

fn moment(out: &mut Writer, title: &str, rfc3339: &str) {
    let shown = out.time(rfc3339);
    out.pair(3, title, shown);
}

/// `Limits` and `Requests`.
pub(super) fn resources(out: &mut Writer, level: usize, resources: &Value) {
    for (title, path) in [("Limits", "/limits"), ("Requests", "/requests")] {
        let amounts = amounts(resources, path);
        if !amounts.is_empty() {
            out.line(level, format_args!("{title}:"));
        }
        for (name, amount) in amounts {
            out.pair(level + 1, name, amount);
        }
    }
}

/// A map of quantities, sorted by name, in canonical form.
pub(super) fn amounts<'a>(value: &'a Value, path: &str) -> Vec<(&'a str, String)> {
    let map = value.pointer(path).and_then(Value::as_object);
    let mut amounts: Vec<(&str, String)> = map
        .into_iter()
        .flatten()
        .map(|(name, amount)| {
            let text = scalar(amount, "").to_string();
            (name.as_str(), quantity::canonical(&text))
        })
        .collect();
    amounts.sort_unstable();
    amounts
}

/// A probe on one line.
fn probe(probe: &Value) -> String {
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number(probe, "/initialDelaySeconds"),
        number(probe, "/timeoutSeconds"),
        number(probe, "/periodSeconds"),
        number(probe, "/successThreshold"),
        number(probe, "/failureThreshold")
    );
    if let Some(exec) = at(probe, "/exec") {
        return format!("exec [{}] {attributes}", texts(exec, "/command").join(" "));
    }
    if let Some(get) = at(probe, "/httpGet") {
        return format!("http-get {} {attributes}", url(get));
    }
    if let Some(tcp) = at(probe, "/tcpSocket") {
        let (host, port) = (text(tcp, "/host"), scalar(tcp, "/port"));
        return format!("tcp-socket {host}:{port} {attributes}");
    }
    if let Some(grpc) = at(probe, "/grpc") {
        let (port, service) = (number(grpc, "/port"), text(grpc, "/service"));
        return format!("grpc <pod>:{port} {service} {attributes}");
    }
    format!("unknown {attributes}")
}

/// The address that an HTTP probe asks, escaped as RFC 3986 wants a path.
fn url(get: &Value) -> String {
    let host = text(get, "/host");
    let host = if host.contains([':', '%']) {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let path = text(get, "/path");
    let slash = if path.is_empty() || path.starts_with('/') {
        ""
    } else {
        "/"
    };
    let scheme = match text(get, "/scheme") {
        "" => String::new(),
        scheme => format!("{}:", scheme.to_ascii_lowercase()),
    };
    let mut escaped = String::new();
    for byte in path.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~$&+,/:;=@".contains(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    format!("{scheme}//{host}:{}{slash}{escaped}", scalar(get, "/port"))
}

fn environment_from(out: &mut Writer, container: &Value) {
    let sources = items(container, "/envFrom");
    if !sources.is_empty() {
        out.line(2, "Environment Variables from:");
    }
    for source in sources {
        let (from, reference) = if let Some(reference) = at(source, "/configMapRef") {
            ("ConfigMap", reference)
        } else {
            ("Secret", at(source, "/secretRef").unwrap_or(&Value::Null))
        };
        let prefix = match text(source, "/prefix") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        let (name, optional) = (text(reference, "/name"), boolean(reference, "/optional"));
        out.line(
            3,
            format_args!("{name}\t{from}{prefix}\tOptional: {optional}"),
        );
    }
}

fn environment(out: &mut Writer, container: &Value, place: Place<'_>) {
    let variables = items(container, "/env");
    if variables.is_empty() {
        out.pair(2, "Environment", NONE);
        return;
    }
    out.line(2, "Environment:");
    for variable in variables {
        let name = text(variable, "/name");
        match at(variable, "/valueFrom") {
            None => {
                let mut lines = text(variable, "/value").split('\n');
                out.pair(3, name, lines.next().unwrap_or_default());
                lines.for_each(|line| out.line(3, format_args!("\t{line}")));
            }
            Some(from) => {
                if let Some(value) = reference(from, container, place) {
                    out.pair(3, name, value);
                }
            }
        }
    }
}

/// What a variable that is defined elsewhere shows.
fn reference(from: &Value, container: &Value, place: Place<'_>) -> Option<String> {
    if let Some(field) = at(from, "/fieldRef") {
        let path = text(field, "/fieldPath");
        let value = match place {
            Place::Pod(pod) => pod_field(pod, path),
            Place::Template => "",
        };
        return Some(format!("{value} ({}:{path})", text(field, "/apiVersion")));
    }
    if let Some(field) = at(from, "/resourceFieldRef") {
        let resource = text(field, "/resource");
        let value = match resource_field(field, container) {
            Some(0) if matches!(resource, "limits.cpu" | "limits.memory") => {
                "node allocatable".to_owned()
            }
            value => value.map(|value| value.to_string()).unwrap_or_default(),
        };
        return Some(format!("{value} ({resource})"));
    }
    let text_of = |source: &Value, words: [&str; 2]| {
        let (key, name) = (text(source, "/key"), text(source, "/name"));
        let optional = boolean(source, "/optional");
        format!(
            "<set to the key '{key}' {} {} '{name}'>\tOptional: {optional}",
            words[0], words[1]
        )
    };
    if let Some(secret) = at(from, "/secretKeyRef") {
        return Some(text_of(secret, ["in", "secret"]));
    }
    at(from, "/configMapKeyRef").map(|map| text_of(map, ["of", "config map"]))
}

/// kubectl resolves these two; of any other field it shows the path only.
fn pod_field<'a>(pod: &'a Value, path: &str) -> &'a str {
    match path {
        "metadata.name" => text(pod, "/metadata/name"),
        "metadata.namespace" => text(pod, "/metadata/namespace"),
        _ => "",
    }
}

/// A limit or request in units of its divisor, rounded up.
fn resource_field(field: &Value, container: &Value) -> Option<i128> {
    let (kind, name) = text(field, "/resource").split_once('.')?;
    let amount = container
        .get("resources")
        .and_then(|resources| resources.get(kind))
        .and_then(|amounts| amounts.get(name))
        .and_then(|amount| Quantity::parse(&scalar(amount, "").to_string()))
        .unwrap_or(Quantity::ZERO);
    let divisor = Quantity::parse(&scalar(field, "/divisor").to_string())
        .filter(|divisor| !divisor.is_zero())
        .or_else(|| Quantity::parse("1"))?;
    let (amount, divisor) = match name {
        "cpu" => (amount.milli(), divisor.milli()),
        "memory" | "ephemeral-storage" => (amount.value(), divisor.value()),
        _ => return None,
    };
    Some((amount + divisor - 1).div_euclid(divisor))
}

fn mounts(out: &mut Writer, container: &Value) {
    let mut mounts: Vec<&Value> = items(container, "/volumeMounts").iter().collect();
    let none = if mounts.is_empty() { "\t<none>" } else { "" };
    out.line(2, format_args!("Mounts:{none}"));
    mounts.sort_by_key(|mount| text(mount, "/mountPath"));
    for mount in mounts {
        let mode = if boolean(mount, "/readOnly") {
            "ro"
        } else {
            "rw"
        };
        let path = match text(mount, "/subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        let (at, from) = (text(mount, "/mountPath"), text(mount, "/name"));
        out.line(3, format_args!("{at} from {from} ({mode}{path})"));
    }
    let mut devices: Vec<&Value> = items(container, "/volumeDevices").iter().collect();
    if !devices.is_empty() {
        out.line(2, format_args!("Devices:{none}"));
    }
    devices.sort_by_key(|device| text(device, "/devicePath"));
    for device in devices {
        let (path, name) = (text(device, "/devicePath"), text(device, "/name"));
        out.line(3, format_args!("{path} from {name}"));
    }
}
