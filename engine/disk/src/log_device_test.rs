#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use logic::log::{Position, SegmentHeader, StoreId};
use proto::ids::{ClusterId, NodeId};

use super::*;
use crate::dir::DataDir;
use crate::log_files::ROUNDS_BYTES;
use crate::repair::Repair;
use crate::test_dir::test_dir;

const SEGMENT_BYTES: u32 = 1 << 20;
const METHODS: [FlushMethod; 2] = [FlushMethod::Direct, FlushMethod::Mmap];

fn open(path: &Path) -> (DataDir, LogFiles) {
    let dir = DataDir::open(path, NodeId(1), 1, true).unwrap();
    let files = LogFiles::open(&dir).unwrap();
    (dir, files)
}

fn header(value: u8) -> Box<[u8; SECTOR_BYTES]> {
    let (segment, signature) = (SegmentId(value.into()), value.into());
    let store = StoreId { cluster: ClusterId(1), nonce: 1 };
    let durable_upto = Position::default();
    SegmentHeader { segment_bytes: SEGMENT_BYTES, segment, signature, durable: 0, durable_upto, store }.encode()
}

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    // Never zero, so that a lost byte shows.
    (0..length).map(|at| ((at as u32 * 7 + seed) % 255 + 1) as u8).collect()
}

fn write(segment: u64, offset: u32, bytes: Vec<u8>) -> LogWrite {
    LogWrite { file: LogFile::Segment(SegmentId(segment)), offset, bytes }
}

/// A life of a log: appends of many sizes, two segments in one flush, a cut tail, rounds. Each step is one flush.
fn life() -> Vec<Vec<LogWrite>> {
    let mut flushes = Vec::new();
    let mut offset = 512;
    for (round, length) in [1, 200, 311, 512, 4096, 3, 70_000, 100_001, 0, 64].into_iter().enumerate() {
        let slot = round as u32 * 512;
        let entries = write(1, offset, bytes(slot, length));
        flushes.push(vec![entries, LogWrite { file: LogFile::Rounds, offset: slot, bytes: bytes(slot, 512) }]);
        offset += length as u32;
    }
    // Two writes that share a sector, and the later one wins where they overlap.
    flushes.push(vec![write(1, offset, bytes(1, 100)), write(1, offset + 50, bytes(2, 100))]);
    // The end of one segment and the beginning of the next.
    flushes.push(vec![write(1, SEGMENT_BYTES - 700, bytes(3, 700)), write(2, 512, bytes(4, 1000))]);
    flushes.push(vec![write(2, 1512, bytes(5, 1000))]);
    // A tail is cut: zeros over it, then other entries from there.
    flushes.push(vec![write(2, 1700, vec![0; 3000])]);
    flushes.push(vec![write(2, 1700, bytes(6, 20))]);
    // Back in the first one, in the middle of what is there.
    flushes.push(vec![write(1, 5000, bytes(7, 10))]);
    flushes.push(vec![write(2, 1720, bytes(8, 2_000))]);
    flushes
}

/// What the files must hold after these flushes.
fn expected(flushes: &[Vec<LogWrite>]) -> Vec<Vec<u8>> {
    let mut files = vec![vec![0; ROUNDS_BYTES], vec![0; SEGMENT_BYTES as usize], vec![0; SEGMENT_BYTES as usize]];
    for segment in [1, 2] {
        files[segment][..512].copy_from_slice(&header(segment as u8)[..]);
    }
    for write in flushes.iter().flatten() {
        let file = match write.file {
            LogFile::Rounds => 0,
            LogFile::Segment(segment) => segment.0 as usize,
        };
        let at = write.offset as usize;
        files[file][at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    files
}

fn found(dir: &DataDir) -> Vec<Vec<u8>> {
    let view = dir.view();
    [view.rounds_path(), view.segment_path(SegmentId(1)), view.segment_path(SegmentId(2))]
        .map(|path| fs::read(path).unwrap())
        .into()
}

fn live(method: FlushMethod, files: LogFiles, flushes: &[Vec<LogWrite>], prepare: bool) {
    executor::run("log", async {
        let device = LogDevice::start(method, files, SEGMENT_BYTES).await.unwrap();
        if prepare {
            for segment in [1, 2] {
                device.prepare(SegmentId(segment), header(segment as u8)).await.unwrap().unwrap();
            }
        }
        for writes in flushes {
            device.flush(writes.clone()).await.unwrap();
        }
    })
    .unwrap();
}

#[test]
fn both_methods_leave_the_same_bytes_on_disk() {
    for method in METHODS {
        let temp = test_dir();
        let (dir, files) = open(temp.path());
        live(method, files, &life(), true);
        assert!(found(&dir) == expected(&life()), "{method}");
    }
}

#[test]
fn a_restart_at_any_flush_with_either_method_changes_nothing() {
    let life = life();
    for cut in 1..life.len() {
        let temp = test_dir();
        let (first, second) = if cut % 2 == 0 { (METHODS[0], METHODS[1]) } else { (METHODS[1], METHODS[0]) };
        let (dir, files) = open(temp.path());
        live(first, files, &life[..cut], true);
        drop(dir);
        let (dir, files) = open(temp.path());
        assert_eq!(files.segments().iter().map(|(segment, _)| segment.0).collect::<Vec<_>>(), [1, 2]);
        assert!(files.segments()[0].1 == expected(&life[..cut])[1], "cut at {cut}");
        live(second, files, &life[cut..], false);
        assert!(found(&dir) == expected(&life), "cut at {cut}");
    }
}

#[test]
fn flushed_bytes_can_be_read_from_every_segment() {
    for method in METHODS {
        let temp = test_dir();
        let (_dir, files) = open(temp.path());
        let life = life();
        let expected = expected(&life);
        executor::run("log", async {
            let device = LogDevice::start(method, files, SEGMENT_BYTES).await.unwrap();
            for segment in 1..=8 {
                device.prepare(SegmentId(segment), header(segment as u8)).await.unwrap().unwrap();
            }
            for writes in life {
                device.flush(writes).await.unwrap();
            }
            // The newest segments are open for writing, the oldest are read through maps by now.
            for segment in 3..=8 {
                device.flush(vec![write(segment, 512, bytes(segment as u32, 100))]).await.unwrap();
                assert_eq!(device.read(SegmentId(segment), 520, 92).await.unwrap(), bytes(segment as u32, 100)[8..]);
            }
            for segment in [1usize, 2, 1] {
                for (offset, length) in [(0, 1), (500, 3000), (5001, 7), (SEGMENT_BYTES - 10, 10), (1000, 0)] {
                    let read = device.read(SegmentId(segment as u64), offset, length).await.unwrap();
                    let range = offset as usize..(offset + length) as usize;
                    assert!(read == expected[segment][range], "{method}: {length} at {offset} of {segment}");
                }
            }
            // What was read through a map can be written again.
            device.flush(vec![write(1, 600, bytes(9, 10))]).await.unwrap();
            assert_eq!(device.read(SegmentId(1), 600, 10).await.unwrap(), bytes(9, 10));
            for (segment, offset, length) in [(8, SEGMENT_BYTES, 1), (1, SEGMENT_BYTES - 1, 2), (99, 0, 1)] {
                assert_eq!(device.read(SegmentId(segment), offset, length).await, Err(DiskError::Unreadable));
            }
        })
        .unwrap();
    }
}

#[test]
fn flushes_go_on_while_the_next_segment_is_made() {
    for method in METHODS {
        let temp = test_dir();
        let (dir, files) = open(temp.path());
        executor::run("log", async {
            let device = LogDevice::start(method, files, 8 << 20).await.unwrap();
            device.prepare(SegmentId(1), header(1)).await.unwrap().unwrap();
            let other = device.clone();
            let next = glommio::spawn_local(async move { other.prepare(SegmentId(2), header(2)).await });
            let path = dir.view().segment_path(SegmentId(2));
            let mut flushes = 0;
            while !path.exists() {
                device.flush(vec![write(1, 512 + flushes, vec![7])]).await.unwrap();
                flushes += 1;
            }
            next.await.unwrap().unwrap();
            assert!(flushes > 1, "{method}: the flushes stood still");
        })
        .unwrap();
    }
}

#[test]
fn segment_that_exists_is_never_made_again() {
    let temp = test_dir();
    let (dir, files) = open(temp.path());
    executor::run("log", async {
        let device = LogDevice::start(FlushMethod::default(), files, SEGMENT_BYTES).await.unwrap();
        device.prepare(SegmentId(1), header(1)).await.unwrap().unwrap();
        device.flush(vec![write(1, 512, vec![9; 100])]).await.unwrap();
        let error = device.prepare(SegmentId(1), header(2)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    })
    .unwrap();
    assert_eq!(fs::read(dir.view().segment_path(SegmentId(1))).unwrap()[512..612], [9; 100]);
}

/// A damaged spare stood in the way of the next segment: the node ended at every start.
#[test]
fn spare_segment_that_is_damaged_is_made_again_and_a_short_ring_gets_its_length() {
    for damage in 0..4 {
        let temp = test_dir();
        let (dir, files) = open(temp.path());
        executor::run("log", async {
            let device = LogDevice::start(FlushMethod::default(), files, SEGMENT_BYTES).await.unwrap();
            device.prepare(SegmentId(1), header(1)).await.unwrap().unwrap();
            device.flush(vec![write(1, 512, vec![9; 100])]).await.unwrap();
            device.prepare(SegmentId(2), header(2)).await.unwrap().unwrap();
            device.close().await.unwrap();
        })
        .unwrap();
        let spare = dir.view().segment_path(SegmentId(2));
        let mut bytes = fs::read(&spare).unwrap();
        match damage {
            0 => bytes[20] ^= 1,
            1 => bytes.truncate(0),
            2 => bytes.truncate(100),
            _ => bytes.fill(0),
        }
        fs::write(&spare, bytes).unwrap();
        let rounds = fs::read(dir.view().rounds_path()).unwrap();
        fs::write(dir.view().rounds_path(), &rounds[..1000]).unwrap();
        let files = LogFiles::open(&dir).unwrap();
        assert_eq!(files.segments().len(), 1, "damage {damage}");
        assert_eq!(files.rounds()[..1000], rounds[..1000]);
        executor::run("log", async {
            let device = LogDevice::start(FlushMethod::default(), files, SEGMENT_BYTES).await.unwrap();
            device.prepare(SegmentId(2), header(2)).await.unwrap().unwrap();
            device.close().await.unwrap();
        })
        .unwrap();
    }
}

#[test]
fn unfinished_file_is_removed_and_lost_rounds_stay_lost_until_the_device_writes() {
    let temp = test_dir();
    let (dir, files) = open(temp.path());
    assert!(files.rounds().is_empty());
    live(FlushMethod::Direct, files, &[], true);
    let unfinished = dir.view().log_dir().join("0000000000000003.new");
    fs::write(&unfinished, b"half").unwrap();
    fs::remove_file(dir.view().rounds_path()).unwrap();
    let files = LogFiles::open(&dir).unwrap();
    assert!(!unfinished.exists());
    assert!(files.rounds().is_empty(), "recovery must see that they are gone");
    live(FlushMethod::Mmap, files, &[Vec::new()], false);
    assert_eq!(LogFiles::inspect(dir.view()).unwrap().rounds(), [0; ROUNDS_BYTES]);
}

#[test]
fn a_ring_that_is_gone_is_made_again_with_the_first_flush_and_not_before() {
    for method in METHODS {
        let temp = test_dir();
        let (dir, files) = open(temp.path());
        live(method, files, &life()[..2], true);
        fs::remove_file(dir.view().rounds_path()).unwrap();
        // A process that is killed before it wrote anything leaves no trace in the log.
        live(method, LogFiles::open(&dir).unwrap(), &[], false);
        assert!(!dir.view().rounds_path().exists(), "{method}");
        live(method, LogFiles::open(&dir).unwrap(), &[vec![write(1, 512, bytes(1, 100))]], false);
        assert_eq!(LogFiles::open(&dir).unwrap().rounds(), [0; ROUNDS_BYTES], "{method}");
    }
}

#[test]
fn a_ring_that_was_emptied_is_made_again() {
    let temp = test_dir();
    let (dir, _) = open(temp.path());
    let path = dir.view().rounds_path();
    fs::write(&path, b"").unwrap();
    let repair = [Repair::RoundsLength { path: path.clone(), found: 0 }];
    let foreseen = LogFiles::inspect(dir.view()).unwrap();
    assert_eq!((foreseen.repairs(), foreseen.rounds()), (&repair[..], &[][..]));
    assert!(path.exists(), "an inspector changes nothing");
    let files = LogFiles::open(&dir).unwrap();
    assert_eq!((files.repairs(), files.rounds()), (&repair[..], &[][..]), "recovery must see that they are gone");
    live(FlushMethod::Direct, files, &[Vec::new()], false);
    let again = LogFiles::open(&dir).unwrap();
    assert_eq!((again.repairs(), again.rounds().len()), (&[][..], ROUNDS_BYTES));
}

#[test]
fn an_inspector_sees_the_log_as_a_start_would_leave_it() {
    let temp = test_dir();
    let (dir, _) = open(temp.path());
    // Prepared, never used, and damaged; a ring that is cut off.
    fs::write(dir.view().segment_path(SegmentId(1)), [0; 4096]).unwrap();
    fs::write(dir.view().rounds_path(), [3; 1000]).unwrap();
    let seen = |files: &LogFiles| (files.repairs().to_vec(), files.segments().len(), files.rounds().to_vec());
    let foreseen = LogFiles::inspect(dir.view()).unwrap();
    assert_eq!((foreseen.repairs().len(), foreseen.segments().len()), (2, 0), "{:?}", foreseen.repairs());
    assert_eq!(fs::metadata(dir.view().rounds_path()).unwrap().len(), 1000);
    assert_eq!(seen(&foreseen), seen(&LogFiles::open(&dir).unwrap()));
}

#[test]
fn empty_and_odd_files_are_shown_as_they_are() {
    let temp = test_dir();
    let (dir, _) = open(temp.path());
    fs::write(dir.view().segment_path(SegmentId(1)), b"").unwrap();
    fs::write(dir.view().segment_path(SegmentId(2)), [7; 700]).unwrap();
    let files = LogFiles::open(&dir).unwrap();
    let lengths: Vec<usize> = files.segments().iter().map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths, [0, 700]);
    let zeros: Vec<u64> = files.segments.values().map(|map| map.zero_from()).collect();
    assert_eq!(zeros, [0, 1024]);
}

#[test]
fn flush_method_is_read_as_it_is_written() {
    for method in METHODS {
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    assert_eq!("fast".parse::<FlushMethod>(), Err(UnknownFlushMethod));
}

#[test]
fn a_segment_that_was_cut_off_keeps_what_is_left_and_gets_its_length_back() {
    for method in METHODS {
        let temp = test_dir();
        let (dir, files) = open(temp.path());
        live(method, files, &[vec![write(1, 512, bytes(1, 5000))]], true);
        let path = dir.view().segment_path(SegmentId(1));
        let before = fs::read(&path).unwrap();
        let found = 3000;
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(found).unwrap();
        let repair = [Repair::SegmentLength { path: path.clone(), found, stated: SEGMENT_BYTES }];
        assert_eq!(LogFiles::inspect(dir.view()).unwrap().repairs(), repair, "{method}");
        assert_eq!(fs::metadata(&path).unwrap().len(), found, "an inspector changes nothing");
        // Written on both sides of the place where it was cut.
        let more = bytes(2, 2000);
        live(method, LogFiles::open(&dir).unwrap(), &[vec![write(1, 2500, more.clone())]], false);
        let after = fs::read(&path).unwrap();
        assert_eq!((after.len(), &after[..2500]), (SEGMENT_BYTES as usize, &before[..2500]), "{method}");
        assert!(after[2500..4500] == more && after[4500..].iter().all(|byte| *byte == 0), "{method}");
        assert!(LogFiles::open(&dir).unwrap().repairs().is_empty());
    }
}
