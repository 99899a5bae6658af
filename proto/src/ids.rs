//! Identities and positions. Each is its own type, so that two integers of one width are never mixed up.

use std::fmt;
use std::str::FromStr;

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

/// The text is no image id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoImageId;

impl fmt::Display for NoImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image id is SESSION.SEQUENCE as `helio send` prints it, for example s4.1")
    }
}

impl std::error::Error for NoImageId {}

impl FromStr for ImageId {
    type Err = NoImageId;

    /// Reads what `Display` writes; the `s` may be left out.
    fn from_str(text: &str) -> Result<ImageId, NoImageId> {
        let (session, sequence) = text.strip_prefix('s').unwrap_or(text).split_once('.').ok_or(NoImageId)?;
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u64>().ok().filter(|&number| number > 0).ok_or(NoImageId),
            false => Err(NoImageId),
        };
        Ok(ImageId { session: SessionId(number(session)?), sequence: Sequence(number(sequence)?) })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{ImageId, NoImageId, Sequence, SessionId};

    #[test]
    fn image_id_is_read_as_it_is_printed() {
        let image = ImageId { session: SessionId(4), sequence: Sequence(17) };
        assert_eq!(image.to_string(), "s4.17");
        assert_eq!("s4.17".parse(), Ok(image));
        assert_eq!("4.17".parse(), Ok(image));
        for text in
            ["", "s4", "s4.", ".1", "s0.1", "s4.0", "s4.1.2", "b4.1", "s+4.1", "s4.-1", "s99999999999999999999.1"]
        {
            assert_eq!(text.parse::<ImageId>(), Err(NoImageId), "{text:?}");
        }
    }
}
