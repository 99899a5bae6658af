//! Client connections: from the listener to the core that serves them, and there in both directions.
//!
//! ```text
//! core 0:   listener --first frame--> which core? --mesh--> that core
//! the core: ClientOpened --> reader: frames -> Input::Client, bodies into chunk buffers      outbox <- Effect::ClientSend
//!           ClientClosed when either direction has ended
//! ```
//! Bounds: connections of the node (listener), bytes received and not yet freed (credit of each connection and memory of
//! the core), frames and bytes queued for a client (outbox). A client that breaks the protocol gets `Failure` and is
//! closed; the node lives on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future;
use std::rc::Rc;

use disk::ChunkBuffer;
use futures_lite::future::or;
use link::{Accepted, CreditMeter, Frame, FrameReader, Outbox, OutboxLimits, ReadError, SendError};

use logic::io::{BodyRef, ConnId, Input};
use proto::client::{ClientReply, ClientRequest, Target};
use proto::codec::{Encoder, decode_client_request, encode_client_reply};
use proto::error::Refusal;
use proto::frame::FrameLimits;
use proto::ids::CoreId;
use proto::limits::UPLOAD_CREDIT_BYTES;
use proto::ring::core_of;

use crate::core::{Core, MeshItem};
use crate::limits::DRAINED_BYTES;
use crate::{pools, route};

/// The client connections of one core.
#[derive(Default)]
pub(crate) struct Clients {
    open: RefCell<HashMap<ConnId, Outbox>>,
    encoder: RefCell<Encoder>,
    next: Cell<u16>, // on core 0: the core of the next one that does not care
}

impl Clients {
    fn outbox(&self, conn: ConnId) -> Option<Outbox> {
        self.open.borrow().get(&conn).cloned()
    }

    fn queue(&self, outbox: &Outbox, reply: &ClientReply) -> Result<(), SendError> {
        outbox.try_send(None, |out| encode_client_reply(&mut self.encoder.borrow_mut(), reply, 0, out))
    }

    /// `Effect::ClientClose`: the connection ends after what was sent to it.
    pub(crate) fn close(&self, conn: ConnId) {
        if let Some(outbox) = self.outbox(conn) {
            outbox.close();
        }
    }

    /// The node stops: every connection ends after what was sent to it.
    pub(crate) fn close_all(&self) {
        let open: Vec<Outbox> = self.open.borrow().values().cloned().collect();
        open.iter().for_each(Outbox::close);
    }

    pub(crate) fn count(&self) -> usize {
        self.open.borrow().len()
    }
}

/// `Effect::ClientSend`. A client that does not read what it asked for is closed.
pub(crate) fn send(core: &Core, conn: ConnId, reply: &ClientReply, body: Option<BodyRef>) {
    let Some(outbox) = core.clients.outbox(conn) else { return };
    let body_bytes = body.map_or(0, |body| body.length as usize);
    let body = body.map(|body| route::out_body(core, body));
    let sent = outbox.try_send(body, |out| {
        encode_client_reply(&mut core.clients.encoder.borrow_mut(), reply, body_bytes, out);
    });
    if sent == Err(SendError::Full) {
        let (bytes, frames) = (outbox.queued_bytes(), outbox.queued_frames());
        tracing::warn!(conn = conn.0, bytes, frames, "closed a client that does not read its answers");
        outbox.abort();
    }
}

/// On core 0: hands a new connection to the core it belongs to.
pub(crate) async fn place(core: Rc<Core>, accepted: Accepted) {
    let hello = match decode_client_request(&accepted.header, &accepted.meta) {
        Ok(hello @ ClientRequest::Hello { .. }) => hello,
        Ok(_) => return refuse(core, accepted, Refusal::BadRequest, "the first message must be a hello").await,
        Err(error) => return refuse(core, accepted, error.refusal(), &error.to_string()).await,
    };
    let to = core_for(&core, &hello);
    if to == core.me.core {
        serve(core, accepted, hello).await;
    } else {
        core.hand(to, MeshItem::Client(Box::new(accepted), hello));
    }
}

fn core_for(core: &Core, hello: &ClientRequest) -> CoreId {
    match hello {
        ClientRequest::Hello { target: Target::Client(name), .. } => core_of(name, core.cores),
        ClientRequest::Hello { target: Target::Core(wanted), .. } if wanted.0 < core.cores => *wanted,
        // Also for a core that there is not: the client learns from `Welcome` where it is.
        _ => {
            let next = core.clients.next.get();
            core.clients.next.set((next + 1) % core.cores);
            CoreId(next)
        }
    }
}

async fn refuse(core: Rc<Core>, accepted: Accepted, refusal: Refusal, text: &str) {
    let peer = accepted.peer;
    tracing::debug!(%peer, ?refusal, text, "refused a client");
    let Ok(connection) = accepted.into_connection() else { return };
    let outbox = Outbox::new(OutboxLimits::CLIENT);
    // The queue is empty: it takes the answer.
    let _ = core.clients.queue(&outbox, &failure(refusal, text));
    outbox.close();
    connection.serve(&outbox, future::pending()).await;
}

fn failure(refusal: Refusal, text: &str) -> ClientReply {
    ClientReply::Failure { request: None, refusal, text: text.to_owned(), ring: None }
}

/// Serves a connection on its core until it ends.
pub(crate) async fn serve(core: Rc<Core>, accepted: Accepted, hello: ClientRequest) {
    let (conn, peer) = (ConnId(accepted.number), accepted.peer);
    let connection = match accepted.into_connection() {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%peer, %error, "lost a new connection"),
    };
    let outbox = Outbox::new(OutboxLimits::CLIENT);
    let hook_core = Rc::downgrade(&core);
    outbox.on_drained(DRAINED_BYTES, move |queued_bytes| {
        if let Some(core) = hook_core.upgrade() {
            core.inputs.push(Input::ClientDrained { conn, queued_bytes });
        }
    });
    let meter = CreditMeter::new(UPLOAD_CREDIT_BYTES);
    let reader = connection.reader(FrameLimits::CLIENT_REQUEST).with_credit(meter.clone());
    core.inputs.push(Input::ClientOpened { conn, hello });
    let registered = Registered::new(&core, conn, &outbox);
    let reading = or(read(&core, conn, &outbox, reader), grant(&core, &outbox, &meter));
    let end = connection.serve(&outbox, reading).await;
    tracing::debug!(conn = conn.0, %peer, ?end, "a client connection ended");
    drop(registered);
}

/// A connection that logic knows. Dropping it, in whatever way, tells logic that it is gone.
struct Registered {
    core: Rc<Core>,
    conn: ConnId,
}

impl Registered {
    fn new(core: &Rc<Core>, conn: ConnId, outbox: &Outbox) -> Registered {
        let before = core.clients.open.borrow_mut().insert(conn, outbox.clone());
        assert!(before.is_none(), "{conn:?} given twice");
        Registered { core: core.clone(), conn }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let outbox = self.core.clients.open.borrow_mut().remove(&self.conn);
        // Not within the borrow: what it holds may wake tasks.
        drop(outbox);
        self.core.inputs.push(Input::ClientClosed { conn: self.conn });
    }
}

/// Gives logic what the client says. Ends when the client has; after a breach of the protocol it says so and waits for the
/// connection to be closed.
async fn read(core: &Rc<Core>, conn: ConnId, outbox: &Outbox, mut reader: FrameReader) -> ReadError {
    loop {
        let breach = match reader.next(core.pools.of_clients()).await {
            Ok(frame) => match understand(core, conn, frame) {
                Ok(input) => {
                    core.inputs.push_when_room(input).await;
                    continue;
                }
                Err(breach) => breach,
            },
            Err(error @ (ReadError::Closed | ReadError::Truncated | ReadError::TimedOut(_) | ReadError::Io(_))) => {
                return error;
            }
            Err(error) => (Refusal::BadRequest, error.to_string()),
        };
        let (refusal, text) = breach;
        tracing::debug!(conn = conn.0, ?refusal, text, "a client broke the protocol");
        // Refused only if the client does not read either.
        let _ = core.clients.queue(outbox, &failure(refusal, &text));
        outbox.close();
        return future::pending().await;
    }
}

fn understand(core: &Core, conn: ConnId, frame: Frame<'_, ChunkBuffer>) -> Result<Input, (Refusal, String)> {
    let message =
        decode_client_request(&frame.header, frame.meta).map_err(|error| (error.refusal(), error.to_string()))?;
    let body = match (&message, frame.body) {
        (ClientRequest::Hello { .. }, _) => return Err((Refusal::NotMember, "a second hello".to_owned())),
        (ClientRequest::Chunk(head), Some(mut body)) => {
            pools::fill_header(&mut body, head.image, head.offset);
            let (filled, credit) = pools::filled(body);
            Some(core.buffers.add(filled, credit))
        }
        // The frame's kind says whether there is a body, and the message is of that kind.
        _ => None,
    };
    Ok(Input::Client { conn, message, body })
}

/// Tells the client of its credit as its bytes are freed.
async fn grant(core: &Core, outbox: &Outbox, meter: &CreditMeter) -> ReadError {
    loop {
        let credit = meter.grant().await;
        // A full queue closes the connection with the next reply; a closed one is about to end.
        let _ = core.clients.queue(outbox, &ClientReply::Credit { credit });
    }
}
