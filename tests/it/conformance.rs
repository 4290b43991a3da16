//! What Kubernetes' own end-to-end suite demands of a Service, a row of `docs/conformance.md` at a time: tests named
//! `row_NN_...`, here and in other modules. Owns the cast that they share: backends `b1`, `b2`, ... on 127.1.0.1,
//! 127.1.0.2, ..., this node `n1`, and others that are elsewhere only by their `nodeName`.

mod affinity;
mod churn;
mod endpoints;
mod names;
mod node_ports;
mod policies;
mod reach;
mod refusal;
mod topology;
mod types;
mod udp;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
};

use crate::support::{backend, client::get_from, program::Program};

/// Where every backend listens.
const PORT: u16 = 9000;
/// On its way out, and still answering.
const ENDING: &str = ", conditions: {ready: false, serving: true, terminating: true}";
const UNREADY: &str = ", conditions: {ready: false, serving: false}";
/// On this node, and on another.
const HERE: &str = ", nodeName: n1";
const ELSEWHERE: &str = ", nodeName: n2";

/// The address of a backend.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 0, number)
}

/// Starts backends `b1` to `bCOUNT`, for TCP and UDP.
fn backends(count: u8) {
    for number in 1..=count {
        let (addr, name) = ((address(number), PORT), format!("b{number}"));
        backend::tcp(addr, &name);
        backend::udp(addr, &name);
    }
}

/// A Service document; `spec` is the inside of a YAML flow mapping.
fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// The slice of a Service whose one TCP port has no name: backends by number, each with what follows its address.
fn slice(service: &str, endpoints: &[(u8, &str)]) -> String {
    slice_of(service, "one", "{port: 9000}", endpoints)
}

/// A slice `SERVICE-PART` with these ports.
fn slice_of(service: &str, part: &str, ports: &str, endpoints: &[(u8, &str)]) -> String {
    let mut text = format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-{part}\n  labels: \
         {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports: [{ports}]\nendpoints:\n"
    );
    if endpoints.is_empty() {
        text = text.replace("endpoints:\n", "endpoints: []\n");
    }
    for (number, rest) in endpoints {
        let _ = writeln!(text, "  - {{addresses: [{}]{rest}}}", address(*number));
    }
    text
}

/// A pod that is a backend: `spec` and `status` are the insides of flow mappings, the latter after its address.
fn pod(number: u8, metadata: &str, spec: &str, status: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, labels: {{app: web}}{metadata}}}\nspec: {{containers: \
         [{{name: web, image: web, ports: [{{name: http, containerPort: {PORT}}}]}}]{spec}}}\nstatus: {{podIP: {}{status}}}\n",
        address(number)
    )
}

/// The program on node `n1`.
fn up(files: &[(&str, &str)]) -> Program {
    Program::up(&["--node-name", "n1"], files)
}

/// Writes a file and waits until the program has acted on it.
fn edit(program: &Program, file: &str, text: &str) {
    let before = program.status().generation;
    program.write(file, text);
    program.wait_for("the edit", |status| status.generation > before);
}

/// Who answers `count` connections from an address, in order.
fn answers(from: Ipv4Addr, to: SocketAddr, count: usize) -> Vec<String> {
    (0..count).map(|_| get_from(from, to).unwrap()).collect()
}

/// Who answers.
fn seen(from: Ipv4Addr, to: SocketAddr, count: usize) -> BTreeSet<String> {
    answers(from, to, count).into_iter().collect()
}

/// Backends by their numbers.
fn these(numbers: &[u8]) -> BTreeSet<String> {
    numbers.iter().map(|number| format!("b{number}")).collect()
}
