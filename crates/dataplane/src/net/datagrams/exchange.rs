//! Requests and their replies over one socket, in batches. Owns the order in which replies leave and which of them leave
//! as one message; must not know what they say.

use std::{cmp::Reverse, io, mem::MaybeUninit, net::SocketAddr, os::fd::AsFd, ptr};

use super::{
    BATCH, Control, EMPTY_MESSAGE, EMPTY_NAME, EMPTY_VECTOR, MOST_SEGMENTS, knows_segments, length,
    receive_all, segments_of, send_all, source_of,
};

/// The longest request of an [`Exchange`]; what is longer is cut. No power of two, or the heads of all would share a few
/// lines of the processor's cache.
const LONGEST_REQUEST: usize = 4096 + 320;
/// The most bytes that leave as one message: a packet holds 65 535.
const LONGEST_TRAIN: usize = 60_000;

// However many there are, one message takes them.
const _: () = assert!(BATCH <= MOST_SEGMENTS);

/// Requests and their replies, in batches: one system call receives, one sends. Its buffers are made once, so that an
/// exchange allocates nothing but what a reply needs beyond the longest one so far.
pub struct Exchange {
    requests: Vec<u8>,
    replies: Vec<Vec<u8>>,
    names: Vec<libc::sockaddr_storage>,
    outgoing: Vec<Outgoing>,
    /// Whether replies to one client may leave as one message; unknown before the first batch.
    can_join: Option<bool>,
}

/// What became of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchanged {
    /// Requests.
    pub received: usize,
    /// Replies that could not be sent at once and were given up.
    pub unsent: usize,
}

/// Who answers one batch.
pub trait Answers {
    /// Writes the reply to `request`, which came from `client`, into `reply`; nothing, if it gets none.
    fn answer(&mut self, request: &[u8], client: Option<SocketAddr>, reply: &mut Vec<u8>);

    /// All are answered; the replies leave next.
    fn end(self);
}

/// A reply on its way.
#[derive(Debug, Clone, Copy)]
struct Outgoing {
    client: SocketAddr,
    length: usize,
    /// Of its request in the batch.
    place: usize,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// Its buffers.
    pub fn new() -> Self {
        Self {
            requests: vec![0; LONGEST_REQUEST * BATCH],
            replies: (0..BATCH).map(|_| Vec::with_capacity(2048)).collect(),
            names: vec![EMPTY_NAME; BATCH],
            outgoing: Vec::with_capacity(BATCH),
            can_join: None,
        }
    }

    /// Receives a batch of requests, has what `begin` makes for so many of them answer each, then sends the replies to
    /// where the requests came from, those to one client the longest first. Never waits.
    ///
    /// # Errors
    /// Of recvmmsg(2): `WouldBlock` if there is no request.
    pub fn run<A: Answers>(
        &mut self,
        fd: impl AsFd,
        begin: impl FnOnce(usize) -> A,
    ) -> io::Result<Exchanged> {
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [EMPTY_MESSAGE; BATCH];
        for (((message, vector), name), buffer) in messages
            .iter_mut()
            .zip(&mut vectors)
            .zip(&mut self.names)
            .zip(self.requests.chunks_exact_mut(LONGEST_REQUEST))
        {
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = LONGEST_REQUEST;
            let header = &mut message.msg_hdr;
            header.msg_iov = ptr::from_mut(vector);
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = length(size_of::<libc::sockaddr_storage>());
        }
        let received = receive_all(&fd, &mut messages)?;
        let mut answers = begin(received);
        self.outgoing.clear();
        let requests = self.requests.chunks_exact(LONGEST_REQUEST);
        let each = messages.iter().zip(requests).zip(&mut self.replies);
        for (place, ((message, request), reply)) in each.take(received).enumerate() {
            let length = usize::try_from(message.msg_len).unwrap_or_default();
            let client = source_of(&message.msg_hdr);
            reply.clear();
            answers.answer(request.get(..length).unwrap_or_default(), client, reply);
            if let Some(client) = client
                && !reply.is_empty()
            {
                let length = reply.len();
                self.outgoing.push(Outgoing {
                    client,
                    length,
                    place,
                });
            }
        }
        answers.end();
        Ok(Exchanged {
            received,
            unsent: self.send(fd, &messages),
        })
    }

    /// Sends the replies to where `requests` came from; returns how many could not be.
    fn send(&mut self, fd: impl AsFd, requests: &[libc::mmsghdr]) -> usize {
        let mut is_joining = *self.can_join.get_or_insert_with(|| knows_segments(&fd));
        if is_joining {
            self.outgoing
                .sort_unstable_by_key(|one| (one.client, Reverse(one.length)));
        }
        let mut unsent = 0;
        let mut left = self.outgoing.as_slice();
        while !left.is_empty() {
            let sent = match self.send_some(&fd, requests, left, is_joining) {
                Ok(sent) => sent,
                // Of what was joined: a device that cannot take it apart, say. Alone each may find its way.
                Err(_) if is_joining && train(left) > 1 => {
                    is_joining = false;
                    continue;
                }
                Err(_) => {
                    unsent += 1;
                    1
                }
            };
            left = left.get(sent..).unwrap_or_default();
        }
        unsent
    }

    /// Sends of `replies` as many as one call takes and returns their number; an error is that of the first one
    /// (sendmmsg(2)).
    fn send_some(
        &self,
        fd: impl AsFd,
        requests: &[libc::mmsghdr],
        replies: &[Outgoing],
        is_joining: bool,
    ) -> io::Result<usize> {
        let mut vectors = [EMPTY_VECTOR; BATCH];
        let mut messages = [EMPTY_MESSAGE; BATCH];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH];
        let mut free = vectors.as_mut_slice();
        let mut left = replies;
        let mut count = 0;
        for (message, control) in messages.iter_mut().zip(&mut controls) {
            let length = if is_joining { train(left) } else { 1 };
            let (Some((joined, rest)), Some((own, others))) = (
                left.split_at_checked(length),
                free.split_at_mut_checked(length),
            ) else {
                break;
            };
            (left, free) = (rest, others);
            self.point(own, joined);
            let header = &mut message.msg_hdr;
            if let [first, _, ..] = joined {
                let (segments, used) = segments_of(first.length);
                header.msg_control = ptr::from_mut(control.write(segments)).cast();
                header.msg_controllen = used;
            }
            let request = joined.first().and_then(|first| requests.get(first.place));
            if let Some(request) = request {
                header.msg_name = request.msg_hdr.msg_name;
                header.msg_namelen = request.msg_hdr.msg_namelen;
            }
            header.msg_iov = own.as_mut_ptr();
            header.msg_iovlen = length;
            count += 1;
        }
        let messages = messages.get_mut(..count).unwrap_or_default();
        let sent = send_all(fd, messages)?.max(1);
        let sent = messages.iter().take(sent);
        Ok(sent.map(|message| message.msg_hdr.msg_iovlen).sum())
    }

    /// Points `vectors` at the bytes of `replies`, which the kernel only reads.
    fn point(&self, vectors: &mut [libc::iovec], replies: &[Outgoing]) {
        for (vector, reply) in vectors.iter_mut().zip(replies) {
            if let Some(bytes) = self.replies.get(reply.place) {
                vector.iov_base = bytes.as_ptr().cast_mut().cast();
                vector.iov_len = bytes.len();
            }
        }
    }
}

/// How many of `replies`, from the first on, leave as one message: those to its client that are as long as it is, and
/// one that is shorter. They are in the order of their clients, the longest first.
fn train(replies: &[Outgoing]) -> usize {
    let Some(first) = replies.first() else {
        return 0;
    };
    let room = LONGEST_TRAIN / first.length.max(1);
    let same = replies.iter().take_while(|one| one.client == first.client);
    let equal = same.clone().take_while(|one| one.length == first.length);
    let equal = equal.count();
    let shorter = usize::from(same.count() > equal);
    (equal + shorter).min(room).max(1)
}

#[cfg(test)]
mod tests;
