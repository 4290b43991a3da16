//! Tables as the kernel prints them, and one real listener.

use std::net::TcpListener;

use super::*;

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1151 1 000000005b52e82e 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2222 1 0000000000000000 100 0 0 10 0
   2: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 3333 1 0000000000000000 100 0 0 10 0
   3: damaged
";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4444 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     5        0 5555 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     6        0 6666 1 0000000000000000 100 0 0 10 0
";

fn socket(local: &str, uid: u32, inode: u64) -> Socket {
    Socket {
        local: local.parse().unwrap(),
        uid,
        inode,
    }
}

/// The tables above are as a little-endian processor prints them.
#[cfg(target_endian = "little")]
#[test]
fn parse_tables_give_listening_sockets() {
    assert_eq!(
        parse(TCP, TCP_LISTEN),
        [
            socket("0.0.0.0:80", 0, 1151),
            socket("127.0.0.1:8080", 1000, 2222)
        ]
    );
    assert_eq!(
        parse(TCP6, TCP_LISTEN),
        [
            socket("[::]:443", 33, 4444),
            socket("127.0.0.1:8081", 5, 5555),
            socket("[::1]:8082", 6, 6666)
        ]
    );
}

#[test]
fn blocking_nearest_socket_on_the_port_is_chosen() {
    let sockets = [
        socket("[::]:80", 0, 1),
        socket("0.0.0.0:80", 0, 2),
        socket("127.0.0.1:80", 0, 3),
        socket("127.0.0.1:81", 0, 4),
        socket("[::]:82", 0, 5),
    ];
    let check = |addr: &str, expected: Option<u64>| {
        let found = blocking(&sockets, addr.parse().unwrap()).map(|socket| socket.inode);
        assert_eq!(found, expected, "{addr}");
    };
    check("127.0.0.1:80", Some(3));
    check("127.96.0.1:80", Some(2));
    check("[::1]:80", Some(1));
    check("127.96.0.1:81", None);
    check("0.0.0.0:81", Some(4));
    check("[::]:81", Some(4));
    check("127.96.0.1:82", Some(5));
    check("127.96.0.1:83", None);
}

#[test]
fn holder_of_own_listener_is_this_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let holder = holder_of(addr).unwrap();
    assert_eq!((holder.pid, holder.local), (Some(std::process::id()), addr));
    assert_eq!(holder.uid, rustix::process::getuid().as_raw());
}

#[test]
fn udp_holder_of_own_socket_is_this_process() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let holder = udp_holder_of(socket.local_addr().unwrap()).unwrap();
    assert_eq!(holder.pid, Some(std::process::id()));
}

#[test]
fn display_says_as_much_as_is_known() {
    let check = |pid, command: Option<&str>, expected: &str| {
        let command = command.map(str::to_owned);
        let holder = Holder {
            pid,
            command,
            uid: 33,
            local: "0.0.0.0:80".parse().unwrap(),
        };
        assert_eq!(holder.to_string(), expected);
    };
    check(
        Some(4242),
        Some("python3"),
        "held by python3 (pid 4242) on 0.0.0.0:80",
    );
    check(Some(4242), None, "held by pid 4242 on 0.0.0.0:80");
    check(None, None, "held by a process of uid 33 on 0.0.0.0:80");
}

#[test]
fn fix_for_each_error_says_what_to_type() {
    let holder = |local: &str| Holder {
        pid: Some(7),
        command: None,
        uid: 0,
        local: local.parse().unwrap(),
    };
    let check = |error, addr: &str, holder: Option<Holder>, expected: &[&str]| {
        let fix = fix_for(error, addr.parse().unwrap(), holder.as_ref());
        assert!(expected.iter().all(|part| fix.contains(part)), "{fix}");
        assert_eq!(fix.is_empty(), expected.is_empty(), "{fix}");
    };
    let (denied, in_use) = (io::ErrorKind::PermissionDenied, io::ErrorKind::AddrInUse);
    let sysctl = "sudo sysctl net.ipv4.ip_unprivileged_port_start=53";
    check(
        denied,
        "127.96.0.1:80",
        None,
        &[sysctl, "sudo setcap cap_net_bind_service=+ep /"],
    );
    check(
        denied,
        "127.96.0.1:22",
        None,
        &["ip_unprivileged_port_start=22 "],
    );
    check(
        in_use,
        "127.96.0.1:80",
        Some(holder("0.0.0.0:80")),
        &["kill 7", "127.0.0.1 instead of 0.0.0.0"],
    );
    check(
        in_use,
        "127.96.0.1:80",
        Some(holder("127.96.0.1:80")),
        &["kill 7"],
    );
    check(in_use, "127.96.0.1:80", None, &["ss -lptn 'sport = :80'"]);
    check(
        io::ErrorKind::AddrNotAvailable,
        "203.0.113.9:80",
        None,
        &[
            "sudo ip address add 203.0.113.9 dev lo",
            "--external-ip-cidr 203.0.113.9/32",
        ],
    );
    check(io::ErrorKind::TimedOut, "127.96.0.1:80", None, &[]);
}
