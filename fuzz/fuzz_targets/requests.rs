//! Bytes of a client in HTTP/1: see `checks::requests`.

#![no_main]
#![allow(dead_code, reason = "a target uses one of the checks")]

#[path = "../checks/all.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::requests::check(bytes));
