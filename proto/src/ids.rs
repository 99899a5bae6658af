//! Identities and positions. Each is its own type, so that two integers of one width are never mixed up.

use std::fmt;

macro_rules! identity {
    ($(#[$meta:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

identity!(
    /// A node: one process with its data directory. Given by the configuration, at least 1 (raft reserves 0).
    NodeId(u64), "n");
identity!(
    /// A core: one CPU thread of a node with its executor, counted from 0. Core 0 runs the consensus group.
    CoreId(u16), "c");
identity!(
    /// Counts the lives of a node id: a rejoin with an emptied directory gets a new one. The first is 1.
    Incarnation(u32), "i");
identity!(
    /// A raft term.
    Term(u64), "t");
identity!(
    /// A position in the raft log. The first entry has index 1; 0 means "before the log".
    LogIndex(u64), "");
identity!(
    /// A sender's session: the index of the record that opened it. With the cluster id it is unique for ever.
    SessionId(u64), "s");
identity!(
    /// A receiver's inbox: the index of the record that registered the client.
    InboxId(u64), "b");
identity!(
    /// Counts the images of one session. The first is 1.
    Sequence(u64), "");
identity!(
    /// The place of an image in an inbox, gapless. The first is 1; an acknowledgement up to 0 acknowledges nothing.
    InboxSeq(u64), "");
identity!(
    /// The version of the ring: the index of the record that last changed it. 0 is "before any".
    RingEpoch(u64), "e");
identity!(
    /// Chosen by the asker, unique among its own open requests; comes back in the answer.
    RequestId(u64), "q");

/// A cluster: 128 random bits, minted at bootstrap. 0 means "not known".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClusterId(pub u128);

impl ClusterId {
    /// The value that stands for "not known yet".
    pub const UNKNOWN: ClusterId = ClusterId(0);
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An image: a session and the image's number in it. A retry carries the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ImageId {
    /// The sender's session.
    pub session: SessionId,
    /// The number of the image in the session.
    pub sequence: Sequence,
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.sequence)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a shard lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address {
    /// The node.
    pub node: NodeId,
    /// The core in it.
    pub core: CoreId,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.node, self.core)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node that has an image's complete bytes durably, and the life in which it has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holder {
    /// The shard whose store has the bytes.
    pub address: Address,
    /// The life of the node: after a rejoin with an emptied directory it is another one.
    pub incarnation: Incarnation,
}

/// Length and whole-image checksum: part of an image's identity. Copies count only if both are equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Fingerprint {
    /// Bytes of the image.
    pub length: u64,
    /// CRC-64/NVME of the whole image (`checksum`).
    pub checksum: u64,
}
