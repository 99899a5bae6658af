//! See `fuzz::raft`.

#![no_main]

fuzz::target!(raft);
