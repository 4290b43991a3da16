//! What clients on other machines are told. Node ports are tested with the program, which gives them.

use std::{net::IpAddr, sync::Arc};

use super::{
    fixture::{self, With as _, headless, slice, vip},
    table::{check_at, check_in},
};
use crate::{
    dns::{
        Moment, Name,
        packet::{self, Transport},
        told_elsewhere,
    },
    object::Protocol,
    snapshot::{
        ClientPlace, FrontendKey, FrontendKind, Scope, ServiceView, Snapshot, assemble::assemble,
    },
};

fn with_frontends(mut service: ServiceView, frontends: &[(FrontendKind, &str)]) -> ServiceView {
    let frontend = |(kind, addr): &(FrontendKind, &str)| {
        let key = FrontendKey {
            scope: Scope::HOST,
            addr: addr.parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        (key, *kind, 0)
    };
    service.frontends = frontends.iter().map(frontend).collect();
    service
}

fn snapshot() -> Snapshot {
    let local = |name: &str| vip(name, &["127.96.0.5"], &["http/80"]);
    let services = vec![
        local("web"),
        with_frontends(
            local("outside"),
            &[
                (FrontendKind::ClusterIP, "127.96.0.5"),
                (FrontendKind::LoadBalancer, "127.112.0.1"),
                (FrontendKind::ExternalIP, "198.51.100.7"),
                (FrontendKind::LoadBalancer, "198.51.100.8"),
                (FrontendKind::LoadBalancer, "198.51.100.8"),
            ],
        ),
        vip("dual", &["127.96.0.6", "fd00:10:96::6"], &["http/80"]),
        vip("routed", &["10.96.0.7"], &["http/80"]),
        headless("mixed").with(slice(&["http/80"], &["127.0.0.3@a", "10.1.0.3@b"])),
        headless("inside").with(slice(&["http/80"], &["127.0.0.4@a", "::1@b"])),
        ServiceView {
            namespace: Arc::from("dns"),
            ..vip("ns", &["127.96.0.8"], &["http/80"])
        },
    ];
    let mut cluster = fixture::cluster();
    cluster.dns_address = "127.96.0.10".parse().unwrap();
    cluster.dns.advertised = vec!["192.0.2.1".parse().unwrap()];
    assemble(
        Arc::new(cluster),
        services.into_iter().map(Arc::new).collect(),
        &[],
    )
}

#[test]
fn answer_to_clients_elsewhere_never_has_a_loopback_address() {
    let snapshot = snapshot();
    for (question, expected) in [
        ("web.shop.svc A", "NOERROR; -; Z; -"),
        ("web.shop.svc SRV", "NOERROR; -; Z; -"),
        ("_http._tcp.web.shop.svc SRV", "NOERROR; -; Z; -"),
        ("web. A", "NOERROR; -; Z; -"),
        ("nosuch.shop.svc A", "NXDOMAIN; -; Z; -"),
        (
            "outside.shop.svc A",
            "NOERROR; A 198.51.100.7, A 198.51.100.8; -; -",
        ),
        (
            "outside.shop.svc.local. SRV",
            "NOERROR; SRV 0 50 80 outside.shop.svc.local.; -; A 198.51.100.7, A 198.51.100.8",
        ),
        ("dual.shop.svc A", "NOERROR; -; Z; -"),
        ("dual.shop.svc AAAA", "NOERROR; AAAA fd00:10:96::6; -; -"),
        ("routed.shop.svc A", "NOERROR; A 10.96.0.7; -; -"),
        ("mixed.data.svc A", "NOERROR; A 10.1.0.3; -; -"),
        (
            "mixed.data.svc SRV",
            "NOERROR; SRV 0 100 80 b.mixed.data.svc.Z; -; b.mixed.data.svc.Z A 10.1.0.3",
        ),
        ("a.mixed.data.svc A", "NOERROR; -; Z; -"),
        ("inside.data.svc A", "NOERROR; -; Z; -"),
        ("inside.data.svc AAAA", "NOERROR; -; Z; -"),
        ("127-0-0-4.data.pod A", "NOERROR; -; Z; -"),
        ("ns.dns A", "NOERROR; -; Z; -"),
        ("@ NS", "NOERROR; NS ns.dns.Z; -; -"),
        (
            "@ SOA",
            "NOERROR; SOA ns.dns.Z hostmaster.Z 7 7200 1800 86400 5; -; -",
        ),
        ("svc.local. NS", "NOERROR; NS ns.dns.Z; -; -"),
        ("96.10.in-addr.arpa. NS", "NOERROR; NS ns.dns.Z; -; -"),
    ] {
        check_at(ClientPlace::Elsewhere, &snapshot, question, expected);
    }
    check_in(&snapshot, "web.shop.svc A", "NOERROR; A 127.96.0.5; -; -");
    check_in(&snapshot, "inside.data.svc AAAA", "NOERROR; AAAA ::1; -; -");
}

#[test]
fn withheld_tells_what_only_this_host_would_have_got() {
    let snapshot = snapshot();
    let withheld = |name: &str, rtype: u8, place| {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let name = Name::parse(name).unwrap();
        packet.extend(name.as_wire());
        packet.extend([0, rtype, 0, 1]);
        let moment = Moment {
            place,
            ..Moment::default()
        };
        let response = packet::respond(&snapshot, &packet, Transport::Udp, moment).unwrap();
        packet::withheld(&snapshot, &packet, &response, moment)
    };
    for (name, is_name_server) in [
        ("web.shop.svc.cluster.local", false),
        ("ns.dns.cluster.local", true),
        ("NS.dns.cluster.local", true),
        // A Service that has the name server's name.
        ("ns.dns.svc.cluster.local", false),
        ("ns.dns.svc.local", false),
    ] {
        let told = packet::Withheld {
            name: Name::parse(name).unwrap(),
            is_name_server,
        };
        assert_eq!(withheld(name, 1, ClientPlace::Elsewhere), Some(told));
    }
    for (name, rtype, place) in [
        ("web.shop", 1, ClientPlace::OnNode),
        ("web.shop", 28, ClientPlace::Elsewhere),
        ("outside.shop", 1, ClientPlace::Elsewhere),
        ("mixed.data", 1, ClientPlace::Elsewhere),
        ("nosuch.shop", 1, ClientPlace::Elsewhere),
    ] {
        let asked = format!("{name}.svc.cluster.local");
        assert_eq!(
            withheld(&asked, rtype, place),
            None,
            "{name} {rtype} {place:?}"
        );
    }
}

#[test]
fn told_elsewhere_gives_the_addresses_of_the_name() {
    let snapshot = snapshot();
    let told = |path: &str| {
        let service = snapshot.service(path).unwrap();
        told_elsewhere(service, &snapshot.cluster).addresses
    };
    let none: [IpAddr; 0] = [];
    assert_eq!(told("shop/web"), none);
    assert_eq!(told("shop/outside").len(), 2);
    assert_eq!(told("data/mixed"), [IpAddr::from([10, 1, 0, 3])]);
}
