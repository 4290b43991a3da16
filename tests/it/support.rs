//! What the tests share: namespaces, the program as a child process, clients. Owns no assertion about the program.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod namespace;
pub(crate) mod page;
pub(crate) mod peer;
pub(crate) mod program;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Patience with anything: a deadline, never a delay.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One HTTP request on a connection of its own; the first line of the body.
pub(crate) fn get(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body)
        .unwrap_or_default();
    Ok(body.lines().next().unwrap_or_default().to_owned())
}

/// An address from text.
pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Whether this process may open so many descriptors, as far as its limit can be raised; says so if not.
pub(crate) fn may_open(descriptors: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let is_raised = setrlimit(Resource::Nofile, limit).is_ok();
    let may = is_raised && limit.maximum.is_none_or(|most| most >= descriptors);
    if !may {
        eprintln!("skipped: this process may not open {descriptors} descriptors");
    }
    may
}

/// Whether `localhost` has an address here; says so if not.
pub(crate) fn knows_localhost() -> bool {
    let found = ("localhost", 0).to_socket_addrs();
    if let Err(error) = &found {
        eprintln!("skipped: this machine does not know localhost: {error}");
    }
    found.is_ok()
}

/// Whether `program` is there; says so if not.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}
