#![allow(clippy::unwrap_used)]

use proto::ids::CoreId;

use super::*;

/// Writes down what the role decided: `f2:7/1` forwarded to n2 request 7 with 1 hop left, `a7` admitted, `r7:Busy`.
#[derive(Default)]
struct Notes(Vec<String>);

impl Desk for Notes {
    fn forward(&mut self, to: NodeId, request: Request) {
        self.0.push(format!("f{}:{}/{}", to.0, request.request.0, request.hops));
    }

    fn refuse(&mut self, request: Request, refusal: Refusal, _text: &str) {
        self.0.push(format!("r{}:{refusal:?}", request.request.0));
    }

    fn admit(&mut self, request: Request) {
        self.0.push(format!("a{}", request.request.0));
    }
}

fn request(id: u64, hops: u8) -> Request {
    Request {
        origin: Address { node: NodeId(9), core: CoreId(1) },
        request: RequestId(id),
        hops,
        body: LeaderRequest::Probe { payload: Vec::new() },
    }
}

fn at(us: u64) -> Now {
    Now { mono_us: us, wall_ms: 0 }
}

/// Plays a script against a role that begins as follower without leader, and returns what the desk saw.
///
/// `q7` request 7 with two hops, `q7/0` with none; `l2` leader n2 is known; `x` lost; `F`, `C`, `L` become that role;
/// `t1500` the time is 1500 ms.
fn check(script: &str, expected: &str) {
    let mut role: Box<dyn Role> = Box::new(Follower::default());
    let mut notes = Notes::default();
    let mut now = at(0);
    for word in script.split_whitespace() {
        let (verb, rest) = word.split_at(1);
        match verb {
            "q" => {
                let (id, hops) = rest.split_once('/').unwrap_or((rest, "2"));
                role.on_request(now, request(id.parse().unwrap(), hops.parse().unwrap()), &mut notes);
            }
            "l" => role.on_leader_known(NodeId(rest.parse().unwrap()), &mut notes),
            "x" => role.on_leader_lost(),
            "F" => role = change(NodeId(1), role, RoleKind::Follower),
            "C" => role = change(NodeId(1), role, RoleKind::Candidate),
            "L" => role = change(NodeId(1), role, RoleKind::Leader),
            "t" => {
                now = at(rest.parse::<u64>().unwrap() * 1000);
                role.on_tick(now, &mut notes);
            }
            _ => panic!("unknown word {word}"),
        }
    }
    assert_eq!(notes.0.join(" "), expected, "script: {script}");
}

/// Raft paper, section 8: a node that is not the leader points to the leader; here it forwards.
#[test]
fn follower_forwards_to_the_leader_it_knows() {
    check("l2 q7 q8/1", "f2:7/1 f2:8/0");
}

#[test]
fn follower_without_leader_holds_until_one_is_known() {
    check("q7 q8 l3", "f3:7/1 f3:8/1");
    check("l2 x q7 l3", "f3:7/1");
}

#[test]
fn request_that_may_not_be_passed_on_is_refused_and_not_sent_in_circles() {
    check("l2 q7/0", "r7:NoLeader");
    check("q7/0 l2", "r7:NoLeader");
    check("C q7/0 L l1", "a7");
}

#[test]
fn candidate_holds_and_hands_its_requests_to_the_new_leader_in_order() {
    check("C q7 q8 F l2", "f2:7/1 f2:8/1");
}

/// Raft paper, section 8: a leader commits an entry of its own term before it serves.
#[test]
fn leader_admits_only_after_the_first_entry_of_its_term() {
    check("C q6 L q7 l1 q8", "a6 a7 a8");
}

#[test]
fn deposed_leader_that_never_served_hands_its_requests_on() {
    check("C L q7 F q8 l3", "f3:7/1 f3:8/1");
}

#[test]
fn request_is_refused_when_its_deadline_passes_and_not_before() {
    check("C q7 t1999", "");
    check("C q7 t500 q8 t2000", "r7:NoLeader");
    check("C q7 t500 q8 t2000 F C t2500", "r7:NoLeader r8:NoLeader");
}

#[test]
fn full_queue_answers_busy() {
    let mut role = Candidate::default();
    let mut notes = Notes::default();
    for id in 0..REQUESTS_HELD_MAX as u64 {
        role.on_request(at(0), request(id, 1), &mut notes);
    }
    assert!(notes.0.is_empty());
    role.on_request(at(0), request(5000, 1), &mut notes);
    assert_eq!(notes.0, ["r5000:Busy"]);
    assert_eq!(role.held.len(), REQUESTS_HELD_MAX);
}

/// Raft paper, figure 4: the arrows between the three states, and no other.
#[test]
fn only_the_transitions_of_the_paper_are_allowed() {
    use RoleKind::{Candidate, Follower, Leader};
    let allowed = [(Follower, Candidate), (Candidate, Leader), (Candidate, Follower), (Leader, Follower)];
    for from in [Follower, Candidate, Leader] {
        for to in [Follower, Candidate, Leader] {
            assert_eq!(may_become(from, to), allowed.contains(&(from, to)), "{from} to {to}");
        }
    }
}

#[test]
#[should_panic(expected = "cannot go from follower to leader")]
fn forbidden_transition_stops_the_process() {
    change(NodeId(1), Box::new(Follower::default()), RoleKind::Leader);
}
