//! Scripts against the inbox session. A line of a script is `MS INPUT`; the text is what the session did.
//!
//! Image `S` of a script has length `S` chunks and a checksum that follows from its chunks' checksums, each of which is
//! `seq * 1000 + number`.

use std::collections::BTreeSet;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::client::{ClientReply, ImageHead, NodeStatus};
use proto::error::Refusal;
use proto::ids::{Fingerprint, ImageId, InboxId, InboxSeq, LogIndex, RequestId, Sequence, SessionId};

use crate::inbox::{InboxEvent, InboxInput, InboxSession, StoredBefore};
use crate::scripted::{CHUNK, Links, bytes, client_of, compare, number, options};
use crate::session::{Action, BodyFacts, LinkInput, Routing};

const INBOX: InboxId = InboxId(4);

fn crc(seq: u64, part: u64) -> u64 {
    seq * 1000 + part
}

fn head(seq: u64) -> ImageHead {
    let checksum = (0..seq).fold(CRC64_EMPTY, |whole, part| crc64_combine(whole, crc(seq, part), CHUNK));
    ImageHead {
        inbox: INBOX,
        seq: InboxSeq(seq),
        image: ImageId { session: SessionId(1), sequence: Sequence(seq) },
        fingerprint: Fingerprint { length: seq * CHUNK, checksum },
        sender: "sender".to_owned(),
        name: "x".to_owned(),
        index: LogIndex(seq + 100),
        is_damaged: false,
    }
}

pub(super) struct Script {
    pub(super) session: InboxSession,
    links: Links,
    name: String,
    pub(super) text: String,
}

impl Script {
    /// A receiver whose home is node 1, not yet started.
    fn new(stored: &[u64]) -> Script {
        let name = client_of(1);
        let inbox = (!stored.is_empty()).then_some(INBOX);
        let stored = StoredBefore { inbox, seqs: stored.iter().copied().map(InboxSeq).collect::<BTreeSet<_>>() };
        let session = InboxSession::new(options(&["a", "b"], Routing::Home), &name, stored).unwrap();
        Script { session, links: Links::default(), name, text: String::new() }
    }

    /// With the inbox open at its home and nothing acknowledged.
    pub(super) fn open() -> Script {
        let mut script = Script::new(&[]);
        script.run("0 start\n 0 up 1\n 0 opened 0");
        script.text.clear();
        script
    }

    pub(super) fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now_us = words[0].parse::<u64>().unwrap() * 1000;
            let mut actions = Vec::new();
            self.session.step(now_us, self.input(&words[1..]), &mut actions);
            for action in &actions {
                let line = self.links.text(action).unwrap_or_else(|| event(action));
                self.text.push_str(&line.replace(&self.name, "ME"));
                self.text.push('\n');
            }
        }
    }

    fn input(&self, words: &[&str]) -> InboxInput {
        if let Some(input) = self.links.input(words) {
            return InboxInput::Link(input);
        }
        let mut body = None;
        let seq = |word: &str| InboxSeq(number(word));
        let reply = match words {
            ["start"] => return InboxInput::Start,
            ["tick"] => return InboxInput::Tick,
            ["stored", word] => return InboxInput::Stored(seq(word)),
            ["lost", word] => return InboxInput::Lost(seq(word)),
            ["ask"] => return InboxInput::AskCaughtUp,
            ["marked", request, index] => {
                ClientReply::ProbeDone { request: RequestId(number(request)), index: LogIndex(number(index)) }
            }
            ["no-mark", request] => ClientReply::Failure {
                request: Some(RequestId(number(request))),
                refusal: Refusal::NoLeader,
                text: "no".to_owned(),
                ring: None,
            },
            ["status", request, applied] => {
                let status = NodeStatus { applied: LogIndex(number(applied)), ..NodeStatus::default() };
                ClientReply::Status { request: RequestId(number(request)), status: Box::new(status) }
            }
            ["opened", upto] => ClientReply::InboxOpened { inbox: INBOX, acked_upto: seq(upto) },
            ["opened-other"] => ClientReply::InboxOpened { inbox: InboxId(9), acked_upto: InboxSeq(0) },
            ["damaged", word] => ClientReply::Head(ImageHead { is_damaged: true, ..head(number(word)) }),
            ["head", word] => ClientReply::Head(head(number(word))),
            ["chunk", word, part] | ["bad-chunk", word, part] => {
                let (number_of, part) = (number(word), number(part));
                let wrong = u64::from(words[0] == "bad-chunk");
                body = Some(BodyFacts { length: CHUNK, crc64: crc(number_of, part) + wrong });
                ClientReply::Chunk { inbox: INBOX, seq: seq(word), offset: part * CHUNK, crc32: 0 }
            }
            ["acked", word] => ClientReply::Acked { inbox: INBOX, upto: seq(word) },
            ["unknown"] => ClientReply::Failure {
                request: None,
                refusal: Refusal::UnknownReceiver,
                text: "no".to_owned(),
                ring: None,
            },
            other => panic!("{other:?}"),
        };
        InboxInput::Link(LinkInput::Reply { link: self.links.link(), reply, body })
    }
}

fn event(action: &Action<InboxEvent>) -> String {
    let Action::Event(event) = action else { unreachable!() };
    match event {
        InboxEvent::Opened { inbox, acked_upto } => format!("! opened {inbox} acked {acked_upto}"),
        InboxEvent::Begin { head } => format!("! begin {}", head.seq),
        InboxEvent::Write { seq, offset } => format!("! write {seq} @{}", bytes(*offset)),
        InboxEvent::Finish { seq } => format!("! finish {seq}"),
        InboxEvent::Abort { seq } => format!("! abort {seq}"),
        InboxEvent::Damaged { head } => format!("! damaged {}", head.seq),
        InboxEvent::Corrupt { seq, .. } => format!("! corrupt {seq}"),
        InboxEvent::Acked { upto } => format!("! acked {upto}"),
        InboxEvent::Failed(failure) => {
            format!("! failed {}", format!("{failure:?}").split_whitespace().next().unwrap())
        }
    }
}

/// Credit is left out: it has a test of its own.
fn check(mut script: Script, lines: &str, expected: &str) {
    script.run(lines);
    let text: Vec<&str> = script.text.lines().filter(|line| !line.starts_with("credit")).collect();
    compare(&text.join("\n"), expected);
}

#[test]
fn image_is_given_out_stored_and_acknowledged() {
    check(
        Script::new(&[]),
        "0 start
         1 up 1
         2 opened 0
         3 head 1
         3 chunk 1 0
         9 stored 1
         10 acked 1
         11 head 2
         11 chunk 2 0
         11 chunk 2 1
         12 stored 2
         13 acked 2",
        "connect a for ME
         open inbox of ME
         ! opened b4 acked 0
         ! begin 1
         ! write 1 @0
         ! finish 1
         ack b4 upto 1
         ! acked 1
         ! begin 2
         ! write 2 @0
         ! write 2 @1M
         ! finish 2
         ack b4 upto 2
         ! acked 2",
    );
}

#[test]
fn damaged_image_takes_its_place_without_bytes() {
    check(
        Script::new(&[]),
        "0 start
         1 up 1
         2 opened 0
         3 damaged 1
         4 stored 1
         5 head 2
         5 chunk 2 0
         6 damaged 2
         7 stored 2
         8 head 3",
        "connect a for ME
         open inbox of ME
         ! opened b4 acked 0
         ! damaged 1
         ack b4 upto 1
         ! begin 2
         ! write 2 @0
         ! abort 2
         ! damaged 2
         ack b4 upto 2
         ! begin 3",
    );
}

#[test]
fn acknowledgements_are_cumulative_and_batched() {
    let mut script = Script::open();
    for seq in 1..=3 {
        script.run(&format!("10 head {seq}"));
        for part in 0..seq {
            script.run(&format!("10 chunk {seq} {part}"));
        }
    }
    script.text.clear();
    script.run(
        "11 stored 1
         11 stored 3
         14 tick
         15 stored 2
         16 tick
         17 tick",
    );
    compare(
        &script.text,
        "ack b4 upto 1
         ack b4 upto 3",
    );
    assert_eq!(script.session.stored_upto(), InboxSeq(3));
}

#[test]
fn redelivered_image_that_is_stored_is_only_acknowledged_again() {
    let mut script = Script::open();
    script.run(
        "5 head 1
         5 chunk 1 0
         6 stored 1
         7 head 2
         7 chunk 2 0
         7 chunk 2 1
         8 drop",
    );
    script.text.clear();
    // 1 was acknowledged, but not committed; 2 is with the shell, and stored only later.
    script.run(
        "9 up 1
         10 opened 0
         11 head 1
         11 chunk 1 0
         12 head 2
         12 chunk 2 0
         12 chunk 2 1
         13 stored 2
         20 head 3
         20 chunk 3 0",
    );
    let text: Vec<&str> = script.text.lines().filter(|line| !line.starts_with("credit")).collect();
    compare(
        &text.join("\n"),
        "open inbox of ME
         ! opened b4 acked 0
         ack b4 upto 1
         ack b4 upto 2
         ! begin 3
         ! write 3 @0",
    );
}

#[test]
fn images_stored_by_an_earlier_run_are_not_given_out() {
    check(
        Script::new(&[1, 2, 4]),
        "0 start
         1 up 1
         2 opened 1
         3 head 2
         3 chunk 2 0
         3 chunk 2 1
         4 head 3
         4 chunk 3 0
         4 chunk 3 1
         4 chunk 3 2
         5 head 4
         5 chunk 4 0
         5 chunk 4 1
         5 chunk 4 2
         5 chunk 4 3
         9 stored 3",
        "connect a for ME
         open inbox of ME
         ! opened b4 acked 1
         ack b4 upto 2
         ! begin 3
         ! write 3 @0
         ! write 3 @1M
         ! write 3 @2M
         ! finish 3
         ack b4 upto 4",
    );
}

#[test]
fn partly_received_image_goes_on_where_it_was() {
    // The home begins again, or goes on where the receiver was.
    for again in ["6 chunk 2 0\n 6 chunk 2 1", "6 chunk 2 1"] {
        check(
            Script::open(),
            &format!(
                "1 head 1
                 1 chunk 1 0
                 1 head 2
                 1 chunk 2 0
                 2 drop
                 3 up 1
                 4 opened 1
                 5 head 2
                 {again}"
            ),
            "! begin 1
             ! write 1 @0
             ! finish 1
             ! begin 2
             ! write 2 @0
             connect b for ME
             open inbox of ME, 2 from 1048576
             ! opened b4 acked 1
             ! write 2 @1M
             ! finish 2",
        );
    }
}

#[test]
fn wrong_bytes_never_finish() {
    check(
        Script::open(),
        "1 head 1
         1 chunk 1 0
         2 stored 1
         3 head 2
         3 chunk 2 0
         3 bad-chunk 2 1
         4 up 1
         5 opened 1
         6 head 2
         6 chunk 2 0
         6 chunk 2 1",
        "! begin 1
         ! write 1 @0
         ! finish 1
         ack b4 upto 1
         ! begin 2
         ! write 2 @0
         ! write 2 @1M
         ! corrupt 2
         ! abort 2
         close
         connect b for ME
         open inbox of ME
         ! opened b4 acked 1
         ! begin 2
         ! write 2 @0
         ! write 2 @1M
         ! finish 2",
    );
}

#[test]
fn home_may_pass_over_what_was_acknowledged_on_this_link() {
    let mut script = Script::new(&[1, 2, 3]);
    script.run("0 start\n 0 up 1\n 5 opened 1");
    script.text.clear();
    check(script, "6 head 4\n 7 chunk 4 0", "! begin 4\n! write 4 @0");
    // But nothing beyond, and nothing twice.
    for lines in ["6 head 5", "6 head 3\n 6 chunk 3 0\n 6 chunk 3 1\n 6 chunk 3 2\n 7 head 3"] {
        let mut script = Script::new(&[1, 2, 3]);
        script.run("0 start\n 0 up 1\n 5 opened 1");
        script.text.clear();
        check(script, lines, "close\nconnect b for ME");
    }
}

#[test]
fn gap_or_disorder_ends_the_link() {
    for (lines, given) in [
        ("1 head 2", ""),
        ("1 chunk 1 0", ""),
        ("1 head 1\n 1 head 2", "! begin 1"),
        ("1 head 1\n 1 chunk 2 0", "! begin 1"),
        ("1 head 1\n 1 chunk 1 1", "! begin 1"),
        (
            "1 head 1\n 1 chunk 1 0\n 2 head 2\n 2 chunk 2 0\n 2 chunk 2 0",
            "! begin 1\n! write 1 @0\n! finish 1\n! begin 2\n! write 2 @0",
        ),
        ("1 head 1\n 1 chunk 1 0\n 2 head 1", "! begin 1\n! write 1 @0\n! finish 1"),
    ] {
        check(Script::open(), lines, &format!("{given}\nclose\nconnect b for ME"));
    }
}

#[test]
fn receiver_follows_its_home() {
    let mut script = Script::open();
    script.run("1 moved 2 1");
    let to = script.text.lines().last().unwrap().to_owned();
    let home = crate::scripted::ring(2, &[1]).home(&script.name).unwrap().clone();
    assert_eq!(to, format!("connect {} for ME", home.client_address));
    script.text.clear();
    // Its clients come home again.
    script.run(&format!("2 up {}\n 3 opened 0\n 90 moved 3\n 91 up 1\n 92 opened 0", home.node.0));
    compare(
        &script.text,
        "open inbox of ME
         ! opened b4 acked 0
         close
         connect a for ME
         open inbox of ME
         ! opened b4 acked 0",
    );
}

#[test]
fn first_connection_to_another_node_goes_on_to_the_home() {
    let name = client_of(2);
    let session = InboxSession::new(options(&["a"], Routing::Home), &name, StoredBefore::default()).unwrap();
    check(
        Script { session, links: Links::default(), name, text: String::new() },
        "0 start
         1 up 1
         2 up 2
         3 opened 5",
        "connect a for ME
         close
         connect b for ME
         open inbox of ME
         ! opened b4 acked 5",
    );
}

#[test]
fn while_the_home_is_down_others_are_asked_until_the_ring_names_a_new_one() {
    let name = client_of(2);
    let session = InboxSession::new(options(&["a"], Routing::Home), &name, StoredBefore::default()).unwrap();
    let mut script = Script { session, links: Links::default(), name, text: String::new() };
    script.run("0 start\n 1 up 1\n 2 fail\n 3 up 1\n 4 moved 1");
    let mut now_ms = 5;
    // The home stays down for two seconds; nodes 1 and 3 do not know it yet.
    while now_ms < 2_000 {
        let last = script.text.lines().last().unwrap().to_owned();
        let input = match &last[..] {
            "connect b for ME" => "fail",
            "connect a for ME" => "up 1",
            "connect c for ME" => "up 3",
            "open inbox of ME" => "moved 1",
            _ => "tick",
        };
        script.run(&format!("{now_ms} {input}"));
        now_ms += 1;
    }
    let asked = script.text.matches("open inbox").count();
    assert!((10..100).contains(&asked), "{asked}: {}", script.text);
    // Then they know: no more than a tenth of a second later the inbox is open.
    let home = crate::scripted::ring(2, &[2]).home(&script.name).unwrap().clone();
    while !script.text.contains("! opened") {
        let last = script.text.lines().last().unwrap().to_owned();
        let input = match &last[..] {
            "connect b for ME" => "fail",
            "connect a for ME" => "up 1",
            "connect c for ME" => "up 3",
            "open inbox of ME"
                if script.text.ends_with(&format!("connect {} for ME\nopen inbox of ME\n", home.client_address)) =>
            {
                "opened 0"
            }
            "open inbox of ME" => "moved 2 2",
            _ => "tick",
        };
        script.run(&format!("{now_ms} {input}"));
        now_ms += 1;
    }
    assert!(now_ms < 2_000 + 150, "opened after {} ms", now_ms - 2_000);
}

#[test]
fn superseded_receiver_stops() {
    check(
        Script::open(),
        "1 head 1
         2 failure Superseded
         3 tick
         9000 tick",
        "! begin 1
         ! abort 1
         close
         ! failed Superseded",
    );
}

#[test]
fn unknown_receiver_is_believed_after_a_grace() {
    let mut script = Script::new(&[]);
    script.run("0 start\n 0 up 1\n 1 unknown");
    assert!(!script.text.contains("failed"), "{}", script.text);
    let mut now_ms = 2;
    while !script.text.contains("failed") && now_ms < 10_000 {
        let last = script.text.lines().last().unwrap().to_owned();
        let input = match &last[..] {
            "connect a for ME" => "up 1",
            "connect b for ME" | "connect c for ME" => "fail",
            "open inbox of ME" => "unknown",
            _ => "tick",
        };
        script.run(&format!("{now_ms} {input}"));
        now_ms += 1;
    }
    assert!(script.text.contains("! failed UnknownReceiver") && now_ms > 2_000, "at {now_ms}: {}", script.text);
}

#[test]
fn other_inbox_under_the_name_is_an_error() {
    check(
        Script::open(),
        "1 drop
         2 up 1
         3 opened-other",
        "connect b for ME
         open inbox of ME
         close
         ! failed InboxChanged",
    );
}

#[test]
fn what_another_receiver_acknowledged_is_passed_over() {
    check(
        Script::open(),
        "1 head 1
         1 chunk 1 0
         1 head 2
         1 chunk 2 0
         2 drop
         3 up 1
         4 opened 7
         5 head 8
         6 stored 1",
        "! begin 1
         ! write 1 @0
         ! finish 1
         ! begin 2
         ! write 2 @0
         connect b for ME
         open inbox of ME, 2 from 1048576
         ! abort 2
         ! opened b4 acked 7
         ! begin 8",
    );
}

#[test]
fn lost_image_comes_again() {
    check(
        Script::open(),
        "1 head 1
         1 chunk 1 0
         2 lost 1
         3 up 1
         4 opened 0
         5 head 1
         5 chunk 1 0
         6 stored 1
         7 lost 1",
        "! begin 1
         ! write 1 @0
         ! finish 1
         close
         connect a for ME
         open inbox of ME
         ! opened b4 acked 0
         ! begin 1
         ! write 1 @0
         ! finish 1
         ack b4 upto 1",
    );
}

#[test]
fn credit_stays_ahead_and_bytes_beyond_it_end_the_link() {
    let mut script = Script::open();
    script.run("1 head 1\n 1 chunk 1 0\n 2 stored 1\n 2 head 2\n 2 chunk 2 0\n 2 chunk 2 1\n 2 stored 2");
    assert!(script.text.contains("credit 10485760"), "raised by the step: {}", script.text);
    let mut script = Script::open();
    for seq in 1..=11 {
        script.run(&format!("3 head {seq}"));
        for part in 0..seq {
            script.run(&format!("3 chunk {seq} {part}"));
        }
    }
    assert!(!script.text.contains("close"), "{}", script.text);
    let last = script.text.lines().rfind(|line| line.starts_with("credit")).unwrap();
    let received = 66 * CHUNK;
    let credit = number(last.split_whitespace().nth(1).unwrap());
    assert!(credit >= received + 6 * CHUNK && credit <= received + 8 * CHUNK, "{last}");
}
