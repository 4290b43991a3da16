//! The PROXY protocol with those who speak it: haproxy, nginx and curl, in front of portico and behind it. (By raw sockets
//! it is tested with the data path.)

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use crate::support::{
    addr,
    client::{get_from, is_dropped},
    is_installed,
    namespace::in_namespace,
    peer::{Peer, nginx, start},
    program::{Program, way},
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
/// Where front ends come from.
const FRONT: &str = "127.0.0.77";

fn haproxy(folder: &Path, text: &str, listening: &[SocketAddr]) -> Option<Peer> {
    const DEFAULTS: &str =
        "defaults\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
    is_installed("haproxy").then(|| {
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, format!("{DEFAULTS}{text}")).unwrap();
        start("haproxy", &["-db", "-f", file.to_str().unwrap()], listening)
    })
}

/// Servers that insist on a header and tell what it says: haproxy at 9001, nginx at 9002.
fn behind(folder: &Path) -> [Option<Peer>; 2] {
    [
        haproxy(
            folder,
            "frontend f\n mode http\n bind 127.0.0.1:9001 accept-proxy\n http-request return status 200 content-type \
             text/plain lf-string \"%ci %fi %fp\"\n",
            &[addr("127.0.0.1:9001")],
        ),
        nginx(
            folder,
            "http { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; \
             scgi_temp_path s; server { listen 127.0.0.1:9002 proxy_protocol; location / { return 200 \
             \"$proxy_protocol_addr $proxy_protocol_server_addr $proxy_protocol_server_port\"; } } }",
            &[addr("127.0.0.1:9002")],
        ),
    ]
}

/// A Service with these annotations and one endpoint on this host.
fn service(name: &str, vip: &str, annotations: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{clusterIP: \
         {vip}, ports: [{{port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: \
         {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\nendpoints: \
         [{{addresses: [127.0.0.1]}}]\n"
    )
}

fn door(program: &Program, name: &str) -> SocketAddr {
    way(&program.wait_for_endpoints(name, 1), "ClusterIP")
}

#[test]
fn proxy_protocol_to_haproxy_and_nginx_names_the_client_and_what_it_asked_for() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let [haproxy, nginx] = behind(folder.path());
    let mut text = String::new();
    for (n, (peer, port)) in [("haproxy", 9001), ("nginx", 9002)].into_iter().enumerate() {
        for version in 1..=2 {
            let (name, vip) = (
                format!("{peer}-{version}"),
                format!("127.96.7{n}.{version}"),
            );
            let annotation = format!("portico.dev/proxy-protocol: v{version}");
            text += &service(&name, &vip, &annotation, port);
        }
    }
    let program = Program::up(&[], &[("web.yaml", &text)]);
    for (n, peer) in [(0, haproxy), (1, nginx)] {
        let Some(_peer) = peer else { continue };
        for version in 1..=2 {
            let name = format!("{}-{version}", ["haproxy", "nginx"][n]);
            let seen = get_from(CLIENT, door(&program, &name)).unwrap();
            assert_eq!(
                seen,
                format!("127.0.0.5 127.96.7{n}.{version} 80"),
                "{name}"
            );
        }
    }
}

#[test]
fn proxy_protocol_from_haproxy_nginx_and_curl_is_believed_and_sent_on() {
    in_namespace!(Root);
    let folder = tempfile::tempdir().unwrap();
    let [haproxy_behind, nginx_behind] = behind(folder.path());
    let Some(endpoint) = haproxy_behind
        .as_ref()
        .map(|_| 9001)
        .or(nginx_behind.as_ref().map(|_| 9002))
    else {
        return;
    };
    let annotations =
        format!("portico.dev/accept-proxy-protocol-from: {FRONT}, portico.dev/proxy-protocol: v2");
    let text = service("web", "127.96.7.1", &annotations, endpoint);
    let program = Program::up(&[], &[("web.yaml", &text)]);
    let web = door(&program, "web");
    let front = tempfile::tempdir().unwrap();
    let listen = |port, words: &str| {
        format!(
            "listen l{port}\n mode tcp\n bind 127.0.0.1:{port}\n server s 127.96.7.1:80 source {FRONT} {words}\n"
        )
    };
    let text = listen(8081, "send-proxy")
        + &listen(8082, "send-proxy-v2 proxy-v2-options crc32c,unique-id");
    let by_haproxy = ["127.0.0.1:8081", "127.0.0.1:8082"].map(addr);
    let haproxy = haproxy(front.path(), &text, &by_haproxy);
    let text = format!(
        "stream {{ server {{ listen 127.0.0.1:8083; proxy_bind {FRONT}; proxy_pass 127.96.7.1:80; proxy_protocol on; }} }}"
    );
    let by_nginx = [addr("127.0.0.1:8083")];
    let nginx = nginx(front.path(), &text, &by_nginx);
    for (peer, doors) in [(haproxy, &by_haproxy[..]), (nginx, &by_nginx)] {
        let Some(_peer) = peer else { continue };
        for door in doors {
            let seen = get_from(CLIENT, *door).unwrap();
            assert_eq!(seen, format!("127.0.0.5 127.0.0.1 {}", door.port()));
        }
    }
    if is_installed("curl") {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "60",
                "--haproxy-protocol",
                "--interface",
                FRONT,
            ])
            .arg(format!("http://{web}/"))
            .output()
            .unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(seen, format!("{FRONT} 127.96.7.1 80"), "{output:?}");
    }
    // A client is a client, and a front end has to say whose.
    assert_eq!(get_from(CLIENT, web).unwrap(), "127.0.0.5 127.96.7.1 80");
    assert!(is_dropped(FRONT.parse().unwrap(), web));
    let explained = program.command(&["explain", "service", "web"]).stdout;
    let explained = String::from_utf8(explained).unwrap();
    assert!(
        explained.contains("a trusted front end sent something else than a PROXY header"),
        "{explained}"
    );
    let status = program.status();
    let web = status
        .services
        .iter()
        .find(|one| one.name == "web")
        .unwrap();
    assert!(web.ports[0].proxy_header_faults >= 1);
}
