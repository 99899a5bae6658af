//! What raft expects of a `Storage`, checked against raft's own `MemStorage` and against the log; and what only the log does.

use raft::eraftpb::{ConfState, Entry, HardState};
use raft::storage::MemStorage;
use raft::{Error, GetEntriesContext, Storage, StorageError};

use crate::io::{DiskError, LogFile, SegmentId};
use crate::log::disk_model::{Disk, append_flushed, entry, start};
use crate::log::fetch::{FETCHES_RUNNING_MAX, FETCHES_WAITING_MAX, FetchError};
use crate::log::flush::FLUSH_BYTES_MAX;
use crate::log::log::{AppendMark, CACHE_BYTES_MAX, Log};
use proto::ids::{LogIndex, NodeId, Term};

/// Entries with these terms from `first` on; entry i has a payload of 10 * i bytes.
fn batch(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(first..).map(|(term, index)| entry(index, *term, vec![index as u8; 10 * index as usize])).collect()
}

/// Everything raft relies on, for storages made by appending batches one after the other.
fn conforms<S: Storage>(make: impl Fn(&[Vec<Entry>], ConfState) -> S) {
    let voters = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let now = || GetEntriesContext::empty(false);
    let indexes = |entries: Vec<Entry>| entries.iter().map(|entry| entry.index).collect::<Vec<_>>();

    // Empty: one before the first entry is a place with term 0.
    let empty = make(&[], voters.clone());
    assert_eq!((empty.first_index(), empty.last_index()), (Ok(1), Ok(0)));
    assert_eq!(empty.term(0), Ok(0));
    assert_eq!(empty.term(1), Err(Error::Store(StorageError::Unavailable)));
    assert_eq!(empty.initial_state().unwrap().conf_state, voters);
    assert!(empty.initial_state().unwrap().initialized());
    assert_eq!(empty.initial_state().unwrap().hard_state, HardState::default());
    assert_eq!(empty.term(u64::MAX), Err(Error::Store(StorageError::Unavailable)));

    // Terms and bounds.
    let storage = make(&[batch(1, &[1, 1, 2, 4])], voters.clone());
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(1), Ok(4)));
    assert_eq!([0, 1, 2, 3, 4].map(|index| storage.term(index).unwrap()), [0, 1, 1, 2, 4]);
    assert_eq!(storage.term(5), Err(Error::Store(StorageError::Unavailable)));
    assert_eq!(storage.entries(0, 3, None, now()), Err(Error::Store(StorageError::Compacted)));

    // Ranges are half open and complete; content is what was appended.
    assert_eq!(storage.entries(2, 5, None, now()), Ok(batch(2, &[1, 2, 4])));
    assert_eq!(storage.entries(4, 5, None, now()), Ok(batch(4, &[4])));
    for index in 1..=5 {
        assert_eq!(storage.entries(index, index, None, now()), Ok(vec![]));
    }
    // Whoever can wait need not: what is in memory is answered at once, whatever raft wants it for.
    assert_eq!(storage.entries(1, 5, None, GetEntriesContext::empty(true)), storage.entries(1, 5, None, now()));
    // Asking changes nothing.
    assert_eq!((storage.first_index(), storage.last_index()), (Ok(1), Ok(4)));

    // A size limit counts as raft counts, and never yields nothing.
    let sizes: Vec<u64> = storage.entries(1, 5, None, now()).unwrap().iter().map(size).collect();
    for (limit, expected) in [
        (0, 1),
        (sizes[0] - 1, 1),
        (sizes[0] + sizes[1], 2),
        (sizes[0] + sizes[1] + sizes[2] - 1, 2),
        (sizes[0] + sizes[1] + sizes[2], 3),
        (u64::MAX, 4),
    ] {
        assert_eq!(storage.entries(1, 5, limit, now()).unwrap().len(), expected, "limit {limit}");
    }

    // A conflicting suffix is replaced, also by a shorter one, also by lower terms than it had.
    let storage = make(&[batch(1, &[1, 1, 2, 4]), batch(3, &[3])], voters.clone());
    assert_eq!(storage.last_index(), Ok(3));
    assert_eq!(storage.term(3), Ok(3));
    assert_eq!(storage.term(4), Err(Error::Store(StorageError::Unavailable)));
    assert_eq!(indexes(storage.entries(1, 4, None, now()).unwrap()), [1, 2, 3]);
    let storage = make(&[batch(1, &[1, 1, 5]), batch(1, &[2]), batch(2, &[2, 6])], voters);
    assert_eq!([1, 2, 3].map(|index| storage.term(index).unwrap()), [2, 2, 6]);
}

/// Bytes of an entry as raft measures it.
fn size(entry: &Entry) -> u64 {
    let limit = |bytes| {
        let mut two = vec![entry.clone(), entry.clone()];
        raft::util::limit_size(&mut two, Some(bytes));
        two.len() == 2
    };
    (0..10_000u64).find(|bytes| limit(*bytes)).unwrap() / 2
}

#[test]
fn raft_memory_storage_conforms() {
    conforms(|batches, conf_state| {
        let storage = MemStorage::new_with_conf_state(conf_state);
        for batch in batches {
            storage.wl().append(batch).unwrap();
        }
        storage
    });
}

#[test]
fn log_conforms_before_anything_is_flushed() {
    conforms(|batches, conf_state| {
        let mut log = start(4096).1;
        log.set_initial_state(Term(0), NodeId(0), conf_state);
        for batch in batches {
            log.append(batch, 0);
        }
        log
    });
}

#[test]
fn log_conforms_after_every_flush_and_after_recovery() {
    for recovered in [false, true] {
        conforms(|batches, conf_state| {
            let (mut disk, mut log) = start(4096);
            for batch in batches {
                log.append(batch, 0);
                disk.settle(&mut log);
            }
            let mut log = if recovered { disk.recover().unwrap().0 } else { log };
            log.set_initial_state(Term(0), NodeId(0), conf_state);
            log
        });
    }
}

#[test]
#[should_panic(expected = "entries 1..3, last 1")]
fn entries_beyond_the_last_are_a_mistake_of_the_caller() {
    let (mut disk, mut log) = start(4096);
    append_flushed(&mut disk, &mut log, 1, 10);
    let _ = log.entries(1, 3, None, GetEntriesContext::empty(false));
}

/// Raft asks for a snapshot only of what is compacted, and nothing is; if it does ask, it must ask again rather than end.
#[test]
fn snapshot_is_never_there_yet_and_nothing_is_compacted() {
    let (mut disk, mut log) = large();
    for log in [&log, &disk.recover().unwrap().0] {
        let later = Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        assert_eq!(log.snapshot(0, 2), later);
        assert_eq!(log.snapshot(log.last_index().unwrap() + 1, 2), later);
        // What left memory still has its place and its term.
        assert_eq!((log.first_index(), log.term(0), log.term(1)), (Ok(1), Ok(0), Ok(1)));
        assert_eq!(log.entries(0, 1, None, GetEntriesContext::empty(true)), Err(Error::Store(StorageError::Compacted)));
    }
    // An answer from what was read counts bytes as one from memory does.
    assert!(log.entries(1, 100, None, GetEntriesContext::empty(true)).is_err());
    read(&mut disk, &mut log).unwrap();
    let first = log.entries(1, 100, None, GetEntriesContext::empty(false)).unwrap();
    let two = 2 * size(&first[0]);
    for (limit, expected) in [(0, 1), (two - 1, 1), (two, 2), (u64::MAX, 99)] {
        assert_eq!(log.entries(1, 100, limit, GetEntriesContext::empty(false)).unwrap().len(), expected, "{limit}");
    }
}

#[test]
fn initial_state_has_the_vote_and_the_commit_hint() {
    let (mut disk, mut log) = start(4096);
    log.append(&batch(1, &[1, 1, 1]), 0);
    disk.settle(&mut log);
    log.append(&batch(4, &[1]), 2);
    disk.settle(&mut log);
    let (mut log, _) = disk.recover().unwrap();
    log.set_initial_state(Term(7), NodeId(3), ConfState::default());
    let hard = log.initial_state().unwrap().hard_state;
    assert_eq!((hard.term, hard.vote, hard.commit), (7, 3, 2));
}

#[test]
fn hint_never_speaks_about_what_is_replaced_behind_it() {
    let (mut disk, mut log) = start(4096);
    log.append(&batch(1, &[1, 1, 1]), 0);
    disk.settle(&mut log);
    // Entry 3 is replaced, and the new one is committed before it is durable here; it does not fit into segment 1, so the
    // round begins with a seal.
    log.append(&[entry(4, 1, vec![0; 2600])], 0);
    disk.settle(&mut log);
    log.append(&[entry(3, 2, vec![2; 2000])], 3);
    let flush = log.take_flush().unwrap();
    assert_eq!(flush.writes.len(), 3);
    disk.write_some(&flush.writes, |file, _| file == LogFile::Segment(SegmentId(1)));
    let (log, content) = disk.recover().unwrap();
    assert_eq!((log.commit(), content.len(), content[2].0), (LogIndex(2), 4, 1));
}

#[test]
fn flush_takes_all_that_waits_and_one_is_under_way() {
    let (mut disk, mut log) = start(64 << 10);
    let marks = [log.append(&batch(1, &[1, 1]), 0), log.append(&batch(3, &[1]), 0)];
    let flush = log.take_flush().unwrap();
    assert_eq!(flush.writes.len(), 2);
    let third = log.append(&batch(4, &[1]), 0);
    assert!(log.take_flush().is_none());
    disk.write(&flush.writes);
    let flushed = log.on_flushed(flush.round);
    assert_eq!((flushed.upto, flushed.index, flushed.term), (marks[1], LogIndex(3), Term(1)));
    assert_eq!(log.append(&[], 0), third);
    let flush = log.take_flush().unwrap();
    disk.write(&flush.writes);
    assert_eq!(log.on_flushed(flush.round).upto, third);
    assert!(log.take_flush().is_none());
}

#[test]
fn replaced_entries_are_settled_together_with_what_replaced_them() {
    let (mut disk, mut log) = start(64 << 10);
    log.append(&batch(1, &[1, 1, 1]), 0);
    let flush = log.take_flush().unwrap();
    let old = log.append(&batch(4, &[1, 1]), 0);
    // Replaces what waits and a part of what is under way.
    let new = log.append(&batch(3, &[2]), 0);
    disk.write(&flush.writes);
    let flushed = log.on_flushed(flush.round);
    assert!(flushed.upto < old);
    assert_eq!((flushed.index, flushed.term), (LogIndex(2), Term(1)));
    let flush = log.take_flush().unwrap();
    disk.write(&flush.writes);
    let flushed = log.on_flushed(flush.round);
    assert_eq!((flushed.upto, flushed.index, flushed.term), (new, LogIndex(3), Term(2)));
    assert_eq!(disk.recover().unwrap().1.iter().map(|(term, _)| *term).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn segment_is_asked_for_ahead_and_a_full_disk_is_said() {
    let mut disk = Disk::new(4096);
    let mut log = disk.recover().unwrap().0;
    log.append(&batch(1, &[1]), 0);
    assert!(log.take_flush().is_none(), "there is no segment yet");
    let (first, header) = log.take_prepare().unwrap();
    assert!(log.take_prepare().is_none());
    disk.prepare(first, &header);
    log.on_prepared(first, Ok(()));
    // The second one is wanted as soon as the first is there.
    let (second, header) = log.take_prepare().unwrap();
    assert_eq!((first, second), (SegmentId(1), SegmentId(2)));
    log.on_prepared(second, Err(DiskError::NoSpace));
    assert!(log.is_full() && log.take_prepare().is_none());
    // What fits is still flushed; the rest waits.
    let room = log.room_bytes();
    log.append(&[entry(2, 1, vec![0; 1500]), entry(3, 1, vec![0; 1500]), entry(4, 1, vec![0; 1500])], 0);
    let flush = log.take_flush().unwrap();
    disk.write(&flush.writes);
    assert_eq!(log.on_flushed(flush.round).index, LogIndex(3));
    assert!(log.take_flush().is_none() && log.waiting_bytes() == 1500 && log.room_bytes() < room);
    log.retry_prepare();
    let (again, _) = log.take_prepare().unwrap();
    assert_eq!(again, second);
    disk.prepare(second, &header);
    log.on_prepared(second, Ok(()));
    disk.settle(&mut log);
    assert_eq!(log.durable(), LogIndex(4));
}

#[test]
fn large_batch_is_flushed_in_parts_over_several_segments() {
    let (mut disk, mut log) = start(1 << 20);
    let entries: Vec<Entry> = (1..=60).map(|index| entry(index, 1, vec![index as u8; 200 << 10])).collect();
    let mark = log.append(&entries, 0);
    let mut flushes = 0;
    while log.durable().0 < 60 {
        if let Some((segment, header)) = log.take_prepare() {
            disk.prepare(segment, &header);
            log.on_prepared(segment, Ok(()));
        }
        if let Some(flush) = log.take_flush() {
            let bytes: usize = flush.writes.iter().map(|write| write.bytes.len()).sum();
            assert!(bytes <= FLUSH_BYTES_MAX as usize + 4096, "{bytes}");
            disk.write(&flush.writes);
            let flushed = log.on_flushed(flush.round);
            assert_eq!(flushed.upto == mark, flushed.index.0 == 60);
            assert!(flushed.upto == mark || flushed.upto == AppendMark(0));
            flushes += 1;
        }
    }
    assert!(flushes >= 6, "{flushes}");
    assert_eq!(disk.recover().unwrap().1.len(), 60);
}

/// A log of which the first part left memory, all applied.
fn large() -> (Disk, Log) {
    let (mut disk, mut log) = start(4 << 20);
    let count = CACHE_BYTES_MAX as u64 / 1000 * 2;
    let mut index = 1;
    while index <= count {
        let entries: Vec<Entry> =
            (index..index + 500).map(|index| entry(index, 1 + index / 9000, index.to_le_bytes().repeat(125))).collect();
        index += 500;
        log.append(&entries, index - 1);
        disk.settle(&mut log);
    }
    log.set_applied(log.last_index().unwrap());
    log.check_invariants();
    (disk, log)
}

fn read(disk: &mut Disk, log: &mut Log) -> Result<usize, FetchError> {
    let fetch = log.take_fetch().unwrap();
    assert!(fetch.length < 2 << 20, "{fetch:?}");
    let bytes = disk.file(LogFile::Segment(fetch.segment))[fetch.offset as usize..][..fetch.length as usize].to_vec();
    log.on_fetched(fetch.id, Ok(&bytes)).map(|contexts| contexts.len())
}

#[test]
fn entries_beyond_the_cache_are_fetched_and_are_the_same() {
    let (mut disk, mut log) = large();
    let last = log.last_index().unwrap();
    assert!(log.stats().cache_bytes <= CACHE_BYTES_MAX as u64);
    let unavailable = Err(Error::Store(StorageError::Unavailable));
    assert_eq!(log.entries(5000, 5001, None, GetEntriesContext::empty(false)), unavailable);
    let later = || GetEntriesContext::empty(true);
    let mut next = 1;
    let mut fetches = 0;
    // As a follower that lags from the beginning.
    while next <= last {
        match log.entries(next, last + 1, Some(300_000), later()) {
            Ok(entries) => {
                assert!(!entries.is_empty());
                for entry in entries {
                    assert_eq!((entry.index, entry.term), (next, 1 + next / 9000));
                    assert_eq!(&entry.data[..], next.to_le_bytes().repeat(125), "{next}");
                    assert_eq!(log.term(next), Ok(entry.term));
                    next += 1;
                }
            }
            Err(Error::Store(StorageError::LogTemporarilyUnavailable)) => {
                fetches += read(&mut disk, &mut log).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(fetches > 10, "{fetches}");
    // After a restart the same: what is not above the commit hint may have to be fetched.
    let (mut log, content) = disk.recover().unwrap();
    assert!(content.len() as u64 == last && log.stats().cache_bytes <= CACHE_BYTES_MAX as u64 + 600_000);
    assert!(log.entries(1, 100, None, later()).is_err());
    read(&mut disk, &mut log).unwrap();
    assert_eq!(log.entries(1, 100, None, later()).unwrap().len(), 99);
}

#[test]
fn requests_for_old_entries_are_bounded_and_share_a_read() {
    let (mut disk, mut log) = large();
    let ask = |log: &Log, low| assert!(log.entries(low, low + 1, None, GetEntriesContext::empty(true)).is_err());
    for _ in 0..3 {
        ask(&log, 1);
    }
    assert_eq!(read(&mut disk, &mut log), Ok(3));
    for low in 2000..2000 + 10 * FETCHES_WAITING_MAX as u64 {
        ask(&log, low * 3 % 9000 + 3000);
    }
    let mut taken = Vec::new();
    while let Some(fetch) = log.take_fetch() {
        taken.push(fetch);
    }
    assert_eq!(taken.len(), FETCHES_RUNNING_MAX);
    let mut total = 0;
    for fetch in taken {
        let error = log.on_fetched(fetch.id, Err(DiskError::Unreadable)).unwrap_err();
        assert!(matches!(error, FetchError::Device { .. }), "{error}");
        total += 1;
    }
    while log.stats().last > LogIndex(0) {
        let Some(fetch) = log.take_fetch() else { break };
        let _ = log.on_fetched(fetch.id, Err(DiskError::Unreadable));
        total += 1;
    }
    assert_eq!(total, FETCHES_WAITING_MAX);
}

#[test]
fn rot_in_what_is_fetched_is_reported_and_never_handed_on() {
    let (mut disk, mut log) = large();
    assert!(log.entries(700, 701, None, GetEntriesContext::empty(true)).is_err());
    let fetch = log.take_fetch().unwrap();
    let mut bytes =
        disk.file(LogFile::Segment(fetch.segment))[fetch.offset as usize..][..fetch.length as usize].to_vec();
    bytes[fetch.length as usize / 2] ^= 1;
    let error = log.on_fetched(fetch.id, Ok(&bytes)).unwrap_err();
    assert!(matches!(error, FetchError::Entry { .. }), "{error}");
    let upto = log.rot().unwrap().upto.0;
    // Less than was asked for.
    assert!(log.entries(upto + 1, upto + 2, None, GetEntriesContext::empty(true)).is_err());
    let fetch = log.take_fetch().unwrap();
    assert!(log.on_fetched(fetch.id, Ok(&[])).is_err());
    assert!(log.rot().unwrap().upto.0 > upto);
}
