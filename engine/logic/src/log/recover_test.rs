//! A test for each row of the recovery table, and the table against a model of power cuts and rot.

use proto::ids::{LogIndex, Term};
use proto::limits::SECTOR_BYTES;
use raft::Storage;

use super::{Examined, Fault, Judgement, Proof, RecoverError, RecoverInput, Trace, examine};
use crate::io::{LogFile, LogWrite, SegmentId};
use crate::log::disk_model::{Content, Disk, Random, STORE, append_flushed, entry, start};
use crate::log::flush::LogFlush;
use crate::log::layout::{
    EntryHeader, EntryKind, Position, Reader, Reason, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, encode_entry,
};
use crate::log::log::Log;
use crate::log::rounds::{ROUNDS_BYTES, ROUNDS_SLOTS, RoundRecord};
use crate::vote::Healing;

/// Ten rounds of one entry each, all flushed, in one segment.
pub(in crate::log) fn ten_rounds() -> (Disk, Log) {
    let (mut disk, mut log) = start(64 << 10);
    for _ in 0..10 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    (disk, log)
}

/// The writes of an eleventh round of three entries that span sectors.
fn eleventh(log: &mut Log) -> LogFlush {
    log.append(&(11..14).map(|index| entry(index, 2, vec![index as u8; 600])).collect::<Vec<_>>(), 10);
    log.take_flush().unwrap()
}

pub(in crate::log) fn examined(disk: &Disk) -> Result<Judgement, RecoverError> {
    let segments: Vec<_> = disk.segments.iter().map(|(id, bytes)| (SegmentId(*id), bytes.as_slice())).collect();
    let input = RecoverInput {
        snapshots: &[],
        segments: &segments,
        rounds: &disk.rounds,
        vote_term: Term(u64::MAX),
        config: disk.config(),
        heals: Healing::Whole,
    };
    examine(&input).map(|examined: Examined<'_>| examined.judgement)
}

fn segment_sector(flush: &LogFlush, nth: u32) -> usize {
    (flush.writes[0].offset / SECTOR_BYTES as u32 + nth) as usize
}

#[test]
fn nothing_at_all_is_an_empty_log() {
    let (log, content) = Disk::new(4096).recover().unwrap();
    assert_eq!((log.judgement(), content.len()), (Judgement::Clean, 0));
    let mut without_ring = Disk::new(4096);
    without_ring.rounds.clear();
    assert_eq!(examined(&without_ring), Ok(Judgement::Clean));
}

#[test]
fn whole_rounds_and_nothing_behind_are_clean() {
    let (disk, _) = ten_rounds();
    let (log, content) = disk.recover().unwrap();
    assert_eq!((log.judgement(), content.len(), log.needs_mending()), (Judgement::Clean, 10, false));
    // Killed after the last flush was durable and before anybody heard of it.
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    disk.write(&flush.writes);
    let (log, content) = disk.recover().unwrap();
    assert_eq!((log.judgement(), content.len()), (Judgement::Clean, 13));
}

#[test]
fn bad_entry_that_a_later_one_proves_durable_is_rot() {
    let (mut disk, _) = ten_rounds();
    disk.file(LogFile::Segment(SegmentId(1)))[512 + 168 * 4 + 80] ^= 1;
    let Err(RecoverError::Rot(finding)) = examined(&disk) else { panic!("{:?}", examined(&disk)) };
    assert_eq!((finding.last.0, finding.round), (4, 4));
    assert!(matches!(finding.fault, Fault::Entry(Reason::PayloadChecksum { .. })), "{finding}");
    assert!(matches!(finding.proof, Some(Proof::Entry { .. } | Proof::Identifier { .. })), "{finding}");
    let text = RecoverError::Rot(finding).to_string();
    assert!(text.contains("segment 1 offset 1184") && text.contains("helio log verify"), "{text}");
}

#[test]
fn bad_entry_in_a_sealed_segment_is_rot() {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 4 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    // Even without any identifier.
    disk.rounds.fill(0);
    disk.file(LogFile::Segment(SegmentId(1)))[3000] ^= 1;
    assert!(matches!(examined(&disk), Err(RecoverError::Rot(_))), "{:?}", examined(&disk));
}

#[test]
fn bad_entry_without_identifier_is_torn_and_the_log_goes_on() {
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    let lost = segment_sector(&flush, 2);
    disk.write_some(&flush.writes, |file, sector| file != LogFile::Rounds && sector != lost);
    let (mut log, content) = disk.recover().unwrap();
    let Judgement::Torn(finding) = log.judgement() else { panic!("{:?}", log.judgement()) };
    assert!(finding.remains > 0 && finding.identifier == Trace::Absent, "{finding}");
    assert_eq!(content.len(), 11, "the first entry of the torn round is whole");
    assert!(log.needs_mending() && log.take_prepare().is_none());
    let mend = log.take_flush().unwrap();
    assert!(log.needs_mending() && log.take_flush().is_none());
    disk.write(&mend.writes);
    log.on_flushed(mend.round);
    assert!(!log.needs_mending());
    // The remains are gone, and what was kept has an identifier now.
    let (again, content) = disk.recover().unwrap();
    assert_eq!((again.judgement(), content.len(), again.needs_mending()), (Judgement::Clean, 11, false));
    append_flushed(&mut disk, &mut log, 2, 30);
    let (again, content) = disk.recover().unwrap();
    assert_eq!((again.judgement(), content.len()), (Judgement::Clean, 12));
    assert!(again.stats().round > flush.round, "a number that was seen is not used again");
}

#[test]
fn bad_entry_with_its_identifier_present_is_uncertain() {
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    let lost = segment_sector(&flush, 2);
    disk.write_some(&flush.writes, |file, sector| file == LogFile::Rounds || sector != lost);
    let Err(RecoverError::Uncertain(finding)) = examined(&disk) else { panic!("{:?}", examined(&disk)) };
    assert_eq!((finding.identifier, finding.proof), (Trace::Present { round: 11 }, None));
    // Nothing of its entries at all: the same.
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    disk.write_some(&flush.writes, |file, _| file == LogFile::Rounds);
    assert!(matches!(examined(&disk), Err(RecoverError::Uncertain(_))));
}

#[test]
fn bad_entry_with_its_identifier_unreadable_is_uncertain() {
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    let lost = segment_sector(&flush, 2);
    disk.write_some(&flush.writes, |file, sector| file != LogFile::Rounds && sector != lost);
    disk.rounds[11 * SECTOR_BYTES + 100] ^= 1;
    let Err(RecoverError::Uncertain(finding)) = examined(&disk) else { panic!("{:?}", examined(&disk)) };
    assert_eq!(finding.identifier, Trace::Unreadable { round: 11 });
    // No ring at all.
    disk.rounds.clear();
    assert!(matches!(examined(&disk), Err(RecoverError::Uncertain(_))));
}

#[test]
fn number_of_a_torn_round_is_passed_over_and_the_ring_has_no_gap() {
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    // The first entry is lost, so nothing of round 11 is kept, but its later ones are seen.
    disk.write_some(&flush.writes, |file, sector| file != LogFile::Rounds && sector != segment_sector(&flush, 0));
    let (mut log, content) = disk.recover().unwrap();
    assert_eq!(content.len(), 10);
    disk.settle(&mut log);
    append_flushed(&mut disk, &mut log, 2, 100);
    assert_eq!(log.stats().round, 12);
    // A whole turn later, to the round before the one that shares the slot with round 11.
    for _ in 0..1024 - 2 {
        append_flushed(&mut disk, &mut log, 2, 0);
    }
    assert_eq!((log.stats().round, examined(&disk)), (11 + 1024 - 1, Ok(Judgement::Clean)));
}

#[test]
fn rot_in_entries_kept_of_a_torn_round_is_not_taken_for_torn() {
    let (mut disk, mut log) = ten_rounds();
    let flush = eleventh(&mut log);
    let lost = segment_sector(&flush, 2);
    disk.write_some(&flush.writes, |file, sector| file != LogFile::Rounds && sector != lost);
    let (mut log, content) = disk.recover().unwrap();
    assert_eq!(content.len(), 11);
    disk.settle(&mut log);
    disk.file(LogFile::Segment(SegmentId(1)))[flush.writes[0].offset as usize + 70] ^= 1;
    assert!(matches!(examined(&disk), Err(RecoverError::Uncertain(_))), "{:?}", examined(&disk));
}

#[test]
fn entry_above_the_vote_is_amnesia() {
    let (disk, _) = ten_rounds();
    let Err(error) = disk.recover_at(0) else { panic!("recovered") };
    assert!(matches!(error, RecoverError::Amnesia { entry_term: Term(1), vote_term: Term(0), .. }), "{error}");
    assert!(error.to_string().contains("restore the directory"), "{error}");
    assert!(disk.recover_at(1).is_ok());
}

/// Found by fuzzing: the number passed over and the last round have one slot, and each start wrote both again.
#[test]
fn number_a_whole_turn_ahead_is_passed_over_once() {
    let (mut disk, _) = ten_rounds();
    let sector = disk.file(LogFile::Segment(SegmentId(2)));
    let ahead = SegmentHeader { durable: 10 + ROUNDS_SLOTS, ..SegmentHeader::decode(sector).unwrap() };
    sector[..SECTOR_BYTES].copy_from_slice(&ahead.encode()[..]);
    let (mut log, _) = disk.recover().unwrap();
    assert!(log.needs_mending());
    disk.settle(&mut log);
    let (again, content) = disk.recover().unwrap();
    assert_eq!((again.judgement(), content.len(), again.needs_mending()), (Judgement::Clean, 10, false));
}

#[test]
fn files_of_another_store_are_told_apart() {
    let (mut disk, _) = ten_rounds();
    let header = Reader::new(&disk.segments[&1]).unwrap().header().to_owned();
    let foreign = SegmentHeader { store: StoreId { nonce: 9, ..STORE }, ..header };
    disk.segments.get_mut(&1).unwrap()[..512].copy_from_slice(&foreign.encode()[..]);
    let Err(error) = examined(&disk) else { panic!("recovered") };
    assert!(matches!(error, RecoverError::Foreign { .. }) && error.to_string().contains("mixed up"), "{error}");
}

#[test]
fn crash_between_seal_and_next_segment_keeps_what_is_whole() {
    let (mut disk, mut log) = start(4096);
    append_flushed(&mut disk, &mut log, 1, 2000);
    // This round fills segment 1, seals it and goes on in segment 2.
    log.append(&[entry(2, 1, vec![2; 600]), entry(3, 1, vec![3; 1500])], 1);
    let flush = log.take_flush().unwrap();
    assert_eq!(flush.writes.len(), 3);
    // Only what is in segment 2 is lost.
    let mut sealed = disk.clone();
    sealed.write_some(&flush.writes, |file, _| file == LogFile::Segment(SegmentId(1)));
    let (mut log, content) = sealed.recover().unwrap();
    assert_eq!(content.len(), 2);
    assert!(matches!(log.judgement(), Judgement::Torn(_)));
    sealed.settle(&mut log);
    append_flushed(&mut sealed, &mut log, 1, 100);
    assert_eq!(sealed.recover().unwrap().1.len(), 3);
    // Only what is in segment 1 is lost: the remains in segment 2 must never come back.
    let mut unsealed = disk.clone();
    unsealed.write_some(&flush.writes, |file, _| file == LogFile::Segment(SegmentId(2)));
    let (mut log, content) = unsealed.recover().unwrap();
    assert_eq!(content.len(), 1);
    unsealed.settle(&mut log);
    assert_eq!(unsealed.segments[&2][SEGMENT_HEADER_BYTES as usize..].iter().filter(|byte| **byte != 0).count(), 0);
    // The identifier tells whether it was finished.
    disk.write_some(&flush.writes, |file, _| file != LogFile::Segment(SegmentId(2)));
    assert!(matches!(examined(&disk), Err(RecoverError::Uncertain(_))));
}

#[test]
fn entry_that_cannot_follow_is_rot_even_at_the_end() {
    let (disk, mut log) = ten_rounds();
    // The eleventh round written once more, as the device might that lost track: it is intact, but its round is over.
    let flush = eleventh(&mut log);
    let mut twice = disk.clone();
    twice.write(&flush.writes);
    let again =
        LogWrite { offset: flush.writes[0].offset + flush.writes[0].bytes.len() as u32, ..flush.writes[0].clone() };
    twice.write(&[again]);
    let Err(RecoverError::Rot(finding)) = examined(&twice) else { panic!("{:?}", examined(&twice)) };
    assert!(matches!(finding.fault, Fault::Order { round: 11, .. }), "{finding}");
}

#[test]
fn entry_is_taken_only_where_it_can_follow() {
    // Ten entries of term 1 in rounds 1 to 10; the hint says that nine are committed.
    let (disk, _) = ten_rounds();
    let segment = *Reader::new(&disk.segments[&1]).unwrap().header();
    let end = disk.recover().unwrap().0.end.offset;
    let good = EntryHeader {
        kind: EntryKind::Record,
        term: Term(1),
        index: LogIndex(11),
        round: 11,
        durable: 10,
        commit: LogIndex(9),
        round_start: end,
        round_continued: false,
        round_last: true,
    };
    let check = |header: EntryHeader| {
        let mut disk = disk.clone();
        let mut bytes = Vec::new();
        encode_entry(&segment, &header, b"x", &mut bytes);
        disk.write(&[LogWrite { file: LogFile::Segment(SegmentId(1)), offset: end, bytes }]);
        // Rounds that are passed over say so.
        for round in 11..header.round {
            let at = Position { segment: SegmentId(1), offset: end };
            let void = RoundRecord { round, durable: 10, start: at, end: at, signature: segment.signature };
            let (offset, bytes) = (void.offset(), void.encode(segment.store).to_vec());
            disk.write(&[LogWrite { file: LogFile::Rounds, offset, bytes }]);
        }
        examined(&disk)
    };
    assert_eq!(check(good), Ok(Judgement::Clean));
    // A round may be passed over, a term too; what is not committed may be replaced.
    assert_eq!(check(EntryHeader { round: 12, term: Term(5), ..good }), Ok(Judgement::Clean));
    assert_eq!(check(EntryHeader { index: LogIndex(10), term: Term(2), ..good }), Ok(Judgement::Clean));
    for bad in [
        EntryHeader { index: LogIndex(12), ..good },
        EntryHeader { index: LogIndex(9), term: Term(2), ..good },
        EntryHeader { index: LogIndex(0), commit: LogIndex(0), ..good },
        EntryHeader { term: Term(0), ..good },
        EntryHeader { commit: LogIndex(12), ..good },
        EntryHeader { durable: 9, ..good },
        EntryHeader { round: 10, durable: 9, ..good },
        EntryHeader { round: 9, durable: 8, ..good },
        EntryHeader { round_start: end - 8, ..good },
        EntryHeader { round_start: end + 8, ..good },
        EntryHeader { round_continued: true, ..good },
        EntryHeader { kind: EntryKind::Seal, index: LogIndex(10), ..good },
    ] {
        let outcome = check(bad);
        assert!(matches!(outcome, Err(RecoverError::Rot(_))), "{bad:?}: {outcome:?}");
    }
}

/// A log under random load, with what it must hold.
struct Run {
    random: Random,
    disk: Disk,
    log: Log,
    /// As raft sees it.
    memory: Content,
    /// As on disk after the last finished flush.
    durable: Content,
    term: u64,
    /// Never replaced from here down.
    committed: u64,
}

/// What happened in the runs: a case that never comes up is a fault of the test.
#[derive(Default, Debug)]
struct Seen {
    clean: u64,
    torn: u64,
    uncertain: u64,
    kept_part: u64,
    rolled: u64,
    replaced: u64,
    mend_cut: u64,
}

impl Run {
    fn new(seed: u64) -> Run {
        let (disk, log) = start(4096);
        Run {
            random: Random::new(seed),
            disk,
            log,
            memory: Content::new(),
            durable: Content::new(),
            term: 1,
            committed: 0,
        }
    }

    fn append(&mut self, seen: &mut Seen) {
        let last = self.memory.len() as u64;
        let mut first = last + 1;
        if self.random.one_in(4) {
            self.term += 1;
            if last > self.committed && self.random.one_in(2) {
                first = self.committed + 1 + self.random.below(last - self.committed);
                seen.replaced += 1;
            }
        }
        let mut term = if first > 1 && self.random.one_in(2) { self.memory[first as usize - 2].0 } else { self.term };
        self.memory.truncate(first as usize - 1);
        let count = 1 + self.random.below(5);
        let mut entries = Vec::new();
        for index in first..first + count {
            if self.random.one_in(3) {
                term = self.term;
            }
            let bytes = if self.random.one_in(5) { self.random.below(2500) } else { self.random.below(200) };
            let payload: Vec<u8> = (0..bytes).map(|_| self.random.below(256) as u8).collect();
            self.memory.push((term, payload.clone()));
            entries.push(entry(index, term, payload));
        }
        let last = self.memory.len() as u64;
        self.committed += self.random.below(last.saturating_sub(self.committed) + 1) / 2;
        self.log.append(&entries, self.committed);
    }

    fn prepare(&mut self) {
        if let Some((segment, header)) = self.log.take_prepare() {
            self.disk.prepare(segment, &header);
            self.log.on_prepared(segment, Ok(()));
        }
    }

    /// What the disk holds after the first `count` records of a flush.
    fn after(&self, flush: &LogFlush, whole: &Disk, count: usize) -> Content {
        let mut content = self.durable.clone();
        let mut left = count;
        for write in &flush.writes {
            let LogFile::Segment(segment) = write.file else { continue };
            let reader = Reader::new(&whole.segments[&segment.0]).unwrap();
            for found in reader.resync(write.offset) {
                if found.header.round == flush.round && found.header.kind == EntryKind::Record && left > 0 {
                    left -= 1;
                    content.truncate(found.header.index.0 as usize - 1);
                    content.push((found.header.term.0, found.payload.to_vec()));
                }
            }
        }
        content
    }

    fn records(&self, flush: &LogFlush, whole: &Disk) -> usize {
        let in_segment = |write: &LogWrite| match write.file {
            LogFile::Rounds => 0,
            LogFile::Segment(segment) => Reader::new(&whole.segments[&segment.0])
                .unwrap()
                .resync(write.offset)
                .filter(|found| found.header.round == flush.round && found.header.kind == EntryKind::Record)
                .count(),
        };
        flush.writes.iter().map(in_segment).sum()
    }

    /// A flush that succeeds, or is cut off by a power cut. `false` when the log refuses to go on.
    fn flush(&mut self, seen: &mut Seen) -> bool {
        let Some(flush) = self.log.take_flush() else { return true };
        // The next segment may be made while a flush is under way.
        if self.random.one_in(2) {
            self.prepare();
        }
        let mut whole = self.disk.clone();
        whole.write(&flush.writes);
        seen.rolled += u64::from(flush.writes.len() > 2);
        let count = self.records(&flush, &whole);
        if !self.random.one_in(6) {
            // More may be appended meanwhile.
            if self.random.one_in(3) {
                self.append(seen);
            }
            self.durable = self.after(&flush, &whole, count);
            self.disk = whole;
            let flushed = self.log.on_flushed(flush.round);
            let (last, term) = (flushed.index.0 as usize, flushed.term.0);
            assert!(last <= self.durable.len());
            assert!(last == 0 || self.memory[last - 1].0 == term);
            self.log.check_invariants();
            return true;
        }
        self.cut(&flush, &whole, count, seen)
    }

    fn cut(&mut self, flush: &LogFlush, whole: &Disk, count: usize, seen: &mut Seen) -> bool {
        let chance = 1 + self.random.below(6);
        let random = &mut self.random;
        self.disk.write_some(&flush.writes, |_, _| random.below(6) < chance);
        let identifier = self.disk.rounds == whole.rounds;
        let intact = self.disk.segments == whole.segments;
        match self.disk.recover_at(self.term) {
            Err(RecoverError::Uncertain(finding)) => {
                assert!(identifier && !intact, "{finding}");
                seen.uncertain += 1;
                false
            }
            Err(error) => panic!("a power cut is no rot: {error}"),
            Ok((log, content)) => {
                assert!(intact || !identifier, "entries are missing although the identifier is there");
                let kept = (0..=count).rev().find(|kept| self.after(flush, whole, *kept) == content);
                let kept = kept.expect("what was flushed is there, and a part of what was being flushed");
                assert!(!intact || kept == count);
                match log.judgement() {
                    Judgement::Clean => seen.clean += 1,
                    _ => seen.torn += 1,
                }
                seen.kept_part += u64::from(kept > 0 && kept < count);
                self.restart(log, content, seen)
            }
        }
    }

    /// Goes on with a recovered log, perhaps after further power cuts while it is mended.
    fn restart(&mut self, log: Log, content: Content, seen: &mut Seen) -> bool {
        self.log = log;
        while self.random.one_in(2) && self.log.needs_mending() {
            let mend = self.log.take_flush().unwrap();
            let random = &mut self.random;
            self.disk.write_some(&mend.writes, |_, _| random.one_in(2));
            let (log, again) = self.disk.recover_at(self.term).unwrap();
            assert_eq!(again, content, "mending changes nothing that was kept");
            self.log = log;
            seen.mend_cut += 1;
        }
        if self.log.needs_mending() {
            let mend = self.log.take_flush().unwrap();
            self.disk.write(&mend.writes);
            self.log.on_flushed(mend.round);
        }
        let (log, again) = self.disk.recover_at(self.term).unwrap();
        assert!(again == content && log.judgement() == Judgement::Clean && !log.needs_mending());
        self.log = log;
        self.durable = content.clone();
        self.memory = content;
        true
    }
}

fn run(seed: u64, steps: u64, seen: &mut Seen) -> Option<Run> {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        match run.random.below(5) {
            0 | 1 => run.append(seen),
            2 => run.prepare(),
            _ => {
                if !run.flush(seen) {
                    return None;
                }
            }
        }
    }
    Some(run)
}

#[test]
fn power_cut_never_loses_what_was_flushed() {
    let mut seen = Seen::default();
    for seed in 0..400 {
        run(seed, 400, &mut seen);
    }
    let all = [seen.clean, seen.torn, seen.uncertain, seen.kept_part, seen.rolled, seen.replaced, seen.mend_cut];
    assert!(all.iter().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn rounds_beyond_the_ring_recover_as_before() {
    let (mut disk, mut log) = start(16 << 10);
    let mut random = Random::new(7);
    for round in 0..2500u64 {
        append_flushed(&mut disk, &mut log, 1 + round / 100, random.below(60) as usize);
        if round % 501 == 0 {
            log.append(&[entry(log.last_index().unwrap() + 1, 99, vec![9; 900])], 0);
            let flush = log.take_flush().unwrap();
            disk.write_some(&flush.writes, |file, _| file != LogFile::Rounds && random.one_in(2));
            let (again, content) = disk.recover().unwrap();
            assert!(content.len() as u64 >= log.durable().0);
            log = again;
            disk.settle(&mut log);
            log.append(&[entry(log.durable().0.min(round) + 1, 1 + round / 100, vec![])], 0);
            disk.settle(&mut log);
        }
    }
    assert!(log.stats().round > 2 * ROUNDS_SLOTS);
}

#[test]
fn rot_in_what_was_flushed_is_never_silent() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..60 {
        let Some(mut run) = run(seed, 120, &mut Seen::default()) else { continue };
        run.disk.settle(&mut run.log);
        let content = run.disk.recover_at(run.term).unwrap().1;
        assert_eq!(content, run.memory);
        for _ in 0..40 {
            let mut rotten = run.disk.clone();
            damage(&mut run.random, &mut rotten);
            match rotten.recover_at(run.term) {
                Ok((_, found)) => {
                    assert!(found == content, "seed {seed}: {} entries of {}", found.len(), content.len());
                    harmless += 1;
                }
                Err(RecoverError::Rot(_) | RecoverError::Uncertain(_)) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(refused > 300 && harmless > 100, "{refused} refused, {harmless} harmless");
}

/// One fault: a flipped bit, a sector of garbage or zeros, a file cut short or gone.
fn damage(random: &mut Random, disk: &mut Disk) {
    if random.one_in(20) {
        disk.rounds.clear();
        return;
    }
    let ids: Vec<u64> = disk.segments.keys().copied().collect();
    let id = ids[random.below(ids.len() as u64) as usize];
    let bytes = if random.one_in(4) { &mut disk.rounds } else { disk.segments.get_mut(&id).unwrap() };
    if bytes.len() < SECTOR_BYTES {
        return;
    }
    let sector = random.below((bytes.len() / SECTOR_BYTES) as u64) as usize * SECTOR_BYTES;
    match random.below(4) {
        0 => bytes[sector + random.below(512) as usize] ^= 1 << random.below(8),
        1 => bytes[sector..sector + SECTOR_BYTES].fill(0),
        2 => bytes[sector..sector + SECTOR_BYTES].fill_with(|| random.below(256) as u8),
        // An older sector or one from elsewhere.
        _ => bytes.copy_within(0..SECTOR_BYTES, sector),
    }
}

#[test]
fn whatever_is_on_disk_recovery_does_not_panic() {
    let mut outcomes = [0u64; 2];
    for seed in 0..120 {
        let Some(mut run) = run(seed, 80, &mut Seen::default()) else { continue };
        for _ in 0..25 {
            let mut disk = run.disk.clone();
            for _ in 0..1 + run.random.below(4) {
                mangle(&mut run.random, &mut disk);
            }
            outcomes[usize::from(disk.recover_at(run.term).is_ok())] += 1;
        }
    }
    assert!(outcomes[0] > 500 && outcomes[1] > 20, "{outcomes:?}");
}

/// Truncate, flip, repeat, splice.
fn mangle(random: &mut Random, disk: &mut Disk) {
    let ids: Vec<u64> = disk.segments.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = ids[random.below(ids.len() as u64) as usize];
    let other = disk.segments[&ids[random.below(ids.len() as u64) as usize]].clone();
    match random.below(9) {
        0 => drop(disk.segments.remove(&id)),
        1 => drop(disk.segments.insert(id, other)),
        2 => drop(disk.segments.insert(id + 1 + random.below(2), other)),
        3 => disk.rounds.truncate(random.below(u64::from(ROUNDS_BYTES)) as usize),
        4 => {
            let bytes = disk.segments.get_mut(&id).unwrap();
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
        5 => {
            // A stretch of another segment at the same place.
            let bytes = disk.segments.get_mut(&id).unwrap();
            let end = bytes.len().min(other.len());
            let begin = random.below(end as u64 + 1) as usize;
            bytes[begin..end].copy_from_slice(&other[begin..end]);
        }
        6 => {
            // An entry repeated further on.
            let bytes = disk.segments.get_mut(&id).unwrap();
            let eighths = (bytes.len() / 8).max(1) as u64;
            let (from, to) = (random.below(eighths) as usize * 8, random.below(eighths) as usize * 8);
            let length = (random.below(800) as usize).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
        _ => damage(random, disk),
    }
}
