//! Reading the data path's numbers from any thread. Owns a handle that outlives the data path; changes nothing.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    draining::{self, Connection},
    plane::Counters,
    worker::Shared,
};

/// A view of what the data path counts beside Service ports and endpoints.
#[derive(Debug, Clone)]
pub struct Observer(Arc<Shared>);

impl Observer {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }

    /// Sums since the start.
    pub fn counters(&self) -> Counters {
        Counters::of(&self.0)
    }

    /// Connections in progress of each worker.
    pub fn worker_loads(&self) -> Vec<usize> {
        self.0.loads()
    }

    /// All live TCP connections, the oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        draining::connections(&self.0)
    }

    /// UDP flows in progress.
    pub fn flows(&self) -> usize {
        self.0.flows.load(Relaxed)
    }

    /// Most connections at a time, as the descriptors stand.
    pub fn connection_limit(&self) -> usize {
        self.0.limit()
    }
}
