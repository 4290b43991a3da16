//! Plain TCP: something is sent, and the first line that comes back is the answer. Owns the connection.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Answered, Exchange, Failure, MOST_BYTES, Manner, Reuse, connect, first_line};

pub(in crate::bench) struct Client {
    manner: Manner,
    local: Option<SocketAddr>,
    open: Option<TcpStream>,
}

impl Client {
    pub(super) fn new(manner: Manner, local: Option<SocketAddr>) -> Self {
        Self {
            manner,
            local,
            open: None,
        }
    }

    pub(super) async fn ask(&mut self) -> Exchange {
        let mut exchange = Exchange {
            connect: None,
            first: Duration::ZERO,
            result: Err(Failure::Cut),
        };
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => match connect(&self.manner, self.local).await {
                Ok((stream, took)) => {
                    exchange.connect = Some(took);
                    stream
                }
                Err(failure) => {
                    exchange.result = Err(failure);
                    return exchange;
                }
            },
        };
        let asked = line(&mut stream, &self.manner.send, &mut exchange.first);
        exchange.result = timeout(self.manner.patience, asked)
            .await
            .unwrap_or(Err(Failure::Timeout));
        if exchange.result.is_ok() && self.manner.reuse == Reuse::KeepAlive {
            self.open = Some(stream);
        }
        exchange
    }
}

/// Sends and reads to the end of the first line, or of everything.
async fn line(
    stream: &mut TcpStream,
    send: &[u8],
    first: &mut Duration,
) -> Result<Answered, Failure> {
    let began = Instant::now();
    let broken = |error: std::io::Error| Failure::broken(&error);
    stream.write_all(send).await.map_err(broken)?;
    let mut answer = Vec::with_capacity(256);
    while !answer.contains(&b'\n') && answer.len() < MOST_BYTES {
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 {
            break;
        }
        if first.is_zero() {
            *first = began.elapsed();
        }
    }
    if answer.is_empty() {
        return Err(Failure::Cut);
    }
    Ok(Answered {
        who: first_line(&answer),
        bytes: u64::try_from(answer.len()).unwrap_or_default(),
        serial: None,
    })
}
