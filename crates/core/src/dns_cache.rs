//! Names of others: their messages, relayed and kept. Owns what may be kept and for how long, and how a message that
//! was kept becomes the response to another client; must not know sockets: time and chance are arguments.
//!
//! Names of our own zones never come here: the Snapshot answers them.

pub mod message;

#[cfg(test)]
mod tests;
