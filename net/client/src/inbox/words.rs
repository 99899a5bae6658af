//! What a receiver session is told, and what it says.

use std::collections::BTreeSet;

use proto::client::ImageHead;
use proto::ids::{InboxId, InboxSeq};

use crate::session::{LinkInput, SessionFailure};

/// What a receiver session is told.
#[derive(Clone, Debug, PartialEq)]
pub enum InboxInput {
    /// Begin: connect to the home and open the inbox.
    Start,
    /// About the connection.
    Link(LinkInput),
    /// The image of `InboxEvent::Finish` is durable: it may be acknowledged.
    Stored(InboxSeq),
    /// The shell lost what it was given of this image, whole or in part, before it was durable: it is to come again.
    /// Means nothing for one that is stored.
    Lost(InboxSeq),
    /// Finds out whether there is more: see `InboxSession::is_caught_up`, which is false until the answer.
    AskCaughtUp,
    /// Time passed; due at `wake_at`.
    Tick,
}

/// What a receiver session says beside the common actions.
///
/// Per image: one `Begin`, `Write`s without gap from offset 0, then `Finish` or `Abort`; or one `Damaged`.
#[derive(Clone, Debug, PartialEq)]
pub enum InboxEvent {
    /// The inbox is open.
    Opened {
        /// The inbox.
        inbox: InboxId,
        /// Committed acknowledgements so far.
        acked_upto: InboxSeq,
    },
    /// A new image begins.
    Begin {
        /// All about it.
        head: Box<ImageHead>,
    },
    /// Take the body that came with this very input.
    Write {
        /// Which image.
        seq: InboxSeq,
        /// Where in the image the body begins.
        offset: u64,
    },
    /// All bytes are there and right. Make them durable, then say `InboxInput::Stored`.
    Finish {
        /// Which image.
        seq: InboxSeq,
    },
    /// Throw away what was written of this image. It begins again later.
    Abort {
        /// Which image.
        seq: InboxSeq,
    },
    /// No node has the bytes of this image any more, and none come: its place is passed like that of one that was finished.
    /// Make that durable, then say `InboxInput::Stored`. What was written of it was thrown away (`Abort` before).
    Damaged {
        /// All about it.
        head: Box<ImageHead>,
    },
    /// The bytes were not those the sender had. They are thrown away (`Abort` follows) and fetched again.
    Corrupt {
        /// Which image.
        seq: InboxSeq,
        /// What its sender computed.
        expected: u64,
        /// What the bytes gave.
        found: u64,
    },
    /// Acknowledgements are committed: these images will not come again.
    Acked {
        /// Inclusive.
        upto: InboxSeq,
    },
    /// The session ended.
    Failed(SessionFailure),
}

/// Images made durable by an earlier run, so that they are not taken twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBefore {
    /// The inbox they came from; `None` if there are none.
    pub inbox: Option<InboxId>,
    /// Their places.
    pub seqs: BTreeSet<InboxSeq>,
}
