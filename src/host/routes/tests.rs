//! What does not need a kernel that lets us; the rest is in the integration tests, in namespaces.

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A route that somebody made: in the table `main`, of type unicast.
fn foreign(text: &str) -> Route {
    Route {
        table: 254,
        kind: 1,
        ..Route::local(net(text), 3, 0, None)
    }
}

fn kernels(text: &str) -> Route {
    Route::local(net(text), 2, 0, None)
}

fn of_portico(text: &str, owner: u32) -> Route {
    Route::local(net(text), PROTOCOL, owner, None)
}

fn standing_of(range: &str, routes: &[Route]) -> String {
    let is_ours = |route: &Route| route.protocol == PROTOCOL && route.priority == 7;
    match standing(net(range), routes, is_ours) {
        Standing::Local => "local".to_owned(),
        Standing::Free => "free".to_owned(),
        Standing::Taken(route) => route.net.to_string(),
    }
}

#[test]
fn standing_of_a_range_follows_from_who_has_what() {
    let usual = [
        foreign("0.0.0.0/0"),
        foreign("0.0.0.0/1"),
        foreign("192.168.7.0/24"),
        kernels("192.168.7.1/32"),
        kernels("127.0.0.0/8"),
        kernels("127.0.0.1/32"),
        kernels("::1/128"),
    ];
    for (range, expected) in [
        ("127.96.0.0/12", "local"),
        ("10.96.0.0/12", "free"),
        ("192.168.7.128/25", "192.168.7.0/24"),
        ("192.168.0.0/16", "192.168.7.0/24"),
        ("fd00:96::/108", "free"),
    ] {
        assert_eq!(standing_of(range, &usual), expected, "{range}");
    }
    assert_eq!(
        standing_of("10.96.0.0/12", &[kernels("10.100.0.7/32")]),
        "10.100.0.7/32"
    );
    assert_eq!(
        standing_of("10.96.0.0/12", &[kernels("10.0.0.0/8")]),
        "local"
    );
}

#[test]
fn standing_of_another_instances_range_is_taken_and_of_ours_free() {
    assert_eq!(
        standing_of("10.96.0.0/12", &[of_portico("10.96.0.0/12", 8)]),
        "10.96.0.0/12"
    );
    assert_eq!(
        standing_of("10.96.1.0/24", &[of_portico("10.96.0.0/12", 8)]),
        "10.96.0.0/12"
    );
    assert_eq!(
        standing_of("10.96.0.0/12", &[of_portico("10.96.0.0/12", 7)]),
        "free"
    );
}

#[test]
fn number_of_an_identity_is_its_own_and_never_nothing() {
    assert_eq!(
        number_of("1000 default /run"),
        number_of("1000 default /run")
    );
    assert_ne!(number_of("1000 default /run"), number_of("1000 other /run"));
    assert!(number_of("") > 0);
}

#[test]
fn fix_for_a_missing_privilege_names_every_way_out() {
    let error = refused("add", net("10.96.0.0/12"))(io::ErrorKind::PermissionDenied.into());
    assert_eq!(
        error.to_string(),
        "10.96.0.0/12 is not local to this host, and to make it so needs CAP_NET_ADMIN"
    );
    let fix = error.fix("/usr/bin/portico").unwrap();
    for way in [
        "setcap cap_net_admin,cap_net_bind_service+ep /usr/bin/portico",
        "127/8",
        "unshare -rn",
    ] {
        assert!(fix.contains(way), "{fix}");
    }
}

#[test]
fn make_local_of_loopback_ranges_needs_nothing_and_claims_nothing() {
    let mut routes = Routes::open("test: loopback ranges");
    assert_eq!(
        routes
            .make_local(&[net("127.96.0.0/12"), net("127.112.0.0/20")])
            .unwrap(),
        []
    );
    routes.allow(&[]).unwrap();
    assert!(!routes.attach([203, 0, 113, 7].into()).unwrap());
    assert!(!routes.detach([203, 0, 113, 7].into()).unwrap());
    assert!(routes.claim.is_none());
}
