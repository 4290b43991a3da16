//! Pipes through which the kernel moves bytes from socket to socket (splice(2)), and each thread's pool of them. Owns
//! their number and size and that none goes back with bytes in it; must not know relays, nor wait.

use std::{
    cell::RefCell,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::{Errno, Result},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};

use super::descriptor_limit;

/// Wanted size of a pipe in bytes. A pipe counts slots of a page, of which a socket's bytes fill each with up to 32 KiB,
/// so that more than this would not make it hold more.
const PIPE_BYTES: usize = 1024 * 1024;
/// A pipe below this is not worth its calls. It is what pipe(7) gives to everybody who has not used up his share.
const LEAST_BYTES: usize = 64 * 1024;
/// Most bytes that one call moves, and so that a pipe holds while its receiver is slow.
pub(crate) const MOST_BYTES: usize = 1024 * 1024;
/// Most pipes of a thread, lent and idle together.
const MOST_PIPES: usize = 64;
/// Of the descriptors that the process may have, the pipes of a thread take one part in this many at most, twice.
const PIPES_SHARE: usize = 64;
/// Most pipes kept for the next one who asks. Pipes are lent for one burst of bytes, so that a few serve many streams,
/// and what is kept counts against what the user may have (`pipe-user-pages-soft`, pipe(7)).
const MOST_IDLE: usize = 8;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new(most_pipes(descriptor_limit()), open));
}

/// Most pipes that each worker has under this limit of descriptors; a pipe has two.
pub(crate) fn most_pipes(descriptor_limit: usize) -> usize {
    MOST_PIPES.min(descriptor_limit / PIPES_SHARE)
}

/// The two ends of a pipe that do not block.
type Ends = (OwnedFd, OwnedFd);

/// One thread's pipes.
struct Pool {
    idle: Vec<Ends>,
    lent: usize,
    most: usize,
    open: fn() -> Result<Ends>,
}

impl Pool {
    const fn new(most: usize, open: fn() -> Result<Ends>) -> Self {
        Self {
            idle: Vec::new(),
            lent: 0,
            most,
            open,
        }
    }

    fn lend(&mut self) -> Option<Ends> {
        let ends = match self.idle.pop() {
            Some(ends) => ends,
            None if self.lent < self.most => (self.open)().ok()?,
            None => return None,
        };
        self.lent += 1;
        Some(ends)
    }

    fn take_back(&mut self, ends: Option<Ends>) {
        self.lent = self.lent.saturating_sub(1);
        if self.idle.len() < MOST_IDLE {
            self.idle.extend(ends);
        }
    }
}

/// Makes a pipe. One that the user's share of memory keeps from growing is taken as it is, if it is worth it.
fn open() -> Result<Ends> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let size = match fcntl_setpipe_size(&writer, PIPE_BYTES) {
        Ok(size) => size,
        Err(_) => fcntl_getpipe_size(&writer)?,
    };
    if size < LEAST_BYTES {
        return Err(Errno::PERM);
    }
    Ok((reader, writer))
}

/// A pipe lent by the thread's pool. Dropped: it goes back if it is empty, else it is closed with what it holds.
#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// An empty pipe, unless as many as allowed are lent or the kernel refuses one.
    pub(crate) fn lend() -> Option<Self> {
        let ends = POOL.with_borrow_mut(Pool::lend)?;
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes in it.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Moves what `socket` has into the pipe, which must be empty: 0 bytes at the end of the stream.
    ///
    /// # Errors
    /// `EAGAIN` if there is nothing to move now. That is also said in front of an urgent byte, which only reading
    /// gets over (tcp(7)).
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> Result<usize> {
        debug_assert_eq!(self.held, 0, "only an empty pipe takes {MOST_BYTES} bytes");
        let (_, writer) = self.ends.as_ref().ok_or(Errno::BADF)?;
        let count = splice(
            socket,
            None,
            writer,
            None,
            MOST_BYTES,
            SpliceFlags::NONBLOCK,
        )?;
        self.held += count;
        Ok(count)
    }

    /// Moves what is in the pipe to `socket`. Less than that means that the socket takes no more now.
    ///
    /// # Errors
    /// `EAGAIN` if the socket takes nothing now.
    pub(crate) fn drain(&mut self, socket: impl AsFd) -> Result<usize> {
        let (reader, _) = self.ends.as_ref().ok_or(Errno::BADF)?;
        let count = splice(reader, None, socket, None, self.held, SpliceFlags::NONBLOCK)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let ends = self.ends.take().filter(|_| self.held == 0);
        // The pool is gone only when its thread is about to be.
        let _ = POOL.try_with(|pool| pool.borrow_mut().take_back(ends));
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What tests ask of the pool of their thread.

    use super::{Ends, Errno, POOL, Pool, Result};

    /// Every pipe is refused from now on.
    pub(crate) fn refuse(errno: Errno) {
        fn none() -> Result<Ends> {
            Err(Errno::PERM)
        }
        fn no_descriptor() -> Result<Ends> {
            Err(Errno::MFILE)
        }
        let open = if errno == Errno::MFILE {
            no_descriptor
        } else {
            none
        };
        POOL.set(Pool::new(64, open));
    }

    /// Pipes that are lent, and that are kept.
    pub(crate) fn count() -> (usize, usize) {
        POOL.with_borrow(|pool| (pool.lent, pool.idle.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn pipe_emptied_goes_back_and_is_lent_again() {
        let (mut client, from) = pair();
        let (to, mut endpoint) = pair();
        client.write_all(b"bytes").unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(pipe.fill(&from), Ok(5));
        assert_eq!((pipe.held(), testing::count()), (5, (1, 0)));
        assert_eq!(pipe.drain(&to), Ok(5));
        let mut received = [0; 5];
        endpoint.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"bytes");
        drop(pipe);
        assert_eq!(testing::count(), (0, 1));
        let again = Pipe::lend();
        assert_eq!((again.is_some(), testing::count()), (true, (1, 0)));
    }

    #[test]
    fn pipe_with_bytes_left_is_closed() {
        let (mut client, from) = pair();
        client.write_all(b"bytes").unwrap();
        let mut pipe = Pipe::lend().unwrap();
        assert_eq!(pipe.fill(&from), Ok(5));
        drop(pipe);
        assert_eq!(testing::count(), (0, 0));
    }

    #[test]
    fn pool_lends_a_bounded_number_and_keeps_fewer() {
        let most = most_pipes(descriptor_limit());
        // Of the size that the kernel gives: so many large ones are all that an ordinary user may have.
        let small = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        POOL.set(Pool::new(most, small));
        let lent: Vec<Pipe> = std::iter::from_fn(Pipe::lend).collect();
        assert_eq!((lent.len(), testing::count()), (most, (most, 0)));
        drop(lent);
        assert_eq!(testing::count(), (0, MOST_IDLE.min(most)));
    }

    #[test]
    fn most_pipes_small_limit_leaves_descriptors_to_connections() {
        assert_eq!([64, 1024, 20_000].map(most_pipes), [1, 16, MOST_PIPES]);
    }

    #[test]
    fn pool_kernel_refuses_lends_none_and_counts_none() {
        for errno in [Errno::PERM, Errno::MFILE] {
            testing::refuse(errno);
            assert!(Pipe::lend().is_none());
            assert_eq!(testing::count(), (0, 0));
        }
    }
}
