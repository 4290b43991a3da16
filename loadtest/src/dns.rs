//! Names that every DNS server under load has, and what is asked of them. Owns the fixture as each server wants to be told
//! it, the queries and what each must be answered; measures nothing.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use portico_core::dns::{Name, RecordType};
use tokio::{net::UdpSocket, time::timeout};

use crate::scenario::Contestant;

/// The answer that is waited for before a question is asked again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Lines of a file of queries, which the generator reads again and again.
const QUERIES: u16 = 10_000;
/// Services of one /24.
const ROW: u16 = 250;
const PORT: u16 = 80;
/// The Start of Authority of both zones: negative answers carry it.
const SOA: &str = "SOA ns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";

/// Services `web-0` and so on in the namespace `default`, each with an address in a /16 and a port `http`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixture {
    /// The first half of their addresses.
    range: [u8; 2],
    /// How many.
    services: u16,
    /// Headless Services beside them, of portico alone: nobody asks for them.
    headless: u16,
    /// How often everything was declared anew.
    edits: u8,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The address of a Service.
    Address,
    /// The IPv6 address of a Service that has none.
    NoData,
    /// The address of a Service that there is not.
    NoName,
    /// The port of a Service.
    Port,
    /// The name of an address.
    Reverse,
}

/// Each kind and how many of a hundred queries are of it.
const SHARES: [(Kind, u16); 5] = [
    (Kind::Address, 60),
    (Kind::NoData, 15),
    (Kind::NoName, 15),
    (Kind::Port, 5),
    (Kind::Reverse, 5),
];

impl Kind {
    const fn rtype(self) -> RecordType {
        match self {
            Self::Address | Self::NoName => RecordType::A,
            Self::NoData => RecordType::Aaaa,
            Self::Port => RecordType::Srv,
            Self::Reverse => RecordType::Ptr,
        }
    }

    /// The response code and the number of answers (RFC 1035, section 4.1.1; RFC 2308 for none).
    const fn expected(self) -> (u8, u16) {
        match self {
            Self::Address | Self::Port | Self::Reverse => (0, 1),
            Self::NoData => (0, 0),
            Self::NoName => (3, 0),
        }
    }
}

impl Fixture {
    /// As it is at first.
    pub(crate) const fn new(range: [u8; 2], services: u16, headless: u16) -> Self {
        Self {
            range,
            services,
            headless,
            edits: 0,
        }
    }

    /// With one more Service, by which it is known, and other endpoints of all headless ones.
    pub(crate) const fn edited(self) -> Self {
        Self {
            services: self.services + 1,
            edits: self.edits.wrapping_add(1),
            ..self
        }
    }

    fn addr(self, service: u16) -> Ipv4Addr {
        let [first, second] = self.range;
        // From the second /24 on: portico's own addresses are in the first.
        let row = u8::try_from(service / ROW + 1).unwrap_or(u8::MAX);
        let place = u8::try_from(service % ROW + 1).unwrap_or(u8::MAX);
        Ipv4Addr::new(first, second, row, place)
    }

    /// Names, ports and addresses of all.
    fn all(self) -> impl Iterator<Item = (String, String, Ipv4Addr)> {
        (0..self.services).map(move |service| {
            let name = name("web", service);
            (
                name.clone(),
                format!("_http._tcp.{name}"),
                self.addr(service),
            )
        })
    }

    /// The zone of the addresses.
    fn reverse_zone(self) -> String {
        let [first, second] = self.range;
        format!("{second}.{first}.in-addr.arpa")
    }

    fn question(self, kind: Kind, service: u16) -> String {
        match kind {
            Kind::Address | Kind::NoData => name("web", service),
            Kind::NoName => name("no", service),
            Kind::Port => format!("_http._tcp.{}", name("web", service)),
            Kind::Reverse => reverse(self.addr(service)),
        }
    }

    /// What the generator asks, in its form: the kinds mixed by their shares.
    pub(crate) fn queries(self) -> String {
        let mut text = String::new();
        for line in 0..QUERIES {
            // 37 has no factor in common with 100: each place of a hundred comes once.
            let mut place = line % 100 * 37 % 100;
            let kind = SHARES.into_iter().find_map(|(kind, share)| {
                let is_it = place < share;
                place = place.saturating_sub(share);
                is_it.then_some(kind)
            });
            let kind = kind.unwrap_or(Kind::Address);
            let question = self.question(kind, line % self.services);
            let _ = writeln!(text, "{question} {}", kind.rtype());
        }
        text
    }

    /// Whether a server answers as all must: one question of each kind.
    ///
    /// # Errors
    /// It does not answer, or otherwise.
    pub(crate) async fn check(self, server: SocketAddr) -> anyhow::Result<()> {
        for (kind, _) in SHARES {
            let question = self.question(kind, self.services - 1);
            let answered = timeout(PATIENCE, ask(server, &question, kind.rtype()))
                .await
                .with_context(|| format!("no answer to {question}"))??;
            ensure!(
                answered == kind.expected(),
                "{question} {} has response code and number of answers {answered:?}, not {:?}",
                kind.rtype(),
                kind.expected()
            );
        }
        Ok(())
    }

    /// What a contestant is told; empty for who has nothing to do with DNS.
    pub(crate) fn configuration(self, contestant: Contestant, target: SocketAddr) -> String {
        match contestant {
            Contestant::Portico => self.manifests(),
            Contestant::Knot => self.knot(target),
            Contestant::Unbound => self.unbound(target),
            Contestant::Dnsmasq => self.dnsmasq(target),
            Contestant::Hickory => self.hickory(target),
            _ => String::new(),
        }
    }

    /// What portico is told.
    pub(crate) fn manifests(self) -> String {
        let mut text = String::new();
        for service in 0..self.services {
            let _ = writeln!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web-{service}\nspec:\n  clusterIP: {}\n  ports:\n    \
                 - name: http\n      port: {PORT}",
                self.addr(service)
            );
        }
        for service in 0..self.headless {
            let [high, low] = service.to_be_bytes();
            let _ = writeln!(
                text,
                "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: headless-{service}\nspec:\n  clusterIP: None\n  \
                 ports:\n    - name: http\n      port: {PORT}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata:\n  name: headless-{service}\n  labels:\n    kubernetes.io/service-name: headless-{service}\n\
                 addressType: IPv4\nports:\n  - name: http\n    port: {PORT}\nendpoints:\n  \
                 - addresses: [\"10.{}.{high}.{low}\"]",
                self.edits
            );
        }
        text
    }

    /// Beside the files of [`Self::zones`].
    fn knot(self, target: SocketAddr) -> String {
        let mut text = format!(
            "server:\n  listen: {}@{}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n  rundir: .\n\
             database:\n  storage: .\nlog:\n  - target: stderr\n    any: error\n\
             template:\n  - id: default\n    storage: .\n    journal-content: none\n    zonefile-sync: -1\nzone:\n",
            target.ip(),
            target.port()
        );
        for (zone, _) in self.zones() {
            let _ = writeln!(text, "  - domain: {zone}\n    file: {zone}.zone");
        }
        text
    }

    /// Beside the files of [`Self::zones`]. Started as root it would become somebody who cannot read them.
    fn hickory(self, target: SocketAddr) -> String {
        let (ip, port) = (target.ip(), target.port());
        let mut text = format!(
            "listen_addrs_ipv4 = [\"{ip}\"]\nlisten_port = {port}\ndirectory = \".\"\nuser = \"root\"\ngroup = \"root\"\n"
        );
        for (zone, _) in self.zones() {
            let _ = writeln!(
                text,
                "[[zones]]\nzone = \"{zone}\"\nzone_type = \"Primary\"\nfile = \"{zone}.zone\""
            );
        }
        text
    }

    /// Zones by name, in the form of RFC 1035, section 5.
    pub(crate) fn zones(self) -> [(String, String); 2] {
        let head = |zone: &str| format!("$TTL 5\n{zone}. {SOA}\n{zone}. NS ns.cluster.local.\n");
        let (forth, back) = ("cluster.local".to_owned(), self.reverse_zone());
        let mut names = head(&forth) + "ns.cluster.local. A 127.0.0.1\n";
        let mut addrs = head(&back);
        for (name, port, addr) in self.all() {
            let _ = writeln!(names, "{name}. A {addr}\n{port}. SRV 0 100 {PORT} {name}.");
            let _ = writeln!(addrs, "{}. PTR {name}.", reverse(addr));
        }
        [(forth, names), (back, addrs)]
    }

    fn unbound(self, target: SocketAddr) -> String {
        let mut text = format!(
            "server:\n  interface: {}@{}\n  num-threads: 1\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  \
             directory: \".\"\n  pidfile: \"\"\n  use-syslog: no\n  verbosity: 0\n  access-control: 127.0.0.0/8 allow\n  \
             module-config: \"iterator\"\n",
            target.ip(),
            target.port()
        );
        for zone in ["cluster.local", &self.reverse_zone()] {
            let _ = writeln!(
                text,
                "  local-zone: \"{zone}.\" static\n  local-data: \"{zone}. 5 {SOA}\""
            );
        }
        for (name, port, addr) in self.all() {
            let _ = writeln!(
                text,
                "  local-data: \"{name}. 5 A {addr}\"\n  local-data: \"{port}. 5 SRV 0 100 {PORT} {name}.\"\n  \
                 local-data: \"{}. 5 PTR {name}.\"",
                reverse(addr)
            );
        }
        text + "remote-control:\n  control-enable: no\n"
    }

    fn dnsmasq(self, target: SocketAddr) -> String {
        let mut text = format!(
            "port={}\nlisten-address={}\nbind-interfaces\nno-resolv\nno-hosts\npid-file=\nlocal-ttl=5\nlocal=/cluster.local/\n\
             local=/{}/\n",
            target.port(),
            target.ip(),
            self.reverse_zone()
        );
        for (name, port, addr) in self.all() {
            let _ = writeln!(
                text,
                "host-record={name},{addr}\nsrv-host={port},{name},{PORT},0,100"
            );
        }
        text
    }
}

fn name(prefix: &str, service: u16) -> String {
    format!("{prefix}-{service}.default.svc.cluster.local")
}

fn reverse(addr: Ipv4Addr) -> String {
    let [a, b, c, d] = addr.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// Response code and number of answers to one question.
async fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> anyhow::Result<(u8, u16)> {
    let name = Name::parse(name)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(server).await?;
    // Number 1, recursion desired as stubs have it, one question in the class IN.
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(name.as_wire());
    query.extend_from_slice(&rtype.number().to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    socket.send(&query).await?;
    let mut response = [0; 512];
    let length = socket.recv(&mut response).await?;
    let head = response.get(..length).and_then(<[u8]>::first_chunk::<12>);
    let [_, _, _, flags, _, _, high, low, ..] = head.context("a response without a head")?;
    Ok((flags & 0x0f, u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const FIXTURE: Fixture = Fixture::new([127, 131], 1000, 0);

    #[test]
    fn manifests_of_an_edit_have_one_more_service_and_other_endpoints() {
        let fixture = Fixture::new([127, 131], 2, 300);
        let (first, second) = (fixture.manifests(), fixture.edited().manifests());
        for (text, services, endpoints) in [(first, 2, "[\"10.0.1."), (second, 3, "[\"10.1.1.")] {
            assert_eq!(text.matches("clusterIP: 127.131.").count(), services);
            assert_eq!(text.matches("clusterIP: None").count(), 300);
            assert_eq!(text.matches(endpoints).count(), 44);
        }
    }

    #[test]
    fn queries_have_the_kinds_in_their_shares() {
        let text = FIXTURE.queries();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let (name, rtype) = line.split_once(' ').unwrap();
            let is_none = name.starts_with("no-");
            *counts.entry((rtype.to_owned(), is_none)).or_insert(0) += 1;
        }
        for (kind, share) in SHARES {
            let key = (kind.rtype().to_string(), kind == Kind::NoName);
            assert_eq!(counts[&key], share * 100, "{kind:?}");
        }
    }

    #[test]
    fn configuration_of_each_server_has_every_service_once() {
        let target = "127.0.0.1:5353".parse().unwrap();
        for (contestant, head) in [
            (Contestant::Portico, "clusterIP: 127.131."),
            (Contestant::Unbound, ". 5 A 127.131."),
            (Contestant::Dnsmasq, "host-record="),
        ] {
            let text = FIXTURE.configuration(contestant, target);
            assert_eq!(text.matches(head).count(), 1000, "{contestant}");
        }
        let [(_, names), (zone, addrs)] = FIXTURE.zones();
        assert_eq!(names.matches(" A 127.131.").count(), 1000);
        assert_eq!(addrs.matches(" PTR ").count(), 1000);
        let knot = FIXTURE.configuration(Contestant::Knot, target);
        assert!(
            knot.contains("file: cluster.local.zone") && knot.contains(&zone),
            "{knot}"
        );
    }

    #[tokio::test]
    async fn check_of_who_answers_otherwise_says_what() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = socket.local_addr().unwrap();
        let refusing = async {
            let mut query = [0; 512];
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            query[3] = 5;
            socket.send_to(&query[..length], from).await.unwrap();
        };
        let (checked, ()) = tokio::join!(FIXTURE.check(server), refusing);
        let error = checked.unwrap_err().to_string();
        assert!(
            error.contains("web-999.") && error.contains("(5, 0), not (0, 1)"),
            "{error}"
        );
    }
}
