//! Logs behind snapshots: forgotten at their beginning, damaged where nothing is needed, replaced as a whole.

use proto::ids::{LogIndex, Term};
use raft::{GetEntriesContext, Storage, StorageError};

use crate::log::disk_model::{Content, Disk, Random, append_flushed, entry, start};
use crate::log::log::Log;
use crate::log::recover::{Judgement, SnapshotMark};
use crate::vote::Healing;

fn mark(index: u64, term: u64) -> SnapshotMark {
    SnapshotMark { index: LogIndex(index), term: Term(term) }
}

/// Six segments; term 1 up to entry 20, then term 2.
fn several_segments() -> (Disk, Log, Content) {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 7 {
        let index = log.last_index().unwrap() + 1;
        append_flushed(&mut disk, &mut log, if index <= 20 { 1 } else { 2 }, 50 + index as usize * 37 % 400);
    }
    let content = disk.recover().unwrap().1;
    (disk, log, content)
}

fn entries(log: &Log, low: u64) -> Result<usize, raft::Error> {
    log.entries(low, log.last_index().unwrap() + 1, None, GetEntriesContext::empty(true)).map(|entries| entries.len())
}

#[test]
fn forgotten_log_starts_behind_its_snapshots() {
    let (disk, _, whole) = several_segments();
    let last = whole.len() as u64;
    for older in 1..last {
        let (mut disk, (mut log, _)) = (disk.clone(), disk.recover().unwrap());
        log.set_applied(last);
        let end = log.compact(LogIndex(older));
        disk.segments.retain(|id, _| end.is_none_or(|end| *id >= end.0));
        let term = |index: u64| whole[index as usize - 1].0;
        for newer in [older, (older + 5).min(last), last] {
            let marks = [mark(older, term(older)), mark(newer, term(newer))];
            let marks = if older == newer { &marks[1..] } else { &marks[..] };
            let (log, content) = disk.recover_with(u64::MAX, marks, Healing::Whole).unwrap();
            assert_eq!(log.judgement(), Judgement::Clean);
            assert_eq!(content[..], whole[newer as usize..], "{older} {newer}");
            // As far as the segments go back: to the older snapshot, or to the first entry.
            let first = if end.is_some() { older + 1 } else { 1 };
            assert_eq!(log.first_index().unwrap(), first, "{older} {newer}");
            assert_eq!(log.term(older).unwrap(), term(older));
        }
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (older + 1, last));
        let error = entries(&log, older).unwrap_err();
        assert_eq!(error, raft::Error::Store(StorageError::Compacted));
    }
}

#[test]
fn nothing_below_a_snapshot_stops_a_start_and_nothing_above_is_lost() {
    let (disk, _, whole) = several_segments();
    let (mut random, last) = (Random::new(5), whole.len() as u64);
    let mut clean = 0;
    for turn in 0..3000 {
        let at = 1 + random.below(last);
        let newest = mark(at, whole[at as usize - 1].0);
        let mut damaged = disk.clone();
        for _ in 0..=random.below(3) {
            let id = 1 + random.below(6);
            match random.below(6) {
                0 => drop(damaged.segments.remove(&id)),
                1 => {
                    if let Some(bytes) = damaged.segments.get_mut(&id) {
                        bytes[40] ^= 1;
                    }
                }
                _ => {
                    if let Some(bytes) = damaged.segments.get_mut(&id) {
                        bytes[512 + random.below(3584) as usize] ^= 1 << random.below(8);
                    }
                }
            }
        }
        let (log, content) = damaged.recover_with(u64::MAX, &[newest], Healing::Rot).unwrap();
        let behind = &whole[at as usize..];
        assert_eq!(content[..], behind[..content.len()], "turn {turn}");
        assert!(content.len() == behind.len() || log.lost() != Healing::Whole, "turn {turn}: {:?}", log.judgement());
        clean += usize::from(log.lost() == Healing::Whole);
        // It goes on, and the next start is clean.
        let mut log = log;
        damaged.settle(&mut log);
        for _ in 0..9 {
            append_flushed(&mut damaged, &mut log, 3, 300);
        }
        let (log, again) = damaged.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
        assert_eq!((log.judgement(), again.len()), (Judgement::Clean, content.len() + 9), "turn {turn}");
        assert_eq!(again[..content.len()], content[..], "turn {turn}");
    }
    assert!(clean > 500, "{clean}");
}

/// Entries do not know where they lie: of a block that was written to another place, too, each entry is whole.
#[test]
fn entries_that_lie_where_they_were_not_written_are_not_taken_for_the_log() {
    let (disk, _, whole) = several_segments();
    let (mut random, last) = (Random::new(7), whole.len() as u64);
    for turn in 0..6000 {
        let at = 1 + random.below(last);
        let newest = mark(at, whole[at as usize - 1].0);
        let mut damaged = disk.clone();
        let bytes = damaged.segments.get_mut(&(1 + random.below(6))).unwrap();
        let length = 8 * (1 + random.below(200)) as usize;
        let place = |random: &mut Random| 512 + 8 * random.below((3584 - length as u64) / 8) as usize;
        let (source, target) = (place(&mut random), place(&mut random));
        if random.below(2) == 0 {
            bytes.copy_within(source..source + length, target);
        } else {
            let (one, other) = (bytes[source..source + length].to_vec(), bytes[target..target + length].to_vec());
            bytes[target..target + length].copy_from_slice(&one);
            bytes[source..source + length].copy_from_slice(&other);
        }
        let (mut log, content) = damaged.recover_with(u64::MAX, &[newest], Healing::Rot).unwrap();
        let behind = &whole[at as usize..];
        assert_eq!(content[..], behind[..content.len()], "turn {turn}");
        assert!(content.len() == behind.len() || log.lost() != Healing::Whole, "turn {turn}: {:?}", log.judgement());
        damaged.settle(&mut log);
        append_flushed(&mut damaged, &mut log, 3, 300);
        let (log, again) = damaged.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
        assert_eq!((log.judgement(), again.len()), (Judgement::Clean, content.len() + 1), "turn {turn}");
    }
}

/// A snapshot of another node takes the place of the log, whose end may even be of another history.
#[test]
fn log_goes_on_behind_a_snapshot_of_another_node() {
    for (stale, restarts) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut disk, mut log, whole) = several_segments();
        let last = whole.len() as u64;
        if stale {
            // Entries that were never committed, above the snapshot, in the term of a leader that lost.
            let entries: Vec<_> = (last + 1..last + 9).map(|index| entry(index, 5, vec![9; 200])).collect();
            log.append(&entries, last - 1);
            disk.settle(&mut log);
        }
        let newest = mark(last + 4, 4);
        let mut log = log.install(newest);
        if !restarts {
            disk.settle(&mut log);
            let (again, content) = disk.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
            assert_eq!((content.len(), again.judgement()), (0, Judgement::Clean), "with nothing behind it yet");
        }
        let begins = |log: &Log| {
            assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (last + 5, last + 4));
            assert_eq!((log.term(last + 4).unwrap(), log.commit().0), (4, last + 4));
        };
        begins(&log);
        if restarts {
            let (again, content) = disk.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
            assert_eq!((content.len(), again.lost()), (0, Healing::Whole), "{:?}", again.judgement());
            begins(&again);
            log = again;
            disk.settle(&mut log);
        }
        disk.settle(&mut log);
        for _ in 0..40 {
            append_flushed(&mut disk, &mut log, 4, 100);
        }
        let (again, content) = disk.recover_with(u64::MAX, &[newest], Healing::Whole).unwrap();
        assert_eq!((content.len(), again.judgement()), (40, Judgement::Clean), "stale {stale} restarts {restarts}");
        // A later snapshot of its own, and the log behind both.
        let later = mark(last + 20, 4);
        let (mut again, content) = disk.recover_with(u64::MAX, &[newest, later], Healing::Whole).unwrap();
        assert_eq!((content.len(), again.judgement()), (24, Judgement::Clean));
        again.set_applied(last + 44);
        let end = again.compact(newest.index).or_else(|| again.compact(later.index));
        disk.segments.retain(|id, _| end.is_none_or(|end| *id >= end.0));
        let (again, content) = disk.recover_with(u64::MAX, &[later], Healing::Whole).unwrap();
        assert_eq!((content.len(), again.judgement()), (24, Judgement::Clean));
        // Without the snapshot that it begins behind, the log lost what was before.
        let (lost, content) = disk.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
        assert!(lost.lost() == Healing::Rot && content.len() as u64 <= last, "{:?}", lost.judgement());
    }
}

/// Killed after the old log was removed and before the first segment of the new one was made.
#[test]
fn log_that_begins_anew_behind_a_snapshot_and_has_no_segment_yet_is_clean() {
    let (disk, _, content) = several_segments();
    let last = content.len() as u64;
    let (log, _) = disk.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
    let mut installed = log.install(mark(last + 5, 4));
    let mut disk = disk;
    disk.settle(&mut installed);
    disk.segments.clear();
    let (mut again, content) = disk.recover_with(u64::MAX, &[mark(last + 5, 4)], Healing::Whole).unwrap();
    assert_eq!((again.judgement(), content.len()), (Judgement::Clean, 0));
    disk.settle(&mut again);
    for _ in 0..40 {
        append_flushed(&mut disk, &mut again, 4, 100);
    }
    let (again, content) = disk.recover_with(u64::MAX, &[mark(last + 5, 4)], Healing::Whole).unwrap();
    assert_eq!((again.judgement(), content.len()), (Judgement::Clean, 40));
}

#[test]
fn log_without_anything_heals_from_nothing() {
    let (disk, _, _) = several_segments();
    let mut bare = disk.clone();
    bare.segments.clear();
    let (mut log, content) = bare.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
    assert_eq!((content.len(), log.lost()), (0, Healing::Rot));
    bare.settle(&mut log);
    append_flushed(&mut bare, &mut log, 7, 100);
    assert_eq!(bare.recover().unwrap().1.len(), 1);
    // And with a snapshot of another node at once.
    let (log, _) = disk.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
    let mut installed = log.install(mark(1000, 9));
    let mut disk = disk;
    disk.settle(&mut installed);
    append_flushed(&mut disk, &mut installed, 9, 100);
    let (log, content) = disk.recover_with(u64::MAX, &[mark(1000, 9)], Healing::Whole).unwrap();
    assert_eq!((log.judgement(), content.len()), (Judgement::Clean, 1));
}
