//! A deterministic simulation of whole clusters: the real logic and the real client sessions, everything else made up.
//!
//! One thread and one seed a run. `world` has time, events and what logic asks for; `node` the processes and `disk` their
//! disks; `network` what is between them; `user` senders and receivers; `faults` what goes wrong; `checks` what must hold
//! after every step; `scenario` a whole run; `shrink` makes a failing run small; `mutants` are wrong decisions that must
//! be caught.

mod book;
mod checks;
mod clock;
mod disk;
pub mod faults;
pub mod mutants;
mod network;
mod node;
mod power;
mod questions;
mod random;
mod rejoin;
mod repairs;
mod rot;
pub mod scenario;
mod setup;
pub mod shrink;
mod snapshots;
mod trace;
mod user;
pub mod world;
