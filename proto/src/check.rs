//! What must hold of every message, beyond its types: the bounds of `limits` and the rules for names and positions.
//!
//! Each message has one `check`. The codecs call it on whatever they decoded, so that a value that came from outside
//! cannot be wrong; and before encoding, since a message that the other end would refuse is our own mistake.

mod client;
mod peer;
mod record;
mod snapshot;

use crate::ids::{Address, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, NodeId};
use crate::limits::{
    ACKS_MAX, ADDRESS_BYTES_MAX, CHUNK_BYTES_MAX, CORES_MAX, IMAGE_BYTES_MAX, NODES_MAX, RECEIVERS_MAX, SECTOR_BYTES,
};
use crate::name::{NameError, check_file_name, check_name};
use crate::ring::Member;

/// No file is larger.
const FILE_BYTES_MAX: u64 = 1 << 62;

/// Which rule a message breaks. `field` is the field's name in its Rust type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// A list or a run of bytes is longer, or shorter, than it may be.
    #[error("{field} has length {found}, expected {min} to {max}")]
    Length {
        /// Which field.
        field: &'static str,
        /// Its length.
        found: usize,
        /// Shortest.
        min: usize,
        /// Longest.
        max: usize,
    },
    /// A number is not in its range.
    #[error("{field} is {found}, expected {min} to {max}")]
    Range {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
    },
    /// A chunk begins only at multiples of `CHUNK_BYTES_MAX`.
    #[error("offset {found} is not a multiple of the chunk size")]
    Offset {
        /// The offset.
        found: u64,
    },
    /// A part of a snapshot begins and ends with whole sectors.
    #[error("{found} bytes are no whole sectors")]
    Sectors {
        /// The offset or length.
        found: u64,
    },
    /// A list names something twice.
    #[error("{field} has the same at {first} and {second}")]
    Twice {
        /// Which field.
        field: &'static str,
        /// Position of one.
        first: usize,
        /// Position of the other.
        second: usize,
    },
    /// A client name or file name breaks its rules.
    #[error("{field}: {error}")]
    Name {
        /// Which field.
        field: &'static str,
        /// How.
        error: NameError,
    },
    /// The entries of a raft append do not follow each other.
    #[error("entry {position} has index {found}, expected {expected}")]
    Entries {
        /// Position in the message.
        position: usize,
        /// The index that would follow.
        expected: u64,
        /// The index it has.
        found: u64,
    },
}

fn length(field: &'static str, found: usize, min: usize, max: usize) -> Result<(), CheckError> {
    if found < min || found > max {
        return Err(CheckError::Length { field, found, min, max });
    }
    Ok(())
}

fn range(field: &'static str, found: u64, min: u64, max: u64) -> Result<(), CheckError> {
    if found < min || found > max {
        return Err(CheckError::Range { field, found, min, max });
    }
    Ok(())
}

fn at_least_one(field: &'static str, found: u64) -> Result<(), CheckError> {
    range(field, found, 1, u64::MAX)
}

/// Compares each with each: for short lists.
fn distinct<T: PartialEq>(field: &'static str, items: &[T]) -> Result<(), CheckError> {
    for (second, item) in items.iter().enumerate() {
        if let Some(first) = items[..second].iter().position(|other| other == item) {
            return Err(CheckError::Twice { field, first, second });
        }
    }
    Ok(())
}

/// As `distinct`, for long lists.
fn distinct_nodes(field: &'static str, nodes: impl Iterator<Item = NodeId>) -> Result<(), CheckError> {
    let mut sorted: Vec<(NodeId, usize)> = nodes.enumerate().map(|(position, node)| (node, position)).collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(CheckError::Twice { field, first: pair[0].1, second: pair[1].1 }),
        None => Ok(()),
    }
}

fn client_name(field: &'static str, name: &str) -> Result<(), CheckError> {
    check_name(name).map_err(|error| CheckError::Name { field, error })
}

fn file_name(name: &str) -> Result<(), CheckError> {
    check_file_name(name).map_err(|error| CheckError::Name { field: "name", error })
}

fn receiver_names(names: &[String]) -> Result<(), CheckError> {
    length("receivers", names.len(), 1, RECEIVERS_MAX)?;
    names.iter().try_for_each(|name| client_name("receivers", name))?;
    distinct("receivers", names)
}

fn node(field: &'static str, node: NodeId) -> Result<(), CheckError> {
    at_least_one(field, node.0)
}

fn core(field: &'static str, core: CoreId) -> Result<(), CheckError> {
    range(field, u64::from(core.0), 0, CORES_MAX as u64 - 1)
}

fn cores(count: u16) -> Result<(), CheckError> {
    range("cores", u64::from(count), 1, CORES_MAX as u64)
}

fn shard(field: &'static str, address: Address) -> Result<(), CheckError> {
    node(field, address.node)?;
    core(field, address.core)
}

fn image(image: ImageId) -> Result<(), CheckError> {
    at_least_one("image.session", image.session.0)?;
    at_least_one("image.sequence", image.sequence.0)
}

fn inbox(inbox: InboxId) -> Result<(), CheckError> {
    at_least_one("inbox", inbox.0)
}

fn fingerprint(fingerprint: Fingerprint) -> Result<(), CheckError> {
    range("fingerprint.length", fingerprint.length, 1, IMAGE_BYTES_MAX)
}

/// Of a chunk's first byte: within the largest image, and where a chunk can begin.
fn chunk_offset(offset: u64) -> Result<(), CheckError> {
    range("offset", offset, 0, IMAGE_BYTES_MAX - 1)?;
    if !offset.is_multiple_of(CHUNK_BYTES_MAX as u64) {
        return Err(CheckError::Offset { found: offset });
    }
    Ok(())
}

/// Of a sector's first byte, in a file that is not larger than any disk.
fn sector_offset(offset: u64) -> Result<(), CheckError> {
    range("offset", offset, 0, FILE_BYTES_MAX)?;
    if !offset.is_multiple_of(SECTOR_BYTES as u64) {
        return Err(CheckError::Sectors { found: offset });
    }
    Ok(())
}

/// Of the end of some bytes of an image.
fn image_end(field: &'static str, end: u64) -> Result<(), CheckError> {
    range(field, end, 0, IMAGE_BYTES_MAX)
}

/// Two cores of one node may both be holders; whoever counts copies counts nodes.
fn holders(holders: &[Holder], min: usize, max: usize) -> Result<(), CheckError> {
    length("holders", holders.len(), min, max)?;
    holders.iter().try_for_each(|holder| shard("holders", holder.address))?;
    for (second, holder) in holders.iter().enumerate() {
        if let Some(first) = holders[..second].iter().position(|other| other.address == holder.address) {
            return Err(CheckError::Twice { field: "holders", first, second });
        }
    }
    Ok(())
}

/// An inbox may be there twice: applying both is the same as applying the higher one.
fn acknowledgements(upto: &[(InboxId, InboxSeq)], min: usize) -> Result<(), CheckError> {
    length("upto", upto.len(), min, ACKS_MAX)?;
    upto.iter().try_for_each(|&(id, _)| inbox(id))
}

fn address_text(field: &'static str, text: &str) -> Result<(), CheckError> {
    length(field, text.len(), 0, ADDRESS_BYTES_MAX)
}

pub(crate) fn members(members: &[Member], min: usize) -> Result<(), CheckError> {
    length("members", members.len(), min, NODES_MAX)?;
    for member in members {
        node("members.node", member.node)?;
        cores(member.cores)?;
        address_text("members.client_address", &member.client_address)?;
        address_text("members.peer_address", &member.peer_address)?;
    }
    distinct_nodes("members", members.iter().map(|member| member.node))
}
