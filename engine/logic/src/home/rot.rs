//! What a home does when bytes of an upload cannot be read back for a further holder.
//!
//! Until the leader is told of them nobody relies on them, and the sender still has them: they are forgotten, and
//! the sender goes back to the rotten chunk.

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::ids::{Address, ImageId};
use proto::limits::CHUNK_BYTES_MAX;

use super::Home;
use super::upload::{Chunk, NoticeState, report};
use crate::context::Context;
use crate::io::{Body, BodyRef};
use crate::limits::RESEND_US;
use crate::store::chunks::Unread;
use crate::store::slot::blocks_for;

impl Home {
    /// A chunk for a further holder was read, or cannot be.
    pub fn on_feed_read(
        &mut self,
        cx: &mut Context<'_>,
        to: Address,
        (image, offset): (ImageId, u64),
        read: Result<Body, Unread>,
    ) {
        let upload = self.objects.get_mut(&image).and_then(|object| object.upload.as_mut());
        let checksum = upload.as_ref().map_or(0, |upload| upload.spec.fingerprint.checksum);
        if let Some(other) = upload.and_then(|upload| upload.others.iter_mut().find(|other| other.address == to)) {
            other.reading = false;
            match &read {
                Ok(body) if other.sent_end == offset => {
                    other.send(cx, (image, checksum), BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 })
                }
                Ok(_) => other.sent_us = cx.now.mono_us,
                // Not at once again, if the bytes stay.
                Err(_) => other.unread_until_us = cx.now.mono_us + RESEND_US,
            }
        }
        match read {
            Ok(body) => {
                cx.release(body.buf);
                self.advance(cx, image);
            }
            Err(Unread::Rotten(_)) => self.forget_from(cx, image, offset),
            Err(Unread::Refused) => {}
        }
    }

    /// Forgets the bytes of an upload from the chunk at `offset` on, unless somebody may rely on them.
    fn forget_from(&mut self, cx: &mut Context<'_>, image: ImageId, offset: u64) {
        let Some(object) = self.objects.get_mut(&image) else { return };
        let Some(upload) = object.upload.as_mut() else { return };
        // The leader that was told gathers holders, and a later record may name this one. That copy is rotten then; but as
        // long as the leader refuses, and the sender is there, it can become whole again.
        let is_refused = matches!(upload.notice, NoticeState::Again { .. });
        let may_become_whole = is_refused && upload.sources.iter().any(|source| source.is_ingest);
        if !object.claims.is_empty() || (upload.is_told && !may_become_whole) || upload.durable_end <= offset {
            return;
        }
        tracing::warn!(%image, offset, "a chunk of an upload cannot be read back: its sender is asked to send it again");
        // Writes under way of what is forgotten belong to the life before; below `durable_end` there are none.
        self.next_life += 1;
        object.life = self.next_life;
        for chunk in object.chunks.split_off((offset / CHUNK_BYTES_MAX as u64) as usize) {
            let blocks = u64::from(blocks_for(chunk.length()));
            self.image_bytes -= u64::from(chunk.length());
            upload.promised_blocks += blocks;
            self.chunks.space.promise(blocks);
            if let Chunk::Durable(slot) = chunk {
                self.chunks.free(slot.extent);
            }
        }
        upload.durable_sum = CRC64_EMPTY;
        for chunk in &object.chunks {
            if let Chunk::Durable(slot) = chunk {
                upload.durable_sum = crc64_combine(upload.durable_sum, slot.crc64, u64::from(slot.length));
            }
        }
        (upload.received_end, upload.durable_end, upload.complete_us) = (offset, offset, None);
        for other in &mut upload.others {
            other.sent_end = other.durable_end.max(other.sent_end.min(offset));
        }
        self.chunks.forget(cx, image);
        report(cx, image, upload);
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_world::{World, home};
    use crate::io::DiskError;
    use crate::limits::RESEND_US;

    #[test]
    fn what_cannot_be_read_for_a_further_holder_is_not_read_again_at_each_tick() {
        let (mut world, reads): (World, _) = home();
        assert!(reads.is_empty(), "they were sent on as they came");
        let count = world.fail_reads(reads, 10 * RESEND_US, DiskError::Refused);
        assert!((5..=10).contains(&count), "{count} reads in ten times the pause");
    }
}
