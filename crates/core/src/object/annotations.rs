//! Our own annotations, `portico.dev/...`. Owns the table of keys, which is what `docs/annotations.md` shows and what
//! manifests are checked against; reading a value belongs to the part that acts on it.

use std::{fmt::Write as _, time::Duration};

use super::{decode::closest, meta::Kind};

/// What all our keys begin with.
pub const PREFIX: &str = "portico.dev/";

/// How the readiness of hand-written endpoints is probed.
pub const READINESS_PROBE: &str = "portico.dev/readiness-probe";
/// What is spoken on the TCP ports of a Service.
pub const PROTOCOL: &str = "portico.dev/protocol";
/// Which cookie keeps a client of an HTTP port at its endpoint.
pub const AFFINITY_COOKIE: &str = "portico.dev/affinity-cookie";
/// Which header of requests maglev goes by.
pub const HASH_HEADER: &str = "portico.dev/hash-header";
/// How a Service chooses endpoints for new connections.
pub const BALANCE: &str = "portico.dev/balance";
/// Which address endpoints see their clients at.
pub const SOURCE_ADDRESS: &str = "portico.dev/source-address";
/// How long connections may last whose endpoint or Service port is gone.
pub const DRAIN_TIMEOUT: &str = "portico.dev/drain-timeout";
/// How long endpoints of an HTTP port may take to begin their answers.
pub const HTTP_RESPONSE_TIMEOUT: &str = "portico.dev/http-response-timeout";
/// How many connections each port of a Service has at a time.
pub const MAX_CONNECTIONS: &str = "portico.dev/max-connections";
/// How many connections each endpoint of a Service port has at a time.
pub const MAX_CONNECTIONS_PER_ENDPOINT: &str = "portico.dev/max-connections-per-endpoint";
/// Which PROXY header endpoints get.
pub const PROXY_PROTOCOL: &str = "portico.dev/proxy-protocol";
/// Whose PROXY headers are believed.
pub const ACCEPT_PROXY_PROTOCOL_FROM: &str = "portico.dev/accept-proxy-protocol-from";
/// The share of a pod, or of each address of a slice, beside others.
pub const WEIGHT: &str = "portico.dev/weight";
/// Weights by address.
pub const WEIGHTS: &str = "portico.dev/weights";
/// How long a simulated pod takes to come up.
pub const STARTUP_DELAY: &str = "portico.dev/startup-delay";
/// How long a simulated pod thinks about a request.
pub const LATENCY: &str = "portico.dev/latency";
/// The share of requests that a simulated pod fails.
pub const ERROR_RATE: &str = "portico.dev/error-rate";
/// How long a simulated pod takes to end.
pub const TERMINATION_DELAY: &str = "portico.dev/termination-delay";
/// What was changed at run time on an object.
pub const OVERRIDES: &str = "portico.dev/overrides";
/// Where an object was declared.
pub const SOURCE: &str = "portico.dev/source";

/// One of our annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnotationKey {
    /// The whole key.
    pub key: &'static str,
    /// Where it does something.
    pub applies_to: &'static [Place],
    /// What may be written.
    pub values: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Metadata that annotations stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `metadata` of an object.
    Object(Kind),
    /// `spec.template.metadata` of a workload.
    Template,
    /// Every object, where the program itself puts it.
    Shown,
}

const PODS: &[Place] = &[Place::Object(Kind::Pod), Place::Template];
const SLICES: &[Place] = &[
    Place::Object(Kind::Service),
    Place::Object(Kind::EndpointSlice),
    Place::Object(Kind::Endpoints),
];
const ADDRESSES: &[Place] = &[
    Place::Object(Kind::EndpointSlice),
    Place::Object(Kind::Endpoints),
];
const WEIGHED: &[Place] = &[
    Place::Object(Kind::Pod),
    Place::Template,
    Place::Object(Kind::EndpointSlice),
    Place::Object(Kind::Endpoints),
];

/// All of them, in the order in which they are shown.
// One row a line, however long: rows are added and read one by one.
#[rustfmt::skip]
pub const TABLE: &[AnnotationKey] = &[
    row(READINESS_PROBE, SLICES, "`tcp`, `tcp:PORT`, `http:/PATH`, `http:PORT/PATH`", "no probe: endpoints are ready as written", "Probes hand-written endpoints as a Pod's readiness probe would, with Kubernetes' periods and thresholds."),
    row(PROTOCOL, &[Place::Object(Kind::Service)], "`tcp`, `http`, `h2c`, `grpc`, or by port name: `web=http,admin=tcp`", "what `appProtocol` says, else `tcp`", "What is spoken on TCP ports. `http`, `h2c` and `grpc` are forwarded request by request: `docs/http.md`. It comes before `appProtocol`."),
    row(BALANCE, &[Place::Object(Kind::Service)], "`round-robin`, `random`, `least-request`, `peak-ewma`, `maglev`", "`round-robin`", "How endpoints are chosen for new connections and flows, of HTTP ports for each request; `sessionAffinity` comes first. `peak-ewma` goes by requests in progress and how long answers take lately; where the port is not HTTP it is `least-request`. `maglev` goes by the client's address, or by `portico.dev/hash-header`."),
    row(AFFINITY_COOKIE, &[Place::Object(Kind::Service)], "`NAME`, or with attributes: `NAME; Max-Age=3600; Secure`", "no cookie", "HTTP ports: an answer sets this cookie, and requests with it go to the same endpoint while it may be used; before `sessionAffinity`. Attributes: Max-Age, Path (`/`), Domain, SameSite (`Lax`), Secure; HttpOnly always."),
    row(HASH_HEADER, &[Place::Object(Kind::Service)], "the name of a header", "the client's address", "HTTP ports with `portico.dev/balance: maglev`: requests with the same value of this header go to the same endpoint."),
    row(SOURCE_ADDRESS, &[Place::Object(Kind::Service)], "`ours`, `keep`", "`ours`", "With `keep` endpoints see the client's address. A client of another machine needs CAP_NET_RAW or CAP_NET_ADMIN, and routes that bring answers back: `docs/adr/0013-source-address.md`."),
    row(DRAIN_TIMEOUT, &[Place::Object(Kind::Service)], "a time up to 24h: `30s`, `5m`", "no limit, as in a cluster", "Connections, of HTTP ports requests and tunnels, whose endpoint, address or port was taken away are reset after this long: `docs/adr/0014-draining.md`."),
    row(HTTP_RESPONSE_TIMEOUT, &[Place::Object(Kind::Service)], "a time up to 24h: `30s`, `5m`; `0` for no limit", "what `--http-response-timeout` says", "HTTP ports: the client gets 504 when no answer has begun so long after its request was sent: `docs/http.md`."),
    row(MAX_CONNECTIONS, &[Place::Object(Kind::Service)], "a whole number from 1 to 1000000", "no limit", "TCP connections that each port of the Service, in each family, has at a time, those that wait for an endpoint included. The next ones wait in the kernel's queue: `docs/limits.md`."),
    row(MAX_CONNECTIONS_PER_ENDPOINT, &[Place::Object(Kind::Service)], "a whole number from 1 to 1000000", "no limit", "TCP connections, of HTTP ports requests in progress, that each endpoint of a Service port gets at a time, from this portico. When all are full, the next ones wait for a place, at most `--connect-timeout`: `docs/limits.md`."),
    row(PROXY_PROTOCOL, &[Place::Object(Kind::Service)], "`v1`, `v2`", "no header", "TCP endpoints get a PROXY header before the client's first byte: the client, and what it asked for. Probes send none, so an endpoint must not insist on it towards whoever probes it."),
    row(ACCEPT_PROXY_PROTOCOL_FROM, &[Place::Object(Kind::Service)], "`10.0.0.0/8,fd00::1`", "nobody", "TCP connections from these front ends must begin with a PROXY header (v1 or v2) within 3 s, else they are reset; the client that it names is the one for source ranges, affinity, balancing, source addresses and headers sent on. From others a header is nothing special."),
    row(WEIGHT, WEIGHED, "a whole number from 0 to 256", "`1`", "The share of the pod, or of each address, beside others; with 0 it gets nothing new while another has more."),
    row(WEIGHTS, ADDRESSES, "`10.0.0.1=3,10.0.0.2=1`", "what `portico.dev/weight` says", "Weights by address."),
    row(STARTUP_DELAY, PODS, "a time: `2s`, `500ms`", "`0s`", "A simulated pod is up this long after its start."),
    row(LATENCY, PODS, "a time: `50ms`", "`0s`", "A simulated pod waits this long before it answers a request; probes are answered at once."),
    row(ERROR_RATE, PODS, "per cent: `10%`, `0.5%`", "`0%`", "The share of requests that a simulated pod answers with status 500, spread evenly; probes do not count."),
    row(TERMINATION_DELAY, PODS, "a time: `5s`", "`0s`", "A simulated pod takes at least this long to end, within its grace."),
    row(OVERRIDES, &[Place::Shown], "`replicas=5`", "", "What was changed at run time, beside the file: shown by `portico get -o yaml`, not read."),
    row(SOURCE, &[Place::Shown], "`FILE:LINE`", "", "Where the object was declared, or what made it: shown by `portico get -o yaml`, not read."),
];

const fn row(
    key: &'static str,
    applies_to: &'static [Place],
    values: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> AnnotationKey {
    AnnotationKey {
        key,
        applies_to,
        values,
        default,
        meaning,
    }
}

impl AnnotationKey {
    /// Where it does something, for people.
    pub fn places(&self) -> String {
        let places: Vec<String> = self
            .applies_to
            .iter()
            .map(|place| match place {
                Place::Object(kind) => kind.to_string(),
                Place::Template => "pod template".to_owned(),
                Place::Shown => "every object".to_owned(),
            })
            .collect();
        places.join(", ")
    }
}

/// What a time-out must look like.
pub const TIMEOUTS: &str = "must be a time up to 24h, such as 30s or 5m";

/// Longest time-out that may be asked for.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

/// Reads a time-out; `None` when it is none of [`TIMEOUTS`].
pub fn timeout(value: &str) -> Option<Duration> {
    duration(value).filter(|time| *time <= LONGEST_TIMEOUT)
}

/// `1h`, `1m30s`, `1.5s`, `50ms`: numbers with units, as Go writes durations.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let letters = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(letters);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// What is wrong with one of our keys in `place`, if anything; keys of others are none of our business.
pub fn problem(key: &str, place: Place) -> Option<String> {
    let name = key.strip_prefix(PREFIX)?;
    let Some(known) = TABLE.iter().find(|known| known.key == key) else {
        let names = TABLE
            .iter()
            .filter_map(|known| known.key.strip_prefix(PREFIX));
        return Some(match closest(name, names) {
            Some(meant) => {
                format!("unknown annotation \"{key}\", did you mean \"{PREFIX}{meant}\"?")
            }
            None => format!("unknown annotation \"{key}\": nothing reads it"),
        });
    };
    let fits = |at: &Place| *at == place || *at == Place::Shown;
    if known.applies_to.iter().any(fits) {
        return None;
    }
    let is_workload = matches!(
        place,
        Place::Object(Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet | Kind::StatefulSet)
    );
    let hint = if is_workload && known.applies_to.contains(&Place::Template) {
        " (write it in spec.template.metadata.annotations)"
    } else {
        ""
    };
    Some(format!(
        "annotation \"{key}\" does nothing here, it is for: {}{hint}",
        known.places()
    ))
}

/// The table as Markdown.
pub fn markdown() -> String {
    let mut text =
        String::from("| annotation | on | values | default | meaning |\n|---|---|---|---|---|\n");
    for row in TABLE {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            row.key,
            row.places(),
            row.values,
            row.default,
            row.meaning
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, place: Place, expected: Option<&str>) {
        assert_eq!(problem(key, place).as_deref(), expected, "{key}");
    }

    #[test]
    fn problem_of_a_misspelt_key_names_the_near_miss() {
        check(
            "portico.dev/latancy",
            Place::Template,
            Some(
                "unknown annotation \"portico.dev/latancy\", did you mean \"portico.dev/latency\"?",
            ),
        );
        check(
            "portico.dev/colour",
            Place::Template,
            Some("unknown annotation \"portico.dev/colour\": nothing reads it"),
        );
    }

    #[test]
    fn problem_of_a_key_in_the_wrong_place_names_the_right_one() {
        check(LATENCY, Place::Object(Kind::Pod), None);
        check(
            LATENCY,
            Place::Object(Kind::Deployment),
            Some(
                "annotation \"portico.dev/latency\" does nothing here, it is for: Pod, pod template (write it in \
                 spec.template.metadata.annotations)",
            ),
        );
        check(SOURCE, Place::Object(Kind::Node), None);
        check("example.com/latency", Place::Template, None);
    }

    #[test]
    fn timeout_takes_times_up_to_a_day() {
        assert_eq!(timeout("0"), Some(Duration::ZERO));
        assert_eq!(timeout("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(timeout("24h"), Some(Duration::from_hours(24)));
        for wrong in ["", "25h", "30", "-1s", "soon"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn table_has_each_key_once_and_complete() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(row.key.starts_with(PREFIX), "{}", row.key);
            assert!(
                !row.meaning.is_empty() && !row.applies_to.is_empty() && !row.values.is_empty()
            );
            assert!(
                TABLE[..index].iter().all(|other| other.key != row.key),
                "{}",
                row.key
            );
        }
    }
}
