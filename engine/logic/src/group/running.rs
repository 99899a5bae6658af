//! What core 0 of a member does with the log: recovers it, drives raft, applies what is committed, watches the others.

use std::collections::BTreeMap;

use proto::codec::{decode_record, encode_record};
use proto::ids::{ClusterId, Incarnation, LogIndex, NodeId, Term};
use proto::peer::LeaderRequest;
use proto::record::{Record, RecordBody};
use proto::ring::Member;

use super::incoming::Incoming;
use super::scrub::Scrub;
use super::snapshots::{Kept, Snapshots, items_of};
use super::unknown::Unknown;
use super::{FOR_GOOD, cores_here};
use crate::admission::{Admission, LeaderDesk};
use crate::consensus::{Audience, ManagerConfig, RaftManager, Request};
use crate::context::Context;
use crate::identity::{Identity, IdentityState, Membership};
use crate::io::{CoreNote, Effect, Now};
use crate::limits::{DOWN_US, FORMER_LOOKS_MAX, INTENT_US};
use crate::log::{Log, LogConfig, RecoverError, RecoverInput, SnapshotMark, StoreId};
use crate::mutant::Mutant;
use crate::requests::Purpose;
use crate::shard::{GroupStart, InitialMember, ShardConfig, StartError};
use crate::snapshot::{LoadError, SnapshotHeader, load_with};
use crate::state::{Outcome, State};
use crate::subscriptions::Subscriptions;
use crate::vote::{Healing, Vote};

/// Ticks without a leader before a node campaigns, at least and (exclusive) at most; ticks between heartbeats.
const ELECTION_TICKS: (usize, usize) = (10, 20);
const HEARTBEAT_TICKS: usize = 2;

/// A member's part in the group.
pub(super) struct Running {
    pub(super) manager: RaftManager,
    pub(super) state: State,
    pub(super) admission: Admission,
    pub(super) subscriptions: Subscriptions,
    pub(super) unknown: Unknown,
    pub(super) was_serving: bool, // as leader, after the last turn
    pub(super) serving_since_us: u64,
    pub(super) founded: bool, // a genesis was proposed in this time as leader
    pub(super) snapshots: Snapshots,
    pub(super) incoming: Option<Incoming>,
    pub(super) scrub: Scrub,
    pub(super) cluster: ClusterId,
    pub(super) members: Vec<NodeId>,
    former_from: Option<LogIndex>, // from which record on former lives of holders are looked for
    found_former: bool,            // since the first record
    pub(super) mutant: Mutant,
}

impl Running {
    pub(super) fn recover(
        config: &ShardConfig,
        identity: &Identity,
        membership: &Membership,
        start: &GroupStart<'_>,
        mutant: Mutant,
    ) -> Result<Running, StartError> {
        let vote = match &start.vote {
            Some([one, other]) => Vote::choose([one, other]).map_err(StartError::amnesia)?,
            None => None,
        };
        if let Some(vote) = vote.filter(|vote| (vote.node, vote.cluster) != (identity.node, membership.cluster)) {
            let text = format!(
                "the vote file is that of node {} of cluster {}, this is node {} of cluster {}: restore this node's own",
                vote.node.0, vote.cluster, identity.node.0, membership.cluster
            );
            return Err(StartError::new(text));
        }
        if vote.is_none() && membership.incarnation > Incarnation(1) {
            return Err(StartError::amnesia(format!(
                "term and vote are lost: the file is gone, and this node may have voted; {FOR_GOOD}"
            )));
        }
        let mut vote = vote.unwrap_or(Vote { node: identity.node, cluster: membership.cluster, ..Vote::default() });
        let found = Found::read(start, membership.cluster, mutant);
        let marks = found.marks();
        let items = items_of(&found.state);
        let mut state = found.state;
        let mut bad = None;
        let mut again = Vec::new();
        let input = RecoverInput {
            segments: &start.segments,
            rounds: start.rounds,
            vote_term: vote.term,
            config: LogConfig {
                segment_bytes: config.segment_bytes,
                store: StoreId { cluster: membership.cluster, nonce: identity.nonce },
                mutant,
            },
            // A lone voter has nobody to heal from; a round that was perhaps never finished is its own to judge.
            snapshots: &marks,
            heals: if membership.voters == [identity.node] { Healing::Uncertain } else { Healing::Rot },
        };
        let log = Log::recover(input, |index, _term, payload| {
            if let Err(error) = apply(&mut state, index, payload) {
                bad.get_or_insert(error);
            }
            if mutant.is(Mutant::ApplyTwice) {
                again.push((index, payload.to_vec()));
            }
        })
        .map_err(|error| match error {
            RecoverError::Amnesia { .. } => StartError::amnesia(error),
            _ => StartError::new(error),
        })?;
        if let Some(error) = bad {
            return Err(error);
        }
        if let Some(finding) = log.finding() {
            tracing::warn!(
                "the log lost entries: {finding}; it takes them from the others before this node votes again"
            );
        } else if vote.healing != Healing::Whole {
            tracing::warn!(
                "the log lost entries before, and did not have them again when the process ended: it goes on"
            );
        }
        vote.healing = vote.healing.max(log.lost());
        for (index, payload) in again {
            apply(&mut state, index, &payload)?;
        }
        if mutant.is(Mutant::ForgetAtRestart) {
            state.forget_images();
        }
        let learners = membership
            .members
            .iter()
            .map(|member| member.node)
            .filter(|node| !membership.voters.contains(node))
            .collect();
        let manager_config = ManagerConfig {
            node: identity.node,
            voters: membership.voters.clone(),
            learners,
            election_ticks_min: ELECTION_TICKS.0,
            election_ticks_max: ELECTION_TICKS.1,
            heartbeat_ticks: HEARTBEAT_TICKS,
            seed: config.entropy[2],
            mutant,
        };
        let applied = state.applied();
        let log_before = log.bytes_behind(found.kept.last().map_or(LogIndex(0), |kept| kept.mark.index));
        let running = Running {
            manager: RaftManager::new(manager_config, log, vote, applied),
            state,
            admission: Admission::new(mutant),
            subscriptions: Subscriptions::default(),
            unknown: Unknown::default(),
            was_serving: false,
            serving_since_us: 0,
            founded: false,
            snapshots: Snapshots::new(
                (found.kept, found.bad, items),
                config.segment_bytes,
                identity.node.0,
                log_before,
            ),
            incoming: None,
            scrub: Scrub::new(config.scrub_pass_us),
            cluster: membership.cluster,
            members: membership.members.iter().map(|member| member.node).collect(),
            former_from: Some(LogIndex(0)),
            found_former: false,
            mutant,
        };
        match running.replaced(identity.node, membership.incarnation) {
            Some(text) => Err(StartError::amnesia(text)),
            None => Ok(running),
        }
    }

    pub(super) fn on_request(&mut self, cx: &mut Context<'_>, request: Request) {
        let (admission, state) = (&mut self.admission, &self.state);
        let mut desk = LeaderDesk { admission, state, now: cx.now, out: cx.out };
        self.manager.on_request(cx.now, request, &mut desk);
    }

    /// Returns whether the view may have changed.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>, identity: &Identity, config: &ShardConfig) -> bool {
        let before = self.manager.state();
        if before.serving && !self.founded && self.state.ring().members().is_empty() {
            self.founded = true;
            self.admission.propose(None, genesis(identity, config));
        }
        let mut changed = false;
        let mut audience = Audience::default();
        loop {
            self.propose(cx);
            let (admission, state, mut answers) = (&mut self.admission, &self.state, Vec::new());
            let mut desk = LeaderDesk { admission, state, now: cx.now, out: &mut answers };
            self.manager.turn(cx.now, &mut desk, cx.out);
            cx.out.append(&mut answers);
            let committed = self.manager.take_committed();
            if committed.is_empty() && !self.admission.has_due() {
                break;
            }
            for entry in &committed {
                changed |= self.apply_entry(cx, identity, entry.index, entry.term, entry.data(), &mut audience);
            }
            self.manager.set_applied(self.state.applied());
        }
        // Behind the answers.
        self.manager.announce(&audience, cx.out);
        self.offer(cx);
        changed |= self.try_install(cx, identity);
        let after = self.manager.state();
        if self.was_serving && !after.serving && !self.mutant.is(Mutant::AnswerByIndex) {
            self.admission.clear();
            self.founded = false;
        }
        if after.serving && !self.was_serving {
            self.serving_since_us = cx.now.mono_us;
            self.former_from = Some(LogIndex(0));
        }
        self.was_serving = after.serving;
        changed || before.leader != after.leader || before.role != after.role
    }

    fn propose(&mut self, cx: &mut Context<'_>) {
        let time_ms = cx.now.wall_ms;
        let manager = &mut self.manager;
        let is_full = manager.is_out_of_room();
        let mut shown = Vec::new();
        self.admission.turn(cx.out, is_full, |bodies| {
            if self.mutant.is(Mutant::DeliverBeforeReady) {
                shown.clone_from(&bodies);
            }
            let batch = bodies.into_iter().map(|body| encode_record(&Record { time_ms, body })).collect();
            manager.propose(batch).map(|proposed| (proposed.term, proposed.first))
        });
        if !shown.is_empty() {
            self.show(cx, shown.into_iter().map(|body| Record { time_ms, body }));
        }
    }

    /// Only a wrong decision shows receivers records that are proposed and perhaps never committed.
    fn show(&mut self, cx: &mut Context<'_>, records: impl Iterator<Item = Record>) {
        let mut foreseen = self.state.clone();
        for record in records {
            let index = LogIndex(foreseen.applied().0 + 1);
            if let Outcome::Ready(Ok(ready)) = foreseen.apply(index, &record) {
                self.subscriptions.on_fresh(&foreseen, &ready.fresh, cx.out);
            }
        }
    }

    fn apply_entry(
        &mut self,
        cx: &mut Context<'_>,
        identity: &Identity,
        index: LogIndex,
        term: Term,
        data: &[u8],
        audience: &mut Audience,
    ) -> bool {
        // Nobody at another node waits to apply these, except for the homes below, and who asked gets an answer.
        let mut can_wait = false;
        let outcome = match apply(&mut self.state, index, data) {
            Ok(Some((outcome, record))) => {
                can_wait =
                    matches!(record.body, RecordBody::Ready(_) | RecordBody::Acked { .. } | RecordBody::Probe { .. });
                if let RecordBody::Ready(ready) = &record.body {
                    self.admission.on_ready(ready.image);
                    if let Outcome::Ready(Ok(outcome)) = &outcome
                        && !outcome.fresh.is_empty()
                    {
                        let receivers = self.state.names_of(&outcome.fresh);
                        for home in receivers.iter().filter_map(|name| self.state.ring().home(name)) {
                            audience.add(home.node);
                        }
                        for core in cores_here(&ready.holders, identity.node, identity.incarnation()) {
                            let (image, fingerprint, receivers) = (ready.image, ready.fingerprint, receivers.clone());
                            cx.tell(core, CoreNote::Claim { image, index, fingerprint, receivers });
                        }
                        self.subscriptions.on_fresh(&self.state, &outcome.fresh, cx.out);
                    }
                }
                outcome
            }
            Ok(None) => Outcome::Nothing,
            Err(error) => {
                cx.out.push(Effect::Fatal { text: error.text });
                Outcome::Nothing
            }
        };
        if let Outcome::Lost(_, Some(inbox)) = &outcome {
            self.subscriptions.on_fresh(&self.state, &[*inbox], cx.out);
        }
        if let Outcome::Acked(_, freed) | Outcome::Lost(freed, _) = &outcome {
            for freed in freed {
                for core in cores_here(&freed.holders, identity.node, identity.incarnation()) {
                    cx.tell(core, CoreNote::Free { image: freed.image, index: freed.index });
                }
            }
        }
        if !can_wait {
            *audience = Audience::All;
        }
        self.admission.on_applied(cx.out, index, term, &outcome);
        if outcome == Outcome::RingChanged {
            self.former_from = Some(LogIndex(0));
        }
        if outcome == Outcome::RingChanged
            && let Some(text) = self.replaced(identity.node, identity.incarnation())
        {
            cx.out.push(Effect::Fatal { text });
        }
        matches!(outcome, Outcome::Founded | Outcome::RingChanged)
    }

    /// As leader: marks silent nodes down.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>, heard_us: &BTreeMap<NodeId, u64>, awake_us: u64) {
        if !self.manager.state().serving {
            return;
        }
        let since_us = awake_us.max(self.serving_since_us);
        let silent: Vec<NodeId> = self
            .state
            .ring()
            .members()
            .iter()
            .filter(|member| member.up && member.node != cx.me.node)
            .map(|member| member.node)
            .filter(|node| cx.now.mono_us > heard_us.get(node).copied().unwrap_or(0).max(since_us) + DOWN_US)
            .collect();
        for node in silent {
            self.admission.mark_down(&self.state, node, cx.now);
        }
        self.admission.expire_intents(cx.now.mono_us.saturating_sub(INTENT_US));
    }

    /// As a node that the ring passes over, or that moved: asks to be counted again.
    pub(super) fn ask_to_return(&mut self, cx: &mut Context<'_>, config: &ShardConfig) {
        let Some(me) = config.members.iter().find(|member| member.node == cx.me.node) else { return };
        let Some(known) = self.state.ring().member(cx.me.node) else { return };
        let is_right = known.up
            && (&known.client_address, &known.peer_address) == (&me.client_address, &me.peer_address)
            && known.cores == config.cores;
        if is_right || !cx.view.contact || !cx.requests.has_room() {
            return;
        }
        let InitialMember { client_address, peer_address, .. } = me.clone();
        let body = LeaderRequest::Return {
            node: cx.me.node,
            incarnation: cx.view.incarnation,
            cores: config.cores,
            client_address,
            peer_address,
            applied: self.state.applied(),
        };
        cx.requests.ask(cx.me, cx.now, Purpose::Return, body, cx.out);
    }

    /// As leader: ends what former lives of nodes are still named for. Their bytes are gone with their directories.
    pub(super) fn end_former_lives(&mut self) {
        let Some(from) = self.former_from.filter(|_| self.manager.state().serving) else { return };
        let (lost, next) = self.state.outlived(from, FORMER_LOOKS_MAX);
        self.found_former |= lost.is_some();
        if let Some(lost) = lost {
            self.admission.propose(None, RecordBody::Lost(lost));
        }
        // One record makes one image damaged at most: looked through again until nothing is found.
        self.former_from = next.or_else(|| std::mem::take(&mut self.found_former).then_some(LogIndex(0)));
    }

    /// As leader: ends sessions that nobody used for long.
    pub(super) fn expire(&mut self, now: Now, idle_ms: u64) {
        let (log_time_ms, oldest) = self.state.session_ages();
        let idle_since_ms = log_time_ms.max(now.wall_ms).saturating_sub(idle_ms);
        if self.manager.state().serving && oldest.is_some_and(|used_ms| used_ms < idle_since_ms) {
            self.admission.propose(None, RecordBody::ExpireSessions { idle_since_ms });
        }
    }
}

/// The snapshots found at start that can be read.
struct Found {
    state: State,    // of the last one
    kept: Vec<Kept>, // ascending
    bad: Vec<LogIndex>,
}

impl Found {
    /// Reads the newest that is whole; of older ones only the header. One that is bad is as good as none.
    fn read(start: &GroupStart<'_>, cluster: ClusterId, mutant: Mutant) -> Found {
        let mut found = Found { state: State::new(mutant), kept: Vec::new(), bad: Vec::new() };
        let mut has_state = false;
        for &(index, bytes) in start.snapshots.iter().rev() {
            let header = SnapshotHeader::decode(bytes).map_err(LoadError::from);
            let read = match header {
                Ok(header) if has_state && (header.cluster, header.mark.index) == (cluster, index) => {
                    Ok((header.mark, None))
                }
                _ => load_with(bytes, cluster, mutant).map(|(mark, state)| (mark, Some(state))),
            };
            match read {
                Ok((mark, state)) if mark.index == index => {
                    has_state = true;
                    found.state = state.unwrap_or(found.state);
                    found.kept.insert(0, Kept { mark, bytes: bytes.len() as u64, read_us: 0 });
                }
                Ok((mark, _)) => {
                    found.bad.push(index);
                    let (index, found) = (index.0, mark.index.0);
                    tracing::warn!(index, found, "a snapshot has another one's name: it is not used");
                }
                Err(error) => {
                    found.bad.push(index);
                    tracing::warn!(index = index.0, %error, "a snapshot cannot be read: it is not used");
                }
            }
        }
        found
    }

    fn marks(&self) -> Vec<SnapshotMark> {
        self.kept.iter().map(|kept| kept.mark).collect()
    }
}

/// Applies one entry; `None` for one without a record.
fn apply(state: &mut State, index: LogIndex, data: &[u8]) -> Result<Option<(Outcome, Record)>, StartError> {
    if data.is_empty() {
        state.apply_empty(index);
        return Ok(None);
    }
    let record = decode_record(data).map_err(|error| {
        StartError::new(format!(
            "the committed entry {index} is no record this program knows ({error}); use the program that wrote it"
        ))
    })?;
    let outcome = state.apply(index, &record);
    Ok(Some((outcome, record)))
}

fn genesis(identity: &Identity, config: &ShardConfig) -> RecordBody {
    let IdentityState::Member(membership) = &identity.state else { unreachable!("only a member leads") };
    let address_of = |node: NodeId| config.members.iter().find(|member| member.node == node);
    let members: Vec<Member> = membership
        .members
        .iter()
        .map(|member| Member {
            node: member.node,
            incarnation: Incarnation(1),
            cores: member.cores,
            up: true,
            voter: membership.voters.contains(&member.node),
            client_address: address_of(member.node).map(|found| found.client_address.clone()).unwrap_or_default(),
            peer_address: address_of(member.node).map(|found| found.peer_address.clone()).unwrap_or_default(),
        })
        .collect();
    let f_plus_1 = (membership.voters.len() - 1) / 2 + 1;
    let wanted = if config.copies == 0 { f_plus_1 } else { usize::from(config.copies) };
    let copies = wanted.min(members.len()) as u8;
    RecordBody::Genesis { cluster: membership.cluster, members, copies, image_bytes_max: config.image_bytes_max }
}
