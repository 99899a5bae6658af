//! How consensus stands at this node, for whoever asks.

use proto::ids::{LogIndex, NodeId, Term};

use crate::consensus::role::RoleKind;

/// How things stand at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its role.
    pub role: RoleKind,
    /// Its term; perhaps not yet durable.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Last entry of its log; perhaps not yet durable.
    pub last: LogIndex,
    /// Last entry that it knows to be committed.
    pub committed: LogIndex,
    /// Last entry that was applied (`RaftManager::set_applied`).
    pub applied: LogIndex,
    /// Whether it leads and has applied an entry of its own term, and so everything committed before (Raft paper,
    /// section 8). Only then it judges requests.
    pub serving: bool,
    /// Whether its log lost entries and does not have everything again: it follows, and neither votes nor campaigns.
    pub healing: bool,
    /// Whether its log went bad on its disk while it runs, and no snapshot stands for that yet: another node is to lead.
    pub rotten: bool,
}

/// Messages of peers that were not stepped, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Came by a link that a newer one has replaced, or answer a campaign that is over.
    pub stale: u64,
    /// Broke a rule (`Invalid`), as no correct peer does.
    pub invalid: u64,
    /// The disk is too far behind.
    pub overloaded: u64,
}
