//! Clients of HTTP/2 that others made, at their busiest: none of them is taken for a flood.

use std::{net::SocketAddr, process::Command, thread};

use super::{sending, up, willing};
use crate::support::{
    is_installed,
    namespace::in_namespace,
    peer::{client, python, serve},
    program::Program,
};

/// Bytes of an answer.
const LENGTH: usize = 32 << 20;
/// Streams at a time: as many as a connection may have.
const STREAMS: usize = 100;

/// Nobody was told to calm down.
fn assert_no_flood(program: &Program, client: &str) {
    let flooded = program.counted("portico_connections_flooded_total");
    assert_eq!(flooded, 0, "{client}");
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn busy_curls_that_download_much_are_served() {
    in_namespace!(Unprivileged);
    if !is_installed("curl") {
        return;
    }
    let (program, web) = up(&[], "http", &[sending(LENGTH)]);
    let url = format!("http://{web}/");
    let flags = ["-sf", "--http2-prior-knowledge", "-o", "/dev/null"];
    let curls = || {
        let mut curl = Command::new("curl");
        curl.args(flags).args(["-w", "%{size_download}", &url]);
        assert_eq!(said(&mut curl), LENGTH.to_string());
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(curls);
        }
    });
    assert_no_flood(&program, "curl");
}

#[test]
fn busy_h2load_with_all_the_streams_there_are_is_served() {
    in_namespace!(Unprivileged);
    if !is_installed("h2load") {
        return;
    }
    let (program, web) = up(&[], "http", &[willing()]);
    let (streams, url) = (STREAMS.to_string(), format!("http://{web}/"));
    let args = ["-n", "20000", "-c", "2", "-m", &streams, &url];
    let said = said(Command::new("h2load").args(args));
    assert!(said.contains("20000 succeeded, 0 failed"), "{said}");
    assert_no_flood(&program, "h2load");
}

#[test]
fn busy_client_that_acknowledges_every_kib_is_served() {
    in_namespace!(Unprivileged);
    let Some(python) = python(&["h2"]) else {
        return;
    };
    let length = 256 << 10;
    let (program, web) = up(&[], "http", &[sending(length)]);
    let args = [web.to_string(), STREAMS.to_string()];
    let total = client(&python, "h2_busy.py", &args.each_ref().map(String::as_str));
    // Of the second round, half.
    let total: usize = total.trim().parse().unwrap();
    assert!(total >= length * (STREAMS + STREAMS / 2), "{total}");
    assert_no_flood(&program, "h2");
}

#[test]
fn busy_client_of_grpc_that_pings_all_the_time_is_served() {
    in_namespace!(Unprivileged);
    let Some(python) = python(&["grpc"]) else {
        return;
    };
    let pod: SocketAddr = "127.1.0.1:9080".parse().unwrap();
    let _server = serve(&python, "grpc_server.py", &[&pod.to_string()]);
    let (program, web) = up(&[], "grpc", &[pod]);
    client(&python, "grpc_busy.py", &[&web.to_string()]);
    assert_no_flood(&program, "grpc");
}
