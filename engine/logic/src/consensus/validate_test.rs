#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use proto::peer::RaftEntry;
use raft::eraftpb::{ConfState, Entry, HardState, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

use super::*;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const LEARNER: NodeId = NodeId(4);

/// The state in which a message is judged and stepped: log 1, 2, 3 with terms 1, 1, 2; committed 2; term 3.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scene {
    /// Never part of anything: term 0, empty log.
    Fresh,
    /// Follower in term 3 that knows no leader.
    Follower,
    /// Asked for votes of term 4, which are out.
    Candidate,
    /// Asked for votes of term 4 while an entry is not yet durable.
    CandidateUnsettled,
    /// Leader of term 4, its own first entry at 4.
    Leader,
}

struct Stage {
    raw: RawNode<MemStorage>,
    scene: Scene,
}

fn entry(index: u64, term: u64) -> RaftEntry {
    RaftEntry { index: LogIndex(index), term: Term(term), data: b"x".to_vec() }
}

fn stage(scene: Scene) -> Stage {
    let store =
        MemStorage::new_with_conf_state(ConfState { voters: vec![1, 2, 3], learners: vec![4], ..ConfState::default() });
    if scene != Scene::Fresh {
        let entries: Vec<Entry> = [(1, 1), (2, 1), (3, 2)].map(|(i, t)| convert::entry_from_wire(entry(i, t))).into();
        store.wl().append(&entries).unwrap();
        store.wl().set_hardstate(HardState { term: 3, commit: 2, ..HardState::default() });
    }
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 2, ..Config::default() };
    let raw = RawNode::new(&config, store, &slog::Logger::root(slog::Discard, slog::o!())).unwrap();
    let mut stage = Stage { raw, scene };
    match scene {
        Scene::Fresh | Scene::Follower => {}
        Scene::Candidate => stage.raw.campaign().unwrap(),
        Scene::CandidateUnsettled => {
            let append = RaftMessage { index: LogIndex(3), log_term: Term(2), entries: vec![entry(4, 3)], ..append() };
            stage.raw.step(convert::from_wire(append).unwrap()).unwrap();
            stage.raw.campaign().unwrap();
        }
        Scene::Leader => {
            stage.raw.campaign().unwrap();
            stage.raw.raft.become_leader();
        }
    }
    stage
}

impl Stage {
    fn check(&self, message: &RaftMessage, came: NodeId) -> Result<(), Invalid> {
        let voters = [ME, PEER, NodeId(3)].into();
        let learners = [LEARNER].into();
        let raft = &self.raw.raft;
        let facts = Facts {
            node: ME,
            voters: &voters,
            learners: &learners,
            role: raft.state,
            term: Term(raft.term),
            leader: (raft.leader_id != 0).then_some(NodeId(raft.leader_id)),
            last: LogIndex(raft.raft_log.last_index()),
            entry_bytes_max: 1000,
            settled: self.scene != Scene::CandidateUnsettled,
        };
        check(message, came, &facts)
    }

    /// Steps the message without any check, then lets time pass and raft send: whether it panics.
    fn panics(mut self, message: RaftMessage) -> bool {
        let message = convert::from_wire(message).unwrap();
        catch_unwind(AssertUnwindSafe(move || {
            let _ = self.raw.step(message);
            for _ in 0..2 {
                while self.raw.has_ready() {
                    let mut ready = self.raw.ready();
                    let messages = [ready.take_messages(), ready.take_persisted_messages()].concat();
                    self.raw.mut_store().wl().append(ready.entries()).unwrap();
                    let _ = self.raw.advance_append(ready);
                    messages.into_iter().for_each(receive_as_second_node);
                }
                for _ in 0..25 {
                    self.raw.tick();
                }
            }
        }))
        .is_err()
    }
}

/// What this node sends must not panic a peer either: a follower that has the entries 1, 2 and 3.
fn receive_as_second_node(message: Message) {
    if message.to != PEER.0 {
        return;
    }
    let mut stage = stage(Scene::Follower);
    stage.raw.raft.r.id = PEER.0;
    let _ = stage.raw.raft.step(message);
}

fn message(kind: MessageType) -> RaftMessage {
    RaftMessage { kind: convert::number_of(kind), from: PEER, to: ME, term: Term(3), ..RaftMessage::default() }
}

fn append() -> RaftMessage {
    RaftMessage { index: LogIndex(3), log_term: Term(2), ..message(MessageType::MsgAppend) }
}

fn vote(kind: MessageType) -> RaftMessage {
    RaftMessage { index: LogIndex(3), log_term: Term(2), term: Term(4), ..message(kind) }
}

/// The message is taken as it is, raft lives; changed by `spoil` it is refused for that reason, and if `deadly`, raft
/// panics on it.
#[track_caller]
fn refuse(scene: Scene, good: RaftMessage, spoil: impl FnOnce(&mut RaftMessage), reason: &str, deadly: bool) {
    assert_eq!(stage(scene).check(&good, PEER), Ok(()), "before it is spoiled");
    assert!(!stage(scene).panics(good.clone()), "raft panics on the good message");
    let mut bad = good;
    spoil(&mut bad);
    let refused = stage(scene).check(&bad, PEER).unwrap_err();
    assert!(format!("{refused:?}").starts_with(reason), "{refused:?}, expected {reason}");
    assert_eq!(stage(scene).panics(bad), deadly, "whether raft panics on {reason}");
}

#[test]
fn append_with_entries_that_follow_is_taken() {
    let good = RaftMessage { entries: vec![entry(4, 2), entry(5, 3)], commit: LogIndex(5), ..append() };
    assert_eq!(stage(Scene::Follower).check(&good, PEER), Ok(()));
    assert!(!stage(Scene::Follower).panics(good));
}

/// Raft paper, section 5.3: the consistency check of AppendEntries.
#[test]
fn append_is_refused_unless_its_entries_are_consecutive_from_the_one_before() {
    let good = || RaftMessage { entries: vec![entry(4, 3), entry(5, 3)], commit: LogIndex(5), ..append() };
    refuse(Scene::Follower, good(), |m| m.entries[0].index = LogIndex(5), "Gap", true);
    refuse(Scene::Follower, good(), |m| m.entries = vec![entry(5, 3)], "Gap", true);
    refuse(Scene::Follower, good(), |m| m.entries = vec![entry(2, 3)], "Gap", true);
    refuse(Scene::Follower, good(), |m| m.entries[1].index = LogIndex(9), "Gap", true);
}

/// Raft paper, section 5.3: terms in a log only rise, and no entry is newer than its leader.
#[test]
fn append_is_refused_if_its_terms_fall_or_pass_the_leaders() {
    let good = || RaftMessage { entries: vec![entry(4, 2), entry(5, 3)], ..append() };
    refuse(Scene::Follower, good(), |m| m.entries[1].term = Term(1), "EntryTerm", false);
    refuse(Scene::Follower, good(), |m| m.entries[1].term = Term(4), "EntryTerm", false);
    refuse(Scene::Follower, good(), |m| m.entries[0].term = Term(0), "TermOfIndex", true);
    refuse(Scene::Follower, append(), |m| m.log_term = Term(4), "EntryTerm", false);
}

#[test]
fn append_that_would_match_behind_the_end_of_the_log_is_refused() {
    let spoil = |m: &mut RaftMessage| (m.index, m.log_term, m.commit) = (LogIndex(7), Term(0), LogIndex(7));
    refuse(Scene::Follower, append(), spoil, "TermOfIndex", true);
    refuse(Scene::Follower, append(), |m| m.index = LogIndex(0), "TermOfIndex", false);
}

#[test]
fn heartbeat_that_commits_more_than_this_node_has_is_refused() {
    let good = RaftMessage { commit: LogIndex(3), ..message(MessageType::MsgHeartbeat) };
    refuse(Scene::Follower, good.clone(), |m| m.commit = LogIndex(4), "BeyondLog", true);
    // Of an older term it is only answered with the newer one.
    let old = RaftMessage { commit: LogIndex(9), term: Term(2), ..good };
    assert_eq!(stage(Scene::Follower).check(&old, PEER), Ok(()));
    assert!(!stage(Scene::Follower).panics(old));
}

#[test]
fn acknowledgement_of_what_the_leader_does_not_have_is_refused() {
    let good = RaftMessage { index: LogIndex(3), term: Term(4), ..message(MessageType::MsgAppendResponse) };
    refuse(Scene::Leader, good, |m| m.index = LogIndex(9), "BeyondLog", true);
}

#[test]
fn request_for_a_snapshot_is_refused() {
    let good =
        RaftMessage { term: Term(4), reject: true, index: LogIndex(3), ..message(MessageType::MsgAppendResponse) };
    refuse(Scene::Leader, good, |m| m.request_snapshot = LogIndex(9), "Snapshot", false);
}

#[test]
fn positions_near_the_end_of_the_number_range_are_refused() {
    let huge = u64::MAX;
    refuse(Scene::Follower, vote(MessageType::MsgRequestVote), |m| m.term = Term(huge), "Position", true);
    let rejection =
        RaftMessage { term: Term(4), reject: true, index: LogIndex(3), ..message(MessageType::MsgAppendResponse) };
    refuse(Scene::Leader, rejection, |m| m.reject_hint = LogIndex(huge), "Position", true);
    refuse(Scene::Follower, append(), |m| m.index = LogIndex(huge), "Position", false);
    refuse(Scene::Follower, append(), |m| m.commit = LogIndex(huge), "Position", false);
    let refusal = RaftMessage { reject: true, term: Term(4), ..message(MessageType::MsgRequestVoteResponse) };
    refuse(Scene::Candidate, refusal, |m| m.commit_term = Term(huge), "Position", false);
}

#[test]
fn message_without_a_term_is_refused_since_raft_takes_it_for_a_local_one() {
    refuse(
        Scene::Candidate,
        RaftMessage { term: Term(4), ..append() },
        |m| m.term = Term(0),
        "Position",
        cfg!(debug_assertions),
    );
}

/// Raft paper, section 5.4.1: a leader has all it asked votes for; here also durably.
#[test]
fn vote_that_was_not_asked_for_is_refused() {
    let granted = || RaftMessage { term: Term(4), ..message(MessageType::MsgRequestVoteResponse) };
    assert_eq!(stage(Scene::Candidate).check(&granted(), PEER), Ok(()));
    assert!(!stage(Scene::Candidate).panics(granted()));
    let refused = stage(Scene::CandidateUnsettled).check(&granted(), PEER).unwrap_err();
    assert!(matches!(refused, Invalid::VoteNotAsked { .. }) && refused.is_ordinary(), "{refused:?}");
    assert!(stage(Scene::CandidateUnsettled).panics(granted()));
}

#[test]
fn fresh_node_refuses_a_vote_request_with_priority() {
    let good = RaftMessage { term: Term(1), ..message(MessageType::MsgRequestPreVote) };
    refuse(Scene::Fresh, good, |m| m.priority = -1, "Priority", true);
}

#[test]
fn vote_request_with_impossible_log_is_refused() {
    let good = || RaftMessage { commit: LogIndex(2), commit_term: Term(1), ..vote(MessageType::MsgRequestVote) };
    refuse(Scene::Follower, good(), |m| m.log_term = Term(0), "TermOfIndex", false);
    refuse(Scene::Follower, good(), |m| m.log_term = Term(5), "EntryTerm", false);
    refuse(Scene::Follower, good(), |m| m.commit_term = Term(0), "TermOfIndex", false);
    refuse(Scene::Follower, good(), |m| m.context = b"CampaignTransferred".to_vec(), "Context", false);
    // Whom a leader asked to take over says so; in the round before there is no such wish.
    let taking_over = RaftMessage { context: b"CampaignTransfer".to_vec(), ..good() };
    assert_eq!(stage(Scene::Follower).check(&taking_over, PEER), Ok(()));
    assert!(!stage(Scene::Follower).panics(taking_over));
    let before = || vote(MessageType::MsgRequestPreVote);
    refuse(Scene::Follower, before(), |m| m.context = b"CampaignTransfer".to_vec(), "Context", false);
}

/// Raft paper, section 5.2: at most one leader can be elected in a term.
#[test]
fn second_leader_of_a_term_is_refused() {
    let mut stage = stage(Scene::Follower);
    stage.raw.step(convert::from_wire(append()).unwrap()).unwrap();
    assert_eq!(stage.check(&append(), PEER), Ok(()));
    let other = RaftMessage { from: NodeId(3), ..append() };
    assert!(matches!(stage.check(&other, NodeId(3)), Err(Invalid::SecondLeader { leader: PEER, .. })));
    let newer = RaftMessage { term: Term(4), ..other };
    assert_eq!(stage.check(&newer, NodeId(3)), Ok(()));
    let to_leader = RaftMessage { term: Term(4), ..message(MessageType::MsgHeartbeat) };
    assert!(matches!(
        self::stage(Scene::Leader).check(&to_leader, PEER),
        Err(Invalid::SecondLeader { leader: ME, .. })
    ));
}

#[test]
fn only_the_other_members_are_heard_and_only_for_themselves() {
    let check = |change: fn(&mut RaftMessage), came: u64| {
        let mut message = append();
        change(&mut message);
        stage(Scene::Follower).check(&message, NodeId(came))
    };
    assert_eq!(check(|_| {}, 2), Ok(()));
    assert_eq!(check(|_| {}, 3), Err(Invalid::ForeignSender { said: PEER, came: NodeId(3) }));
    assert_eq!(check(|m| m.from = NodeId(9), 9), Err(Invalid::UnknownSender { from: NodeId(9) }));
    assert_eq!(check(|m| m.from = NodeId(0), 0), Err(Invalid::UnknownSender { from: NodeId(0) }));
    assert_eq!(check(|m| m.from = ME, 1), Err(Invalid::UnknownSender { from: ME }));
    assert_eq!(check(|m| m.to = NodeId(3), 2), Err(Invalid::ForeignTarget { to: NodeId(3) }));
}

#[test]
fn learner_may_acknowledge_and_nothing_else() {
    for number in 0..19 {
        let message = RaftMessage { from: LEARNER, kind: number, ..message(MessageType::MsgAppend) };
        let taken = stage(Scene::Follower).check(&message, LEARNER).is_ok();
        let kind = convert::kind_of(number).unwrap();
        let may = matches!(kind, MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse);
        assert_eq!(taken, may, "{kind:?}");
    }
}

#[test]
fn kinds_that_never_travel_are_refused() {
    let kinds = [0, 1, 2, 7, 10, 11, 12, 13, 15, 16, 19, 255];
    for kind in kinds {
        let message = RaftMessage { kind, ..message(MessageType::MsgAppend) };
        assert_eq!(stage(Scene::Leader).check(&message, PEER), Err(Invalid::Kind { kind }));
    }
    // An empty proposal, or a read without key, would end the leader.
    for kind in [MessageType::MsgPropose, MessageType::MsgReadIndex] {
        let mut leader = stage(Scene::Leader);
        let commit = leader.raw.raft.raft_log.last_index();
        leader.raw.raft.raft_log.committed = commit;
        assert!(leader.panics(RaftMessage { term: Term(0), ..message(kind) }), "{kind:?}");
    }
}

/// Whoever is asked to take over campaigns at once, in whatever role and term the request finds it.
#[test]
fn request_to_take_over_is_taken_from_a_leader() {
    for scene in [Scene::Fresh, Scene::Follower, Scene::Candidate, Scene::CandidateUnsettled, Scene::Leader] {
        for term in [1, 2, 3, 4, 9] {
            let message = RaftMessage { term: Term(term), ..message(MessageType::MsgTimeoutNow) };
            let checked = stage(scene).check(&message, PEER);
            assert!(matches!(checked, Ok(()) | Err(Invalid::SecondLeader { .. })), "{scene:?} {term} {checked:?}");
            assert!(!stage(scene).panics(message), "{scene:?} {term}");
        }
    }
    let good = || message(MessageType::MsgTimeoutNow);
    refuse(Scene::Follower, good(), |m| m.context = vec![1], "Context", false);
}

#[test]
fn what_is_too_large_or_in_the_wrong_place_is_refused() {
    let check = |message: RaftMessage| stage(Scene::Follower).check(&message, PEER).unwrap_err();
    let many = (0..=RAFT_ENTRIES_MAX as u64).map(|i| entry(4 + i, 3)).collect();
    assert!(matches!(check(RaftMessage { entries: many, ..append() }), Invalid::TooLarge { .. }));
    let big = RaftEntry { data: vec![0; RAFT_MESSAGE_BYTES_MAX + 1], ..entry(4, 3) };
    assert!(matches!(check(RaftMessage { entries: vec![big], ..append() }), Invalid::TooLarge { .. }));
    let long = RaftEntry { data: vec![0; 1001], ..entry(4, 3) };
    assert!(matches!(check(RaftMessage { entries: vec![long], ..append() }), Invalid::EntryTooLarge { .. }));
    let beat = RaftMessage { entries: vec![entry(4, 3)], ..message(MessageType::MsgHeartbeat) };
    assert!(matches!(check(beat), Invalid::UnexpectedEntries { count: 1, .. }));
    let beat = RaftMessage { context: vec![0; CONTEXT_BYTES_MAX + 1], ..message(MessageType::MsgHeartbeat) };
    assert!(matches!(check(beat), Invalid::Context { .. }));
}
