//! Messages with descriptors between two processes: a unix socket that keeps their bounds (`SOCK_SEQPACKET`, unix(7)).
//! Owns the bounds of what is taken from the other side, who may be it, and the lifetimes of descriptors; must not know
//! what is said.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net as std_unix,
    },
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::Interest,
    net::{UnixDatagram, UnixListener},
};

use super::MOST_SOCKETS;

/// Most bytes of a message.
pub const MOST_BYTES: usize = 64 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why a message could not be sent or taken. Only [`Io`](Self::Io) may pass; after any other nothing that the other side
/// says can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Of the socket; `WouldBlock` where it does not block and has to be waited for.
    #[error("cannot pass a message on")]
    Io(#[from] io::Error),
    /// Longer than [`MOST_BYTES`].
    #[error("a message of more than {MOST_BYTES} bytes")]
    TooLong,
    /// With more descriptors than [`MOST_SOCKETS`].
    #[error("a message with more than {MOST_SOCKETS} descriptors")]
    TooManyDescriptors,
    /// Not what is spoken here.
    #[error("a message that is none of ours")]
    Garbage(#[from] serde_json::Error),
    /// The other process belongs to somebody else.
    #[error("the other process belongs to uid {0}")]
    Stranger(u32),
}

/// A message with what came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// What was said.
    pub message: T,
    /// In the order in which they were sent; closed for programs that this process starts.
    pub descriptors: Vec<OwnedFd>,
    /// More were sent, for which this process had no room.
    pub lost: bool,
}

/// One end of a connection. It blocks, or is one of tokio's sockets, which is waited for: any of unix(7) that keeps the
/// bounds of messages is the same to it.
#[derive(Debug)]
pub struct Channel<S = OwnedFd>(S);

impl Channel {
    /// Connects to the listener at `path`; reading and writing block.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = open()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Two ends that are connected to each other; reading and writing block.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
        Ok((Self(one), Self(other)))
    }
}

impl<S: AsFd> Channel<S> {
    /// Sends a message with these descriptors, as a whole or not at all.
    ///
    /// # Errors
    /// It is beyond the bounds, or the other side is gone.
    pub fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MOST_BYTES {
            return Err(HandoverError::TooLong);
        }
        if descriptors.len() > MOST_SOCKETS {
            return Err(HandoverError::TooManyDescriptors);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            // There is room for the most.
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut ancillary, flags)
            .map_err(io::Error::from)?;
        Ok(())
    }

    /// The next message; `None` when the other side is gone.
    ///
    /// # Errors
    /// Nothing came, or what came is beyond the bounds or no such message: then it is lost, its descriptors closed.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<Received<T>>, HandoverError> {
        let mut text = vec![0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut text)];
        let received = rustix::net::recvmsg(&self.0, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(io::Error::from)?;
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(HandoverError::TooLong);
        }
        // Without a descriptor left in this process the kernel says the same, but then some are missing.
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        if descriptors.len() > MOST_SOCKETS || (lost && descriptors.len() == MOST_SOCKETS) {
            return Err(HandoverError::TooManyDescriptors);
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())?;
        Ok(Some(Received {
            message,
            descriptors,
            lost,
        }))
    }
}

/// What a process was started with.
impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

/// For a process to be started with.
impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl<S: AsFd> AsFd for Channel<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel<UnixDatagram> {
    /// As [`send`](Self::send), once there is room.
    ///
    /// # Errors
    /// As of that, but for `WouldBlock`.
    ///
    /// # Cancel safety
    /// It is sent as a whole or not at all.
    pub async fn send_in_time<T: Serialize>(&self, message: &T) -> Result<(), HandoverError> {
        let sending = || unless_io(self.send(message, &[]));
        self.0.async_io(Interest::WRITABLE, sending).await?
    }

    /// As [`receive`](Self::receive), once there is something.
    ///
    /// # Errors
    /// As of that, but for `WouldBlock`.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn receive_in_time<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<Received<T>>, HandoverError> {
        let receiving = || unless_io(self.receive());
        self.0.async_io(Interest::READABLE, receiving).await?
    }
}

/// Errors of the socket are to be waited for or passed on by tokio, all others are an outcome.
fn unless_io<T>(outcome: Result<T, HandoverError>) -> io::Result<Result<T, HandoverError>> {
    match outcome {
        Err(HandoverError::Io(error)) => Err(error),
        outcome => Ok(outcome),
    }
}

/// Where others connect to.
#[derive(Debug)]
pub struct Listener<S = OwnedFd>(S);

impl Listener {
    /// Binds `path`, where nothing may be.
    ///
    /// # Errors
    /// It cannot be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = open()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The same, to be waited for in the current tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn watched(self) -> io::Result<Listener<UnixListener>> {
        let socket = std_unix::UnixListener::from(self.0);
        socket.set_nonblocking(true)?;
        Ok(Listener(UnixListener::from_std(socket)?))
    }
}

impl Listener<UnixListener> {
    /// The next connection, if it is by a process of ours or of the machine's administrator.
    ///
    /// # Errors
    /// None can be taken, or it is by another user.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> Result<Channel<UnixDatagram>, HandoverError> {
        // Its type has the wrong name for a moment.
        let (socket, _) = self.0.accept().await?;
        let socket = OwnedFd::from(socket.into_std()?);
        let peer = sockopt::socket_peercred(&socket).map_err(io::Error::from)?;
        admits(peer.uid.as_raw(), rustix::process::geteuid().as_raw())?;
        Ok(Channel(UnixDatagram::from_std(socket.into())?))
    }
}

fn open() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn admits(peer: u32, own: u32) -> Result<(), HandoverError> {
    if peer == own || peer == 0 {
        Ok(())
    } else {
        Err(HandoverError::Stranger(peer))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::handover::{FromKeeper, Hello, Socket, ToKeeper, VERSION, Welcome};
    use portico_core::object::Protocol;

    fn hello() -> FromKeeper {
        FromKeeper::Hello(Hello {
            version: VERSION,
            pid: 42,
            command: "npm test".into(),
            namespace: "shop".into(),
        })
    }

    fn received(channel: &Channel) -> Result<Option<Received<FromKeeper>>, HandoverError> {
        channel.receive()
    }

    #[test]
    fn message_of_each_kind_arrives_as_it_was_sent() {
        let (daemon, keeper) = Channel::pair().unwrap();
        let socket = Socket {
            protocol: Protocol::Udp,
            addr: "127.96.0.10:53".parse().unwrap(),
            device_is_loopback: true,
        };
        let said = [
            ToKeeper::Welcome(Welcome {
                scope: 1,
                dns: socket.addr,
                search: vec!["shop.svc.cluster.local".into()],
                local: vec!["10.96.0.0/12".parse().unwrap()],
            }),
            ToKeeper::Refused { why: "no".into() },
            ToKeeper::Local {
                add: vec!["203.0.113.7/32".parse().unwrap()],
            },
            ToKeeper::Open {
                id: 7,
                sockets: vec![socket; MOST_SOCKETS],
            },
            ToKeeper::Ready {
                generation: 3,
                failed: vec!["127.96.0.2:80: why".into()],
            },
        ];
        for message in said {
            daemon.send(&message, &[]).unwrap();
            let got: Received<ToKeeper> = keeper.receive().unwrap().unwrap();
            assert_eq!((got.message, got.lost), (message, false));
        }
        for message in [
            hello(),
            FromKeeper::Opened {
                id: 7,
                results: vec![Ok(()), Err(98)],
            },
        ] {
            keeper.send(&message, &[]).unwrap();
            assert_eq!(received(&daemon).unwrap().unwrap().message, message);
        }
        drop(keeper);
        assert!(received(&daemon).unwrap().is_none());
    }

    #[test]
    fn descriptors_arrive_in_their_order_and_close_on_exec() {
        let (daemon, keeper) = Channel::pair().unwrap();
        let sockets = [(); MOST_SOCKETS].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let passed = sockets.each_ref().map(AsFd::as_fd);
        keeper.send(&hello(), &passed).unwrap();
        let got = received(&daemon).unwrap().unwrap().descriptors;
        assert_eq!(got.len(), MOST_SOCKETS);
        for (sent, got) in sockets.iter().zip(got) {
            let flags = rustix::io::fcntl_getfd(&got).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            let got = TcpListener::from(got).local_addr().unwrap();
            assert_eq!(got, sent.local_addr().unwrap());
        }
    }

    #[test]
    fn message_beyond_the_bounds_is_neither_sent_nor_taken() {
        let (daemon, keeper) = Channel::pair().unwrap();
        let why = "x".repeat(MOST_BYTES);
        let sent = keeper.send(&ToKeeper::Refused { why }, &[]);
        assert!(matches!(sent, Err(HandoverError::TooLong)));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let many = vec![socket.as_fd(); MOST_SOCKETS + 1];
        let sent = keeper.send(&hello(), &many);
        assert!(matches!(sent, Err(HandoverError::TooManyDescriptors)));

        // Somebody who does not keep to it.
        rustix::net::send(&keeper, &vec![b'x'; MOST_BYTES + 1], SendFlags::NOSIGNAL).unwrap();
        assert!(matches!(received(&daemon), Err(HandoverError::TooLong)));
        for count in [MOST_SOCKETS + 1, MOST_SOCKETS + 2, 200] {
            let many = vec![socket.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
            let text = [IoSlice::new(b"{}")];
            rustix::net::sendmsg(&keeper, &text, &mut ancillary, SendFlags::empty()).unwrap();
            let got = received(&daemon);
            assert!(
                matches!(got, Err(HandoverError::TooManyDescriptors)),
                "{count}"
            );
        }
        // It is usable all the same: whoever gives up does so by dropping it.
        keeper.send(&hello(), &[]).unwrap();
        assert_eq!(received(&daemon).unwrap().unwrap().message, hello());
    }

    #[test]
    fn garbage_is_told_from_messages() {
        let (daemon, keeper) = Channel::pair().unwrap();
        for text in [
            "hello",
            "{}",
            "{\"hello\":{}}",
            "\u{0}",
            "{\"opened\":{\"id\":-1}}",
        ] {
            rustix::net::send(&keeper, text.as_bytes(), SendFlags::NOSIGNAL).unwrap();
            assert!(
                matches!(received(&daemon), Err(HandoverError::Garbage(_))),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn listener_takes_processes_of_this_user_and_of_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.sock");
        let listener = Listener::bind(&path).unwrap().watched().unwrap();
        let keeper = Channel::connect(&path).unwrap();
        let daemon = listener.accept().await.unwrap();
        keeper.send(&hello(), &[]).unwrap();
        let got: Received<FromKeeper> = daemon.receive_in_time().await.unwrap().unwrap();
        assert_eq!(got.message, hello());
        daemon.send_in_time(&hello()).await.unwrap();
        assert_eq!(received(&keeper).unwrap().unwrap().message, hello());

        assert!(admits(0, 1000).is_ok() && admits(1000, 1000).is_ok());
        assert!(matches!(
            admits(1001, 1000),
            Err(HandoverError::Stranger(1001))
        ));
        assert!(admits(1000, 0).is_err());
    }
}
