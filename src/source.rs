//! The Sources: producers of objects, each of which reports its complete current view. Owns nothing itself. A Source
//! must not know the world that is made of its report.

pub mod file;
pub mod manifest;
pub mod once;
pub mod overrides;
pub mod render;
pub mod sample;
pub mod walk;
pub mod yaml;
