//! The checks, by what they are about. Each is a function of the facts alone: no file, socket or clock.

pub(super) mod limits;
pub(super) mod names;
pub(super) mod ports;
pub(super) mod program;
pub(super) mod reach;
pub(super) mod run;
