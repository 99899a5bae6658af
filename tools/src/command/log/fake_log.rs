//! A log that tests write entry by entry.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use logic::io::SegmentId;
use logic::log::layout::{SEGMENT_HEADER_BYTES, encode_entry};
use logic::log::{EntryHeader, EntryKind, Position, SegmentHeader, StoreId};
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, Incarnation, LogIndex, NodeId, Sequence,
    SessionId, Term,
};
use proto::record::{Ready, Record, RecordBody};
use tempfile::TempDir;

/// Bytes of a segment.
pub const SEGMENT_BYTES: u32 = 8192;

/// A folder of segments; every entry is a round of its own.
pub struct FakeLog {
    pub folder: TempDir,
    pub end: Position,
    round: u64,
}

impl FakeLog {
    /// A log with one segment without entries.
    pub fn new() -> FakeLog {
        let log = FakeLog { folder: tempfile::tempdir().unwrap(), end: Position::first(SegmentId(1)), round: 0 };
        log.prepare(1);
        log
    }

    pub fn path(&self, segment: u64) -> PathBuf {
        self.folder.path().join(format!("{segment:016}.seg"))
    }

    pub fn header(segment: u64) -> SegmentHeader {
        SegmentHeader {
            segment_bytes: SEGMENT_BYTES,
            segment: SegmentId(segment),
            signature: 100 + segment,
            store: StoreId { cluster: ClusterId(7), nonce: 9 },
            durable: 0,
            durable_upto: Position::default(),
        }
    }

    /// Makes a segment.
    pub fn prepare(&self, segment: u64) {
        let mut bytes = FakeLog::header(segment).encode().to_vec();
        bytes.resize(SEGMENT_BYTES as usize, 0);
        fs::write(self.path(segment), bytes).unwrap();
    }

    /// The bytes that the next entry would have.
    pub fn encoded(&mut self, kind: EntryKind, index: u64, payload: &[u8]) -> Vec<u8> {
        self.round += 1;
        let header = EntryHeader {
            kind,
            term: Term(1 + index / 100),
            index: LogIndex(index),
            round: self.round,
            durable: self.round - 1,
            commit: LogIndex(index - 1),
            round_start: self.end.offset,
            round_continued: false,
            round_last: true,
        };
        let mut bytes = Vec::new();
        encode_entry(&FakeLog::header(self.end.segment.0), &header, payload, &mut bytes);
        bytes
    }

    /// Writes bytes at a place.
    pub fn write(&self, at: Position, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path(at.segment.0)).unwrap();
        file.write_all_at(bytes, at.offset.into()).unwrap();
    }

    /// Appends an entry.
    pub fn append(&mut self, index: u64, record: Option<&Record>) {
        let payload = record.map(proto::codec::encode_record).unwrap_or_default();
        let bytes = self.encoded(EntryKind::Record, index, &payload);
        self.write(self.end, &bytes);
        self.end.offset += bytes.len() as u32;
    }

    /// Seals the segment, and begins the next one, which was prepared.
    pub fn roll(&mut self, index: u64) {
        let bytes = self.encoded(EntryKind::Seal, index, &[]);
        self.write(self.end, &bytes);
        self.end = Position { segment: SegmentId(self.end.segment.0 + 1), offset: SEGMENT_HEADER_BYTES };
    }
}

/// A record at this time.
pub fn record(time_ms: u64, body: RecordBody) -> Record {
    Record { time_ms, body }
}

/// A record that makes an image ready.
pub fn ready(session: u64, sequence: u64, receivers: &[u64]) -> RecordBody {
    let address = Address { node: NodeId(1), core: CoreId(0) };
    RecordBody::Ready(Ready {
        image: ImageId { session: SessionId(session), sequence: Sequence(sequence) },
        low_water: Sequence(1),
        fingerprint: Fingerprint { length: 10, checksum: 5 },
        name: "cat.png".to_owned(),
        receivers: receivers.iter().copied().map(InboxId).collect(),
        holders: vec![Holder { address, incarnation: Incarnation(1) }],
    })
}
