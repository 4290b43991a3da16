//! The choice of endpoints as scripts read it, against the worked cases of traffic policies; and what notes say.

use std::{fmt::Write as _, sync::Arc};

use portico_core::{
    object::decode::{self, DecodeSettings, Decoded},
    snapshot::{Cluster, Snapshot},
    time::Timestamp,
    world::{
        Deviations, Shard, Simulation, SourceReport, SourceView, World, WorldSettings, compile_once,
    },
};
use serde_json::json;

use super::*;
use crate::{control::status::ListenerReports, source::yaml};

fn world() -> World {
    let net = |text: &str| text.parse().unwrap();
    let cluster = Cluster {
        search_namespace: Some("default".into()),
        service_cidr_v6: Some("fd00:10:96::/112".parse().unwrap()),
        load_balancer_cidr: net("127.112.0.0/16"),
        pod_cidr: net("127.120.0.0/13"),
        node_name: "n1".into(),
        zone: Some("za".into()),
        ..Cluster::default()
    };
    World::new(WorldSettings {
        cluster: Arc::new(cluster),
        node_ports: 30_000..=32_767,
        host_addresses: Vec::new(),
        external_ranges: Vec::new(),
        simulation: Simulation::Off,
        foreign_addresses: Severity::Warning,
        remembered: Deviations::default(),
        seed: 1,
    })
}

fn compiled(text: &str) -> (World, Snapshot) {
    let (mut shard, file) = (Shard::default(), Arc::from("web.yaml"));
    let settings = DecodeSettings {
        namespace: "default".into(),
    };
    yaml::for_each(text, &yaml::Limits::default(), |document| {
        let root = document.root.unwrap();
        for result in decode::decode(&root, &file, &settings, &mut shard.diagnostics) {
            match result {
                Decoded::Object(object) => shard.objects.push(object),
                other => panic!("{other:?}"),
            }
        }
    });
    let view = SourceView {
        shards: [(file, Arc::new(shard))].into(),
        ..SourceView::default()
    };
    compile_once(world(), &[SourceReport::Synced(view)], Timestamp::default())
}

fn explained(text: &str) -> Explanation {
    explained_of(text, "default", "web")
}

#[test]
fn explained_ports_say_what_is_spoken_and_why() {
    let spec = "
  selector: {app: web}
  ports:
  - {name: web, port: 80, appProtocol: http}
  - {name: tls, port: 443, appProtocol: https}
  - {name: db, port: 5432}
  - {name: dns, port: 53, protocol: UDP, appProtocol: http}
";
    let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}");
    let ports = explained(&text).ports;
    let speaks: Vec<&str> = ports.iter().map(|port| &*port.speaks).collect();
    let expected = [
        "HTTP: appProtocol: http",
        "TCP: appProtocol: https",
        "TCP: no appProtocol",
        "-",
    ];
    assert_eq!(speaks, expected);
}

#[test]
fn explained_cookie_and_header_are_those_of_http_ports() {
    let of = |app_protocol: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{portico.dev/affinity-cookie: SHOP, \
             portico.dev/hash-header: X-User}}}}\nspec: {{ports: [{{port: 80, appProtocol: {app_protocol}}}]}}"
        );
        let found = explained(&text);
        (found.affinity_cookie, found.hash_header)
    };
    assert_eq!(of("http"), (Some("SHOP".into()), Some("x-user".into())));
    assert_eq!(of("tcp"), (None, None));
}

#[test]
fn explained_http_port_without_endpoints_is_unavailable() {
    let headline = |ports: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: web}}, ports: [{ports}]}}"
        );
        let found = explained(&text);
        let verdicts: Vec<Answer> = found.ports.iter().map(|it| it.verdict.internal).collect();
        (found.headline, verdicts)
    };
    let http = "{name: web, port: 80, appProtocol: http}";
    let because = "no usable endpoint, because its selector matches no pod";
    let (said, verdicts) = headline(http);
    assert_eq!(said, format!("web answers requests with 503: {because}"));
    assert_eq!(verdicts, [Answer::Unavailable]);
    let (said, verdicts) = headline(&format!("{http}, {{name: db, port: 5432}}"));
    let both = "refuses connections, and answers requests with 503";
    assert_eq!(said, format!("web {both}: {because}"));
    assert_eq!(verdicts, [Answer::Unavailable, Answer::Refuse]);
}

#[test]
fn explained_endpoint_that_is_a_service_says_what_clients_meet() {
    let headline = |ports: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: back}}\nspec: {{clusterIP: 127.96.3.3, ports: [\
             {{name: tcp, port: 80}}, {{name: udp, port: 80, protocol: UDP}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{ports}]}}\n---\n\
             apiVersion: v1\nkind: Endpoints\nmetadata: {{name: back}}\nsubsets: [{{addresses: [{{ip: 127.0.0.1}}], ports: [\
             {{name: tcp, port: 9}}, {{name: udp, port: 9, protocol: UDP}}]}}]\n---\n\
             apiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\nsubsets: [{{addresses: [{{ip: 127.96.3.3}}], ports: [\
             {{name: web, port: 80}}, {{name: db, port: 80}}, {{name: dns, port: 80, protocol: UDP}}]}}]\n"
        );
        explained(&text).headline
    };
    let web = "{name: web, port: 80, appProtocol: http}";
    let db = "{name: db, port: 81}";
    let dns = "{name: dns, port: 82, protocol: UDP}";
    let said = |does: &str| {
        format!("web {does}: no usable endpoint, because its endpoints are addresses of Services")
    };
    assert_eq!(headline(web), said("answers requests with 502"));
    assert_eq!(headline(db), said("resets connections"));
    assert_eq!(headline(dns), said("drops datagrams"));
    assert_eq!(
        headline(&format!("{web}, {db}")),
        said("resets connections, and answers requests with 502")
    );
}

fn explained_of(text: &str, namespace: &str, name: &str) -> Explanation {
    let (world, snapshot) = compiled(text);
    explained_in(&world, &snapshot, namespace, name)
}

fn explained_in(world: &World, snapshot: &Snapshot, namespace: &str, name: &str) -> Explanation {
    let view = View {
        world,
        snapshot,
        listeners: &ListenerReports::new(),
        started: Timestamp::default(),
        now: Timestamp::default(),
    };
    explain(view, namespace, name).unwrap()
}

/// A Service with `spec` and endpoints in the notation of the selection's tests: `aR*z:za` is endpoint `a`, ready, on
/// this node, hinted to zone `za`. The letter gives the last byte of the address.
fn service(spec: &str, endpoints: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  {spec}\n  ports: [{{name: http, port: 80}}]\n"
    );
    if endpoints.is_empty() {
        return text;
    }
    text.push_str(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: \
         {kubernetes.io/service-name: web}\naddressType: IPv4\nports: [{name: http, port: 8080}]\nendpoints:\n",
    );
    for endpoint in endpoints.split_whitespace() {
        let mut letters = endpoint.chars();
        let number = u32::from(letters.next().unwrap()) - u32::from('a') + 1;
        let (ready, serving, terminating) = match letters.next().unwrap() {
            'R' => (true, true, false),
            'N' => (false, false, false),
            'S' => (false, true, true),
            'X' => (false, false, true),
            'Q' => (false, true, false),
            other => panic!("state {other}"),
        };
        let node = if letters.next() == Some('*') {
            "n1"
        } else {
            "n2"
        };
        let hints = match letters.as_str().strip_prefix("z:") {
            Some(zone) => format!("{{forZones: [{{name: {zone}}}]}}"),
            None => "{}".to_owned(),
        };
        let _ = write!(
            text,
            "  - addresses: [10.0.0.{number}]\n    conditions: {{ready: {ready}, serving: {serving}, terminating: \
             {terminating}}}\n    nodeName: {node}\n    hints: {hints}\n"
        );
    }
    text
}

/// `ab` for endpoints `a` and `b`, `~` for a set that is not computed.
fn addresses(letters: &str) -> serde_json::Value {
    if letters == "~" {
        return serde_json::Value::Null;
    }
    let address = |letter| format!("10.0.0.{}:8080", u32::from(letter) - u32::from('a') + 1);
    letters.chars().map(address).collect::<Vec<_>>().into()
}

fn check(spec: &str, endpoints: &str, sets: [&str; 3], any: bool, verdict: &serde_json::Value) {
    let ports = serde_json::to_value(explained(&service(spec, endpoints)).ports).unwrap();
    let [cluster, local, reachable] = sets.map(addresses);
    let expected = json!([{
        "port": "http", "family": "IPv4", "speaks": "TCP: no appProtocol", "cluster": cluster, "local": local, "reachable": reachable, "any": any,
        "verdict": verdict,
    }]);
    assert_eq!(ports, expected, "{spec} {endpoints}");
}

fn inside(answer: &str) -> serde_json::Value {
    json!({"internal": answer, "external": null, "external_from_node": null})
}

fn everywhere(internal: &str, external: &str, external_from_node: &str) -> serde_json::Value {
    json!({"internal": internal, "external": external, "external_from_node": external_from_node})
}

const CLUSTER: &str = "type: ClusterIP";
const INTERNAL_LOCAL: &str = "internalTrafficPolicy: Local";
const NODE_PORT: &str = "type: NodePort";
const EXTERNAL_LOCAL: &str = "{type: NodePort, externalTrafficPolicy: Local}";

/// Several fields in one line of the template.
fn fields(text: &str) -> String {
    text.trim_matches(['{', '}']).replace(", ", "\n  ")
}

#[test]
fn ports_without_external_addresses_answer_inside_only() {
    check(CLUSTER, "", ["~", "~", ""], false, &inside("refuse"));
    check(CLUSTER, "aN- bN-", ["", "~", ""], false, &inside("refuse"));
    check(
        CLUSTER,
        "aS* bR- cS-",
        ["b", "~", "b"],
        true,
        &inside("forward"),
    );
    check(CLUSTER, "aQ- bX-", ["", "~", ""], false, &inside("refuse"));
    check(
        CLUSTER,
        "aR-z:za bR-z:zb cN-",
        ["a", "~", "a"],
        true,
        &inside("forward"),
    );
    check(INTERNAL_LOCAL, "", ["~", "", ""], false, &inside("refuse"));
    check(
        INTERNAL_LOCAL,
        "aR* bR-",
        ["~", "a", "a"],
        true,
        &inside("forward"),
    );
    check(INTERNAL_LOCAL, "aR-", ["~", "", ""], true, &inside("drop"));
}

#[test]
fn ports_with_external_addresses_tell_where_clients_are() {
    let all = everywhere("forward", "forward", "forward");
    check(NODE_PORT, "aR- bR*", ["ab", "~", "ab"], true, &all);
    let refused = everywhere("refuse", "refuse", "refuse");
    check(NODE_PORT, "aN-", ["", "~", ""], false, &refused);
    let local = fields(EXTERNAL_LOCAL);
    check(
        &local,
        "aR*z:za bR*z:zb cR-z:zb dR-z:za",
        ["ad", "ab", "abd"],
        true,
        &all,
    );
    check(&local, "aR- bN* cS* dS-", ["a", "c", "ac"], true, &all);
    let dropped = everywhere("forward", "drop", "forward");
    check(&local, "aR- bR-", ["ab", "", "ab"], true, &dropped);
    let both = format!("{local}\n  {INTERNAL_LOCAL}");
    check(
        &both,
        "aR- bR-",
        ["ab", "", "ab"],
        true,
        &everywhere("drop", "drop", "forward"),
    );
}

#[test]
fn port_without_a_name_is_its_number_and_protocol() {
    let text = service(CLUSTER, "").replace("name: http, ", "");
    let ports: Vec<String> = explained(&text)
        .ports
        .into_iter()
        .map(|port| port.port)
        .collect();
    assert_eq!(ports, ["80/TCP"]);
}

#[test]
fn endpoints_say_why_each_is_chosen_or_not() {
    let explanation = explained(&service(
        &fields(EXTERNAL_LOCAL),
        "aR*z:za bR*z:zb cR-z:zb dN- eS*",
    ));
    let said: Vec<(bool, &str)> = explanation
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.chosen, &*endpoint.why))
        .collect();
    let expected = [
        (true, "ready"),
        (true, "ready; under policy Local only"),
        (false, "its hints name zone zb, not where this is"),
        (false, "not ready: conditions.ready is false"),
        (false, "terminating: used only while no other is ready"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn address_in_two_slices_counts_once() {
    let first = service(CLUSTER, "aN-");
    let second = service(CLUSTER, "aR*").replace("name: web-1", "name: web-2");
    let second = second.split_once("---\n").unwrap().1;
    let explanation = explained(&format!("{first}---\n{second}"));
    let said: Vec<&str> = explanation.endpoints.iter().map(|of| &*of.why).collect();
    assert_eq!(said, ["the same address in another slice counts", "ready"]);
}

#[test]
fn headless_service_has_no_ports_and_is_asked_by_name() {
    let explanation = explained(&service("clusterIP: None", "aR* bN-"));
    assert_eq!(explanation.state, State::Names);
    assert_eq!(
        explanation.headline,
        "web (headless) has names only: 1 of 2 endpoints in DNS"
    );
    assert_eq!(explanation.ports, []);
    assert_eq!(
        explanation.attempt.as_deref(),
        Some("portico resolve web.default")
    );
}

#[test]
fn external_name_is_an_alias_without_endpoints() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: db.example.com}\n";
    let explanation = explained(text);
    assert_eq!(
        (explanation.state, &*explanation.headline),
        (State::Alias, "web is an alias: a CNAME for db.example.com")
    );
    assert_eq!(explanation.problems, []);
    assert_eq!(explanation.endpoints, []);
}

#[test]
fn notes_name_what_nothing_acts_on() {
    let text = service("topologyKeys: [\"*\"]", "aR*").replace(
        "{name: web}",
        "{name: web, annotations: {service.kubernetes.io/topology-mode: Auto}}",
    );
    let explanation = explained(&text);
    let notes: Vec<&str> = explanation.notes.iter().map(|note| &*note.text).collect();
    let expected = [
        "annotation service.kubernetes.io/topology-mode: nothing here acts on it",
        "spec.topologyKeys: ignored, as in current Kubernetes",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn names_go_from_the_longest_to_the_shortest() {
    let explanation = explained(&service(CLUSTER, "aR*"));
    assert_eq!(
        explanation.names,
        ["web.default.svc.cluster.local", "web.default", "web"]
    );
}

#[test]
fn cluster_dns_of_an_export_is_our_own() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\nspec:\n  clusterIP: \
                10.96.0.10\n  selector: {k8s-app: kube-dns}\n  ports: [{name: dns, port: 53, protocol: UDP}]\n";
    let explanation = explained_of(text, "kube-system", "kube-dns");
    assert_eq!(
        explanation.headline,
        "kube-dns is answered by portico's own DNS"
    );
    let causes: Vec<Cause> = explanation.problems.iter().map(|of| of.cause).collect();
    assert_eq!(causes, [Cause::Mapped]);
}

#[test]
fn endpoints_beside_a_selector_are_said_not_to_be_used() {
    let text = service("selector: {app: web}", "");
    let text = format!(
        "{text}---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: web}}\nsubsets: [{{addresses: [{{ip: \
         10.0.0.1}}], ports: [{{name: http, port: 80}}]}}]\n"
    );
    let explanation = explained(&text);
    let notes: Vec<&str> = explanation.notes.iter().map(|note| &*note.text).collect();
    assert_eq!(
        notes,
        ["Endpoints web are not used: the Service has a selector"]
    );
    let first = &explanation.problems[0];
    assert_eq!(
        first.text,
        "no pod in namespace default matches app=web; there are no pods at all"
    );
}

#[test]
fn clients_of_this_machine_are_said_to_be_one_client() {
    let spec =
        "type: LoadBalancer, sessionAffinity: ClientIP, loadBalancerSourceRanges: [10.0.0.0/8]";
    let text = service(&spec.replace(", ", "\n  "), "aR*");
    let (world, snapshot) = compiled(&text);
    let view = snapshot.service("default/web").unwrap();
    let counters = &view.ports[0].state;
    counters
        .dropped_source_range
        .store(3, std::sync::atomic::Ordering::Relaxed);
    let explanation = explained_in(&world, &snapshot, "default", "web");
    let notes: Vec<&str> = explanation.notes.iter().map(|note| &*note.text).collect();
    let said = |part: &str| notes.iter().any(|note| note.contains(part));
    assert!(said("ClientIP sends them all to one pod"), "{notes:?}");
    assert!(
        said("127.0.0.1, which is in none of the ranges"),
        "{notes:?}"
    );
    assert!(
        said("port http: 3 connections were reset because their source is outside"),
        "{notes:?}"
    );
}

#[test]
fn limits_that_are_reached_are_said_with_their_annotations() {
    use std::sync::atomic::Ordering::Relaxed;
    let text = service(CLUSTER, "aR*").replacen(
        "{name: web}",
        "{name: web, annotations: {portico.dev/max-connections: \"3\", portico.dev/max-connections-per-endpoint: \"2\"}}",
        1,
    );
    let (world, snapshot) = compiled(&text);
    let said = || -> Vec<String> {
        let explanation = explained_in(&world, &snapshot, "default", "web");
        let full = explanation.problems.into_iter();
        full.filter(|problem| problem.cause == Cause::Full)
            .map(|problem| problem.text)
            .collect()
    };
    assert_eq!(said(), Vec::<String>::new());
    let port = &snapshot.service("default/web").unwrap().ports[0];
    port.state.active.store(3, Relaxed);
    let endpoints = port.cluster.as_ref().unwrap().endpoints();
    endpoints[0].state.active.store(2, Relaxed);
    assert_eq!(
        said(),
        [
            "port http has 3 connections, and portico.dev/max-connections allows 3: the next ones wait until one ends",
            "port http: each endpoint has the 2 connections that portico.dev/max-connections-per-endpoint allows: the \
             next ones wait for a place, no longer than --connect-timeout"
        ]
    );
}

#[test]
fn addresses_of_clients_are_said_to_be_kept_or_why_not() {
    let text = service(CLUSTER, "aR*");
    let quiet = explained(&text);
    assert!(
        !quiet
            .notes
            .iter()
            .any(|note| note.text.contains("source-address"))
    );
    let kept = text.replacen(
        "{name: web}",
        "{name: web, annotations: {portico.dev/source-address: keep}}",
        1,
    );
    let (world, snapshot) = compiled(&kept);
    let view = snapshot.service("default/web").unwrap();
    let counts = &view.ports[0].state.source_not_kept;
    assert!(
        counts.count(portico_core::balance::Unkept::Silence),
        "the first"
    );
    assert!(!counts.count(portico_core::balance::Unkept::Silence));
    let explanation = explained_in(&world, &snapshot, "default", "web");
    let notes = explanation.notes.iter();
    let said: Vec<_> = notes.filter(|note| note.text.contains("address")).collect();
    assert!(
        said[0]
            .text
            .contains("endpoints see their clients' addresses")
    );
    assert!(
        said[1].text.contains("2 clients' addresses were not kept"),
        "{said:?}"
    );
    assert!(
        said[1]
            .fix
            .as_ref()
            .unwrap()
            .contains("0013-source-address")
    );
}

#[test]
fn port_of_two_that_no_slice_has_leaves_the_other_served() {
    let text = service(CLUSTER, "aR*").replace(
        "ports: [{name: http, port: 80}]",
        "ports: [{name: http, port: 80}, {name: metrics, port: 90}]",
    );
    let explanation = explained(&text);
    assert_eq!(explanation.state, State::PartlyServed);
    assert_eq!(
        explanation.headline,
        "web is served on 1 of 2 ports: 1 of 1 endpoint"
    );
    let first = &explanation.problems[0];
    assert_eq!(
        first.text,
        "EndpointSlice web-1 has ports \"http\", the Service port is named \"metrics\": they join by name"
    );
    let fix = first.fix.as_deref();
    assert_eq!(fix, Some("add a port with `name: metrics` to the slice"));
}

#[test]
fn family_without_endpoints_is_told_apart_from_endpoints_of_the_wrong_one() {
    let check = |spec: &str, wanted: &str| {
        let explained = explained(&service(spec, "aR*"));
        let all = explained.problems.iter().chain(&explained.notes);
        let said: Vec<&str> = all.map(|one| &*one.text).collect();
        assert!(
            said.iter().any(|text| text.ends_with(wanted)),
            "{spec}: {said:?}"
        );
    };
    check(
        "ipFamilyPolicy: RequireDualStack",
        "no endpoint has an IPv6 address: connections to those of the Service are refused",
    );
    check(
        "ipFamilies: [IPv6]",
        "lists IPv4 addresses, and the Service has IPv6 ones only",
    );
}

/// A slice of the other family beside [`service`]'s, with one endpoint.
const OF_IPV6: &str = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-6, labels: \
    {kubernetes.io/service-name: web}}\naddressType: IPv6\nports: [{name: http, port: 8080}]\nendpoints: [{addresses: \
    [\"fd00::1\"]}]\n";

#[test]
fn port_of_two_families_is_one_port_and_joins_slices_by_family() {
    let text = service("ipFamilyPolicy: RequireDualStack", "aR*");
    let explanation = explained(&format!("{text}{OF_IPV6}"));
    assert_eq!(
        explanation.headline,
        "web is served: 2 of 2 endpoints on 1 port"
    );
    let joins = explanation.joins.iter();
    let joins: Vec<_> = joins
        .map(|join| (&*join.family, join.joined.join(", ")))
        .collect();
    assert_eq!(
        joins,
        [
            ("IPv4", "EndpointSlice web-1: 8080".to_owned()),
            ("IPv6", "EndpointSlice web-6: 8080".to_owned())
        ]
    );
    assert_eq!(
        explained(&text).headline,
        "web is served on 1 of 2 ports (each family has its own): 1 of 1 endpoint"
    );
}

#[test]
fn attempt_of_datagrams_alone_is_a_datagram_or_a_question() {
    let attempt = |spec: &str, protocols: &str| {
        let text = service(spec, "aR*").replace("name: http, ", protocols);
        explained(&text).attempt.unwrap()
    };
    let udp = "name: http, protocol: UDP, ";
    let spec = "clusterIP: 127.96.0.50";
    assert_eq!(attempt(spec, udp), "echo hello | nc -u -w 1 127.96.0.50 80");
    let dns = service(spec, "aR*").replace(
        "{name: http, port: 80}",
        "{name: http, protocol: UDP, port: 53}",
    );
    let dns = dns.replace(
        "{name: http, port: 8080}",
        "{name: http, protocol: UDP, port: 8080}",
    );
    assert_eq!(
        explained(&dns).attempt.unwrap(),
        "dig @127.96.0.50 -p 53 example.com"
    );
    assert_eq!(attempt(spec, "name: http, "), "curl http://127.96.0.50/");
}

#[test]
fn attempt_is_of_a_family_that_has_endpoints() {
    let spec = "ipFamilyPolicy: RequireDualStack\n  clusterIP: 127.96.0.50\n  clusterIPs: [127.96.0.50, \"fd00:10:96::50\"]";
    let text = service(spec, "");
    let explanation = explained(&format!("{text}{OF_IPV6}"));
    assert_eq!(
        explanation.attempt.as_deref(),
        Some("curl http://[fd00:10:96::50]/")
    );
}

#[test]
fn family_that_no_source_range_is_of_is_said_to_be_closed() {
    let said = |ranges: &str| -> Vec<String> {
        let spec = format!("type: LoadBalancer\n  loadBalancerSourceRanges: {ranges}");
        let notes = explained(&service(&spec, "aR*")).notes.into_iter();
        notes.map(|note| note.text).collect()
    };
    assert_eq!(said("[127.0.0.0/8]"), [] as [&str; 0]);
    let notes = said("[\"fd00::/8\"]");
    assert!(
        notes.iter().any(|note| note.starts_with(
            "spec.loadBalancerSourceRanges: no range is of IPv4: at the load-balancer address all its clients are dropped"
        )),
        "{notes:?}"
    );
}
