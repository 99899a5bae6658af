//! What the ring promises: balance, few moves, one answer everywhere, and that for ever.

use crate::ids::{CoreId, Incarnation, NodeId, RingEpoch};
use crate::ring::{Member, Ring, core_of};

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 4,
        up: true,
        voter: node <= 3,
        client_address: format!("h{node}:1"),
        peer_address: format!("h{node}:2"),
    }
}

fn ring_with_down(nodes: u64, down: &[u64]) -> Ring {
    let members = (1..=nodes).map(|node| Member { up: !down.contains(&node), ..member(node) }).collect();
    Ring::new(RingEpoch(1), members)
}

fn clients(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("client-{number}"))
}

fn home(ring: &Ring, client: &str) -> u64 {
    ring.home(client).expect("a node that is up").node.0
}

fn successors(ring: &Ring, client: &str) -> Vec<u64> {
    ring.successors(client).iter().map(|member| member.node.0).collect()
}

/// Greatest share of the hash space by the smallest, and greatest count of 100,000 clients by the smallest.
fn imbalance(nodes: u64) -> (f64, f64) {
    let ring = ring_with_down(nodes, &[]);
    let shares: Vec<f64> = ring.shares().iter().map(|&(_, share)| share).collect();
    let mut counts = vec![0f64; nodes as usize];
    clients(100_000).for_each(|client| counts[home(&ring, &client) as usize - 1] += 1.0);
    let ratio = |of: &[f64]| of.iter().copied().fold(0.0, f64::max) / of.iter().copied().fold(f64::MAX, f64::min);
    (ratio(&shares), ratio(&counts))
}

#[test]
fn clients_are_balanced_over_nodes() {
    for (nodes, bound) in [(3, 1.25), (10, 1.5), (100, 1.8)] {
        let (space, counted) = imbalance(nodes);
        assert!(space <= bound, "{nodes} nodes: space {space:.3}");
        assert!(counted <= bound * 1.1, "{nodes} nodes: clients {counted:.3}");
    }
}

#[test]
fn shares_sum_to_one() {
    for (nodes, down) in
        [(1, vec![]), (2, vec![2]), (3, vec![]), (100, vec![5, 50]), (10, vec![1, 2, 3, 4, 5, 6, 7, 8, 9])]
    {
        let shares = ring_with_down(nodes, &down).shares();
        let sum: f64 = shares.iter().map(|&(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{nodes} nodes without {down:?}: {sum}");
        assert!(shares.iter().all(|&(node, share)| (share == 0.0) == down.contains(&node.0)));
    }
    assert!(ring_with_down(2, &[1, 2]).shares().iter().all(|&(_, share)| share == 0.0));
}

#[test]
fn only_clients_of_a_failed_node_move_and_to_its_successor() {
    for (nodes, failed) in [(3, 2), (10, 7), (40, 1)] {
        let before = ring_with_down(nodes, &[]);
        let after = ring_with_down(nodes, &[failed]);
        let mut moved = 0;
        for client in clients(5_000) {
            let order = successors(&before, &client);
            if order[0] == failed {
                assert_eq!(home(&after, &client), order[1], "{client} goes to the node that has its bytes");
                moved += 1;
            } else {
                assert_eq!(home(&after, &client), order[0], "{client} stays");
            }
            let rest: Vec<u64> = order.into_iter().filter(|&node| node != failed).collect();
            assert_eq!(successors(&after, &client), rest, "{client}");
        }
        assert!(moved > 0, "some clients of node {failed} were drawn");
    }
}

#[test]
fn clients_of_a_failed_node_spread_over_the_others() {
    let (before, after) = (ring_with_down(10, &[]), ring_with_down(10, &[7]));
    let mut heirs: Vec<u64> =
        clients(5_000).filter(|client| home(&before, client) == 7).map(|client| home(&after, &client)).collect();
    heirs.sort_unstable();
    heirs.dedup();
    assert_eq!(heirs, [1, 2, 3, 4, 5, 6, 8, 9, 10]);
}

#[test]
fn new_node_takes_clients_and_moves_no_others() {
    let (before, after) = (ring_with_down(9, &[]), ring_with_down(10, &[]));
    let mut moved = 0;
    for client in clients(5_000) {
        let (old, new) = (home(&before, &client), home(&after, &client));
        assert!(new == old || new == 10, "{client} from {old} to {new}");
        moved += usize::from(new != old);
    }
    assert!((250..1_000).contains(&moved), "{moved} of 5000 moved to one node of ten");
}

#[test]
fn order_of_members_and_their_addresses_do_not_matter() {
    let forward = Ring::new(RingEpoch(1), (1..=20).map(member).collect());
    let backward = Ring::new(RingEpoch(1), (1..=20).rev().map(member).collect());
    assert_eq!(forward, backward);
    let renamed = Ring::new(
        RingEpoch(2),
        (1..=20)
            .map(|node| Member { client_address: String::new(), incarnation: Incarnation(9), ..member(node) })
            .collect(),
    );
    for client in clients(500) {
        assert_eq!(successors(&forward, &client), successors(&renamed, &client));
    }
}

#[test]
fn member_given_twice_counts_once() {
    let twice = Ring::new(RingEpoch(1), [1, 2, 3, 2].map(member).to_vec());
    assert_eq!(twice, ring_with_down(3, &[]));
}

#[test]
fn ring_without_a_node_that_is_up_has_no_home() {
    for ring in [Ring::default(), ring_with_down(3, &[1, 2, 3])] {
        assert_eq!(ring.home("gallery"), None);
        assert!(ring.successors("gallery").is_empty());
    }
}

#[test]
fn home_is_the_first_successor_and_all_nodes_follow_once() {
    let ring = ring_with_down(10, &[4]);
    for client in clients(500) {
        let mut order = successors(&ring, &client);
        assert_eq!(order[0], home(&ring, &client));
        for count in [0, 1, 3, 9, 10, usize::MAX] {
            let first: Vec<u64> = ring.first_successors(&client, count).iter().map(|member| member.node.0).collect();
            assert_eq!(first, order[..count.min(9)], "the first {count}");
        }
        order.sort_unstable();
        assert_eq!(order, [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    }
}

#[test]
fn members_are_found_by_node() {
    let ring = ring_with_down(10, &[4]);
    assert_eq!(ring.member(NodeId(4)).map(|member| member.up), Some(false));
    assert_eq!(ring.member(NodeId(11)), None);
    assert_eq!(ring.epoch(), RingEpoch(1));
    assert!(ring.members().is_sorted_by_key(|member| member.node));
}

#[test]
fn clients_are_balanced_over_cores() {
    for cores in [1u16, 2, 3, 8, 64] {
        let mut counts = vec![0usize; usize::from(cores)];
        clients(64_000).for_each(|client| counts[usize::from(core_of(&client, cores).0)] += 1);
        let even = 64_000 / usize::from(cores);
        assert!(counts.iter().all(|&count| count > even * 8 / 10 && count < even * 12 / 10), "{cores}: {counts:?}");
    }
}

#[test]
fn new_core_takes_clients_and_moves_no_others() {
    for client in clients(5_000) {
        let (old, new) = (core_of(&client, 7), core_of(&client, 8));
        assert!(new == old || new == CoreId(7), "{client} from {old} to {new}");
    }
}

#[test]
fn clients_of_one_node_are_balanced_over_its_cores() {
    // The hashes for nodes and for cores are independent: else a node would use only some of its cores.
    let ring = ring_with_down(4, &[]);
    let mut counts = [0usize; 4];
    clients(20_000)
        .filter(|client| home(&ring, client) == 3)
        .for_each(|client| counts[usize::from(core_of(&client, 4).0)] += 1);
    let all: usize = counts.iter().sum();
    assert!(counts.iter().all(|&count| count > all / 5 && count < all / 3), "{counts:?}");
}

/// These values are a format: other nodes and clients compute the same.
#[test]
fn ring_is_the_same_in_every_version() {
    let ring = ring_with_down(5, &[]);
    let found: Vec<String> = ["gallery", "archive", "camera-1", "b", "X.y_z-0"]
        .iter()
        .map(|client| {
            format!("{client} {:?} {} {}", successors(&ring, client), core_of(client, 4), core_of(client, 64))
        })
        .collect();
    assert_eq!(
        found,
        [
            "gallery [5, 3, 4, 1, 2] c1 c20",
            "archive [1, 3, 4, 2, 5] c0 c37",
            "camera-1 [2, 1, 4, 5, 3] c0 c0",
            "b [4, 5, 3, 1, 2] c2 c4",
            "X.y_z-0 [2, 3, 4, 1, 5] c2 c22",
        ]
    );
}
