//! The consensus group's part of core 0: bootstrap, the replicated state, who is up, and what the other cores are told.
//!
//! ```text
//! empty directory -> Bootstrapping -> identity durable -> Running
//! Running:  requests -> role (follower forwards, candidate holds, leader admits) -> records -> raft
//!           committed entries -> state -> claims, inbox entries, view to the cores; answers to whoever asked (leader)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::client::{CoreStatus, NodeStatus, RoleKind};
use proto::codec::{decode_record, encode_record};
use proto::ids::{Address, CoreId, Holder, ImageId, Incarnation, LogIndex, NodeId, RequestId};
use proto::peer::{self, LeaderRequest, PeerMessage};
use proto::record::{Record, RecordBody};
use proto::ring::Member;

use crate::admission::{Admission, LeaderDesk};
use crate::bootstrap::{Bootstrap, Minted, voters_of};
use crate::consensus::{self, ManagerConfig, RaftManager, Request};
use crate::context::Context;
use crate::identity::{Identity, IdentityState, MemberIdentity, Membership};
use crate::io::{ConnId, CoreNote, DiskError, Effect, Input, Now, Ticket, View};
use crate::limits::{DOWN_US, EXPIRY_US, GREETING_US, INTENT_US, TICK_US};
use crate::log::{Log, LogConfig, RecoverInput, StoreId};
use crate::requests::Purpose;
use crate::shard::{GroupStart, InitialMember, ShardConfig, StartError};
use crate::state::{Outcome, State};
use crate::subscriptions::Subscriptions;
use crate::vote::Vote;

/// Ticks without a leader before a node campaigns, at least and (exclusive) at most; ticks between heartbeats.
const ELECTION_TICKS: (usize, usize) = (10, 20);
const HEARTBEAT_TICKS: usize = 2;

/// Core 0's part.
pub(crate) struct Group {
    config: ShardConfig,
    identity: Identity,
    phase: Phase,
    view: Arc<View>, // as last told to the cores
    reports: BTreeMap<CoreId, CoreStatus>,
    heard_us: BTreeMap<NodeId, u64>, // when a node last sent anything to this core
    awake_us: u64,                   // since when this core has been running without a gap
    tick_us: u64,                    // the last tick
    greeting_us: u64,                // when the next greeting, or request to return, is due
    expiry_us: u64,                  // when the next look for ended sessions is due
}

enum Phase {
    /// The nonce is not durable yet.
    Naming(Ticket),
    /// Waits for all initial members.
    Bootstrapping(Bootstrap),
    /// The membership is not durable yet.
    Joining(Ticket),
    /// Takes part.
    Running(Box<Running>),
}

struct Running {
    manager: RaftManager,
    state: State,
    admission: Admission,
    subscriptions: Subscriptions,
    was_serving: bool, // as leader, after the last turn
    serving_since_us: u64,
    founded: bool, // a genesis was proposed in this time as leader
}

impl Group {
    /// Takes over what is on disk; a directory without identity begins its bootstrap.
    pub fn new(
        config: ShardConfig,
        start: &GroupStart<'_>,
        now: Now,
        first_ticket: Ticket,
        out: &mut Vec<Effect>,
    ) -> Result<Group, StartError> {
        let identity = match &start.identity {
            Some(bytes) => Identity::decode(bytes).map_err(|error| StartError { text: error.to_string() })?,
            None if !start.segments.is_empty() || start.vote.is_some() => {
                let text = "the data directory has a log but no identity file; restore the directory as it was, or rejoin this node with an empty one";
                return Err(StartError { text: text.to_owned() });
            }
            None => Identity {
                node: config.address.node,
                cores: config.cores,
                nonce: u128::from(config.entropy[0]) << 64 | u128::from(config.entropy[1]),
                state: IdentityState::Empty,
            },
        };
        if identity.node != config.address.node || identity.cores != config.cores {
            let text = format!(
                "the data directory is of node {} with {} cores, the configuration says node {} with {}",
                identity.node.0, identity.cores, config.address.node.0, config.cores
            );
            return Err(StartError { text });
        }
        for member in config.members.iter().filter(|member| member.node != config.address.node) {
            out.push(Effect::PeerAddress { node: member.node, address: member.peer_address.clone() });
        }
        let phase = match &identity.state {
            IdentityState::Member(membership) => {
                Phase::Running(Box::new(Running::recover(&config, &identity, membership, start)?))
            }
            IdentityState::Empty => {
                out.push(Effect::IdentityWrite { ticket: first_ticket, bytes: identity.encode() });
                Phase::Naming(first_ticket)
            }
        };
        let mut group = Group {
            config,
            identity,
            phase,
            view: Arc::default(),
            reports: BTreeMap::new(),
            heard_us: BTreeMap::new(),
            awake_us: now.mono_us,
            tick_us: now.mono_us,
            greeting_us: 0,
            expiry_us: now.mono_us + EXPIRY_US,
        };
        group.on_running(out);
        Ok(group)
    }

    /// A message of another node (or another core of this one) for the group.
    pub fn on_peer(&mut self, cx: &mut Context<'_>, from: Address, link: u64, message: PeerMessage) {
        if from.node != cx.me.node {
            self.heard_us.insert(from.node, cx.now.mono_us);
        }
        match (&mut self.phase, message) {
            (Phase::Running(running), PeerMessage::Raft(message)) => {
                running.manager.on_message(cx.now, from.node, link, message);
            }
            (Phase::Running(running), PeerMessage::Request { origin, request, hops, body }) => {
                running.on_request(cx, Request { origin, request, hops, body });
            }
            (Phase::Running(_), PeerMessage::Bootstrap(peer::Bootstrap::Empty { .. })) => self.tell_minted(cx, from),
            (Phase::Bootstrapping(bootstrap), PeerMessage::Bootstrap(message)) => {
                if let Some(minted) = bootstrap.on_message(from.node, &message) {
                    self.join(cx, minted);
                }
            }
            (_, PeerMessage::Request { origin, request, .. }) => {
                let refusal = proto::error::Refusal::NotReady;
                let body = peer::LeaderAnswer::Refused { refusal, text: "the cluster is being formed".to_owned() };
                cx.send(origin, PeerMessage::Answer { request, body });
            }
            _ => {}
        }
    }

    /// Something was heard of a node by another way than a message for the group.
    pub fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        let Phase::Running(running) = &mut self.phase else { return };
        running.manager.report_unreachable(node);
        if running.manager.state().serving {
            running.admission.mark_down(&running.state, node, cx.now);
        }
    }

    /// A completion that belongs to the log.
    pub fn on_completion(&mut self, cx: &mut Context<'_>, input: Input) {
        match (&mut self.phase, input) {
            (Phase::Naming(waits), Input::IdentityWritten { ticket }) if *waits == ticket => self.start_bootstrap(cx),
            (Phase::Joining(waits), Input::IdentityWritten { ticket }) if *waits == ticket => self.start_running(cx),
            (Phase::Running(running), Input::LogFlushed { ticket }) => running.manager.on_log_flushed(ticket),
            (Phase::Running(running), Input::VoteWritten { ticket }) => running.manager.on_vote_written(ticket),
            (Phase::Running(running), Input::SegmentPrepared { segment, result }) => {
                running.manager.on_segment_prepared(segment, result);
                if result == Err(DiskError::NoSpace) {
                    tracing::error!(
                        "no space for the next log segment: free space on the filesystem of the data directory"
                    );
                }
            }
            (Phase::Running(running), Input::LogRead { ticket, result }) => running.manager.on_log_read(ticket, result),
            (_, other) => panic!("a completion that nobody waits for: {other:?}"),
        }
    }

    /// A note of a core of this node.
    pub fn on_note(&mut self, cx: &mut Context<'_>, from: CoreId, note: CoreNote) {
        match (&mut self.phase, note) {
            (_, CoreNote::Report(report)) => {
                self.reports.insert(from, report);
            }
            (_, CoreNote::StatusAsk { conn, request }) => self.tell_status(cx, from, conn, request),
            (Phase::Running(running), CoreNote::Unclaimed { images }) => {
                let images: Vec<ImageId> =
                    images.into_iter().filter(|&image| running.state.is_finished(image)).collect();
                if !images.is_empty() {
                    cx.tell(from, CoreNote::Finished { images });
                }
            }
            (Phase::Running(running), CoreNote::InboxSubscribe { name, conn }) => {
                running.subscriptions.on_subscribe(&running.state, from, &name, conn, cx.out);
            }
            (Phase::Running(running), CoreNote::InboxPull { conn, after, .. }) => {
                running.subscriptions.on_pull(&running.state, conn, after, cx.out);
            }
            (Phase::Running(running), CoreNote::InboxUnsubscribe { conn }) => {
                running.subscriptions.on_unsubscribe(conn)
            }
            (_, CoreNote::InboxSubscribe { conn, .. }) => {
                let result = Err(proto::error::Refusal::NotReady);
                cx.tell(from, CoreNote::InboxSubscribed { conn, result });
            }
            _ => {}
        }
    }

    /// Time passes.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) {
        if cx.now.mono_us > self.tick_us + 4 * TICK_US {
            self.awake_us = cx.now.mono_us; // This process stood still: what it did not hear meanwhile proves nothing.
        }
        self.tick_us = cx.now.mono_us;
        let is_due = cx.now.mono_us >= self.greeting_us;
        if is_due {
            self.greeting_us = cx.now.mono_us + GREETING_US;
        }
        match &mut self.phase {
            Phase::Bootstrapping(bootstrap) if is_due => {
                let (greeting, others) = bootstrap.greeting();
                for node in others {
                    cx.send(group_of(node), PeerMessage::Bootstrap(greeting.clone()));
                }
            }
            Phase::Running(running) => {
                running.manager.on_tick(cx.now);
                running.watch(cx, &self.heard_us, self.awake_us);
                if is_due {
                    running.ask_to_return(cx, &self.config);
                }
                if cx.now.mono_us >= self.expiry_us {
                    self.expiry_us = cx.now.mono_us + EXPIRY_US;
                    running.expire(cx.now, self.config.session_idle_ms);
                }
            }
            _ => {}
        }
        self.tell_view(cx);
    }

    /// The inputs at hand were given: proposes, lets raft work, applies.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        let Phase::Running(running) = &mut self.phase else { return };
        if running.turn(cx, &self.identity, &self.config) {
            self.tell_view(cx);
        }
    }

    fn start_bootstrap(&mut self, cx: &mut Context<'_>) {
        let me = crate::bootstrap::Founder {
            node: self.identity.node,
            nonce: self.identity.nonce,
            cores: self.identity.cores,
        };
        let bootstrap = Bootstrap::new(me, self.config.members.iter().map(|member| member.node).collect());
        tracing::info!("the data directory is empty: waiting for the other initial members");
        match bootstrap.mint() {
            Some(minted) => self.join(cx, minted), // A cluster of one.
            None => self.phase = Phase::Bootstrapping(bootstrap),
        }
    }

    fn join(&mut self, cx: &mut Context<'_>, minted: Minted) {
        let nodes: Vec<NodeId> = minted.founders.iter().map(|founder| founder.node).collect();
        let members = minted
            .founders
            .iter()
            .map(|founder| MemberIdentity { node: founder.node, nonce: founder.nonce, cores: founder.cores })
            .collect();
        self.identity.state = IdentityState::Member(Membership {
            cluster: minted.cluster,
            incarnation: Incarnation(1),
            members,
            voters: voters_of(&nodes),
        });
        let ticket = cx.tickets.next();
        cx.out.push(Effect::IdentityWrite { ticket, bytes: self.identity.encode() });
        self.phase = Phase::Joining(ticket);
    }

    fn start_running(&mut self, cx: &mut Context<'_>) {
        let IdentityState::Member(membership) = &self.identity.state else { unreachable!("join set it") };
        let start = GroupStart { identity: None, vote: None, segments: Vec::new(), rounds: &[] };
        match Running::recover(&self.config, &self.identity, membership, &start) {
            Ok(running) => self.phase = Phase::Running(Box::new(running)),
            Err(error) => return cx.out.push(Effect::Fatal { text: error.text }),
        }
        tracing::info!(cluster = %membership.cluster, "the cluster is formed");
        self.on_running(cx.out);
    }

    /// Tells the world and the cores what the state recovered says.
    fn on_running(&mut self, out: &mut Vec<Effect>) {
        let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) else {
            return;
        };
        out.push(Effect::ClusterKnown { cluster: membership.cluster, incarnation: membership.incarnation });
        for (index, image, holders) in running.state.live_records() {
            for core in cores_here(holders, self.config.address.node, membership.incarnation) {
                let note = CoreNote::Claim { image, index, receivers: Vec::new() };
                out.push(Effect::Tell { core, note });
            }
        }
        for core in 0..self.config.cores {
            out.push(Effect::Tell { core: CoreId(core), note: CoreNote::ClaimsComplete });
        }
    }

    fn tell_minted(&self, cx: &mut Context<'_>, to: Address) {
        let IdentityState::Member(membership) = &self.identity.state else { return };
        let members = membership.members.iter().map(|member| (member.node, member.nonce, member.cores)).collect();
        let told = peer::Bootstrap::Minted { cluster: membership.cluster, members };
        cx.send(to, PeerMessage::Bootstrap(told));
    }

    /// Tells every core what changed of what it needs to know.
    fn tell_view(&mut self, cx: &mut Context<'_>) {
        let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) else {
            return;
        };
        let standing = running.manager.state();
        let leader = standing.leader.unwrap_or_default();
        let heard_us = self.heard_us.get(&leader).copied().unwrap_or(0);
        let contact = standing.role == consensus::RoleKind::Leader
            || (standing.leader.is_some() && cx.now.mono_us < heard_us + DOWN_US);
        let is_same_ring = self.view.ring.epoch() == running.state.ring().epoch();
        if is_same_ring && (self.view.leader, self.view.contact) == (leader, contact) {
            return;
        }
        self.view = Arc::new(View {
            cluster: running.state.cluster(),
            incarnation: membership.incarnation,
            ring: running.state.ring().clone(),
            copies: running.state.copies(),
            image_bytes_max: running.state.image_bytes_max(),
            leader,
            contact,
        });
        if !is_same_ring {
            for member in self.view.ring.members().iter().filter(|member| member.node != cx.me.node) {
                let (node, address) = (member.node, member.peer_address.clone());
                cx.out.push(Effect::PeerAddress { node, address });
            }
        }
        for core in 0..self.config.cores {
            cx.tell(CoreId(core), CoreNote::View(Arc::clone(&self.view)));
        }
    }

    fn tell_status(&self, cx: &mut Context<'_>, to: CoreId, conn: ConnId, request: RequestId) {
        let mut status = NodeStatus {
            node: self.config.address.node,
            cores: self.reports.values().copied().collect(),
            ..NodeStatus::default()
        };
        if let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) {
            let (standing, log) = (running.manager.state(), running.manager.log_stats());
            let (clients, sessions, undelivered) = running.state.counts();
            status = NodeStatus {
                incarnation: membership.incarnation,
                cluster: membership.cluster,
                role: match standing.role {
                    consensus::RoleKind::Follower => RoleKind::Follower,
                    consensus::RoleKind::Candidate => RoleKind::Candidate,
                    consensus::RoleKind::Leader => RoleKind::Leader,
                },
                term: standing.term,
                leader: standing.leader.unwrap_or_default(),
                last: standing.last,
                committed: standing.committed,
                applied: running.state.applied(),
                ring: running.state.ring().clone(),
                clients,
                sessions,
                undelivered,
                intents: running.admission.intents(),
                log_segments: log.segments,
                log_bytes: log.entry_bytes,
                ..status
            };
        }
        cx.tell(to, CoreNote::StatusTold { conn, request, status: Box::new(status) });
    }
}

impl Running {
    fn recover(
        config: &ShardConfig,
        identity: &Identity,
        membership: &Membership,
        start: &GroupStart<'_>,
    ) -> Result<Running, StartError> {
        let vote = match &start.vote {
            Some([one, other]) => Vote::choose([one, other]).map_err(|error| StartError { text: error.to_string() })?,
            None => None,
        };
        let vote = vote.unwrap_or(Vote { node: identity.node, cluster: membership.cluster, ..Vote::default() });
        let mut state = State::default();
        let mut bad = None;
        let input = RecoverInput {
            segments: &start.segments,
            rounds: start.rounds,
            vote_term: vote.term,
            config: LogConfig {
                segment_bytes: config.segment_bytes,
                store: StoreId { cluster: membership.cluster, nonce: identity.nonce },
            },
        };
        let log = Log::recover(input, |index, _term, payload| {
            if let Err(error) = apply(&mut state, index, payload) {
                bad.get_or_insert(error);
            }
        })
        .map_err(|error| StartError { text: error.to_string() })?;
        if let Some(error) = bad {
            return Err(error);
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
        };
        let applied = state.applied();
        Ok(Running {
            manager: RaftManager::new(manager_config, log, vote, applied),
            state,
            admission: Admission::default(),
            subscriptions: Subscriptions::default(),
            was_serving: false,
            serving_since_us: 0,
            founded: false,
        })
    }

    fn on_request(&mut self, cx: &mut Context<'_>, request: Request) {
        let (admission, state) = (&mut self.admission, &self.state);
        let mut desk = LeaderDesk { admission, state, now: cx.now, out: cx.out };
        self.manager.on_request(cx.now, request, &mut desk);
    }

    /// Returns whether the view may have changed.
    fn turn(&mut self, cx: &mut Context<'_>, identity: &Identity, config: &ShardConfig) -> bool {
        let before = self.manager.state();
        if before.serving && !self.founded && self.state.ring().members().is_empty() {
            self.founded = true;
            self.admission.propose(None, genesis(identity, config));
        }
        let mut changed = false;
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
                changed |= self.apply_entry(cx, identity, entry.index, entry.term, entry.data());
            }
            self.manager.set_applied(self.state.applied());
        }
        let after = self.manager.state();
        if self.was_serving && !after.serving {
            self.admission.clear();
            self.founded = false;
        }
        if after.serving && !self.was_serving {
            self.serving_since_us = cx.now.mono_us;
        }
        self.was_serving = after.serving;
        changed || before.leader != after.leader || before.role != after.role
    }

    fn propose(&mut self, cx: &mut Context<'_>) {
        let time_ms = cx.now.wall_ms;
        let manager = &mut self.manager;
        let is_full = manager.is_full();
        self.admission.turn(cx.out, is_full, |bodies| {
            let batch = bodies.into_iter().map(|body| encode_record(&Record { time_ms, body })).collect();
            manager.propose(batch).map(|proposed| (proposed.term, proposed.first))
        });
    }

    fn apply_entry(
        &mut self,
        cx: &mut Context<'_>,
        identity: &Identity,
        index: LogIndex,
        term: proto::ids::Term,
        data: &[u8],
    ) -> bool {
        let outcome = match apply(&mut self.state, index, data) {
            Ok(Some((outcome, record))) => {
                if let RecordBody::Ready(ready) = &record.body {
                    self.admission.on_ready(ready.image);
                    if let Outcome::Ready(Ok(outcome)) = &outcome
                        && !outcome.fresh.is_empty()
                    {
                        for core in cores_here(&ready.holders, identity.node, identity.incarnation()) {
                            let receivers = self.state.names_of(&outcome.fresh);
                            cx.tell(core, CoreNote::Claim { image: ready.image, index, receivers });
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
        if let Outcome::Acked(_, freed) = &outcome {
            for freed in freed {
                for core in cores_here(&freed.holders, identity.node, identity.incarnation()) {
                    cx.tell(core, CoreNote::Free { image: freed.image, index: freed.index });
                }
            }
        }
        self.admission.on_applied(cx.out, index, term, &outcome);
        matches!(outcome, Outcome::Founded | Outcome::RingChanged)
    }

    /// As leader: marks silent nodes down.
    fn watch(&mut self, cx: &mut Context<'_>, heard_us: &BTreeMap<NodeId, u64>, awake_us: u64) {
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
    fn ask_to_return(&mut self, cx: &mut Context<'_>, config: &ShardConfig) {
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
            incarnation: known.incarnation,
            cores: config.cores,
            client_address,
            peer_address,
            applied: self.state.applied(),
        };
        cx.requests.ask(cx.me, cx.now, Purpose::Return, body, cx.out);
    }

    /// As leader: ends sessions that nobody used for long.
    fn expire(&mut self, now: Now, idle_ms: u64) {
        let (log_time_ms, oldest) = self.state.session_ages();
        let idle_since_ms = log_time_ms.max(now.wall_ms).saturating_sub(idle_ms);
        if self.manager.state().serving && oldest.is_some_and(|used_ms| used_ms < idle_since_ms) {
            self.admission.propose(None, RecordBody::ExpireSessions { idle_since_ms });
        }
    }
}

/// Applies one entry; `None` for one without a record.
fn apply(state: &mut State, index: LogIndex, data: &[u8]) -> Result<Option<(Outcome, Record)>, StartError> {
    if data.is_empty() {
        state.apply_empty(index);
        return Ok(None);
    }
    let record = decode_record(data).map_err(|error| StartError {
        text: format!(
            "the committed entry {index} is no record this program knows ({error}); use the program that wrote it"
        ),
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

/// The cores of this node, in its present life, among the holders.
fn cores_here(holders: &[Holder], node: NodeId, incarnation: Incarnation) -> impl Iterator<Item = CoreId> {
    holders
        .iter()
        .filter(move |holder| holder.address.node == node && holder.incarnation == incarnation)
        .map(|holder| holder.address.core)
}

fn group_of(node: NodeId) -> Address {
    Address { node, core: CoreId(0) }
}
