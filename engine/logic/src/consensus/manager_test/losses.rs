//! Nodes that lack something: room for their log, or a part of it.

use proto::ids::NodeId;

use super::world::{OpKind, World};
use crate::consensus::RoleKind;
use crate::vote::Healing;

/// Time passes, and the disks of those nodes give no further segment.
fn pass_without_room(world: &mut World, nodes: &[u64], ticks: usize) {
    for _ in 0..ticks {
        for &node in nodes {
            while world.node(node).ops.iter().any(|op| op.kind() == OpKind::Prepare) {
                world.refuse_segment(node);
            }
        }
        world.pass(1);
    }
}

/// A full disk of the leader is not what everybody waits for while others have room; when nobody has, that is said.
#[test]
fn leader_without_room_for_its_log_hands_leadership_over_until_nobody_has_room() {
    let mut world = World::elected(3, 0);
    let record = "x".repeat(1000);
    let mut leader = 1;
    for full in [vec![1], vec![1, 2], vec![1, 2, 3]] {
        for &node in &full {
            world.held.insert((node, OpKind::Prepare));
        }
        let mut taken = 0;
        for _ in 0..400 {
            pass_without_room(&mut world, &full, 1);
            if let Some(now) = world.leader() {
                leader = now;
                taken += usize::from(world.propose(leader, &[&record]).is_ok());
            }
            world.settle();
        }
        assert!(world.leads(leader), "somebody leads");
        let is_out_of_room = world.node(leader).up().is_out_of_room();
        match full.len() {
            1 => assert!(leader != 1 && taken > 350 && world.records(leader).len() == taken, "{leader} {taken}"),
            2 => assert_eq!(is_out_of_room, full.contains(&leader)),
            _ => assert!(is_out_of_room),
        }
    }
    // With room again it is no secret, and all goes on.
    world.held.clear();
    world.pass(60);
    leader = world.leader().unwrap();
    assert!(!world.node(leader).up().is_out_of_room());
    world.propose(leader, &["afterwards"]).unwrap();
    world.settle();
    assert_eq!(world.records(leader).last().unwrap(), "afterwards");
}

/// Promise P4: a log that somebody put back to what it was is nothing that a disk tells, but a leader that counts on what is gone.
#[test]
fn log_that_was_put_back_to_an_old_copy_is_healed_as_soon_as_a_leader_counts_on_more() {
    let mut world = World::elected(3, 0);
    world.propose(1, &["a", "b"]).unwrap();
    world.settle();
    let old = world.node(3).disk.clone();
    world.propose(1, &["c", "d"]).unwrap();
    world.settle();
    world.pass(4);
    let whole = world.records(3);
    world.crash(3, 0, 0);
    world.node(3).disk.put_log_back(old);
    world.start(3);
    assert!(!world.node(3).up().state().healing, "nothing tells");
    world.pass(4);
    assert!(world.node(3).up().state().healing && world.leads(1), "the leader's heartbeat tells");
    // It is durable that it heals, and no vote is given.
    assert_eq!(world.node(3).disk.vote_surely(NodeId(3)).healing, Healing::Rot);
    for _ in 0..40 {
        let asked = world.node(3).up().heal_ask();
        if let Some((nonce, last, _)) = asked {
            for voter in [1, 2] {
                let answer = world.node(voter).up().on_heal_ask(NodeId(3), last);
                let (standing, term) = answer.unwrap();
                let leads = standing.role == RoleKind::Leader;
                world.node(3).up().on_heal_answer(NodeId(voter), nonce, standing.term, (term, standing.last), leads);
            }
        }
        world.pass(1);
    }
    assert!(!world.node(3).up().state().healing);
    world.settle();
    assert_eq!(world.records(3), whole);
    assert_eq!(world.node(3).disk.vote_surely(NodeId(3)).healing, Healing::Whole);
    world.crash(2, 0, 0);
    world.propose(1, &["with it again"]).unwrap();
    world.settle();
    assert_eq!(world.records(1).last().unwrap(), "with it again");
}
