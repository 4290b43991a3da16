//! Simulated pods as processes see them: sockets that answer with a pod's name. They run in a child process of the
//! same binary, so that what they cost is not counted as ours.
//!
//! Owns the child ([`child`]) and its keeper ([`host`]), which speak [`protocol`] as lines of JSON. Must not decide
//! which pods there are: that is the world's.

pub mod child;
pub mod host;
mod pod;
pub mod protocol;
#[cfg(test)]
mod tests;
