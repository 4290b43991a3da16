//! The access log: one line a request, as text or JSON, with keys that stay. Owns what is said and how; where lines go, and that
//! nobody waits for them, is the data path's.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use http::{Method, Version};

use super::json;
use crate::{calendar, snapshot::ServicePortName, time::Timestamp};

/// Bytes of a path that are logged.
const MOST_PATH: usize = 1024;
/// What stands for a request that could not be read, as in HAProxy's logs.
const BAD_REQUEST: &str = "<BADREQ>";

/// Who or what ended a request, as the first letter of HAProxy's termination codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// `-`: nobody, it is complete.
    Nobody,
    /// `C`: the client, which closed or reset.
    Client,
    /// `c`: the client took too long.
    ClientTimeout,
    /// `S`: the endpoint refused, closed or reset.
    Endpoint,
    /// `s`: the endpoint took too long.
    EndpointTimeout,
    /// `P`: portico, which answered itself.
    Proxy,
    /// `R`: a resource of this host, or a limit, was used up.
    Resource,
    /// `D`: what it went to was taken away: an endpoint or Service, or portico ended.
    Down,
}

/// In which state, as the second letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedIn {
    /// `-`: after everything.
    Done,
    /// `R`: while the request came.
    Request,
    /// `Q`: while it waited for a place.
    Queue,
    /// `C`: while an endpoint was connected to.
    Connect,
    /// `H`: while the head of the answer was waited for.
    Head,
    /// `D`: while bodies went through.
    Body,
}

/// Two letters, as in HAProxy's logs (`--`, `SC`, `sH`, `CD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Termination(pub EndedBy, pub EndedIn);

impl Termination {
    /// As it should be.
    pub const NORMAL: Self = Self(EndedBy::Nobody, EndedIn::Done);
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.0 {
            EndedBy::Nobody => '-',
            EndedBy::Client => 'C',
            EndedBy::ClientTimeout => 'c',
            EndedBy::Endpoint => 'S',
            EndedBy::EndpointTimeout => 's',
            EndedBy::Proxy => 'P',
            EndedBy::Resource => 'R',
            EndedBy::Down => 'D',
        };
        let state = match self.1 {
            EndedIn::Done => '-',
            EndedIn::Request => 'R',
            EndedIn::Queue => 'Q',
            EndedIn::Connect => 'C',
            EndedIn::Head => 'H',
            EndedIn::Body => 'D',
        };
        f.write_char(by)?;
        f.write_char(state)
    }
}

/// One request that is over.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When its head was there.
    pub at: Timestamp,
    /// The client, as endpoints are told it.
    pub client: SocketAddr,
    /// The Service port; `None` of a head that nobody was chosen for.
    pub service: Option<&'a ServicePortName>,
    /// The endpoint that answered, or the last one tried.
    pub endpoint: Option<SocketAddr>,
    /// Method; `None` where what came could not be read, and neither host nor path nor version are known.
    pub method: Option<&'a Method>,
    /// `Host`, if it is text.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Version of the client's side.
    pub version: Version,
    /// What the client was told; 499 if it had gone before (as nginx has it), 0 if nothing was told.
    pub status: u16,
    /// Of an answer of gRPC that is over: its status.
    pub grpc_status: Option<u16>,
    /// How long connecting took, all attempts together; `None` on a kept connection.
    pub connect: Option<Duration>,
    /// From the head of the request to the first byte of the answer; `None` if there is none.
    pub first_byte: Option<Duration>,
    /// From the head of the request to the end.
    pub total: Duration,
    /// Bytes of bodies to the endpoint and to the client.
    pub bytes: (u64, u64),
    /// Attempts beyond the first.
    pub retries: u32,
    /// Who ended it, and when.
    pub termination: Termination,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: values in a fixed order.
    #[default]
    Text,
    /// An object a line.
    Json,
}

impl Record<'_> {
    /// Adds the line, its end included.
    pub fn write(&self, out: &mut String, format: LogFormat) {
        match format {
            LogFormat::Text => self.text(out),
            LogFormat::Json => self.json(out),
        }
        out.push('\n');
    }

    /// `TIME CLIENT SERVICE ENDPOINT "METHOD HOST PATH VERSION" STATUS CODE connect/first/total ms, bytes to/from, retries`.
    /// What clients choose stands in quotes, so that nothing in it can look like another column or line.
    fn text(&self, out: &mut String) {
        let _ = write!(
            out,
            "{} {} ",
            calendar::rfc3339_millis(self.at),
            self.client
        );
        or_dash(out, self.service);
        out.push(' ');
        or_dash(out, self.endpoint);
        let line = match self.method {
            Some(method) => {
                let host = if self.host.is_empty() { "-" } else { self.host };
                let (path, version) = (cut(self.path), version(self.version));
                format!("{method} {host} {path} {version}")
            }
            None => BAD_REQUEST.to_owned(),
        };
        out.push(' ');
        json::string(out, &line);
        let _ = write!(out, " {} {} ", self.status, self.termination);
        for time in [self.connect, self.first_byte, Some(self.total)] {
            or_dash(out, time.map(Milliseconds));
            out.push('/');
        }
        out.pop();
        let (to, from) = self.bytes;
        let _ = write!(out, " {to}/{from} {}", self.retries);
        if let Some(status) = self.grpc_status {
            let _ = write!(out, " grpc={status}");
        }
    }

    fn json(&self, out: &mut String) {
        out.push('{');
        json::text(out, "time", &calendar::rfc3339_millis(self.at));
        json::text(out, "client", &self.client.to_string());
        if let Some(service) = self.service {
            json::text(out, "namespace", &service.namespace);
            json::text(out, "service", &service.service);
            json::text(out, "port", &service.port);
        }
        if let Some(endpoint) = self.endpoint {
            json::text(out, "endpoint", &endpoint.to_string());
        }
        if let Some(method) = self.method {
            json::text(out, "method", method.as_str());
            json::text(out, "host", self.host);
            json::text(out, "path", cut(self.path));
            json::text(out, "version", version(self.version));
        }
        json::number(out, "status", self.status.into());
        if let Some(status) = self.grpc_status {
            json::number(out, "grpc_status", status.into());
        }
        let times = [
            ("connect_ms", self.connect),
            ("first_byte_ms", self.first_byte),
            ("total_ms", Some(self.total)),
        ];
        for (key, time) in times {
            if let Some(time) = time {
                json::key(out, key);
                let _ = write!(out, "{}", Milliseconds(time));
            }
        }
        json::number(out, "bytes_to", self.bytes.0);
        json::number(out, "bytes_from", self.bytes.1);
        json::number(out, "retries", self.retries.into());
        json::text(out, "termination", &self.termination.to_string());
        out.push('}');
    }
}

/// With three digits behind the point.
struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        write!(f, "{}.{:03}", us / 1000, us % 1000)
    }
}

fn or_dash(out: &mut String, value: Option<impl fmt::Display>) {
    match value {
        // Writing to a String cannot fail.
        Some(value) => drop(write!(out, "{value}")),
        None => out.push('-'),
    }
}

/// A path that is not too long for a line.
fn cut(path: &str) -> &str {
    let mut end = path.len().min(MOST_PATH);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    path.get(..end).unwrap_or_default()
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Protocol;

    fn service() -> ServicePortName {
        ServicePortName {
            namespace: "shop".into(),
            service: "web".into(),
            port: "http".into(),
            protocol: Protocol::Tcp,
        }
    }

    fn record(service: &ServicePortName) -> Record<'_> {
        Record {
            at: Timestamp::from_millis(1_700_000_000_123),
            client: ([192, 0, 2, 7], 4000).into(),
            service: Some(service),
            endpoint: Some(([127, 120, 0, 1], 8080).into()),
            method: Some(&Method::GET),
            host: "web",
            path: "/x?y=1",
            version: Version::HTTP_11,
            status: 200,
            grpc_status: None,
            connect: Some(Duration::from_micros(85)),
            first_byte: Some(Duration::from_micros(2_100)),
            total: Duration::from_micros(12_345),
            bytes: (0, 512),
            retries: 1,
            termination: Termination::NORMAL,
        }
    }

    fn check(record: &Record<'_>, format: LogFormat, expected: &str) {
        let mut line = String::new();
        record.write(&mut line, format);
        assert_eq!(line.strip_suffix('\n'), Some(expected));
    }

    #[test]
    fn write_text_has_the_columns_in_their_order() {
        let service = service();
        check(
            &record(&service),
            LogFormat::Text,
            "2023-11-14T22:13:20.123Z 192.0.2.7:4000 shop/web:http 127.120.0.1:8080 \"GET web /x?y=1 HTTP/1.1\" 200 -- \
             0.085/2.100/12.345 0/512 1",
        );
        let failed = Record {
            service: None,
            endpoint: None,
            host: "",
            status: 0,
            connect: None,
            first_byte: None,
            grpc_status: Some(14),
            termination: Termination(EndedBy::ClientTimeout, EndedIn::Request),
            ..record(&service)
        };
        check(
            &failed,
            LogFormat::Text,
            "2023-11-14T22:13:20.123Z 192.0.2.7:4000 - - \"GET - /x?y=1 HTTP/1.1\" 0 cR -/-/12.345 0/512 1 grpc=14",
        );
    }

    #[test]
    fn write_json_has_stable_keys_and_leaves_out_what_is_not_there() {
        let service = service();
        check(
            &record(&service),
            LogFormat::Json,
            "{\"time\":\"2023-11-14T22:13:20.123Z\",\"client\":\"192.0.2.7:4000\",\"namespace\":\"shop\",\"service\":\"web\",\
             \"port\":\"http\",\"endpoint\":\"127.120.0.1:8080\",\"method\":\"GET\",\"host\":\"web\",\"path\":\"/x?y=1\",\
             \"version\":\"HTTP/1.1\",\"status\":200,\"connect_ms\":0.085,\"first_byte_ms\":2.100,\"total_ms\":12.345,\
             \"bytes_to\":0,\"bytes_from\":512,\"retries\":1,\"termination\":\"--\"}",
        );
        let kept = Record {
            service: None,
            endpoint: None,
            connect: None,
            first_byte: None,
            ..record(&service)
        };
        let mut line = String::new();
        kept.write(&mut line, LogFormat::Json);
        for key in ["service", "endpoint", "connect_ms", "first_byte_ms"] {
            assert!(!line.contains(&format!("\"{key}\"")), "{line}");
        }
    }

    #[test]
    fn write_what_clients_choose_stays_in_its_column_and_line() {
        let service = service();
        let long = format!("/\" 200 --\n{}", "ä".repeat(2000));
        let hostile = Record {
            path: &long,
            host: "a\" b\r\n",
            ..record(&service)
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let mut line = String::new();
            hostile.write(&mut line, format);
            assert_eq!(line.matches('\n').count(), 1);
            assert!(line.contains("\\\" 200 --\\u000a"), "{line}");
            assert!(line.len() < 2000);
        }
    }

    #[test]
    fn termination_is_two_letters_as_in_haproxy() {
        for (by, state, expected) in [
            (EndedBy::Endpoint, EndedIn::Connect, "SC"),
            (EndedBy::EndpointTimeout, EndedIn::Head, "sH"),
            (EndedBy::Client, EndedIn::Body, "CD"),
            (EndedBy::Proxy, EndedIn::Request, "PR"),
            (EndedBy::EndpointTimeout, EndedIn::Queue, "sQ"),
        ] {
            assert_eq!(Termination(by, state).to_string(), expected);
        }
    }
}
