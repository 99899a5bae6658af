//! Several managers joined by queues, with disks that finish when told. Everything is decided by a script or a seed.
//!
//! `world` is the harness: it checks the five properties of the Raft paper's figure 3 while it runs, and that nothing is
//! promised before it is durable, by its own account of what each disk has. `rules` are the paper's rules one by one,
//! `guards` the guard rails around raft, `losses` nodes that lack room or entries, `faults` random runs with every fault at once.

#![allow(clippy::unwrap_used)]

mod disk;
mod faults;
mod guards;
mod losses;
#[cfg(feature = "mutants")]
mod mutants;
mod rules;
mod world;
