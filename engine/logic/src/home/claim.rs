//! Records that name this core as holder: which of its bytes they speak of.

use std::sync::Arc;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::ids::{Fingerprint, ImageId, LogIndex};

use super::upload::{Chunk, NoticeState};
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
        if self.objects.claim_found(image, fingerprint, index) {
            return;
        }
        let Some(object) = self.objects.get_mut(&image) else {
            tracing::debug!(%image, %index, "a record names this core as holder of bytes that are not here");
            return self.lack(cx, (image, fingerprint), index);
        };
        if object.claims.contains(&index) {
            return;
        }
        let is_received = object.upload.as_ref().map(|upload| upload.spec.fingerprint == fingerprint);
        let is_before = object.finds(fingerprint);
        let is_here = is_received.unwrap_or_else(|| object.fingerprint() == fingerprint) || is_before;
        if !is_here {
            tracing::debug!(%image, %index, "a record names this core as holder of other bytes than are here");
            return self.lack(cx, (image, fingerprint), index);
        }
        object.claims.push(index);
        let mut is_whole = true;
        if let Some(upload) = &mut object.upload {
            upload.claimed.push(index);
            upload.unready.retain(|name| !receivers.iter().any(|other| **other == **name));
            if receivers.is_empty() && upload.notice == NoticeState::Ready {
                // It came with a snapshot, and behind the leader's answer: for whom it is, the leader says with its next one.
                upload.notice = NoticeState::Idle;
            }
            is_whole = upload.complete_us.is_some();
        }
        if is_before && (is_received != Some(true) || !is_whole) {
            // The record speaks of the bytes found at start; those being received again, or instead, are not needed.
            self.restore(cx, image, Some(fingerprint));
        } else {
            self.try_settle(cx, image);
        }
        self.free_other_versions(image);
        self.objects.rest(&image);
    }
}

impl Object {
    /// Whether the bytes with that fingerprint are among those found at start.
    pub(super) fn finds(&self, fingerprint: Fingerprint) -> bool {
        !self.before.is_empty() && self.version(Some(fingerprint)).is_some()
    }

    /// Of what was found at start, and of the chunks here if nothing is being received: those slots that make up the bytes
    /// with that fingerprint, or the youngest of each chunk.
    pub(super) fn version(&self, fingerprint: Option<Fingerprint>) -> Option<Vec<Slot>> {
        let mut slots = self.before.clone();
        if self.upload.is_none() {
            slots.extend(self.chunks.iter().filter_map(|chunk| match chunk {
                Chunk::Durable(slot) => Some(*slot),
                Chunk::InFlight { .. } => None,
            }));
        }
        version_of(slots, fingerprint)
    }

    /// Of the chunks here, all of them durable.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let durable = self.chunks.iter().map_while(|chunk| match chunk {
            Chunk::Durable(slot) => Some((u64::from(slot.length), slot.crc64)),
            Chunk::InFlight { .. } => None,
        });
        let whole = durable.reduce(|(length, sum), (part, crc64)| (length + part, crc64_combine(sum, crc64, part)));
        let (length, checksum) = whole.unwrap_or((0, CRC64_EMPTY));
        Fingerprint { length, checksum }
    }
}

/// Those slots that make up the bytes with that fingerprint, or the youngest of each chunk; each chunk once, from the first on
/// to the first that is missing.
///
/// Whoever stores an image anew begins with its first chunk. So of two attempts that a start finds, the older one is the
/// oldest slot of every chunk, and the younger one the youngest.
fn version_of(mut slots: Vec<Slot>, fingerprint: Option<Fingerprint>) -> Option<Vec<Slot>> {
    slots.sort_unstable_by_key(|slot| (slot.chunk, slot.birth));
    let of_chunks = || slots.chunk_by(|one, next| one.chunk == next.chunk).zip(0..);
    let chain = |pick: fn(&[Slot]) -> Option<&Slot>| -> Vec<Slot> {
        of_chunks()
            .map_while(|(versions, number)| pick(versions).filter(|slot| slot.chunk == number))
            .copied()
            .collect()
    };
    let (youngest, oldest) = (chain(<[Slot]>::last), chain(<[Slot]>::first));
    match fingerprint {
        None => Some(youngest),
        Some(wanted) => [youngest, oldest].into_iter().find(|slots| sum_of(slots.iter().copied()) == wanted),
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

#[cfg(test)]
mod tests {
    use super::{sum_of, version_of};
    use crate::io::{Extent, FileId};
    use crate::store::slot::{Slot, blocks_for};
    use proto::ids::{ImageId, Sequence, SessionId};

    fn slot(chunk: u32, birth: u64) -> Slot {
        Slot {
            image: ImageId { session: SessionId(1), sequence: Sequence(1) },
            chunk,
            length: 10,
            crc32: 0,
            crc64: birth * 100 + u64::from(chunk),
            extent: Extent { file: FileId(1), block: birth as u32, blocks: blocks_for(10) },
            birth,
        }
    }

    #[test]
    fn of_two_attempts_the_wanted_one_is_put_together() {
        let whole = [slot(0, 1), slot(1, 2), slot(2, 3)];
        let begun_anew = [slot(0, 7), slot(1, 8)];
        let found: Vec<Slot> = begun_anew.iter().chain(&whole).copied().collect();
        let older = sum_of(whole.iter().copied());
        assert_eq!(version_of(found.clone(), Some(older)), Some(whole.to_vec()));
        let younger = [slot(0, 7), slot(1, 8), slot(2, 3)];
        assert_eq!(version_of(found.clone(), Some(sum_of(younger.iter().copied()))), Some(younger.to_vec()));
        assert_eq!(version_of(found.clone(), None), Some(younger.to_vec()));
        assert_eq!(version_of(found, Some(sum_of([slot(0, 1)].into_iter()))), None);
        assert_eq!(version_of(vec![slot(1, 2)], None), Some(Vec::new()), "a version begins with the first chunk");
    }
}
