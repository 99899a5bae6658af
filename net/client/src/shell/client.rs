//! Questions with one answer, blocking.

use std::time::{Duration, Instant};

use proto::client::{ClientReply, ClientRequest, NodeStatus, Target};
use proto::ids::{ClusterId, InboxId, LogIndex, RequestId};

use crate::error::ClientError;
use crate::request::{Answer, Question, RequestEvent, RequestInput, RequestSession};
use crate::session::{Action, ConnectFailure, Key, LinkInput};
use crate::shell::connection::Connection;
use crate::shell::options::Options;
use crate::shell::wire::{Told, Wire};

/// The state of the node at `address`, asked once: what cannot be had now is an error at once. Connecting, the greeting and
/// the answer may take `timeout` each.
pub fn status_of(address: &str, cluster: ClusterId, timeout: Duration) -> Result<NodeStatus, ClientError> {
    let failed = |text: String| ClientError::Connection { address: address.to_owned(), text };
    let (mut connection, _) =
        Connection::open(address, Target::Any, cluster, timeout).map_err(|failure| match failure {
            ConnectFailure::Unreachable { text } => failed(text),
            ConnectFailure::Refused { refusal, text, .. } => ClientError::Refused { refusal, text },
        })?;
    let asked = ClientRequest::Status { request: RequestId(1) };
    connection.send(&asked, &[]).and_then(|()| connection.flush()).map_err(|error| failed(error.to_string()))?;
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match connection.receive(&mut Vec::new(), Some(left)).map_err(|error| failed(error.to_string()))? {
            Some(ClientReply::Status { status, .. }) => return Ok(*status),
            Some(ClientReply::Failure { refusal, text, .. }) => return Err(ClientError::Refused { refusal, text }),
            Some(_) if Instant::now() < until => {} // The members changed meanwhile.
            Some(_) | None => return Err(failed("connected, but no answer to the question".to_owned())),
        }
    }
}

/// Asks nodes: register, status, probe. Each call repeats its question, at other nodes if need be, until the deadline.
/// To ask one certain node, give only that one, with `Routing::Fixed`.
#[derive(Debug)]
pub struct Client {
    wire: Wire<()>,
    session: RequestSession,
    deadline_seconds: u64,
    key_last: Key,
    actions: Vec<Action<RequestEvent>>,
}

impl Client {
    /// A client of these nodes; connects with the first call.
    pub fn new(options: Options) -> Result<Client, ClientError> {
        let session = RequestSession::new(options.session()?);
        let deadline_seconds = options.deadline_seconds();
        Ok(Client { wire: Wire::new(), session, deadline_seconds, key_last: Key(0), actions: Vec::new() })
    }

    /// Registers a name; a known one keeps its inbox.
    pub fn register(&mut self, name: &str) -> Result<InboxId, ClientError> {
        proto::name::check_name(name).map_err(|reason| ClientError::NameInvalid { name: name.to_owned(), reason })?;
        match self.ask("registering", Question::Register(name.to_owned()))? {
            Answer::Registered(inbox) => Ok(inbox),
            other => unreachable!("the session matches answers to questions, not {other:?}"),
        }
    }

    /// The state of one of the nodes.
    pub fn status(&mut self) -> Result<NodeStatus, ClientError> {
        match self.ask("asking for the status", Question::Status)? {
            Answer::Status(status) => Ok(*status),
            other => unreachable!("the session matches answers to questions, not {other:?}"),
        }
    }

    /// Commits a record that does nothing.
    pub fn probe(&mut self, payload: &[u8]) -> Result<LogIndex, ClientError> {
        match self.ask("committing a probe", Question::Probe(payload.to_vec()))? {
            Answer::Probed(index) => Ok(index),
            other => unreachable!("the session matches answers to questions, not {other:?}"),
        }
    }

    fn ask(&mut self, what: &'static str, question: Question) -> Result<Answer, ClientError> {
        let key = Key(self.key_last.0 + 1);
        self.key_last = key;
        let since = Instant::now();
        // What happened to the connection since the last call comes first: a question must not go to a link that ended.
        while let Some(told) = self.wire.listen_now() {
            self.on_told(told);
        }
        let mut outcome = self.step(what, key, RequestInput::Start);
        if outcome.is_none() {
            outcome = self.step(what, key, RequestInput::Ask { key, question });
        }
        loop {
            if let Some(outcome) = outcome {
                tracing::debug!(what, elapsed_us = since.elapsed().as_micros() as u64, "asked");
                return outcome;
            }
            outcome = match self.wire.listen(self.session.wake_at(), None) {
                None => self.step(what, key, RequestInput::Tick),
                Some(told) => match self.input_of(told) {
                    Some(input) => self.step(what, key, input),
                    None => None,
                },
            };
        }
    }

    fn on_told(&mut self, told: Told<()>) {
        if let Some(input) = self.input_of(told) {
            // Nothing is open, so there is no outcome.
            let _ = self.step("", Key(0), input);
        }
    }

    fn input_of(&mut self, told: Told<()>) -> Option<RequestInput> {
        match told {
            Told::Opened { link, writer, welcome } => {
                self.wire.on_opened(link, writer, welcome).map(RequestInput::Link)
            }
            Told::Frame { link, reply, body, facts } => {
                self.wire.recycle(body);
                Some(RequestInput::Link(LinkInput::Reply { link, reply, body: facts }))
            }
            Told::Link(input) => Some(RequestInput::Link(input)),
            Told::Command(()) => None,
        }
    }

    fn step(&mut self, what: &'static str, key: Key, input: RequestInput) -> Option<Result<Answer, ClientError>> {
        let mut actions = std::mem::take(&mut self.actions);
        self.session.step(self.wire.now_us(), input, &mut actions);
        let (mut outcome, mut failure) = (None, None);
        for action in actions.drain(..) {
            match action {
                Action::Connect { link, address, target, cluster } => self.wire.connect(link, address, target, cluster),
                Action::Close { link } => self.wire.close(link),
                Action::Send { link, request } => self.wire.send(link, &request, &[]),
                Action::Event(RequestEvent::Answered { key: of, answer }) if of == key => outcome = Some(Ok(answer)),
                Action::Event(RequestEvent::Refused { key: of, refusal, text }) if of == key => {
                    outcome = Some(Err(ClientError::Refused { refusal, text }));
                }
                Action::Event(RequestEvent::GaveUp { key: of, troubles }) if of == key => {
                    outcome = Some(Err(ClientError::TimedOut { what, seconds: self.deadline_seconds, troubles }));
                }
                Action::Event(RequestEvent::Failed(reason)) => failure = Some(Err(ClientError::Session(reason))),
                Action::Event(_) => {}
            }
        }
        self.actions = actions;
        self.wire.flush();
        failure.or(outcome)
    }
}
