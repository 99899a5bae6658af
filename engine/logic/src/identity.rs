//! The identity file: which node this data directory belongs to, and whether it is a member of a cluster. The only parser.
//!
//! ```text
//! 0    8   magic "HELIOIDY"
//! 8    2   format version
//! 10   2   cores
//! 12   4   length of the whole file
//! 16   8   node
//! 24   16  nonce of the data directory, drawn once
//! 40   1   state: 0 empty, 1 member
//! 41   3   zero
//! state member:
//! 44   4   incarnation
//! 48   16  cluster
//! 64   2   number of initial members (m)
//! 66   2   number of voters (v)
//! 68   m × 26: node 8, nonce 16, cores 2
//!      v × 8:  node
//! end  4   CRC-32 of everything before
//! ```
//! All integers are little-endian. The file is replaced whole (new file, sync, rename, sync of the directory).

use proto::ids::{ClusterId, Incarnation, NodeId};
use proto::limits::{CORES_MAX, NODES_MAX};

const MAGIC: &[u8; 8] = b"HELIOIDY";
const VERSION: u16 = 1;
const STATE_EMPTY: u8 = 0;
const STATE_MEMBER: u8 = 1;
const HEADER_BYTES: usize = 44;
const CRC_BYTES: usize = 4;

/// Bytes of the largest identity file.
pub const IDENTITY_BYTES_MAX: usize = HEADER_BYTES + 24 + NODES_MAX * (26 + 8) + CRC_BYTES;

/// What the identity file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// This node.
    pub node: NodeId,
    /// Its cores: the layout of the directory depends on it.
    pub cores: u16,
    /// Drawn once when the directory was made. In the header of every file of the log.
    pub nonce: u128,
    /// Whether it belongs to a cluster.
    pub state: IdentityState,
}

/// Whether a node belongs to a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IdentityState {
    /// Takes part in nothing.
    Empty,
    /// Is a member.
    Member(Membership),
}

/// What a member knows from its bootstrap or admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node's life.
    pub incarnation: Incarnation,
    /// The members with which the cluster began.
    pub members: Vec<MemberIdentity>,
    /// Those of them that vote.
    pub voters: Vec<NodeId>,
}

/// An initial member as it presented itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberIdentity {
    /// Which node.
    pub node: NodeId,
    /// The nonce of its data directory.
    pub nonce: u128,
    /// Its cores.
    pub cores: u16,
}

/// Why bytes are no identity file. The remedy for all but `Version`: the directory is not usable as it is; restore the file,
/// or rejoin the node with an empty data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// Too short to be one, or not as long as it says.
    #[error("the identity file has {found} bytes, expected {expected}")]
    Length {
        /// What it should have.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// Another kind of file.
    #[error("this is not an identity file of Heliograph: is the data directory right?")]
    Magic,
    /// Made by another version.
    #[error("the identity file has format version {found}, this program knows {VERSION}: use the program that made it")]
    Version {
        /// What it says.
        found: u16,
    },
    /// Damaged.
    #[error("the identity file is damaged: checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Computed.
        expected: u32,
        /// In the file.
        found: u32,
    },
    /// The checksum holds but a value makes no sense.
    #[error("the identity file holds an impossible value at byte {at}")]
    Value {
        /// Where.
        at: u32,
    },
}

impl Identity {
    /// The life of the node; 0 for one that is no member.
    pub fn incarnation(&self) -> Incarnation {
        match &self.state {
            IdentityState::Member(membership) => membership.incarnation,
            IdentityState::Empty => Incarnation::default(),
        }
    }

    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.cores.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        match &self.state {
            IdentityState::Empty => bytes.extend_from_slice(&[STATE_EMPTY, 0, 0, 0]),
            IdentityState::Member(membership) => {
                bytes.extend_from_slice(&[STATE_MEMBER, 0, 0, 0]);
                membership.encode(&mut bytes);
            }
        }
        let length = (bytes.len() + CRC_BYTES) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        assert!(bytes.len() <= IDENTITY_BYTES_MAX, "{} bytes", bytes.len());
        bytes
    }

    /// Reads the content of the file.
    pub fn decode(bytes: &[u8]) -> Result<Identity, IdentityError> {
        let found = bytes.len() as u64;
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(IdentityError::Length { expected: (HEADER_BYTES + CRC_BYTES) as u64, found });
        };
        if &header[0..8] != MAGIC {
            return Err(IdentityError::Magic);
        }
        let mut fields = Fields { bytes, at: 8 };
        let (version, cores, length) = (fields.u16()?, fields.u16()?, u64::from(fields.u32()?));
        if version != VERSION {
            return Err(IdentityError::Version { found: version });
        }
        if length != found || bytes.len() < HEADER_BYTES + CRC_BYTES {
            return Err(IdentityError::Length { expected: length.max((HEADER_BYTES + CRC_BYTES) as u64), found });
        }
        let (content, tail) = bytes.split_at(bytes.len() - CRC_BYTES);
        let stored = u32::from_le_bytes(tail.try_into().expect("the split leaves four bytes"));
        let expected = crc32fast::hash(content);
        if stored != expected {
            return Err(IdentityError::Checksum { expected, found: stored });
        }
        fields.bytes = content;
        let (node, nonce, state) = (NodeId(fields.u64()?), fields.u128()?, fields.u32()?);
        if node.0 == 0 || cores == 0 || usize::from(cores) > CORES_MAX {
            return Err(IdentityError::Value { at: 10 });
        }
        let state = match state {
            0 => IdentityState::Empty,
            1 => IdentityState::Member(Membership::decode(&mut fields)?),
            _ => return Err(IdentityError::Value { at: 40 }),
        };
        if fields.at != content.len() {
            return Err(fields.wrong());
        }
        Ok(Identity { node, cores, nonce, state })
    }
}

impl Membership {
    fn encode(&self, bytes: &mut Vec<u8>) {
        assert!(self.members.len() <= NODES_MAX && self.voters.len() <= self.members.len(), "{self:?}");
        bytes.extend_from_slice(&self.incarnation.0.to_le_bytes());
        bytes.extend_from_slice(&self.cluster.0.to_le_bytes());
        bytes.extend_from_slice(&(self.members.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(self.voters.len() as u16).to_le_bytes());
        for member in &self.members {
            bytes.extend_from_slice(&member.node.0.to_le_bytes());
            bytes.extend_from_slice(&member.nonce.to_le_bytes());
            bytes.extend_from_slice(&member.cores.to_le_bytes());
        }
        for voter in &self.voters {
            bytes.extend_from_slice(&voter.0.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Membership, IdentityError> {
        let (incarnation, cluster) = (Incarnation(fields.u32()?), ClusterId(fields.u128()?));
        if incarnation.0 == 0 || cluster == ClusterId::UNKNOWN {
            return Err(fields.wrong());
        }
        let (member_count, voter_count) = (fields.u16()?, fields.u16()?);
        if usize::from(member_count) > NODES_MAX || voter_count > member_count {
            return Err(fields.wrong());
        }
        let mut members = Vec::with_capacity(usize::from(member_count));
        for _ in 0..member_count {
            members.push(MemberIdentity { node: NodeId(fields.u64()?), nonce: fields.u128()?, cores: fields.u16()? });
        }
        let mut voters = Vec::with_capacity(usize::from(voter_count));
        for _ in 0..voter_count {
            voters.push(NodeId(fields.u64()?));
        }
        if !voters.iter().all(|voter| members.iter().any(|member| member.node == *voter)) {
            return Err(fields.wrong());
        }
        Ok(Membership { cluster, incarnation, members, voters })
    }
}

/// Takes integers off the front.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], IdentityError> {
        let field = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).copied();
        let field = field.ok_or_else(|| self.wrong())?;
        self.at += N;
        Ok(field)
    }

    fn wrong(&self) -> IdentityError {
        IdentityError::Value { at: self.at as u32 }
    }

    fn u16(&mut self) -> Result<u16, IdentityError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, IdentityError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, IdentityError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn u128(&mut self) -> Result<u128, IdentityError> {
        Ok(u128::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn empty() -> Identity {
        Identity { node: NodeId(2), cores: 4, nonce: 0xfeed_beef, state: IdentityState::Empty }
    }

    fn member() -> Identity {
        let members = (1..=3u64).map(|n| MemberIdentity { node: NodeId(n), nonce: u128::from(n) << 90, cores: 4 });
        Identity {
            state: IdentityState::Member(Membership {
                cluster: ClusterId(1 << 100),
                incarnation: Incarnation(1),
                members: members.collect(),
                voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            }),
            ..empty()
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for identity in [empty(), member()] {
            assert_eq!(Identity::decode(&identity.encode()), Ok(identity));
        }
    }

    #[test]
    fn every_truncation_and_every_flip_is_refused() {
        let bytes = member().encode();
        for end in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bytes = empty().encode();
            change(&mut bytes);
            let text = Identity::decode(&bytes).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(&|bytes| bytes.truncate(3), "has 3 bytes");
        check(&|bytes| bytes[0] = b'X', "not an identity file");
        check(&|bytes| bytes[8] = 9, "format version 9");
        check(&|bytes| bytes[20] ^= 1, "damaged");
        check(&|bytes| bytes.push(0), "49 bytes, expected 48");
    }

    #[test]
    fn impossible_values_are_refused_although_the_checksum_holds() {
        let mut nobody = empty();
        nobody.node = NodeId(0);
        assert_eq!(Identity::decode(&nobody.encode()), Err(IdentityError::Value { at: 10 }));
        let mut stranger = member();
        let IdentityState::Member(membership) = &mut stranger.state else { unreachable!() };
        membership.voters[2] = NodeId(9);
        assert!(matches!(Identity::decode(&stranger.encode()), Err(IdentityError::Value { .. })));
    }
}
