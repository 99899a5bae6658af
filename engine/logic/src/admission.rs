//! The leader's desk: judges requests, turns them into records, and answers when their record is applied.
//!
//! All records that are due go to raft in one batch a turn. What is kept here is memory only: a new leader starts empty
//! and whoever waits for an answer asks again.

use std::collections::BTreeMap;

use proto::error::Refusal;
use proto::ids::{Address, Fingerprint, Holder, ImageId, InboxId, Incarnation, LogIndex, NodeId, RequestId, Term};
use proto::peer::{Lane, LeaderAnswer, LeaderRequest, Notice, PeerMessage, ReadyReceiver};
use proto::record::{Ready, RecordBody};

use crate::consensus::{Desk, ProposeError, Request};
use crate::io::{Effect, Now};
use crate::limits::{GATHERED_MAX, PENDING_MAX, PENDING_RESERVED, RETURN_LAG_MAX, RING_PATIENCE_US};
use crate::mutant::Mutant;
use crate::shard::Load;
use crate::state::{Outcome, State};

/// What the leader keeps.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    due: Vec<(Waiter, RecordBody)>,        // to be proposed with this turn
    pending: BTreeMap<LogIndex, Waiter>,   // proposed, not yet applied
    gathered: BTreeMap<ImageId, Gathered>, // notices of too few holders
    gathered_order: std::collections::VecDeque<ImageId>,
    intents: BTreeMap<ImageId, u64>,      // admitted, not yet ready; since when
    ring_asked: BTreeMap<NodeId, u64>,    // ring changes proposed, and until when no other is
    lives: BTreeMap<NodeId, Incarnation>, // proposed in this time as leader
    mutant: Mutant,
}

/// Who waits for a record, if anybody.
#[derive(Debug)]
struct Waiter {
    term: Term, // set when proposed
    origin: Option<(Address, RequestId)>,
}

#[derive(Debug)]
struct Gathered {
    fingerprint: Fingerprint,
    holders: Vec<Holder>,
}

/// `Desk` for one request: knows where things are.
pub(crate) struct LeaderDesk<'a> {
    pub admission: &'a mut Admission,
    pub state: &'a State,
    pub now: Now,
    pub out: &'a mut Vec<Effect>,
}

impl Desk for LeaderDesk<'_> {
    fn forward(&mut self, to: NodeId, request: Request) {
        let Request { origin, request, hops, body } = request;
        let to = Address { node: to, core: proto::ids::CoreId(0) };
        let message = PeerMessage::Request { origin, request, hops, body };
        self.out.push(Effect::Send { to, lane: Lane::Control, message, body: None });
    }

    fn refuse(&mut self, request: Request, refusal: Refusal, text: &str) {
        let body = LeaderAnswer::Refused { refusal, text: text.to_owned() };
        answer(self.out, (request.origin, request.request), body);
    }

    fn admit(&mut self, request: Request) {
        let asker = (request.origin, request.request);
        // What makes images ready, frees them or changes the ring keeps its room when everything else is refused.
        let frees = matches!(
            request.body,
            LeaderRequest::Notice(_)
                | LeaderRequest::Ack { .. }
                | LeaderRequest::Return { .. }
                | LeaderRequest::Lost(_)
        );
        let room = if frees { PENDING_MAX } else { PENDING_MAX - PENDING_RESERVED };
        if self.admission.pending.len() + self.admission.due.len() >= room {
            return refuse(self.out, asker, Refusal::Busy, "the leader has too many records under way");
        }
        if self.state.ring().members().is_empty() {
            return refuse(self.out, asker, Refusal::NotReady, "the cluster is being formed");
        }
        match request.body {
            LeaderRequest::Register { name } => match self.state.inbox_of(&name) {
                Some((inbox, _)) => answer(self.out, asker, LeaderAnswer::Registered { inbox }),
                None => self.admission.propose(Some(asker), RecordBody::Register { name }),
            },
            LeaderRequest::OpenSession { sender } => {
                self.admission.propose(Some(asker), RecordBody::OpenSession { sender });
            }
            LeaderRequest::Intent { image, low_water, fingerprint, receivers } => {
                let judged = self.inboxes(&receivers).and_then(|inboxes| {
                    let judged = self.state.judge(image, low_water, fingerprint, &inboxes);
                    judged.map_err(|refusal| (refusal, text_of(refusal, image)))
                });
                match judged {
                    Ok(outcome) => {
                        if !outcome.fresh.is_empty() && self.admission.intents.len() < PENDING_MAX {
                            self.admission.intents.insert(image, self.now.mono_us);
                        }
                        answer(self.out, asker, LeaderAnswer::Admitted { ready: outcome.ready });
                    }
                    Err((refusal, text)) => refuse(self.out, asker, refusal, &text),
                }
            }
            LeaderRequest::Notice(notice) => self.notice(asker, notice),
            LeaderRequest::Ack { upto } => {
                if self.state.acks_are_news(&upto) {
                    self.admission.propose(Some(asker), RecordBody::Acked { upto });
                } else {
                    let upto = self.state.acked(&upto);
                    answer(self.out, asker, LeaderAnswer::Acked { upto });
                }
            }
            LeaderRequest::Probe { payload } => self.admission.propose(Some(asker), RecordBody::Probe { payload }),
            LeaderRequest::Return { node, incarnation, cores, client_address, peer_address, applied } => {
                answer(self.out, asker, LeaderAnswer::Noted);
                let is_level = applied.0 + RETURN_LAG_MAX >= self.state.applied().0;
                let known = self.state.ring().member(node).is_some_and(|member| member.incarnation == incarnation);
                if is_level && known && self.admission.may_change_ring(node, self.now) {
                    let up = true;
                    let change = RecordBody::RingChange {
                        node,
                        incarnation,
                        cores,
                        up,
                        client_address,
                        peer_address,
                        rejoin: None,
                    };
                    self.admission.propose(None, change);
                }
            }
            LeaderRequest::Lost(mut lost) => {
                if lost.holder.address != asker.0 {
                    return refuse(self.out, asker, Refusal::BadRequest, "speaks for another core");
                }
                answer(self.out, asker, LeaderAnswer::Noted);
                let names = |index: &LogIndex| {
                    self.state.holders_of(*index).is_some_and(|holders| holders.contains(&lost.holder))
                };
                lost.records = lost.records.iter().copied().filter(names).collect();
                if !lost.records.is_empty() {
                    self.admission.propose(None, RecordBody::Lost(lost));
                }
            }
            LeaderRequest::Unreachable { node } => {
                answer(self.out, asker, LeaderAnswer::Noted);
                self.admission.mark_down(self.state, node, self.now);
            }
        }
    }
}

impl LeaderDesk<'_> {
    fn notice(&mut self, asker: (Address, RequestId), notice: Notice) {
        let image = notice.image;
        let judged = self.inboxes(&notice.receivers).and_then(|inboxes| {
            match self.state.judge(image, notice.low_water, notice.fingerprint, &inboxes) {
                Ok(outcome) => Ok((inboxes, outcome)),
                Err(refusal) => Err((refusal, text_of(refusal, image))),
            }
        });
        let (inboxes, outcome) = match judged {
            Ok(judged) => judged,
            Err((refusal, text)) => return refuse(self.out, asker, refusal, &text),
        };
        if outcome.fresh.is_empty() {
            return answer(self.out, asker, LeaderAnswer::Ready { ready: outcome.ready });
        }
        let holders = self.admission.gather(self.state, &notice);
        let spared = usize::from(self.admission.mutant.is(Mutant::CopyTooFew));
        if holders.len() + spared < usize::from(self.state.copies()) {
            return answer(self.out, asker, LeaderAnswer::TooFewHolders);
        }
        if self.admission.mutant.is(Mutant::AcceptBeforeCommit) {
            let index = self.admission.next_index(self.state);
            let receiver = |name: &String| ReadyReceiver { name: name.clone(), index, holders: holders.clone() };
            answer(self.out, asker, LeaderAnswer::Ready { ready: notice.receivers.iter().map(receiver).collect() });
        }
        let ready = Ready {
            image,
            low_water: notice.low_water,
            fingerprint: notice.fingerprint,
            name: notice.name,
            receivers: inboxes,
            holders,
        };
        self.admission.propose(Some(asker), RecordBody::Ready(ready));
    }

    fn inboxes(&self, names: &[String]) -> Result<Vec<InboxId>, (Refusal, String)> {
        self.state.inboxes_of(names).map_err(|name| {
            (Refusal::UnknownReceiver, format!("receiver '{name}' is not registered; register it first"))
        })
    }
}

impl Admission {
    /// An empty desk.
    pub fn new(mutant: Mutant) -> Admission {
        Admission { mutant, ..Admission::default() }
    }

    /// Puts a record in this turn's batch.
    pub fn propose(&mut self, asker: Option<(Address, RequestId)>, body: RecordBody) {
        self.due.push((Waiter { term: Term(0), origin: asker }, body));
    }

    /// Proposes that the ring pass a node over.
    pub fn mark_down(&mut self, state: &State, node: NodeId, now: Now) {
        let Some(member) = state.ring().member(node) else { return };
        if !member.up || !self.may_change_ring(node, now) {
            return;
        }
        tracing::info!(%node, "a node is silent: the ring passes it over");
        let change = RecordBody::RingChange {
            node,
            incarnation: member.incarnation,
            cores: member.cores,
            up: false,
            client_address: String::new(),
            peer_address: String::new(),
            rejoin: None,
        };
        self.propose(None, change);
    }

    /// Where the next record would go.
    fn next_index(&self, state: &State) -> LogIndex {
        let last = self.pending.last_key_value().map_or(state.applied(), |(&index, _)| index);
        LogIndex(last.0 + 1 + self.due.len() as u64)
    }

    /// Whether something waits for `turn`.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes the batch of this turn and gives it to `propose`, which says where in the log it went.
    pub fn turn(
        &mut self,
        out: &mut Vec<Effect>,
        log_is_full: bool,
        propose: impl FnOnce(Vec<RecordBody>) -> Result<(Term, LogIndex), ProposeError>,
    ) {
        if self.due.is_empty() {
            return;
        }
        let (waiters, bodies): (Vec<Waiter>, Vec<RecordBody>) = std::mem::take(&mut self.due).into_iter().unzip();
        match propose(bodies) {
            Ok((term, first)) => {
                for (position, waiter) in waiters.into_iter().enumerate() {
                    self.pending.insert(LogIndex(first.0 + position as u64), Waiter { term, ..waiter });
                }
            }
            Err(error) => {
                let (refusal, text) = match error {
                    ProposeError::NotLeader => (Refusal::NoLeader, "the leader changed; try again"),
                    ProposeError::Busy if log_is_full => {
                        (Refusal::NoSpace, "no space for the log of the leader: free space on its disk")
                    }
                    ProposeError::Busy => (Refusal::Busy, "the log has too much under way; try again"),
                };
                for asker in waiters.into_iter().filter_map(|waiter| waiter.origin) {
                    refuse(out, asker, refusal, text);
                }
            }
        }
    }

    /// The entry at `index` was applied: answers whoever asked for it.
    pub fn on_applied(&mut self, out: &mut Vec<Effect>, index: LogIndex, term: Term, outcome: &Outcome) {
        let Some(waiter) = self.pending.remove(&index) else { return };
        let Some(asker) = waiter.origin else { return };
        if waiter.term != term && !self.mutant.is(Mutant::AnswerByIndex) {
            return refuse(out, asker, Refusal::NoLeader, "the leader changed; try again");
        }
        let body = match outcome {
            Outcome::Registered(inbox) => LeaderAnswer::Registered { inbox: *inbox },
            Outcome::SessionOpened(session) => LeaderAnswer::SessionOpened { session: LogIndex(session.0) },
            Outcome::Ready(Ok(ready)) => LeaderAnswer::Ready { ready: ready.ready.clone() },
            Outcome::Ready(Err(refusal)) => {
                LeaderAnswer::Refused { refusal: *refusal, text: format!("refused when applied: {refusal:?}") }
            }
            Outcome::Acked(upto, _) => LeaderAnswer::Acked { upto: upto.clone() },
            Outcome::Nothing => LeaderAnswer::Probed { index },
            Outcome::Founded | Outcome::RingChanged | Outcome::Lost(..) => LeaderAnswer::Noted,
        };
        answer(out, asker, body);
    }

    /// An image became ready: nothing of it is kept any more.
    pub fn on_ready(&mut self, image: ImageId) {
        self.intents.remove(&image);
        self.gathered.remove(&image);
    }

    /// This node does not lead any more.
    pub fn clear(&mut self) {
        *self = Admission::new(self.mutant);
    }

    /// Intents held.
    pub fn intents(&self) -> u64 {
        self.intents.len() as u64
    }

    /// Adds what is kept here.
    pub fn load(&self, load: Load) -> Load {
        Load {
            pending: (self.pending.len() + self.due.len()) as u64,
            intents: self.intents(),
            gathered: self.gathered.len() as u64,
            ..load
        }
    }

    /// Forgets intents that came to nothing.
    pub fn expire_intents(&mut self, before_us: u64) {
        self.intents.retain(|_, since_us| *since_us >= before_us);
    }

    /// The holders known for an image, this notice's included: one a node, of its present life.
    fn gather(&mut self, state: &State, notice: &Notice) -> Vec<Holder> {
        let is_member = |holder: &Holder| {
            let (node, life) = (holder.address.node, holder.incarnation);
            state.ring().member(node).is_some_and(|member| member.incarnation == life) && life >= self.life_of(node)
        };
        let mut holders: Vec<Holder> = Vec::new();
        let is_same =
            |known: &&Gathered| known.fingerprint == notice.fingerprint || self.mutant.is(Mutant::GatherDifferentBytes);
        let known = self.gathered.get(&notice.image).filter(is_same);
        for holder in notice.holders.iter().chain(known.into_iter().flat_map(|known| &known.holders)) {
            if is_member(holder) && !holders.iter().any(|other| other.address.node == holder.address.node) {
                holders.push(*holder);
            }
        }
        if holders.len() < usize::from(state.copies()) {
            let gathered = Gathered { fingerprint: notice.fingerprint, holders: holders.clone() };
            if self.gathered.insert(notice.image, gathered).is_none() {
                self.gathered_order.push_back(notice.image);
            }
            while self.gathered_order.len() > GATHERED_MAX {
                if let Some(oldest) = self.gathered_order.pop_front() {
                    self.gathered.remove(&oldest);
                }
            }
        }
        holders
    }

    /// A new life of that node is proposed: nothing is admitted behind it that speaks of an older one.
    pub fn begin_life(&mut self, node: NodeId, incarnation: Incarnation) {
        self.lives.insert(node, incarnation);
    }

    /// The life of that node that was proposed in this time as leader; 0 if none.
    pub fn life_of(&self, node: NodeId) -> Incarnation {
        self.lives.get(&node).copied().unwrap_or_default()
    }

    /// Whether a change of the ring may be proposed for that node; then no other is for a while.
    pub fn may_change_ring(&mut self, node: NodeId, now: Now) -> bool {
        if self.ring_asked.get(&node).is_some_and(|&until_us| now.mono_us < until_us) {
            return false;
        }
        self.ring_asked.insert(node, now.mono_us + RING_PATIENCE_US);
        true
    }
}

fn answer(out: &mut Vec<Effect>, (to, request): (Address, RequestId), body: LeaderAnswer) {
    out.push(Effect::Send { to, lane: Lane::Control, message: PeerMessage::Answer { request, body }, body: None });
}

fn refuse(out: &mut Vec<Effect>, asker: (Address, RequestId), refusal: Refusal, text: &str) {
    answer(out, asker, LeaderAnswer::Refused { refusal, text: text.to_owned() });
}

fn text_of(refusal: Refusal, image: ImageId) -> String {
    match refusal {
        Refusal::SessionUnknown => format!(
            "the session of image {image} is not known (any more): whether it was accepted cannot be told; send it in a new session"
        ),
        Refusal::AlreadyFinished => {
            format!("image {image} is below its session's low-water mark: the sender had declared it finished")
        }
        Refusal::OutOfWindow => format!("image {image} is too far ahead of its session's oldest unfinished image"),
        Refusal::DifferentBytes => format!("image {image} is known with other bytes; use a new image id"),
        Refusal::UnknownReceiver => format!("a receiver of image {image} is not registered"),
        Refusal::Damaged => format!(
            "image {image} was accepted, but no node has its bytes any more; send it again under a new image id"
        ),
        Refusal::ImageTooLarge => format!("image {image} is larger than this cluster takes (image_bytes_max)"),
        other => format!("image {image} was refused: {other:?}"),
    }
}
