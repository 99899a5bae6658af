//! A deterministic world for the logic: nodes, their disks, links and clients in one thread, driven by one seed.
//!
//! It drives exactly `logic::shard::Shard`: what a shard asks for is carried out on sectors and queues of its own, after
//! delays drawn from the seed. Same seed, same run.

pub mod disk;
pub mod random;
pub mod scenario;
pub mod setup;
pub mod user;
pub mod world;
