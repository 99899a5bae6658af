//! The guard rails around raft: bounds, links, a disk that is torn, full, slow or rotten, and requests for the leader.

use proto::ids::{Address, CoreId, NodeId, RequestId, Term};
use proto::peer::{LeaderRequest, RaftMessage};
use raft::eraftpb::MessageType;

use super::world::{Notes, Op, OpKind, Parcel, World};
use crate::consensus::manager::{Committed, Dropped, ProposeError};
use crate::consensus::settings::{
    APPEND_BYTES_MAX, APPENDS_INFLIGHT_MAX, COMMITTED_BYTES_MAX, UNCOMMITTED_BYTES_MAX, WAITING_MAX,
};
use crate::consensus::{Audience, Request, RoleKind, convert};
use crate::io::{DiskError, Effect, Ticket};
use crate::log::log::CACHE_BYTES_MAX;

fn request(id: u64) -> Request {
    Request {
        origin: Address { node: NodeId(3), core: CoreId(1) },
        request: RequestId(id),
        hops: 2,
        body: LeaderRequest::Probe { payload: Vec::new() },
    }
}

/// Many proposals of one turn are one message to each follower, and one flush.
#[test]
fn batch_is_one_message_and_one_flush() {
    let mut world = World::elected(3, 0);
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

/// A leader tells of a commit whoever waits for it, the others by the next append or tick; nobody is left behind.
#[test]
fn commit_notice_waits_for_its_audience_the_next_append_or_a_tick() {
    let mut world = World::elected(3, 0);
    world.audience = Audience::Some([NodeId(2)].into());
    world.propose(1, &["a"]).unwrap();
    world.settle();
    assert_eq!(
        (world.records(1), world.records(2), world.records(3)),
        (strings(&["a"]), strings(&["a"]), strings(&[]))
    );
    world.audience = Audience::Nobody;
    world.sent.clear();
    world.propose(1, &["b"]).unwrap();
    world.settle();
    assert_eq!((world.records(1), world.records(3)), (strings(&["a", "b"]), strings(&["a"])));
    let appends = world.message(MessageType::MsgAppend);
    assert!(appends.len() == 2 && appends.iter().all(|append| append.message.entries.len() == 1), "{appends:?}");
    world.tick(1);
    world.settle();
    assert_eq!((world.records(2), world.records(3)), (strings(&["a", "b"]), strings(&["a", "b"])));
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Votes that come before they were asked for, from a peer that lies, must not make a leader whose log is not yet durable.
#[test]
fn vote_that_comes_in_the_turn_in_which_its_term_began_does_not_count() {
    let mut world = World::elected(3, 0);
    world.held.insert((2, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    world.cut.insert(1);
    (0..20).for_each(|_| world.tick(2));
    world.settle();
    let granted = |kind| RaftMessage {
        kind: convert::number_of(kind),
        from: NodeId(3),
        to: NodeId(2),
        term: Term(2),
        ..RaftMessage::default()
    };
    let (now, link) = (world.now, world.nodes[&3].link);
    world.node(2).up().on_message(now, NodeId(3), link, granted(MessageType::MsgRequestPreVoteResponse));
    let flush = world.node(2).ops.iter().find_map(|op| match op {
        Op::Flush(ticket, _) => Some(*ticket),
        _ => None,
    });
    world.node(2).up().on_log_flushed(flush.unwrap());
    world.node(2).up().on_message(now, NodeId(3), link, granted(MessageType::MsgRequestVoteResponse));
    assert_eq!(world.node(2).up().dropped().stale, 1);
    assert_eq!(world.node(2).up().state().role, RoleKind::Candidate);
}

/// What a lagging follower lacks comes in few messages, none longer than the bound.
#[test]
fn append_has_many_entries_and_no_more_bytes_than_its_bound() {
    let mut world = World::with_segments(3, 0, 1, 1 << 20);
    world.elect(1);
    world.cut.insert(3);
    for _ in 0..300 {
        world.propose(1, &[&"x".repeat(2000)]).unwrap();
        world.settle();
    }
    world.cut.clear();
    world.pass(20);
    let appends = world.message(MessageType::MsgAppend);
    let bytes = |parcel: &&Parcel| parcel.message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
    assert!(appends.iter().all(|parcel| bytes(parcel) as u64 <= APPEND_BYTES_MAX));
    assert!(appends.iter().any(|parcel| parcel.to == 3 && parcel.message.entries.len() > 50));
}

/// Guard rail: what a flush makes deliverable at once is handed out in portions, so that applying it never takes long.
#[test]
fn committed_backlog_is_handed_out_in_portions_within_the_bound() {
    let mut world = World::with_segments(3, 1, 1, 4 << 20);
    world.elect(1);
    let disks = [(2, OpKind::Flush), (4, OpKind::Flush)];
    world.held.extend(disks);
    let records: Vec<String> = (0..500).map(|i| format!("{i} {}", "x".repeat(5000))).collect();
    for batch in records.chunks(20) {
        world.propose(1, &batch.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        world.settle();
    }
    world.pass(6);
    // The flush that was under way has a little; the next one takes all the rest.
    disks.iter().for_each(|(node, kind)| world.finish(*node, *kind));
    let handed = world.records(2).len();
    world.complete(2, OpKind::Flush);
    let (mut portions, mut effects) = (Vec::new(), Vec::new());
    let manager = world.node(2).up();
    loop {
        manager.release(&mut effects);
        if !manager.raw.has_ready() {
            break;
        }
        manager.take_ready(&mut effects);
        portions.push(manager.take_committed());
    }
    portions.retain(|portion| !portion.is_empty());
    let bytes = |portion: &Vec<Committed>| portion.iter().map(|entry| entry.data().len() as u64).sum::<u64>();
    let sizes: Vec<u64> = portions.iter().map(bytes).collect();
    let (_, full) = sizes.split_last().expect("there was a backlog");
    assert!(sizes.iter().all(|bytes| *bytes <= COMMITTED_BYTES_MAX), "{sizes:?}");
    assert!(full.len() > 5 && full.iter().all(|bytes| *bytes > COMMITTED_BYTES_MAX * 9 / 10), "{sizes:?}");
    let texts = portions.iter().flatten().map(|entry| String::from_utf8(entry.data().to_vec()).unwrap());
    assert!(texts.eq(records[handed..].iter().cloned()), "all of it, in order");
    // A whole turn goes on until nothing is left of it.
    world.finish(4, OpKind::Flush);
    assert_eq!(world.records(4), records);
}

/// A flush that was cut off is repaired durably before the node says or hears anything.
#[test]
fn torn_end_is_repaired_before_the_node_takes_part() {
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
    world.cut.extend([2, 3]);
    let big = "x".repeat(4000);
    let (batch, batch_bytes) = ([&big[..]; 100], 400_000);
    // More than may be uncommitted is refused also where nothing is.
    let more = vec![&big[..]; UNCOMMITTED_BYTES_MAX as usize / 4000 + 1];
    assert_eq!(world.propose(1, &more), Err(ProposeError::Busy));
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
    let mut world = World::elected(1, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
    world.cut.insert(3);
    world.sent.clear();
    for i in 0..2 * APPENDS_INFLIGHT_MAX {
        world.propose(1, &[&format!("record {i}")]).unwrap();
        world.settle();
    }
    let with_entries = |p: &&&Parcel| p.to == 3 && !p.message.entries.is_empty();
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

/// A follower that cannot be reached is asked from its last known place, one message at a time.
#[test]
fn unreachable_node_is_probed_and_caught_up() {
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(3, 0);
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
    let mut world = World::elected(1, 1);
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

/// Section 5.4.1: nobody leads by votes it has not asked for; the request leaves when the log is durable.
#[test]
fn votes_that_come_before_the_request_has_left_do_not_count() {
    let mut world = World::elected(3, 0);
    world.held.insert((2, OpKind::Flush));
    world.propose(1, &["a"]).unwrap();
    world.settle();
    world.cut.insert(1);
    (0..20).for_each(|_| world.tick(2));
    assert_eq!(world.node(2).up().state().role, RoleKind::Candidate);
    let granted = |kind| RaftMessage {
        kind: convert::number_of(kind),
        from: NodeId(3),
        to: NodeId(2),
        term: Term(2),
        ..RaftMessage::default()
    };
    let (now, link) = (world.now, world.nodes[&3].link);
    world.node(2).up().on_message(now, NodeId(3), link, granted(MessageType::MsgRequestPreVoteResponse));
    world.turn(2);
    world.settle();
    assert_eq!(world.node(2).up().state().term, Term(2));
    world.node(2).up().on_message(now, NodeId(3), link, granted(MessageType::MsgRequestVoteResponse));
    assert_eq!(world.node(2).up().dropped().stale, 1);
    assert_eq!(world.node(2).up().state().role, RoleKind::Candidate);
    world.held.clear();
    world.pass(60);
    assert!(world.leader().is_some_and(|leader| leader != 1));
    assert_eq!(world.records(3), ["a"]);
}

/// A group whose node 3 lacks more than its leader has in memory; the leader's read is held. Gives that read's ticket and
/// how many records there are.
fn far_behind() -> (World, Ticket, usize) {
    let mut world = World::with_segments(3, 0, 1, 1 << 20);
    world.elect(1);
    world.cut.insert(3);
    let big = "x".repeat(250_000);
    let count = CACHE_BYTES_MAX / big.len() + 20;
    for _ in 0..count {
        world.propose(1, &[&big]).unwrap();
        world.settle();
    }
    world.held.insert((1, OpKind::Read));
    world.cut.clear();
    world.pass(6);
    let asked = world.node(1).ops.iter().find_map(|op| match op {
        Op::Read(ticket, ..) => Some(*ticket),
        _ => None,
    });
    (world, asked.expect("the leader has to read"), count)
}

/// Section 5.3: a follower gets whatever it lacks, also what the leader has to read from its disk again. Nobody else
/// waits for that.
#[test]
fn follower_far_behind_is_fed_from_the_leaders_disk() {
    let (mut world, _, count) = far_behind();
    world.propose(1, &["meanwhile"]).unwrap();
    world.settle();
    assert_eq!(world.records(2).last().unwrap(), "meanwhile");
    assert!(world.records(3).is_empty());
    world.held.clear();
    world.pass(40);
    assert_eq!(world.records(3).len(), count + 1);
}

/// What a disk does not give back is missed by nobody but the next start: the leader goes on, and hands over.
#[test]
fn leader_whose_log_went_bad_hands_leadership_over() {
    let (mut world, ticket, count) = far_behind();
    let (now, mut effects, mut desk) = (world.now, Vec::new(), Notes::default());
    let manager = world.node(1).up();
    manager.on_log_read(ticket, Err(DiskError::Unreadable));
    manager.turn(now, &mut desk, &mut effects);
    assert!(manager.state().rotten && !effects.iter().any(|effect| matches!(effect, Effect::Fatal { .. })));
    world.node(1).ops.retain(|op| op.kind() != OpKind::Read);
    world.held.clear();
    world.pass(30);
    // Its log goes furthest: the other one lags.
    assert_eq!(world.leader(), Some(2));
    world.propose(2, &["afterwards"]).unwrap();
    world.settle();
    assert_eq!(world.records(2).last().unwrap(), "afterwards");
    assert_eq!(world.records(1).len(), count + 1);
}
