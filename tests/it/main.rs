//! The program as its users have it: the real binary, real sockets, real clients. One binary for all integration
//! tests, since each would link the whole program.
//!
//! Tests that need fixed addresses (VIPs, node ports, port 53) run in a user and network namespace of their own, made
//! by `support::namespace`; where the kernel or a container forbids that they say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test that cannot go on fails"
)]

mod addresses;
mod affinity;
mod balance;
mod bench;
mod cli;
mod completion;
mod config;
mod conformance;
mod containers;
mod corpus;
mod demo;
mod dns_install;
mod doctor;
mod dual_stack;
mod explain;
mod first_minute;
mod first_page;
mod handover;
mod http;
mod http_failures;
mod kubectl;
mod kubectl_get;
mod limits;
mod local_routes;
mod manual;
mod metrics;
mod names;
mod pods;
mod privilege;
mod probes;
mod proxy;
mod proxy_protocol;
mod reliability;
mod reload;
mod rollouts;
mod run;
mod scale;
mod service_manager;
mod service_rules;
mod source_address;
mod stat;
mod support;
mod transcripts;
mod tutorials;
mod udp;
