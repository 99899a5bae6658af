//! A disk of the harness.

use std::collections::BTreeMap;

use proto::ids::{LogIndex, NodeId, Term};

use super::world::{CLUSTER, SECTOR};
use crate::io::{LogFile, LogWrite, SegmentId};
use crate::log::layout::{EntryKind, Reader};
use crate::log::{Log, LogConfig, ROUNDS_BYTES, RecoverInput, StoreId};
use crate::mutant::Mutant;
use crate::vote::{Healing, Vote};

/// What survives a crash.
#[derive(Clone)]
pub struct Disk {
    pub segment_bytes: u32,
    pub segments: BTreeMap<SegmentId, Vec<u8>>,
    pub rounds: Vec<u8>,
    pub votes: [Box<[u8; 512]>; 2],
}

impl Disk {
    pub fn empty(segment_bytes: u32) -> Disk {
        let votes = [Box::new([0; 512]), Box::new([0; 512])];
        Disk { segment_bytes, segments: BTreeMap::new(), rounds: Vec::new(), votes }
    }

    pub fn recover(&self, node: NodeId, committed: impl FnMut(LogIndex, Term, &[u8])) -> (Log, Vote) {
        let nobody = Vote { cluster: CLUSTER, node, ..Vote::default() };
        let vote = Vote::choose([&self.votes[0], &self.votes[1]]).unwrap().unwrap_or(nobody);
        let segments: Vec<(SegmentId, &[u8])> = self.segments.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
        let store = StoreId { cluster: CLUSTER, nonce: node.0.into() };
        let config = LogConfig { store, segment_bytes: self.segment_bytes, mutant: Mutant::None };
        let (rounds, vote_term, heals, snapshots) = (&self.rounds[..], vote.term, Healing::Whole, &[]);
        let input = RecoverInput { segments: &segments, rounds, vote_term, config, snapshots, heals };
        (Log::recover(input, committed).unwrap(), vote)
    }

    /// Terms of the entries that are on it, read straight from the segments.
    pub fn terms(&self) -> Vec<u64> {
        let mut terms = Vec::new();
        let readers = self.segments.values().map(|bytes| Reader::new(bytes).unwrap());
        for found in readers.flat_map(|reader| reader.entries()).map_while(Result::ok) {
            if found.header.kind == EntryKind::Record {
                terms.truncate(found.header.index.0 as usize - 1);
                terms.push(found.header.term.0);
                assert_eq!(terms.len() as u64, found.header.index.0);
            }
        }
        terms
    }

    /// The vote that survives whichever copy goes bad: the older one.
    pub fn vote_surely(&self, node: NodeId) -> Vote {
        let zero = [0; 512];
        self.votes
            .each_ref()
            .map(|copy| Vote::choose([copy, &zero]).unwrap().unwrap_or(Vote { node, ..Vote::default() }))
            .into_iter()
            .min_by_key(|vote| vote.counter)
            .unwrap()
    }

    /// The log as it was in `old`; the votes stay.
    pub fn put_log_back(&mut self, old: Disk) {
        (self.segments, self.rounds) = (old.segments, old.rounds);
    }

    /// Carries out writes, but only their first `sectors` sectors.
    pub fn write(&mut self, writes: &[LogWrite], mut sectors: usize) {
        for write in writes {
            let file = match write.file {
                LogFile::Segment(segment) => self.segments.get_mut(&segment).unwrap(),
                LogFile::Rounds => {
                    self.rounds.resize(ROUNDS_BYTES as usize, 0);
                    &mut self.rounds
                }
            };
            let begin = write.offset as usize;
            let mut at = begin;
            while at < begin + write.bytes.len() && sectors > 0 {
                let end = ((at / SECTOR + 1) * SECTOR).min(begin + write.bytes.len());
                file[at..end].copy_from_slice(&write.bytes[at - begin..end - begin]);
                (at, sectors) = (end, sectors - 1);
            }
        }
    }
}
