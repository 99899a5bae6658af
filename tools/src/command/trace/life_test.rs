use std::fmt::Write;

use logic::state::State;
use proto::ids::{ClusterId, ImageId, InboxId, InboxSeq, LogIndex, NodeId, Sequence, SessionId};
use proto::record::{Record, RecordBody};

use super::{At, Life};
use crate::command::log::fake_log;
use crate::command::trace::print::told;

const IMAGE: ImageId = ImageId { session: SessionId(4), sequence: Sequence(1) };

fn genesis() -> RecordBody {
    RecordBody::Genesis { cluster: ClusterId(7), members: Vec::new(), copies: 2, image_bytes_max: 1000 }
}

fn register(name: &str) -> RecordBody {
    RecordBody::Register { name: name.to_owned() }
}

fn session() -> RecordBody {
    RecordBody::OpenSession { sender: "camera".to_owned() }
}

fn ready_with(sequence: u64, checksum: u64, receivers: &[u64]) -> RecordBody {
    let mut body = fake_log::ready(4, sequence, receivers);
    if let RecordBody::Ready(ready) = &mut body {
        ready.fingerprint.checksum = checksum;
    }
    body
}

fn ready(sequence: u64, receivers: &[u64]) -> RecordBody {
    ready_with(sequence, 5, receivers)
}

fn acked(upto: &[(u64, u64)]) -> RecordBody {
    RecordBody::Acked { upto: upto.iter().map(|&(inbox, seq)| (InboxId(inbox), InboxSeq(seq))).collect() }
}

/// A log from its first entry on: genesis, gallery as b2, archive as b3, the session s4.
fn begun() -> Vec<(u64, RecordBody)> {
    vec![(1, genesis()), (2, register("gallery")), (3, register("archive")), (4, session())]
}

fn check(entries: &[(u64, RecordBody)], expected: &str) {
    let mut life = Life::new(IMAGE);
    for (index, body) in entries {
        let at = At { index: *index, term: 1, is_committed: true, time_ms: 0, nodes: vec![NodeId(1)] };
        life.on_entry(at, Some(&Ok(Record { time_ms: 1000, body: body.clone() })));
    }
    assert_eq!(text_of(&life), expected.trim());
}

fn text_of(life: &Life) -> String {
    let mut text = life.notes.iter().fold(String::new(), |text, note| text + note + "\n");
    for event in &life.events {
        writeln!(text, "{} {}", event.at.index, told(&event.what)).unwrap();
    }
    text.trim().to_owned()
}

#[test]
fn an_image_for_two_is_freed_when_both_have_it() {
    let rest = [
        (5, ready(2, &[2])),
        (6, ready(1, &[2, 3])),
        (7, acked(&[(2, 1)])),
        (8, acked(&[(3, 1)])),
        (9, acked(&[(2, 2), (3, 1)])),
        (10, acked(&[(2, 2)])),
    ];
    check(
        &[begun(), rest.to_vec()].concat(),
        r#"
4 session opened by "camera"
6 ready for gallery (b2) as place 2, archive (b3) as place 1 on n1c0
8 acked by archive (b3), up to place 1
9 acked by gallery (b2), up to place 2
9 freed: all receivers of record 6 have it; n1c0 may free"#,
    );
}

#[test]
fn records_of_two_homes_are_told_and_freed_apart() {
    let rest = [
        (5, ready(1, &[2])),
        (6, ready(1, &[3])),
        (7, ready(1, &[2, 3])),
        (8, ready_with(1, 6, &[2])),
        (9, acked(&[(2, 1)])),
        (10, RecordBody::ExpireSessions { idle_since_ms: 2000 }),
    ];
    check(
        &[begun(), rest.to_vec()].concat(),
        r#"
4 session opened by "camera"
5 ready for gallery (b2) as place 1 on n1c0
6 ready for archive (b3) as place 1 on n1c0
7 ready again for gallery (b2), archive (b3): changed nothing
8 refused: the id is known with other bytes
9 acked by gallery (b2), up to place 1
9 freed: all receivers of record 5 have it; n1c0 may free
10 session ended, unused for too long"#,
    );
}

#[test]
fn a_log_that_does_not_begin_at_1_is_told_record_by_record() {
    let entries = [
        (6, register("press")),
        (7, ready(1, &[2, 6])),
        (8, acked(&[(2, 17)])),
        (9, acked(&[(2, 18)])),
        (10, ready(1, &[2])),
    ];
    check(
        &entries,
        r#"
entries below 6 are gone: what happened before is not in the log
7 ready for b2, place not known, press (b6), place not known on n1c0
8 first acked behind it by b2, up to place 17: whether that covers the image is not known
10 ready again for b2: changed nothing"#,
    );
}

#[test]
fn a_place_that_was_counted_before_a_hole_still_counts_behind_it() {
    let rest = [(5, ready(1, &[2])), (8, ready(2, &[2])), (9, acked(&[(2, 1)]))];
    check(
        &[begun(), rest.to_vec()].concat(),
        r#"
entries 6 to 7 are in none of the logs: places in inboxes are not known from there on
4 session opened by "camera"
5 ready for gallery (b2) as place 1 on n1c0
9 acked by gallery (b2), up to place 1
9 freed: all receivers of record 5 have it; n1c0 may free"#,
    );
}

/// The state behind these entries, as a snapshot has it.
fn state_behind(entries: &[(u64, RecordBody)]) -> State {
    let mut state = State::default();
    for (index, body) in entries {
        state.apply(LogIndex(*index), &Record { time_ms: 1000, body: body.clone() });
    }
    state
}

#[test]
fn a_snapshot_stands_for_the_entries_before_it() {
    let gone = [(5, ready(2, &[2])), (6, ready(1, &[2, 3])), (7, acked(&[(3, 1)]))];
    let gone = [begun(), gone.to_vec()].concat();
    let at = |index| At { index, term: 1, is_committed: true, time_ms: 0, nodes: vec![NodeId(1)] };
    // The log begins right behind it, reaches back before it, or begins later.
    let cases: [(&[u64], &str); 3] = [
        (
            &[8],
            r#"
entries below 8 are gone: a snapshot stands for them
7 snapshot: record 6 waits for gallery (b2) as place 2 on n1c0; acked by archive (b3), record 6
9 acked by gallery (b2), up to place 2
9 freed: all receivers of record 6 have it; n1c0 may free"#,
        ),
        (
            &[6, 7, 8],
            r#"
entries below 6 are gone: what happened before is not in the log
6 ready for b2, place not known, b3, place not known on n1c0
7 first acked behind it by b3, up to place 1: whether that covers the image is not known
7 snapshot: record 6 waits for gallery (b2) as place 2 on n1c0; acked by archive (b3), record 6
9 acked by gallery (b2), up to place 2
9 freed: all receivers of record 6 have it; n1c0 may free"#,
        ),
        (
            &[],
            r#"
entries below 8 are gone: a snapshot stands for them
entry 8 is in none of the logs: places in inboxes are not known from there on
7 snapshot: record 6 waits for gallery (b2) as place 2 on n1c0; acked by archive (b3), record 6
9 acked by gallery (b2), up to place 2
9 freed: all receivers of record 6 have it; n1c0 may free"#,
        ),
    ];
    for (log, expected) in cases {
        let mut life = Life::new(IMAGE);
        let entry = |life: &mut Life, index: u64| {
            let body = match index {
                8 => ready(3, &[3]),
                9 => acked(&[(2, 2)]),
                _ => gone[index as usize - 1].1.clone(),
            };
            life.on_entry(at(index), Some(&Ok(Record { time_ms: 1000, body })));
        };
        log.iter().filter(|index| **index <= 7).for_each(|index| entry(&mut life, *index));
        assert!(life.asks_for(7));
        life.on_snapshot(at(7), state_behind(&gone));
        assert!(!life.asks_for(7) && !life.is_blind());
        log.iter().filter(|index| **index > 7).for_each(|index| entry(&mut life, *index));
        entry(&mut life, 9);
        assert_eq!(text_of(&life), expected.trim());
        assert_eq!(life.sender.as_deref(), Some("camera"));
    }
}

#[test]
fn a_snapshot_knows_what_is_finished_and_nothing_of_what_never_came() {
    let at = At { index: 9, term: 1, is_committed: true, time_ms: 0, nodes: vec![NodeId(1)] };
    let mut later = ready(5, &[2]);
    if let RecordBody::Ready(ready) = &mut later {
        ready.low_water = Sequence(2);
    }
    let rest = [(5, ready(1, &[2])), (6, acked(&[(2, 1)])), (7, later)];
    let mut life = Life::new(IMAGE);
    life.on_snapshot(at.clone(), state_behind(&[begun(), rest.to_vec()].concat()));
    let told = "entries below 10 are gone: a snapshot stands for them\n9 snapshot: its sender needs no answer any more";
    assert_eq!(text_of(&life), told);
    let mut life = Life::new(IMAGE);
    life.on_snapshot(at, state_behind(&begun()));
    assert!(life.events.is_empty());
}

#[test]
fn other_images_leave_no_trace() {
    let rest = [(5, ready(2, &[2])), (6, acked(&[(2, 1)]))];
    check(&[begun(), rest.to_vec()].concat(), "4 session opened by \"camera\"");
}
