use std::fs;
use std::sync::atomic::AtomicBool;

use logic::io::SegmentId;
use logic::log::layout::SEGMENT_HEADER_BYTES;
use logic::log::{EntryKind, Position};

use super::{Filter, Follower, Printer};
use crate::command::log::fake_log::FakeLog;

/// What is shown in one turn: for each entry its segment and index, "bad" for a damaged place.
fn turn(follower: &mut Follower) -> Vec<String> {
    let mut out = Vec::new();
    let mut printer = Printer::new(&mut out, true, Filter::default(), true);
    follower.turn(&mut printer, &AtomicBool::new(false)).unwrap();
    let shown = String::from_utf8(out).unwrap();
    let show = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        match (&entry["bad"], entry["kind"] == "seal") {
            (serde_json::Value::Null, false) => format!("{} {}", entry["segment"], entry["index"]),
            (serde_json::Value::Null, true) => format!("{} seal", entry["segment"]),
            _ => format!("{} bad", entry["segment"]),
        }
    };
    shown.lines().map(show).collect()
}

fn follower(log: &FakeLog) -> Follower {
    Follower::new(log.folder.path().to_owned())
}

#[test]
fn each_entry_is_shown_once_when_it_is_whole_across_segments() {
    let mut log = FakeLog::new();
    let mut follower = follower(&log);
    assert_eq!(turn(&mut follower), [""; 0]);
    log.append(1, None);
    log.append(2, None);
    assert_eq!(turn(&mut follower), ["1 1", "1 2"]);
    assert_eq!(turn(&mut follower), [""; 0]);
    // Written sector by sector: first its end, then all but its begin, then all.
    let (at, bytes) = (log.end, log.encoded(EntryKind::Record, 3, &[0xff; 1500]));
    for from in [1000, 64, 0] {
        assert_eq!(turn(&mut follower), [""; 0]);
        log.write(Position { offset: at.offset + from, ..at }, &bytes[from as usize..]);
    }
    log.end.offset += bytes.len() as u32;
    log.prepare(2);
    assert_eq!(turn(&mut follower), ["1 3"]);
    log.roll(3);
    log.append(4, None);
    assert_eq!(turn(&mut follower), ["1 seal", "2 4"]);
    log.roll(4);
    assert_eq!(turn(&mut follower), ["2 seal"], "the next segment is not there yet");
    log.prepare(3);
    assert_eq!(turn(&mut follower), [""; 0]);
    log.append(5, None);
    log.append(5, None);
    assert_eq!(turn(&mut follower), ["3 5", "3 5"], "what replaces another is shown as written");
}

/// Four segments, of which the follower read the first entry of the first.
fn four_segments() -> (FakeLog, Follower) {
    let mut log = FakeLog::new();
    log.append(1, None);
    let mut follower = follower(&log);
    assert_eq!(turn(&mut follower), ["1 1"]);
    for segment in 2..=4 {
        log.prepare(segment);
        log.append(segment, None);
        log.roll(segment);
    }
    log.append(5, None);
    (log, follower)
}

#[test]
fn segments_that_vanish_are_passed_over() {
    let (mut log, mut follower) = four_segments();
    for segment in 1..=3 {
        fs::remove_file(log.path(segment)).unwrap();
    }
    assert_eq!(turn(&mut follower), ["1 2", "1 seal", "4 5"], "an open file is read to its end");
    log.append(6, None);
    assert_eq!(turn(&mut follower), ["4 6"]);
}

#[test]
fn a_segment_whose_file_holds_newer_entries_is_left() {
    let (mut log, mut follower) = four_segments();
    log.write(Position { segment: SegmentId(1), offset: 0 }, &FakeLog::header(5).encode()[..]);
    fs::rename(log.path(1), log.path(5)).unwrap();
    assert_eq!(turn(&mut follower), ["2 3", "2 seal", "3 4", "3 seal", "4 5"]);
    log.roll(5);
    log.append(6, None);
    assert_eq!(turn(&mut follower), ["4 seal", "5 6"]);
}

#[test]
fn damage_is_shown_once_it_is_proven() {
    let mut log = FakeLog::new();
    let mut places = Vec::new();
    for index in 1..=5 {
        places.push(log.end);
        log.append(index, None);
    }
    log.write(places[2], &[0; 64]);
    let mut follower = follower(&log);
    assert_eq!(turn(&mut follower), ["1 1", "1 2", "1 bad", "1 4", "1 5"]);
    // Of a torn round nothing proves that it was ever whole.
    let bytes = log.encoded(EntryKind::Record, 6, &[0xff; 600]);
    log.write(log.end, &bytes[..512]);
    assert_eq!(turn(&mut follower), [""; 0]);
    // The node left the segment: the next one proves it.
    log.prepare(2);
    log.end = Position { segment: SegmentId(2), offset: SEGMENT_HEADER_BYTES };
    log.append(7, None);
    assert_eq!(turn(&mut follower), ["1 bad", "2 7"]);
}

#[test]
fn after_the_log_was_cut_it_goes_on_where_it_was_cut() {
    let mut log = FakeLog::new();
    let mut places = Vec::new();
    for index in 1..=5 {
        places.push(log.end);
        log.append(index, None);
    }
    let mut follower = follower(&log);
    assert_eq!(turn(&mut follower).len(), 5);
    log.write(places[2], &vec![0; (log.end.offset - places[2].offset) as usize]);
    log.end = places[2];
    assert_eq!(turn(&mut follower), [""; 0]);
    log.append(3, None);
    log.append(4, None);
    assert_eq!(turn(&mut follower), ["1 3", "1 4"]);
    // Back into a segment that was left, over a damaged place.
    log.prepare(2);
    log.roll(4);
    log.append(5, None);
    assert_eq!(turn(&mut follower), ["1 seal", "2 5"]);
    log.write(Position::first(SegmentId(2)), &[0; 512]);
    log.end = Position::first(SegmentId(2));
    log.append(105, None);
    log.append(106, None);
    assert_eq!(turn(&mut follower), ["2 105", "2 106"]);
}
