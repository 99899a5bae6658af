#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    RequestId, Sequence, SessionId, Term,
};
use proto::peer::{self, LeaderAnswer, LeaderRequest, Notice, PeerMessage};
use proto::record::{Ready, Record, RecordBody};
use proto::ring::Member;

use super::Mutant;
use crate::admission::{Admission, LeaderDesk};
use crate::bootstrap::{Bootstrap, Founder};
use crate::consensus::{Desk, Request};
use crate::io::{Effect, LogFile, Now, SegmentId};
use crate::log::disk_model::{Disk, append_flushed, start};
use crate::log::{Judgement, LogConfig, RecoverInput, examine};
use crate::state::{Outcome, State};
use crate::vote::Healing;

const SESSION: SessionId = SessionId(4);

/// Members 1 to 3, inboxes 2 and 3, session 4.
fn founded(mutant: Mutant) -> State {
    let mut state = State::new(mutant);
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
    for name in ["a", "b"] {
        apply(&mut state, RecordBody::Register { name: name.into() });
    }
    apply(&mut state, RecordBody::OpenSession { sender: "cam".into() });
    state
}

fn apply(state: &mut State, body: RecordBody) -> Outcome {
    state.apply(LogIndex(state.applied().0 + 1), &Record { time_ms: 1, body })
}

fn holder(node: u64) -> Holder {
    Holder { address: Address { node: NodeId(node), core: CoreId(0) }, incarnation: Incarnation(1) }
}

fn ready(sequence: u64, receivers: &[InboxId]) -> RecordBody {
    RecordBody::Ready(Ready {
        image: ImageId { session: SESSION, sequence: Sequence(sequence) },
        low_water: Sequence(1),
        fingerprint: Fingerprint { length: 10, checksum: 1 },
        name: "a.png".into(),
        receivers: receivers.to_vec(),
        holders: vec![holder(1), holder(2)],
    })
}

/// Receivers for whom the same image is fresh a second time, after `between`.
fn fresh_again(mutant: Mutant, between: fn(&mut State)) -> usize {
    let mut state = founded(mutant);
    apply(&mut state, ready(1, &[InboxId(2)]));
    between(&mut state);
    let Outcome::Ready(Ok(again)) = apply(&mut state, ready(1, &[InboxId(2)])) else { panic!("judged") };
    again.fresh.len()
}

/// What the leader answers to notices of these holders and checksums, and how many records it would propose.
fn answers(mutant: Mutant, notices: &[(&[u64], u64)]) -> (Vec<LeaderAnswer>, usize) {
    let (state, mut admission, mut out) = (founded(mutant), Admission::new(mutant), Vec::new());
    for &(nodes, checksum) in notices {
        let body = LeaderRequest::Notice(Notice {
            image: ImageId { session: SESSION, sequence: Sequence(1) },
            low_water: Sequence(1),
            fingerprint: Fingerprint { length: 10, checksum },
            name: "a.png".into(),
            receivers: vec!["a".into()],
            holders: nodes.iter().map(|&node| holder(node)).collect(),
        });
        let mut desk = LeaderDesk { admission: &mut admission, state: &state, now: Now::default(), out: &mut out };
        desk.admit(Request { origin: Address::default(), request: RequestId(1), hops: 0, body });
    }
    let mut proposed = 0;
    admission.turn(&mut out, false, |bodies| {
        proposed = bodies.len();
        Ok((Term(1), LogIndex(5)))
    });
    let answers = out.into_iter().filter_map(|effect| match effect {
        Effect::Send { message: PeerMessage::Answer { body, .. }, .. } => Some(body),
        _ => None,
    });
    (answers.collect(), proposed)
}

#[test]
fn every_mutant_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    assert_eq!(names.len(), Mutant::ALL.len());
    assert!(!Mutant::ALL.contains(&Mutant::None) && !names.contains(Mutant::None.name()));
}

#[test]
fn dedupe_is_forgotten_at_a_change_of_leader_or_a_restart() {
    let change: fn(&mut State) = |state| state.apply_empty(LogIndex(state.applied().0 + 1));
    assert_eq!(fresh_again(Mutant::None, change), 0);
    assert_eq!(fresh_again(Mutant::ForgetAtLeaderChange, change), 1);
    assert_eq!(fresh_again(Mutant::ForgetAtRestart, State::forget_images), 1);
}

#[test]
fn records_applied_again_make_an_image_fresh_again() {
    let again: fn(&mut State) = |state| {
        let open = RecordBody::OpenSession { sender: "cam".into() };
        state.apply(LogIndex(SESSION.0), &Record { time_ms: 1, body: open });
    };
    assert_eq!(fresh_again(Mutant::ApplyTwice, again), 1);
}

#[test]
fn ids_are_given_out_twice() {
    assert_eq!(founded(Mutant::None).inboxes_of(&["a".into(), "b".into()]), Ok(vec![InboxId(2), InboxId(3)]));
    assert_eq!(founded(Mutant::InboxIdTwice).inboxes_of(&["a".into(), "b".into()]), Ok(vec![InboxId(1); 2]));
    let mut state = founded(Mutant::SessionIdTwice);
    let open = RecordBody::OpenSession { sender: "phone".into() };
    assert_eq!(apply(&mut state, open), Outcome::SessionOpened(SessionId(1)));
    assert_eq!(state.counts().1, 1, "two sessions are one");
}

#[test]
fn acknowledgement_frees_too_early_or_leaves_a_gap() {
    for (mutant, freed_at_first, next) in
        [(Mutant::None, 0, 2), (Mutant::FreeAtFirstAck, 1, 2), (Mutant::AckUnclamped, 0, 10)]
    {
        let mut state = founded(mutant);
        apply(&mut state, ready(1, &[InboxId(2), InboxId(3)]));
        let acked = apply(&mut state, RecordBody::Acked { upto: vec![(InboxId(2), InboxSeq(9))] });
        let Outcome::Acked(_, freed) = acked else { panic!("acknowledged") };
        assert_eq!(freed.len(), freed_at_first, "{}", mutant.name());
        apply(&mut state, ready(2, &[InboxId(2)]));
        let entries = state.entries_after(InboxId(2), InboxSeq(0), 9);
        assert_eq!(entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), [next], "{}", mutant.name());
    }
}

#[test]
fn leader_takes_too_few_or_different_copies_or_answers_too_early() {
    let check = |mutant, notices: &[(&[u64], u64)], expected: (usize, usize)| {
        let (answers, proposed) = answers(mutant, notices);
        let early = answers.iter().filter(|answer| matches!(answer, LeaderAnswer::Ready { .. })).count();
        assert_eq!((early, proposed), expected, "{} {answers:?}", mutant.name());
    };
    check(Mutant::None, &[(&[1], 1)], (0, 0));
    check(Mutant::CopyTooFew, &[(&[1], 1)], (0, 1));
    check(Mutant::None, &[(&[1], 1), (&[2], 9)], (0, 0));
    check(Mutant::None, &[(&[1], 1), (&[2], 1)], (0, 1));
    check(Mutant::GatherDifferentBytes, &[(&[1], 1), (&[2], 9)], (0, 1));
    check(Mutant::None, &[(&[1, 2], 1)], (0, 1));
    check(Mutant::AcceptBeforeCommit, &[(&[1, 2], 1)], (1, 1));
}

#[test]
fn lost_proposal_is_answered_by_what_took_its_place() {
    for (mutant, expected) in [(Mutant::None, false), (Mutant::AnswerByIndex, true)] {
        let (mut admission, mut out) = (Admission::new(mutant), Vec::new());
        admission.propose(Some((Address::default(), RequestId(1))), ready(1, &[InboxId(2)]));
        admission.turn(&mut out, false, |_| Ok((Term(1), LogIndex(5))));
        admission.on_applied(&mut out, LogIndex(5), Term(2), &Outcome::Registered(InboxId(5)));
        let is_answered = matches!(
            &out[..],
            [Effect::Send { message: PeerMessage::Answer { body: LeaderAnswer::Registered { .. }, .. }, .. }]
        );
        assert_eq!(is_answered, expected, "{out:?}");
    }
}

#[test]
fn damaged_log_is_cut_off() {
    let examined = |disk: &Disk, mutant| {
        let segments: Vec<_> = disk.segments.iter().map(|(id, bytes)| (SegmentId(*id), bytes.as_slice())).collect();
        let config = LogConfig { mutant, ..disk.config() };
        let input = RecoverInput {
            snapshots: &[],
            segments: &segments,
            rounds: &disk.rounds,
            vote_term: Term(u64::MAX),
            config,
            heals: Healing::Whole,
        };
        examine(&input).map(|examined| (examined.judgement, examined.last.0.0, examined.commit.0))
    };
    let (mut disk, mut log) = start(4096);
    for _ in 0..10 {
        append_flushed(&mut disk, &mut log, 1, 100);
    }
    assert_eq!(examined(&disk, Mutant::None), Ok((Judgement::Clean, 10, 9)));
    assert_eq!(examined(&disk, Mutant::ApplyUncommitted), Ok((Judgement::Clean, 10, 10)));
    let mut end = disk.clone();
    end.file(LogFile::Segment(SegmentId(1)))[512 + 168 * 9 + 80] ^= 1;
    disk.file(LogFile::Segment(SegmentId(1)))[512 + 168 * 4 + 80] ^= 1;
    assert!(examined(&disk, Mutant::None).is_err() && examined(&disk, Mutant::TruncateUncertain).is_err());
    assert!(matches!(examined(&disk, Mutant::TruncateRot), Ok((Judgement::Rot(_), 4, 3))));
    assert!(examined(&end, Mutant::None).is_err() && examined(&end, Mutant::TruncateRot).is_err());
    assert!(matches!(examined(&end, Mutant::TruncateUncertain), Ok((Judgement::Uncertain(_), 9, 8))));
}

#[test]
fn emptied_member_is_taken_in_again() {
    let node = |id, nonce, mutant| {
        Bootstrap::new(Founder { node: NodeId(id), nonce, cores: 1 }, vec![NodeId(1), NodeId(2)], mutant)
    };
    let mut one = node(1, 11, Mutant::None);
    let minted = one.on_message(NodeId(2), &node(2, 22, Mutant::None).greeting().0).unwrap();
    let members = minted.founders.iter().map(|founder| (founder.node, founder.nonce, founder.cores)).collect();
    let told = peer::Bootstrap::Minted { cluster: minted.cluster, members };
    assert_eq!(node(2, 33, Mutant::None).on_message(NodeId(1), &told), None);
    assert_eq!(node(2, 33, Mutant::EmptiedRejoins).on_message(NodeId(1), &told), Some(minted));
}
