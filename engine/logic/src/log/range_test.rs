//! Counters at the end of the number range: refused where they are decoded, and never reached by a log that was accepted.

use proto::ids::{ClusterId, LogIndex, Term};
use proto::limits::SECTOR_BYTES;

use crate::io::SegmentId;
use crate::limits::{POSITION_MAX, POSITION_START_MAX};
use crate::log::disk_model::{Disk, STORE, append_flushed, start};
use crate::log::layout::{
    EntryHeader, EntryKind, HeaderError, Position, Reader, Reason, SEGMENT_HEADER_BYTES, SegmentHeader, StoreId,
    encode_entry,
};
use crate::log::log::Log;
use crate::log::recover::{Judgement, RecoverError};
use crate::log::rounds::{ROUNDS_BYTES, ROUNDS_SLOTS, RoundRecord, Rounds, Slot};

const SEGMENT: SegmentHeader = SegmentHeader {
    segment_bytes: 8192,
    segment: SegmentId(3),
    signature: 7,
    store: StoreId { cluster: ClusterId(1 << 99), nonce: 1 << 88 },
    durable: 11,
    durable_upto: Position { segment: SegmentId(2), offset: 4096 },
};
const ENTRY: EntryHeader = EntryHeader {
    kind: EntryKind::Record,
    term: Term(4),
    index: LogIndex(1),
    round: 12,
    durable: 11,
    commit: LogIndex(0),
    round_start: SEGMENT_HEADER_BYTES,
    round_continued: false,
    round_last: true,
};
const ROUND: RoundRecord = RoundRecord {
    round: 7,
    durable: 6,
    start: Position { segment: SegmentId(2), offset: 512 },
    end: Position { segment: SegmentId(2), offset: 1024 },
    signature: 3,
};
#[test]
fn counter_at_the_end_of_the_number_range_is_damage_in_a_segment_header() {
    let set: [fn(&mut SegmentHeader, u64); 4] = [
        |header, value| header.segment.0 = value,
        |header, value| header.signature = value,
        |header, value| header.durable = value,
        |header, value| header.durable_upto.segment.0 = value,
    ];
    for (field, set) in set.into_iter().enumerate() {
        let decoded = |value| {
            let mut header = SEGMENT;
            set(&mut header, value);
            (SegmentHeader::decode(&header.encode()[..]), header)
        };
        let (found, header) = decoded(POSITION_MAX);
        assert_eq!(found, Ok(header), "field {field}");
        for huge in [POSITION_MAX + 1, u64::MAX] {
            assert_eq!(decoded(huge).0, Err(HeaderError::Value), "field {field}");
        }
    }
}

#[test]
fn counter_at_the_end_of_the_number_range_is_damage_in_an_entry() {
    let set: [fn(&mut EntryHeader, u64); 5] = [
        |header, value| header.term.0 = value,
        |header, value| header.index.0 = value,
        |header, value| header.round = value,
        |header, value| (header.durable, header.round) = (value - 1, value),
        |header, value| header.commit.0 = value,
    ];
    for (field, set) in set.into_iter().enumerate() {
        let decode = |value| {
            let (mut header, mut bytes) = (ENTRY, SEGMENT.encode().to_vec());
            set(&mut header, value);
            encode_entry(&SEGMENT, &header, b"bytes", &mut bytes);
            bytes.resize(SEGMENT.segment_bytes as usize, 0);
            Reader::new(&bytes).unwrap().entry(SEGMENT_HEADER_BYTES).map(|found| assert_eq!(found.header, header))
        };
        assert_eq!(decode(POSITION_MAX), Ok(()), "field {field}");
        for huge in [POSITION_MAX + 1, u64::MAX] {
            assert_eq!(decode(huge), Err(Reason::Value), "field {field}");
        }
    }
}

#[test]
fn counter_at_the_end_of_the_number_range_is_unreadable_in_a_round_identifier() {
    let set: [fn(&mut RoundRecord, u64); 5] = [
        |record, value| record.round = value,
        |record, value| (record.durable, record.round) = (value - 1, value),
        |record, value| record.end.segment.0 = value,
        |record, value| (record.start.segment.0, record.end.segment.0) = (value, value),
        |record, value| record.signature = value,
    ];
    for (field, set) in set.into_iter().enumerate() {
        let slot = |value| {
            let (mut record, mut bytes) = (ROUND, vec![0; ROUNDS_BYTES as usize]);
            set(&mut record, value);
            bytes[record.offset() as usize..][..SECTOR_BYTES].copy_from_slice(&record.encode(STORE));
            (Rounds::new(&bytes, STORE).slot(record.round % ROUNDS_SLOTS), record)
        };
        let (found, record) = slot(POSITION_MAX);
        assert_eq!(found, Slot::Record(record), "field {field}");
        for huge in [POSITION_MAX + 1, u64::MAX] {
            assert_eq!(slot(huge).0, Slot::Unreadable, "field {field}");
        }
    }
}

/// Counting on from there, the log could write what it takes for damage when it reads it again.
#[test]
fn log_that_counted_too_far_is_refused() {
    let check = |change: &dyn Fn(&mut Disk, &mut Log, u64)| {
        let at = |position| {
            let (mut disk, mut log) = start(64 << 10);
            append_flushed(&mut disk, &mut log, 1, 100);
            change(&mut disk, &mut log, position);
            disk.recover().map(|(log, _)| log.judgement())
        };
        let position = POSITION_START_MAX + 1;
        assert_eq!(at(POSITION_START_MAX), Ok(Judgement::Clean));
        assert_eq!(at(position), Err(RecoverError::Exhausted { position }));
    };
    // The identifier of a round of which nothing was kept.
    let note_void = |disk: &mut Disk, change: &dyn Fn(&mut RoundRecord)| {
        let last = Rounds::new(&disk.rounds, STORE).record(1).unwrap();
        let mut void = RoundRecord { round: 2, durable: 1, start: last.end, ..last };
        change(&mut void);
        disk.rounds[void.offset() as usize..][..SECTOR_BYTES].copy_from_slice(&void.encode(STORE));
    };
    check(&|disk, _, position| note_void(disk, &|void| void.round = position));
    check(&|disk, _, position| note_void(disk, &|void| void.signature = position));
    check(&|disk, log, position| append_flushed(disk, log, position, 100));
}
