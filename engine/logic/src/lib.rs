//! Every decision of Heliograph, one file per stage of the walk of an image. No clock, file, socket, thread or async.

mod admission;
pub mod bootstrap;
mod clients;
pub mod consensus;
mod context;
mod delivery;
mod group;
mod home;
pub mod identity;
mod ingest;
pub mod io;
pub mod limits;
pub mod log;
pub mod mending;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
pub mod outlook;
mod requests;
pub mod shard;
pub mod snapshot;
mod stages;
pub mod state;
pub mod store;
mod subscriptions;
pub mod view;
pub mod vote;
