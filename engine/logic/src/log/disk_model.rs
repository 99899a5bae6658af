//! For tests: the log's files in memory, with the crash model of the blueprint. A sector is old or new, never mixed; of the
//! sectors of the flush under way any subset survives.

use std::collections::BTreeMap;

use proto::ids::{ClusterId, Term};
use proto::limits::SECTOR_BYTES;
use raft::eraftpb::Entry;
use raft::{GetEntriesContext, Storage};

use crate::io::{LogFile, LogWrite, SegmentId};
use crate::log::flush::LogFlush;
use crate::log::layout::StoreId;
use crate::log::log::{Log, LogConfig};
use crate::log::recover::{RecoverError, RecoverInput, SnapshotMark};
use crate::log::rounds::ROUNDS_BYTES;
use crate::mutant::Mutant;
use crate::vote::Healing;

pub const STORE: StoreId = StoreId { cluster: ClusterId(0xc1), nonce: 0x4e };

/// Term and payload of entries 1, 2, ...
pub type Content = Vec<(u64, Vec<u8>)>;

/// Xorshift: the same seed gives the same run.
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Disk {
    pub segments: BTreeMap<u64, Vec<u8>>,
    pub rounds: Vec<u8>,
    pub segment_bytes: u32,
}

impl Disk {
    pub fn new(segment_bytes: u32) -> Disk {
        Disk { segments: BTreeMap::new(), rounds: vec![0; ROUNDS_BYTES as usize], segment_bytes }
    }

    pub fn file(&mut self, file: LogFile) -> &mut Vec<u8> {
        match file {
            LogFile::Rounds => &mut self.rounds,
            LogFile::Segment(segment) => self.segments.get_mut(&segment.0).expect("written only when prepared"),
        }
    }

    pub fn prepare(&mut self, segment: SegmentId, header: &[u8; SECTOR_BYTES]) {
        let mut bytes = vec![0; self.segment_bytes as usize];
        bytes[..SECTOR_BYTES].copy_from_slice(header);
        self.segments.insert(segment.0, bytes);
    }

    /// Segments that were cut off get their length back before anything is written.
    fn mend_lengths(&mut self) {
        let length = self.segment_bytes as usize;
        self.segments.values_mut().filter(|bytes| bytes.len() < length).for_each(|bytes| bytes.resize(length, 0));
    }

    pub fn write(&mut self, writes: &[LogWrite]) {
        self.mend_lengths();
        for write in writes {
            let file = self.file(write.file);
            file[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    /// A power cut while `writes` are under way: `survives` chooses the sectors that are new.
    pub fn write_some(&mut self, writes: &[LogWrite], mut survives: impl FnMut(LogFile, usize) -> bool) {
        self.mend_lengths();
        let mut whole = self.clone();
        whole.write(writes);
        for write in writes {
            let begin = write.offset as usize / SECTOR_BYTES;
            let end = (write.offset as usize + write.bytes.len()).div_ceil(SECTOR_BYTES);
            for sector in begin..end {
                if survives(write.file, sector) {
                    let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                    let new = whole.file(write.file)[range.clone()].to_vec();
                    self.file(write.file)[range].copy_from_slice(&new);
                }
            }
        }
    }

    pub fn config(&self) -> LogConfig {
        LogConfig { store: STORE, segment_bytes: self.segment_bytes, mutant: Mutant::None }
    }

    /// Recovers with a vote of `term`; gives the log and all that is in it.
    pub fn recover_at(&self, term: u64) -> Result<(Log, Content), RecoverError> {
        self.recover_with(term, &[], Healing::Whole)
    }

    /// As `recover_at`, behind snapshots: gives what is in the log behind the last of them.
    pub fn recover_with(
        &self,
        term: u64,
        snapshots: &[SnapshotMark],
        heals: Healing,
    ) -> Result<(Log, Content), RecoverError> {
        let segments: Vec<_> = self.segments.iter().map(|(id, bytes)| (SegmentId(*id), bytes.as_slice())).collect();
        let input = RecoverInput {
            snapshots,
            segments: &segments,
            rounds: &self.rounds,
            vote_term: Term(term),
            config: self.config(),
            heals,
        };
        let first = snapshots.last().map_or(0, |mark| mark.index.0) + 1;
        let mut content = Content::new();
        let log = Log::recover(input, |index, term, payload| {
            assert_eq!(index.0, content.len() as u64 + first, "committed entries come in order");
            content.push((term.0, payload.to_vec()));
        })?;
        assert_eq!(log.commit().0 + 1, content.len() as u64 + first);
        let context = GetEntriesContext::empty(false);
        let above = log.entries(log.commit().0 + 1, log.last_index().unwrap() + 1, None, context).unwrap();
        content.extend(above.into_iter().map(|entry| (entry.term, entry.data.to_vec())));
        Ok((log, content))
    }

    pub fn recover(&self) -> Result<(Log, Content), RecoverError> {
        self.recover_at(u64::MAX)
    }

    /// Carries out whatever the log wants until it wants nothing more; every flush succeeds.
    pub fn settle(&mut self, log: &mut Log) {
        loop {
            if let Some((segment, header)) = log.take_prepare() {
                assert!(!self.segments.contains_key(&segment.0), "segment {} exists", segment.0);
                self.prepare(segment, &header);
                log.on_prepared(segment, Ok(()));
            }
            let Some(LogFlush { round, writes, drop_from }) = log.take_flush() else { return };
            self.segments.retain(|segment, _| drop_from.is_none_or(|from| *segment < from.0));
            self.write(&writes);
            log.on_flushed(round);
            log.check_invariants();
        }
    }
}

pub fn entry(index: u64, term: u64, payload: Vec<u8>) -> Entry {
    Entry { index, term, data: payload.into(), ..Entry::default() }
}

/// An empty log on a new disk, its first segment prepared.
pub fn start(segment_bytes: u32) -> (Disk, Log) {
    let mut disk = Disk::new(segment_bytes);
    let (mut log, content) = disk.recover().unwrap();
    assert!(content.is_empty() && !log.needs_mending());
    disk.settle(&mut log);
    (disk, log)
}

/// Appends one entry of that many bytes behind the last and flushes it as a round of its own.
pub fn append_flushed(disk: &mut Disk, log: &mut Log, term: u64, bytes: usize) {
    let index = log.last_index().unwrap() + 1;
    log.append(&[entry(index, term, vec![index as u8; bytes])], index - 1);
    disk.settle(log);
}
