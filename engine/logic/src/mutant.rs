//! Deliberate wrong decisions, each of which the simulator must catch.
//!
//! A mutant is a value given to `Shard::with_mutant`, which exists with the feature `mutants` only. Features unify in a
//! workspace, so a program may be built with it; nothing but that constructor takes one, and without the feature every
//! check is false at compile time and this module cannot be named from outside.

macro_rules! mutants {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)*) => {
        /// A wrong decision, and the promise it breaks (ARCHITECTURE.md has the promises).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub enum Mutant {
            /// All decisions are right.
            #[default]
            None,
            $($(#[$meta])* $variant,)*
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// Every wrong decision.
            pub const ALL: [Mutant; [$($name),*].len()] = [$(Mutant::$variant),*];

            /// For command lines and reports.
            pub fn name(self) -> &'static str {
                match self {
                    Mutant::None => "none",
                    $(Mutant::$variant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// An append counts as durable, here and towards the leader, before its flush is done. What is committed is then not
    /// on a majority of disks (P1).
    AckBeforeSync = "ack-before-sync",
    /// A notice is answered "ready" when its record is proposed: the sender hears `Accepted` before anything is committed
    /// (P1).
    AcceptBeforeCommit = "accept-before-commit",
    /// Home and leader are content with one holder less than `copies` (P1).
    CopyTooFew = "copy-too-few",
    /// Holders of different bytes under one id are counted together, when the leader gathers their notices (P1, P3).
    GatherDifferentBytes = "gather-different-bytes",
    /// Whoever stores an upload takes one with another fingerprint under the same id for the same: a sender hears
    /// `Accepted` for bytes that nobody has (P1, P3).
    StoreOtherBytes = "store-other-bytes",
    /// A vote is given, and the own one counted, before it is durable: after a crash the node votes again in that term (P1).
    VoteBeforeSync = "vote-before-sync",
    /// raft batches appends by itself: entries go out behind an index to which they do not belong (P1).
    BatchAppend = "batch-append",
    /// A log with damage in what was provably durable is cut off there, as if that end was torn (P4).
    TruncateRot = "truncate-rot",
    /// A log whose last round may have been acknowledged is cut off, as if that round was torn (P4).
    TruncateUncertain = "truncate-uncertain",
    /// A node whose log lost entries votes as if it had them (P1, P4).
    VoteWhileHealing = "vote-while-healing",
    /// A log counts as healed as soon as a leader was heard (P1, P4).
    HealTooEarly = "heal-too-early",
    /// A snapshot has what changed while it was made, and not what was removed meanwhile (P2).
    SnapshotTorn = "snapshot-torn",
    /// A snapshot does not have what recognises a retry (P2).
    SnapshotForgetsImages = "snapshot-forgets-images",
    /// Recovery leaps over any bad place to the next intact entry, whether a snapshot has what is missing or not (P1, P4).
    LeapOverRot = "leap-over-rot",
    /// What the scrub finds rotten in the log is not made good: the next start finds it (P4).
    ScrubForgetsRot = "scrub-forgets-rot",
    /// A node that goes on behind a snapshot of another does not tell its cores which bytes they are to keep (P1).
    InstallForgetsClaims = "install-forgets-claims",
    /// Recovery applies all that is in the log, not only what it knows to be committed (P2).
    ApplyUncommitted = "apply-uncommitted",
    /// The images of a session are forgotten with each new leader: a retry makes a second inbox entry (P2).
    ForgetAtLeaderChange = "forget-at-leader-change",
    /// The images of a session are forgotten by a node that restarts (P2).
    ForgetAtRestart = "forget-at-restart",
    /// The records found at start are applied twice (P2).
    ApplyTwice = "apply-twice",
    /// A leader shows receivers of its node the records that it has proposed, in the place that they would have (P2).
    DeliverBeforeReady = "deliver-before-ready",
    /// A receiver that has sent nothing of the first image yet gets the smallest of those at hand first (P2).
    OutOfOrder = "out-of-order",
    /// Images count as acknowledged when they were sent to the receiver (P1).
    AckWhenSent = "ack-when-sent",
    /// Acknowledgements are not clamped to what was assigned: the inbox goes on behind a gap (P2).
    AckUnclamped = "ack-unclamped",
    /// Bytes read from disk for a receiver or for its home are not compared with their slot (P3).
    SkipChunkChecksum = "skip-chunk-checksum",
    /// A chunk that the system refuses to read for a moment counts as rotten (P4).
    RefusedIsRot = "refused-is-rot",
    /// The whole image's checksum is not compared before it counts as a copy (P3).
    SkipImageChecksum = "skip-image-checksum",
    /// A chunk counts as durable when it is written, before its slot is and before the sync (P1).
    ConfirmBeforeSync = "confirm-before-sync",
    /// The first receiver's acknowledgement frees the bytes for all (P1).
    FreeAtFirstAck = "free-at-first-ack",
    /// Bytes found at start are freed if no record known at that moment claims them (P1).
    FreeUnclaimed = "free-unclaimed",
    /// Complete bytes are dropped after the idle time although a record that names them may be on its way (P1).
    DropIdleCopy = "drop-idle-copy",
    /// Messages of raft that come by a link that a newer one has replaced are taken.
    OldLink = "old-link",
    /// Whoever asked for a record is answered by whatever is applied at its index, after a change of leader, too (P1).
    AnswerByIndex = "answer-by-index",
    /// Requests are numbered from 1 in each life of a process: an answer to the last life answers another question (P1).
    RequestIdAgain = "request-id-again",
    /// Session ids are the index of the record, rounded: two sessions share one, and with it their image ids (P2).
    SessionIdTwice = "session-id-twice",
    /// Inbox ids are the index of the record, rounded: two receivers share one (P2).
    InboxIdTwice = "inbox-id-twice",
    /// A member whose log is gone starts with an empty one, and votes (P4).
    EmptiedVotes = "emptied-votes",
    /// A member whose whole directory is gone is taken in again as the one it was, and votes (P4).
    EmptiedRejoins = "emptied-rejoins",
    /// A node that was taken in again with a new directory votes at once (P1, P4).
    RejoinVotes = "rejoin-votes",
    /// A node is taken in again before the record that says so is committed by the others (P1, P4).
    RejoinBeforeCommit = "rejoin-before-commit",
    /// A node that is taken in again keeps its incarnation: records that name its former life count for the new one (P1).
    RejoinKeepsLife = "rejoin-keeps-life",
}

impl Mutant {
    /// Whether this wrong decision is to be taken.
    pub(crate) fn is(self, other: Mutant) -> bool {
        cfg!(feature = "mutants") && self == other
    }
}

#[cfg(all(test, feature = "mutants"))]
#[path = "mutant_test.rs"]
mod tests;
