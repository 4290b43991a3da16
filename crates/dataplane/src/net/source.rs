//! A client's address as the source of our socket. Owns the options that it takes and what their failures mean; must not
//! know who the client is, nor wait.
//!
//! An address of this host needs nothing (bind(2)). Any other needs `IP_TRANSPARENT` (ip(7), `CAP_NET_ADMIN` or
//! `CAP_NET_RAW`), and routes that make answers to it ours (`Documentation/networking/tproxy.rst` of Linux).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use portico_core::balance::Unkept;
use socket2::Socket;

/// Binds a fresh socket to the client's address, for `endpoint`. The port is chosen when it connects, so that it only
/// has to be free towards that endpoint. After an error the socket is of no use.
pub(crate) fn bind(socket: &Socket, client: IpAddr, endpoint: SocketAddr) -> Result<(), Unkept> {
    // Without it fewer connections find a port, which is no reason to have none.
    let _ = super::defer_port(socket);
    let source = SocketAddr::new(client, 0).into();
    match socket.bind(&source) {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
        bound => return bound.map_err(|error| unkept(&error).unwrap_or(Unkept::NoRoute)),
    }
    if client == endpoint.ip() {
        return Err(Unkept::Hairpin);
    }
    let allowed = match client {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    allowed
        .and_then(|()| socket.bind(&source))
        .map_err(|_| Unkept::Privilege)
}

/// Whether a call failed on a socket so bound because of its address, so that another address may do.
pub(crate) fn unkept(error: &io::Error) -> Option<Unkept> {
    match error.raw_os_error()? {
        libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN => Some(Unkept::NoPort),
        libc::EINVAL | libc::EPERM | libc::EACCES | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            Some(Unkept::NoRoute)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    fn check(client: &str, endpoint: &str, expected: Result<(), Unkept>) {
        let (client, endpoint): (IpAddr, IpAddr) =
            (client.parse().unwrap(), endpoint.parse().unwrap());
        let endpoint = SocketAddr::new(endpoint, 9);
        let socket = Socket::new(Domain::for_address(endpoint), Type::STREAM, None).unwrap();
        assert_eq!(bind(&socket, client, endpoint), expected, "{client}");
    }

    #[test]
    fn bind_to_an_address_of_this_host_needs_nothing_and_one_of_the_endpoints_host_is_left() {
        check("127.0.0.9", "127.0.0.1", Ok(()));
        check("127.0.0.9", "127.0.0.9", Ok(()));
        // RFC 5737 and 3849: nobody has these.
        check("192.0.2.1", "192.0.2.1", Err(Unkept::Hairpin));
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            eprintln!("skipped IPv6: this kernel has none");
            return;
        }
        check("::1", "::1", Ok(()));
        check("2001:db8::1", "2001:db8::1", Err(Unkept::Hairpin));
        // Link-local, and not said of which link.
        check("fe80::9", "::1", Err(Unkept::NoRoute));
    }
}
