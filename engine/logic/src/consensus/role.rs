//! The role of a node as a State pattern: what a follower, a candidate and a leader do with a request for the leader.
//!
//! ```text
//!              +------------------ leader of a newer term seen, or quorum lost ------------------+
//!              v                                                                                 |
//!          Follower --- election timeout ---> Candidate --- votes of a majority ---> Leader -----+
//!              ^                                  |
//!              +---- leader or newer term seen ---+
//! ```
//!
//! raft decides which role a node has; this file decides what the role means for requests:
//! - the follower forwards to the leader it knows, and holds while it knows none;
//! - the candidate holds until a leader is known or the deadline has passed;
//! - the leader admits, once it has applied the first entry of its own term: before that its state may lack what an
//!   older leader committed.
//!
//! Invariant: each request given to `on_request` leaves through exactly one call of the `Desk`: forwarded, refused or
//! admitted. A change of the role moves the held requests along, in their order and with their deadlines.

use std::collections::VecDeque;
use std::fmt;

use proto::error::Refusal;
use proto::ids::{Address, NodeId, RequestId};
use proto::peer::LeaderRequest;

use crate::io::Now;

/// How long a request waits for a leader before it is refused. Longer than an election usually takes (the sender would
/// only come back), shorter than a person's patience.
pub const HOLD_US: u64 = 2_000_000;
/// Requests held while no leader is known. They are about 300 bytes each; one of an image with 64 receivers is 8 KiB.
pub const REQUESTS_HELD_MAX: usize = 2048;
/// `PeerMessage::Request::hops` of a new request: from the core of its origin to that node's core 0, from there to the
/// leader it knows, and from there once more if the leader has changed meanwhile.
pub const REQUEST_HOPS: u8 = 2;

/// A request on its way to the leader (`PeerMessage::Request`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who waits for the answer.
    pub origin: Address,
    /// Unique at the origin.
    pub request: RequestId,
    /// How often it may still be passed on to another node.
    pub hops: u8,
    /// What is asked.
    pub body: LeaderRequest,
}

/// Where requests go when the role has decided. Implemented by whoever owns the `RaftManager`.
pub trait Desk {
    /// Send it to core 0 of `to`. Its `hops` are already counted down.
    fn forward(&mut self, to: NodeId, request: Request);
    /// Answer its origin with a refusal.
    fn refuse(&mut self, request: Request, refusal: Refusal, text: &str);
    /// This node is the leader and serves: judge it, propose its record.
    fn admit(&mut self, request: Request);
}

/// The three roles. raft's pre-candidate is a candidate here: it knows no leader and asks for votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoleKind {
    /// Imitates the leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleKind::Follower => "follower",
            RoleKind::Candidate => "candidate",
            RoleKind::Leader => "leader",
        })
    }
}

/// Whether a node may go from one role to another in one step (Raft paper, figure 4).
pub fn may_become(from: RoleKind, to: RoleKind) -> bool {
    matches!(
        (from, to),
        (RoleKind::Follower, RoleKind::Candidate)
            | (RoleKind::Candidate, RoleKind::Leader | RoleKind::Follower)
            | (RoleKind::Leader, RoleKind::Follower)
    )
}

/// What a node does with requests for the leader while it has one role.
pub trait Role: fmt::Debug {
    /// Which role it is.
    fn kind(&self) -> RoleKind;
    /// A request for the leader has come.
    fn on_request(&mut self, now: Now, request: Request, desk: &mut dyn Desk);
    /// A leader is known and serves as far as this node can tell. For the leader itself: it has applied the first
    /// entry of its own term.
    fn on_leader_known(&mut self, leader: NodeId, desk: &mut dyn Desk);
    /// The leader that was known is none any more, and no other is known.
    fn on_leader_lost(&mut self);
    /// Time passes: what waited too long is refused.
    fn on_tick(&mut self, now: Now, desk: &mut dyn Desk);
    /// Ends the role and hands over what it holds.
    fn into_held(self: Box<Self>) -> Held;
}

/// Requests that wait for a leader, oldest first, each with its deadline.
#[derive(Debug, Default)]
pub struct Held {
    // Deadlines ascend: each is the time of arrival plus `HOLD_US`, and time never runs backwards.
    queue: VecDeque<(u64, Request)>,
}

impl Held {
    fn hold(&mut self, now: Now, request: Request, desk: &mut dyn Desk) {
        if self.queue.len() >= REQUESTS_HELD_MAX {
            desk.refuse(request, Refusal::Busy, "too many requests already wait for a leader");
            return;
        }
        self.queue.push_back((now.mono_us.saturating_add(HOLD_US), request));
        assert!(self.queue.len() <= REQUESTS_HELD_MAX);
    }

    fn refuse_due(&mut self, now: Now, desk: &mut dyn Desk) {
        while self.queue.front().is_some_and(|(deadline_us, _)| *deadline_us <= now.mono_us) {
            if let Some((_, request)) = self.queue.pop_front() {
                desk.refuse(request, Refusal::NoLeader, NO_LEADER);
            }
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.queue.drain(..).map(|(_, request)| request)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

const NO_LEADER: &str = "no leader is known: fewer than a majority of the voters can be reached";

/// Passes a request on, if it may still be passed on.
fn pass_on(leader: NodeId, mut request: Request, desk: &mut dyn Desk) {
    if request.hops == 0 {
        // Whoever sent it here took this node for the leader. It asks again when it knows better.
        desk.refuse(request, Refusal::NoLeader, "the leader has just changed; ask again");
        return;
    }
    request.hops -= 1;
    desk.forward(leader, request);
}

/// Forwards to the leader; holds while it knows none.
#[derive(Debug, Default)]
pub struct Follower {
    leader: Option<NodeId>,
    // Empty while a leader is known.
    held: Held,
}

impl Role for Follower {
    fn kind(&self) -> RoleKind {
        RoleKind::Follower
    }

    fn on_request(&mut self, now: Now, request: Request, desk: &mut dyn Desk) {
        match self.leader {
            Some(leader) => pass_on(leader, request, desk),
            None => self.held.hold(now, request, desk),
        }
    }

    fn on_leader_known(&mut self, leader: NodeId, desk: &mut dyn Desk) {
        self.leader = Some(leader);
        for request in self.held.drain() {
            pass_on(leader, request, desk);
        }
    }

    fn on_leader_lost(&mut self) {
        self.leader = None;
    }

    fn on_tick(&mut self, now: Now, desk: &mut dyn Desk) {
        self.held.refuse_due(now, desk);
    }

    fn into_held(self: Box<Self>) -> Held {
        self.held
    }
}

/// Holds everything: either it becomes leader, or another does, or the deadline passes.
#[derive(Debug, Default)]
pub struct Candidate {
    held: Held,
}

impl Role for Candidate {
    fn kind(&self) -> RoleKind {
        RoleKind::Candidate
    }

    fn on_request(&mut self, now: Now, request: Request, desk: &mut dyn Desk) {
        self.held.hold(now, request, desk);
    }

    fn on_leader_known(&mut self, _leader: NodeId, _desk: &mut dyn Desk) {
        unreachable!("a candidate that learns of a leader becomes a follower first");
    }

    fn on_leader_lost(&mut self) {}

    fn on_tick(&mut self, now: Now, desk: &mut dyn Desk) {
        self.held.refuse_due(now, desk);
    }

    fn into_held(self: Box<Self>) -> Held {
        self.held
    }
}

/// Admits; holds until it has applied the first entry of its own term (Raft paper, section 8).
#[derive(Debug, Default)]
pub struct Leader {
    serving: bool,
    // Empty while serving.
    held: Held,
}

impl Role for Leader {
    fn kind(&self) -> RoleKind {
        RoleKind::Leader
    }

    fn on_request(&mut self, now: Now, request: Request, desk: &mut dyn Desk) {
        if self.serving {
            desk.admit(request);
        } else {
            self.held.hold(now, request, desk);
        }
    }

    fn on_leader_known(&mut self, _leader: NodeId, desk: &mut dyn Desk) {
        self.serving = true;
        for request in self.held.drain() {
            desk.admit(request);
        }
    }

    fn on_leader_lost(&mut self) {
        assert!(!self.serving, "a leader that served loses its leadership only by becoming a follower");
    }

    fn on_tick(&mut self, now: Now, desk: &mut dyn Desk) {
        self.held.refuse_due(now, desk);
    }

    fn into_held(self: Box<Self>) -> Held {
        self.held
    }
}

/// Takes `node` from one role to the next; what was held moves along.
pub fn change(node: NodeId, role: Box<dyn Role>, to: RoleKind) -> Box<dyn Role> {
    let from = role.kind();
    assert!(may_become(from, to), "{node} cannot go from {from} to {to}");
    let held = role.into_held();
    tracing::info!(%node, %from, %to, held = held.len(), "role changes");
    match to {
        RoleKind::Follower => Box::new(Follower { leader: None, held }),
        RoleKind::Candidate => Box::new(Candidate { held }),
        RoleKind::Leader => Box::new(Leader { serving: false, held }),
    }
}

#[cfg(test)]
#[path = "role_test.rs"]
mod tests;
