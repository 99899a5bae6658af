//! The one connection of a session: which node, when, and whether it still lives.
//!
//! ```text
//!          advance, due             Connected
//!   Down ---------------> Dialing ------------> Up
//!    ^  wait until              |                |
//!    +--------------------------+----------------+   failed, closed, silent, given up
//! ```
//!
//! Invariants: at most one link is open; its number is larger than all before; the ring's epoch never falls; once a
//! cluster answered, no other one is talked to.

use std::collections::BTreeMap;

use proto::client::{ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{ClusterId, CoreId, NodeId};
use proto::ring::{Member, Ring, core_of};

use crate::backoff::Backoff;
use crate::limits::{
    BACKOFF_FIRST_US, CONNECT_US_MAX, HOME_AGAIN_US, HOME_FAILURES_MAX, PING_AFTER_US, SILENCE_MAX_US,
};
use crate::session::{
    Action, BodyFacts, ConnectFailure, LinkId, LinkInput, Routing, SessionFailure, SessionOptions, Trouble, Welcome,
};
use crate::troubles::Troubles;

/// What an input about the connection means to its session.
#[derive(Debug)]
pub(crate) enum LineEvent {
    /// Nothing.
    Nothing,
    /// The line is up.
    Up(Box<Welcome>),
    /// The line was up and is no more.
    Down,
    /// A reply on the line that is not about the line itself.
    Reply(ClientReply, Option<BodyFacts>),
    /// No node can be talked to.
    Fatal(SessionFailure),
}

#[derive(Debug)]
enum State {
    Down { retry_at: u64 },
    Dialing { link: LinkId, address: String, target: Target, since: u64 },
    Up(Up),
}

/// A line that is up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) link: LinkId,
    pub(crate) address: String,
    pub(crate) node: NodeId,
    pub(crate) core: CoreId,
    target: Target,
    heard_at: u64,
    asked_at: Option<u64>, // >= heard_at
}

/// What is known of an address that failed.
#[derive(Clone, Copy, Debug)]
struct Spot {
    failures: u32,
    avoid_until: u64,
}

#[derive(Debug)]
pub(crate) struct Line {
    nodes: Vec<String>,
    routing: Routing,
    needs_home: bool, // only the home serves this session
    cluster: ClusterId,
    answered: bool, // a node of `cluster` did answer
    ring: Ring,
    state: State,
    link_last: u64,
    spots: BTreeMap<String, Spot>, // at most one for each given node and member
    cursor: Option<String>,        // where the search for the next address begins
    backoff: Backoff,
    troubles: Troubles,
}

impl Line {
    pub(crate) fn new(options: &SessionOptions, needs_home: bool) -> Line {
        Line {
            nodes: options.nodes.clone(),
            routing: options.routing,
            needs_home,
            cluster: options.cluster,
            answered: false,
            ring: Ring::default(),
            state: State::Down { retry_at: 0 },
            link_last: 0,
            spots: BTreeMap::new(),
            cursor: None,
            backoff: Backoff::new(options.seed),
            troubles: Troubles::default(),
        }
    }

    pub(crate) fn up(&self) -> Option<&Up> {
        match &self.state {
            State::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What went wrong last with each address.
    pub(crate) fn troubles(&self) -> Troubles {
        self.troubles.clone().judge(&self.ring)
    }

    /// A wait after `failures` failures in a row, for the session's own retries.
    pub(crate) fn wait_us(&mut self, failures: u32) -> u64 {
        self.backoff.wait_us(failures)
    }

    /// Takes over a ring unless it is older than the known one.
    pub(crate) fn take_ring(&mut self, ring: Ring) {
        if ring.epoch() >= self.ring.epoch() {
            self.ring = ring;
        }
    }

    /// Notes what a node of the present link said.
    pub(crate) fn note_refusal(&mut self, refusal: Refusal, text: &str) -> Trouble {
        let address = match &self.state {
            State::Down { .. } => String::new(),
            State::Dialing { address, .. } => address.clone(),
            State::Up(up) => up.address.clone(),
        };
        let trouble = Trouble { address, refusal: Some(refusal), text: text.to_owned() };
        self.troubles.note(trouble.clone());
        trouble
    }

    /// The node did what was asked: whatever failed there before is forgiven.
    pub(crate) fn on_success(&mut self) {
        if let State::Up(up) = &self.state {
            self.spots.remove(&up.address);
            self.troubles.forget(&up.address);
        }
    }

    /// Digests an input; those of other links than the present one mean nothing.
    pub(crate) fn on_input<E>(&mut self, now_us: u64, input: LinkInput, actions: &mut Vec<Action<E>>) -> LineEvent {
        match input {
            LinkInput::Connected { link, welcome } => self.on_connected(now_us, link, welcome, actions),
            LinkInput::ConnectFailed { link, failure } => self.on_connect_failed(now_us, link, failure),
            LinkInput::Disconnected { link, text } => match &self.state {
                State::Up(up) if up.link == link => {
                    self.troubles.note(Trouble { address: up.address.clone(), refusal: None, text });
                    self.fall(now_us);
                    LineEvent::Down
                }
                _ => LineEvent::Nothing,
            },
            LinkInput::Reply { link, reply, body } => match &mut self.state {
                State::Up(up) if up.link == link => {
                    up.heard_at = now_us;
                    up.asked_at = None;
                    self.on_reply(now_us, reply, body, actions)
                }
                _ => LineEvent::Nothing,
            },
        }
    }

    /// Closes the link, because its node does not serve us well: others are preferred for a while.
    pub(crate) fn leave<E>(&mut self, now_us: u64, actions: &mut Vec<Action<E>>) {
        self.close(actions);
        self.fall(now_us);
    }

    /// Closes the link to go on elsewhere at once; the node did nothing wrong.
    pub(crate) fn move_on<E>(&mut self, now_us: u64, actions: &mut Vec<Action<E>>) {
        if let Some(address) = self.address() {
            let all = self.candidates();
            let at = all.iter().position(|other| *other == address);
            self.cursor = at.map(|at| all[(at + 1) % all.len()].clone());
        }
        self.close(actions);
        self.state = State::Down { retry_at: now_us };
    }

    /// Closes the link and looks around again after a while; the node did nothing wrong.
    pub(crate) fn pause<E>(&mut self, now_us: u64, wait_us: u64, actions: &mut Vec<Action<E>>) {
        self.move_on(now_us, actions);
        self.state = State::Down { retry_at: now_us + wait_us };
    }

    /// Ends the line for good.
    pub(crate) fn stop<E>(&mut self, actions: &mut Vec<Action<E>>) {
        self.close(actions);
        self.state = State::Down { retry_at: u64::MAX };
    }

    /// Does what is due: connects (to the home of `client`, if one is given and can be reached), asks a quiet node for a
    /// sign of life, gives up a silent one (then the line was up and is no more).
    pub(crate) fn advance<E>(&mut self, now_us: u64, client: Option<&str>, actions: &mut Vec<Action<E>>) -> LineEvent {
        match &mut self.state {
            State::Down { retry_at } if *retry_at > now_us => LineEvent::Nothing,
            State::Down { .. } => {
                self.dial(now_us, client, actions);
                LineEvent::Nothing
            }
            State::Dialing { since, .. } if now_us.saturating_sub(*since) < dial_us_max() => LineEvent::Nothing,
            State::Dialing { .. } => {
                self.note("no answer to the connection");
                self.leave(now_us, actions);
                LineEvent::Nothing
            }
            State::Up(up) => match up.asked_at {
                None if now_us.saturating_sub(up.heard_at) >= PING_AFTER_US => {
                    up.asked_at = Some(now_us);
                    actions.push(Action::Send { link: up.link, request: ClientRequest::Ping });
                    LineEvent::Nothing
                }
                Some(asked_at) if now_us.saturating_sub(asked_at) >= SILENCE_MAX_US => {
                    self.note("the node gives no sign of life");
                    self.leave(now_us, actions);
                    LineEvent::Down
                }
                _ => LineEvent::Nothing,
            },
        }
    }

    /// When `advance` has something to do.
    pub(crate) fn wake_at(&self) -> u64 {
        match &self.state {
            State::Down { retry_at } => *retry_at,
            State::Dialing { since, .. } => since.saturating_add(dial_us_max()),
            State::Up(Up { asked_at: Some(asked_at), .. }) => asked_at.saturating_add(SILENCE_MAX_US),
            State::Up(up) => up.heard_at.saturating_add(PING_AFTER_US),
        }
    }

    /// Whether another node than the present one is known and not failing.
    pub(crate) fn has_other(&self, now_us: u64) -> bool {
        let here = self.address();
        self.candidates().into_iter().any(|other| Some(&other) != here.as_ref() && !self.is_avoided(now_us, &other))
    }

    /// Whether the line is up, but not to the home node and core of `client`, which can be reached as far as known.
    pub(crate) fn is_astray(&self, now_us: u64, client: &str) -> bool {
        let (Some(up), Some(home)) = (self.up(), self.home(now_us, client)) else { return false };
        if up.node != home.node {
            // The address may lead to another node than the ring says: do not try the same again.
            return up.address != home.client_address;
        }
        // A node that was asked for this client's core and chose another one knows better.
        up.core != core_of(client, home.cores) && up.target != Target::Client(client.to_owned())
    }

    /// Whether the line is up to the node and core that are the home of `client` by the newest ring.
    pub(crate) fn is_at_home(&self, client: &str) -> bool {
        let (Some(up), Some(home)) = (self.up(), self.ring.home(client)) else { return false };
        (up.node, up.core) == (home.node, core_of(client, home.cores))
    }

    fn on_connected<E>(
        &mut self,
        now_us: u64,
        link: LinkId,
        welcome: Box<Welcome>,
        actions: &mut Vec<Action<E>>,
    ) -> LineEvent {
        let State::Dialing { link: dialled, address, target, .. } = &self.state else { return LineEvent::Nothing };
        if *dialled != link {
            return LineEvent::Nothing;
        }
        let (address, target) = (address.clone(), target.clone());
        if self.cluster != ClusterId::UNKNOWN && welcome.cluster != self.cluster {
            let text = format!("belongs to cluster {}, expected {}", welcome.cluster, self.cluster);
            self.close(actions);
            return self.on_wrong_node(now_us, address, Refusal::WrongCluster, text);
        }
        self.cluster = welcome.cluster;
        self.answered = true;
        self.cursor = Some(address.clone());
        self.troubles.on_reached(&address);
        self.take_ring(welcome.ring.clone());
        let (node, core) = (welcome.node, welcome.core);
        self.state = State::Up(Up { link, address, node, core, target, heard_at: now_us, asked_at: None });
        LineEvent::Up(welcome)
    }

    fn on_connect_failed(&mut self, now_us: u64, link: LinkId, failure: ConnectFailure) -> LineEvent {
        let State::Dialing { link: dialled, address, .. } = &self.state else { return LineEvent::Nothing };
        if *dialled != link {
            return LineEvent::Nothing;
        }
        let address = address.clone();
        match failure {
            ConnectFailure::Unreachable { text } => {
                self.troubles.note(Trouble { address, refusal: None, text });
                self.fall(now_us);
                LineEvent::Nothing
            }
            ConnectFailure::Refused { refusal, text, ring } => {
                if let Some(ring) = ring.filter(|_| refusal != Refusal::WrongCluster) {
                    self.take_ring(ring);
                }
                self.on_wrong_node(now_us, address, refusal, text)
            }
        }
    }

    /// A node that answered the handshake with a refusal. Before any node of the right cluster answered, a wrong cluster or
    /// version is the user's mistake and ends the session; later it is that node's trouble.
    fn on_wrong_node(&mut self, now_us: u64, address: String, refusal: Refusal, text: String) -> LineEvent {
        self.troubles.note(Trouble { address: address.clone(), refusal: Some(refusal), text: text.clone() });
        self.fall(now_us);
        match refusal {
            Refusal::WrongCluster if !self.answered => LineEvent::Fatal(SessionFailure::WrongCluster { address, text }),
            Refusal::VersionUnsupported if !self.answered => {
                LineEvent::Fatal(SessionFailure::VersionUnsupported { address, text })
            }
            _ => LineEvent::Nothing,
        }
    }

    fn on_reply<E>(
        &mut self,
        now_us: u64,
        reply: ClientReply,
        body: Option<BodyFacts>,
        actions: &mut Vec<Action<E>>,
    ) -> LineEvent {
        match reply {
            ClientReply::Pong => LineEvent::Nothing,
            ClientReply::RingChanged { ring } => {
                self.take_ring(ring);
                LineEvent::Nothing
            }
            ClientReply::Welcome { .. } => {
                self.note("a second welcome on one connection");
                self.leave(now_us, actions);
                LineEvent::Down
            }
            other => LineEvent::Reply(other, body),
        }
    }

    fn dial<E>(&mut self, now_us: u64, client: Option<&str>, actions: &mut Vec<Action<E>>) {
        let (address, target) = match self.choose(now_us, client) {
            Ok(chosen) => chosen,
            Err(retry_at) => {
                self.state = State::Down { retry_at };
                return;
            }
        };
        self.link_last += 1;
        let link = LinkId(self.link_last);
        self.cursor = Some(address.clone());
        actions.push(Action::Connect { link, address: address.clone(), target: target.clone(), cluster: self.cluster });
        self.state = State::Dialing { link, address, target, since: now_us };
    }

    /// The next address, or when to look again.
    fn choose(&self, now_us: u64, client: Option<&str>) -> Result<(String, Target), u64> {
        let target = client.map_or(Target::Any, |client| Target::Client(client.to_owned()));
        if let Some(home) = client.and_then(|client| self.home(now_us, client)) {
            return Ok((home.client_address.clone(), target));
        }
        let all = self.candidates();
        let start = all.iter().position(|other| Some(other) == self.cursor.as_ref()).unwrap_or(0);
        for step in 0..all.len() {
            let address = &all[(start + step) % all.len()];
            if !self.is_avoided(now_us, address) {
                return Ok((address.clone(), target));
            }
        }
        let first = all.iter().filter_map(|address| self.spots.get(address)).map(|spot| spot.avoid_until).min();
        Err(first.unwrap_or(now_us + BACKOFF_FIRST_US))
    }

    /// Addresses in the order of preference, none twice.
    fn candidates(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::with_capacity(self.nodes.len());
        let members = self.ring.members().iter().filter(|member| member.up && self.routing != Routing::Fixed);
        for address in self.nodes.iter().chain(members.map(|member| &member.client_address)) {
            if !address.is_empty() && !found.contains(address) {
                found.push(address.clone());
            }
        }
        found
    }

    /// The home of `client`, if it can be reached as far as known.
    fn home(&self, now_us: u64, client: &str) -> Option<&Member> {
        let home = self.ring.home(client).filter(|home| home.cores > 0 && !home.client_address.is_empty())?;
        let spot = self.spots.get(&home.client_address);
        // Any node serves a sender: a home whose address leads nowhere for him is not worth a try at every image.
        let is_hopeless = !self.needs_home
            && spot.is_some_and(|spot| {
                spot.failures >= HOME_FAILURES_MAX && spot.avoid_until.saturating_add(HOME_AGAIN_US) > now_us
            });
        (!is_hopeless && !self.is_avoided(now_us, &home.client_address)).then_some(home)
    }

    fn is_avoided(&self, now_us: u64, address: &str) -> bool {
        self.spots.get(address).is_some_and(|spot| spot.avoid_until > now_us)
    }

    fn address(&self) -> Option<String> {
        match &self.state {
            State::Down { .. } => None,
            State::Dialing { address, .. } | State::Up(Up { address, .. }) => Some(address.clone()),
        }
    }

    fn note(&mut self, text: &str) {
        let address = self.address().unwrap_or_default();
        self.troubles.note(Trouble { address, refusal: None, text: text.to_owned() });
    }

    fn close<E>(&mut self, actions: &mut Vec<Action<E>>) {
        match &self.state {
            State::Down { .. } => {}
            State::Dialing { link, .. } | State::Up(Up { link, .. }) => actions.push(Action::Close { link: *link }),
        }
    }

    /// The present address failed: avoid it for a while, look for another one at once.
    fn fall(&mut self, now_us: u64) {
        if let Some(address) = self.address() {
            let failures = self.spots.get(&address).map_or(0, |spot| spot.failures).saturating_add(1);
            let avoid_until = now_us + self.backoff.wait_us(failures);
            self.forget_strangers();
            self.spots.insert(address, Spot { failures, avoid_until });
        }
        self.state = State::Down { retry_at: now_us };
    }

    /// Keeps `spots` bounded: addresses that are neither given nor a member's are of no use any more.
    fn forget_strangers(&mut self) {
        let (nodes, members) = (&self.nodes, self.ring.members());
        if self.spots.len() > nodes.len() + members.len() {
            self.spots.retain(|address, _| {
                nodes.contains(address) || members.iter().any(|member| member.client_address == *address)
            });
        }
    }
}

/// The shell gives up a connection by itself after `CONNECT_US_MAX`; this is for a shell that does not.
fn dial_us_max() -> u64 {
    CONNECT_US_MAX + CONNECT_US_MAX / 2
}
