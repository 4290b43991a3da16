//! What clients on other machines are told. Owns which addresses lead them to a Service and at which ports: a loopback
//! address in an answer would mean their own machine (RFC 1122 section 3.2.1.3).

use std::net::IpAddr;

use crate::{
    object::{ServicePort, service::IpFamily},
    snapshot::{ClientPlace, Cluster, FrontendKind, ServiceView},
};

/// Who asks, as far as answers depend on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker<'a> {
    /// A process of this host.
    Here,
    /// A client that has loopback addresses of its own; containers behind a bridge are such, too.
    Elsewhere {
        /// `--advertise`: where node ports are reached from there.
        advertised: &'a [IpAddr],
    },
}

/// The addresses that a Service's own name leads to, and the ports that they have.
#[derive(Debug)]
pub(super) struct Way {
    /// Each once.
    pub(super) addresses: Vec<IpAddr>,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
enum Ports {
    OfService,
    OfNode,
}

impl<'a> Asker<'a> {
    /// A client at `place`.
    pub(super) fn at(place: ClientPlace, cluster: &'a Cluster) -> Self {
        match place {
            ClientPlace::OnNode => Self::Here,
            ClientPlace::Elsewhere => Self::Elsewhere {
                advertised: &cluster.dns.advertised,
            },
        }
    }

    /// Whether `addr` is the same host for it as for us.
    pub(super) fn may_have(self, addr: IpAddr) -> bool {
        matches!(self, Self::Here) || !addr.is_loopback()
    }

    /// The way to a Service with cluster IPs. Where one of these is a loopback address, clients elsewhere get external
    /// and load-balancer addresses, which have the Service's own ports; else what is advertised for its node ports;
    /// else what is left.
    pub(super) fn way_to(self, service: &ServiceView) -> Way {
        let own = &service.cluster_ips;
        let of_service = |addresses| Way {
            addresses,
            ports: Ports::OfService,
        };
        let Self::Elsewhere { advertised } = self else {
            return of_service(own.clone());
        };
        if !own.iter().any(IpAddr::is_loopback) {
            return of_service(own.clone());
        }
        let external = external_addresses(service);
        if !external.is_empty() {
            return of_service(external);
        }
        let has_node_port = |addr: &IpAddr| {
            let mut ports = service.ports.iter();
            ports.any(|port| port.family == IpFamily::of(*addr) && port.node_port.is_some())
        };
        let advertised: Vec<_> = advertised.iter().copied().filter(has_node_port).collect();
        if advertised.is_empty() {
            let left = own.iter().copied().filter(|addr| self.may_have(*addr));
            return of_service(left.collect());
        }
        Way {
            addresses: advertised,
            ports: Ports::OfNode,
        }
    }
}

impl Way {
    /// The number that `port` of `service` has there.
    pub(super) fn port(&self, service: &ServiceView, port: &ServicePort) -> Option<u16> {
        match self.ports {
            Ports::OfService => Some(port.port),
            Ports::OfNode => {
                let mut views = service.ports.iter();
                views.find_map(|view| {
                    let is_same =
                        view.name.port == port.name && view.name.protocol == port.protocol;
                    view.node_port.filter(|_| is_same)
                })
            }
        }
    }
}

fn external_addresses(service: &ServiceView) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (key, kind, _) in &service.frontends {
        let is_external = matches!(kind, FrontendKind::ExternalIP | FrontendKind::LoadBalancer);
        if is_external && !key.addr.is_loopback() && !addresses.contains(&key.addr) {
            addresses.push(key.addr);
        }
    }
    addresses
}

/// What the name of `service` leads clients elsewhere to.
pub fn told_elsewhere(service: &ServiceView, cluster: &Cluster) -> Elsewhere {
    let asker = Asker::at(ClientPlace::Elsewhere, cluster);
    Elsewhere {
        addresses: super::tree::addresses(service, asker),
        are_node_ports: matches!(asker.way_to(service).ports, Ports::OfNode),
    }
}

/// What a client elsewhere is told of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The addresses of its own name; none where all would be the client's own machine, or there are none at all.
    pub addresses: Vec<IpAddr>,
    /// Whether they are advertised for node ports, which SRV records carry; else the ports are the Service's.
    pub are_node_ports: bool,
}
