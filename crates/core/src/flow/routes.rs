//! What a Snapshot says about flows. Owns the questions that a flow table asks and their answers from a Snapshot; must
//! not keep anything.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Dropped, FlowKey};
use crate::{
    affinity::ClientAffinity,
    balance::{Endpoint, EndpointSet, PortState},
    object::{Protocol, SourceAddress},
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
    /// Whether source ranges and traffic policies let the client go on with the flows that it has.
    fn admits(&self, key: &FlowKey) -> bool;
    /// Whether the endpoint may go on with the flows that it has: it is ready, or serves while it terminates, and a
    /// traffic policy does not forbid it.
    fn serves(&self, key: &FlowKey, endpoint: SocketAddr) -> bool;
    /// The endpoint of session affinity or of the next ticket, other than those in `tried`, or why there is none.
    fn pick(&self, key: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Result<Picked, Dropped>;
    /// The endpoint did not take the client: session affinity must not send it there again.
    fn forget(&self, key: &FlowKey, endpoint: SocketAddr);
}

/// Session affinity, which flows share with connections.
pub trait Stickiness: fmt::Debug {
    /// The endpoint that the client went to before, if it is in `set` and may still be used, else the set's choice,
    /// which is the client's from now on. Either way its time starts anew.
    fn pick<'s>(
        &self,
        asker: Asker,
        set: &'s EndpointSet,
        tried: &[SocketAddr],
        now: Timestamp,
    ) -> Option<&'s Endpoint>;
    /// The client is free to go elsewhere than to `endpoint`.
    fn forget(&self, asker: Asker, endpoint: SocketAddr);
}

/// A client, and the affinity of the Service port that it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The rule.
    pub rule: ClientAffinity,
    /// Who.
    pub client: IpAddr,
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
    /// Where clients went before.
    pub affinity: &'a dyn Stickiness,
}

impl SnapshotRoutes<'_> {
    fn frontend(&self, key: &FlowKey) -> Option<&Frontend> {
        self.snapshot
            .frontend(self.scope, key.local, self.declared_port, Protocol::Udp)
    }

    fn place(&self, key: &FlowKey) -> ClientPlace {
        let cluster = &self.snapshot.cluster;
        cluster.place_of(Some(key.client.ip()), key.local.ip())
    }

    fn verdict<'f>(&self, frontend: &'f Frontend, key: &FlowKey) -> Verdict<'f> {
        frontend.port.verdict(frontend.kind, self.place(key))
    }

    /// The Service port of a flow, if its endpoint is to see the client's address.
    pub fn keeping(&self, key: &FlowKey) -> Option<&PortView> {
        let port = &*self.frontend(key)?.port;
        (port.source == SourceAddress::Keep).then_some(port)
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

    fn admits(&self, key: &FlowKey) -> bool {
        self.frontend(key).is_some_and(|frontend| {
            frontend.admits(Some(key.client.ip()))
                && !matches!(self.verdict(frontend, key), Verdict::Drop)
        })
    }

    fn serves(&self, key: &FlowKey, endpoint: SocketAddr) -> bool {
        self.frontend(key).is_some_and(|frontend| {
            let (place, port) = (self.place(key), &frontend.port);
            let is_local = port.is_local(frontend.kind, place);
            serves(self.snapshot, port, endpoint, is_local)
        })
    }

    fn pick(&self, key: &FlowKey, tried: &[SocketAddr], now: Timestamp) -> Result<Picked, Dropped> {
        let frontend = self.frontend(key).ok_or(Dropped::Unmatched)?;
        if !frontend.admits(Some(key.client.ip())) {
            return Err(Dropped::SourceRange);
        }
        let set = match self.verdict(frontend, key) {
            Verdict::Forward(set) => set,
            Verdict::Refuse => return Err(Dropped::NoEndpoint),
            Verdict::Drop => return Err(Dropped::Policy),
        };
        let endpoint = match asker(frontend, key) {
            Some(asker) => self.affinity.pick(asker, set, tried, now),
            None => set
                .pick_for(Some(key.client.ip().to_canonical()), tried, now)
                .ok(),
        }
        .ok_or(Dropped::NoEndpoint)?;
        Ok(Picked {
            endpoint: endpoint.clone(),
            leads_back: self.leads_back(key, endpoint.addr),
        })
    }

    fn forget(&self, key: &FlowKey, endpoint: SocketAddr) {
        if let Some(asker) = self.frontend(key).and_then(|of| asker(of, key)) {
            self.affinity.forget(asker, endpoint);
        }
    }
}

fn asker(frontend: &Frontend, key: &FlowKey) -> Option<Asker> {
    let rule = frontend.port.affinity?;
    let client = key.client.ip().to_canonical();
    Some(Asker { rule, client })
}

/// Whether an endpoint of a Service port is ready or serving, chosen for new flows or not (Kubernetes' proxy, too,
/// forgets flows only of endpoints that do not serve). `is_local`: only this node's count.
fn serves(snapshot: &Snapshot, port: &PortView, endpoint: SocketAddr, is_local: bool) -> bool {
    let sets = [
        port.cluster.as_ref().filter(|_| !is_local),
        port.local.as_ref(),
    ];
    let mut chosen = sets.into_iter().flatten().flat_map(|set| set.endpoints());
    if chosen.any(|of| of.addr == endpoint) {
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
    let is_here = |node: Option<&str>| node.is_none_or(|node| node == &*snapshot.cluster.node_name);
    listed.flat_map(|slice| &slice.endpoints).any(|of| {
        of.address == Some(endpoint.ip())
            && (of.conditions.ready || of.conditions.serving)
            && (!is_local || is_here(of.node_name.as_deref()))
    })
}
