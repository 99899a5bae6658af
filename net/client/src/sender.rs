//! Sending images: what the session is told and what it says. The session itself is in `sender/session.rs`.

mod flight;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod sender_test;
mod session;

pub use session::SenderSession;
pub(crate) use session::too_large;

use proto::error::Refusal;
use proto::ids::{Fingerprint, Holder, ImageId, LogIndex, SessionId};

use crate::session::{Key, LinkId, LinkInput, SessionFailure};
use crate::troubles::Troubles;

/// An image to send. The bytes stay with the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageJob {
    /// The user's name for it.
    pub key: Key,
    /// Names, 1 to `RECEIVERS_MAX`, none twice.
    pub receivers: Vec<String>,
    /// Length and checksum of the bytes.
    pub fingerprint: Fingerprint,
    /// File name for the receiver.
    pub name: String,
}

/// What a sender session is told.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderInput {
    /// Begin: connect and open the session.
    Start,
    /// About the connection.
    Link(LinkInput),
    /// Send this image.
    Submit(ImageJob),
    /// Forget this image: its bytes cannot be read any more. Nothing more is said of it.
    Withdraw(Key),
    /// Time passed; due at `wake_at`.
    Tick,
}

/// What a sender session says beside the common actions.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderEvent {
    /// Read these bytes of the image, and send them as `ClientRequest::Chunk` with their CRC-32.
    SendChunk {
        /// On which link.
        link: LinkId,
        /// Whose bytes.
        key: Key,
        /// Which image.
        image: ImageId,
        /// First byte.
        offset: u64,
        /// `CHUNK_BYTES_MAX`, or less for the last one.
        length: u32,
    },
    /// The session is there.
    SessionOpened {
        /// Its id.
        session: SessionId,
    },
    /// The image has its id, which it keeps for ever.
    Begun {
        /// Which.
        key: Key,
        /// Its id.
        image: ImageId,
    },
    /// Bytes of the image are durable.
    Progress {
        /// Which.
        key: Key,
        /// Exclusive end of the durable prefix. May fall when a home changes.
        durable_end: u64,
    },
    /// Promise P1 holds for the image. Finished.
    Accepted {
        /// Which.
        key: Key,
        /// Its id.
        image: ImageId,
        /// Its record.
        index: LogIndex,
        /// Who has the bytes.
        holders: Vec<Holder>,
    },
    /// The image is not accepted and will not be. Finished. (With `NoSpace`, those of several receivers whose home had
    /// room may still get it, once. It comes for a first attempt only: whether an earlier one came to something nobody knows.)
    Refused {
        /// Which.
        key: Key,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// No progress until the deadline. Finished for the session; if `begun`, the cluster may still accept it.
    GaveUp {
        /// Which.
        key: Key,
        /// Whether any node was ever told of it.
        begun: bool,
        /// What went wrong with whom.
        troubles: Troubles,
    },
    /// The session ended. Every unfinished image was reported before, by `Refused` or `GaveUp`.
    Failed(SessionFailure),
}
