//! Reasons that travel: what a node answers when it does not do what was asked.

/// Why something was refused. The text beside it on the wire is for people; programs branch on this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum Refusal {
    /// A receiver's name is not registered.
    UnknownReceiver = 1,
    /// The image is larger than the cluster takes.
    ImageTooLarge = 2,
    /// An image has at least one byte.
    ImageEmpty = 3,
    /// The disk that would hold it has no room. Accepted images are safe.
    NoSpace = 4,
    /// A bounded queue is full: try again after a while.
    Busy = 5,
    /// No leader is known: fewer than a majority of the voters are reachable.
    NoLeader = 6,
    /// The asker belongs to another cluster.
    WrongCluster = 7,
    /// The message breaks the protocol.
    BadRequest = 8,
    /// The image id is known with other bytes.
    DifferentBytes = 9,
    /// The session is not known any more (or never was): a retry cannot be judged.
    SessionUnknown = 10,
    /// The sequence is too far above the low-water mark.
    OutOfWindow = 11,
    /// The sequence is below the session's low-water mark: the sender said it was finished.
    AlreadyFinished = 12,
    /// No common protocol version.
    VersionUnsupported = 13,
    /// This node is not the home of that client now: the ring in the message tells who is.
    NotHome = 14,
    /// The name breaks the rules for names.
    NameInvalid = 15,
    /// The node is not part of a cluster yet.
    NotReady = 16,
    /// A newer session of the same inbox took over.
    Superseded = 17,
    /// The bytes are not there (or not whole).
    NotHeld = 18,
    /// The connection's other end broke the rules for its kind (a member that is none, a second hello).
    NotMember = 19,
    /// The image was accepted, and no node has its bytes any more. Send it again under a new id.
    Damaged = 20,
}

impl Refusal {
    /// All, for decoding.
    pub const ALL: [Refusal; 20] = [
        Refusal::UnknownReceiver,
        Refusal::ImageTooLarge,
        Refusal::ImageEmpty,
        Refusal::NoSpace,
        Refusal::Busy,
        Refusal::NoLeader,
        Refusal::WrongCluster,
        Refusal::BadRequest,
        Refusal::DifferentBytes,
        Refusal::SessionUnknown,
        Refusal::OutOfWindow,
        Refusal::AlreadyFinished,
        Refusal::VersionUnsupported,
        Refusal::NotHome,
        Refusal::NameInvalid,
        Refusal::NotReady,
        Refusal::Superseded,
        Refusal::NotHeld,
        Refusal::NotMember,
        Refusal::Damaged,
    ];

    /// The code on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The reason with that code, if this build knows it.
    pub fn from_code(code: u16) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// Whether the same request may succeed later without any change.
    pub fn is_transient(self) -> bool {
        matches!(self, Refusal::Busy | Refusal::NoLeader | Refusal::NotHome | Refusal::NotReady | Refusal::NotHeld)
    }
}
