//! A member whose data directory is gone for good is taken in again: it asks, and the leader commits that a new life of it
//! begins. Why that is safe: `engine/notes/012-rejoin.md`.
//!
//! ```text
//! rejoining node -> every member: Rejoin, again and again       only a leader that serves answers
//! leader -> rejoining node: Deferred                            the life it knows, and why not yet
//! leader: RingChange with the nonce, committed and applied      by others: the asking node acknowledges nothing
//! leader -> rejoining node: Admitted                            vote durable, then identity durable; then it heals
//! ```
//! A question names the life that it replaces, so one that comes late replaces no later one; and the state remembers the
//! nonce, so one that is repeated is answered again and changes nothing.

use std::collections::BTreeMap;

use proto::codec::decode_record;
use proto::ids::{Address, ClusterId, Incarnation, LogIndex, NodeId, Term};
use proto::peer::{self, PeerMessage};
use proto::record::{Record, RecordBody};

use super::group_of;
use super::running::Running;
use crate::bootstrap::{Founder, Minted, cluster_of, voters_of};
use crate::context::Context;
use crate::identity::{MemberIdentity, Membership};
use crate::limits::{DOWN_US, POSITION_START_MAX};
use crate::mutant::Mutant;
use crate::shard::ShardConfig;
use crate::vote::{Healing, Vote};

/// A node that asks to be taken in again.
#[derive(Debug)]
pub(super) struct Rejoining {
    nonce: u128,
    replaces: Incarnation, // 0 until a leader has said it
    counter: u64,          // of the vote file, if it was written before
    told: String,          // by the leader, for people
}

impl Rejoining {
    /// With the nonce of its directory, which is durable, and the vote of an admission that was interrupted.
    pub fn new(nonce: u128, vote: Option<Vote>) -> Rejoining {
        tracing::info!("asks the leader to be taken in again with a new data directory");
        let counter = vote.map_or(0, |vote| vote.counter);
        Rejoining { nonce, replaces: Incarnation(0), counter, told: String::new() }
    }

    /// Asks every other member; whoever leads answers.
    pub fn ask(&self, cx: &mut Context<'_>, config: &ShardConfig) {
        let Some(me) = config.members.iter().find(|member| member.node == cx.me.node) else { return };
        let question = peer::Bootstrap::Rejoin {
            node: cx.me.node,
            nonce: self.nonce,
            replaces: self.replaces,
            cores: config.cores,
            client_address: me.client_address.clone(),
            peer_address: me.peer_address.clone(),
        };
        let own = cx.me.node;
        for member in config.members.iter().filter(|member| member.node != own) {
            cx.send(group_of(member.node), PeerMessage::Bootstrap(question.clone()));
        }
    }

    /// A message of another node. What this node is from now on, and how it begins, if it was taken in.
    pub fn on_message(
        &mut self,
        cx: &Context<'_>,
        from: NodeId,
        message: peer::Bootstrap,
    ) -> Option<(Membership, Vote)> {
        match message {
            peer::Bootstrap::Deferred { incarnation, text } => {
                self.replaces = self.replaces.max(incarnation);
                if !text.is_empty() && self.told != text {
                    tracing::warn!(leader = %from, "not taken in again yet: {text}");
                    self.told = text;
                }
                None
            }
            peer::Bootstrap::Admitted { cluster, members, incarnation, nonce, term } => {
                let founders = members.iter().map(|&(node, nonce, cores)| Founder { node, nonce, cores }).collect();
                let is_true = cluster_of(&Minted { cluster, founders }) == cluster;
                let is_sane = nonce == self.nonce && term.0 > 0 && term.0 <= POSITION_START_MAX;
                let is_member = |node| members.iter().any(|&(member, _, _)| member == node);
                if !is_true || !is_sane || !is_member(from) || !is_member(cx.me.node) {
                    return None;
                }
                tracing::info!(%cluster, %incarnation, "taken in again: begins a new life without a log");
                Some(self.begin(cx, from, (cluster, incarnation, term), &members))
            }
            _ => None,
        }
    }

    /// What the node is and how it votes: in the term of the leader that took it in for that one, as if it had done so;
    /// and mutely until it has everything that this leader had.
    fn begin(
        &self,
        cx: &Context<'_>,
        leader: NodeId,
        (cluster, incarnation, term): (ClusterId, Incarnation, Term),
        members: &[(NodeId, u128, u16)],
    ) -> (Membership, Vote) {
        let nodes: Vec<NodeId> = members.iter().map(|&(node, _, _)| node).collect();
        let members = members.iter().map(|&(node, nonce, cores)| MemberIdentity { node, nonce, cores }).collect();
        let membership = Membership { cluster, incarnation, members, voters: voters_of(&nodes) };
        let healing = if cx.mutant.is(Mutant::RejoinVotes) { Healing::Whole } else { Healing::Rot };
        let vote = Vote { counter: self.counter + 1, term, voted: leader, cluster, node: cx.me.node, healing };
        (membership, vote)
    }
}

/// What a rejoining node asks. See `peer::Bootstrap::Rejoin`.
#[derive(Debug)]
pub(super) struct Question {
    pub node: NodeId,
    pub nonce: u128,
    pub replaces: Incarnation,
    pub cores: u16,
    pub client_address: String,
    pub peer_address: String,
}

impl Running {
    /// As leader: takes a node in again, or says why not. `heard_us`: when that node was last heard, in whatever life.
    pub(super) fn on_rejoin(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        membership: &Membership,
        question: Question,
        heard_us: u64,
    ) {
        let standing = self.manager.state();
        let member = self.state.ring().member(question.node);
        let Some(member) = member.filter(|_| standing.serving && question.node != cx.me.node) else { return };
        let incarnation = member.incarnation;
        let is_early = self.mutant.is(Mutant::RejoinBeforeCommit);
        if self.state.rejoined_with(question.node) == Some(question.nonce) || is_early {
            let members = membership.members.iter().map(|member| (member.node, member.nonce, member.cores)).collect();
            let (cluster, nonce, term) = (membership.cluster, question.nonce, standing.term);
            let incarnation = if is_early { Incarnation(incarnation.0 + 1) } else { incarnation };
            let admitted = peer::Bootstrap::Admitted { cluster, members, incarnation, nonce, term };
            return cx.send(from, PeerMessage::Bootstrap(admitted));
        }
        let text = if member.up || cx.now.mono_us <= heard_us.max(self.serving_since_us) + DOWN_US {
            let node = question.node;
            tracing::debug!(%node, "asks to be taken in again, and was heard a moment ago");
            format!("node {node} ran a moment ago; if it does not end, another process has its id: end that one first")
        } else {
            if question.replaces == incarnation && self.admission.may_change_ring(question.node, cx.now) {
                tracing::info!(node = %question.node, "takes a node in again that has a new data directory");
                self.admission.begin_life(question.node, Incarnation(incarnation.0 + 1));
                let change = RecordBody::RingChange {
                    node: question.node,
                    incarnation: Incarnation(incarnation.0 + 1),
                    cores: question.cores,
                    up: false,
                    client_address: question.client_address,
                    peer_address: question.peer_address,
                    rejoin: Some(question.nonce),
                };
                self.admission.propose(None, change);
            }
            String::new()
        };
        cx.send(from, PeerMessage::Bootstrap(peer::Bootstrap::Deferred { incarnation, text }));
    }

    /// Whether a message was sent in a life of its node that is over, as far as this node's log knows. A vote or an
    /// acknowledgement of such a life must not count even where the record that ended it is not applied yet.
    pub(super) fn is_of_former_life(&mut self, from: NodeId, incarnation: Incarnation, message: &PeerMessage) -> bool {
        let known = self.state.ring().member(from).map_or(Incarnation(0), |member| member.incarnation);
        if incarnation < known.max(self.admission.life_of(from)) {
            return true;
        }
        match message {
            PeerMessage::Raft(message) if self.manager.looks_ahead_for(message) => {
                let ahead = lives_in(&self.manager.ahead());
                ahead.get(&from).is_some_and(|life| incarnation < *life)
            }
            _ => false,
        }
    }

    /// Why this node cannot go on, if another directory has taken its place.
    pub(super) fn replaced(&self, node: NodeId, own: Incarnation) -> Option<String> {
        let known = self.state.ring().member(node).map(|member| member.incarnation)?;
        (known > own).then(|| text_of_replaced(node, known, own))
    }
}

/// The lives that begin with these records.
fn lives_in(records: &[(LogIndex, Vec<u8>)]) -> BTreeMap<NodeId, Incarnation> {
    let mut lives = BTreeMap::new();
    for (_, data) in records.iter().filter(|(_, data)| !data.is_empty()) {
        if let Ok(Record { body: RecordBody::RingChange { node, incarnation, rejoin: Some(_), .. }, .. }) =
            decode_record(data)
        {
            lives.insert(node, incarnation);
        }
    }
    lives
}

pub(super) fn text_of_replaced(node: NodeId, known: Incarnation, own: Incarnation) -> String {
    format!(
        "node {node} was taken in again as {known} with another data directory; this one is of {own} and must not be used any \
         more: start the node with the other one"
    )
}

#[cfg(test)]
mod tests {
    use proto::codec::encode_record;

    use super::*;

    #[test]
    fn lives_that_begin_are_found_among_records_that_are_not_applied() {
        let change = |node, incarnation, rejoin| {
            let (client_address, peer_address) = (String::new(), String::new());
            let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
            RecordBody::RingChange { node, incarnation, cores: 1, up: false, client_address, peer_address, rejoin }
        };
        let bodies = [change(1, 7, None), change(2, 2, Some(5)), change(2, 3, Some(6))];
        let encode = |body| encode_record(&Record { time_ms: 1, body });
        let records = [Vec::new()].into_iter().chain(bodies.map(encode)).map(|data| (LogIndex(1), data));
        assert_eq!(lives_in(&records.collect::<Vec<_>>()), [(NodeId(2), Incarnation(3))].into());
    }
}
