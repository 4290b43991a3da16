//! Replies over real sockets: whatever leaves together arrives apart.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use super::*;
use crate::net::datagrams::refuse_segments;

/// For what is there already.
const DEADLINE: Duration = Duration::from_secs(10);

/// Replies with as many of the request's first byte as its second one says, in tens.
struct Repeating;

impl Answers for Repeating {
    fn answer(&mut self, request: &[u8], client: Option<SocketAddr>, reply: &mut Vec<u8>) {
        assert!(client.is_some());
        let [byte, tens] = *request else {
            panic!("{request:?}")
        };
        reply.resize(usize::from(tens) * 10, byte);
    }

    fn end(self) {}
}

/// A server, and clients that have sent these requests in turn.
fn asked(ip: IpAddr, requests: &[&[u8]]) -> (UdpSocket, Vec<UdpSocket>) {
    let bind = || UdpSocket::bind((ip, 0)).unwrap();
    let server = bind();
    let clients: Vec<_> = requests.iter().map(|_| bind()).collect();
    let most = requests.iter().map(|tens| tens.len()).max().unwrap();
    for turn in 0..most {
        for (client, tens) in clients.iter().zip(requests) {
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            if let Some(tens) = tens.get(turn) {
                let byte = u8::try_from(turn).unwrap();
                client.send(&[byte, *tens]).unwrap();
            }
        }
    }
    (server, clients)
}

/// Every client has each of its replies once and whole, and nothing else.
fn check_replies(clients: &[UdpSocket], requests: &[&[u8]]) {
    for (client, tens) in clients.iter().zip(requests) {
        let mut expected: Vec<_> = (0_u8..)
            .zip(*tens)
            .filter(|(_, tens)| **tens > 0)
            .map(|(byte, tens)| vec![byte; usize::from(*tens) * 10])
            .collect();
        let mut buffer = [0; 4096];
        let mut receive = || {
            client
                .recv(&mut buffer)
                .map(|length| buffer[..length].to_vec())
        };
        let mut replies: Vec<_> = expected.iter().map(|_| receive().unwrap()).collect();
        client.set_nonblocking(true).unwrap();
        assert!(receive().is_err(), "one more");
        expected.sort();
        replies.sort();
        assert_eq!(replies, expected);
    }
}

/// Of three clients: different lengths, equal ones, one alone and silence between.
const REQUESTS: [&[u8]; 4] = [&[1, 200, 3, 3, 7, 120], &[5, 5, 5, 5], &[9], &[0, 2, 0]];

#[test]
fn run_replies_to_several_clients_each_gets_its_own_whole() {
    let families: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    // Some machines are without IPv6.
    let here = families.map(|ip| UdpSocket::bind((ip, 0)).is_ok().then_some(ip));
    for ip in here.into_iter().flatten() {
        let (server, clients) = asked(ip, &REQUESTS);
        let mut exchange = Exchange::new();
        let exchanged = exchange.run(&server, |_| Repeating).unwrap();
        let (received, unsent) = (14, 0);
        assert_eq!(exchanged, Exchanged { received, unsent });
        check_replies(&clients, &REQUESTS);
        let error = exchange.run(&server, |_| Repeating).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn run_where_nothing_can_be_joined_each_reply_leaves_alone() {
    let (server, clients) = asked(Ipv4Addr::LOCALHOST.into(), &REQUESTS);
    refuse_segments(&server);
    let mut exchange = Exchange::new();
    let exchanged = exchange.run(&server, |_| Repeating).unwrap();
    assert_eq!(exchanged.unsent, 0);
    check_replies(&clients, &REQUESTS);
    // As on a kernel that does not know it at all.
    let (server, clients) = asked(Ipv4Addr::LOCALHOST.into(), &REQUESTS);
    let mut exchange = Exchange {
        can_join: Some(false),
        ..Exchange::new()
    };
    exchange.run(&server, |_| Repeating).unwrap();
    check_replies(&clients, &REQUESTS);
}

#[test]
fn run_reply_that_cannot_be_sent_is_counted_and_others_leave() {
    /// Too long for a datagram, where as many tens are asked for.
    struct TooLong;
    impl Answers for TooLong {
        fn answer(&mut self, request: &[u8], client: Option<SocketAddr>, reply: &mut Vec<u8>) {
            Repeating.answer(request, client, reply);
            if request[1] == 255 {
                reply.resize(70_000, 0);
            }
        }
        fn end(self) {}
    }
    let (server, clients) = asked(Ipv4Addr::LOCALHOST.into(), &[&[1, 255, 2], &[255], &[3, 3]]);
    let exchanged = Exchange::new().run(&server, |_| TooLong).unwrap();
    let (received, unsent) = (6, 2);
    assert_eq!(exchanged, Exchanged { received, unsent });
    let mut buffer = [0; 100];
    for (client, expected) in [(0, [20, 10]), (2, [30, 30])] {
        let lengths = expected.map(|_| clients[client].recv(&mut buffer).unwrap());
        assert_eq!(lengths, expected);
    }
}

#[test]
fn train_is_of_one_client_and_length_and_one_shorter() {
    let replies = |lengths: &[(u16, usize)]| -> Vec<Outgoing> {
        let reply = |(port, length): &(u16, usize)| Outgoing {
            client: (Ipv4Addr::LOCALHOST, *port).into(),
            length: *length,
            place: 0,
        };
        lengths.iter().map(reply).collect()
    };
    for (lengths, expected) in [
        (&[][..], 0),
        (&[(1, 9)], 1),
        (&[(1, 9), (1, 9), (1, 9)], 3),
        (&[(1, 9), (1, 9), (1, 5), (1, 5)], 3),
        (&[(1, 9), (1, 5), (1, 5)], 2),
        (&[(1, 9), (2, 9)], 1),
        (&[(1, 9), (2, 5)], 1),
        (&[(1, 25_000), (1, 25_000), (1, 25_000)], 2),
        (&[(1, 65_000), (1, 65_000)], 1),
    ] {
        assert_eq!(train(&replies(lengths)), expected, "{lengths:?}");
    }
}
