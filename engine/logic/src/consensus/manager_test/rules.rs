//! The rules of the Raft paper (Ongaro and Ousterhout 2014, extended version) that the project relies on, one by one.

use std::collections::BTreeSet;

use proto::ids::{Address, CoreId, LogIndex, NodeId, RequestId, Term};
use proto::peer::{LeaderRequest, RaftMessage};
use raft::eraftpb::MessageType;

use super::world::{OpKind, World};
use crate::consensus::manager::{Dropped, ProposeError};
use crate::consensus::settings::{APPENDS_INFLIGHT_MAX, UNCOMMITTED_BYTES_MAX, WAITING_MAX};
use crate::consensus::{Request, RoleKind, convert};

fn elected(voters: u64, learners: u64) -> World {
    let mut world = World::new(voters, learners, 1);
    world.elect(1);
    world
}

fn request(id: u64) -> Request {
    Request {
        origin: Address { node: NodeId(3), core: CoreId(1) },
        request: RequestId(id),
        hops: 2,
        body: LeaderRequest::Probe { payload: Vec::new() },
    }
}

/// Section 5.2: a candidate with the votes of a majority becomes leader, and all others follow it.
#[test]
fn node_that_hears_no_leader_is_elected_by_a_majority() {
    let mut world = World::new(3, 1, 1);
    world.cut.insert(3);
    world.elect(1);
    assert_eq!(world.leader(), Some(1));
    let state = world.node(2).up().state();
    assert_eq!((state.role, state.leader, state.serving), (RoleKind::Follower, Some(NodeId(1)), false));
    let learner = world.node(4).up().state();
    assert_eq!((learner.role, learner.leader), (RoleKind::Follower, Some(NodeId(1))));
    assert_eq!(world.node(3).up().state().leader, None);
}

/// Section 5.2: without a majority nobody is elected. With pre-vote the term does not even rise (thesis, section 9.6).
#[test]
fn minority_elects_nobody_and_keeps_its_term() {
    let mut world = World::new(5, 0, 1);
    world.cut.extend([3, 4, 5]);
    world.pass(100);
    assert_eq!(world.leader(), None);
    assert_eq!(world.node(1).up().state().term, Term(0));
    assert_eq!(world.node(1).up().state().role, RoleKind::Candidate);
    world.cut.clear();
    world.pass(40);
    assert!(world.leader().is_some());
}

/// Section 5.2: randomized timeouts end split votes, also when all clocks run alike.
#[test]
fn group_whose_clocks_run_alike_elects_a_leader() {
    for seed in 0..50 {
        let mut world = World::new(5, 0, seed);
        world.pass(60);
        assert!(world.leader().is_some(), "seed {seed}");
    }
}

/// Section 5.2: each election has a new timeout, also when the one before came to nothing.
#[test]
fn node_that_campaigns_in_vain_draws_a_new_timeout_each_time() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    world.cut.extend([2, 3]);
    let mut campaigns = Vec::new();
    for tick in 0..200 {
        let before = world.sent.len();
        world.tick(1);
        if world.sent.len() > before {
            campaigns.push(tick);
        }
    }
    let pauses: BTreeSet<usize> = campaigns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() > 3 && pauses.iter().all(|pause| (10..20).contains(pause)), "{pauses:?}");
}

/// Section 5.2, and guard rail of the blueprint: the timeout is ours at every tick, so that a seed repeats.
#[test]
fn same_seed_gives_the_same_run_and_another_seed_another() {
    let run = |seed| {
        let mut world = World::new(3, 0, seed);
        world.pass(60);
        world.cut.insert(world.leader().unwrap());
        world.pass(60);
        world.sent.iter().map(|parcel| format!("{:?}", parcel.message)).collect::<Vec<_>>()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// Section 5.3: an entry is committed once the leader has replicated it on a majority, and all apply it in order.
#[test]
fn proposals_reach_every_node_in_order() {
    let mut world = elected(3, 2);
    let proposed = world.propose(1, &["a", "b"]).unwrap();
    assert_eq!((proposed.term, proposed.first), (Term(1), LogIndex(2)));
    world.settle();
    world.propose(1, &["c"]).unwrap();
    world.settle();
    for node in 1..=5 {
        assert_eq!(world.records(node), ["a", "b", "c"], "node {node}");
    }
    assert_eq!(world.data(4, 3), b"b");
}

/// Section 5.3: a majority is enough; whoever was away gets the rest later.
#[test]
fn majority_commits_without_the_others_and_they_catch_up() {
    let mut world = elected(5, 0);
    world.cut.extend([4, 5]);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    assert_eq!(world.records(1), ["a"]);
    assert!(world.records(4).is_empty());
    world.cut.insert(3);
    world.propose(1, &["b"]).unwrap();
    world.settle();
    assert_eq!(world.records(1), ["a"], "two of five are no majority");
    world.cut.clear();
    world.pass(6);
    for node in 1..=5 {
        assert_eq!(world.records(node), ["a", "b"], "node {node}");
    }
}

/// Many proposals of one turn are one message to each follower, and one flush.
#[test]
fn batch_is_one_message_and_one_flush() {
    let mut world = elected(3, 0);
    world.sent.clear();
    world.held.insert((1, OpKind::Flush));
    let records: Vec<String> = (0..100).map(|i| format!("record {i}")).collect();
    world.propose(1, &records.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(world.message(MessageType::MsgAppend).len(), 2);
    assert_eq!(world.node(1).ops.iter().filter(|op| op.kind() == OpKind::Flush).count(), 1);
    world.held.clear();
    world.settle();
    assert_eq!(world.records(3), records);
}

/// Figure 2: a vote is on stable storage before the answer. The harness asserts it at every message; here it is seen.
#[test]
fn vote_does_not_leave_before_it_is_written() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    world.held.extend([(1, OpKind::Vote), (2, OpKind::Vote), (3, OpKind::Vote)]);
    for _ in 0..20 {
        world.tick(1);
        world.settle();
    }
    assert_eq!(world.message(MessageType::MsgRequestVote).len(), 0, "the candidate's own vote is not durable");
    world.finish(1, OpKind::Vote);
    world.settle();
    assert_eq!(world.message(MessageType::MsgRequestVote).len(), 2);
    assert_eq!(world.message(MessageType::MsgRequestVoteResponse).len(), 0);
    world.finish(2, OpKind::Vote);
    assert_eq!(world.message(MessageType::MsgRequestVoteResponse).len(), 1);
    world.settle();
    assert!(world.leads(1));
}

/// Figure 2: entries are on stable storage before they are acknowledged.
#[test]
fn acknowledgement_does_not_leave_before_the_flush() {
    let mut world = elected(3, 0);
    world.held.insert((2, OpKind::Flush));
    world.sent.clear();
    world.propose(1, &["a"]).unwrap();
    world.settle();
    let from_two = |world: &World| {
        world.message(MessageType::MsgAppendResponse).iter().filter(|p| p.from == 2 && p.message.index.0 >= 2).count()
    };
    assert_eq!(from_two(&world), 0);
    world.finish(2, OpKind::Flush);
    assert!(from_two(&world) > 0);
}

/// An entry must never be on disk before its term is: recovery would take that for amnesia.
#[test]
fn flush_does_not_start_before_the_term_is_durable() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    world.held.insert((2, OpKind::Vote));
    world.elect(1);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    let kinds: Vec<OpKind> = world.node(2).ops.iter().map(|op| op.kind()).collect();
    assert_eq!(kinds, [OpKind::Vote]);
    world.held.clear();
    world.settle();
    assert_eq!(world.durable(2), [1, 1]);
}

/// Thesis, section 10.2.1: the leader's own disk may lag; a majority of followers commits. It applies when it has it too.
#[test]
fn slow_disk_of_the_leader_delays_only_the_leader() {
    let mut world = elected(3, 0);
    world.held.insert((1, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    let state = world.node(1).up().state();
    assert_eq!((state.committed, state.applied), (LogIndex(2), LogIndex(1)));
    assert_eq!(world.records(2), ["a"]);
    assert_eq!(world.records(3), ["a"]);
    assert!(world.records(1).is_empty());
    world.held.clear();
    world.settle();
    assert_eq!(world.records(1), ["a"]);
}

/// Section 5.3: commit needs a majority that has the entry durably, the leader included or not.
#[test]
fn slow_disks_of_both_followers_hold_up_the_commit() {
    let mut world = elected(3, 0);
    world.held.extend([(2, OpKind::Flush), (3, OpKind::Flush)]);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    assert_eq!(world.node(1).up().state().committed, LogIndex(1));
    world.finish(3, OpKind::Flush);
    world.held.remove(&(3, OpKind::Flush));
    world.settle();
    assert_eq!(world.records(1), ["a"]);
}

/// One flush at a time; what gathers meanwhile is the next (group commit).
#[test]
fn entries_that_gather_during_a_flush_are_one_next_flush() {
    let mut world = elected(3, 0);
    world.held.insert((1, OpKind::Flush));
    for record in ["a", "b", "c"] {
        world.propose(1, &[record]).unwrap();
        world.settle();
    }
    assert_eq!(world.durable(1).len(), 1);
    world.finish(1, OpKind::Flush);
    assert_eq!(world.durable(1).len(), 2);
    world.finish(1, OpKind::Flush);
    assert_eq!(world.durable(1).len(), 4);
    assert!(world.node(1).ops.iter().all(|op| op.kind() != OpKind::Flush));
    world.settle();
    assert_eq!(world.records(1), ["a", "b", "c"]);
}

/// Section 5.4.1: a node whose log lacks a committed entry is not elected.
#[test]
fn node_with_an_older_log_is_not_elected() {
    let mut world = elected(3, 0);
    world.cut.insert(3);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    world.crash(1, 0, 0);
    world.cut.clear();
    for _ in 0..60 {
        world.tick(3);
        world.settle();
    }
    assert!(!world.leads(3));
    world.elect(2);
    world.pass(6);
    assert_eq!(world.records(3), ["a"]);
}

/// Section 5.3: what an old leader left uncommitted on few nodes gives way to the new leader's log.
#[test]
fn conflicting_suffix_is_replaced_by_the_new_leaders() {
    let mut world = elected(3, 0);
    world.cut.insert(1);
    world.propose(1, &["lost 1", "lost 2", "lost 3"]).unwrap();
    world.settle();
    assert_eq!(world.durable(1), [1, 1, 1, 1]);
    for _ in 0..20 {
        world.tick(2);
        world.tick(3);
        world.settle();
    }
    let leader = world.leader().unwrap();
    assert_ne!(leader, 1);
    world.propose(leader, &["kept"]).unwrap();
    world.settle();
    world.cut.clear();
    world.pass(20);
    assert_eq!(world.records(1), ["kept"]);
    world.check_logs_match();
    let terms = world.terms(leader);
    assert_eq!(world.durable(1), terms);
    world.crash(1, 0, 0);
    world.start(1);
    world.pass(6);
    assert_eq!(world.records(1), ["kept"], "also after a restart");
}

/// Section 5.4.2: entries of older terms are committed only together with one of the leader's own term; and section 8:
/// a leader begins with an empty entry and serves when that is applied.
#[test]
fn new_leader_commits_older_entries_with_its_own_first_one_and_serves_then() {
    let mut world = elected(3, 0);
    world.held.extend([(1, OpKind::Flush), (3, OpKind::Flush)]);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    assert_eq!(world.durable(2), [1, 1], "on node 2 only");
    world.crash(1, 0, 0);
    // Node 3 restarts without the entry and without knowing the leader, so it votes for node 2. The first entry of that
    // term becomes durable nowhere yet.
    world.crash(3, 0, 0);
    world.start(3);
    world.held.insert((2, OpKind::Flush));
    world.elect(2);
    let state = world.node(2).up().state();
    assert_eq!((state.role, state.serving, state.committed), (RoleKind::Leader, false, LogIndex(1)));
    assert_eq!(world.propose(2, &["too early"]), Err(ProposeError::NotLeader));
    world.held.clear();
    world.settle();
    assert_eq!(world.records(2), ["a"]);
    assert!(world.node(2).up().state().serving);
    world.start(1);
    world.pass(6);
    assert_eq!(world.records(1), ["a"]);
}

/// Thesis, section 6.2 (check quorum): a leader that a majority does not hear steps down.
#[test]
fn leader_without_majority_steps_down() {
    let mut world = elected(3, 0);
    world.cut.insert(1);
    world.pass(40);
    assert_ne!(world.node(1).up().state().role, RoleKind::Leader);
    assert!(world.leader().is_some_and(|leader| leader != 1));
    assert_eq!(world.propose(1, &["a"]), Err(ProposeError::NotLeader));
}

/// Thesis, section 9.6 (pre-vote): a node that was away does not depose the leader when it comes back.
#[test]
fn node_that_was_away_does_not_disturb_the_leader() {
    let mut world = elected(3, 0);
    world.cut.insert(3);
    world.pass(60);
    let term = world.node(1).up().state().term;
    world.cut.clear();
    world.pass(20);
    assert_eq!(world.leader(), Some(1));
    assert_eq!(world.node(3).up().state().term, term);
}

/// Figure 2, persistent state: a follower that restarts goes on where its disk is.
#[test]
fn restarted_follower_has_what_it_acknowledged_and_gets_the_rest() {
    let mut world = elected(3, 0);
    world.propose(1, &["a", "b"]).unwrap();
    world.settle();
    world.crash(3, 0, 0);
    world.propose(1, &["c"]).unwrap();
    world.settle();
    world.start(3);
    assert_eq!(world.durable(3), [1, 1, 1]);
    world.pass(6);
    assert_eq!(world.records(3), ["a", "b", "c"]);
    let state = world.node(3).up().state();
    assert_eq!((state.term, state.last), (Term(1), LogIndex(4)));
}

/// Figure 2, persistent state: the whole group restarts and loses nothing.
#[test]
fn group_that_restarts_together_keeps_what_was_committed() {
    let mut world = elected(3, 0);
    for i in 0..300 {
        world.propose(1, &[&format!("record {i}, long enough to need more than one segment of the log")]).unwrap();
        world.settle();
    }
    let records = world.records(1);
    assert_eq!(records.len(), 300);
    (1..=3).for_each(|node| world.crash(node, 0, 0));
    (1..=3).for_each(|node| world.start(node));
    world.pass(60);
    assert!(world.node(1).up().log_stats().segments > 3);
    for node in 1..=3 {
        assert_eq!(world.records(node), records);
    }
}

/// A flush that was cut off is repaired durably before the node says or hears anything.
#[test]
fn torn_end_is_repaired_before_the_node_takes_part() {
    let mut world = elected(3, 0);
    world.held.insert((3, OpKind::Flush));
    let records: Vec<String> = (0..20).map(|i| format!("record {i} {}", "x".repeat(200))).collect();
    world.propose(1, &records.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    world.settle();
    world.crash(3, 4, 0);
    let kept = world.durable(3).len();
    assert!(kept > 1 && kept < 21, "{kept}");
    world.start(3);
    world.settle();
    assert!(world.node(3).ops.iter().any(|op| op.kind() == OpKind::Flush), "the repair is under way");
    world.sent.clear();
    world.pass(15);
    assert!(world.sent.iter().all(|parcel| parcel.from != 3));
    assert_eq!(world.node(3).up().state().role, RoleKind::Follower);
    world.held.clear();
    world.settle();
    world.pass(6);
    assert_eq!(world.records(3), records);
}

/// A vote that a crash left in one copy is written to both before anything depends on it.
#[test]
fn vote_in_one_copy_is_written_again_at_start() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    world.held.insert((2, OpKind::Vote));
    for _ in 0..20 {
        world.tick(1);
        world.settle();
    }
    world.crash(2, 0, 1);
    world.start(2);
    assert_eq!(world.node(2).up().state().term, Term(1));
    world.sent.clear();
    world.pass(5);
    assert!(world.sent.iter().all(|parcel| parcel.from != 2), "its term is not sure yet");
    world.held.clear();
    world.settle();
    world.pass(30);
    assert!(world.leader().is_some());
}

/// Promise P5: a full queue says so, and what was refused is nowhere.
#[test]
fn too_much_uncommitted_is_busy_and_nothing_of_the_batch_is_proposed() {
    let mut world = elected(3, 0);
    world.cut.extend([2, 3]);
    let big = "x".repeat(4000);
    let (batch, batch_bytes) = ([&big[..]; 100], 400_000);
    let mut taken = 0;
    while world.propose(1, &batch).is_ok() {
        taken += 1;
        assert!(taken * batch_bytes <= UNCOMMITTED_BYTES_MAX);
    }
    assert_eq!(taken, UNCOMMITTED_BYTES_MAX / batch_bytes);
    while world.propose(1, &[&big]).is_ok() {}
    let last = world.node(1).up().state().last;
    assert_eq!(world.propose(1, &["small", &big]), Err(ProposeError::Busy));
    assert_eq!(world.node(1).up().state().last, last);
    assert!(world.node(1).up().propose_bytes() < 4000);
    // What does fit is taken.
    world.propose(1, &["small"]).unwrap();
    assert_eq!(world.node(1).up().state().last.0, last.0 + 1);
}

/// Promise P5: without room for more log nothing that does not fit is taken; with room again all goes on.
#[test]
fn full_disk_makes_proposals_busy_until_there_is_room() {
    let mut world = elected(1, 0);
    let record = "x".repeat(1000);
    world.held.insert((1, OpKind::Prepare));
    let mut taken = 0;
    for _ in 0..40 {
        if world.node(1).ops.iter().any(|op| op.kind() == OpKind::Prepare) {
            world.refuse_segment(1);
        }
        match world.propose(1, &[&record]) {
            Ok(_) => taken += 1,
            Err(error) => assert_eq!(error, ProposeError::Busy),
        }
        world.settle();
    }
    assert!(world.node(1).up().is_full());
    assert!((3..20).contains(&taken), "{taken}");
    assert_eq!(world.records(1).len(), taken, "what was taken is committed");
    world.held.clear();
    world.pass(25);
    assert!(!world.node(1).up().is_full());
    world.propose(1, &[&record]).unwrap();
    world.settle();
    assert_eq!(world.records(1).len(), taken + 1);
}

/// Guard rail: a message of a connection that a newer one has replaced is dropped.
#[test]
fn message_of_an_older_link_is_dropped() {
    let mut world = elected(3, 0);
    world.wire.clear();
    world.propose(1, &["a"]).unwrap();
    let late = world.wire.iter().find(|parcel| parcel.to == 2).unwrap().clone();
    world.settle();
    let (now, dropped) = (world.now, world.node(2).up().dropped());
    let newer = RaftMessage {
        kind: convert::number_of(MessageType::MsgHeartbeat),
        entries: Vec::new(),
        ..late.message.clone()
    };
    world.node(2).up().on_message(now, NodeId(1), late.link + 1, newer);
    world.turn(2);
    world.sent.clear();
    world.deliver(late);
    assert_eq!(world.node(2).up().dropped(), Dropped { stale: dropped.stale + 1, ..dropped });
    assert!(world.sent.is_empty());
}

/// Guard rail: what breaks a rule does not reach raft, whoever sends it.
#[test]
fn message_from_an_unknown_node_is_refused() {
    let mut world = elected(3, 0);
    let before = world.node(2).up().state();
    let now = world.now;
    for from in [0, 2, 9] {
        let message = RaftMessage {
            kind: convert::number_of(MessageType::MsgAppend),
            from: NodeId(from),
            to: NodeId(2),
            term: Term(99),
            ..RaftMessage::default()
        };
        world.node(2).up().on_message(now, NodeId(from), 1000, message);
    }
    assert_eq!(world.node(2).up().dropped().invalid, 3);
    assert_eq!(world.node(2).up().state(), before);
}

/// Thesis, section 10.2.2 (pipelining): what is under way to one follower is bounded.
#[test]
fn appends_under_way_to_one_follower_are_bounded() {
    let mut world = elected(3, 0);
    world.cut.insert(3);
    world.sent.clear();
    for i in 0..2 * APPENDS_INFLIGHT_MAX {
        world.propose(1, &[&format!("record {i}")]).unwrap();
        world.settle();
    }
    let with_entries = |p: &&&super::world::Parcel| p.to == 3 && !p.message.entries.is_empty();
    let sent = world.message(MessageType::MsgAppend).iter().filter(with_entries).count();
    assert!(sent <= APPENDS_INFLIGHT_MAX, "{sent}");
    world.cut.clear();
    world.pass(30);
    assert_eq!(world.records(3).len(), 2 * APPENDS_INFLIGHT_MAX);
}

/// Section 8, and the State pattern: requests follow the leader, whoever that becomes.
#[test]
fn request_that_waits_for_a_leader_finds_the_new_one() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    let now = world.now;
    for node in [1, 2] {
        let it = world.node(node);
        it.manager.as_mut().unwrap().on_request(now, request(node), &mut it.desk);
        assert!(it.desk.0.is_empty());
    }
    world.elect(1);
    assert_eq!(world.node(1).desk.0, ["admit q1"]);
    assert_eq!(world.node(2).desk.0, ["forward q2 to n1"]);
    let it = world.node(2);
    it.manager.as_mut().unwrap().on_request(now, request(3), &mut it.desk);
    assert_eq!(it.desk.0.last().unwrap(), "forward q3 to n1");
}

#[test]
fn request_is_not_admitted_before_the_leader_serves_and_is_refused_in_time() {
    let mut world = World::new(3, 0, 1);
    world.settle();
    world.held.extend([(2, OpKind::Flush), (3, OpKind::Flush)]);
    world.elect(1);
    let now = world.now;
    let it = world.node(1);
    it.manager.as_mut().unwrap().on_request(now, request(1), &mut it.desk);
    assert!(it.desk.0.is_empty());
    world.held.clear();
    world.settle();
    assert_eq!(world.node(1).desk.0, ["admit q1"]);
    // A leader whose majority is gone: held by the follower or candidate it becomes, then refused.
    world.cut.insert(1);
    world.pass(40);
    let now = world.now;
    let it = world.node(1);
    it.manager.as_mut().unwrap().on_request(now, request(2), &mut it.desk);
    assert_eq!(it.desk.0.len(), 1);
    world.now.mono_us += 2_000_000;
    world.turn(1);
    assert_eq!(world.node(1).desk.0.last().unwrap(), "refuse q2 NoLeader");
}

/// A group of one is its own majority, but not before its disk has it.
#[test]
fn only_voter_commits_what_its_own_disk_has() {
    let mut world = World::new(1, 1, 1);
    world.settle();
    world.held.insert((1, OpKind::Vote));
    (0..30).for_each(|_| world.tick(1));
    world.settle();
    assert!(world.leads(1), "it needs nobody's vote");
    assert!(world.sent.is_empty(), "but nobody hears of a term that is not durable");
    world.held.clear();
    world.settle();
    world.held.insert((1, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    assert!(world.records(1).is_empty());
    world.held.clear();
    world.pass(6);
    assert_eq!(world.records(1), ["a"]);
    assert_eq!(world.records(2), ["a"]);
}

/// A follower that cannot be reached is asked from its last known place, one message at a time.
#[test]
fn unreachable_node_is_probed_and_caught_up() {
    let mut world = elected(3, 0);
    world.cut.insert(2);
    world.propose(1, &["a"]).unwrap();
    world.settle();
    world.node(1).up().report_unreachable(NodeId(2));
    world.node(1).up().report_unreachable(NodeId(77));
    world.node(1).up().report_unreachable(NodeId(1));
    world.sent.clear();
    world.propose(1, &["b"]).unwrap();
    world.propose(1, &["c"]).unwrap();
    let to_two =
        world.message(MessageType::MsgAppend).iter().filter(|p| p.to == 2 && !p.message.entries.is_empty()).count();
    assert_eq!(to_two, 1);
    world.cut.clear();
    world.pass(6);
    assert_eq!(world.records(2), ["a", "b", "c"]);
}

/// A disk that stands still: what waits for it is bounded, and the node goes on where it was when the disk does.
#[test]
fn node_whose_disk_stands_still_takes_in_only_so_much() {
    let mut world = elected(3, 0);
    world.held.insert((2, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    world.sent.clear();
    let beat = RaftMessage {
        kind: convert::number_of(MessageType::MsgHeartbeat),
        from: NodeId(1),
        to: NodeId(2),
        term: Term(1),
        ..RaftMessage::default()
    };
    let (now, link) = (world.now, world.nodes[&1].link);
    for _ in 0..WAITING_MAX + 100 {
        world.node(2).up().on_message(now, NodeId(1), link, beat.clone());
        world.turn(2);
    }
    assert!((100..=110).contains(&world.node(2).up().dropped().overloaded));
    (0..50).for_each(|_| world.tick(2));
    assert_eq!(world.node(2).up().state().role, RoleKind::Follower, "time stands still for it");
    assert!(world.sent.iter().all(|parcel| parcel.from != 2));
    world.wire.clear();
    world.held.clear();
    world.pass(10);
    assert_eq!(world.records(2), ["a"]);
}

/// What another node says must not bring the only voter of a group to lead with a log that is not durable.
#[test]
fn only_voter_that_was_deposed_leads_again_when_its_log_is_durable() {
    let mut world = elected(1, 1);
    world.held.insert((1, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    let newer = RaftMessage {
        kind: convert::number_of(MessageType::MsgHeartbeatResponse),
        from: NodeId(2),
        to: NodeId(1),
        term: Term(9),
        ..RaftMessage::default()
    };
    let (now, link) = (world.now, world.nodes[&2].link);
    world.node(1).up().on_message(now, NodeId(2), link, newer);
    world.turn(1);
    assert_eq!(world.node(1).up().state().role, RoleKind::Follower);
    world.pass(40);
    assert_eq!(world.node(1).up().state().role, RoleKind::Follower);
    world.held.clear();
    world.pass(40);
    let state = world.node(1).up().state();
    assert!(state.serving && state.term > Term(9));
    assert_eq!(world.records(2), ["a"]);
}
