//! Requests of this core to the leader that wait for an answer.
//!
//! They go to core 0 of the own node, whose role passes them on. A request may get lost with a link or a leader; so each
//! may be repeated without harm and is repeated: after a while, and when another leader is known. The number of open
//! requests is bounded; a stage that finds no room refuses its own caller as busy.

use std::collections::BTreeMap;

use proto::ids::{Address, CoreId, ImageId, RequestId};
use proto::peer::{Lane, LeaderRequest, PeerMessage};

use crate::consensus::REQUEST_HOPS;
use crate::io::{ConnId, Effect, Now};
use crate::limits::{REQUEST_DEADLINE_US, REQUEST_RETRY_US, REQUESTS_MAX};

/// What an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client's own request: the answer is passed to it.
    Client { conn: ConnId, request: RequestId },
    /// Admission of an upload with that checksum (stage ingest).
    Intent { image: ImageId, checksum: u64 },
    /// Its bytes are durable (stage home).
    Notice { image: ImageId, checksum: u64 },
    /// Receivers have images (stage delivery).
    Ack,
    /// A mark in the log, behind all that is committed (core 0, for receivers whose name it does not know).
    Mark,
    /// This node asks to be on the ring again.
    Return,
    /// This core has some bytes no more (stage home).
    Lost,
}

#[derive(Debug)]
struct Open {
    purpose: Purpose,
    body: LeaderRequest,
    asked_us: u64,
    sent_us: u64,
}

/// The open requests of one core.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    open: BTreeMap<RequestId, Open>,
    last: u64,
}

impl Requests {
    /// Numbered from a place of chance: an answer to a former life of this process, which is still to come, must not pass
    /// for one to a request of this life.
    pub fn new(entropy: u64) -> Requests {
        Requests { last: entropy >> 1, ..Requests::default() }
    }

    /// Whether another request may be asked.
    pub fn has_room(&self) -> bool {
        self.open.len() < REQUESTS_MAX
    }

    /// How many wait.
    pub fn count(&self) -> u64 {
        self.open.len() as u64
    }

    /// Sends a request. The caller asked `has_room`.
    pub fn ask(&mut self, me: Address, now: Now, purpose: Purpose, body: LeaderRequest, out: &mut Vec<Effect>) {
        self.last += 1;
        let request = RequestId(self.last);
        out.push(send(me, request, body.clone()));
        self.open.insert(request, Open { purpose, body, asked_us: now.mono_us, sent_us: now.mono_us });
    }

    /// The purpose of an answered request; `None` if it was answered before or given up.
    pub fn take(&mut self, request: RequestId) -> Option<(Purpose, LeaderRequest)> {
        self.open.remove(&request).map(|open| (open.purpose, open.body))
    }

    /// Forgets what a client that went away had asked.
    pub fn forget_client(&mut self, gone: ConnId) {
        self.open.retain(|_, open| !matches!(open.purpose, Purpose::Client { conn, .. } if conn == gone));
    }

    /// Repeats what waits too long, and returns the clients' requests that are past their deadline.
    pub fn on_tick(&mut self, me: Address, now: Now, out: &mut Vec<Effect>) -> Vec<(ConnId, RequestId)> {
        let mut late = Vec::new();
        self.open.retain(|_, open| match open.purpose {
            Purpose::Client { conn, request } if now.mono_us >= open.asked_us + REQUEST_DEADLINE_US => {
                late.push((conn, request));
                false
            }
            _ => true,
        });
        for (&request, open) in &mut self.open {
            if now.mono_us >= open.sent_us + REQUEST_RETRY_US {
                open.sent_us = now.mono_us;
                out.push(send(me, request, open.body.clone()));
            }
        }
        late
    }

    /// Another leader is known: what the old one had may be lost.
    pub fn on_leader(&mut self, me: Address, now: Now, out: &mut Vec<Effect>) {
        for (&request, open) in &mut self.open {
            open.sent_us = now.mono_us;
            out.push(send(me, request, open.body.clone()));
        }
    }
}

fn send(me: Address, request: RequestId, body: LeaderRequest) -> Effect {
    let to = Address { node: me.node, core: CoreId(0) };
    let message = PeerMessage::Request { origin: me, request, hops: REQUEST_HOPS, body };
    Effect::Send { to, lane: Lane::Control, message, body: None }
}

#[cfg(test)]
mod tests {
    use super::{Purpose, Requests};
    use crate::io::{ConnId, Now};
    use crate::limits::{REQUEST_DEADLINE_US, REQUEST_RETRY_US};
    use proto::ids::{Address, RequestId};
    use proto::peer::LeaderRequest;

    fn at(mono_us: u64) -> Now {
        Now { mono_us, wall_ms: 0 }
    }

    #[test]
    fn a_lost_request_is_repeated_until_it_is_answered() {
        let (mut requests, mut out, me) = (Requests::default(), Vec::new(), Address::default());
        requests.ask(me, at(0), Purpose::Ack, LeaderRequest::Ack { upto: vec![] }, &mut out);
        assert_eq!(out.len(), 1);
        assert!(requests.on_tick(me, at(REQUEST_RETRY_US - 1), &mut out).is_empty() && out.len() == 1);
        requests.on_tick(me, at(REQUEST_RETRY_US), &mut out);
        assert_eq!(out.len(), 2);
        requests.on_leader(me, at(REQUEST_RETRY_US + 1), &mut out);
        assert_eq!(out.len(), 3);
        assert_eq!(requests.take(RequestId(1)).map(|(purpose, _)| purpose), Some(Purpose::Ack));
        assert_eq!(requests.take(RequestId(1)), None, "an answer counts once");
    }

    #[test]
    fn an_answer_to_another_life_is_nobodys() {
        let (mut before, mut after, me) = (Requests::new(7 << 40), Requests::new(9 << 40), Address::default());
        for requests in [&mut before, &mut after] {
            requests.ask(me, at(0), Purpose::Ack, LeaderRequest::Ack { upto: vec![] }, &mut Vec::new());
        }
        let answered = *before.open.keys().next().expect("asked above");
        assert_eq!(after.take(answered), None);
    }

    #[test]
    fn a_clients_request_ends_at_its_deadline() {
        let (mut requests, mut out, me) = (Requests::default(), Vec::new(), Address::default());
        let purpose = Purpose::Client { conn: ConnId(4), request: RequestId(9) };
        requests.ask(me, at(0), purpose, LeaderRequest::Probe { payload: vec![] }, &mut out);
        assert_eq!(requests.on_tick(me, at(REQUEST_DEADLINE_US), &mut out), [(ConnId(4), RequestId(9))]);
        assert_eq!(requests.take(RequestId(1)), None);
    }
}
