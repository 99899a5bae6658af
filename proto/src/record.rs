//! What the raft log holds: one record an entry. Small, whatever the size of the image.

use crate::ids::{ClusterId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId, Sequence};
use crate::ring::Member;

/// A log record with the leader's wall clock at the time of proposing. Log time never runs backwards: applying takes the
/// largest seen so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since the Unix epoch by the leader's clock.
    pub time_ms: u64,
    /// What happens.
    pub body: RecordBody,
}

/// The kinds of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// The first record of a cluster: its identity and initial members.
    Genesis {
        /// The minted identity.
        cluster: ClusterId,
        /// All members at the start.
        members: Vec<Member>,
        /// Copies of each image's bytes that make it accepted.
        copies: u8,
        /// Largest image.
        image_bytes_max: u64,
    },
    /// A client gets an inbox; the index of this record is its `InboxId`. A known name keeps its inbox.
    Register {
        /// The client's name.
        name: String,
    },
    /// A sender's session begins; the index of this record is its `SessionId`.
    OpenSession {
        /// Who sends, as told to receivers.
        sender: String,
    },
    /// An image's bytes are durable on `holders`: it is accepted, and deliverable to `receivers`.
    Ready(Ready),
    /// Receivers have these images durably; holders may free them.
    Acked {
        /// Inbox and the last sequence it acknowledges.
        upto: Vec<(InboxId, InboxSeq)>,
    },
    /// A node is passed over by the ring, or counts again; or it begins a new life with a new data directory.
    RingChange {
        /// Which node.
        node: NodeId,
        /// Its life.
        incarnation: Incarnation,
        /// Its cores, which it may have changed while it was down.
        cores: u16,
        /// Whether it counts from now on.
        up: bool,
        /// Where clients reach it now; empty leaves it as it was.
        client_address: String,
        /// Where peers reach it now; empty leaves it as it was.
        peer_address: String,
        /// The nonce of the data directory with which the node begins the life `incarnation`; none if that is its present one.
        rejoin: Option<u128>,
    },
    /// Sessions without a record since `idle_since_ms` of log time end.
    ExpireSessions {
        /// Sessions last used before this moment end.
        idle_since_ms: u64,
    },
    /// Measures the way of a record; applying does nothing.
    Probe {
        /// Any bytes.
        payload: Vec<u8>,
    },
    /// A holder has not the bytes of these images any more, and could not get them from the other holders. An image without
    /// any holder is damaged from then on: receivers get its place without bytes. One record makes at most one image
    /// damaged: the first of those it would.
    Lost(Lost),
}

/// See `RecordBody::Lost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who is no holder from then on.
    pub holder: Holder,
    /// Of the bytes of which `Ready` records.
    pub records: Vec<LogIndex>,
}

/// See `RecordBody::Ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which image.
    pub image: ImageId,
    /// Sequences below this are finished for the sender and will not be retried.
    pub low_water: Sequence,
    /// Length and checksum of the bytes.
    pub fingerprint: Fingerprint,
    /// The file name, for the receiver.
    pub name: String,
    /// The inboxes this record makes the image deliverable to: those of one home.
    pub receivers: Vec<InboxId>,
    /// Who has the bytes.
    pub holders: Vec<Holder>,
}
