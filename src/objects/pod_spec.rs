//! Defaults of pod specs, in Pods and in templates (`pkg/apis/core/v1/defaults.go` of Kubernetes). Owns what the API
//! server fills in; everything written stays.

use serde_json::{Value, json};

use super::json::{Fields, each, fill, fill_pointer, set, text, within_present};

/// Lists of containers in a pod spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// What both a template and a Pod get.
pub(super) fn fill_spec(spec: &mut Fields) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "schedulerName", "default-scheduler");
    fill_pointer(spec, "securityContext", json!({}));
    fill_pointer(spec, "terminationGracePeriodSeconds", 30);
    // The old name of the field is still filled in.
    let account = text(spec, "serviceAccountName").to_owned();
    if !account.is_empty() {
        fill(spec, "serviceAccount", account);
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in CONTAINERS {
        each(spec, list, |container| {
            fill_container(container, host_network);
        });
    }
    each(spec, "volumes", fill_volume);
}

/// What only Pods get: from their defaults and from admission (service account, priority, tolerations). The volume
/// of the service account's token is left out: there is no token.
pub(super) fn fill_pod(spec: &mut Fields) {
    for list in CONTAINERS {
        each(spec, list, |container| {
            within_present(container, "resources", requests_from_limits);
        });
    }
    fill_pointer(spec, "enableServiceLinks", true);
    fill(spec, "serviceAccountName", "default");
    let account = text(spec, "serviceAccountName").to_owned();
    fill(spec, "serviceAccount", account);
    fill_pointer(spec, "priority", 0);
    fill(spec, "preemptionPolicy", "PreemptLowerPriority");
    let mut tolerations = match spec.remove("tolerations") {
        Some(Value::Array(tolerations)) => tolerations,
        _ => Vec::new(),
    };
    for taint in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerates = |toleration: &Value| {
            let key = toleration.get("key").and_then(Value::as_str);
            let effect = toleration.get("effect").and_then(Value::as_str);
            key.is_none_or(|key| key == taint) && effect.is_none_or(|effect| effect == "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({
                "effect": "NoExecute", "key": taint, "operator": "Exists", "tolerationSeconds": 300,
            }));
        }
    }
    set(spec, "tolerations", tolerations);
}

fn requests_from_limits(resources: &mut Fields) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
        return;
    };
    let mut requests = match resources.remove("requests") {
        Some(Value::Object(requests)) => requests,
        _ => Fields::new(),
    };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    set(resources, "requests", requests);
}

fn fill_container(container: &mut Fields, host_network: bool) {
    let policy = pull_policy(text(container, "image"));
    fill(container, "imagePullPolicy", policy);
    fill_pointer(container, "resources", json!({}));
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    each(container, "ports", |port| {
        fill(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            fill(port, "hostPort", number);
        }
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        within_present(container, probe, fill_probe);
    }
    within_present(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            within_present(lifecycle, hook, fill_handler);
        }
    });
    each(container, "env", |variable| {
        within_present(variable, "valueFrom", fill_field_reference);
    });
}

/// `Always` for the tag `latest`, which is also what no tag and no digest means.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if digest.is_none() => "Always",
        _ => "IfNotPresent",
    }
}

fn fill_probe(probe: &mut Fields) {
    for (field, default) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        fill(probe, field, default);
    }
    fill_handler(probe);
    within_present(probe, "grpc", |grpc| fill(grpc, "service", ""));
}

fn fill_handler(handler: &mut Fields) {
    within_present(handler, "httpGet", |get| {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    });
}

fn fill_field_reference(source: &mut Fields) {
    within_present(source, "fieldRef", |reference| {
        fill(reference, "apiVersion", "v1");
    });
}

fn fill_volume(volume: &mut Fields) {
    if volume.len() <= 1 {
        set(volume, "emptyDir", json!({}));
    }
    // 0644 in decimal.
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        within_present(volume, source, |source| {
            fill_pointer(source, "defaultMode", 420);
        });
    }
    within_present(volume, "hostPath", |path| fill_pointer(path, "type", ""));
    within_present(volume, "downwardAPI", |source| {
        each(source, "items", fill_field_reference);
    });
    within_present(volume, "projected", |source| {
        each(source, "sources", |source| {
            within_present(source, "serviceAccountToken", |token| {
                fill_pointer(token, "expirationSeconds", 3600);
            });
            within_present(source, "downwardAPI", |source| {
                each(source, "items", fill_field_reference);
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::json::fields;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1.27", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn fill_spec_of_a_probe_and_volumes_keeps_what_is_written() {
        let mut spec = fields(json!({
            "containers": [{
                "name": "web", "image": "nginx:1.27", "imagePullPolicy": "Never",
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0, "failureThreshold": 5},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            }],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}],
            "terminationGracePeriodSeconds": 0,
        }));
        fill_spec(&mut spec);
        assert_eq!(
            Value::Object(spec),
            json!({
                "containers": [{
                    "name": "web", "image": "nginx:1.27", "imagePullPolicy": "Never",
                    "readinessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "periodSeconds": 10, "failureThreshold": 5, "successThreshold": 1, "timeoutSeconds": 1,
                    },
                    "env": [{
                        "name": "IP",
                        "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}},
                    }],
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "volumes": [
                    {"name": "a", "emptyDir": {}},
                    {"name": "b", "configMap": {"name": "c", "defaultMode": 420}},
                ],
                "terminationGracePeriodSeconds": 0,
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
            })
        );
    }

    #[test]
    fn fill_pod_keeps_a_written_toleration() {
        let written = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists"});
        let mut spec = fields(json!({"tolerations": [written]}));
        fill_pod(&mut spec);
        let tolerations = spec["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[0], written);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
    }
}
