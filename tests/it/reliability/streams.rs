//! Streams and their ends: every byte in order, a clean end is a clean end, a reset is a reset.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{Barrier, mpsc},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendFlags, send, sockopt},
};

use super::{Between, manifest};
use crate::support::{PATIENCE, namespace::in_namespace, program::Program};

/// Beyond what any buffer on the way holds, and far beyond where the relay changes how it moves bytes.
const MUCH: usize = 10 << 20;

/// Bytes that repeat at no power of two, from place `at` of an endless row.
fn bytes(at: usize, count: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at % 251) ^ (at / 251 % 253)).unwrap();
    (at..at + count).map(byte).collect()
}

fn send_much(mut stream: &TcpStream) {
    stream.write_all(&bytes(0, MUCH)).unwrap();
}

/// Reads to the end, which must be a clean one, and compares every byte.
fn expect_much_and_the_end(mut stream: &TcpStream) {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), MUCH);
    assert!(got == bytes(0, MUCH), "bytes are out of order");
}

fn expect_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a clean end");
}

fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

/// Everything up to the end, which must be a reset.
fn expect_reset(mut stream: &TcpStream, case: &str) {
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(
        end.unwrap_err().kind(),
        ErrorKind::ConnectionReset,
        "{case}"
    );
}

/// A reset that no read tells of, because the end was read: it must come without a write.
fn expect_failure(stream: &TcpStream, case: &str) {
    let mut failure = [PollFd::new(stream, PollFlags::empty())];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    poll(&mut failure, Some(&patience)).unwrap();
    assert!(failure[0].revents().contains(PollFlags::ERR), "{case}");
}

#[test]
fn half_close_from_either_side_lets_ten_megabytes_follow_the_other_way() {
    in_namespace!(Root);
    let between = Between::new();
    for client_first in [true, false] {
        let (client, endpoint) = between.connect();
        let (first, other) = if client_first {
            (&client, &endpoint)
        } else {
            (&endpoint, &client)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send_much(first);
                first.shutdown(Shutdown::Write).unwrap();
            });
            // Nothing goes back before the end has come: all of it is data after the other's FIN.
            expect_much_and_the_end(other);
            scope.spawn(|| {
                send_much(other);
                other.shutdown(Shutdown::Write).unwrap();
            });
            expect_much_and_the_end(first);
        });
    }
    between.program.wait_for_connections_to_end();
}

#[test]
fn both_ways_at_once_carry_ten_megabytes_each() {
    in_namespace!(Root);
    let between = Between::new();
    let (client, endpoint) = between.connect();
    std::thread::scope(|scope| {
        for end in [&client, &endpoint] {
            scope.spawn(|| {
                send_much(end);
                end.shutdown(Shutdown::Write).unwrap();
            });
        }
        scope.spawn(|| expect_much_and_the_end(&client));
        expect_much_and_the_end(&endpoint);
    });
    between.program.wait_for_connections_to_end();
}

#[test]
fn reset_from_either_side_reaches_the_other_as_one_whatever_went_before() {
    in_namespace!(Root);
    let between = Between::new();
    for client_resets in [true, false] {
        let who = if client_resets { "client" } else { "endpoint" };
        let connect = || {
            let (client, endpoint) = between.connect();
            if client_resets {
                (client, endpoint)
            } else {
                (endpoint, client)
            }
        };
        let (resets, other) = connect();
        reset(resets);
        expect_reset(&other, &format!("{who} resets an idle connection"));

        let (mut resets, other) = connect();
        resets.write_all(&bytes(0, MUCH / 64)).unwrap();
        reset(resets);
        expect_reset(&other, &format!("{who} resets after some bytes"));

        // Its own FIN went before: only the way back is left, and nothing moves on it.
        let (resets, other) = connect();
        resets.shutdown(Shutdown::Write).unwrap();
        expect_end(&other);
        reset(resets);
        expect_failure(&other, &format!("{who} resets after its FIN"));

        // The other's FIN went before.
        let (resets, other) = connect();
        other.shutdown(Shutdown::Write).unwrap();
        expect_end(&resets);
        reset(resets);
        expect_reset(&other, &format!("{who} resets after the other's FIN"));

        // The other is stuck in a write: the reader's window is closed.
        let (resets, other) = connect();
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| (&other).write_all(&vec![7; 8 * MUCH]));
            (&resets).read_exact(&mut [0; 1000]).unwrap();
            reset(resets);
            let error = stuck.join().unwrap().unwrap_err();
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ),
                "{who} resets while the other is stuck: {error}"
            );
        });
    }
    between.program.wait_for_connections_to_end();
}

/// Has `cut` end a stream in the midst: neither side may take that for its end.
fn expect_resets(between: &Between, cut: impl FnOnce(&Program)) {
    let (client, endpoint) = between.connect();
    let (has_much, much) = mpsc::channel();
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let chunk = bytes(0, MUCH / 8);
            loop {
                if let Err(error) = (&client).write_all(&chunk) {
                    break error.kind();
                }
            }
        });
        let reads = scope.spawn(|| {
            let (mut endpoint, mut chunk, mut count) = (&endpoint, vec![0; 1 << 16], 0);
            loop {
                count += match endpoint.read(&mut chunk) {
                    Ok(0) => panic!("a clean end after {count} bytes"),
                    Ok(more) => more,
                    Err(error) => break error.kind(),
                };
                if count > MUCH {
                    let _ = has_much.send(());
                }
            }
        });
        much.recv_timeout(PATIENCE).unwrap();
        cut(&between.program);
        let written = writes.join().unwrap();
        assert!(
            matches!(written, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{written}"
        );
        assert_eq!(reads.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn stream_at_its_drain_deadline_is_reset_in_the_midst() {
    in_namespace!(Root);
    let between = Between::new();
    let annotated = "{name: web, annotations: {portico.dev/drain-timeout: 10ms}}";
    expect_resets(&between, |program| {
        let gone = manifest("web", 80, &[]).replace("{name: web}", annotated);
        program.write("web.yaml", &gone);
    });
    between.program.wait_for_connections_to_end();
}

#[test]
fn stream_at_the_second_signal_is_reset_in_the_midst() {
    in_namespace!(Root);
    let between = Between::new();
    expect_resets(&between, |program| {
        program.signal("TERM");
        let began = Instant::now();
        // The same signal twice is one until it is taken (signal(7)).
        while !program.stderr().contains("a second signal ends at once") {
            assert!(began.elapsed() < PATIENCE, "{}", program.stderr());
        }
        program.signal("TERM");
    });
}

#[test]
fn both_sides_close_at_once_and_each_sees_a_clean_end() {
    in_namespace!(Root);
    let between = Between::new();
    for turn in 0..200 {
        let (client, endpoint) = between.connect();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for end in [&client, &endpoint] {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    if turn % 2 == 0 {
                        (&*end).write_all(b"last words").unwrap();
                    }
                    end.shutdown(Shutdown::Write).unwrap();
                    let mut got = Vec::new();
                    (&*end).read_to_end(&mut got).unwrap();
                    assert_eq!(got.len(), if turn % 2 == 0 { 10 } else { 0 });
                });
            }
        });
    }
    between.program.wait_for_connections_to_end();
}

#[test]
fn hundred_thousand_writes_of_one_byte_arrive_in_order() {
    const WRITES: usize = 100_000;
    in_namespace!(Root);
    let between = Between::new();
    let (client, endpoint) = between.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for byte in bytes(0, WRITES) {
                (&client).write_all(&[byte]).unwrap();
            }
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        (&endpoint).read_to_end(&mut got).unwrap();
        assert!(got == bytes(0, WRITES), "{} bytes", got.len());
    });
}

#[test]
fn reader_of_a_few_bytes_at_a_time_closes_the_window_and_gets_all() {
    in_namespace!(Root);
    let between = Between::new();
    let (client, endpoint) = between.connect();
    sockopt::set_socket_recv_buffer_size(&client, 128 << 10).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send_much(&endpoint);
            endpoint.shutdown(Shutdown::Write).unwrap();
        });
        let mut at = 0;
        let mut buffer = [0; 8192];
        for size in [1, 3, 4093, 127, 8192].into_iter().cycle() {
            let count = (&client).read(&mut buffer[..size]).unwrap();
            if count == 0 {
                break;
            }
            assert!(buffer[..count] == bytes(at, count), "at {at}");
            at += count;
        }
        assert_eq!(at, MUCH);
    });
}

#[test]
fn urgent_byte_is_left_out_and_stops_nothing() {
    in_namespace!(Root);
    let between = Between::new();
    for before in [0, 1, 1000, MUCH / 2] {
        let (client, endpoint) = between.connect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&client).write_all(&bytes(0, before)).unwrap();
                // RFC 6093: a byte beside the stream, unless the receiver asks for it in line.
                assert_eq!(send(&client, b"!", SendFlags::OOB).unwrap(), 1);
                (&client).write_all(&bytes(before, MUCH - before)).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            expect_much_and_the_end(&endpoint);
        });
        drop(client);
    }
    between.program.wait_for_connections_to_end();
}

#[test]
fn urgent_byte_before_an_end_that_is_there_already_cuts_nothing_off() {
    const AFTER: usize = 1000;
    in_namespace!(Root);
    let between = Between::new();
    for total in (1..=12).map(|quarters| quarters << 18) {
        let (client, endpoint) = between.connect();
        // The kernel's buffers take it all: what is behind the urgent byte, and the end, are there when it is met.
        (&client).write_all(&bytes(0, total - AFTER)).unwrap();
        send(&client, b"!", SendFlags::OOB).unwrap();
        (&client).write_all(&bytes(total - AFTER, AFTER)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        (&endpoint).read_to_end(&mut got).unwrap();
        assert!(got == bytes(0, total), "{} of {total} bytes", got.len());
    }
}
