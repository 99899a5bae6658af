//! Scripts against the request session. A line of a script is `MS INPUT`; the text is what the session did.

use proto::client::{ClientReply, NodeStatus};
use proto::ids::{InboxId, LogIndex, RequestId};

use crate::request::{Question, RequestEvent, RequestInput, RequestSession};
use crate::scripted::{Links, compare, number, options, refusal};
use crate::session::{Action, Key, LinkInput, Routing};

fn check(lines: &str, expected: &str) {
    let mut session = RequestSession::new(options(&["a", "b"], Routing::Any));
    let (mut links, mut text) = (Links::default(), String::new());
    for line in lines.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut actions = Vec::new();
        session.step(words[0].parse::<u64>().unwrap() * 1000, input(&links, &words[1..]), &mut actions);
        for action in &actions {
            text.push_str(&links.text(action).unwrap_or_else(|| event(action)));
            text.push('\n');
        }
    }
    compare(&text, expected);
}

fn input(links: &Links, words: &[&str]) -> RequestInput {
    if let Some(input) = links.input(words) {
        return RequestInput::Link(input);
    }
    let ask = |key: &str, question| RequestInput::Ask { key: Key(number(key)), question };
    let reply = match words {
        ["start"] => return RequestInput::Start,
        ["tick"] => return RequestInput::Tick,
        ["ask", key, "register", name] => return ask(key, Question::Register((*name).to_owned())),
        ["ask", key, "status"] => return ask(key, Question::Status),
        ["ask", key, "probe", length] => return ask(key, Question::Probe(vec![0; number(length) as usize])),
        ["registered", request] => ClientReply::Registered { request: RequestId(number(request)), inbox: InboxId(5) },
        ["status", request] => {
            ClientReply::Status { request: RequestId(number(request)), status: Box::new(NodeStatus::default()) }
        }
        ["done", request] => ClientReply::ProbeDone { request: RequestId(number(request)), index: LogIndex(8) },
        ["no", request, reason] => ClientReply::Failure {
            request: Some(RequestId(number(request))),
            refusal: refusal(reason),
            text: "no".to_owned(),
            ring: None,
        },
        other => panic!("{other:?}"),
    };
    RequestInput::Link(LinkInput::Reply { link: links.link(), reply, body: None })
}

fn event(action: &Action<RequestEvent>) -> String {
    let Action::Event(event) = action else { unreachable!() };
    match event {
        RequestEvent::Answered { key, answer } => {
            format!("! {} {}", key.0, format!("{answer:?}").split('(').next().unwrap())
        }
        RequestEvent::Refused { key, refusal, .. } => format!("! {} refused {refusal:?}", key.0),
        RequestEvent::GaveUp { key, .. } => format!("! {} given up", key.0),
        RequestEvent::Failed(failure) => {
            format!("! failed {}", format!("{failure:?}").split_whitespace().next().unwrap())
        }
    }
}

#[test]
fn questions_are_answered_in_any_order() {
    check(
        "0 ask 1 register gallery
         0 start
         1 up 1
         2 ask 2 status
         2 ask 3 probe 150
         3 done 3
         3 status 2
         3 status 1
         3 registered 1
         4 registered 1",
        "connect a for any
         register q1 gallery
         status q2
         probe q3 +150
         ! 3 Probed
         ! 2 Status
         ! 1 Registered",
    );
}

#[test]
fn question_is_repeated_after_a_lost_link_and_a_passing_refusal() {
    check(
        "0 start
         0 ask 1 register gallery
         1 up 1
         2 drop
         3 up 2
         4 no 1 NoLeader
         5 tick
         50 tick
         51 registered 1",
        "connect a for any
         register q1 gallery
         connect b for any
         register q1 gallery
         register q1 gallery
         ! 1 Registered",
    );
}

#[test]
fn silent_node_is_left_for_another() {
    check(
        "0 start
         0 up 1
         0 ask 1 status
         1900 pong
         3800 pong
         5700 pong
         6999 tick
         7000 tick
         7001 up 2
         7002 status 1",
        "connect a for any
         status q1
         close
         connect b for any
         status q1
         ! 1 Status",
    );
}

#[test]
fn what_waiting_does_not_cure_is_said_at_once() {
    check(
        "0 start
         0 up 1
         0 ask 1 register a@b
         0 ask 2 probe 1025
         0 ask 3 register gallery
         1 no 1 BadRequest",
        "connect a for any
         ! 1 refused NameInvalid
         ! 2 refused BadRequest
         register q1 gallery
         ! 3 refused BadRequest",
    );
}

#[test]
fn question_is_given_up_at_its_deadline() {
    check(
        "0 start
         0 ask 1 status
         1 fail
         2 fail
         60000 tick",
        "connect a for any
         connect b for any
         ! 1 given up
         connect b for any",
    );
}

#[test]
fn wrong_cluster_ends_the_session() {
    check(
        "0 start
         0 ask 1 status
         1 refuse WrongCluster
         2 ask 2 status",
        "connect a for any
         ! 1 given up
         ! failed WrongCluster
         ! 2 refused NotReady",
    );
}
