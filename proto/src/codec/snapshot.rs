//! The pieces of a snapshot.

use flatbuffers::{Vector, WIPOffset};

use super::parts::{put_holders, put_ring, take_holders, take_ring};
use super::{Builder, DecodeError, Encoder, root};
use crate::generated::snapshot as wire;
use crate::ids::{InboxId, InboxSeq, LogIndex, NodeId, Sequence, SessionId};
use crate::snapshot::{Head, ImageItem, InboxItem, Piece, SessionItem, UndeliveredItem};

/// The bytes of `piece`, in the memory of `encoder`; they are there until it is used again.
///
/// # Panics
///
/// If the piece breaks a rule: nobody could read it again.
pub fn encode_piece<'e>(encoder: &'e mut Encoder, piece: &Piece) -> &'e [u8] {
    if let Err(error) = piece.check() {
        panic!("{error} in a piece of {} items", piece.items());
    }
    encoder.start();
    let Encoder { builder: b, offsets, .. } = encoder;
    let head = piece.head.as_ref().map(|head| put_head(b, offsets, head));
    let inboxes = put_list(b, &piece.inboxes, put_inbox);
    let sessions = put_list(b, &piece.sessions, put_session);
    let images = put_list(b, &piece.images, put_image);
    let undelivered = put_list(b, &piece.undelivered, put_undelivered);
    let args = wire::PieceArgs { head, inboxes, sessions, images, undelivered };
    let root = wire::Piece::create(b, &args);
    encoder.finish(root)
}

type ListOffset<T> = WIPOffset<Vector<'static, flatbuffers::ForwardsUOffset<T>>>;

/// Writes a list; none if it is empty.
fn put_list<I, T: 'static>(
    b: &mut Builder,
    items: &[I],
    put: impl Fn(&mut Builder, &I) -> WIPOffset<T>,
) -> Option<ListOffset<T>> {
    if items.is_empty() {
        return None;
    }
    let offsets: Vec<WIPOffset<T>> = items.iter().map(|item| put(b, item)).collect();
    Some(b.create_vector(&offsets))
}

fn put_head(b: &mut Builder, offsets: &mut Vec<u32>, head: &Head) -> WIPOffset<wire::Head<'static>> {
    let ring = put_ring(b, offsets, &head.ring);
    let rejoined = head.rejoined.iter().map(|&(node, nonce)| wire::Rejoined::new(node.0, &nonce.into()));
    let rejoined = (!head.rejoined.is_empty()).then(|| b.create_vector_from_iter(rejoined));
    let args = wire::HeadArgs {
        cluster: Some(&head.cluster.into()),
        copies: head.copies,
        image_bytes_max: head.image_bytes_max,
        log_time_ms: head.log_time_ms,
        ring: Some(ring),
        rejoined,
    };
    wire::Head::create(b, &args)
}

fn put_inbox(b: &mut Builder, item: &InboxItem) -> WIPOffset<wire::Inbox<'static>> {
    let name = Some(b.create_string(&item.name));
    let (inbox, acked, acked_record) = (item.inbox.0, item.acked.0, item.acked_record.0);
    wire::Inbox::create(b, &wire::InboxArgs { inbox, name, acked, acked_record })
}

fn put_session(b: &mut Builder, item: &SessionItem) -> WIPOffset<wire::Session<'static>> {
    let sender = Some(b.create_string(&item.sender));
    let (session, low_water, used_ms) = (item.session.0, item.low_water.0, item.used_ms);
    wire::Session::create(b, &wire::SessionArgs { session, sender, low_water, used_ms })
}

fn put_image(b: &mut Builder, item: &ImageItem) -> WIPOffset<wire::Image<'static>> {
    let ready = item.ready.iter().map(|(inbox, index)| wire::ReadyFor::new(inbox.0, index.0));
    let ready = Some(b.create_vector_from_iter(ready));
    let (image, fingerprint) = (item.image.into(), item.fingerprint.into());
    wire::Image::create(b, &wire::ImageArgs { image: Some(&image), fingerprint: Some(&fingerprint), ready })
}

fn put_undelivered(b: &mut Builder, item: &UndeliveredItem) -> WIPOffset<wire::Undelivered<'static>> {
    let receivers = b.create_vector_from_iter(item.receivers.iter().map(|inbox| inbox.0));
    let holders = put_holders(b, &item.holders);
    let (sender, name) = (b.create_string(&item.sender), b.create_string(&item.name));
    let args = wire::UndeliveredArgs {
        index: item.index.0,
        image: Some(&item.image.into()),
        fingerprint: Some(&item.fingerprint.into()),
        sender: Some(sender),
        name: Some(name),
        receivers: Some(receivers),
        holders: Some(holders),
    };
    wire::Undelivered::create(b, &args)
}

/// The piece in `bytes`.
pub fn decode_piece(bytes: &[u8]) -> Result<Piece, DecodeError> {
    let m = root::<wire::Piece<'_>>(bytes)?;
    let piece = Piece {
        head: m.head().map(take_head).transpose()?,
        inboxes: m.inboxes().iter().flatten().map(take_inbox).collect(),
        sessions: m.sessions().iter().flatten().map(take_session).collect(),
        images: m.images().iter().flatten().map(take_image).collect(),
        undelivered: m.undelivered().iter().flatten().map(take_undelivered).collect(),
    };
    piece.check()?;
    Ok(piece)
}

fn take_head(m: wire::Head<'_>) -> Result<Head, DecodeError> {
    Ok(Head {
        cluster: m.cluster().into(),
        copies: m.copies(),
        image_bytes_max: m.image_bytes_max(),
        log_time_ms: m.log_time_ms(),
        ring: take_ring(m.ring())?,
        rejoined: m.rejoined().iter().flatten().map(|one| (NodeId(one.node()), one.nonce().into())).collect(),
    })
}

fn take_inbox(m: wire::Inbox<'_>) -> InboxItem {
    InboxItem {
        inbox: InboxId(m.inbox()),
        name: m.name().into(),
        acked: InboxSeq(m.acked()),
        acked_record: LogIndex(m.acked_record()),
    }
}

fn take_session(m: wire::Session<'_>) -> SessionItem {
    SessionItem {
        session: SessionId(m.session()),
        sender: m.sender().into(),
        low_water: Sequence(m.low_water()),
        used_ms: m.used_ms(),
    }
}

fn take_image(m: wire::Image<'_>) -> ImageItem {
    ImageItem {
        image: m.image().into(),
        fingerprint: m.fingerprint().into(),
        ready: m.ready().iter().map(|ready| (InboxId(ready.inbox()), LogIndex(ready.index()))).collect(),
    }
}

fn take_undelivered(m: wire::Undelivered<'_>) -> UndeliveredItem {
    UndeliveredItem {
        index: LogIndex(m.index()),
        image: m.image().into(),
        fingerprint: m.fingerprint().into(),
        sender: m.sender().into(),
        name: m.name().into(),
        receivers: m.receivers().iter().map(InboxId).collect(),
        holders: take_holders(m.holders()),
    }
}
