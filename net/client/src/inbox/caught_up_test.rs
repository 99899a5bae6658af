//! Scripts against the inbox session: when it asks whether there is more, and what it makes of the answer.

use super::inbox_test::Script;
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
fn empty_inbox_is_caught_up_by_one_answer() {
    let mut script = Script::open();
    check(&mut script, "1 tick\n 2 ask", "status q1", false);
    check(&mut script, "3 status 1", "", true);
    // A new question is a new one.
    check(&mut script, "4 ask", "status q2", false);
    check(&mut script, "5 status 1", "", false);
    check(&mut script, "5 status 2", "", true);
    check(&mut script, "6 head 1", "! begin 1", false);
}

#[test]
fn question_waits_until_everything_is_stored_and_acknowledged() {
    let mut script = Script::open();
    check(&mut script, "5 head 1\n 5 ask", "! begin 1", false);
    check(&mut script, "6 chunk 1 0", "! write 1 @0\n ! finish 1", false);
    check(&mut script, "7 stored 1", "ack b4 upto 1\n status q1", false);
    // Another image was on its way: the answer proves nothing, and the question is asked again behind it.
    check(&mut script, "8 head 2\n 8 status 1", "! begin 2", false);
    check(&mut script, "9 chunk 2 0\n 9 chunk 2 1", "! write 2 @0\n ! write 2 @1M\n ! finish 2", false);
    check(&mut script, "20 stored 2", "ack b4 upto 2\n status q2", false);
    check(&mut script, "21 status 2", "", true);
}

#[test]
fn question_that_was_lost_with_its_link_is_asked_again() {
    let mut script = Script::open();
    check(&mut script, "1 ask", "status q1", false);
    check(&mut script, "2 drop\n 100 tick", "connect b for ME", false);
    check(&mut script, "101 up 1\n 102 opened 0", "open inbox of ME\n ! opened b4 acked 0\n status q2", false);
    check(&mut script, "103 status 2", "", true);
}

#[test]
fn home_that_takes_nobody_hears_no_leader() {
    let mut script = Script::open();
    script.run("1 failure NotHome");
    assert_eq!(script.session.troubles().cause(), Some(Refusal::NoLeader));
}
