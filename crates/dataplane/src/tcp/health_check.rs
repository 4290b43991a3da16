//! Answers at `healthCheckNodePort`: one HTTP/1.1 request a connection, whatever its path. Owns the few lines of HTTP
//! that this takes (RFC 9112); what is said comes from the Snapshot.

use std::{fmt::Write as _, time::Duration};

use portico_core::snapshot::HealthCheck;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Resetting;

/// Longest request head.
const MAX_HEAD: usize = 8 * 1024;
/// How long a request may take to come, and its answer to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads one request and answers it. A client that sends none in time, or something else, is reset.
pub(super) async fn answer(mut downstream: Resetting, check: &HealthCheck) {
    let exchange = async {
        let method = request(&mut downstream).await?;
        let text = response(check, &method);
        downstream.stream.write_all(text.as_bytes()).await.ok()?;
        downstream.stream.shutdown().await.ok()?;
        // Until the client has read it: closing over unread bytes would reset it.
        let mut rest = [0; 512];
        while downstream.stream.read(&mut rest).await.ok()? > 0 {}
        Some(())
    };
    if let Ok(Some(())) = tokio::time::timeout(PATIENCE, exchange).await {
        downstream.let_go();
    }
}

/// The method of the next request, once its head is complete.
async fn request(downstream: &mut Resetting) -> Option<String> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = downstream.stream.read_buf(&mut head).await.ok()?;
        if read == 0 || head.len() > MAX_HEAD {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut line = head.lines().next()?.split(' ');
    let (method, version) = (line.next()?, line.next_back()?);
    version.starts_with("HTTP/1.").then(|| method.to_owned())
}

fn response(check: &HealthCheck, method: &str) -> String {
    let status = check.status();
    let reason = if status == 200 {
        "OK"
    } else {
        "Service Unavailable"
    };
    let body = check.body();
    let mut text = String::with_capacity(512);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        check.local_endpoints,
        body.len()
    );
    if method != "HEAD" {
        text.push_str(&body);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_to_head_has_no_body() {
        let check = HealthCheck {
            namespace: "default".into(),
            service: "web".into(),
            local_endpoints: 0,
        };
        let text = response(&check, "HEAD");
        assert!(
            text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{text}"
        );
        assert!(text.ends_with("Connection: close\r\n\r\n"), "{text}");
        assert!(response(&check, "GET").ends_with(&check.body()));
    }
}
