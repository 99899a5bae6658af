//! Tells the operator whom a starting node waits for: once after a while, then rarely, until it has a cluster and company.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use glommio::timer::sleep;

use logic::bootstrap::voters_of;
use logic::shard::InitialMember;
use proto::ids::{ClusterId, NodeId};

use crate::core::Core;

/// A start that takes no longer than this needs no words.
const FIRST: Duration = Duration::from_secs(3);
/// Between two reminders.
const AGAIN: Duration = Duration::from_secs(60);

/// The nodes that core 0 has a link to, as far as it tried lately.
pub(super) type Reached = Rc<RefCell<BTreeSet<NodeId>>>;

/// On core 0: speaks up until nobody is waited for.
pub(super) async fn tell(core: Rc<Core>, members: Vec<InitialMember>, reached: Reached, rejoins: bool) {
    let mut wait = FIRST;
    loop {
        sleep(wait).await;
        let is_formed = core.belonging.get().cluster != ClusterId::UNKNOWN;
        let text = if rejoins && !is_formed {
            Some("waiting for the leader to take this node in again: does a majority of the others run?".to_owned())
        } else {
            words(&members, core.me.node, &reached.borrow(), is_formed)
        };
        let Some(text) = text else { return };
        tracing::warn!("{text}");
        wait = AGAIN;
    }
}

/// What a node waits for, if for anything: to form a cluster, for all its initial members; then for the other voters.
///
/// A follower has links to its leader alone, so one link to another voter may mean that all is well; none never does.
fn words(members: &[InitialMember], own: NodeId, reached: &BTreeSet<NodeId>, is_formed: bool) -> Option<String> {
    let voters = voters_of(&members.iter().map(|member| member.node).collect::<Vec<_>>());
    let others = || members.iter().filter(|member| member.node != own && (!is_formed || voters.contains(&member.node)));
    let missing: Vec<String> = others()
        .filter(|member| !reached.contains(&member.node))
        .map(|member| format!("{} at {}", member.node, member.peer_address))
        .collect();
    let (other, there) = (others().count(), others().count() - missing.len());
    let missing = missing.join(", ");
    match is_formed {
        true if there > 0 || other == 0 => None,
        true => Some(format!("waiting for a majority: no other voter is reached: {missing}")),
        false if there == other => Some(
            "the cluster is not formed although all members are reached: is the data directory of one of them not empty, or \
             its list of members another one? See their logs. A member whose directory is gone for good is taken in again with \
             --rejoin"
                .to_owned(),
        ),
        false => Some(format!(
            "waiting for the other members: {there} of {other} are reached, and the cluster forms when all are; not reached: \
             {missing}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use logic::shard::InitialMember;
    use proto::ids::NodeId;

    use super::words;

    fn check(count: u64, reached: &[u64], is_formed: bool, expected: Option<&str>) {
        let member = |node| InitialMember {
            node: NodeId(node),
            client_address: format!("h{node}:1"),
            peer_address: format!("h{node}:2"),
        };
        let members: Vec<InitialMember> = (1..=count).map(member).collect();
        let reached: BTreeSet<NodeId> = reached.iter().copied().map(NodeId).collect();
        let said = words(&members, NodeId(1), &reached, is_formed);
        match (said.as_deref(), expected) {
            (None, None) => {}
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}, expected {part}"),
            other => panic!("{other:?} of {count} members, reached {reached:?}"),
        }
    }

    #[test]
    fn forming_cluster_waits_for_all_and_a_formed_one_for_other_voters() {
        let both = "n2 at h2:2, n3 at h3:2";
        check(
            3,
            &[],
            false,
            Some(&format!("0 of 2 are reached, and the cluster forms when all are; not reached: {both}")),
        );
        check(3, &[2], false, Some("1 of 2 are reached, and the cluster forms when all are; not reached: n3 at h3:2"));
        check(3, &[2, 3], false, Some("although all members are reached"));
        check(3, &[], true, Some(&format!("waiting for a majority: no other voter is reached: {both}")));
        check(3, &[3], true, None);
        check(1, &[], true, None);
        // Nodes 8 and 9 do not vote. A follower of many may have a link to its leader only.
        check(9, &[8, 9], true, Some("no other voter is reached: n2 at h2:2, n3 at h3:2, n4 at h4:2"));
        check(9, &[4], true, None);
    }
}
