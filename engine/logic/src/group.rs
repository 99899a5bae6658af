//! The consensus group's part of core 0: bootstrap, the replicated state, who is up, and what the other cores are told.
//!
//! ```text
//! empty directory -> Bootstrapping -> identity durable -> Running
//!                 -> Rejoining -> vote durable -> identity durable -> Running, healing
//! Running:  requests -> role (follower forwards, candidate holds, leader admits) -> records -> raft
//!           committed entries -> state -> claims, inbox entries, view to the cores; answers to whoever asked (leader)
//! ```

mod catch_up;
mod incoming;
mod rejoin;
mod running;
mod scrub;
mod snapshots;
mod status;
mod unknown;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::client::CoreStatus;
use proto::ids::{Address, CoreId, Holder, ImageId, Incarnation, LogIndex, NodeId, Term};
use proto::limits::SECTOR_BYTES;
use proto::peer::{self, LeaderAnswer, PeerMessage};

use self::rejoin::{Question, Rejoining};
use self::running::Running;
use self::status::StatusAsked;
use self::unknown::Subscriber;
use self::view::STRANGER;
use crate::bootstrap::{Bootstrap, Minted, voters_of};
use crate::consensus::{self, Request};
use crate::context::Context;
use crate::identity::{Identity, IdentityError, IdentityState, MemberIdentity, Membership};
use crate::io::{CoreNote, DiskError, Effect, Input, Now, Ticket};
use crate::limits::{CLAIMS_MAX, EXPIRY_US, GREETING_US, TICK_US};
use crate::log::SnapshotMark;
use crate::mutant::Mutant;
use crate::outlook::{Forecast, Outlook};
use crate::shard::{GroupStart, Load, ShardConfig, StartError};
use crate::view::View;
use crate::vote::Vote;

/// What to do about a directory that is not what it was. For texts.
const FOR_GOOD: &str =
    "restore the directory as it was. If that cannot be, start the node with --rejoin: then it is taken in again";

type VoteSector = Box<[u8; SECTOR_BYTES]>;

/// Core 0's part.
pub(crate) struct Group {
    config: ShardConfig,
    identity: Identity,
    phase: Phase,
    view: Arc<View>, // as last told to the cores
    reports: BTreeMap<CoreId, CoreStatus>,
    status_asked: Vec<StatusAsked>,      // answered when every core has reported
    heard_us: BTreeMap<NodeId, u64>,     // when a node last sent anything but a greeting to this core
    awake_us: u64,                       // since when this core has been running without a gap
    tick_us: u64,                        // the last tick
    greeting_us: u64,                    // when the next greeting, or request to return, is due
    expiry_us: u64,                      // when the next look for ended sessions is due
    are_options_told: bool,              // those that the cluster has otherwise
    is_replaced_told: bool,              // that its directory must not be used any more
    vote_found: Option<[VoteSector; 2]>, // at start
    mutant: Mutant,
}

enum Phase {
    /// The nonce is not durable yet.
    Naming(Ticket),
    /// Waits for all initial members.
    Bootstrapping(Bootstrap),
    /// Asks to be taken in again.
    Rejoining(Rejoining),
    /// It was, and its vote is not durable yet.
    Voting(Ticket, Box<(Membership, VoteSector)>),
    /// The membership is not durable yet. With the vote to begin with, if there is one.
    Joining(Ticket, Option<VoteSector>),
    /// Takes part.
    Running(Box<Running>),
}

impl Group {
    /// Takes over what is on disk; a directory without identity begins its bootstrap.
    pub fn new(
        config: ShardConfig,
        start: &GroupStart<'_>,
        now: Now,
        first_ticket: Ticket,
        out: &mut Vec<Effect>,
        mutant: Mutant,
    ) -> Result<Group, StartError> {
        let identity = match &start.identity {
            Some(bytes) => Identity::decode(bytes).map_err(|error| match error {
                IdentityError::Version { .. } => StartError::new(error),
                _ => StartError::amnesia(error),
            })?,
            None if !start.segments.is_empty() || start.vote.is_some() => {
                let text = format!("the data directory has a log but no identity file; {FOR_GOOD}");
                return Err(StartError::amnesia(text));
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
            return Err(StartError::new(text));
        }
        // The ring of identifiers is made before a process writes its identity. Alone it is no loss: then the log heals.
        let is_emptied = start.rounds.is_empty() && start.segments.is_empty();
        if start.identity.is_some() && is_emptied && !mutant.is(Mutant::EmptiedVotes) {
            let text = "the data directory has an identity but nothing in log: is the log's filesystem mounted? With an empty \
                log the node could undo what it acknowledged";
            return Err(StartError::amnesia(format!("{text}; {FOR_GOOD}")));
        }
        for member in config.members.iter().filter(|member| member.node != config.address.node) {
            out.push(Effect::PeerAddress { node: member.node, address: member.peer_address.clone() });
        }
        let phase = match &identity.state {
            IdentityState::Member(membership) => {
                Phase::Running(Box::new(Running::recover(&config, &identity, membership, start, mutant)?))
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
            status_asked: Vec::new(),
            heard_us: BTreeMap::new(),
            awake_us: now.mono_us,
            tick_us: now.mono_us,
            greeting_us: 0,
            expiry_us: now.mono_us + EXPIRY_US,
            are_options_told: false,
            is_replaced_told: false,
            vote_found: start.vote.clone(),
            mutant,
        };
        group.on_running(out);
        Ok(group)
    }

    /// Adds what the leader keeps.
    pub fn load(&self, load: Load) -> Load {
        self.running().map_or(load, |running| running.admission.load(load))
    }

    /// What was found at start, and what follows from it. To be asked before anything else happens.
    pub fn forecast(&self) -> Forecast {
        match self.running() {
            Some(running) => {
                let mut unusable_snapshots = running.snapshots.unusable().to_vec();
                unusable_snapshots.sort_unstable();
                Forecast { outlook: running.manager.outlook(), unusable_snapshots }
            }
            None => Forecast { outlook: Outlook::Begins, unusable_snapshots: Vec::new() },
        }
    }

    /// Whether the log is to be mended before anything else.
    pub fn needs_mending(&self) -> bool {
        self.running().is_some_and(|running| running.manager.needs_mending())
    }

    /// How consensus stands, if it runs.
    pub fn standing(&self) -> Option<consensus::Standing> {
        self.running().map(|running| running.manager.state())
    }

    /// Term and payload of an entry that is in memory.
    pub fn entry(&self, index: LogIndex) -> Option<(Term, &[u8])> {
        self.running()?.manager.entry(index)
    }

    /// Messages that raft was not given, if it runs.
    pub fn dropped(&self) -> Option<consensus::Dropped> {
        self.running().map(|running| running.manager.dropped())
    }

    fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// A message of another node (or another core of this one) for the group.
    /// `incarnation`: in which life it was sent.
    pub fn on_peer(
        &mut self,
        cx: &mut Context<'_>,
        (from, incarnation): (Address, Incarnation),
        link: u64,
        message: PeerMessage,
    ) {
        if let Phase::Running(running) = &mut self.phase
            && from.node != cx.me.node
            && !matches!(message, PeerMessage::Bootstrap(_))
            && running.is_of_former_life(from.node, incarnation, &message)
        {
            tracing::debug!(%from, %incarnation, "dropped a message of a former life");
            return self.tell_replaced(cx, from);
        }
        if self.is_replaced_told && matches!(message, PeerMessage::Raft(_)) {
            return; // Meant for the directory that has taken the place of this one.
        }
        // A greeting is no sign of life: a node that lost its directory greets for ever, and must not stay anybody's home.
        if from.node != cx.me.node && !matches!(message, PeerMessage::Bootstrap(_)) {
            self.heard_us.insert(from.node, cx.now.mono_us);
        }
        match (&mut self.phase, message) {
            (Phase::Running(running), PeerMessage::Raft(message)) => {
                running.manager.on_message(cx.now, from.node, link, message);
            }
            (Phase::Running(running), PeerMessage::Request { origin, request, hops, body }) => {
                running.on_request(cx, Request { origin, request, hops, body });
            }
            (Phase::Running(running), PeerMessage::HealAsk { nonce, last }) => {
                if let Some((standing, last_term)) = running.manager.on_heal_ask(from.node, last) {
                    let (term, last, leads) =
                        (standing.term, standing.last, standing.role == consensus::RoleKind::Leader);
                    cx.send(from, PeerMessage::HealAnswer { nonce, term, last_term, last, leads });
                }
            }
            (Phase::Running(running), PeerMessage::HealAnswer { nonce, term, last_term, last, leads }) => {
                running.manager.on_heal_answer(from.node, nonce, term, (last_term, last), leads);
            }
            (Phase::Running(running), PeerMessage::SnapshotOffer { index, term }) => {
                running.on_offer(cx, from, SnapshotMark { index, term });
            }
            (Phase::Running(running), PeerMessage::SnapshotAsk { index, term, offset }) => {
                running.snapshots.on_ask(cx, from, SnapshotMark { index, term }, offset);
            }
            (Phase::Running(running), PeerMessage::SnapshotPart { index, term, offset, data }) => {
                running.on_part(cx, from, (SnapshotMark { index, term }, offset), data);
            }
            (Phase::Running(running), PeerMessage::SnapshotGone { index, term }) => {
                running.on_gone(cx, from, SnapshotMark { index, term });
            }
            (Phase::Running(_), PeerMessage::Bootstrap(peer::Bootstrap::Empty { .. })) => self.tell_minted(cx, from),
            (
                Phase::Running(running),
                PeerMessage::Bootstrap(peer::Bootstrap::Rejoin {
                    node,
                    nonce,
                    replaces,
                    cores,
                    client_address,
                    peer_address,
                }),
            ) if node == from.node => {
                let IdentityState::Member(membership) = &self.identity.state else { return };
                let heard_us = self.heard_us.get(&node).copied().unwrap_or(0).max(self.awake_us);
                let question = Question { node, nonce, replaces, cores, client_address, peer_address };
                running.on_rejoin(cx, from, membership, question, heard_us);
            }
            (Phase::Running(_), PeerMessage::Bootstrap(peer::Bootstrap::Deferred { incarnation, .. })) => {
                self.on_replaced(cx, from.node, incarnation);
            }
            (Phase::Rejoining(rejoining), PeerMessage::Bootstrap(message)) => {
                if let Some((membership, vote)) = rejoining.on_message(cx, from.node, message) {
                    let (ticket, sector) = (cx.tickets.next(), vote.encode());
                    cx.out.push(Effect::VoteWrite { ticket, sector: sector.clone() });
                    self.phase = Phase::Voting(ticket, Box::new((membership, sector)));
                }
            }
            (Phase::Bootstrapping(bootstrap), PeerMessage::Bootstrap(message)) => {
                let minted = bootstrap.on_message(from.node, &message);
                let is_stranger = bootstrap.is_stranger();
                if let Some(minted) = minted {
                    self.view = Arc::default();
                    self.join(cx, minted);
                } else if is_stranger && self.view.shut_out.is_none() {
                    tracing::error!("{STRANGER}");
                    self.shut_out(cx, STRANGER.into());
                }
            }
            (_, PeerMessage::Request { origin, request, .. }) => {
                let refusal = proto::error::Refusal::NotReady;
                let body = LeaderAnswer::Refused { refusal, text: "the cluster is being formed".to_owned() };
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

    /// The leader answers a request of this group's own.
    pub fn on_mark(&mut self, cx: &mut Context<'_>, answer: &LeaderAnswer) {
        if let Phase::Running(running) = &mut self.phase {
            running.on_mark(cx, answer);
        }
    }

    /// A completion that belongs to the log.
    pub fn on_completion(&mut self, cx: &mut Context<'_>, input: Input) {
        match (&mut self.phase, input) {
            (Phase::Naming(waits), Input::IdentityWritten { ticket }) if *waits == ticket => self.start_bootstrap(cx),
            (Phase::Voting(waits, begun), Input::VoteWritten { ticket }) if *waits == ticket => {
                let (membership, sector) = (**begun).clone();
                self.write_membership(cx, membership, Some(sector));
            }
            (Phase::Joining(waits, vote), Input::IdentityWritten { ticket }) if *waits == ticket => {
                let vote = vote.take();
                self.start_running(cx, vote);
            }
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
            (Phase::Running(running), Input::SnapshotWritten { ticket, result }) => {
                running.on_snapshot_written(cx, ticket, result);
            }
            (Phase::Running(running), Input::SnapshotFinished { ticket, result }) => {
                running.on_snapshot_finished(cx, ticket, result);
            }
            (Phase::Running(running), Input::SnapshotRead { ticket, result }) => {
                running.on_snapshot_read(cx, ticket, result);
            }
            (_, other) => panic!("a completion that nobody waits for: {other:?}"),
        }
    }

    /// A note of a core of this node.
    pub fn on_note(&mut self, cx: &mut Context<'_>, from: CoreId, note: CoreNote) {
        match (&mut self.phase, note) {
            (_, CoreNote::Report(report)) => {
                self.reports.insert(from, report);
                self.on_report(cx, from);
            }
            (_, CoreNote::StatusAsk { conn, request }) => {
                let missing: BTreeSet<CoreId> = (0..self.config.cores).map(CoreId).collect();
                for &core in &missing {
                    cx.tell(core, CoreNote::ReportAsk);
                }
                self.status_asked.push(StatusAsked { core: from, conn, request, missing });
            }
            (Phase::Running(running), CoreNote::Unclaimed { images }) => {
                let images: Vec<ImageId> =
                    images.into_iter().filter(|&image| running.state.is_finished(image)).collect();
                if !images.is_empty() {
                    cx.tell(from, CoreNote::Finished { images });
                }
            }
            (Phase::Running(running), CoreNote::HoldersAsk { image, index }) => {
                let holders = running.state.holders_of(index).map(<[Holder]>::to_vec);
                cx.tell(from, CoreNote::Holders { image, index, holders });
            }
            (Phase::Running(running), CoreNote::InboxSubscribe { name, conn }) => {
                running.on_subscribe(cx, Subscriber { core: from, conn, name });
            }
            (Phase::Running(running), CoreNote::InboxPull { conn, after, .. }) => {
                running.subscriptions.on_pull(&running.state, conn, after, cx.out);
            }
            (Phase::Running(running), CoreNote::InboxUnsubscribe { conn }) => {
                running.on_unsubscribe(conn);
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
            Phase::Rejoining(rejoining) if is_due => rejoining.ask(cx, &self.config),
            Phase::Running(running) => {
                running.go_on_scrubbing(cx);
                running.manager.on_tick(cx.now);
                if let Some((nonce, last, others)) = running.manager.heal_ask() {
                    for node in others {
                        cx.send(group_of(node), PeerMessage::HealAsk { nonce, last });
                    }
                }
                running.on_snapshot_tick(cx);
                running.watch(cx, &self.heard_us, self.awake_us);
                running.end_former_lives();
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
        let is_view_new = running.turn(cx, &self.identity, &self.config);
        running.go_on_with_unknown(cx);
        if is_view_new {
            self.tell_view(cx);
        }
    }

    fn start_bootstrap(&mut self, cx: &mut Context<'_>) {
        if self.config.rejoin {
            let vote = self.vote_found.take().and_then(|[one, other]| Vote::choose([&one, &other]).ok().flatten());
            self.phase = Phase::Rejoining(Rejoining::new(self.identity.nonce, vote));
            return;
        }
        let me = crate::bootstrap::Founder {
            node: self.identity.node,
            nonce: self.identity.nonce,
            cores: self.identity.cores,
        };
        let members = self.config.members.iter().map(|member| member.node).collect();
        let bootstrap = Bootstrap::new(me, members, self.mutant);
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
        let voters = voters_of(&nodes);
        let membership = Membership { cluster: minted.cluster, incarnation: Incarnation(1), members, voters };
        self.write_membership(cx, membership, None);
    }

    fn write_membership(&mut self, cx: &mut Context<'_>, membership: Membership, vote: Option<VoteSector>) {
        self.identity.state = IdentityState::Member(membership);
        let ticket = cx.tickets.next();
        cx.out.push(Effect::IdentityWrite { ticket, bytes: self.identity.encode() });
        self.phase = Phase::Joining(ticket, vote);
    }

    fn start_running(&mut self, cx: &mut Context<'_>, vote: Option<VoteSector>) {
        let IdentityState::Member(membership) = &self.identity.state else { unreachable!("its writing set it") };
        let vote = vote.map(|sector| [sector.clone(), sector]);
        let start = GroupStart { identity: None, vote, segments: Vec::new(), rounds: &[], snapshots: Vec::new() };
        match Running::recover(&self.config, &self.identity, membership, &start, self.mutant) {
            Ok(running) => self.phase = Phase::Running(Box::new(running)),
            Err(error) => return cx.out.push(Effect::Fatal { text: error.text }),
        }
        if membership.incarnation == Incarnation(1) {
            tracing::info!(cluster = %membership.cluster, "the cluster is formed");
        }
        self.on_running(cx.out);
    }

    /// Tells the world and the cores what the state recovered says.
    fn on_running(&mut self, out: &mut Vec<Effect>) {
        let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) else {
            return;
        };
        out.push(Effect::ClusterKnown { cluster: membership.cluster, incarnation: membership.incarnation });
        let mut found: BTreeMap<CoreId, Vec<_>> = BTreeMap::new();
        for (index, image, fingerprint, holders) in running.state.live_records() {
            for core in cores_here(holders, self.config.address.node, membership.incarnation) {
                let claims = found.entry(core).or_default();
                claims.push((image, fingerprint, index));
                if claims.len() >= CLAIMS_MAX {
                    out.push(Effect::Tell { core, note: CoreNote::Claims { claims: std::mem::take(claims) } });
                }
            }
        }
        for (core, claims) in found {
            out.push(Effect::Tell { core, note: CoreNote::Claims { claims } });
        }
        for core in 0..self.config.cores {
            out.push(Effect::Tell { core: CoreId(core), note: CoreNote::ClaimsComplete });
        }
    }
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
