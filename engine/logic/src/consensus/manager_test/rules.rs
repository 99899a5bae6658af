//! The rules of the Raft paper (Ongaro and Ousterhout 2014, extended version) that the project relies on, one by one.

use std::collections::BTreeSet;

use proto::ids::{LogIndex, NodeId, Term};
use raft::eraftpb::MessageType;

use super::world::{OpKind, World};
use crate::consensus::RoleKind;
use crate::consensus::manager::ProposeError;

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
    let mut world = World::elected(3, 2);
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
    let mut world = World::elected(5, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
    world.cut.insert(1);
    world.pass(40);
    assert_ne!(world.node(1).up().state().role, RoleKind::Leader);
    assert!(world.leader().is_some_and(|leader| leader != 1));
    assert_eq!(world.propose(1, &["a"]), Err(ProposeError::NotLeader));
}

/// Thesis, section 9.6 (pre-vote): a node that was away does not depose the leader when it comes back.
#[test]
fn node_that_was_away_does_not_disturb_the_leader() {
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
