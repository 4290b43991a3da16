//! Files of a machine that this one is not: a tree of them.

use super::*;

/// A root with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn privilege_is_read_from_the_process_and_the_kernel() {
    let status = "Name:\tportico\nCapEff:\t0000000000000400\nNoNewPrivs:\t1\n";
    let root = root(&[
        ("proc/self/status", status),
        ("proc/sys/net/ipv4/ip_unprivileged_port_start", "53\n"),
    ]);
    let privilege = Files(root.path()).privilege(Path::new("/dev/null"));
    assert!(privilege.may_bind && privilege.no_new_privs && !privilege.file_may_bind);
    assert_eq!(privilege.unprivileged_ports_from, Some(53));

    let empty = Files(Path::new("/nowhere")).privilege(Path::new("/nowhere"));
    assert!(!empty.may_bind && !empty.no_new_privs);
    assert_eq!(empty.unprivileged_ports_from, None);
}

#[test]
fn limits_are_read_as_they_stand() {
    let root = root(&[
        ("proc/sys/fs/pipe-user-pages-soft", "16384\n"),
        ("proc/sys/fs/inotify/max_user_watches", "64\n"),
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/self/status", "CapEff:\t0000000001000000\n"),
    ]);
    let limits = Files(root.path()).limits();
    assert_eq!(limits.pipe_pages, Some(16_384));
    assert_eq!((limits.watches, limits.queue), (Some(64), Some(128)));
    assert_eq!(limits.local_ports, "32768\t60999");
    assert!(limits.is_exempt_from_pipes, "CAP_SYS_RESOURCE");
    assert!(limits.open_files > 0 && limits.workers > 0);
}

#[test]
fn containers_are_sockets_and_bridges() {
    let root = root(&[("run/podman/podman.sock", "a file that is no socket")]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("run/docker.sock"));
    let engines = Files(root.path()).containers().engines;
    assert!(engines[0].starts_with("docker (") && engines[0].ends_with("run/docker.sock)"));
    assert_eq!(engines.len(), 1);
}

#[test]
fn gateways_are_our_addresses_in_networks_of_bridges() {
    let words = |text: &str| u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets());
    let line = |name: &str, net: &str, mask: &str| {
        let (net, mask) = (words(net), words(mask));
        format!("{name}\t{net:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
    };
    let routes = ["Iface\tDestination\n".to_owned()]
        .into_iter()
        .chain([
            line("eth0", "10.0.0.0", "255.0.0.0"),
            line("docker0", "172.17.0.0", "255.255.0.0"),
            line("br-1234", "172.18.0.0", "255.255.0.0"),
        ])
        .collect::<String>();
    let host = ["10.0.0.5", "127.0.0.1", "172.17.0.1"].map(|addr| addr.parse().unwrap());
    assert_eq!(gateways(&routes, &host), [("docker0".to_owned(), host[2])]);
    assert_eq!(gateways("", &host), []);
}

#[test]
fn file_capabilities_of_a_file_without_any_are_none() {
    assert!(file_capabilities(Path::new("/dev/null")).is_empty());
}
