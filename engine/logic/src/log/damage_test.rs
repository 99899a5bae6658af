//! Whole files of a log that are gone, cut off or emptied.

use proto::ids::LogIndex;
use proto::limits::SECTOR_BYTES;

use crate::io::SegmentId;
use crate::log::disk_model::{Disk, append_flushed, start};
use crate::log::layout::{Reader, SEGMENT_HEADER_BYTES};
use crate::log::recover::tests::{examined, ten_rounds};
use crate::log::recover::{Judgement, Proof, RecoverError, Trace};
use crate::log::rounds::ROUNDS_BYTES;
use crate::vote::Healing;

/// The ring as after a damage, with the last of ten rounds lost as well: the node must not take it for one that was never
/// written, and once it has healed, the ring tells of nothing that is missing any more.
#[test]
fn ring_that_lost_identifiers_does_not_say_that_nothing_was_written() {
    let slots_from = |slot: usize| slot * SECTOR_BYTES..ROUNDS_BYTES as usize;
    for damage in ["all zeros", "zeros from round 5 on", "cut off behind round 9", "gone"] {
        for is_flipped in [false, true] {
            let (mut disk, _) = ten_rounds();
            let segment = disk.segments.get_mut(&1).unwrap();
            let last = Reader::new(segment).unwrap().entries().flatten().last().unwrap().offset as usize;
            match is_flipped {
                true => segment[last + 70] ^= 1,
                false => segment[last..].fill(0),
            }
            match damage {
                "all zeros" => disk.rounds.fill(0),
                "zeros from round 5 on" => disk.rounds[slots_from(5)].fill(0),
                "cut off behind round 9" => disk.rounds[slots_from(10)].fill(0xff),
                _ => disk.rounds.clear(),
            }
            let found = examined(&disk);
            let Err(RecoverError::Uncertain(finding)) = found else { panic!("{damage} {is_flipped}: {found:?}") };
            assert_eq!((finding.last, finding.identifier), (LogIndex(9), Trace::Unreadable { round: 10 }), "{damage}");
            // As a start does that heals: a ring that is gone is made, with zeros, before the first flush.
            let (mut log, _) = disk.recover_with(u64::MAX, &[], Healing::Uncertain).unwrap();
            disk.rounds.resize(ROUNDS_BYTES as usize, 0);
            disk.settle(&mut log);
            let (mut log, _) = disk.recover().unwrap();
            assert_eq!((log.judgement(), log.needs_mending()), (Judgement::Clean, false), "{damage} {is_flipped}");
            append_flushed(&mut disk, &mut log, 2, 100);
            assert_eq!(disk.recover().unwrap().0.judgement(), Judgement::Clean, "{damage} {is_flipped}");
        }
    }
}

#[test]
fn missing_segments_and_bad_headers_of_used_ones_are_rot() {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 5 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    let check = |change: &dyn Fn(&mut Disk), expected: &str| {
        let mut changed = disk.clone();
        change(&mut changed);
        let Err(RecoverError::Rot(finding)) = examined(&changed) else { panic!("{:?}", examined(&changed)) };
        assert!(finding.to_string().contains(expected), "{finding}");
    };
    for id in 1..=4u64 {
        check(&|disk: &mut Disk| drop(disk.segments.remove(&id)), "missing");
        check(&|disk: &mut Disk| disk.segments.get_mut(&id).unwrap()[40] ^= 1, "checksum of the header");
    }
    // Two segments exchanged.
    let first = disk.segments[&1].clone();
    check(
        &|disk: &mut Disk| {
            let second = disk.segments.insert(2, first.clone()).unwrap();
            disk.segments.insert(1, second);
        },
        "the header is that of segment 2",
    );
    // All gone.
    check(&|disk: &mut Disk| disk.segments.clear(), "was written later");
    // The only one that was used.
    let (mut disk, _) = ten_rounds();
    disk.segments.remove(&1);
    let Err(RecoverError::Rot(finding)) = examined(&disk) else { panic!("{:?}", examined(&disk)) };
    assert_eq!(finding.proof, Some(Proof::Identifier { round: 10 }), "{finding}");
}

#[test]
fn segment_that_was_cut_off_keeps_the_entries_that_are_left() {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 4 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    append_flushed(&mut disk, &mut log, 1, 100);
    let mut before = 0;
    for (&id, bytes) in &disk.segments {
        let entries: Vec<_> = Reader::new(bytes).unwrap().entries().flatten().collect();
        for length in (SEGMENT_HEADER_BYTES..4096).step_by(56) {
            let mut cut = disk.clone();
            cut.segments.get_mut(&id).unwrap().truncate(length as usize);
            let left: Vec<_> = entries.iter().filter(|entry| entry.next <= length).collect();
            let is_whole = left.len() == entries.len();
            match examined(&cut) {
                Ok(judgement) => assert!(is_whole && judgement == Judgement::Clean, "{id} of {length}: {judgement:?}"),
                Err(RecoverError::Rot(finding) | RecoverError::Uncertain(finding)) => {
                    let last = left.last().map_or(before, |entry| entry.header.index.0.max(before));
                    assert!(!is_whole && finding.last.0 == last, "{id} of {length}, {last}: {finding}");
                }
                other => panic!("{id} of {length}: {other:?}"),
            }
        }
        before = entries.last().map_or(before, |entry| entry.header.index.0.max(before));
    }
}

#[test]
fn segment_prepared_and_never_used_may_be_missing_or_torn() {
    let (disk, _) = ten_rounds();
    assert_eq!(disk.segments.len(), 2);
    let check = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = disk.clone();
        change(changed.segments.get_mut(&2).unwrap());
        let (mut log, content) = changed.recover().unwrap();
        assert_eq!((content.len(), log.stats().segments), (10, 1));
        // It is prepared again.
        let (segment, _) = log.take_prepare().unwrap();
        assert_eq!(segment, SegmentId(2));
    };
    check(&|bytes| bytes.clear());
    check(&|bytes| bytes.truncate(100));
    check(&|bytes| bytes.truncate(4096));
    check(&|bytes| bytes[..512].fill(0));
    check(&|bytes| bytes[20] ^= 1);
    let mut missing = disk.clone();
    missing.segments.remove(&2);
    assert_eq!(missing.recover().unwrap().1.len(), 10);
    // But one with something in it is not passed over.
    let mut used = disk.clone();
    let bytes = used.segments.get_mut(&2).unwrap();
    bytes[20] ^= 1;
    bytes[5000] = 1;
    assert!(matches!(examined(&used), Err(RecoverError::Uncertain(_))));
}
