//! What each program is told: the same backends, the same number of threads, no logs. Pure texts.

use std::{fmt::Write as _, net::SocketAddr};

use portico_core::object::Protocol;
use serde_json::json;

use crate::{
    http2::Asked,
    scenario::{Contestant, Layer, Scenario},
};

/// Connections that a peer may hold: what half of the descriptors give, less its own.
pub(crate) fn most_connections() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.unwrap_or(1 << 20);
    (descriptors.saturating_sub(500) / 2).clamp(100, 100_000)
}

/// What differs from run to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Where clients connect.
    pub(crate) target: SocketAddr,
    /// What is behind it.
    pub(crate) backends: &'a [SocketAddr],
    /// First half of the addresses of Services.
    pub(crate) range: [u8; 2],
}

/// The configuration of a contestant; empty for none.
pub(crate) fn of(contestant: Contestant, scenario: &Scenario, place: Place<'_>) -> String {
    let Place {
        target,
        backends,
        range,
    } = place;
    if let Some(fixture) = scenario.load.fixture(range) {
        return fixture.configuration(contestant, target);
    }
    let (protocol, threads) = (scenario.load.protocol(), scenario.threads);
    match (contestant, scenario.layer) {
        (Contestant::Portico | Contestant::PorticoScraped, Layer::Tcp) => {
            manifests(target, backends, protocol, None)
        }
        (Contestant::Portico | Contestant::PorticoScraped, Layer::Http) => manifests(
            target,
            backends,
            protocol,
            Some("portico.dev/protocol: http"),
        ),
        (Contestant::PorticoRandom, _) => manifests(
            target,
            backends,
            protocol,
            Some("portico.dev/balance: random"),
        ),
        (Contestant::Portico | Contestant::PorticoScraped, Layer::Http2) => {
            let spoken = match scenario.load.asked() {
                Some(Asked::Call { .. }) => "portico.dev/protocol: grpc",
                _ => "portico.dev/protocol: h2c",
            };
            manifests(target, backends, protocol, Some(spoken))
        }
        (Contestant::Haproxy, layer) => haproxy(target, backends, (layer, threads)),
        (Contestant::Nginx, Layer::Tcp) => stream(target, backends, protocol, threads),
        (Contestant::Nginx, layer) => requests(target, backends, (layer, threads)),
        (Contestant::Envoy, _) => envoy(target, backends),
        // The servers of names have nothing else.
        (
            Contestant::Direct
            | Contestant::Knot
            | Contestant::Unbound
            | Contestant::Dnsmasq
            | Contestant::Hickory,
            _,
        ) => String::new(),
    }
}

/// A Service, with an annotation perhaps, and a slice for each backend.
pub(crate) fn manifests(
    target: SocketAddr,
    backends: &[SocketAddr],
    protocol: Protocol,
    annotation: Option<&str>,
) -> String {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: loadtest\n".to_owned();
    if let Some(annotation) = annotation {
        let _ = writeln!(text, "  annotations:\n    {annotation}");
    }
    let _ = writeln!(
        text,
        "spec:\n  clusterIP: {}\n  ports:\n    - port: {}\n      protocol: {protocol}",
        target.ip(),
        target.port()
    );
    for (number, backend) in backends.iter().enumerate() {
        let _ = writeln!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: loadtest-{number}\n  \
             labels:\n    kubernetes.io/service-name: loadtest\naddressType: IPv4\nports:\n  - port: {}\n    \
             protocol: {protocol}\nendpoints:\n  - addresses: [\"{}\"]",
            backend.port(),
            backend.ip()
        );
    }
    text
}

/// Further Services beside the target's, each with an address of its own in the same range and one endpoint.
pub(super) fn extra(target: SocketAddr, backend: SocketAddr, count: u16) -> anyhow::Result<String> {
    let std::net::IpAddr::V4(ip) = target.ip() else {
        anyhow::bail!("{target} is not IPv4");
    };
    let [first, second, ..] = ip.octets();
    let mut text = String::new();
    for number in 0..count {
        // From the second /24 on: the target is in the first.
        let (third, fourth) = (number / 250 + 1, number % 250 + 1);
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: extra-{number}\nspec:\n  \
             clusterIP: {first}.{second}.{third}.{fourth}\n  ports:\n    - port: {}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: extra-{number}\n  \
             labels:\n    kubernetes.io/service-name: extra-{number}\naddressType: IPv4\nports:\n  - port: {}\n\
             endpoints:\n  - addresses: [\"{}\"]",
            target.port(),
            backend.port(),
            backend.ip()
        );
    }
    Ok(text)
}

/// Of requests it adds the fields that portico adds, and uses any connection to a backend for any client's.
fn haproxy(target: SocketAddr, backends: &[SocketAddr], (layer, threads): (Layer, u8)) -> String {
    let (mode, fields) = match layer {
        Layer::Tcp => ("tcp", ""),
        Layer::Http | Layer::Http2 => (
            "http\n  http-reuse always\n  option forwardfor",
            "\n  http-request set-header x-forwarded-proto http\n  http-request set-header x-forwarded-host %[req.hdr(host)]",
        ),
    };
    let mut text = format!(
        "global\n  nbthread {threads}\n  maxconn {}\ndefaults\n  mode {mode}\n  timeout connect 1s\n  timeout client 1h\n  \
         timeout server 1h\nfrontend front\n  bind {target}{fields}\n  default_backend back\nbackend back\n  balance roundrobin\n",
        most_connections()
    );
    for (number, backend) in backends.iter().enumerate() {
        let _ = writeln!(text, "  server s{number} {backend}");
    }
    text
}

/// With a zone, so that all its processes share one round robin, as the others' threads do, and with half-closed
/// connections kept, as the others keep them.
fn stream(target: SocketAddr, backends: &[SocketAddr], protocol: Protocol, threads: u8) -> String {
    let listen = match protocol {
        Protocol::Udp => "udp",
        _ => "backlog=4096",
    };
    let mut text = format!(
        "worker_processes {threads};\nerror_log stderr error;\nworker_rlimit_nofile {};\nevents {{ worker_connections {}; }}\n\
         stream {{\n  upstream back {{\n    zone back 64k;\n",
        most_connections() * 2 + 500,
        most_connections() * 2
    );
    for backend in backends {
        let _ = writeln!(text, "    server {backend};");
    }
    let _ = writeln!(
        text,
        "  }}\n  server {{\n    listen {target} {listen};\n    proxy_connect_timeout 1s;\n    proxy_timeout 1h;\n    \
         proxy_half_close on;\n    proxy_pass back;\n  }}\n}}"
    );
    text
}

/// As [`stream`], of requests: with the fields that portico adds, and connections to backends that stay. What it sends by HTTP/2 has
/// one request at a time on each of these, so that it needs more.
fn requests(target: SocketAddr, backends: &[SocketAddr], (layer, threads): (Layer, u8)) -> String {
    let (listen, kept, pass, set) = match layer {
        Layer::Http2 => ("http2 ", 256, "grpc_pass grpc://back;", "grpc_set_header"),
        Layer::Http | Layer::Tcp => (
            "",
            64,
            "proxy_pass http://back;\n      proxy_http_version 1.1;\n      proxy_set_header connection \"\";",
            "proxy_set_header",
        ),
    };
    let mut text = format!(
        "worker_processes {threads};\nerror_log stderr error;\nworker_rlimit_nofile {};\nevents {{ worker_connections {}; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  upstream back {{\n    zone back 64k;\n",
        most_connections() * 2 + 500,
        most_connections() * 2
    );
    for backend in backends {
        let _ = writeln!(text, "    server {backend};");
    }
    let _ = writeln!(
        text,
        "    keepalive {kept};\n    keepalive_requests 1000000000;\n  }}\n  server {{\n    listen {target} {listen}backlog=4096;\n    \
         location / {{\n      {pass}\n      {set} host $http_host;\n      \
         {set} x-forwarded-for $proxy_add_x_forwarded_for;\n      {set} x-forwarded-proto http;\n      \
         {set} x-forwarded-host $http_host;\n    }}\n  }}\n}}"
    );
    text
}

/// Requests by HTTP/2 on both sides: with the fields that portico adds (`x-forwarded-proto` it adds by itself), without what it does on its own account for each of them
/// (a number, times, counters by its own fields, an end after 15 s).
fn envoy(target: SocketAddr, backends: &[SocketAddr]) -> String {
    let socket = |addr: &SocketAddr| json!({ "socket_address": { "address": addr.ip().to_string(), "port_value": addr.port() } });
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let added = |key, value| json!({ "header": { "key": key, "value": value } });
    let endpoints: Vec<_> = backends
        .iter()
        .map(|backend| json!({ "endpoint": { "address": socket(backend) } }))
        .collect();
    let router = json!({
        "@type": typed("filters.http.router.v3.Router"),
        "dynamic_stats": false,
        "suppress_envoy_headers": true,
    });
    let route =
        json!({ "match": { "prefix": "/" }, "route": { "cluster": "back", "timeout": "0s" } });
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "codec_type": "HTTP2",
        "generate_request_id": false,
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": [{ "name": "router", "typed_config": router }],
        "route_config": {
            "request_headers_to_add": [
                added("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                added("x-forwarded-host", "%REQ(:authority)%"),
            ],
            "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }],
        },
    });
    let spoken = typed("upstreams.http.v3.HttpProtocolOptions");
    let cluster = json!({
        "name": "back",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": spoken,
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": { "cluster_name": "back", "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    let listener = json!({
        "name": "front",
        "address": socket(&target),
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    });
    json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } }).to_string()
}

/// An HTTP server that answers with its name.
pub(super) fn backend(number: usize, port: u16, layer: Layer) -> String {
    let version = if layer == Layer::Http2 { "http2 " } else { "" };
    format!(
        "worker_processes 1;\nerror_log stderr error;\nworker_rlimit_nofile {0};\nevents {{ worker_connections {0}; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
         client_header_timeout 1h;\n  default_type text/plain;\n  server {{\n    listen 127.0.0.1:{port} {version}backlog=4096;\n    \
         location / {{ return 200 \"backend-{number}\\n\"; }}\n  }}\n}}\n",
        most_connections() * 2
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str) -> Scenario {
        Scenario::read(&crate::scenario::file(name)).unwrap()
    }

    fn place(target: SocketAddr, backends: &[SocketAddr]) -> Place<'_> {
        Place {
            target,
            backends,
            range: [127, 0],
        }
    }

    #[test]
    fn configuration_for_datagrams_says_so() {
        let target: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let of = |contestant| of(contestant, &scenario("udp"), place(target, &[target]));
        assert_eq!(of(Contestant::Portico).matches("protocol: UDP").count(), 2);
        assert!(of(Contestant::Nginx).contains("listen 127.0.0.1:1 udp;"));
    }

    #[test]
    fn configuration_of_everybody_names_every_backend_and_the_target() {
        let target: SocketAddr = "127.0.0.1:20001".parse().unwrap();
        let backends: Vec<SocketAddr> = vec![
            "127.0.0.1:20002".parse().unwrap(),
            "127.0.0.1:20003".parse().unwrap(),
        ];
        let check = |contestant, scenario: &str| {
            let text = of(
                contestant,
                &self::scenario(scenario),
                place(target, &backends),
            );
            for port in ["20001", "20002", "20003"] {
                assert_eq!(text.matches(port).count(), 1, "{port} in\n{text}");
            }
        };
        for contestant in [
            Contestant::Portico,
            Contestant::PorticoRandom,
            Contestant::PorticoScraped,
            Contestant::Haproxy,
            Contestant::Nginx,
        ] {
            check(contestant, "tcp-versus-nginx");
            check(contestant, "http-versus-haproxy");
        }
        for contestant in [Contestant::Portico, Contestant::Nginx, Contestant::Envoy] {
            check(contestant, "h2c");
            check(contestant, "grpc");
        }
    }

    #[test]
    fn configuration_for_http2_says_so_on_both_sides() {
        let target: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let of = |contestant, name| of(contestant, &scenario(name), place(target, &[target]));
        assert!(of(Contestant::Portico, "h2c").contains("portico.dev/protocol: h2c"));
        assert!(of(Contestant::Portico, "grpc").contains("portico.dev/protocol: grpc"));
        let nginx = of(Contestant::Nginx, "h2c");
        assert!(nginx.contains("listen 127.0.0.1:1 http2 ") && nginx.contains("grpc_pass grpc://"));
        assert!(!nginx.contains("proxy_pass"), "{nginx}");
        assert!(backend(0, 1, Layer::Http2).contains("listen 127.0.0.1:1 http2 "));
        assert!(!backend(0, 1, Layer::Http).contains("http2"));
    }

    #[test]
    fn extra_services_have_addresses_of_their_own_beside_the_target() {
        let target: SocketAddr = "127.131.0.7:20001".parse().unwrap();
        let backend: SocketAddr = "127.0.0.1:20002".parse().unwrap();
        let text = extra(target, backend, 1000).unwrap();
        let ips: std::collections::BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  clusterIP: "))
            .collect();
        assert_eq!(ips.len(), 1000);
        assert!(ips.contains("127.131.1.1") && ips.contains("127.131.4.250"));
        assert_eq!(extra(target, backend, 0).unwrap(), "");
    }

    #[test]
    fn configuration_of_random_differs_by_the_annotation_alone() {
        let target: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let of = |contestant| of(contestant, &scenario("even-tcp"), place(target, &[target]));
        let even = of(Contestant::Portico);
        let random = of(Contestant::PorticoRandom);
        let annotation = "  annotations:\n    portico.dev/balance: random\n";
        assert_eq!(random.replace(annotation, ""), even);
    }
}
