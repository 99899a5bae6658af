//! Who is up, and in which life: changes of the ring.

use proto::ids::{Holder, Incarnation, LogIndex, NodeId, RingEpoch};
use proto::limits::LOST_MAX;
use proto::record::{Lost, RecordBody};
use proto::ring::{Member, Ring};

use super::{Outcome, State};
use crate::mutant::Mutant;

impl State {
    /// Applies `RecordBody::RingChange`. What was proposed for a life that has ended meanwhile changes nothing; a life begins
    /// only behind the one before it, and once with a directory.
    pub(super) fn change_ring(&mut self, index: LogIndex, body: &RecordBody) -> Outcome {
        let RecordBody::RingChange { node, incarnation, cores, up, client_address, peer_address, rejoin } = body else {
            unreachable!("called for changes of the ring")
        };
        let mut members = self.ring.members().to_vec();
        if let Some(member) = members.iter_mut().find(|member| member.node == *node)
            && self.is_due(member, *incarnation, *rejoin)
        {
            if !self.mutant.is(Mutant::RejoinKeepsLife) {
                member.incarnation = *incarnation;
            }
            member.cores = *cores;
            member.up = *up;
            if !client_address.is_empty() {
                member.client_address.clone_from(client_address);
            }
            if !peer_address.is_empty() {
                member.peer_address.clone_from(peer_address);
            }
            if let Some(nonce) = rejoin {
                self.rejoined.insert(*node, *nonce);
            }
        }
        self.ring = Ring::new(RingEpoch(index.0), members);
        Outcome::RingChanged
    }

    fn is_due(&self, member: &Member, incarnation: Incarnation, rejoin: Option<u128>) -> bool {
        match rejoin {
            None => incarnation == member.incarnation,
            Some(nonce) => {
                Some(incarnation.0) == member.incarnation.0.checked_add(1)
                    && self.rejoined_with(member.node) != Some(nonce)
            }
        }
    }

    /// Of at most `count` records from `from` on with receivers that have not acknowledged: a holder whose life is over, and those
    /// records that name it, at most `LOST_MAX`; and where to look on, if that was not all.
    pub fn outlived(&self, from: LogIndex, count: usize) -> (Option<Lost>, Option<LogIndex>) {
        let is_over = |holder: &&Holder| {
            self.ring.member(holder.address.node).is_some_and(|member| holder.incarnation < member.incarnation)
        };
        let mut lost: Option<Lost> = None;
        for (looked, (&index, ready)) in self.readies.range(from..).enumerate() {
            if looked == count || lost.as_ref().is_some_and(|lost| lost.records.len() == LOST_MAX) {
                return (lost, Some(index));
            }
            for holder in ready.holders.iter().filter(is_over) {
                let lost = lost.get_or_insert_with(|| Lost { holder: *holder, records: Vec::new() });
                if lost.holder == *holder {
                    lost.records.push(index);
                }
            }
        }
        (lost, None)
    }

    /// The nonce of the directory with which a node's present life began, if it was taken in again.
    pub fn rejoined_with(&self, node: NodeId) -> Option<u128> {
        self.rejoined.get(&node).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::{Address, ClusterId, CoreId, Fingerprint, ImageId, InboxId, Sequence, SessionId};
    use proto::record::{Ready, Record};

    use super::*;

    fn founded() -> State {
        let mut state = State::new(Mutant::None);
        let members = (1..=3).map(|node| Member {
            node: NodeId(node),
            incarnation: Incarnation(1),
            cores: 1,
            up: true,
            voter: true,
            client_address: String::new(),
            peer_address: String::new(),
        });
        let members = members.collect();
        apply(&mut state, RecordBody::Genesis { cluster: ClusterId(7), members, copies: 2, image_bytes_max: 1000 });
        state
    }

    fn apply(state: &mut State, body: RecordBody) {
        state.apply(LogIndex(state.applied().0 + 1), &Record { time_ms: 1, body });
    }

    /// Node 2 after changes of (incarnation, up, nonce): its incarnation, whether it is up, and its nonce.
    fn check(changes: &[(u32, bool, Option<u128>)], expected: (u32, bool, Option<u128>)) {
        let mut state = founded();
        for &(incarnation, up, rejoin) in changes {
            let (client_address, peer_address) = (String::new(), String::new());
            let incarnation = Incarnation(incarnation);
            let node = NodeId(2);
            apply(
                &mut state,
                RecordBody::RingChange { node, incarnation, cores: 1, up, client_address, peer_address, rejoin },
            );
        }
        let member = state.ring().member(NodeId(2)).unwrap();
        let found = (member.incarnation.0, member.up, state.rejoined_with(NodeId(2)));
        assert_eq!(found, expected, "{changes:?}");
    }

    #[test]
    fn life_begins_behind_the_one_before_it_and_once_with_a_directory() {
        check(&[(1, false, None), (2, false, Some(5))], (2, false, Some(5)));
        check(&[(2, false, Some(5)), (3, true, Some(5))], (2, false, Some(5)));
        check(&[(2, false, Some(5)), (2, false, Some(6))], (2, false, Some(5)));
        check(&[(2, false, Some(5)), (3, false, Some(6))], (3, false, Some(6)));
        check(&[(3, false, Some(5))], (1, true, None));
    }

    #[test]
    fn holders_whose_life_is_over_are_found_until_records_end_them() {
        let mut state = founded();
        apply(&mut state, RecordBody::Register { name: "gallery".to_owned() });
        apply(&mut state, RecordBody::OpenSession { sender: "camera".to_owned() });
        let (inbox, session) = (InboxId(2), SessionId(3));
        let holder = |node, life| Holder {
            address: Address { node: NodeId(node), core: CoreId(0) },
            incarnation: Incarnation(life),
        };
        for sequence in 1..=4 {
            let holders =
                if sequence == 3 { vec![holder(1, 1), holder(3, 1)] } else { vec![holder(1, 1), holder(2, 1)] };
            apply(
                &mut state,
                RecordBody::Ready(Ready {
                    image: ImageId { session, sequence: Sequence(sequence) },
                    low_water: Sequence(1),
                    fingerprint: Fingerprint { length: 1, checksum: sequence },
                    name: "a".to_owned(),
                    receivers: vec![inbox],
                    holders,
                }),
            );
        }
        assert_eq!(state.outlived(LogIndex(0), 10), (None, None));
        let (client_address, peer_address) = (String::new(), String::new());
        let (node, incarnation, rejoin) = (NodeId(2), Incarnation(2), Some(5));
        apply(
            &mut state,
            RecordBody::RingChange { node, incarnation, cores: 1, up: true, client_address, peer_address, rejoin },
        );
        let lost =
            |records: &[u64]| Lost { holder: holder(2, 1), records: records.iter().map(|&i| LogIndex(i)).collect() };
        assert_eq!(state.outlived(LogIndex(0), 2), (Some(lost(&[4, 5])), Some(LogIndex(6))));
        assert_eq!(state.outlived(LogIndex(6), 2), (Some(lost(&[7])), None));
        apply(&mut state, RecordBody::Lost(lost(&[4, 5, 7])));
        assert_eq!(state.outlived(LogIndex(0), 10), (None, None));
        assert_eq!(state.holders_of(LogIndex(4)), Some(&[holder(1, 1)][..]));
    }

    #[test]
    fn what_was_proposed_for_a_life_that_is_over_changes_nothing() {
        check(&[(2, false, Some(5)), (1, true, None)], (2, false, Some(5)));
        check(&[(2, false, Some(5)), (2, true, None)], (2, true, Some(5)));
        check(&[(2, true, None)], (1, true, None));
    }
}
