//! What can become of a log's files: rot, as disks and people cause it; and forgeries, with right checksums.

use logic::io::SegmentId;
use logic::log::layout::{
    ENTRY_HEADER_BYTES, EntryHeader, EntryKind, Position, SEGMENT_HEADER_BYTES, SegmentHeader, encode_entry,
};
use logic::log::{ROUNDS_BYTES, Reader, RoundRecord};
use proto::ids::{LogIndex, Term};
use proto::limits::SECTOR_BYTES;

use super::disk::{Disk, STORE};
use crate::script::Script;
use crate::sector;

fn some_segment(script: &mut Script<'_>, disk: &Disk) -> Option<u64> {
    let nth = script.below(disk.segments.len().max(1));
    disk.segments.keys().nth(nth).copied()
}

/// The files by number: the ring, then the segments.
fn some_file<'d>(script: &mut Script<'_>, disk: &'d mut Disk) -> &'d mut Vec<u8> {
    let which = script.byte();
    let nth = usize::from(which / 4) % disk.segments.len().max(1);
    match disk.segments.values_mut().nth(nth) {
        Some(bytes) if !which.is_multiple_of(4) => bytes,
        _ => &mut disk.rounds,
    }
}

fn some_sector(script: &mut Script<'_>, bytes: &[u8]) -> usize {
    script.below((bytes.len() / SECTOR_BYTES).max(1)) * SECTOR_BYTES
}

/// One fault, without right checksums. `clean` is the disk before the first.
pub fn rot(script: &mut Script<'_>, disk: &mut Disk, clean: &Disk) {
    match script.below(10) {
        0..=2 => {
            let bytes = some_file(script, disk);
            let at = some_sector(script, bytes);
            if let Some(bytes) = bytes.get_mut(at..at + SECTOR_BYTES) {
                sector::damage(script, bytes);
            }
        }
        3 | 4 => {
            // A sector that belongs elsewhere, of the same file or another.
            let mut source = clean.clone();
            let source = some_file(script, &mut source);
            let from = some_sector(script, source);
            let target = some_file(script, disk);
            let to = some_sector(script, target);
            if let (Some(source), Some(target)) =
                (source.get(from..from + SECTOR_BYTES), target.get_mut(to..to + SECTOR_BYTES))
            {
                target.copy_from_slice(source);
            }
        }
        5 => {
            let bytes = some_file(script, disk);
            let length = script.below(bytes.len() + 1);
            bytes.truncate(length);
        }
        6 => {
            let segment = some_segment(script, disk);
            segment.and_then(|segment| disk.segments.remove(&segment));
        }
        7 => {
            // Two segments exchanged, or one there twice.
            let (Some(one), Some(other)) = (some_segment(script, disk), some_segment(script, disk)) else { return };
            let copy = disk.segments[&one].clone();
            let to = if script.flag() { other } else { one + 1 + u64::from(script.byte() % 3) };
            if let Some(before) = disk.segments.insert(to, copy)
                && script.flag()
            {
                disk.segments.insert(one, before);
            }
        }
        8 => {
            // Entries repeated, or moved over others.
            let bytes = some_file(script, disk);
            let eighths = (bytes.len() / 8).max(1);
            let (from, to) = (script.below(eighths) * 8, script.below(eighths) * 8);
            let count = script.below(1 << 12).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
        _ => {
            let bytes = some_file(script, disk);
            let from = some_sector(script, bytes);
            let end = (from + script.below(1 << 13)).min(bytes.len());
            bytes[from.min(end)..end].fill(script.byte());
        }
    }
}

/// One forgery. `round` is the last round of the log.
pub fn forge(script: &mut Script<'_>, disk: &mut Disk, round: u64) {
    match script.below(8) {
        0..=3 => forge_entry(script, disk),
        4 => forge_header(script, disk),
        5 | 6 => forge_round(script, disk, round),
        _ => {
            // Any bytes in a sector with a checksum at its end.
            let bytes = some_file(script, disk);
            let at = if script.flag() { 0 } else { some_sector(script, bytes) };
            let Some(bytes) = bytes.get_mut(at..at + SECTOR_BYTES) else { return };
            for _ in 0..=script.byte() % 4 {
                let field = script.below(84);
                // The length of a segment stays.
                if !matches!(field, 12..16) {
                    bytes[field] = script.byte();
                }
            }
            sector::seal(bytes);
        }
    }
}

/// An entry with other values, in the place of one or behind the last.
fn forge_entry(script: &mut Script<'_>, disk: &mut Disk) {
    let Some(segment) = some_segment(script, disk) else { return };
    let bytes = disk.segments.get_mut(&segment).expect("chosen from it");
    let Ok(reader) = Reader::new(bytes) else { return };
    let found: Vec<_> = reader.entries().map_while(Result::ok).collect();
    let end = found.last().map_or(SEGMENT_HEADER_BYTES, |last| last.next);
    let nth = script.below(found.len() + 1);
    let old = found.get(nth).or(found.last()).copied();
    let offset = found.get(nth).map_or(end, |found| found.offset);
    let mut header = old.map_or(
        EntryHeader {
            kind: EntryKind::Record,
            term: Term(1),
            index: LogIndex(1),
            round: 1,
            durable: 0,
            commit: LogIndex(0),
            round_start: SEGMENT_HEADER_BYTES,
            round_continued: false,
            round_last: true,
        },
        |found| found.header,
    );
    let mut payload = old.map_or(Vec::new(), |found| found.payload.to_vec());
    if nth == found.len() {
        // As the next round would begin.
        header.index.0 += 1;
        (header.durable, header.round, header.round_start) = (header.round, header.round + 1, offset);
        (header.round_continued, header.round_last) = (false, true);
    }
    for _ in 0..script.byte() % 4 {
        match script.below(9) {
            0 => header.kind = if script.flag() { EntryKind::Record } else { EntryKind::Seal },
            1 => change(script, &mut header.term.0),
            2 => change(script, &mut header.index.0),
            3 => change(script, &mut header.round),
            4 => change(script, &mut header.durable),
            5 => change(script, &mut header.commit.0),
            6 => header.round_start = script.word() & !7,
            7 => (header.round_continued, header.round_last) = (script.flag(), script.flag()),
            _ => payload = script.bytes(255).to_vec(),
        }
    }
    if header.durable >= header.round || header.round_start < SEGMENT_HEADER_BYTES {
        return;
    }
    let mut encoded = Vec::new();
    encode_entry(reader.header(), &header, &payload, &mut encoded);
    if script.byte() == 1 {
        // A value that no encoder makes; the header's checksum stays wrong.
        encoded[script.below(ENTRY_HEADER_BYTES as usize)] ^= 0x10;
    }
    let end = offset as usize + encoded.len();
    if let Some(place) = bytes.get_mut(offset as usize..end) {
        place.copy_from_slice(&encoded);
    }
}

fn forge_header(script: &mut Script<'_>, disk: &mut Disk) {
    let Some(segment) = some_segment(script, disk) else { return };
    let bytes = disk.segments.get_mut(&segment).expect("chosen from it");
    let Ok(mut header) = SegmentHeader::decode(bytes) else { return };
    match script.below(6) {
        // One that states more than there is was cut off: the file gets that length.
        0 => header.segment_bytes = script.word() % (64 << 10),
        1 => change(script, &mut header.segment.0),
        2 => change(script, &mut header.signature),
        3 => change(script, &mut header.durable),
        4 => change(script, &mut header.durable_upto.segment.0),
        _ => header.durable_upto.offset = script.word(),
    }
    if header.signature != 0 && header.segment.0 != 0 {
        bytes[..SECTOR_BYTES].copy_from_slice(&header.encode()[..]);
    }
}

fn forge_round(script: &mut Script<'_>, disk: &mut Disk, round: u64) {
    disk.rounds.resize(ROUNDS_BYTES as usize, 0);
    let place = |script: &mut Script<'_>| Position {
        segment: SegmentId(script.number(u64::MAX)),
        offset: script.number(1 << 20) as u32 & !7,
    };
    let mut record = RoundRecord {
        round: round + script.number(u64::MAX) % 4,
        durable: round.saturating_sub(1),
        start: place(script),
        end: place(script),
        signature: script.number(u64::MAX),
    };
    match script.below(4) {
        0 => change(script, &mut record.round),
        1 => change(script, &mut record.durable),
        2 => record.end = record.start,
        _ => {}
    }
    if record.round > 0 && record.durable < record.round && record.start <= record.end {
        let at = record.offset() as usize;
        disk.rounds[at..at + SECTOR_BYTES].copy_from_slice(&record.encode(STORE));
    }
}

/// One more or less, or any number.
fn change(script: &mut Script<'_>, number: &mut u64) {
    *number = match script.byte() % 4 {
        0 => number.saturating_add(1),
        1 => number.saturating_sub(1),
        2 => number.saturating_sub(u64::from(script.byte())),
        _ => script.number(u64::MAX),
    };
}
