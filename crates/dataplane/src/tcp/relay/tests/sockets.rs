//! The relay between sockets of the loopback device, in real time: every byte in its place, whatever moves it.

use std::{
    net::Ipv4Addr,
    sync::{LazyLock, atomic::AtomicUsize, atomic::Ordering::Relaxed},
};

use proptest::prelude::*;
use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::{JoinHandle, yield_now},
};
use xxhash_rust::xxh3::Xxh3;

use super::*;
use crate::{
    net::pipe::testing,
    tcp::{
        account::Active,
        relay::splicing::{BURST_BYTES, SPLICE_AFTER},
    },
};

/// What is sent, over and over. Its length is prime, so that bytes out of their place are seen.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut chance = Chance(1);
    (0..524_287)
        .map(|_| chance.below(256).to_le_bytes()[0])
        .collect()
});

/// Random numbers that are the same in every run (splitmix64).
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Lets others go on for a while.
    async fn stall(&mut self) {
        if self.below(4) == 0 {
            for _ in 0..self.below(40) {
                yield_now().await;
            }
        }
    }
}

/// One way through the relay: how far its noise was sent and received.
#[derive(Debug, Default)]
struct Way {
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Way {
    async fn send(&self, to: &mut (impl AsyncWrite + Unpin), count: usize) {
        let end = self.sent.load(Relaxed) + count;
        while self.sent.load(Relaxed) < end {
            let at = self.sent.load(Relaxed);
            let noise = &NOISE[at % NOISE.len()..];
            let some = to.write(&noise[..noise.len().min(end - at)]).await.unwrap();
            self.sent.fetch_add(some, Relaxed);
        }
    }

    /// Takes up to `most` bytes; false at the end of the stream.
    async fn receive(&self, from: &mut (impl AsyncRead + Unpin), most: usize) -> bool {
        let mut bytes = vec![0; most];
        let count = from.read(&mut bytes).await.unwrap();
        let at = self.received.fetch_add(count, Relaxed);
        let mut expected = NOISE.iter().cycle().skip(at % NOISE.len());
        let is_noise = NOISE[at % NOISE.len()..].starts_with(&bytes[..count])
            || bytes[..count]
                .iter()
                .all(|byte| Some(byte) == expected.next());
        assert!(is_noise, "a wrong byte in {count} after {at}");
        count > 0
    }

    async fn receive_all_sent(&self, from: &mut (impl AsyncRead + Unpin)) {
        while self.received.load(Relaxed) < self.sent.load(Relaxed) {
            assert!(self.receive(from, 256 * 1024).await, "the end came early");
        }
    }

    async fn send_by_chance(
        &self,
        to: &mut (impl AsyncWrite + Unpin),
        count: usize,
        most: usize,
        mut chance: Chance,
    ) {
        while self.sent.load(Relaxed) < count {
            let left = count - self.sent.load(Relaxed);
            self.send(to, (1 + chance.below(most)).min(left)).await;
            chance.stall().await;
        }
        to.shutdown().await.unwrap();
    }

    async fn receive_by_chance(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        most: usize,
        mut chance: Chance,
    ) {
        while self.receive(from, 1 + chance.below(most)).await {
            chance.stall().await;
        }
    }
}

/// The kernel makes the least that it has of it (socket(7)): some thousand bytes.
const LEAST: Option<usize> = Some(1);
/// Segments that fit the least window: larger ones would go only when the sender's timers make them (RFC 9293, 3.8.6.2.1).
const SMALL_SEGMENT: u32 = 536;

/// Two ends of a connection.
async fn pair(buffer: Option<usize>) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpSocket::new_v4().unwrap();
    if buffer == LEAST {
        SockRef::from(&listener).set_tcp_mss(SMALL_SEGMENT).unwrap();
        SockRef::from(&client).set_tcp_mss(SMALL_SEGMENT).unwrap();
    }
    let client = client
        .connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().await.unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        if let Some(size) = buffer {
            SockRef::from(stream).set_send_buffer_size(size).unwrap();
            SockRef::from(stream).set_recv_buffer_size(size).unwrap();
        }
    }
    (client, server)
}

/// A relay in a task of its own, with the client's and the endpoint's sockets.
async fn relaying(buffer: Option<usize>) -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    relaying_by([buffer; 2]).await
}

/// The same with buffers of the client's side and of the endpoint's.
async fn relaying_by(
    [near, far]: [Option<usize>; 2],
) -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    let (client, mut downstream) = pair(near).await;
    let (mut upstream, endpoint) = pair(far).await;
    let relayed = tokio::spawn(async move {
        relay(downstream.split(), upstream.split(), PATIENCE, &mut ()).await
    });
    (client, endpoint, relayed)
}

async fn finished(relayed: JoinHandle<Relayed>) -> (u64, u64) {
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.outcome, Outcome::Finished), "{relayed:?}");
    assert_eq!(testing::count().0, 0, "a pipe is still lent");
    (relayed.to_upstream, relayed.to_downstream)
}

/// Sends so much of the noise and takes it, at once: one burst for the relay.
async fn burst(way: &Way, from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    way.send(from, count).await;
    way.receive_all_sent(to).await;
}

#[tokio::test]
async fn relay_spliced_from_every_offset_in_a_page_keeps_every_byte() {
    const PAGE: usize = 4096;
    let (mut client, mut endpoint, relayed) = relaying(Some(256 * 1024)).await;
    let way = Way::default();
    for offset in 0..PAGE {
        // The smallest message makes the direction quiet; then it changes over at an offset of its own, in a burst that
        // begins below the threshold or above it.
        burst(&way, &mut client, &mut endpoint, 1).await;
        let first = SPLICE_AFTER / 2;
        burst(&way, &mut client, &mut endpoint, first).await;
        burst(&way, &mut client, &mut endpoint, first - PAGE / 2 + offset).await;
        burst(&way, &mut client, &mut endpoint, 2 * BURST_BYTES + PAGE).await;
    }
    let (lent, idle) = testing::count();
    assert_eq!(
        (lent, idle),
        (0, 1),
        "one pipe served them all, and is idle"
    );
    drop((client, endpoint));
    assert_eq!(
        finished(relayed).await.0,
        u64::try_from(way.sent.into_inner()).unwrap()
    );
}

/// Sends both ways at once, in chunks and with stalls by chance; each side finishes when it has sent its part.
async fn exchange([there, back]: [usize; 2], most: usize, buffers: [Option<usize>; 2], seed: u64) {
    let (mut client, mut endpoint, relayed) = relaying_by(buffers).await;
    let (to, from) = (Way::default(), Way::default());
    let (mut client_in, mut client_out) = client.split();
    let (mut endpoint_in, mut endpoint_out) = endpoint.split();
    let chance = |which| Chance(seed ^ which);
    tokio::join!(
        to.send_by_chance(&mut client_out, there, most, chance(1 << 60)),
        to.receive_by_chance(&mut endpoint_in, 2 * most, chance(2 << 60)),
        from.send_by_chance(&mut endpoint_out, back, most, chance(3 << 60)),
        from.receive_by_chance(&mut client_in, 2 * most, chance(4 << 60)),
    );
    assert_eq!(
        (to.received.into_inner(), from.received.into_inner()),
        (there, back)
    );
    let moved = finished(relayed).await;
    assert_eq!(
        moved,
        (u64::try_from(there).unwrap(), u64::try_from(back).unwrap())
    );
}

fn block_on(future: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn relay_random_chunks_and_stalls_both_ways_keeps_every_byte(
        there in 0..3_000_000_usize,
        back in 0..3_000_000_usize,
        most in prop_oneof![500..5_000_usize, 5_000..300_000_usize],
        buffer in prop_oneof![Just(None), Just(Some(256 * 1024))],
        seed: u64,
    ) {
        block_on(exchange([there, back], most, [buffer; 2], seed));
    }
}

#[test]
fn relay_smallest_buffers_on_either_side_keeps_every_byte() {
    const BYTES: usize = SPLICE_AFTER + 2 * BURST_BYTES;
    for buffers in [[LEAST, None], [None, LEAST], [LEAST, LEAST]] {
        block_on(exchange([BYTES, BYTES / 2], 60_000, buffers, 7));
    }
}

/// Sends so many bytes: small messages, bursts that are spliced, and pauses between them. Returns their hash.
async fn send_hashed(to: &mut (impl AsyncWrite + Unpin), count: usize, mut chance: Chance) -> u64 {
    let (mut hash, mut left) = (Xxh3::new(), count);
    while left > 0 {
        let most = [100, 20_000, 500_000, 500_000][chance.below(4)];
        let size = (1 + chance.below(most)).min(left);
        let at = chance.below(NOISE.len() - size);
        let bytes = &NOISE[at..at + size];
        to.write_all(bytes).await.unwrap();
        hash.update(bytes);
        left -= size;
        chance.stall().await;
    }
    to.shutdown().await.unwrap();
    hash.digest()
}

/// Takes all there is, now and then so late that the window closes. Returns its hash.
async fn receive_hashed(from: &mut (impl AsyncRead + Unpin), mut chance: Chance) -> u64 {
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 400_000]);
    loop {
        let most = 1 + chance.below(buffer.len());
        match from.read(&mut buffer[..most]).await.unwrap() {
            0 => return hash.digest(),
            count => hash.update(&buffer[..count]),
        }
        if chance.below(16) == 0 {
            for _ in 0..500 {
                yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn relay_tens_of_megabytes_both_ways_through_every_mode_have_the_same_hash() {
    let seed = crate::clock::seed();
    println!("seed {seed}");
    // The longer way goes on long after the other's end, whichever it is.
    for (there, back) in [(48 << 20, 16 << 20), (16 << 20, 48 << 20)] {
        let (mut client, mut endpoint, relayed) = relaying(Some(256 * 1024)).await;
        let (mut client_in, mut client_out) = client.split();
        let (mut endpoint_in, mut endpoint_out) = endpoint.split();
        let chance = |which| Chance(seed ^ which);
        let (to, at_endpoint, from, at_client) = tokio::join!(
            send_hashed(&mut client_out, there, chance(1 << 60)),
            receive_hashed(&mut endpoint_in, chance(2 << 60)),
            send_hashed(&mut endpoint_out, back, chance(3 << 60)),
            receive_hashed(&mut client_in, chance(4 << 60)),
        );
        assert_eq!((to, from), (at_endpoint, at_client), "seed {seed}");
        assert!(testing::count().1 > 0, "nothing was spliced");
        let moved = finished(relayed).await;
        let sent = (u64::try_from(there).unwrap(), u64::try_from(back).unwrap());
        assert_eq!(moved, sent, "seed {seed}");
    }
}

#[tokio::test]
async fn relay_kernel_refuses_pipes_copies_the_same_bytes() {
    for errno in [Errno::MFILE, Errno::PERM] {
        testing::refuse(errno);
        exchange([4_000_000, 3_000_000], 200_000, [None; 2], 7).await;
        assert_eq!(testing::count(), (0, 0), "there was no pipe");
    }
}

#[tokio::test]
async fn relay_data_after_the_other_sides_end_arrives_whole() {
    const AFTER: usize = 10_000_000;
    for (there, back) in [(0, AFTER), (AFTER, 0), (AFTER, 300_000), (300_000, AFTER)] {
        exchange([there, back], 150_000, [None; 2], 3).await;
    }
}

#[tokio::test]
async fn relay_reset_while_spliced_names_the_side() {
    for (resets, sends) in [
        (Side::Downstream, Side::Downstream),
        (Side::Downstream, Side::Upstream),
        (Side::Upstream, Side::Downstream),
        (Side::Upstream, Side::Upstream),
    ] {
        let (mut client, mut endpoint, relayed) = relaying(None).await;
        let way = Way::default();
        let (from, to) = match sends {
            Side::Downstream => (&mut client, &mut endpoint),
            Side::Upstream => (&mut endpoint, &mut client),
        };
        for _ in 0..8 {
            burst(&way, from, to, SPLICE_AFTER).await;
        }
        // On its way when the reset comes.
        way.send(from, SPLICE_AFTER).await;
        let (lost, _kept) = match resets {
            Side::Downstream => (client, endpoint),
            Side::Upstream => (endpoint, client),
        };
        lost.set_zero_linger().unwrap();
        drop(lost);
        let outcome = relayed.await.unwrap().outcome;
        assert!(
            matches!(outcome, Outcome::Broken(side, _) if side == resets),
            "{outcome:?}, reset by {resets:?}, sent by {sends:?}"
        );
        assert_eq!(testing::count().0, 0, "a pipe is still lent");
    }
}

#[tokio::test]
async fn relay_receiver_with_a_closed_window_holds_one_pipe_and_loses_nothing() {
    let (mut client, mut endpoint, relayed) = relaying(None).await;
    let way = Way::default();
    burst(&way, &mut client, &mut endpoint, 2 * SPLICE_AFTER).await;
    let sent = 64 * 1024 * 1024;
    let sending = async {
        way.send(&mut client, sent).await;
        client.shutdown().await.unwrap();
    };
    let receiving = async {
        // Until nothing moves any more: all windows are closed. They hold less than is to be sent.
        let mut last = (0, 0);
        while last.1 < 2_000 {
            yield_now().await;
            let now = way.sent.load(Relaxed);
            last = if now == last.0 {
                (now, last.1 + 1)
            } else {
                (now, 0)
            };
        }
        assert!(last.0 < sent, "all was taken");
        assert_eq!(testing::count().0, 1, "pipes while the receiver is slow");
        endpoint.shutdown().await.unwrap();
        while way.receive(&mut endpoint, 1024 * 1024).await {}
    };
    tokio::join!(sending, receiving);
    assert_eq!(way.received.load(Relaxed), way.sent.load(Relaxed));
    assert_eq!(
        finished(relayed).await.0,
        u64::try_from(way.sent.into_inner()).unwrap()
    );
}

#[tokio::test]
async fn relay_urgent_byte_in_a_spliced_stream_is_left_out_and_stops_nothing() {
    let (mut client, mut endpoint, relayed) = relaying(None).await;
    let way = Way::default();
    for _ in 0..4 {
        burst(&way, &mut client, &mut endpoint, SPLICE_AFTER).await;
    }
    assert_eq!(testing::count(), (0, 1), "it is spliced");
    way.send(&mut client, SPLICE_AFTER).await;
    assert_eq!(SockRef::from(&client).send_out_of_band(b"!").unwrap(), 1);
    // Nothing comes after this that could wake the relay once more.
    way.send(&mut client, SPLICE_AFTER).await;
    way.receive_all_sent(&mut endpoint).await;
    drop((client, endpoint));
    assert_eq!(
        finished(relayed).await.0,
        u64::try_from(way.sent.into_inner()).unwrap()
    );
}

#[tokio::test]
async fn relay_side_that_resets_after_its_own_end_breaks_at_once() {
    for (side, other_ends) in [
        (Side::Downstream, false),
        (Side::Downstream, true),
        (Side::Upstream, false),
        (Side::Upstream, true),
    ] {
        let (client, endpoint, relayed) = relaying(None).await;
        let (mut resets, mut other) = match side {
            Side::Downstream => (client, endpoint),
            Side::Upstream => (endpoint, client),
        };
        resets.shutdown().await.unwrap();
        assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        resets.set_zero_linger().unwrap();
        drop(resets);
        // Otherwise the other neither reads nor writes: only the relay can notice.
        let _silent = (!other_ends).then_some(other);
        let outcome = relayed.await.unwrap().outcome;
        assert!(
            matches!(outcome, Outcome::Broken(broken, _) if broken == side),
            "{side:?} resets, other ends: {other_ends}: {outcome:?}"
        );
    }
}

#[test]
fn relay_future_of_two_sockets_stays_small() {
    fn size_of_future<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    let size =
        size_of_future(relay::<ReadHalf<'_>, WriteHalf<'_>, ReadHalf<'_>, WriteHalf<'_>, Active>);
    assert!(size <= 520, "{size} bytes for every relay");
}
