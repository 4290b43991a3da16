//! What other DNS servers say: see `checks::relayed`.

#![no_main]
#![allow(dead_code, reason = "a target uses one of the checks")]

#[path = "../checks/all.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::relayed::check(bytes));
