//! The protocol between a client and a node.
//!
//! A connection begins with `Hello` and is answered by `Welcome` or `Failure`. Then requests and replies pass freely;
//! a request that has an answer names it by `RequestId`, image id or inbox. Chunk bytes travel as the body of
//! `ClientRequest::Chunk` and `ClientReply::Chunk` frames, under credit counted in body bytes:
//! the node says in `Welcome` and `Credit` how many body bytes in all it has permitted since the connection began, the
//! receiver says the same in `OpenInbox` and `InboxCredit`.
//!
//! ```text
//! sender                        node (ingest)                       receiver            node (home)
//! Hello ----------------------> Welcome                             Hello ------------> Welcome
//! OpenSession ----------------> SessionOpened (a log record)        OpenInbox --------> InboxOpened | Failure NotHome+ring
//! Begin, Chunk* --------------> BeginAnswer (resume point)                              Head, Chunk* (pushed)
//!                               Progress* (durable upto)            InboxCredit ------>
//!                               Accepted | Refused                  Ack upto ---------> Acked upto (committed)
//! ```

use crate::error::Refusal;
use crate::ids::{
    ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId, RequestId,
    Sequence, SessionId, Term,
};
use crate::ring::Ring;

/// Where a connection wants to be served. The listener hands it to that core before anything else is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any core will do.
    Any,
    /// This core.
    Core(CoreId),
    /// The core that owns this client on the node.
    Client(String),
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// First message of every connection.
    Hello {
        /// Oldest version the client speaks.
        version_min: u16,
        /// Newest version the client speaks.
        version_max: u16,
        /// The cluster it expects, or `ClusterId::UNKNOWN` to take any.
        cluster: ClusterId,
        /// Where it wants to be served.
        target: Target,
        /// Room for authentication; empty today.
        credentials: Vec<u8>,
    },
    /// Gives `name` an inbox. Asking again for a known name answers with its inbox.
    Register {
        /// Comes back in the answer.
        request: RequestId,
        /// The client's name.
        name: String,
    },
    /// Opens a session for sending.
    OpenSession {
        /// Comes back in the answer.
        request: RequestId,
        /// Who sends, as told to receivers.
        sender: String,
    },
    /// Announces an image; the answer says from where to send. Also resumes, and asks after, an image begun before.
    Begin(Begin),
    /// A piece of image bytes; the body of the frame.
    Chunk(ChunkHead),
    /// Binds the connection to the inbox of `name` and starts deliveries.
    OpenInbox {
        /// The receiver.
        name: String,
        /// Body bytes the client permits to be sent on this connection, in all.
        credit: u64,
        /// An image that an earlier connection delivered in part: send its bytes from `resume_from` on when its turn comes.
        /// `InboxSeq(0)` for none.
        resume_seq: InboxSeq,
        /// First byte that the client does not have of it; a multiple of `CHUNK_BYTES_MAX`.
        resume_from: u64,
    },
    /// Raises the permitted total.
    InboxCredit {
        /// Body bytes permitted since the connection began.
        credit: u64,
    },
    /// Everything up to `upto` is durable at the receiver.
    Ack {
        /// Which inbox.
        inbox: InboxId,
        /// Inclusive.
        upto: InboxSeq,
    },
    /// Commits a record that does nothing, to measure the way.
    Probe {
        /// Comes back in the answer.
        request: RequestId,
        /// At most `PROBE_BYTES_MAX`.
        payload: Vec<u8>,
    },
    /// Asks a node how it is.
    Status {
        /// Comes back in the answer.
        request: RequestId,
    },
    /// Answered by `Pong`: keeps a quiet connection known to be alive.
    Ping,
}

/// See `ClientRequest::Begin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The cluster in which the session was opened.
    pub cluster: ClusterId,
    /// Which image. A retry says the same again: an id stands for one content. Of different ones under one id at most one is
    /// ever accepted; if as many nodes have the one as have the other it may stay undecided until the session ends.
    pub image: ImageId,
    /// Sequences below this are finished for the sender and will not be retried.
    pub low_water: Sequence,
    /// Names, 1 to `RECEIVERS_MAX`, none twice.
    pub receivers: Vec<String>,
    /// Length in bytes and checksum of the whole image.
    pub fingerprint: Fingerprint,
    /// File name for the receiver, at most `FILE_NAME_BYTES_MAX` bytes; a hint, never a path.
    pub name: String,
}

/// What accompanies a chunk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// Which image.
    pub image: ImageId,
    /// Of the first byte; a multiple of `CHUNK_BYTES_MAX`.
    pub offset: u64,
    /// CRC-32 of the body.
    pub crc32: u32,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientReply {
    /// The handshake succeeded.
    Welcome {
        /// The version both speak.
        version: u16,
        /// The node's cluster.
        cluster: ClusterId,
        /// Which node this is.
        node: NodeId,
        /// Which core serves the connection.
        core: CoreId,
        /// All members, with their addresses.
        ring: Ring,
        /// Largest image taken.
        image_bytes_max: u64,
        /// Body bytes permitted since the connection began.
        credit: u64,
    },
    /// Answers `Register`.
    Registered {
        /// From the request.
        request: RequestId,
        /// The client's inbox.
        inbox: InboxId,
    },
    /// Answers `OpenSession`.
    SessionOpened {
        /// From the request.
        request: RequestId,
        /// The new session.
        session: SessionId,
    },
    /// Answers `Begin`: send from here.
    BeginAnswer {
        /// Which image.
        image: ImageId,
        /// First byte to send; equals the length if nothing is missing.
        resume_from: u64,
    },
    /// The bytes below `durable_upto` need not be sent again to this node's cluster.
    Progress {
        /// Which image.
        image: ImageId,
        /// Exclusive end of the durable prefix.
        durable_end: u64,
    },
    /// The image is accepted (promise P1) for all its receivers.
    Accepted {
        /// Which image.
        image: ImageId,
        /// The log record that made it so; the last one if there were several homes.
        index: LogIndex,
        /// Who has the bytes, over all homes.
        holders: Vec<Holder>,
    },
    /// The image was not accepted.
    Refused {
        /// Which image.
        image: ImageId,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// Body bytes permitted since the connection began.
    Credit {
        /// Never falls.
        credit: u64,
    },
    /// Answers `OpenInbox`. Deliveries follow from `acked_upto + 1`.
    InboxOpened {
        /// The inbox.
        inbox: InboxId,
        /// Committed acknowledgements so far.
        acked_upto: InboxSeq,
    },
    /// An image begins; its chunks follow in order.
    Head(ImageHead),
    /// A piece of the image last announced by `Head`; the body of the frame.
    Chunk {
        /// The inbox.
        inbox: InboxId,
        /// Place in the inbox.
        seq: InboxSeq,
        /// Of the first byte.
        offset: u64,
        /// CRC-32 of the body.
        crc32: u32,
    },
    /// The acknowledgement is committed.
    Acked {
        /// The inbox.
        inbox: InboxId,
        /// Inclusive.
        upto: InboxSeq,
    },
    /// Answers `Probe`: committed and applied.
    ProbeDone {
        /// From the request.
        request: RequestId,
        /// Its place in the log.
        index: LogIndex,
    },
    /// Answers `Status`.
    Status {
        /// From the request.
        request: RequestId,
        /// The node's state.
        status: Box<NodeStatus>,
    },
    /// Answers `Ping`.
    Pong,
    /// The members changed.
    RingChanged {
        /// All members.
        ring: Ring,
    },
    /// A request failed, or (with no request) the connection ends now.
    Failure {
        /// The request, if it was one.
        request: Option<RequestId>,
        /// Why.
        refusal: Refusal,
        /// For people, with the remedy.
        text: String,
        /// The members as far as known, so that the client can go to the right node.
        ring: Option<Ring>,
    },
}

/// See `ClientReply::Head`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// The inbox.
    pub inbox: InboxId,
    /// Place in the inbox.
    pub seq: InboxSeq,
    /// Which image.
    pub image: ImageId,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// Who sent it.
    pub sender: String,
    /// The sender's file name; a hint, never a path.
    pub name: String,
    /// Its `Ready` record.
    pub index: LogIndex,
    /// No node has its bytes any more: none follow, and what came of them is of no use. Its place is acknowledged like that of
    /// any other. In the inbox of the sender itself it tells of an image that others will not get.
    pub is_damaged: bool,
}

/// The role of a node in the consensus group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RoleKind {
    /// Imitates the leader.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Proposes.
    Leader,
}

/// What a node knows of itself and the cluster.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct NodeStatus {
    /// This node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Role now.
    pub role: RoleKind,
    /// Current term.
    pub term: Term,
    /// The leader it knows; node 0 if none.
    pub leader: NodeId,
    /// Last index of its log.
    pub last: LogIndex,
    /// Highest index known committed.
    pub committed: LogIndex,
    /// Highest index applied here.
    pub applied: LogIndex,
    /// Members and their state.
    pub ring: Ring,
    /// Registered clients.
    pub clients: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Accepted images not yet acknowledged, cluster-wide.
    pub undelivered: u64,
    /// Intents the leader holds (0 elsewhere).
    pub intents: u64,
    /// Log segments on this node's disk.
    pub log_segments: u64,
    /// Bytes of entries in the log.
    pub log_bytes: u64,
    /// Per core of this node.
    pub cores: Vec<CoreStatus>,
    /// Whether its log lost entries and does not have them again: it follows, and does not vote.
    pub healing: bool,
    /// The last record whose effect its newest snapshot has; 0 if there is none.
    pub snapshot_index: LogIndex,
    /// Bytes of all its snapshots.
    pub snapshot_bytes: u64,
    /// Whether one is being made, or taken from another node.
    pub snapshot_under_way: bool,
    /// Whether a place of its log went bad while it ran, for which no snapshot stands yet: it does not lead.
    pub log_rotten: bool,
}

/// What one core of a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CoreStatus {
    /// Which core.
    pub core: CoreId,
    /// Client connections.
    pub connections: u64,
    /// Uploads in progress here as home or holder.
    pub uploads: u64,
    /// Complete images in its store.
    pub images: u64,
    /// Image bytes in its store, incomplete ones included.
    pub image_bytes: u64,
    /// Chunk files.
    pub chunk_files: u64,
    /// Bytes its store can still take.
    pub room_bytes: u64,
    /// Images that it should have, and whose bytes it lacks or reads wrong: they come from other holders.
    pub repairs: u64,
}
