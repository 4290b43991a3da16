//! The little of HTTP/1.1 (RFC 9112) that a client of known servers needs. Pure.

use std::net::SocketAddr;

/// A request for `/`; the last one of a connection says so.
pub(super) fn request(target: SocketAddr, is_last: bool) -> Vec<u8> {
    let connection = if is_last { "close" } else { "keep-alive" };
    format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: {connection}\r\n\r\n").into_bytes()
}

/// A whole answer at the start of what was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// Bytes that it takes.
    pub(super) length: usize,
    /// The first line of its body.
    pub(super) name: &'a str,
}

/// The answer, once all of it is there.
///
/// # Errors
/// It is none, or not status 200 with a length.
pub(super) fn answer(received: &[u8]) -> Result<Option<Answer<'_>>, &'static str> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = received.split_at(end + 4);
    let head = std::str::from_utf8(head).map_err(|_| "an answer that is not text")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    if status != Some("200") {
        return Err("another status than 200");
    }
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or("an answer without a length")?;
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let body = std::str::from_utf8(body).map_err(|_| "a body that is not text")?;
    Ok(Some(Answer {
        length: end + 4 + length,
        name: body.lines().next().unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_in_pieces_is_there_with_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc\nHTTP";
        for cut in 0..text.len() - 4 {
            assert_eq!(answer(&text[..cut]), Ok(None), "{cut}");
        }
        let whole = answer(text).unwrap().unwrap();
        assert_eq!((whole.length, whole.name), (text.len() - 4, "abc"));
    }

    #[test]
    fn answer_of_another_status_or_without_length_is_an_error() {
        assert!(answer(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
