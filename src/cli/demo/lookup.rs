//! One A query over UDP, for the demo's proof: enough of RFC 1035 to ask and to read addresses from the answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::net::UdpSocket;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Type A and class IN.
const A_IN: [u8; 4] = [0, 1, 0, 1];

/// The addresses of `name` that `server` gives.
pub(super) async fn address(server: SocketAddr, name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    socket.send(&query(name)).await?;
    let mut answer = [0; 1232];
    let length = socket.recv(&mut answer).await?;
    addresses(answer.get(..length).unwrap_or_default())
        .with_context(|| format!("{server} does not know {name}"))
}

fn query(name: &str) -> Vec<u8> {
    // Id 1, recursion desired, one question.
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or_default());
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(A_IN);
    packet
}

fn addresses(packet: &[u8]) -> anyhow::Result<Vec<IpAddr>> {
    let mut rest =
        after_name(packet.get(HEADER..).unwrap_or_default()).and_then(|rest| rest.get(4..));
    let count = packet.get(6..8).map_or(0, |count| {
        count
            .iter()
            .fold(0_usize, |sum, byte| sum * 256 + usize::from(*byte))
    });
    let mut found = Vec::new();
    for _ in 0..count {
        let record = rest
            .and_then(after_name)
            .context("the answer is cut short")?;
        let (fixed, data) = record
            .split_at_checked(10)
            .context("the answer is cut short")?;
        let length = fixed.get(8..).map_or(0, |bytes| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum * 256 + usize::from(*byte))
        });
        if fixed.starts_with(&A_IN)
            && let Some(octets) = data
                .get(..length)
                .and_then(|data| <[u8; 4]>::try_from(data).ok())
        {
            found.push(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        rest = data.get(length..);
    }
    if found.is_empty() {
        bail!("there is no address in the answer");
    }
    Ok(found)
}

/// What follows a name: labels up to an empty one, or a pointer (RFC 1035 section 4.1.4).
fn after_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        bytes = match length {
            0 => return Some(rest),
            192.. => return rest.get(1..),
            _ => rest.get(usize::from(*length)..)?,
        };
    }
}
