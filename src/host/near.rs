//! A socket near an address that may be taken. Owns which ports are tried; who holds one is control's to say.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Listens, without blocking, at `wanted` or the first of the `more` ports after it that is free.
///
/// # Errors
/// All of them are taken, or one cannot be had for another reason.
pub fn listen_near(wanted: SocketAddr, more: u16) -> io::Result<TcpListener> {
    // Port 0 is any.
    let more = if wanted.port() == 0 { 0 } else { more };
    for port in wanted.port()..=wanted.port().saturating_add(more) {
        match TcpListener::bind(SocketAddr::new(wanted.ip(), port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => {
                let listener = bound?;
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_near_a_port_that_is_taken_takes_the_next_free_one() {
        const MORE_PORTS: u16 = 9;
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = taken.local_addr().unwrap();
        let listener = listen_near(wanted, MORE_PORTS).unwrap();
        let found = listener.local_addr().unwrap();
        assert_ne!(found.port(), wanted.port());
        assert!(found.port() > wanted.port() && found.port() <= wanted.port() + MORE_PORTS);
        let error = listen_near(wanted, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
