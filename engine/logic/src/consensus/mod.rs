//! Consensus: the crate `raft` and everything around it that is decision, not I/O.
//!
//! - `manager`: `RaftManager`, leader election and log replication in the order that the disk demands;
//! - `role`: what a follower, candidate and leader do with a request for the leader (State pattern);
//! - `durability`: which message waits for which write;
//! - `validate`: the gate before raft, which panics on impossible input;
//! - `outgoing`: raft's messages on their way out;
//! - `notices`: which of them can wait, because they only say how far is committed;
//! - `convert`: raft's messages and those of our wire;
//! - `settings`: raft's configuration with reasons; `random`: election timeouts; `report`: raft's log lines;
//! - `standing`: how things stand, for whoever asks.

mod convert;
mod durability;
mod healing;
mod manager;
mod notices;
mod outgoing;
mod random;
mod report;
mod role;
mod settings;
mod standing;
mod validate;

pub use manager::{Committed, ProposeError, Proposed, RaftManager, TICKET_SPACE};
pub use notices::Audience;
pub use role::{
    Candidate, Desk, Follower, HOLD_US, Held, Leader, REQUEST_HOPS, REQUESTS_HELD_MAX, Request, Role, RoleKind,
    may_become,
};
pub use settings::{
    APPEND_BYTES_MAX, APPENDS_INFLIGHT_MAX, COMMITTED_BYTES_MAX, COMMITTED_ENTRIES_MAX, ManagerConfig,
    UNCOMMITTED_BYTES_MAX,
};
pub use standing::{Dropped, Standing};
