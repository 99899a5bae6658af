//! The state as it was at one index, handed out in pieces while records go on being applied: a snapshot never stops commits.
//!
//! ```text
//! freeze      nothing is copied but the head
//! take_piece  the next items in order; what changed since is taken from what was kept of it
//! apply       before it changes or removes something that was not handed out yet, keeps that as it was (copy on write)
//! ```
//! What was created later has an id or an index above the frozen one, so it needs no mark. Costs memory only for what
//! changes while the snapshot is made.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use proto::ids::{ImageId, InboxId, InboxSeq, LogIndex, Sequence, SessionId};
use proto::snapshot::{Head, ImageItem, InboxItem, PIECE_ITEMS_MAX, Piece, SessionItem, UndeliveredItem};

use super::{Inbox, KnownImage, ReadyState, Session, State};
use crate::mutant::Mutant;

/// What was handed out last. In the order of the pieces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cursor {
    Nothing,
    Inboxes(InboxId),
    Sessions(SessionId),
    Images(ImageId),
    Undelivered(LogIndex),
}

/// See `Session`.
#[derive(Clone, Debug)]
struct KeptSession {
    sender: Arc<str>,
    low_water: Sequence,
    used_ms: u64,
}

/// See the top of this file.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    upto: LogIndex,
    head: Head,
    is_torn: bool,        // a wrong decision: nothing is kept
    forgets_images: bool, // a wrong decision: what sessions remember is left out
    cursor: Cursor,
    // As they were, of what changed since and was not handed out yet.
    inboxes: BTreeMap<InboxId, (InboxSeq, LogIndex)>,
    sessions: BTreeMap<SessionId, KeptSession>,
    readies: BTreeMap<LogIndex, ReadyState>,
    // What was removed since and was not handed out yet.
    images: BTreeMap<ImageId, KnownImage>,
}

impl Frozen {
    /// Whether something that was created at `index` is still to be handed out as it is.
    fn keeps(&self, index: u64, place: Cursor) -> bool {
        index <= self.upto.0 && self.cursor < place && !self.is_torn
    }

    /// An inbox is about to change.
    pub fn keep_inbox(&mut self, id: InboxId, inbox: &Inbox) {
        if self.keeps(id.0, Cursor::Inboxes(id)) {
            self.inboxes.entry(id).or_insert((inbox.acked, inbox.acked_record));
        }
    }

    /// A session is about to change, or to end.
    pub fn keep_session(&mut self, id: SessionId, session: &Session) {
        if self.keeps(id.0, Cursor::Sessions(id)) {
            let Session { sender, low_water, used_ms, .. } = session;
            let kept = KeptSession { sender: sender.clone(), low_water: *low_water, used_ms: *used_ms };
            self.sessions.entry(id).or_insert(kept);
        }
    }

    /// Images of a session were removed.
    pub fn keep_images(&mut self, session: SessionId, images: BTreeMap<Sequence, KnownImage>) {
        for (sequence, known) in images {
            let image = ImageId { session, sequence };
            if self.keeps(session.0, Cursor::Images(image)) && known.ready.iter().any(|(_, index)| *index <= self.upto)
            {
                self.images.insert(image, known);
            }
        }
    }

    /// An undelivered image was removed, or is about to change.
    pub fn keep_ready(&mut self, index: LogIndex, ready: ReadyState) {
        if self.keeps(index.0, Cursor::Undelivered(index)) {
            self.readies.entry(index).or_insert(ready);
        }
    }

    fn inbox_item(&mut self, id: InboxId, inbox: &Inbox) -> InboxItem {
        let (acked, acked_record) = self.inboxes.remove(&id).unwrap_or((inbox.acked, inbox.acked_record));
        InboxItem { inbox: id, name: inbox.name.clone(), acked, acked_record }
    }

    fn image_item(&self, image: ImageId, known: &KnownImage) -> Option<ImageItem> {
        let ready: Vec<_> = known.ready.iter().copied().filter(|(_, index)| *index <= self.upto).collect();
        let is_there = !ready.is_empty();
        (is_there && !self.forgets_images).then_some(ImageItem { image, fingerprint: known.fingerprint, ready })
    }
}

impl State {
    /// Begins to hand out the state as it is now. One at a time; there are members.
    pub fn freeze(&mut self) {
        assert!(self.frozen.is_none(), "one snapshot at a time");
        let head = Head {
            cluster: self.cluster,
            copies: self.copies,
            image_bytes_max: self.image_bytes_max,
            log_time_ms: self.log_time_ms,
            ring: self.ring.clone(),
            rejoined: self.rejoined.iter().map(|(&node, &nonce)| (node, nonce)).collect(),
        };
        self.frozen = Some(Box::new(Frozen {
            upto: self.applied,
            head,
            is_torn: self.mutant.is(Mutant::SnapshotTorn),
            forgets_images: self.mutant.is(Mutant::SnapshotForgetsImages),
            cursor: Cursor::Nothing,
            inboxes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            images: BTreeMap::new(),
            readies: BTreeMap::new(),
        }));
    }

    /// Hands out no more: the snapshot was given up.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    /// The next piece of the state as it was at `freeze`, perhaps without items; `None` behind the last.
    pub fn take_piece(&mut self) -> Option<Piece> {
        let mut frozen = self.frozen.take()?;
        let piece = self.next_piece(&mut frozen);
        if piece.is_some() {
            self.frozen = Some(frozen);
        }
        piece
    }

    fn next_piece(&self, frozen: &mut Frozen) -> Option<Piece> {
        let mut piece = Piece::default();
        if frozen.cursor == Cursor::Nothing {
            frozen.cursor = Cursor::Inboxes(InboxId(0));
            return Some(Piece { head: Some(frozen.head.clone()), ..piece });
        }
        match frozen.cursor {
            Cursor::Nothing => unreachable!("the head was handed out"),
            Cursor::Inboxes(after) => self.take_inboxes(frozen, after, &mut piece),
            Cursor::Sessions(after) => self.take_sessions(frozen, after, &mut piece),
            Cursor::Images(after) => self.take_images(frozen, after, &mut piece),
            Cursor::Undelivered(after) => {
                self.take_undelivered(frozen, after, &mut piece);
                if piece.items() == 0 {
                    return None;
                }
            }
        }
        Some(piece)
    }

    fn take_inboxes(&self, frozen: &mut Frozen, after: InboxId, piece: &mut Piece) {
        let range = (Excluded(after), Included(InboxId(frozen.upto.0)));
        let next = self.inboxes.range(range).take(PIECE_ITEMS_MAX);
        piece.inboxes = next.map(|(&id, inbox)| frozen.inbox_item(id, inbox)).collect();
        frozen.cursor = piece.inboxes.last().map_or(Cursor::Sessions(SessionId(0)), |last| Cursor::Inboxes(last.inbox));
    }

    fn take_sessions(&self, frozen: &mut Frozen, after: SessionId, piece: &mut Piece) {
        let range = (Excluded(after), Included(SessionId(frozen.upto.0)));
        let live = self.sessions.range(range).take(PIECE_ITEMS_MAX).map(|(&session, state)| {
            let Session { sender, low_water, used_ms, .. } = state;
            SessionItem { session, sender: sender.clone(), low_water: *low_water, used_ms: *used_ms }
        });
        let kept =
            frozen.sessions.range((Excluded(after), Unbounded)).take(PIECE_ITEMS_MAX).map(|(&session, state)| {
                let KeptSession { sender, low_water, used_ms } = state.clone();
                SessionItem { session, sender, low_water, used_ms }
            });
        // What was kept counts.
        let mut merged: BTreeMap<SessionId, SessionItem> = live.map(|item| (item.session, item)).collect();
        merged.extend(kept.map(|item| (item.session, item)));
        piece.sessions = merged.into_values().take(PIECE_ITEMS_MAX).collect();
        let Some(last) = piece.sessions.last().map(|last| last.session) else {
            frozen.cursor = Cursor::Images(ImageId::default());
            return;
        };
        cut_upto(&mut frozen.sessions, &last);
        frozen.cursor = Cursor::Sessions(last);
    }

    fn take_images(&self, frozen: &mut Frozen, after: ImageId, piece: &mut Piece) {
        let range = after.session..=SessionId(frozen.upto.0);
        let live = self.sessions.range(range).flat_map(|(&session, state)| {
            let first = if session == after.session { Excluded(after.sequence) } else { Unbounded };
            let images = state.images.range((first, Unbounded));
            images.map(move |(&sequence, known)| (ImageId { session, sequence }, known))
        });
        // Not more are looked at than are handed out, so that it takes no long time.
        let live: Vec<_> = live.take(PIECE_ITEMS_MAX).collect();
        let kept: Vec<_> = frozen.images.range((Excluded(after), Unbounded)).take(PIECE_ITEMS_MAX).collect();
        let mut merged: Vec<(ImageId, &KnownImage)> = live;
        merged.extend(kept.into_iter().map(|(&image, known)| (image, known)));
        merged.sort_unstable_by_key(|(image, _)| *image);
        merged.truncate(PIECE_ITEMS_MAX);
        piece.images = merged.iter().filter_map(|(image, known)| frozen.image_item(*image, known)).collect();
        let last = merged.last().map(|(image, _)| *image);
        let Some(last) = last else {
            frozen.cursor = Cursor::Undelivered(LogIndex(0));
            return;
        };
        cut_upto(&mut frozen.images, &last);
        frozen.cursor = Cursor::Images(last);
    }

    fn take_undelivered(&self, frozen: &mut Frozen, after: LogIndex, piece: &mut Piece) {
        let live = self.readies.range((Excluded(after), Included(frozen.upto))).take(PIECE_ITEMS_MAX);
        let kept = frozen.readies.range((Excluded(after), Unbounded)).take(PIECE_ITEMS_MAX);
        // What was kept counts.
        let merged: BTreeMap<LogIndex, &ReadyState> = live.chain(kept).map(|(&index, ready)| (index, ready)).collect();
        let item = |(index, ready): (LogIndex, &ReadyState)| UndeliveredItem {
            index,
            image: ready.image,
            fingerprint: ready.fingerprint,
            sender: ready.sender.clone(),
            name: ready.name.clone(),
            receivers: ready.receivers.as_slice().to_vec(),
            holders: ready.holders.to_vec(),
        };
        piece.undelivered = merged.into_iter().take(PIECE_ITEMS_MAX).map(item).collect();
        if let Some(last) = piece.undelivered.last() {
            frozen.cursor = Cursor::Undelivered(last.index);
            cut_upto(&mut frozen.readies, &last.index);
        }
    }
}

/// Forgets what was handed out.
fn cut_upto<K: Ord, V>(kept: &mut BTreeMap<K, V>, last: &K) {
    let mut rest = kept.split_off(last);
    rest.remove(last);
    *kept = rest;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "frozen_test.rs"]
mod tests;
