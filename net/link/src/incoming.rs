//! The listener's side of a link, on the core that the dialler asked for.
//!
//! Messages come in, only credit goes back. Each message is from and to the two shards that the hello named; a frame that
//! is for others, is no peer message, or has a body without credit, ends the link.

use std::io;

use futures_lite::future;
use proto::codec::{
    DecodeError, Encoder, decode_peer_hello, decode_peer_message, encode_link_credit, encode_peer_welcome,
};
use proto::error::Refusal;
use proto::frame::FrameLimits;
use proto::ids::{Address, Incarnation};
use proto::peer::{Lane, LinkCredit, PeerHello, PeerMessage, PeerWelcome};

use crate::connection::{Connection, ConnectionEnd};
use crate::credit::CreditMeter;
use crate::limits::OutboxLimits;
use crate::listen::Accepted;
use crate::outbox::Outbox;
use crate::reader::{BufferSource, FrameReader, ReadError, ReadStats, ReceivedBody};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The first frame is no hello of a peer.
    #[error("no peer: {0}")]
    Hello(#[from] DecodeError),
    /// The caller's check said no, and the dialler was told.
    #[error("refused a link from {from} ({refusal:?}): {text}", from = source_address)]
    Refused {
        /// Who dialled.
        source_address: Address,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// The connection failed.
    #[error("cannot answer the hello: {0}")]
    Io(#[from] io::Error),
}

/// One message of a peer.
pub struct LinkMessage<B> {
    /// Which shard says it.
    pub from: Address,
    /// Its life, as the hello said.
    pub incarnation: Incarnation,
    /// Ascends over the links this process accepted: messages of an older link between two shards have a smaller one.
    pub link: u64,
    /// What it says.
    pub message: PeerMessage,
    /// The body, for messages that have one.
    pub body: Option<ReceivedBody<B>>,
}

/// A link that was welcomed and not yet run.
pub struct IncomingLink {
    hello: PeerHello,
    number: u64,
    connection: Connection,
    reader: FrameReader,
    meter: CreditMeter,
}

impl IncomingLink {
    /// Answers the hello of `accepted` with what `check` says to it. The credit of a welcome is the link's window; 0 for a
    /// lane without bodies.
    pub async fn welcome(
        accepted: Accepted,
        check: impl FnOnce(&PeerHello) -> PeerWelcome,
    ) -> Result<IncomingLink, LinkError> {
        let number = accepted.number;
        let hello = decode_peer_hello(&accepted.header, &accepted.meta)?;
        let connection = accepted.into_connection()?;
        let answer = check(&hello);
        let mut bytes = Vec::new();
        encode_peer_welcome(&mut Encoder::new(), &answer, &mut bytes);
        connection.write_first(&bytes).await?;
        match answer {
            PeerWelcome::Welcome { credit, .. } => {
                let meter = CreditMeter::new(credit);
                let reader = connection.reader(FrameLimits::PEER).with_credit(meter.clone());
                Ok(IncomingLink { hello, number, connection, reader, meter })
            }
            PeerWelcome::Refused { refusal, text } => {
                connection.linger().await;
                Err(LinkError::Refused { source_address: hello.source, refusal, text })
            }
        }
    }

    /// Who dialled, for what.
    pub fn hello(&self) -> &PeerHello {
        &self.hello
    }

    /// Which lane it is.
    pub fn lane(&self) -> Lane {
        self.hello.lane
    }

    /// The number that its messages carry.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Body bytes received and not yet freed.
    pub fn meter(&self) -> &CreditMeter {
        &self.meter
    }

    /// Gives each message to `take`, in order, and waits for it before the next is read. Returns when the link has ended;
    /// the credit of bodies that are still held is of no use then.
    pub async fn run<S: BufferSource>(
        self,
        buffers: &S,
        mut take: impl AsyncFnMut(LinkMessage<S::Buffer>),
    ) -> (ConnectionEnd, ReadStats) {
        let IncomingLink { hello, number, connection, mut reader, meter } = self;
        let outbox = Outbox::new(OutboxLimits::CONTROL);
        let mut stats = ReadStats::default();
        let reading = async {
            loop {
                let frame = match reader.next(buffers).await {
                    Ok(frame) => frame,
                    Err(error) => break error,
                };
                let (source_address, target_address) = (frame.header.source(), frame.header.target());
                let message = match decode_peer_message(&frame.header, frame.meta) {
                    Ok(message) => message,
                    Err(error) => break error.into(),
                };
                if (source_address, target_address) != (hello.source, hello.target) {
                    break ReadError::Misrouted { source_address, target_address };
                }
                let (from, incarnation, body) = (hello.source, hello.incarnation, frame.body);
                take(LinkMessage { from, incarnation, link: number, message, body }).await;
                stats = reader.stats();
            }
        };
        let end = connection.serve(&outbox, future::or(reading, grant(&meter, &outbox))).await;
        (end, stats)
    }
}

/// Tells the dialler of its credit as it grows.
async fn grant(meter: &CreditMeter, outbox: &Outbox) -> ReadError {
    let mut encoder = Encoder::new();
    loop {
        let credit = LinkCredit { credit: meter.grant().await };
        let sent = outbox.try_send(None, |out| encode_link_credit(&mut encoder, &credit, out));
        if sent.is_err() {
            // Thousands of grants that it does not read: it is no dialler of ours.
            return ReadError::Io(io::ErrorKind::WriteZero.into());
        }
    }
}
