//! The files of a log in memory, with the crash model: a sector is old or new, of a flush under way any subset is new.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use logic::io::{LogFile, LogWrite, SegmentId};
use logic::log::layout::SEGMENT_FIRST;
use logic::log::rounds::ROUNDS_SLOTS;
use logic::log::{Log, LogConfig, Position, ROUNDS_BYTES, Reader, RecoverError, RecoverInput, RoundRecord, StoreId};
use proto::ids::{ClusterId, Term};
use proto::limits::SECTOR_BYTES;
use raft::eraftpb::Entry;
use raft::{GetEntriesContext, Storage};

use super::history::Content;
use crate::memory;
use logic::vote::Healing;

/// Whose log it is.
pub const STORE: StoreId = StoreId { cluster: ClusterId(0xc1), nonce: 0x4e };
/// Recovery keeps each entry twice at most (in the log's memory and with whoever replays it), small ones with overhead.
const HEAP_PER_BYTE: usize = 16;
/// Beyond that: a ring that is all spoiled is written anew, and the log keeps those writes twice for a moment.
const HEAP_BYTES: usize = (256 << 10) + 2 * ROUNDS_BYTES as usize;

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

    /// A log with one small entry of term 1, whose ring went round once: every flush before was torn and nothing of it
    /// kept. No slot is zero, so reading the ring takes a tenth of the time (libFuzzer looks on at each compared zero).
    pub fn aged(segment_bytes: u32) -> Disk {
        static RING: OnceLock<Vec<u8>> = OnceLock::new();
        let void = |round| {
            let at = Position::first(SEGMENT_FIRST);
            RoundRecord { round, durable: 0, start: at, end: at, signature: 1 }.encode(STORE)
        };
        // Slot 0 has the last round of the turn.
        let ring = RING.get_or_init(|| [ROUNDS_SLOTS].into_iter().chain(1..ROUNDS_SLOTS).flat_map(void).collect());
        let mut disk = Disk { rounds: ring.clone(), ..Disk::new(segment_bytes) };
        let (mut log, _) = disk.recover(0).expect("an empty log");
        log.append(&[Entry { index: 1, term: 1, ..Entry::default() }], 0);
        disk.settle(&mut log);
        disk
    }

    fn file(&mut self, file: LogFile) -> &mut Vec<u8> {
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

    pub fn write(&mut self, writes: &[LogWrite]) {
        self.write_some(writes, || true);
    }

    /// Whoever opens the files gives back their lengths to those that were cut off, before anything is written. What is gone of
    /// the ring cannot be read from then on; of one that is gone altogether another one is made.
    fn mend_lengths(&mut self) {
        for bytes in self.segments.values_mut() {
            let stated = Reader::new(bytes).map_or(0, |reader| reader.header().segment_bytes as usize);
            bytes.resize(bytes.len().max(stated), 0);
        }
        let rest = if self.rounds.is_empty() { 0 } else { 0xff };
        self.rounds.resize(ROUNDS_BYTES as usize, rest);
    }

    /// A power cut while `writes` are under way: `survives` says for each sector whether it is new.
    pub fn write_some(&mut self, writes: &[LogWrite], mut survives: impl FnMut() -> bool) {
        self.mend_lengths();
        for write in writes {
            let begin = write.offset as usize;
            let file = self.file(write.file);
            let mut at = begin;
            while at < begin + write.bytes.len() {
                let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(begin + write.bytes.len());
                if survives() {
                    file[at..end].copy_from_slice(&write.bytes[at - begin..end - begin]);
                }
                at = end;
            }
        }
    }

    /// Recovers with a vote of `term`; gives the log and all that is in it.
    pub fn recover(&self, term: u64) -> Result<(Log, Content), RecoverError> {
        self.recover_as(term, Healing::Whole)
    }

    /// The same for a node that heals if no more than that is lost.
    pub fn recover_as(&self, term: u64, heals: Healing) -> Result<(Log, Content), RecoverError> {
        let segments: Vec<_> = self.segments.iter().map(|(id, bytes)| (SegmentId(*id), bytes.as_slice())).collect();
        let config = LogConfig::new(STORE, self.segment_bytes);
        let input = RecoverInput {
            segments: &segments,
            rounds: &self.rounds,
            vote_term: Term(term),
            config,
            snapshots: &[],
            heals,
        };
        let bytes: usize = segments.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut content = Content::new();
        let log = memory::within(HEAP_PER_BYTE * bytes + HEAP_BYTES, || {
            Log::recover(input, |index, term, payload| {
                assert_eq!(index.0, content.len() as u64 + 1, "committed entries come in order");
                content.push((term.0, payload.to_vec()));
            })
        })?;
        let last = log.last_index().expect("the log knows its last index");
        assert!(log.commit().0 == content.len() as u64 && log.commit().0 <= last);
        let above = log.entries(log.commit().0 + 1, last + 1, None, GetEntriesContext::empty(false));
        let above = above.expect("all above the commit hint is in memory");
        content.extend(above.into_iter().map(|entry| (entry.term, entry.data.to_vec())));
        assert_eq!((content.len() as u64, log.durable().0), (last, last));
        for (at, (term, _)) in content.iter().enumerate() {
            assert_eq!(log.term(at as u64 + 1), Ok(*term));
        }
        Ok((log, content))
    }

    /// Carries out whatever the log wants until it wants nothing more.
    pub fn settle(&mut self, log: &mut Log) {
        loop {
            if let Some((segment, header)) = log.take_prepare() {
                self.prepare(segment, &header);
                log.on_prepared(segment, Ok(()));
            }
            let Some(flush) = log.take_flush() else { return };
            self.segments.retain(|segment, _| flush.drop_from.is_none_or(|first| *segment < first.0));
            self.write(&flush.writes);
            log.on_flushed(flush.round);
        }
    }
}
