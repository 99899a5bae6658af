//! Records that name this core as holder: which of its bytes they speak of.

use std::sync::Arc;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::ids::{Fingerprint, ImageId, LogIndex};

use super::upload::Chunk;
use super::{Home, Object};
use crate::context::Context;
use crate::store::slot::Slot;

impl Home {
    /// A record names this core as holder of these bytes. Others under the same id are not meant, and do not count.
    ///
    /// `receivers` are those for whom the record made it ready.
    pub fn on_claim(
        &mut self,
        cx: &mut Context<'_>,
        (image, fingerprint): (ImageId, Fingerprint),
        index: LogIndex,
        receivers: &[Arc<str>],
    ) {
        let Some(object) = self.objects.get_mut(&image) else {
            tracing::warn!(%image, %index, "a record names this core as holder of bytes that are not here");
            return;
        };
        if object.claims.contains(&index) {
            return;
        }
        let is_received = object.upload.as_ref().map(|upload| upload.spec.fingerprint == fingerprint);
        let is_before = !object.before.is_empty() && sum_of(object.before.iter().copied()) == fingerprint;
        let is_here = is_received.unwrap_or_else(|| object.fingerprint() == fingerprint) || is_before;
        if !is_here {
            tracing::warn!(%image, %index, "a record names this core as holder of other bytes than are here");
            return;
        }
        object.claims.push(index);
        let mut is_whole = true;
        if let Some(upload) = &mut object.upload {
            upload.claimed.push(index);
            upload.unready.retain(|name| !receivers.iter().any(|other| **other == **name));
            is_whole = upload.complete_us.is_some();
        }
        if is_before && (is_received != Some(true) || !is_whole) {
            // The record speaks of the bytes found at start; those being received again, or instead, are not needed.
            self.restore(cx, image);
        } else {
            self.try_settle(cx, image);
        }
        self.objects.rest(&image);
    }
}

impl Object {
    /// Of the chunks here, all of them durable.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        sum_of(self.chunks.iter().map_while(|chunk| match chunk {
            Chunk::Durable(slot) => Some(*slot),
            Chunk::InFlight { .. } => None,
        }))
    }
}

/// Length and checksum of the bytes in these chunks, from the first on to the first that is missing.
pub(super) fn sum_of(slots: impl Iterator<Item = Slot>) -> Fingerprint {
    let mut slots: Vec<Slot> = slots.collect();
    slots.sort_by_key(|slot| slot.chunk);
    let numbered = slots.iter().zip(0..).take_while(|(slot, number)| slot.chunk == *number);
    let (length, checksum) = numbered.fold((0, CRC64_EMPTY), |(length, checksum), (slot, _)| {
        let part = u64::from(slot.length);
        (length + part, crc64_combine(checksum, slot.crc64, part))
    });
    Fingerprint { length, checksum }
}
