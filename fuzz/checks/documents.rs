//! Manifests out of bytes, as JSON. Owns the choice of values: few names, addresses and ports, so that objects meet,
//! and among them such as validation rejects.

use serde_json::{Map, Value, json};

use super::draw::Draw;

/// Makes a value.
type Make = fn(&mut Draw<'_>) -> Value;

const NAMES: [&str; 3] = ["a", "b", "c"];
const NUMBERS: [u16; 5] = [80, 81, 30001, 53, 0];

/// One document.
pub(crate) fn document(draw: &mut Draw<'_>) -> Value {
    match draw.byte() % 12 {
        0..=3 => service(draw),
        4 | 5 => slice(draw),
        6 => endpoints(draw),
        7 => pod(draw),
        8 | 9 => workload(draw),
        10 => node(draw),
        _ => {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": draw.one(&["default", "other"])}})
        }
    }
}

/// Sometimes sets a field.
fn sometimes(
    draw: &mut Draw<'_>,
    to: &mut Value,
    name: &str,
    value: impl FnOnce(&mut Draw<'_>) -> Value,
) {
    if draw.is_rare() {
        to[name] = value(draw);
    }
}

fn pick(draw: &mut Draw<'_>, of: &[&str]) -> Value {
    draw.one(of).into()
}

fn object(draw: &mut Draw<'_>, (version, kind): (&str, &str), spec: Value) -> Value {
    let mut meta = json!({"name": draw.one(&NAMES)});
    sometimes(draw, &mut meta, "namespace", |draw| {
        pick(draw, &["default", "other"])
    });
    sometimes(draw, &mut meta, "annotations", annotations);
    sometimes(
        draw,
        &mut meta,
        "labels",
        |draw| json!({draw.one(&["app", "service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name", "topology.kubernetes.io/zone"]): draw.one(&NAMES)}),
    );
    let mut document = json!({"apiVersion": version, "kind": kind, "metadata": meta});
    if let Value::Object(fields) = spec {
        document.as_object_mut().expect("a map").extend(fields);
    }
    document
}

fn annotations(draw: &mut Draw<'_>) -> Value {
    let all = [
        ("portico.dev/balance", "least-request"),
        ("portico.dev/balance", "maglev"),
        ("portico.dev/weights", "127.0.0.1=2, 10.0.0.1=0"),
        ("portico.dev/weight", "7"),
        ("portico.dev/readiness-probe", "tcp"),
        ("portico.dev/readiness-probe", "http:8080/health"),
        ("portico.dev/startup-delay", "2s"),
    ];
    let (key, value) = all[draw.below(all.len())];
    json!({key: value})
}

fn list(draw: &mut Draw<'_>, most: usize, item: fn(&mut Draw<'_>) -> Value) -> Value {
    let count = draw.below(most + 1);
    (0..count).map(|_| item(draw)).collect()
}

fn number(draw: &mut Draw<'_>) -> Value {
    NUMBERS[draw.below(NUMBERS.len())].into()
}

fn protocol(draw: &mut Draw<'_>) -> Value {
    pick(draw, &["TCP", "UDP", "SCTP", "tcp"])
}

fn address(draw: &mut Draw<'_>) -> Value {
    let all = [
        "127.0.0.1",
        "127.96.0.5",
        "127.96.0.6",
        "127.120.0.3",
        "127.112.0.2",
        "192.0.2.1",
        "10.0.0.1",
        "10.96.0.7",
        "fd00::1",
        "::1",
        "::ffff:10.0.0.1",
        "127.96.0.10",
        "0.0.0.0",
    ];
    pick(draw, &all)
}

fn service(draw: &mut Draw<'_>) -> Value {
    let mut spec = json!({"ports": list(draw, 3, service_port)});
    sometimes(draw, &mut spec, "type", |draw| {
        pick(
            draw,
            &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
        )
    });
    if draw.is_so() {
        spec["selector"] = json!({"app": draw.one(&NAMES)});
    }
    sometimes(draw, &mut spec, "clusterIP", |draw| {
        if draw.is_rare() {
            "None".into()
        } else {
            address(draw)
        }
    });
    let lists: [(&str, Make); 4] = [
        ("externalIPs", address),
        ("clusterIPs", address),
        ("ipFamilies", |draw| pick(draw, &["IPv4", "IPv6"])),
        ("loadBalancerSourceRanges", |draw| {
            pick(draw, &["10.0.0.0/8", "::/0", "10.0.0.1/8"])
        }),
    ];
    for (name, item) in lists {
        sometimes(draw, &mut spec, name, |draw| list(draw, 2, item));
    }
    let texts: [(&str, &[&str]); 8] = [
        ("sessionAffinity", &["ClientIP", "None"]),
        ("externalTrafficPolicy", &["Local", "Cluster"]),
        ("internalTrafficPolicy", &["Local", "Cluster"]),
        (
            "trafficDistribution",
            &["PreferSameZone", "PreferSameNode", "PreferClose"],
        ),
        (
            "ipFamilyPolicy",
            &["SingleStack", "PreferDualStack", "RequireDualStack"],
        ),
        ("loadBalancerClass", &["example.com/x"]),
        ("loadBalancerIP", &["127.112.0.2", "192.0.2.9", "x"]),
        (
            "externalName",
            &["example.com", "a.default.svc.cluster.local"],
        ),
    ];
    for (name, values) in texts {
        sometimes(draw, &mut spec, name, |draw| pick(draw, values));
    }
    sometimes(draw, &mut spec, "healthCheckNodePort", number);
    for name in ["publishNotReadyAddresses", "allocateLoadBalancerNodePorts"] {
        sometimes(draw, &mut spec, name, |draw| draw.is_so().into());
    }
    object(draw, ("v1", "Service"), json!({"spec": spec}))
}

fn service_port(draw: &mut Draw<'_>) -> Value {
    let mut port = json!({"port": number(draw)});
    if draw.is_so() {
        port["name"] = pick(draw, &NAMES);
    }
    sometimes(draw, &mut port, "protocol", protocol);
    sometimes(draw, &mut port, "nodePort", number);
    sometimes(draw, &mut port, "targetPort", |draw| {
        if draw.is_so() {
            pick(draw, &["web", "dns"])
        } else {
            number(draw)
        }
    });
    port
}

fn endpoint_port(draw: &mut Draw<'_>) -> Value {
    let mut port = json!({"name": draw.one(&["", "a", "b"])});
    if !draw.is_rare() {
        port["port"] = number(draw);
    }
    sometimes(draw, &mut port, "protocol", protocol);
    port
}

fn slice(draw: &mut Draw<'_>) -> Value {
    let rest = json!({
        "addressType": draw.one(&["IPv4", "IPv4", "IPv6", "FQDN"]),
        "endpoints": list(draw, 3, endpoint),
        "ports": list(draw, 2, endpoint_port),
    });
    let mut slice = object(draw, ("discovery.k8s.io/v1", "EndpointSlice"), rest);
    if !draw.is_rare() {
        slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": draw.one(&NAMES)});
    }
    slice
}

fn endpoint(draw: &mut Draw<'_>) -> Value {
    let mut endpoint = json!({"addresses": [address(draw)]});
    sometimes(draw, &mut endpoint, "conditions", |draw| {
        let names = ["ready", "serving", "terminating"];
        let given: Map<String, Value> = names
            .map(|name| (name.to_owned(), draw.is_so().into()))
            .into_iter()
            .collect();
        given.into()
    });
    sometimes(draw, &mut endpoint, "nodeName", |draw| {
        pick(draw, &["here", "a", "b"])
    });
    sometimes(draw, &mut endpoint, "zone", |draw| pick(draw, &NAMES));
    sometimes(draw, &mut endpoint, "hostname", |draw| pick(draw, &NAMES));
    sometimes(draw, &mut endpoint, "hints", |draw| {
        let mut hints = json!({"forZones": [{"name": draw.one(&NAMES)}]});
        sometimes(
            draw,
            &mut hints,
            "forNodes",
            |draw| json!([{"name": draw.one(&["here", "a"])}]),
        );
        hints
    });
    endpoint
}

fn endpoints(draw: &mut Draw<'_>) -> Value {
    let subsets = list(draw, 2, |draw| {
        let ip = |draw: &mut Draw<'_>| json!({"ip": address(draw)});
        json!({
            "addresses": list(draw, 2, ip),
            "notReadyAddresses": list(draw, 1, ip),
            "ports": list(draw, 2, endpoint_port),
        })
    });
    object(draw, ("v1", "Endpoints"), json!({"subsets": subsets}))
}

fn pod_spec(draw: &mut Draw<'_>) -> Value {
    let containers = list(draw, 2, |draw| {
        let mut container = json!({"name": draw.one(&NAMES), "image": "x"});
        sometimes(draw, &mut container, "ports", |draw| {
            list(draw, 2, |draw| {
                let mut port = json!({"containerPort": number(draw)});
                sometimes(draw, &mut port, "name", |draw| pick(draw, &["web", "dns"]));
                sometimes(draw, &mut port, "protocol", protocol);
                port
            })
        });
        for name in ["readinessProbe", "livenessProbe", "startupProbe"] {
            sometimes(draw, &mut container, name, probe);
        }
        container
    });
    let mut spec = json!({"containers": containers});
    sometimes(
        draw,
        &mut spec,
        "nodeSelector",
        |draw| json!({"kubernetes.io/hostname": draw.one(&["here", "a"])}),
    );
    sometimes(draw, &mut spec, "terminationGracePeriodSeconds", |draw| {
        draw.below(40).into()
    });
    sometimes(draw, &mut spec, "hostname", |draw| pick(draw, &NAMES));
    spec
}

fn probe(draw: &mut Draw<'_>) -> Value {
    let mut probe = match draw.below(3) {
        0 => json!({"httpGet": {"path": "/ready", "port": number(draw)}}),
        1 => json!({"tcpSocket": {"port": "web"}}),
        _ => json!({"grpc": {"port": number(draw)}}),
    };
    for name in ["initialDelaySeconds", "periodSeconds", "failureThreshold"] {
        sometimes(draw, &mut probe, name, |draw| draw.below(6).into());
    }
    probe
}

fn pod(draw: &mut Draw<'_>) -> Value {
    let mut rest = json!({"spec": pod_spec(draw)});
    sometimes(draw, &mut rest, "status", |draw| {
        let ip = address(draw);
        json!({"phase": draw.one(&["Running", "Succeeded", "Pending"]), "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": draw.one(&["True", "False"])}]})
    });
    let mut pod = object(draw, ("v1", "Pod"), rest);
    pod["metadata"]["labels"] = json!({"app": draw.one(&NAMES)});
    pod
}

fn workload(draw: &mut Draw<'_>) -> Value {
    let kind = draw.one(&["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"]);
    let app = draw.one(&NAMES);
    let mut spec = json!({
        "selector": {"matchLabels": {"app": app}},
        "template": {"metadata": {"labels": {"app": app}}, "spec": pod_spec(draw)},
    });
    if kind != "DaemonSet" {
        spec["replicas"] = draw.below(5).into();
    }
    sometimes(draw, &mut spec, "minReadySeconds", |draw| {
        draw.below(12).into()
    });
    let field = if kind == "Deployment" {
        "strategy"
    } else {
        "updateStrategy"
    };
    if kind != "ReplicaSet" {
        sometimes(draw, &mut spec, field, |draw| {
            let mut strategy =
                json!({"type": draw.one(&["RollingUpdate", "Recreate", "OnDelete"])});
            let amount = |draw: &mut Draw<'_>| -> Value {
                if draw.is_so() {
                    draw.below(3).into()
                } else {
                    pick(draw, &["25%", "100%", "0%"])
                }
            };
            sometimes(
                draw,
                &mut strategy,
                "rollingUpdate",
                |draw| json!({"maxSurge": amount(draw), "maxUnavailable": amount(draw)}),
            );
            strategy
        });
    }
    if kind == "StatefulSet" {
        spec["serviceName"] = pick(draw, &NAMES);
        sometimes(draw, &mut spec, "podManagementPolicy", |draw| {
            pick(draw, &["Parallel", "OrderedReady"])
        });
    }
    if kind == "Deployment" {
        sometimes(draw, &mut spec, "paused", |draw| draw.is_so().into());
        sometimes(draw, &mut spec, "progressDeadlineSeconds", |draw| {
            draw.below(60).into()
        });
        sometimes(draw, &mut spec, "revisionHistoryLimit", |draw| {
            draw.below(3).into()
        });
    }
    object(draw, ("apps/v1", kind), json!({"spec": spec}))
}

fn node(draw: &mut Draw<'_>) -> Value {
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": draw.one(&["here", "a", "b"])}});
    if draw.is_so() {
        node["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": draw.one(&NAMES)});
    }
    node
}
