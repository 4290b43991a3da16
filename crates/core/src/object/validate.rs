//! Value rules of the API server, in its words. Owns the checks of one object by itself; what depends on other
//! objects (allocation, claims) belongs to the world.

pub(crate) mod endpoints;
pub(crate) mod leaf;
pub(crate) mod meta;
pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod syntax;
pub(crate) mod workload;
