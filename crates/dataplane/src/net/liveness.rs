//! Whether the other side is still there. Owns the socket options that make the kernel find out (tcp(7)); must not wait.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Unanswered probes after which a peer is dead; the time between two is a quarter of that before the first.
const PROBES: u32 = 3;
/// The kernel counts these times in seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// When the kernel ends a connection whose peer is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Liveness {
    /// Silence before the first probe (`TCP_KEEPIDLE`).
    pub(crate) keepalive: Option<Duration>,
    /// Time that bytes may stay unacknowledged (`TCP_USER_TIMEOUT`), also those that a peer has no room for.
    pub(crate) user_timeout: Option<Duration>,
}

impl Liveness {
    /// Tells a socket. Connections accepted from a listening one take it over.
    pub(crate) fn watch(self, socket: &SockRef<'_>) -> io::Result<()> {
        if let Some(silence) = self.keepalive {
            let silence = silence.max(SHORTEST);
            let probing = TcpKeepalive::new()
                .with_time(silence)
                .with_interval((silence / 4).max(SHORTEST))
                .with_retries(PROBES);
            socket.set_tcp_keepalive(&probing)?;
        }
        match self.user_timeout {
            Some(_) => socket.set_tcp_user_timeout(self.user_timeout),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn options(socket: &SockRef<'_>) -> (bool, Duration, Duration, u32, Option<Duration>) {
        (
            socket.keepalive().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
            socket.tcp_user_timeout().unwrap(),
        )
    }

    #[test]
    fn watch_a_listening_socket_is_taken_over_by_what_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let liveness = Liveness {
            keepalive: Some(Duration::from_mins(1)),
            user_timeout: Some(Duration::from_secs(30)),
        };
        liveness.watch(&SockRef::from(&listener)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let expected = (
            true,
            Duration::from_mins(1),
            Duration::from_secs(15),
            3,
            Some(Duration::from_secs(30)),
        );
        assert_eq!(options(&SockRef::from(&accepted)), expected);
    }

    #[test]
    fn watch_with_nothing_asked_for_leaves_the_kernels_defaults() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = SockRef::from(&listener);
        let before = options(&socket);
        let nothing = Liveness {
            keepalive: None,
            user_timeout: None,
        };
        nothing.watch(&socket).unwrap();
        assert_eq!(options(&socket), before);
    }
}
