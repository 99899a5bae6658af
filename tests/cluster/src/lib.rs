//! A cluster of real node processes on loopback, and the check that every image arrives exactly once, intact, in order.
//!
//! The process tests, `helio demo` and `bench` all start their nodes through this crate, each with its own executable:
//! whatever one of them shows, the same code path showed it. Nothing here waits by sleeping in hope: readiness is asked
//! of the nodes, and every wait has a bound.
//!
//! The process faults (`tests/cluster/faults`) put each node into a network of its own, and on a drive that can lose its
//! power: `network` and `drive`.

pub mod address;
pub mod drive;
pub mod ledger;
pub mod network;
pub mod nodes;
pub mod process;
pub mod random;

pub use ledger::{Ledger, Received, receive};
pub use nodes::{Cluster, Setup};
pub use process::Process;

/// What went wrong, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// `context: error`, to be used with `map_err`.
pub fn problem<E: std::fmt::Display>(context: impl std::fmt::Display) -> impl FnOnce(E) -> Problem {
    move |error| Problem(format!("{context}: {error}"))
}
