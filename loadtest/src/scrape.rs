//! A scraper beside a load, as Prometheus is one, but hastier. Owns its pace and what counts as a scrape; measures no
//! latency.

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    figure::{Figure, number},
    load::Done,
};

/// From one scrape to the next.
const EVERY: Duration = Duration::from_millis(100);
/// Patience with one scrape.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was scraped.
#[derive(Debug, Default)]
struct Scraped {
    times: u64,
    bytes: u64,
}

/// Scrapes while a load runs, and adds to what that did how often, and how much came.
///
/// # Errors
/// The load's, or a scrape failed: a run that was not scraped says nothing of scraping.
pub(crate) async fn beside(
    admin: SocketAddr,
    load: impl Future<Output = anyhow::Result<Done>>,
) -> anyhow::Result<Done> {
    let mut scraped = Scraped::default();
    let mut done = tokio::select! {
        done = load => done?,
        failed = again(admin, &mut scraped) => match failed? {},
    };
    done.figures.insert(Figure::Scrapes, number(scraped.times));
    if scraped.times > 0 {
        let kib = number(scraped.bytes) / 1024.0 / number(scraped.times);
        done.figures.insert(Figure::KibPerScrape, kib);
    }
    Ok(done)
}

/// Until one fails.
async fn again(admin: SocketAddr, scraped: &mut Scraped) -> anyhow::Result<Infallible> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let bytes = timeout(PATIENCE, once(admin))
            .await
            .with_context(|| format!("no metrics from {admin} in time"))?
            .with_context(|| format!("cannot scrape {admin}"))?;
        scraped.times += 1;
        scraped.bytes += bytes;
    }
}

/// Bytes of one answer, head and body.
async fn once(admin: SocketAddr) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    ensure!(
        status == *b"HTTP/1.1 200",
        "the answer is {}",
        String::from_utf8_lossy(&status)
    );
    // The rest is counted and dropped: keeping megabytes would cost the generator, and so the load beside, more.
    let rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(u64::try_from(status.len())? + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// An admin interface that answers one after the other with `answer`.
    async fn admin(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /metrics "));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        addr
    }

    #[tokio::test]
    async fn once_of_an_answer_counts_its_bytes() {
        let answer = "HTTP/1.1 200 OK\r\n\r\nup 1\n";
        let bytes = once(admin(answer).await).await.unwrap();
        assert_eq!(bytes, u64::try_from(answer.len()).unwrap());
    }

    #[tokio::test]
    async fn beside_an_admin_that_refuses_fails_and_does_not_wait_for_the_load() {
        let addr = admin("HTTP/1.1 503 Busy\r\n\r\n").await;
        let error = beside(addr, std::future::pending()).await.unwrap_err();
        assert!(format!("{error:#}").contains("503"), "{error:#}");
    }

    #[tokio::test]
    async fn beside_a_load_that_is_over_adds_what_was_scraped() {
        let addr = admin("HTTP/1.1 200 OK\r\n\r\n").await;
        let load = async {
            once(addr).await?;
            Ok(Done::default())
        };
        let done = beside(addr, load).await.unwrap();
        assert!(done.figures.contains_key(&Figure::Scrapes));
    }
}
