//! What is spoken on a Service port: `appProtocol`, `portico.dev/protocol` and, where that is wished for, port names. Owns
//! the words and which of them counts. Always as declared, never guessed from what clients send: a server that speaks
//! first would wait for the guess.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    EndpointSlice,
    annotations::{AFFINITY_COOKIE, HASH_HEADER, HTTP_RESPONSE_TIMEOUT, PROTOCOL, timeout},
    meta::Labels,
    service::{Protocol, ServicePort},
};
use crate::http::cookie::AffinityCookie;

/// What the value of `portico.dev/protocol` must look like.
pub const PROTOCOLS: &str =
    "must be tcp, http, h2c or grpc, or such by port name as in web=http,admin=tcp";

/// How a TCP port is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Connection by connection, whatever is in them.
    #[default]
    Tcp,
    /// Request by request. Clients speak HTTP/1 or HTTP/2 with prior knowledge, endpoints get HTTP/1.1.
    Http,
    /// The same; endpoints get HTTP/2 with prior knowledge (RFC 9113, section 3.3).
    H2c,
    /// As [`AppProtocol::H2c`]; what we answer ourselves has a `grpc-status`.
    Grpc,
}

impl AppProtocol {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Http, Self::H2c, Self::Grpc];

    /// As the annotation spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Grpc => "grpc",
        }
    }

    /// As people write it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
            Self::H2c => "HTTP/2",
            Self::Grpc => "gRPC",
        }
    }

    /// Whether it is forwarded request by request.
    pub const fn is_http(self) -> bool {
        !matches!(self, Self::Tcp)
    }

    /// Whether endpoints get HTTP/2.
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::Grpc)
    }

    /// Reads a value of the annotation; `None` when it is none of [`Self::ALL`].
    pub fn parse(value: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|protocol| protocol.as_str() == value)
    }

    /// What an `appProtocol` means: IANA service names, Kubernetes' own (KEP-3726) and those that Istio documents, in
    /// letters of either case (RFC 6335, section 5.1). Whatever is encrypted or unknown passes through.
    pub fn of_app_protocol(value: &str) -> Self {
        let value = value.to_ascii_lowercase();
        match &*value {
            // A WebSocket begins as a request of HTTP/1.1 (RFC 6455).
            "http" | "kubernetes.io/ws" | "ws" | "grpc-web" => Self::Http,
            "kubernetes.io/h2c" | "h2c" | "http2" => Self::H2c,
            "grpc" => Self::Grpc,
            _ => Self::Tcp,
        }
    }

    /// What a port name means where names count: `PROTOCOL` or `PROTOCOL-SUFFIX`, as Istio has it.
    pub fn of_port_name(name: &str) -> Option<Self> {
        let is = |protocol: &str| {
            let rest = name.strip_prefix(protocol);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        if is("http") || is("grpc-web") {
            Some(Self::Http)
        } else if is("http2") || is("h2c") {
            Some(Self::H2c)
        } else {
            is("grpc").then_some(Self::Grpc)
        }
    }
}

/// Why a port is taken for what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AppReason {
    /// Nothing says anything about it.
    #[default]
    Unsaid,
    /// `appProtocol` of the Service port.
    AppProtocol(Arc<str>),
    /// `appProtocol` of a slice's port, for the Service's has none.
    SliceAppProtocol(Arc<str>),
    /// `portico.dev/protocol`.
    Annotation,
    /// The name of the port.
    PortName(Arc<str>),
}

/// What is spoken on a port, and why. Of UDP and SCTP the default, which says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Application {
    /// What.
    pub protocol: AppProtocol,
    /// Why.
    pub why: AppReason,
    /// The cookie that keeps a client at its endpoint; of HTTP alone.
    pub cookie: Option<Arc<AffinityCookie>>,
    /// The header that maglev goes by, instead of the client's address; of HTTP alone.
    pub hash_header: Option<HeaderName>,
    /// How long an endpoint may take to begin its answer, zero for as long as it likes; `None` where the Service does not say. Of
    /// HTTP alone.
    pub response_timeout: Option<Duration>,
}

/// Whether port names say what is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PortNames {
    /// They are names.
    #[default]
    Ignored,
    /// They count where nothing else is said (`--http-by-port-name`).
    Honoured,
}

impl Application {
    /// What is spoken on `port` of a Service with these annotations and slices. The annotation comes first, for it is
    /// meant for us alone; then the Service's `appProtocol`, the slices', and the name.
    pub fn of(
        port: &ServicePort,
        slices: &[Arc<EndpointSlice>],
        annotations: &Labels,
        names: PortNames,
    ) -> Self {
        if port.protocol != Protocol::Tcp {
            return Self::default();
        }
        let mut found = Self::declared(port, slices, annotations, names);
        if found.protocol.is_http() {
            let cookie = annotations.get(AFFINITY_COOKIE);
            let cookie = cookie.and_then(|text| AffinityCookie::parse(text));
            found.cookie = cookie.map(Arc::new);
            found.hash_header = annotations.get(HASH_HEADER).and_then(|name| header(name));
            let patience = annotations.get(HTTP_RESPONSE_TIMEOUT);
            found.response_timeout = patience.and_then(|text| timeout(text));
        }
        found
    }

    fn declared(
        port: &ServicePort,
        slices: &[Arc<EndpointSlice>],
        annotations: &Labels,
        names: PortNames,
    ) -> Self {
        let as_of = |protocol, why| Self {
            protocol,
            why,
            ..Self::default()
        };
        let wanted = annotations.get(PROTOCOL);
        if let Some(protocol) = wanted.and_then(|text| Wanted::parse(text)?.of(&port.name)) {
            return as_of(protocol, AppReason::Annotation);
        }
        let said = |text: &Arc<str>, why: fn(Arc<str>) -> AppReason| {
            as_of(AppProtocol::of_app_protocol(text), why(Arc::clone(text)))
        };
        if let Some(text) = &port.app_protocol {
            return said(text, AppReason::AppProtocol);
        }
        let ours = slices.iter().filter(|slice| !slice.is_for_another_proxy);
        let of_slice = ours.flat_map(|slice| &slice.ports).find_map(|of| {
            let joins = of.name == port.name && of.protocol == port.protocol;
            of.app_protocol.as_ref().filter(|_| joins)
        });
        if let Some(text) = of_slice {
            return said(text, AppReason::SliceAppProtocol);
        }
        let by_name = AppProtocol::of_port_name(&port.name);
        match by_name.filter(|_| names == PortNames::Honoured) {
            Some(protocol) => as_of(protocol, AppReason::PortName(Arc::clone(&port.name))),
            None => Self::default(),
        }
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.protocol.title())?;
        match &self.why {
            AppReason::Unsaid => f.write_str("no appProtocol"),
            AppReason::AppProtocol(text) => write!(f, "appProtocol: {text}"),
            AppReason::SliceAppProtocol(text) => write!(f, "appProtocol of its slice: {text}"),
            AppReason::Annotation => write!(f, "annotation {PROTOCOL}"),
            AppReason::PortName(name) => write!(f, "port name {name}"),
        }
    }
}

/// A readable value of `portico.dev/protocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Of every TCP port.
    All(AppProtocol),
    /// By port name; others are as if nothing were said.
    ByName(BTreeMap<Box<str>, AppProtocol>),
}

impl Wanted {
    /// Reads a value; `None` when it is none of [`PROTOCOLS`] or names a port twice.
    pub fn parse(value: &str) -> Option<Self> {
        if let Some(protocol) = AppProtocol::parse(value) {
            return Some(Self::All(protocol));
        }
        let mut by_name = BTreeMap::new();
        for pair in value.split(',') {
            let (name, protocol) = pair.split_once('=')?;
            let protocol = AppProtocol::parse(protocol.trim())?;
            if by_name.insert(name.trim().into(), protocol).is_some() {
                return None;
            }
        }
        Some(Self::ByName(by_name))
    }

    /// What the port called `name` is to be.
    pub fn of(&self, name: &str) -> Option<AppProtocol> {
        match self {
            Self::All(protocol) => Some(*protocol),
            Self::ByName(by_name) => by_name.get(name).copied(),
        }
    }

    /// The names that it gives.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = match self {
            Self::All(_) => None,
            Self::ByName(by_name) => Some(by_name.keys()),
        };
        named.into_iter().flatten().map(AsRef::as_ref)
    }
}

/// What the value of `portico.dev/hash-header` must look like.
pub const HEADERS: &str = "must be the name of a header, such as X-User";

/// Reads the name of a header; `None` when it is none.
pub fn header(name: &str) -> Option<HeaderName> {
    HeaderName::try_from(name).ok()
}

/// The protocol in words of a report: of a port that is not TCP there is nothing to say.
pub fn spoken(protocol: Protocol, app: &Application) -> String {
    match protocol {
        Protocol::Tcp => app.to_string(),
        Protocol::Udp | Protocol::Sctp => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{AddressType, SlicePort, TargetPort};

    fn port(name: &str, protocol: Protocol, app_protocol: Option<&str>) -> ServicePort {
        ServicePort {
            name: name.into(),
            protocol,
            port: 80,
            target_port: TargetPort::Number(80),
            node_port: None,
            app_protocol: app_protocol.map(Arc::from),
        }
    }

    fn slice(name: &str, app_protocol: &str) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            service_name: None,
            address_type: AddressType::IPv4,
            ports: vec![SlicePort {
                name: name.into(),
                protocol: Protocol::Tcp,
                port: Some(8080),
                app_protocol: Some(app_protocol.into()),
            }],
            endpoints: Vec::new(),
            is_for_another_proxy: false,
        })
    }

    fn check(port: &ServicePort, annotation: &str, names: PortNames, expected: &str) {
        let annotations = Labels::from([(PROTOCOL.into(), annotation.into())]);
        let slices = [slice("other", "http"), slice("sliced", "kubernetes.io/h2c")];
        let app = Application::of(port, &slices, &annotations, names);
        assert_eq!(spoken(port.protocol, &app), expected, "{port:?}");
    }

    #[test]
    fn app_protocol_of_the_documented_values_is_what_they_say() {
        for (value, expected) in [
            ("http", "HTTP"),
            ("HTTP", "HTTP"),
            ("kubernetes.io/ws", "HTTP"),
            ("kubernetes.io/h2c", "HTTP/2"),
            ("grpc", "gRPC"),
            ("https", "TCP"),
            ("kubernetes.io/wss", "TCP"),
            ("tls", "TCP"),
            ("mysql", "TCP"),
            ("example.com/http", "TCP"),
        ] {
            let title = AppProtocol::of_app_protocol(value).title();
            assert_eq!(title, expected, "{value}");
        }
    }

    #[test]
    fn application_goes_by_annotation_then_service_then_slice() {
        let none = PortNames::Ignored;
        let tcp = Protocol::Tcp;
        let http = port("web", tcp, Some("http"));
        check(&http, "", none, "HTTP: appProtocol: http");
        check(&http, "grpc", none, "gRPC: annotation portico.dev/protocol");
        check(
            &http,
            "web=tcp, x=http",
            none,
            "TCP: annotation portico.dev/protocol",
        );
        check(&http, "x=grpc", none, "HTTP: appProtocol: http");
        check(&http, "ftp", none, "HTTP: appProtocol: http");
        let bare = port("web", tcp, None);
        check(&bare, "", none, "TCP: no appProtocol");
        let tls = port("https", tcp, Some("https"));
        check(&tls, "", none, "TCP: appProtocol: https");
        let sliced = port("sliced", tcp, None);
        let of_slice = "HTTP/2: appProtocol of its slice: kubernetes.io/h2c";
        check(&sliced, "", none, of_slice);
        let over = port("sliced", tcp, Some("tcp"));
        check(&over, "", none, "TCP: appProtocol: tcp");
        check(&port("web", Protocol::Udp, Some("http")), "http", none, "-");
    }

    #[test]
    fn application_by_port_name_only_where_names_count() {
        let tcp = Protocol::Tcp;
        let check_name = |name: &str, expected: &str| {
            check(&port(name, tcp, None), "", PortNames::Honoured, expected);
        };
        check_name("http", "HTTP: port name http");
        check_name("http-admin", "HTTP: port name http-admin");
        check_name("http2-x", "HTTP/2: port name http2-x");
        check_name("h2c", "HTTP/2: port name h2c");
        check_name("grpc-api", "gRPC: port name grpc-api");
        check_name("grpc-web", "HTTP: port name grpc-web");
        for name in ["https", "httpx", "grpcs", "web-http", ""] {
            check_name(name, "TCP: no appProtocol");
        }
        let plain = port("http", tcp, None);
        check(&plain, "", PortNames::Ignored, "TCP: no appProtocol");
        let tls = port("http", tcp, Some("https"));
        check(&tls, "", PortNames::Honoured, "TCP: appProtocol: https");
    }

    #[test]
    fn application_has_what_is_of_http_where_it_is_http() {
        let annotations = Labels::from([
            (AFFINITY_COOKIE.into(), "SHOP".into()),
            (HASH_HEADER.into(), "X-User".into()),
            (HTTP_RESPONSE_TIMEOUT.into(), "0".into()),
        ]);
        for (app_protocol, has) in [("http", true), ("tcp", false)] {
            let port = port("web", Protocol::Tcp, Some(app_protocol));
            let app = Application::of(&port, &[], &annotations, PortNames::Ignored);
            assert_eq!(
                (app.cookie.is_some(), app.hash_header.is_some()),
                (has, has)
            );
            assert_eq!(app.response_timeout, has.then_some(Duration::ZERO));
        }
    }

    #[test]
    fn wanted_reads_one_value_or_a_list_by_name() {
        for value in [
            "",
            "HTTP",
            "web",
            "web=",
            "web=http,",
            "a=http,a=tcp",
            "http,tcp",
        ] {
            assert_eq!(Wanted::parse(value), None, "{value:?}");
        }
        let wanted = Wanted::parse("web=http,admin=tcp").unwrap();
        assert_eq!(wanted.names().collect::<Vec<_>>(), ["admin", "web"]);
        assert_eq!(wanted.of("admin"), Some(AppProtocol::Tcp));
        assert_eq!(wanted.of("x"), None);
    }
}
