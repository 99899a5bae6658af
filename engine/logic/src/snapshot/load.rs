//! Reads a snapshot as its bytes come, from a file or from another node, into a state.

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

/// A snapshot of which not all has come yet.
#[derive(Debug)]
pub struct Loading {
    expected: SnapshotHeader,
    seed: u32,
    has_header: bool,
    number: u64,   // of the next piece
    rest: Vec<u8>, // the begin of a piece that is not whole yet
    rebuild: Rebuild,
    is_whole: bool,
}

impl Loading {
    /// Of a snapshot with that header.
    pub fn new(expected: SnapshotHeader) -> Loading {
        Loading::with_mutant(expected, Mutant::None)
    }

    pub(crate) fn with_mutant(expected: SnapshotHeader, mutant: Mutant) -> Loading {
        let rebuild = Rebuild::new(expected.mark.index, mutant);
        let seed = expected.seed();
        Loading { expected, seed, has_header: false, number: 0, rest: Vec::new(), rebuild, is_whole: false }
    }

    /// Takes the next bytes of the file, however they are cut.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        if self.rest.is_empty() {
            let used = self.read(bytes)?;
            self.rest.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let used = self.read(&rest)?;
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    /// Whether the end has come.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The state.
    pub fn finish(self) -> Result<State, LoadError> {
        if !self.is_whole {
            return Err(LoadError::CutOff { number: self.number.saturating_sub(1) });
        }
        self.rebuild.finish().map_err(|error| LoadError::State { number: self.number, error })
    }

    /// Reads what is whole; gives how much that was.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, LoadError> {
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
            let piece = decode_piece(payload).map_err(|error| LoadError::Decode { number, error })?;
            if let Some(head) = piece.head.as_ref().filter(|head| head.cluster != self.expected.cluster) {
                return Err(LoadError::Foreign { index: self.expected.mark.index.0, cluster: head.cluster });
            }
            self.rebuild.add(piece).map_err(|error| LoadError::State { number, error })?;
        }
        // What is behind the end is not looked at.
        Ok(if self.is_whole { bytes.len() } else { used })
    }
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
    let used = loading.read(bytes)?;
    debug_assert!(used <= bytes.len());
    Ok((header.mark, loading.finish()?))
}
