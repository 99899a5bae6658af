//! Uploads that will not be stored: what is told to whom, and what becomes of the bytes.
//!
//! Every refusal and every cancel names the bytes it means: while somebody sends others under the same id, what is said
//! of one is not taken for the other.

use proto::error::Refusal;
use proto::ids::{Address, ImageId};
use proto::peer::{Lane, PeerMessage, Upload};

use super::Home;
use super::upload::Uploading;
use crate::context::Context;
use crate::store::chunks::ChunkId;

impl Home {
    /// A further holder will not store the bytes: another one is tried.
    pub fn on_refused(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        (image, checksum): (ImageId, u64),
        refusal: Refusal,
    ) {
        let upload = self.objects.get_mut(&image).and_then(|object| object.upload.as_mut());
        let Some(upload) = upload.filter(|upload| upload.is_of(checksum)) else { return };
        if upload.others.iter().any(|other| other.address == from) {
            tracing::debug!(%image, %from, ?refusal, "a holder refused");
            if refusal == Refusal::NoSpace {
                upload.full.push(from.node);
            }
            if !upload.replace(cx, from.node) && refusal == Refusal::NoSpace {
                let text = format!("no node has room for a further copy of image {image}; free space or add disks");
                return self.give_up(cx, image, refusal, &text);
            }
            self.advance(cx, image);
        }
    }

    /// The upload was refused elsewhere.
    pub fn on_cancel(&mut self, cx: &mut Context<'_>, (image, checksum): (ImageId, u64)) {
        let Some(object) = self.objects.get(&image) else { return };
        let is_undecided = |upload: &Uploading| upload.complete_us.is_none() && upload.is_of(checksum);
        let undecided = object.upload.as_deref().is_some_and(is_undecided);
        if object.claims.is_empty() && object.before.is_empty() && undecided {
            self.cancel_others(cx, image);
            self.drop_object(cx, image);
        }
    }

    /// The image was refused for good.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, image: ImageId, refusal: Refusal, text: &str) {
        self.cancel_others(cx, image);
        let object = self.objects.get_mut(&image).expect("the caller found it");
        let upload = object.upload.as_ref().expect("only an upload is refused");
        upload.tell_sources(cx, refusal, text);
        // Another home, or the leader, was told that the bytes are here, and counts on them: of this upload, or of an earlier
        // one, whose bytes were given back for these.
        let was_counted_on = object.may_be_relied_on && object.before.is_empty();
        let has_other_home = || upload.sources.iter().any(|source| !source.is_ingest && source.address != cx.me);
        let is_counted_on = upload.complete_us.is_some() && (was_counted_on || upload.is_told || has_other_home());
        if is_counted_on || matches!(refusal, Refusal::AlreadyFinished | Refusal::SessionUnknown) {
            // A record that this node has not applied yet may name it all the same. What is applied will tell.
            object.may_be_relied_on |= is_counted_on;
            self.settle(image);
        } else if object.claims.is_empty() && object.before.is_empty() {
            self.drop_object(cx, image);
        } else if object.claims.is_empty() {
            self.restore(cx, image, None);
        } else {
            self.settle(image);
        }
    }

    pub(super) fn cancel_others(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let Some(upload) = self.objects.get(&image).and_then(|object| object.upload.as_ref()) else { return };
        let (_, checksum) = upload_of(&upload.spec);
        for other in &upload.others {
            cx.send_on(Lane::Holder, other.address, PeerMessage::UploadCancel { image, checksum });
        }
    }

    /// These chunks have no place on this node's disk.
    pub(super) fn refuse_for_space(&mut self, cx: &mut Context<'_>, chunks: Vec<ChunkId>) {
        for id in chunks {
            if self.objects.get(&id.image).is_some_and(|object| object.life == id.life && object.upload.is_some()) {
                let text = format!("no space: node {} has no room for a further chunk file", cx.me.node);
                self.give_up(cx, id.image, Refusal::NoSpace, &text);
            }
        }
    }
}

impl Uploading {
    /// Tells all who send the bytes.
    fn tell_sources(&self, cx: &mut Context<'_>, refusal: Refusal, text: &str) {
        for source in &self.sources {
            refuse(cx, source.address, upload_of(&self.spec), refusal, text.to_owned());
        }
    }

    /// Tells the senders of the image why it is not accepted yet: they try again, as long as they have time.
    pub(super) fn tell_senders(&self, cx: &mut Context<'_>, refusal: Refusal, text: &str) {
        for source in self.sources.iter().filter(|source| source.is_ingest) {
            refuse(cx, source.address, upload_of(&self.spec), refusal, text.to_owned());
        }
    }
}

/// The image, and which bytes under its id.
pub(super) fn upload_of(spec: &Upload) -> (ImageId, u64) {
    (spec.image, spec.fingerprint.checksum)
}

/// Tells whoever sends those bytes that they will not be stored.
pub(super) fn refuse(
    cx: &mut Context<'_>,
    to: Address,
    (image, checksum): (ImageId, u64),
    refusal: Refusal,
    text: String,
) {
    tracing::trace!(%image, %to, ?refusal, text, "refused");
    cx.send(to, PeerMessage::UploadRefused { image, checksum, refusal, text });
}

#[cfg(test)]
mod tests {
    use proto::error::Refusal;

    use super::super::test_world::{INGEST, ME, World, core_of_node};

    /// Promise P2: the home of the image noticed that this core holds it, and died. Whether the record becomes committed is open.
    #[test]
    fn bytes_that_another_home_counts_on_stay_however_often_they_are_sent_again_and_refused_elsewhere() {
        let mut world = World::new();
        let (dead, full) = (core_of_node(2), core_of_node(3));
        world.upload(dead, [dead, ME]);
        world.see(&[1, 3]);
        for attempt in 1..=3 {
            world.upload(INGEST, [ME, full]);
            world.refuse(full, Refusal::NoSpace);
            assert!(world.stored_bytes() > 0, "after attempt {attempt}");
        }
        assert!(world.is_held_for_its_record());
    }

    #[test]
    fn bytes_that_nobody_counts_on_go_when_no_node_has_room_for_a_copy() {
        let mut world = World::new();
        world.see(&[1, 3]);
        world.upload(INGEST, [ME, core_of_node(3)]);
        assert!(world.stored_bytes() > 0);
        world.refuse(core_of_node(3), Refusal::NoSpace);
        assert_eq!(world.stored_bytes(), 0);
    }
}
