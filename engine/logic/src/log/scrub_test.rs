//! A log that is read again while it is in use.

use proto::ids::{LogIndex, Term};
use raft::{GetEntriesContext, Storage};

use crate::io::{DiskError, LogFile};
use crate::log::disk_model::{Disk, Random, append_flushed, entry, start};
use crate::log::layout::SEGMENT_HEADER_BYTES;
use crate::log::log::Log;
use crate::log::recover::{Judgement, SnapshotMark};
use crate::log::scrub::LogRead;
use crate::vote::Healing;

/// Small segments, entries of many lengths, some of them replaced by those of later terms.
fn random_log(random: &mut Random) -> (Disk, Log) {
    let (mut disk, mut log) = start(4096);
    let mut term = 1;
    for _ in 0..60 + random.below(60) {
        let last = log.last_index().unwrap();
        if last > 0 && random.one_in(8) {
            term += 1;
            let first = last - random.below(last.min(5));
            log.append(&[entry(first, term, vec![7; random.below(300) as usize])], 0);
            disk.settle(&mut log);
        }
        // Nothing is said to be committed, so all may be replaced.
        let last = log.last_index().unwrap();
        log.append(&[entry(last + 1, term, vec![last as u8; 1 + random.below(700) as usize])], 0);
        disk.settle(&mut log);
    }
    (disk, log)
}

fn bytes_of(disk: &mut Disk, read: LogRead) -> Vec<u8> {
    disk.file(LogFile::Segment(read.segment))[read.offset as usize..][..read.length as usize].to_vec()
}

/// A whole pass; gives how many bytes were read.
fn pass(disk: &mut Disk, log: &mut Log) -> u64 {
    log.begin_scrub();
    let mut sum = 0;
    while let Some(read) = log.take_scrub() {
        assert!(log.is_scrubbing() && log.take_scrub().is_none(), "one read at a time");
        sum += u64::from(read.length);
        log.on_scrubbed(Ok(&bytes_of(disk, read)));
    }
    assert!(!log.is_scrubbing());
    sum
}

fn mark(log: &Log, index: u64) -> SnapshotMark {
    SnapshotMark { index: LogIndex(index), term: Term(log.term(index).unwrap()) }
}

#[test]
fn all_that_is_durable_is_read_again_and_nothing_else_is_taken_for_rot() {
    let mut random = Random::new(11);
    for turn in 0..200 {
        let (mut disk, mut log) = random_log(&mut random);
        let read = pass(&mut disk, &mut log);
        assert!(log.rot().is_none(), "turn {turn}: {:?}", log.rot());
        assert!(read >= 4096 * (disk.segments.len() as u64 - 3), "turn {turn}: {read}");
        // As well after a restart, behind a snapshot, and while it grows.
        let (mut log, _) = disk.recover().unwrap();
        pass(&mut disk, &mut log);
        let last = log.last_index().unwrap();
        let newest = mark(&log, 1 + random.below(last));
        let (mut log, _) = disk.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
        log.begin_scrub();
        while let Some(read) = log.take_scrub() {
            log.append(&[entry(log.last_index().unwrap() + 1, 100, vec![8; 100])], 0);
            disk.settle(&mut log);
            if random.one_in(2) && log.last_index().unwrap() < last + 40 {
                log.append(&[entry(log.last_index().unwrap(), 100, vec![8; 20])], 0);
            }
            log.on_scrubbed(Ok(&bytes_of(&mut disk, read)));
        }
        assert!(log.rot().is_none(), "turn {turn}: {:?}", log.rot());
    }
}

/// The promise of `Rot::upto`, wherever a bit flips: a snapshot up to there, and nobody misses anything at the next start.
#[test]
fn behind_a_snapshot_up_to_where_the_rot_reaches_the_next_start_is_clean() {
    let mut random = Random::new(12);
    let (mut found, mut headers) = (0, 0);
    for turn in 0..3000 {
        let (mut disk, mut log) = random_log(&mut random);
        let (_, active) = disk.segments.iter().rfind(|(_, bytes)| bytes[512..].iter().any(|byte| *byte != 0)).unwrap();
        let active = active.clone();
        let ids: Vec<u64> = disk.segments.keys().copied().collect();
        for _ in 0..=random.below(3) {
            let id = ids[random.below(ids.len() as u64) as usize];
            let at = if random.one_in(9) { random.below(40) } else { 512 + random.below(3584) } as usize;
            // What is behind the end of the log is not the scrub's, nor is the header of a segment that is in use.
            let is_used = disk.segments[&id][at..].iter().any(|byte| *byte != 0);
            if is_used && (at >= 512 || disk.segments[&id] != active) && id + 1 < ids.len() as u64 {
                disk.segments.get_mut(&id).unwrap()[at] ^= 1 << random.below(8);
                headers += u64::from(at < SEGMENT_HEADER_BYTES as usize);
            }
        }
        pass(&mut disk, &mut log);
        let Some(rot) = log.rot() else {
            let (again, _) = disk.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
            assert_eq!(again.lost(), Healing::Whole, "turn {turn}: {:?}", again.judgement());
            continue;
        };
        found += 1;
        let (again, _) = disk.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
        assert_eq!(again.lost(), Healing::Rot, "turn {turn}: {:?}", again.judgement());
        while log.last_index().unwrap() < rot.upto.0 {
            append_flushed(&mut disk, &mut log, 1000, 50);
        }
        let newest = mark(&log, rot.upto.0);
        let (again, _) = disk.recover_with(u64::MAX, &[newest], Healing::Rot).unwrap();
        assert_eq!(again.judgement(), Judgement::Clean, "turn {turn}: {rot:?}");
        // And to the running one it is as if nothing had been.
        log.set_commit(rot.upto.0);
        log.set_applied(rot.upto.0);
        log.compact(rot.upto);
        assert!(log.rot().is_none(), "turn {turn}");
        pass(&mut disk, &mut log);
        assert!(log.rot().is_none(), "turn {turn}: {:?}", log.rot());
    }
    assert!(found > 2000 && headers > 200, "{found} {headers}");
}

#[test]
fn what_was_forgotten_while_it_was_read_is_no_rot() {
    let mut random = Random::new(13);
    let (mut disk, mut log) = random_log(&mut random);
    let last = log.last_index().unwrap();
    log.set_commit(last);
    log.set_applied(last);
    log.begin_scrub();
    let read = log.take_scrub().unwrap();
    let end = log.compact(LogIndex(last / 2)).unwrap();
    disk.segments.retain(|id, _| *id >= end.0);
    log.on_scrubbed(Err(DiskError::Unreadable));
    assert!(log.rot().is_none() && log.is_scrubbing());
    // It goes on with what is there.
    let next = log.take_scrub().unwrap();
    assert!(read.segment < end && next.segment >= end, "{read:?} {next:?}");
    for _ in 0..3 {
        log.on_scrubbed(Err(DiskError::Refused));
        assert!(log.rot().is_none(), "what the system refuses to read may be good");
        assert_eq!(log.take_scrub(), Some(next), "the same part is read again");
    }
    log.on_scrubbed(Err(DiskError::Unreadable));
    assert!(log.rot().is_some());
}

/// Replaced entries lie where they were written, and the next start reads them: in them rot counts, and their being replaced
/// while they are read does not.
#[test]
fn entries_that_were_replaced_while_they_were_read_are_no_rot_and_rot_in_them_is() {
    let (mut disk, mut log) = start(1 << 20);
    for _ in 0..20 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    log.begin_scrub();
    let read = log.take_scrub().unwrap();
    let bytes = bytes_of(&mut disk, read);
    log.append(&[entry(5, 2, vec![2; 100])], 0);
    disk.settle(&mut log);
    log.on_scrubbed(Ok(&bytes));
    assert!(log.rot().is_none());
    // Entry 15 is not in the log any more, and its bytes are.
    disk.segments.get_mut(&1).unwrap()[512 + 15 * 172] ^= 1;
    pass(&mut disk, &mut log);
    let rot = log.rot().unwrap();
    assert!(rot.upto > LogIndex(20), "{rot:?}");
}

#[test]
fn entries_that_went_bad_are_not_asked_for_again_and_again() {
    let (mut disk, mut log) = start(64 << 20);
    for round in 0..300 {
        let first = 1 + round * 100;
        log.append(&(first..first + 100).map(|index| entry(index, 1, vec![3; 1000])).collect::<Vec<_>>(), first - 1);
        disk.settle(&mut log);
    }
    let last = log.last_index().unwrap();
    log.set_commit(last);
    log.set_applied(last);
    let ask = |log: &Log, low| assert!(log.entries(low, low + 1, None, GetEntriesContext::empty(true)).is_err());
    ask(&log, 500);
    let fetch = log.take_fetch().unwrap();
    assert!(log.on_fetched(fetch.id, Err(DiskError::Refused)).is_err());
    assert!(log.rot().is_none(), "what the system refuses to read may be good");
    ask(&log, 500);
    let fetch = log.take_fetch().unwrap();
    assert!(log.on_fetched(fetch.id, Err(DiskError::Unreadable)).is_err());
    let rot = log.rot().unwrap();
    assert!(rot.upto < LogIndex(700), "{rot:?}");
    ask(&log, 500);
    assert!(log.take_fetch().is_none());
    ask(&log, rot.upto.0 + 1);
    assert!(log.take_fetch().is_some());
    // A snapshot stands for it: whoever lacks it is offered that.
    log.compact(rot.upto);
    assert!(log.rot().is_none());
    let error = log.entries(500, 501, None, GetEntriesContext::empty(true)).unwrap_err();
    assert_eq!(error, raft::Error::Store(raft::StorageError::Compacted));
}
