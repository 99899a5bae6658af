//! Reads a snapshot as its bytes come, from a file or from another node: checks it, or makes a state of it.

use proto::codec::{DecodeError, decode_piece};
use proto::ids::ClusterId;

use super::layout::{HEADER_BYTES, LayoutError, SnapshotHeader, piece_at};
use crate::log::SnapshotMark;
use crate::mutant::Mutant;
use crate::state::{BadSnapshot, Rebuild, State};

/// Why bytes are no snapshot of this cluster.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is damaged.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A piece cannot be decoded.
    #[error("piece {number}: {error}")]
    Decode {
        /// Which.
        number: u64,
        /// Why.
        #[source]
        error: DecodeError,
    },
    /// A piece does not fit to those before it.
    #[error("piece {number}: {error}")]
    State {
        /// Which.
        number: u64,
        /// Why.
        #[source]
        error: BadSnapshot,
    },
    /// It is of another cluster, or of another place in the log.
    #[error("it is the snapshot of index {index} of cluster {cluster}")]
    Foreign {
        /// Its index.
        index: u64,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// It ends too early.
    #[error("it is cut off after piece {number}")]
    CutOff {
        /// The last whole piece.
        number: u64,
    },
}

/// The bytes of a snapshot as they come, however they are cut: header, pieces, end, with their checksums.
#[derive(Debug)]
pub struct Checking {
    expected: SnapshotHeader,
    seed: u32,
    has_header: bool,
    number: u64,   // of the next piece
    rest: Vec<u8>, // the begin of a piece that is not whole yet
    is_whole: bool,
}

impl Checking {
    /// Of a snapshot with that header.
    pub fn new(expected: SnapshotHeader) -> Checking {
        let seed = expected.seed();
        Checking { expected, seed, has_header: false, number: 0, rest: Vec::new(), is_whole: false }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.feed_to(bytes, |_, _| Ok(()))
    }

    /// Whether the end has come.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// As `feed`; each piece goes with its number to `on_piece`.
    fn feed_to(
        &mut self,
        bytes: &[u8],
        on_piece: impl FnMut(u64, &[u8]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        if self.rest.is_empty() {
            let used = self.read(bytes, on_piece)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let used = self.read(&rest, on_piece)?;
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    /// Reads what is whole; gives how much that was.
    fn read(
        &mut self,
        bytes: &[u8],
        mut on_piece: impl FnMut(u64, &[u8]) -> Result<(), LoadError>,
    ) -> Result<usize, LoadError> {
        let mut used = 0;
        if !self.has_header {
            if bytes.len() < HEADER_BYTES {
                return Ok(0);
            }
            let found = SnapshotHeader::decode(bytes)?;
            if found != self.expected {
                return Err(LoadError::Foreign { index: found.mark.index.0, cluster: found.cluster });
            }
            self.has_header = true;
            used = HEADER_BYTES;
        }
        while !self.is_whole
            && let Some(found) = piece_at(self.seed, self.number, &bytes[used..])?
        {
            used += found.bytes;
            let number = self.number;
            self.number += 1;
            let Some(payload) = found.payload else {
                self.is_whole = true;
                break;
            };
            on_piece(number, payload)?;
        }
        // What is behind the end is not looked at.
        Ok(if self.is_whole { bytes.len() } else { used })
    }
}

/// A snapshot of which not all has come yet.
#[derive(Debug)]
pub struct Loading {
    checking: Checking,
    rebuild: Rebuild,
}

impl Loading {
    /// Of a snapshot with that header.
    pub fn new(expected: SnapshotHeader) -> Loading {
        Loading::with_mutant(expected, Mutant::None)
    }

    pub(crate) fn with_mutant(expected: SnapshotHeader, mutant: Mutant) -> Loading {
        let rebuild = Rebuild::new(expected.mark.index, mutant);
        Loading { checking: Checking::new(expected), rebuild }
    }

    /// Takes the next bytes of the file, however they are cut.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let (expected, rebuild) = (self.checking.expected, &mut self.rebuild);
        self.checking.feed_to(bytes, |number, payload| add_piece(rebuild, &expected, number, payload))
    }

    /// Whether the end has come.
    pub fn is_whole(&self) -> bool {
        self.checking.is_whole
    }

    /// The state.
    pub fn finish(self) -> Result<State, LoadError> {
        let number = self.checking.number;
        if !self.checking.is_whole {
            return Err(LoadError::CutOff { number: number.saturating_sub(1) });
        }
        self.rebuild.finish().map_err(|error| LoadError::State { number, error })
    }
}

fn add_piece(rebuild: &mut Rebuild, expected: &SnapshotHeader, number: u64, payload: &[u8]) -> Result<(), LoadError> {
    let piece = decode_piece(payload).map_err(|error| LoadError::Decode { number, error })?;
    if let Some(head) = piece.head.as_ref().filter(|head| head.cluster != expected.cluster) {
        return Err(LoadError::Foreign { index: expected.mark.index.0, cluster: head.cluster });
    }
    rebuild.add(piece).map_err(|error| LoadError::State { number, error })
}

/// Reads a whole file.
pub fn load(bytes: &[u8], cluster: ClusterId) -> Result<(SnapshotMark, State), LoadError> {
    load_with(bytes, cluster, Mutant::None)
}

pub(crate) fn load_with(bytes: &[u8], cluster: ClusterId, mutant: Mutant) -> Result<(SnapshotMark, State), LoadError> {
    let header = SnapshotHeader::decode(bytes)?;
    if header.cluster != cluster {
        return Err(LoadError::Foreign { index: header.mark.index.0, cluster: header.cluster });
    }
    let mut loading = Loading::with_mutant(header, mutant);
    // Not as a whole: the rest of a damaged file would be copied.
    let rebuild = &mut loading.rebuild;
    let used = loading.checking.read(bytes, |number, payload| add_piece(rebuild, &header, number, payload))?;
    debug_assert!(used <= bytes.len());
    Ok((header.mark, loading.finish()?))
}
