//! Scripts against the inbox session: what it gives out, stores and acknowledges.

use proto::ids::InboxSeq;

use super::script::Script;
use crate::inbox::{InboxSession, StoredBefore};
use crate::scripted::{CHUNK, Links, client_of, compare, number, options};
use crate::session::Routing;

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
