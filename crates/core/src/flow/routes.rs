//! What a Snapshot says about flows. Owns the questions that a flow table asks and their answers from a Snapshot; must
//! not keep anything.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::FlowKey;
use crate::{
    balance::{Endpoint, PortState},
    object::Protocol,
    snapshot::{
        ClientPlace, Frontend, FrontendKind, Generation, PortView, Scope, Snapshot, Verdict,
        service_path,
    },
    time::Timestamp,
};

/// The questions of a flow table. All answers of one value are of one [`Generation`].
pub trait Routes {
    /// While it is the same, the answers are.
    fn generation(&self) -> Generation;
    /// The Service port behind the address that was asked; `None` if that is no Frontend.
    fn port(&self, key: &FlowKey) -> Option<Arc<PortState>>;
    /// Whether the endpoint may go on with the flows that it has: it is ready, or serves while it terminates.
    fn serves(&self, key: &FlowKey, endpoint: SocketAddr) -> bool;
    /// The endpoint of the next ticket, other than those in `tried`; `None` if there is none or policy forbids all.
    fn pick(&self, key: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Option<Picked>;
}

/// The endpoint of a ticket.
#[derive(Debug, Clone)]
pub struct Picked {
    /// Which one.
    pub endpoint: Endpoint,
    /// It is one of our own frontends: sending there would go round in circles.
    pub leads_back: bool,
}

/// The answers of a Snapshot for the flows of one socket.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotRoutes<'a> {
    /// The newest one.
    pub snapshot: &'a Snapshot,
    /// Where the socket lives.
    pub scope: Scope,
    /// The port that it was declared for.
    pub declared_port: u16,
}

impl SnapshotRoutes<'_> {
    fn frontend(&self, key: &FlowKey) -> Option<&Frontend> {
        self.snapshot
            .frontend(self.scope, key.local, self.declared_port, Protocol::Udp)
    }

    /// A node port is declared for every host address, and which those are is not known here: one counts only where
    /// this host is sure to answer.
    fn leads_back(&self, key: &FlowKey, endpoint: SocketAddr) -> bool {
        let found = self
            .snapshot
            .frontend(self.scope, endpoint, endpoint.port(), Protocol::Udp);
        match found {
            Some(frontend) if frontend.kind == FrontendKind::NodePort => {
                endpoint.ip().is_loopback() || endpoint.ip() == key.local.ip()
            }
            found => found.is_some(),
        }
    }
}

impl Routes for SnapshotRoutes<'_> {
    fn generation(&self) -> Generation {
        self.snapshot.generation
    }

    fn port(&self, key: &FlowKey) -> Option<Arc<PortState>> {
        self.frontend(key)
            .map(|frontend| Arc::clone(&frontend.port.state))
    }

    fn serves(&self, key: &FlowKey, endpoint: SocketAddr) -> bool {
        self.frontend(key)
            .is_some_and(|frontend| serves(self.snapshot, &frontend.port, endpoint))
    }

    fn pick(&self, key: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Option<Picked> {
        let frontend = self.frontend(key)?;
        match frontend.port.verdict(frontend.kind, place(key)) {
            Verdict::Forward(set) => {
                let client = key.client.ip().to_canonical();
                let endpoint = set.pick_for(Some(client), tried, now)?;
                Some(Picked {
                    endpoint: endpoint.clone(),
                    leads_back: self.leads_back(key, endpoint.addr),
                })
            }
            Verdict::Refuse | Verdict::Drop => None,
        }
    }
}

/// A source that is loopback or the very address asked is this host's own.
fn place(key: &FlowKey) -> ClientPlace {
    let client: IpAddr = key.client.ip().to_canonical();
    if client.is_loopback() || client == key.local.ip().to_canonical() {
        ClientPlace::OnNode
    } else {
        ClientPlace::Elsewhere
    }
}

/// Whether an endpoint of a Service port is ready or serving, chosen for new flows or not (Kubernetes' proxy, too,
/// forgets flows only of endpoints that do not serve).
fn serves(snapshot: &Snapshot, port: &PortView, endpoint: SocketAddr) -> bool {
    let sets = [&port.cluster, &port.local].into_iter().flatten();
    if sets
        .flat_map(|set| set.endpoints())
        .any(|of| of.addr == endpoint)
    {
        return true;
    }
    let path = service_path(&port.name.namespace, &port.name.service);
    let Some(service) = snapshot.service(&path) else {
        return false;
    };
    let listed = service.slices.iter().filter(|slice| {
        slice.ports.iter().any(|of| {
            of.name == port.name.port
                && of.protocol == port.name.protocol
                && of.port == Some(endpoint.port())
        })
    });
    listed.flat_map(|slice| &slice.endpoints).any(|of| {
        of.address == Some(endpoint.ip()) && (of.conditions.ready || of.conditions.serving)
    })
}
