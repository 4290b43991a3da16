//! Histories of objects, observations and time: see `checks::world`.

#![no_main]
#![allow(dead_code, reason = "a target uses one of the checks")]

#[path = "../checks/all.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::world::check(bytes));
