//! One packet and what is said to it: within its limit, readable by a decoder that is not ours, with the question
//! repeated, nothing to what is no query, and no loopback address to other machines. The first byte says what carries it.

use std::{cell::OnceCell, sync::Arc};

use hickory_proto::op::Message;
use portico::source::manifest::{ManifestSettings, Strictness, load};
use portico_core::{
    dns::{
        Moment, fast,
        packet::{Transport, respond},
        wire::PAYLOAD,
    },
    snapshot::{ClientPlace, Snapshot},
    world::Simulation,
};

use super::bench::Bench;

/// Services with a name for each kind of answer.
const SERVICES: &str = r"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 127.96.0.5, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
- {apiVersion: v1, kind: Service, metadata: {name: pg, namespace: data}, spec: {clusterIP: None, ports: [{name: pg, port: 5432}]}}
- {apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: web.default.svc.cluster.local}}
- {apiVersion: v1, kind: Service, metadata: {name: away}, spec: {type: ExternalName, externalName: example.com}}
- {apiVersion: v1, kind: Service, metadata: {name: loop}, spec: {type: ExternalName, externalName: loop.default.svc.cluster.local}}
";
/// Addresses of the headless Service: more than fit into 512 bytes.
const MANY: usize = 90;

thread_local! {
    static SNAPSHOT: OnceCell<Snapshot> = const { OnceCell::new() };
}

pub(crate) fn check(bytes: &[u8]) {
    let Some((carrier, packet)) = bytes.split_first() else {
        return;
    };
    let transport = if carrier % 2 == 0 {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    let moment = Moment {
        serial: 7,
        seed: u64::from(*carrier),
        ..Moment::default()
    };
    SNAPSHOT.with(|snapshot| {
        let snapshot = snapshot.get_or_init(services);
        let response = respond(snapshot, packet, transport, moment);
        let is_query = packet.len() >= 12 && packet[2] & 0x80 == 0;
        assert_eq!(
            response.is_some(),
            is_query,
            "silence exactly for what is no query"
        );
        let mut short = Vec::new();
        let hit = fast::respond(snapshot, packet, (transport, moment), &mut short);
        let Some(response) = response else {
            assert_eq!(hit, None, "the short way answers queries only");
            return;
        };
        if hit.is_some() {
            assert_eq!(short, response.bytes, "the short way leads to the same");
        }
        let limit = if transport == Transport::Udp {
            usize::from(PAYLOAD)
        } else {
            usize::from(u16::MAX)
        };
        assert!(
            response.bytes.len() <= limit,
            "{} bytes",
            response.bytes.len()
        );
        let read = Message::from_vec(&response.bytes).expect("a response that others can read");
        assert_eq!(response.bytes[..2], packet[..2], "the identifier");
        assert_eq!(response.truncated, response.bytes[2] & 2 != 0);
        if !read.queries.is_empty() {
            // Up to the end of the name, and type and class behind it.
            let end = name_end(packet) + 4;
            assert_eq!(response.bytes[12..end], packet[12..end], "the question");
        }
        assert!(respond(snapshot, &response.bytes, transport, moment).is_none());
        let twice = respond(snapshot, packet, transport, moment).map(|twice| twice.bytes);
        assert_eq!(twice, Some(response.bytes));
        check_elsewhere(snapshot, packet, (transport, moment));
    });
}

/// A client on another machine gets a response, too, and never a loopback address.
fn check_elsewhere(snapshot: &Snapshot, packet: &[u8], (transport, moment): (Transport, Moment)) {
    let moment = Moment {
        place: ClientPlace::Elsewhere,
        ..moment
    };
    let response = respond(snapshot, packet, transport, moment).expect("a response from afar");
    let read = Message::from_vec(&response.bytes).expect("a response that others can read");
    for record in read.answers.iter().chain(&read.additionals) {
        let addr = record.data.ip_addr();
        assert!(!addr.is_some_and(|addr| addr.is_loopback()), "{record}");
    }
}

/// Where the name of the question ends.
fn name_end(packet: &[u8]) -> usize {
    let mut at = 12;
    while packet[at] != 0 {
        at += 1 + usize::from(packet[at]);
    }
    at + 1
}

fn services() -> Snapshot {
    let mut endpoints = String::new();
    for last in 1..=MANY {
        endpoints += "- {addresses: [10.1.2.N], hostname: pg-N}\n"
            .replace('N', &last.to_string())
            .as_str();
    }
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: pg, namespace: data, labels: {{kubernetes.io/service-name: pg}}}}\n\
         addressType: IPv4\nports: [{{name: pg, port: 5432}}]\nendpoints:\n{endpoints}"
    );
    let settings = ManifestSettings {
        namespace: "default".into(),
        strictness: Strictness::Lenient,
    };
    let file: Arc<str> = "dns.yaml".into();
    let loaded = load(&file, &format!("{SERVICES}---\n{slice}"), &settings, None);
    assert_eq!(
        loaded.shard.objects.len(),
        6,
        "{:?}",
        loaded.shard.diagnostics
    );
    let mut bench = Bench::new(Simulation::Off);
    bench.file("dns.yaml", loaded.shard);
    bench.round();
    bench.snapshot
}
