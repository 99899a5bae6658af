//! Tests with real node processes: what must be true of the product, tried from outside.
//!
//! `HELIO_FULL=1` makes the long forms run (50 pauses a node, 200 MiB). Every wait has a bound; ports are found free at an
//! address of the cluster's own; nodes end with their test, whatever happens to it.

#![allow(clippy::unwrap_used)]

mod basics;
mod crashes;
mod crowd;
mod errors;
mod fulldisk;
mod garbage;
mod healing;
mod inspector;
mod majority;
mod pauses;
mod rejoin;
mod repair;
mod retries;
mod setup;
mod snapshots;
mod storage;
