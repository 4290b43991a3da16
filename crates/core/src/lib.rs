//! The pure part of portico: from Kubernetes objects to one immutable Snapshot.
//!
//! Owns what Services, endpoints, names and addresses *mean*. Must not do input or output: no clock, randomness,
//! file system, socket or YAML here; `now` and `seed` are arguments. The shells (the program and the data path)
//! feed it and act on what it says.
//!
//! The way through the crate follows the data: [`object`] (typed objects) → [`world`] (merge, allocation,
//! controllers) → [`snapshot`] (the compiled view, frontends, selection, plan) → [`balance`] and [`dns`], which
//! only read the snapshot.

// The tests of the program share a fixture with ours.
#[cfg(test)]
extern crate self as portico_core;

pub mod affinity;
pub mod backoff;
pub mod balance;
pub mod calendar;
pub mod dns;
pub mod dns_cache;
pub mod flow;
pub mod health;
pub mod http;
pub mod object;
pub mod observe;
pub mod probe;
pub mod proxy_protocol;
pub mod snapshot;
pub mod time;
pub mod world;
