//! `portico.dev/readiness-probe` on a Service, an EndpointSlice or Endpoints: endpoints that nobody else watches are
//! probed as a Pod's readiness would be. Owns the value's form and its defaults (Kubernetes API reference, Probe).

use std::{sync::Arc, time::Duration};

use super::{
    EndpointSlice, Probe, ProbeCheck, Protocol, TargetPort, annotations::READINESS_PROBE,
    meta::Labels,
};

/// What a value must look like.
pub const FORMS: &str = "must be tcp, tcp:PORT, http:/PATH or http:PORT/PATH";

/// A readable value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointProbe {
    /// The port to ask; `None` means every TCP port of the slice.
    pub port: Option<u16>,
    /// The path to get; `None` means that a connection is success.
    pub path: Option<Arc<str>>,
}

impl EndpointProbe {
    /// Reads a value; `None` when it has none of [`FORMS`].
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = match value.split_once(':') {
            Some((scheme, rest)) => (scheme, Some(rest)),
            None => (value, None),
        };
        match (scheme, rest) {
            ("tcp", None) => Some(Self {
                port: None,
                path: None,
            }),
            ("tcp", Some(port)) => Some(Self {
                port: Some(port_number(port)?),
                path: None,
            }),
            ("http", Some(rest)) => {
                let (port, path) = rest.split_at(rest.find('/')?);
                let is_printable = path.bytes().all(|byte| byte.is_ascii_graphic());
                let port = match port {
                    "" => None,
                    port => Some(port_number(port)?),
                };
                is_printable.then(|| Self {
                    port,
                    path: Some(path.into()),
                })
            }
            _ => None,
        }
    }

    /// What these annotations ask for, if they do so readably.
    pub fn of(annotations: &Labels) -> Option<Self> {
        Self::parse(annotations.get(READINESS_PROBE)?)
    }

    /// The ports to ask at each address of `slice`.
    pub fn ports(&self, slice: &EndpointSlice) -> Vec<u16> {
        if let Some(port) = self.port {
            return vec![port];
        }
        let tcp = slice
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Tcp);
        tcp.filter_map(|port| port.port).collect()
    }

    /// The probe of one port, with Kubernetes' defaults.
    pub fn probe(&self, port: u16) -> Probe {
        let port = TargetPort::Number(port);
        let check = match &self.path {
            None => ProbeCheck::TcpSocket { port, host: None },
            Some(path) => ProbeCheck::HttpGet {
                path: Arc::clone(path),
                port,
                host: None,
                https: false,
                headers: Vec::new(),
            },
        };
        Probe {
            check,
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold: 1,
            failure_threshold: 3,
            termination_grace: None,
        }
    }
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_the_documented_forms_and_nothing_else() {
        let probe = |port, path: Option<&str>| {
            Some(EndpointProbe {
                port,
                path: path.map(Arc::from),
            })
        };
        let cases = [
            ("tcp", probe(None, None)),
            ("tcp:5432", probe(Some(5432), None)),
            ("http:/", probe(None, Some("/"))),
            ("http:/healthz?full=1", probe(None, Some("/healthz?full=1"))),
            ("http:8081/ready", probe(Some(8081), Some("/ready"))),
            ("", None),
            ("TCP", None),
            ("tcp:", None),
            ("tcp:0", None),
            ("tcp:65536", None),
            ("http", None),
            ("http:", None),
            ("http:8081", None),
            ("http:x/ready", None),
            ("http:/a b", None),
            ("https:/ready", None),
            ("exec:true", None),
        ];
        for (value, expected) in cases {
            assert_eq!(EndpointProbe::parse(value), expected, "{value:?}");
        }
    }
}
