//! Control: from reports and observations to what runs. Owns the loop that steps the world, compiles, plans,
//! publishes and tells the parts what to do; declares what it needs of them as traits. Must not know how sockets,
//! pods or files are made.

pub mod command;
pub mod holder;
pub mod reconcile;
mod routes;
pub mod status;
pub mod way;

pub use reconcile::{ListenerHost, PodRunner, ProbeHost, Reconciler};
pub use routes::RouteHost;

#[cfg(test)]
mod tests;
