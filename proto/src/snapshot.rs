//! What a snapshot of the replicated state holds, in pieces. How pieces lie in a file: `logic::snapshot::layout`.
//!
//! ```text
//! head; inboxes by id; sessions by id; images that sessions remember, by id; undelivered images by record
//! ```
//! A piece has some of one or several of these lists. What waits in an inbox is not listed again: it is every undelivered
//! image for that inbox with a record above `acked_record`, in order.

use std::sync::Arc;

use crate::ids::{ClusterId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, LogIndex, NodeId, Sequence, SessionId};
use crate::ring::Ring;

/// Items of all lists of one piece.
pub const PIECE_ITEMS_MAX: usize = 256;

/// A part of a snapshot. The pieces of one follow each other; the first has the head, and no other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// What there is once.
    pub head: Option<Head>,
    /// Receivers, ascending.
    pub inboxes: Vec<InboxItem>,
    /// Open sessions, ascending.
    pub sessions: Vec<SessionItem>,
    /// Images that a session remembers, ascending.
    pub images: Vec<ImageItem>,
    /// Images that not everybody acknowledged, ascending by record.
    pub undelivered: Vec<UndeliveredItem>,
}

/// See `Piece::head`.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Whose state.
    pub cluster: ClusterId,
    /// Copies that make an image accepted.
    pub copies: u8,
    /// Largest image.
    pub image_bytes_max: u64,
    /// Log time.
    pub log_time_ms: u64,
    /// Members and who is up.
    pub ring: Ring,
    /// With which data directory a node was last taken in again, by its nonce. Ascending by node.
    pub rejoined: Vec<(NodeId, u128)>,
}

/// A client and its inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxItem {
    /// Which.
    pub inbox: InboxId,
    /// The client's name.
    pub name: Arc<str>,
    /// The last sequence it acknowledged.
    pub acked: InboxSeq,
    /// The record of that; 0 if none.
    pub acked_record: LogIndex,
}

/// A sender's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionItem {
    /// Which.
    pub session: SessionId,
    /// Who sends.
    pub sender: Arc<str>,
    /// Sequences below this are finished.
    pub low_water: Sequence,
    /// Log time of its last record.
    pub used_ms: u64,
}

/// An image that a session remembers, so that a retry is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageItem {
    /// Which.
    pub image: ImageId,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// For whom it is ready by which record.
    pub ready: Vec<(InboxId, LogIndex)>,
}

/// An image that somebody has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndeliveredItem {
    /// The record that made it ready.
    pub index: LogIndex,
    /// Which image.
    pub image: ImageId,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// Who sent it.
    pub sender: Arc<str>,
    /// The file name.
    pub name: Arc<str>,
    /// For whom that record made it ready, whether they acknowledged or not.
    pub receivers: Vec<InboxId>,
    /// Who has the bytes.
    pub holders: Vec<Holder>,
}
