//! Scripts against the inbox session: when it asks whether there is more, and what it makes of the answers.

use super::script::Script;
use crate::scripted::compare;
use proto::error::Refusal;

fn check(script: &mut Script, lines: &str, expected: &str, is_caught_up: bool) {
    script.text.clear();
    script.run(lines);
    let text: Vec<&str> = script.text.lines().filter(|line| !line.starts_with("credit")).collect();
    compare(&text.join("\n"), expected);
    assert_eq!(script.session.is_caught_up(), is_caught_up, "after\n{lines}");
}

#[test]
fn empty_inbox_is_caught_up_when_the_home_has_applied_the_mark() {
    let mut script = Script::open();
    check(&mut script, "1 tick\n 2 ask", "probe q1 +0", false);
    check(&mut script, "3 ask", "", false);
    check(&mut script, "4 marked 1 7", "status q2", false);
    check(&mut script, "5 status 2 7", "", true);
    // A new question is a new one.
    check(&mut script, "6 ask", "probe q3 +0", false);
    check(&mut script, "7 status 2 9\n 7 marked 1 8", "", false);
    check(&mut script, "8 marked 3 8", "status q4", false);
    check(&mut script, "9 status 2 9", "", false);
    check(&mut script, "9 status 4 9", "", true);
    check(&mut script, "10 head 1", "! begin 1", false);
}

#[test]
fn home_that_lags_is_asked_until_it_has_applied_the_mark() {
    let mut script = Script::open();
    check(&mut script, "1 ask\n 2 marked 1 7", "probe q1 +0\n status q2", false);
    check(&mut script, "3 status 2 6", "", false);
    assert_eq!(script.session.wake_at(), Some(13_000));
    check(&mut script, "12 tick", "", false);
    check(&mut script, "13 tick", "status q3", false);
    // What it lacked came: the mark is set anew behind it.
    check(&mut script, "14 head 1\n 14 status 3 7", "! begin 1", false);
    check(&mut script, "15 chunk 1 0", "! write 1 @0\n ! finish 1", false);
    check(&mut script, "16 stored 1", "ack b4 upto 1\n probe q4 +0", false);
    check(&mut script, "17 marked 4 9", "status q5", false);
    check(&mut script, "18 status 5 9", "", true);
}

#[test]
fn question_waits_until_everything_is_stored_and_acknowledged() {
    let mut script = Script::open();
    check(&mut script, "5 head 1\n 5 ask", "! begin 1", false);
    check(&mut script, "6 chunk 1 0", "! write 1 @0\n ! finish 1", false);
    check(&mut script, "7 stored 1", "ack b4 upto 1\n probe q1 +0", false);
    // Another image was on its way: the answer proves nothing, and the mark is set again behind it.
    check(&mut script, "8 head 2\n 8 marked 1 5", "! begin 2", false);
    check(&mut script, "9 chunk 2 0\n 9 chunk 2 1", "! write 2 @0\n ! write 2 @1M\n ! finish 2", false);
    check(&mut script, "20 stored 2", "ack b4 upto 2\n probe q2 +0", false);
    check(&mut script, "21 marked 2 6\n 22 status 3 6", "status q3", true);
}

#[test]
fn question_that_was_lost_with_its_link_is_asked_again() {
    let mut script = Script::open();
    check(&mut script, "1 ask", "probe q1 +0", false);
    check(&mut script, "2 drop\n 100 tick", "connect b for ME", false);
    check(&mut script, "101 up 1\n 102 opened 0", "open inbox of ME\n ! opened b4 acked 0\n probe q2 +0", false);
    check(&mut script, "103 marked 2 3\n 104 drop", "status q3\n connect a for ME", false);
    check(&mut script, "301 up 1\n 302 opened 0", "open inbox of ME\n ! opened b4 acked 0\n probe q4 +0", false);
    check(&mut script, "303 marked 4 3\n 304 status 5 3", "status q5", true);
}

/// Found by the simulator, seed 4114: nothing was asked any more, and the inbox stood still.
#[test]
fn image_that_is_acknowledged_before_the_home_sends_its_bytes_is_not_waited_for() {
    let mut script = Script::new(&[1]);
    check(&mut script, "0 start\n 1 up 1", "connect a for ME\n open inbox of ME", false);
    check(&mut script, "2 opened 0\n 2 ask", "! opened b4 acked 0\n ack b4 upto 1\n probe q1 +0", false);
    // The home had begun with it when the acknowledgement came, and goes no further.
    check(&mut script, "3 head 1\n 4 marked 1 7", "probe q2 +0", false);
    check(&mut script, "5 marked 2 8\n 6 status 3 8", "status q3", true);
    check(&mut script, "7 head 2", "! begin 2", false);
}

#[test]
fn without_a_leader_the_inbox_stays_open_and_nothing_is_caught_up() {
    let mut script = Script::open();
    check(&mut script, "1 ask", "probe q1 +0", false);
    check(&mut script, "2 no-mark 1", "", false);
    assert_eq!(script.session.troubles().cause(), Some(Refusal::NoLeader));
    assert_eq!(script.session.wake_at(), Some(202_000));
    check(&mut script, "202 tick", "probe q2 +0", false);
    check(&mut script, "203 marked 2 4\n 204 status 3 4", "status q3", true);
}

#[test]
fn home_that_takes_nobody_hears_no_leader() {
    let mut script = Script::open();
    script.run("1 failure NotHome");
    assert_eq!(script.session.troubles().cause(), Some(Refusal::NoLeader));
}
