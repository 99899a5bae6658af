use clap::Parser;
use logic::log::{EntryHeader, EntryKind, Found};
use proto::ids::{InboxId, InboxSeq, LogIndex, Term};
use proto::record::RecordBody;

use super::{Filter, IndexRange};
use crate::args::FilterArguments;
use crate::command::log::entry::Entry;
use crate::command::log::fake_log::{FakeLog, ready, record};

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    filter: FilterArguments,
}

fn parse(line: &str) -> Result<Filter, clap::Error> {
    let words = std::iter::once("dump").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| Filter::new(&line.filter))
}

/// What the log of the tests holds: index, term, and the record, if any; its time is 100,000,000,000 ms and as many seconds
/// as its index.
fn entries() -> Vec<(u64, u64, EntryKind, Option<RecordBody>)> {
    let register = |name: &str| Some(RecordBody::Register { name: name.to_owned() });
    let session = |sender: &str| Some(RecordBody::OpenSession { sender: sender.to_owned() });
    let acked =
        |inbox: u64| Some(RecordBody::Acked { upto: vec![(InboxId(90), InboxSeq(1)), (InboxId(inbox), InboxSeq(1))] });
    let kind = EntryKind::Record;
    vec![
        (1, 1, kind, None),
        (2, 1, kind, register("gallery")),
        (3, 1, kind, register("archive")),
        (4, 1, kind, session("camera")),
        (5, 1, kind, session("gallery")),
        (6, 1, kind, Some(ready(4, 1, &[2, 3]))),
        (7, 1, kind, Some(ready(5, 1, &[3]))),
        (8, 1, kind, Some(ready(4, 2, &[3]))),
        (8, 1, EntryKind::Seal, None),
        (9, 1, kind, acked(2)),
        (10, 1, kind, acked(3)),
        (11, 1, kind, register("cellar")),
        // Another leader: 11 and what would follow never counted.
        (11, 2, kind, None),
        (12, 2, kind, Some(ready(4, 3, &[11]))),
        (13, 2, kind, Some(RecordBody::Probe { payload: vec![0; 3] })),
    ]
}

/// The indexes of the entries that pass; a seal is the negative of its own. And what is said besides.
fn passing(filter: &mut Filter) -> (Vec<i64>, Vec<String>) {
    let header = FakeLog::header(1);
    let (mut passing, mut notes) = (Vec::new(), Vec::new());
    for (index, term, kind, body) in entries() {
        let payload = body.map(|body| proto::codec::encode_record(&record(100_000_000_000 + index * 1000, body)));
        let entry_header = EntryHeader {
            kind,
            term: Term(term),
            index: LogIndex(index),
            round: index,
            durable: 0,
            commit: LogIndex(0),
            round_start: 512,
            round_continued: false,
            round_last: true,
        };
        let found = Found { offset: 512, next: 600, header: entry_header, payload: payload.as_deref().unwrap_or(&[]) };
        if filter.passes(&Entry::new(&header, &found)) {
            passing.push(if kind == EntryKind::Seal { -(index as i64) } else { index as i64 });
        }
        notes.extend(filter.take_note());
    }
    (passing, notes)
}

fn check(line: &str, expected: &[i64]) {
    let (passing, notes) = passing(&mut parse(line).unwrap());
    assert_eq!(passing, expected, "{line}");
    assert!(notes.is_empty() || line.contains("--client"), "{line}: {notes:?}");
}

#[test]
fn entries_are_chosen_by_place_term_and_kind() {
    check("", &[1, 2, 3, 4, 5, 6, 7, 8, -8, 9, 10, 11, 11, 12, 13]);
    check("--index 6..8", &[6, 7, 8, -8]);
    check("--index ..2", &[1, 2]);
    check("--index 12..", &[12, 13]);
    check("--index 7", &[7]);
    check("--term 2", &[11, 12, 13]);
    check("--kind register,open-session", &[2, 3, 4, 5, 11]);
    check("--kind ready --kind acked", &[6, 7, 8, 9, 10, 12]);
    check("--kind empty", &[1, 11]);
    check("--kind seal,probe", &[-8, 13]);
    check("--kind session,term", &[1, 4, 5, 11]);
    check("--kind ring-change,genesis,expire-sessions", &[]);
}

#[test]
fn entries_are_chosen_by_image_and_time() {
    check("--image s4.2", &[8]);
    check("--image 4.9", &[]);
    check("--since 100000006000 --until 100000009000", &[6, 7, 8, 9]);
    check("--since 1973-03-03T09:46:52Z", &[12, 13]);
    check("--until 100000003", &[2, 3]);
}

#[test]
fn a_client_is_found_as_sender_and_as_receiver() {
    check("--client gallery", &[2, 5, 6, 7, 9]);
    check("--client archive", &[3, 6, 7, 8, 10]);
    check("--client camera", &[4, 6, 8, 12]);
    check("--client nobody", &[]);
}

#[test]
fn all_filters_must_hold() {
    check("--client archive --kind ready --index 7..", &[7, 8]);
    check("--image s4.1 --term 2", &[]);
    check("--client gallery --kind ready --until 100000006000", &[6]);
}

#[test]
fn ids_without_a_name_are_said_once() {
    let (passes, notes) = passing(&mut parse("--client archive").unwrap());
    assert_eq!(passes, [3, 6, 7, 8, 10]);
    // b90 was never registered here, and b11 was, by an entry that was replaced.
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("b90 ") && notes[0].contains("\"archive\""), "{notes:?}");
}

#[test]
fn wrong_filters_are_refused_with_an_example() {
    for (line, part) in [
        ("--index 9..3", "ends before it begins"),
        ("--index ..", "7..12"),
        ("--index x", "7..12"),
        ("--index 1-3", "7..12"),
        ("--image cat.png", "s4.1"),
        ("--image s4", "s4.1"),
        ("--kind accepted", "ready"),
        ("--since 17:00", "2026-11-22T18:00:00Z"),
        ("--until 5", "seconds or milliseconds"),
        ("--term x", "--term"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn an_entry_that_nobody_understands_is_shown_where_it_could_be_what_is_sought() {
    let (header, payload) = (FakeLog::header(1), [0xff; 40]);
    let entry_header = EntryHeader {
        kind: EntryKind::Record,
        term: Term(1),
        index: LogIndex(7),
        round: 1,
        durable: 0,
        commit: LogIndex(0),
        round_start: 512,
        round_continued: false,
        round_last: true,
    };
    let found = Found { offset: 512, next: 600, header: entry_header, payload: &payload };
    for (line, passes) in [("--kind ready --client x --image s1.1", true), ("--index 8..", false)] {
        assert_eq!(parse(line).unwrap().passes(&Entry::new(&header, &found)), passes, "{line}");
    }
}

#[test]
fn index_ranges_are_read() {
    assert_eq!("7".parse(), Ok(IndexRange { from: 7, upto: 7 }));
    assert_eq!("7..9".parse(), Ok(IndexRange { from: 7, upto: 9 }));
    assert_eq!("7..".parse(), Ok(IndexRange { from: 7, upto: u64::MAX }));
    assert_eq!("..9".parse(), Ok(IndexRange { from: 0, upto: 9 }));
}
