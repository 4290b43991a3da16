//! The relay between in-memory streams, with paused time.

use std::task::Waker;

use tokio::io::{
    AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, Repeat, Sink, WriteHalf, duplex, repeat,
    sink, split,
};

use super::*;

mod sockets;

impl MaybeSocket for ReadHalf<DuplexStream> {}
impl MaybeSocket for WriteHalf<DuplexStream> {}
impl MaybeSocket for DuplexStream {}
impl MaybeSocket for Repeat {}
impl MaybeSocket for Sink {}
impl MaybeSocket for Failing {}

const PATIENCE: Patience = Patience {
    idle: Duration::from_hours(1),
    half_closed: Duration::from_mins(5),
};

/// A relay in a task of its own, with the client's and the endpoint's ends.
fn relaying(buffer: usize) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<Relayed>) {
    let (client, downstream) = duplex(buffer);
    let (endpoint, upstream) = duplex(buffer);
    let relayed =
        tokio::spawn(
            async move { relay(split(downstream), split(upstream), PATIENCE, &mut ()).await },
        );
    (client, endpoint, relayed)
}

#[tokio::test(start_paused = true)]
async fn relay_client_finishes_first_carries_the_answer_and_counts() {
    let (mut client, mut endpoint, relayed) = relaying(64);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = String::new();
    endpoint.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "question");
    endpoint.write_all(b"ok").await.unwrap();
    endpoint.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "ok");
    let relayed = relayed.await.unwrap();
    assert!(matches!(relayed.outcome, Outcome::Finished), "{relayed:?}");
    assert_eq!((relayed.to_upstream, relayed.to_downstream), (8, 2));
}

#[tokio::test(start_paused = true)]
async fn relay_nothing_moves_times_out_from_the_last_byte() {
    let (mut client, mut endpoint, relayed) = relaying(64);
    let start = Instant::now();
    tokio::time::advance(PATIENCE.idle / 2).await;
    client.write_all(b"x").await.unwrap();
    endpoint.read_u8().await.unwrap();
    assert!(matches!(relayed.await.unwrap().outcome, Outcome::TimedOut));
    assert_eq!(start.elapsed().as_secs(), (PATIENCE.idle * 3 / 2).as_secs());
}

#[tokio::test(start_paused = true)]
async fn relay_half_closed_times_out_sooner() {
    let (mut client, mut endpoint, relayed) = relaying(64);
    let start = Instant::now();
    client.shutdown().await.unwrap();
    assert_eq!(endpoint.read(&mut [0]).await.unwrap(), 0);
    assert!(matches!(relayed.await.unwrap().outcome, Outcome::TimedOut));
    assert_eq!(start.elapsed().as_secs(), PATIENCE.half_closed.as_secs());
}

#[tokio::test(start_paused = true)]
async fn relay_receiver_gone_names_the_broken_side() {
    let (mut client, endpoint, relayed) = relaying(64);
    // Its end of sending is a finish, its end of receiving an error.
    drop(endpoint);
    client.write_all(b"x").await.unwrap();
    let outcome = relayed.await.unwrap().outcome;
    assert!(
        matches!(&outcome, Outcome::Broken(Side::Upstream, error) if error.kind() == io::ErrorKind::BrokenPipe)
    );
}

#[tokio::test(start_paused = true)]
async fn relay_read_error_names_the_broken_side() {
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let downstream = (Failing(Some(reset)), sink());
    let (_endpoint, upstream) = duplex(64);
    let outcome = relay(downstream, split(upstream), PATIENCE, &mut ())
        .await
        .outcome;
    assert!(
        matches!(&outcome, Outcome::Broken(Side::Downstream, error) if error.kind() == io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test(start_paused = true)]
async fn relay_receiver_stalled_takes_a_bounded_amount() {
    const BUFFER: usize = 1024;
    let (mut client, mut endpoint, relayed) = relaying(BUFFER);
    let mut taken = 0;
    while let Ok(count) =
        tokio::time::timeout(Duration::from_secs(1), client.write(&[7; 4096])).await
    {
        taken += count.unwrap();
    }
    assert!(
        taken <= 2 * BUFFER + SCRATCH_BYTES,
        "{taken} bytes are somewhere between"
    );
    let mut received = vec![0; taken];
    endpoint.read_exact(&mut received).await.unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    client.write_all(b"on").await.unwrap();
    endpoint.read_exact(&mut [0; 2]).await.unwrap();
    drop((client, endpoint));
    assert_eq!(
        relayed.await.unwrap().to_upstream,
        u64::try_from(taken + 2).unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn relay_both_directions_busy_starves_neither() {
    let (mut client, mut endpoint, mut to_client, mut to_endpoint) =
        (repeat(1), repeat(2), sink(), sink());
    let mut there = Direction::new(Side::Downstream, Side::Upstream);
    let mut back = Direction::new(Side::Upstream, Side::Downstream);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(
            there
                .poll(
                    &mut cx,
                    Pin::new(&mut client),
                    Pin::new(&mut to_endpoint),
                    Phase::Open
                )
                .is_ok()
        );
        assert!(
            back.poll(
                &mut cx,
                Pin::new(&mut endpoint),
                Pin::new(&mut to_client),
                Phase::Open
            )
            .is_ok()
        );
    }
    let most = u64::try_from(3 * ROUNDS * SCRATCH_BYTES).unwrap();
    assert!(there.bytes > 0 && there.bytes <= most);
    assert_eq!(there.bytes, back.bytes);
}

#[tokio::test(start_paused = true)]
async fn direction_waiting_keeps_no_buffer() {
    let (mut client, mut downstream) = duplex(64);
    let (mut endpoint, mut upstream) = duplex(64);
    let mut direction = Direction::new(Side::Downstream, Side::Upstream);
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = |direction: &mut Direction| {
        direction
            .poll(
                &mut cx,
                Pin::new(&mut downstream),
                Pin::new(&mut upstream),
                Phase::Open,
            )
            .is_ok()
    };
    client.write_all(&[1; 64]).await.unwrap();
    assert!(poll(&mut direction));
    assert_eq!(direction.pending.capacity(), 0, "all was taken");
    client.write_all(&[2; 64]).await.unwrap();
    assert!(poll(&mut direction));
    assert_eq!(direction.pending.capacity(), 64, "nothing was taken");
    endpoint.read_exact(&mut [0; 64]).await.unwrap();
    assert!(poll(&mut direction));
    assert_eq!(direction.pending.capacity(), 0, "all was taken in the end");
}

/// A reader with one error.
struct Failing(Option<io::Error>);

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0
            .take()
            .map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }
}

/// Keeps everything back until it is told to flush.
#[derive(Debug, Default)]
struct Hoard {
    moved: u64,
    flushes: Vec<(Instant, u64)>,
}

impl Meter for &std::sync::Mutex<Hoard> {
    fn moved(&mut self, to_upstream: u64, to_downstream: u64) -> bool {
        self.lock().unwrap().moved = to_upstream + to_downstream;
        true
    }

    fn flush(&mut self) {
        let mut hoard = self.lock().unwrap();
        let flush = (Instant::now(), hoard.moved);
        hoard.flushes.push(flush);
    }
}

#[tokio::test(start_paused = true)]
async fn relay_bytes_kept_back_are_flushed_within_a_second_and_patience_is_unchanged() {
    let (mut client, downstream) = duplex(64);
    let (mut endpoint, upstream) = duplex(64);
    let hoard = std::sync::Mutex::new(Hoard::default());
    let start = Instant::now();
    let mut meter = &hoard;
    let relaying = relay(split(downstream), split(upstream), PATIENCE, &mut meter);
    let talking = async {
        for _ in 0..3 {
            client.write_all(b"x").await.unwrap();
            endpoint.read_u8().await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    };
    let (relayed, ()) = tokio::join!(relaying, talking);
    assert!(matches!(relayed.outcome, Outcome::TimedOut));
    let end = start + Duration::from_millis(800) + PATIENCE.idle;
    let hoard = hoard.into_inner().unwrap();
    assert_eq!(
        hoard.flushes,
        [(start + FLUSH_AFTER, 3), (end, 3)],
        "one timer for three bytes, and one at the end"
    );
}
