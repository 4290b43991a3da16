//! The attempt of a `grpc` probe: one call of `grpc.health.v1.Health/Check` over HTTP/2 without TLS. Owns the few
//! bytes of gRPC framing and protobuf that it takes, and kubelet's words for its failures. Sources: gRPC over HTTP2
//! (PROTOCOL-HTTP2.md), GRPC Health Checking Protocol, protobuf encoding.

use std::{net::SocketAddr, time::Duration};

use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::ask::{self, MOST_BODY, dial, driven, go_duration};

const PATH: &str = "/grpc.health.v1.Health/Check";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// `HealthCheckResponse.ServingStatus` by number.
const SERVING_STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Status codes by number (gRPC, Status codes), as Go prints them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNIMPLEMENTED: usize = 12;
const INTERNAL: usize = 13;
const UNAVAILABLE: usize = 14;

/// How a call ended without an answer: code and description.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    code: usize,
    message: String,
}

/// Asks `addr` for the health of `service`: SERVING is success. `deadline` is when, `within` how long it may take.
pub(super) async fn check(
    addr: SocketAddr,
    service: &str,
    (deadline, within): (Instant, Duration),
) -> Result<(), String> {
    let within = go_duration(within);
    // kubelet goes on trying until the time is up, so that every failure to connect reads as this one.
    let no_connection = || {
        format!(
            "timeout: failed to connect service \"{addr}\" within {within}: context deadline exceeded"
        )
    };
    let stream = dial(None, addr, deadline)
        .await
        .map_err(|_failed| no_connection())?;
    let called = timeout_at(deadline, call(stream, addr, service)).await;
    let called =
        called.map_err(|_late| format!("timeout: health rpc did not complete within {within}"))?;
    match called {
        Ok(1) => Ok(()),
        Ok(status) => {
            let name = usize::try_from(status)
                .ok()
                .and_then(|status| SERVING_STATUS.get(status));
            let name = name.map_or_else(|| status.to_string(), |name| (*name).to_owned());
            Err(format!("service unhealthy (responded with \"{name}\")"))
        }
        Err(Status { code, message }) if code == UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(Status { code, message }) => {
            let name = CODES.get(code).unwrap_or(&"Unknown");
            Err(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {message}"
            ))
        }
    }
}

/// One call on a connection of its own; the serving status that came back.
async fn call(stream: TcpStream, addr: SocketAddr, service: &str) -> Result<u64, Status> {
    let (sender, connection) = h2::client::handshake(stream).await.map_err(unavailable)?;
    let request = Request::post(format!("http://{addr}{PATH}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, ask::USER_AGENT)
        .body(())
        .map_err(|error| internal(&error.to_string()))?;
    let message = framed(service);
    let talk = async move {
        let mut sender = sender.ready().await.map_err(unavailable)?;
        let (answer, mut body) = sender.send_request(request, false).map_err(unavailable)?;
        body.send_data(message, true).map_err(unavailable)?;
        read(answer.await.map_err(unavailable)?).await
    };
    driven(connection, talk).await
}

async fn read(answer: Response<h2::RecvStream>) -> Result<u64, Status> {
    let (head, mut body) = answer.into_parts();
    if let Some(status) = status_of(&head.headers).filter(|status| status.code != 0) {
        return Err(status);
    }
    if head.status != StatusCode::OK {
        let message = format!(
            "unexpected HTTP status code received from server: {}",
            head.status
        );
        let code = match head.status.as_u16() {
            404 => UNIMPLEMENTED,
            _ => UNAVAILABLE,
        };
        return Err(Status { code, message });
    }
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece.map_err(unavailable)?);
        if bytes.len() > MOST_BODY {
            return Err(internal("the answer is too long"));
        }
    }
    let trailers = body.trailers().await.map_err(unavailable)?;
    match trailers.as_ref().and_then(status_of) {
        Some(status) if status.code != 0 => Err(status),
        Some(_) => serving_status(&bytes).ok_or_else(|| internal("the answer is no message")),
        None => Err(internal(
            "server closed the stream without sending trailers",
        )),
    }
}

/// `grpc-status` and `grpc-message`, if they are there.
fn status_of(fields: &HeaderMap) -> Option<Status> {
    let code = fields.get(GRPC_STATUS)?.to_str().ok()?.parse().unwrap_or(2);
    let message = fields.get(GRPC_MESSAGE);
    let message = message.map(|message| unescaped(message.as_bytes()));
    Some(Status {
        code,
        message: message.unwrap_or_default(),
    })
}

/// Percent decoding as gRPC uses it in `grpc-message`: what is no escape stands for itself.
fn unescaped(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unavailable(error: h2::Error) -> Status {
    Status {
        code: UNAVAILABLE,
        message: error.to_string(),
    }
}

fn internal(message: &str) -> Status {
    Status {
        code: INTERNAL,
        message: message.to_owned(),
    }
}

/// `HealthCheckRequest { service = 1 }` behind gRPC's prefix: not compressed, length in four bytes.
fn framed(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(0x0a);
        put_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.append(&mut message);
    framed.into()
}

fn put_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
}

/// Field 1 of a `HealthCheckResponse` behind its prefix; absent means 0.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, message) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let mut rest = message.get(..length).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framed_request_is_what_protobuf_makes_of_it() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = framed(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn serving_status_reads_field_one_and_passes_over_others() {
        let cases: [(&[u8], Option<u64>); 9] = [
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 2, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 7, 0x12, 3, 1, 2, 3, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 3, 8, 0x80, 1], Some(128)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 9, 8, 1], None),
            (&[0, 0, 0, 0, 3, 0x12, 9, 1], None),
            (&[0, 0, 0], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(serving_status(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn unescaped_keeps_what_is_no_escape() {
        assert_eq!(unescaped(b"a%20b%C3%BC"), "a b\u{fc}");
        assert_eq!(unescaped(b"100%"), "100%");
        assert_eq!(unescaped(b"%zz%4"), "%zz%4");
    }
}
