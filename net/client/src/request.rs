//! The pure session for questions with one answer: register, status, probe.
//!
//! Each question is asked until it is answered, refused for good, or over the deadline; after a refusal that may pass, or
//! a lost link, again: every question may be repeated without harm.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod request_test;

use std::collections::BTreeMap;

use proto::client::{ClientReply, ClientRequest, NodeStatus};
use proto::error::Refusal;
use proto::ids::{InboxId, LogIndex, RequestId};
use proto::limits::PROBE_BYTES_MAX;
use proto::name::check_name;

use crate::limits::{REFUSALS_PER_NODE_MAX, REQUEST_AGAIN_US, REQUESTS_MAX};
use crate::line::{Line, LineEvent};
use crate::session::{Action, Key, LinkId, LinkInput, SessionFailure, SessionOptions, Trouble};
use crate::troubles::Troubles;

/// What is asked. Each may be repeated without harm, and is, until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// An inbox for this name.
    Register(String),
    /// How the node is that the session is connected to.
    Status,
    /// Commits a record that does nothing.
    Probe(Vec<u8>),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Register`.
    Registered(InboxId),
    /// To `Status`.
    Status(Box<NodeStatus>),
    /// To `Probe`.
    Probed(LogIndex),
}

/// What a request session is told.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestInput {
    /// Connect.
    Start,
    /// About the connection.
    Link(LinkInput),
    /// Ask this.
    Ask {
        /// The user's name for it.
        key: Key,
        /// What to ask.
        question: Question,
    },
    /// Time passed; due at `wake_at`.
    Tick,
}

/// What a request session says beside the common actions. Each question ends with one of the first three.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestEvent {
    /// Answered.
    Answered {
        /// Which.
        key: Key,
        /// The answer.
        answer: Answer,
    },
    /// Refused, and waiting does not cure it.
    Refused {
        /// Which.
        key: Key,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// No answer until the deadline.
    GaveUp {
        /// Which.
        key: Key,
        /// What went wrong with whom.
        troubles: Troubles,
    },
    /// The session ended. Every open question was reported before.
    Failed(SessionFailure),
}

/// The pure session for questions with one answer.
#[derive(Debug)]
pub struct RequestSession {
    line: Line,
    deadline_us: Option<u64>,
    phase: Phase,
    open: BTreeMap<RequestId, Open>,
    request_last: RequestId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Failed,
}

/// A question that is not answered.
#[derive(Debug)]
struct Open {
    key: Key,
    question: Question,
    since: u64,
    ask_at: u64,           // when it goes out next
    asked: Option<LinkId>, // out on this link, since then
    refusals: u32,
}

type Actions = Vec<Action<RequestEvent>>;

impl RequestSession {
    /// A session, not yet started.
    pub fn new(options: SessionOptions) -> RequestSession {
        RequestSession {
            line: Line::new(&options, false),
            deadline_us: options.deadline_us,
            phase: Phase::Idle,
            open: BTreeMap::new(),
            request_last: RequestId(0),
        }
    }

    /// One input, any number of actions, appended to `actions` in the order in which they must be carried out.
    pub fn step(&mut self, now_us: u64, input: RequestInput, actions: &mut Vec<Action<RequestEvent>>) {
        match input {
            RequestInput::Start if self.phase == Phase::Idle => self.phase = Phase::Running,
            RequestInput::Start | RequestInput::Tick => {}
            RequestInput::Ask { key, question } => self.on_ask(now_us, key, question, actions),
            RequestInput::Link(input) => {
                let event = self.line.on_input(now_us, input, actions);
                self.on_line(now_us, event, actions);
            }
        }
        if self.phase != Phase::Running {
            return;
        }
        self.give_up(now_us, actions);
        self.ask_again(now_us, actions);
        self.ask(now_us, actions);
        let event = self.line.advance(now_us, None, actions);
        self.on_line(now_us, event, actions);
    }

    /// When `RequestInput::Tick` is due, if at all.
    pub fn wake_at(&self) -> Option<u64> {
        if self.phase != Phase::Running {
            return None;
        }
        let deadline_us = self.deadline_us.unwrap_or(u64::MAX);
        let up = self.line.up().is_some();
        let due = |open: &Open| {
            let next = if open.asked.is_some() { open.ask_at + REQUEST_AGAIN_US } else { open.ask_at };
            // While the line is down nothing goes out: only the deadline counts.
            open.since.saturating_add(deadline_us).min(if up { next } else { u64::MAX })
        };
        Some(self.open.values().map(due).min().unwrap_or(u64::MAX).min(self.line.wake_at()))
    }

    /// What went wrong last with each node.
    pub fn troubles(&self) -> Troubles {
        self.line.troubles()
    }

    fn on_ask(&mut self, now_us: u64, key: Key, question: Question, actions: &mut Actions) {
        let refusal = match (&question, self.phase) {
            (_, Phase::Failed) => Some((Refusal::NotReady, "the session has ended".to_owned())),
            (Question::Register(name), _) => {
                check_name(name).err().map(|error| (Refusal::NameInvalid, error.to_string()))
            }
            (Question::Probe(payload), _) if payload.len() > PROBE_BYTES_MAX => {
                let text = format!("a probe has at most {PROBE_BYTES_MAX} bytes");
                Some((Refusal::BadRequest, text))
            }
            _ if self.open.len() >= REQUESTS_MAX => Some((Refusal::Busy, format!("{REQUESTS_MAX} requests are open"))),
            _ => None,
        };
        if let Some((refusal, text)) = refusal {
            actions.push(Action::Event(RequestEvent::Refused { key, refusal, text }));
            return;
        }
        self.request_last = RequestId(self.request_last.0 + 1);
        let open = Open { key, question, since: now_us, ask_at: now_us, asked: None, refusals: 0 };
        self.open.insert(self.request_last, open);
    }

    fn on_line(&mut self, now_us: u64, event: LineEvent, actions: &mut Actions) {
        match event {
            LineEvent::Nothing => {}
            LineEvent::Up(_) => self.ask(now_us, actions),
            LineEvent::Down => self.on_down(now_us),
            LineEvent::Reply(reply, _) => self.on_reply(now_us, reply, actions),
            LineEvent::Fatal(failure) => self.fail(failure, actions),
        }
    }

    fn on_down(&mut self, now_us: u64) {
        for open in self.open.values_mut().filter(|open| open.asked.is_some()) {
            open.asked = None;
            open.ask_at = now_us;
        }
    }

    fn on_reply(&mut self, now_us: u64, reply: ClientReply, actions: &mut Actions) {
        match reply {
            ClientReply::Registered { request, inbox } => self.on_answer(request, Answer::Registered(inbox), actions),
            ClientReply::Status { request, status } => self.on_answer(request, Answer::Status(status), actions),
            ClientReply::ProbeDone { request, index } => self.on_answer(request, Answer::Probed(index), actions),
            ClientReply::Failure { request, refusal, text, ring } => {
                if let Some(ring) = ring {
                    self.line.take_ring(ring);
                }
                let trouble = self.line.note_refusal(refusal, &text);
                match request {
                    None => self.leave(now_us, actions), // The connection ends.
                    Some(request) => self.on_failure(now_us, request, trouble, actions),
                }
            }
            // Replies to what this session never asks are a node's mistake, and harmless.
            _ => {}
        }
    }

    fn on_answer(&mut self, request: RequestId, answer: Answer, actions: &mut Actions) {
        let fits = |open: &Open| {
            matches!(
                (&open.question, &answer),
                (Question::Register(_), Answer::Registered(_))
                    | (Question::Status, Answer::Status(_))
                    | (Question::Probe(_), Answer::Probed(_))
            )
        };
        if !self.open.get(&request).is_some_and(fits) {
            return;
        }
        let key = self.open.remove(&request).expect("it was there a moment ago").key;
        self.line.on_success();
        actions.push(Action::Event(RequestEvent::Answered { key, answer }));
    }

    fn on_failure(&mut self, now_us: u64, request: RequestId, trouble: Trouble, actions: &mut Actions) {
        let Some(open) = self.open.get_mut(&request) else { return };
        let refusal = trouble.refusal.expect("made from a refusal");
        if !refusal.is_transient() {
            let key = self.open.remove(&request).expect("it was there a moment ago").key;
            actions.push(Action::Event(RequestEvent::Refused { key, refusal, text: trouble.text }));
            return;
        }
        open.refusals = open.refusals.saturating_add(1);
        open.asked = None;
        let refusals = open.refusals;
        open.ask_at = now_us + self.line.wait_us(refusals);
        if refusals.is_multiple_of(REFUSALS_PER_NODE_MAX) && self.line.has_other(now_us) {
            self.leave(now_us, actions);
        }
    }

    fn give_up(&mut self, now_us: u64, actions: &mut Actions) {
        let Some(deadline_us) = self.deadline_us else { return };
        let late = |open: &Open| now_us.saturating_sub(open.since) >= deadline_us;
        let requests: Vec<RequestId> =
            self.open.iter().filter(|(_, open)| late(open)).map(|(request, _)| *request).collect();
        for request in requests {
            let open = self.open.remove(&request).expect("it was found a moment ago");
            let troubles = self.line.troubles();
            actions.push(Action::Event(RequestEvent::GaveUp { key: open.key, troubles }));
        }
    }

    /// A node that leaves a question without answer for too long is left; all go out again at the next one.
    fn ask_again(&mut self, now_us: u64, actions: &mut Actions) {
        let silent = |open: &Open| open.asked.is_some() && now_us.saturating_sub(open.ask_at) >= REQUEST_AGAIN_US;
        if self.line.up().is_some() && self.open.values().any(silent) {
            self.line.note_refusal(Refusal::NotReady, "the node does not answer");
            self.leave(now_us, actions);
        }
    }

    fn ask(&mut self, now_us: u64, actions: &mut Actions) {
        let Some(link) = self.line.up().map(|up| up.link) else { return };
        for (request, open) in &mut self.open {
            if open.asked.is_some() || open.ask_at > now_us {
                continue;
            }
            (open.asked, open.ask_at) = (Some(link), now_us);
            let request = *request;
            let request = match &open.question {
                Question::Register(name) => ClientRequest::Register { request, name: name.clone() },
                Question::Status => ClientRequest::Status { request },
                Question::Probe(payload) => ClientRequest::Probe { request, payload: payload.clone() },
            };
            actions.push(Action::Send { link, request });
        }
    }

    fn leave(&mut self, now_us: u64, actions: &mut Actions) {
        self.line.leave(now_us, actions);
        self.on_down(now_us);
    }

    fn fail(&mut self, failure: SessionFailure, actions: &mut Actions) {
        self.line.stop(actions);
        self.phase = Phase::Failed;
        let troubles = self.line.troubles();
        for open in std::mem::take(&mut self.open).into_values() {
            actions.push(Action::Event(RequestEvent::GaveUp { key: open.key, troubles: troubles.clone() }));
        }
        actions.push(Action::Event(RequestEvent::Failed(failure)));
    }
}
