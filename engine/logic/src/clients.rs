//! Client connections: the handshake, and the requests that are passed to the leader as they are.

use std::collections::BTreeMap;

use proto::client::{ClientReply, ClientRequest};
use proto::error::Refusal;
use proto::ids::{ClusterId, CoreId, RequestId, SessionId};
use proto::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, UPLOAD_CREDIT_BYTES};
use proto::peer::{LeaderAnswer, LeaderRequest};

use crate::context::Context;
use crate::io::{ConnId, CoreNote};
use crate::limits::CONNECTIONS_MAX;
use crate::requests::Purpose;

/// The client connections of one core.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    conns: BTreeMap<ConnId, u64>, // the ring epoch each was told last
}

impl Clients {
    /// A connection came; `hello` is its first message.
    pub fn on_opened(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &ClientRequest) {
        let ClientRequest::Hello { version_min, version_max, cluster, .. } = hello else {
            return cx.dismiss(conn, Refusal::BadRequest, "a connection begins with a hello");
        };
        if *version_min > PROTOCOL_VERSION_MAX || *version_max < PROTOCOL_VERSION_MIN {
            let text = format!(
                "this node speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}, the client \
                 {version_min} to {version_max}; use matching releases"
            );
            return cx.dismiss(conn, Refusal::VersionUnsupported, &text);
        }
        if let Some(why) = cx.view.not_ready() {
            return cx.dismiss(conn, Refusal::NotReady, why);
        }
        if *cluster != ClusterId::UNKNOWN && *cluster != cx.view.cluster {
            let text = format!("this node is of cluster {}, the client asked for {cluster}", cx.view.cluster);
            return cx.dismiss(conn, Refusal::WrongCluster, &text);
        }
        if self.conns.len() >= CONNECTIONS_MAX {
            return cx.dismiss(conn, Refusal::Busy, "this core has too many connections; try again");
        }
        self.conns.insert(conn, cx.view.ring.epoch().0);
        let welcome = ClientReply::Welcome {
            version: (*version_max).min(PROTOCOL_VERSION_MAX),
            cluster: cx.view.cluster,
            node: cx.me.node,
            core: cx.me.core,
            ring: cx.view.ring.clone(),
            image_bytes_max: cx.view.image_bytes_max,
            credit: UPLOAD_CREDIT_BYTES,
        };
        cx.reply(conn, welcome);
    }

    /// Whether the handshake of this connection succeeded and it was not dismissed since.
    pub fn knows(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.conns.len() as u64
    }

    /// A request for the leader.
    pub fn ask(&mut self, cx: &mut Context<'_>, conn: ConnId, request: RequestId, body: LeaderRequest) {
        if !cx.requests.has_room() {
            return fail(cx, conn, request, Refusal::Busy, "too many requests wait for the leader; try again");
        }
        cx.requests.ask(cx.me, cx.now, Purpose::Client { conn, request }, body, cx.out);
    }

    /// A client asks for the node's status.
    pub fn ask_status(&mut self, cx: &mut Context<'_>, conn: ConnId, request: RequestId) {
        cx.tell(CoreId(0), CoreNote::StatusAsk { conn, request });
    }

    /// The leader's answer.
    pub fn on_answer(&mut self, cx: &mut Context<'_>, conn: ConnId, request: RequestId, answer: LeaderAnswer) {
        if !self.knows(conn) {
            return;
        }
        match answer {
            LeaderAnswer::Registered { inbox } => cx.reply(conn, ClientReply::Registered { request, inbox }),
            LeaderAnswer::SessionOpened { session } => {
                cx.reply(conn, ClientReply::SessionOpened { request, session: SessionId(session.0) });
            }
            LeaderAnswer::Probed { index } => cx.reply(conn, ClientReply::ProbeDone { request, index }),
            LeaderAnswer::Refused { refusal, text } => fail(cx, conn, request, refusal, &text),
            other => tracing::warn!(?other, "the leader answered a client's request with something else"),
        }
    }

    /// The leader did not answer in time.
    pub fn on_late(&mut self, cx: &mut Context<'_>, conn: ConnId, request: RequestId) {
        let text = "no answer of a leader: fewer than a majority of the voters can be reached";
        fail(cx, conn, request, Refusal::NoLeader, text);
    }

    /// The members changed: every client is told.
    pub fn on_view(&mut self, cx: &mut Context<'_>) {
        let epoch = cx.view.ring.epoch().0;
        for (&conn, told) in self.conns.iter_mut().filter(|(_, told)| **told != epoch) {
            *told = epoch;
            cx.reply(conn, ClientReply::RingChanged { ring: cx.view.ring.clone() });
        }
    }

    /// The connection is gone.
    pub fn on_closed(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }
}

fn fail(cx: &mut Context<'_>, conn: ConnId, request: RequestId, refusal: Refusal, text: &str) {
    let message = ClientReply::Failure { request: Some(request), refusal, text: text.to_owned(), ring: None };
    cx.reply(conn, message);
}
