//! The program portico as a library: Sources, control, instance, DNS, simulation and command line around the pure
//! core and the data path. To be read from `app`, which wires them, outwards.

pub mod admin;
pub mod app;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod control;
pub mod dns;
pub mod doctor;
mod durable;
pub mod explain;
pub mod handover;
pub mod health;
pub mod host;
pub mod instance;
pub mod notify;
pub mod objects;
pub mod privilege;
pub mod proxy;
pub mod resolver;
pub mod run;
pub mod runs;
pub mod settings;
pub mod simulate;
pub mod source;
pub mod telemetry;
mod words;
