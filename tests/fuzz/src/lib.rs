//! Fuzzing of everything that reads bytes it did not write a moment ago: one module and one program for each target.
//!
//! Each target has `check`, which runs one input and panics if a property does not hold, and `seeds`, inputs that reach
//! deep from the start. libFuzzer changes inputs and keeps those that reach new code; `tests/fuzz/run` runs all targets.

pub mod frame;
pub mod identity;
pub mod log;
pub mod memory;
pub mod raft;
pub mod record;
pub mod script;
pub mod sector;
pub mod seeds;
pub mod snapshot;
pub mod store;
pub mod vote;

/// The program of a target.
#[macro_export]
macro_rules! target {
    ($module:ident) => {
        libfuzzer_sys::fuzz_target!(init: $crate::seeds::write_if_asked($crate::$module::seeds), |data: &[u8]| {
            $crate::$module::check(data)
        });
    };
}
