//! Points in time as the Kubernetes API writes them. Owns only the name: the forms belong to the core's calendar.

pub use portico_core::calendar::{rfc3339, rfc3339_millis};
