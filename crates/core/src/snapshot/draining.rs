//! Whether an established connection would still be made as it is. Owns the comparison with a Snapshot; what becomes of
//! connections that would not is the data path's.

use std::net::SocketAddr;

use super::{Frontend, PortView, Scope, ServicePortName, Snapshot, service_path};
use crate::object::Protocol;

/// How an established connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its endpoint is there, ready or not.
    Kept,
    /// Its endpoint is being shut down, and lets its connections finish.
    Terminating,
    /// Its endpoint is none of the Service port's any more.
    EndpointGone,
    /// What its client asked for is none of the Service port's any more.
    ServiceGone,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Where its listener lives.
    pub scope: Scope,
    /// Its own address on our side.
    pub local: SocketAddr,
    /// The port its listener was declared for.
    pub declared_port: u16,
}

impl Snapshot {
    /// The Frontend that a TCP connection asked for.
    pub fn asked(&self, asked: &Asked) -> Option<&Frontend> {
        self.frontend(asked.scope, asked.local, asked.declared_port, Protocol::Tcp)
    }

    /// How a TCP connection of the Service port `name` with `endpoint` stands.
    pub fn standing(
        &self,
        asked: &Asked,
        name: &ServicePortName,
        endpoint: SocketAddr,
    ) -> Standing {
        let frontend = self.asked(asked);
        let Some(port) = frontend
            .map(|frontend| &frontend.port)
            .filter(|port| *port.name == *name)
        else {
            return Standing::ServiceGone;
        };
        if let Some(is_terminating) = self.written(name, endpoint) {
            return if is_terminating {
                Standing::Terminating
            } else {
                Standing::Kept
            };
        }
        if is_chosen(port, endpoint) {
            Standing::Kept
        } else {
            Standing::EndpointGone
        }
    }

    /// Whether `endpoint` is terminating in every slice that has it; `None` if no slice has it.
    fn written(&self, name: &ServicePortName, endpoint: SocketAddr) -> Option<bool> {
        let service = self.service(&service_path(&name.namespace, &name.service))?;
        let slices = service.slices.iter().filter(|slice| {
            !slice.is_for_another_proxy
                && slice.ports.iter().any(|port| {
                    port.name == name.port
                        && port.protocol == name.protocol
                        && port.port == Some(endpoint.port())
                })
        });
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        endpoints
            .filter(|found| found.address == Some(endpoint.ip()))
            .map(|found| found.conditions.terminating)
            .reduce(|one, other| one && other)
    }
}

fn is_chosen(port: &PortView, endpoint: SocketAddr) -> bool {
    let sets = [&port.cluster, &port.local].into_iter().flatten();
    sets.flat_map(|set| set.endpoints())
        .any(|found| found.addr == endpoint)
}
