//! The load generator behind `portico bench`.
pub mod target;
pub mod exchange;
pub mod sample;
pub mod drive;
mod pace;
