//! Reads stored chunks again, pass after pass, at a bounded rate: what reads wrong is repaired while another holder has it.

use proto::ids::ImageId;

use super::Home;
use super::upload::Chunk;
use crate::context::Context;
use crate::limits::{SCRUB_CHUNK_BYTES_MIN, SCRUB_TICK_BYTES};
use crate::store::chunks::ReadPurpose;

/// How far a pass is.
#[derive(Debug)]
pub(super) struct Scrub {
    pass_us: u64,               // between the beginnings of two passes, at least; 0 if there are none
    next_us: u64,               // when the next pass begins
    at: Option<(ImageId, u32)>, // the chunk read last, in a pass
    reading: u64,               // bytes
    passes: u64,                // that came to their end
}

impl Scrub {
    pub fn new(pass_us: u64, now_us: u64) -> Scrub {
        Scrub { pass_us, next_us: now_us + pass_us, at: None, reading: 0, passes: 0 }
    }
}

impl Home {
    /// Reads the next chunks of a pass.
    pub(super) fn go_on_scrubbing(&mut self, cx: &mut Context<'_>) {
        if self.scrub.at.is_none() {
            if self.scrub.pass_us == 0 || cx.now.mono_us < self.scrub.next_us {
                return;
            }
            self.scrub.next_us = cx.now.mono_us + self.scrub.pass_us;
            self.scrub.at = Some((ImageId::default(), 0));
        }
        let mut budget = SCRUB_TICK_BYTES.saturating_sub(self.scrub.reading);
        while budget > 0 {
            let Some((image, number)) = self.scrub.at else { return };
            let chunk = self.objects.get(&image).and_then(|object| object.chunks.get(number as usize));
            let Some(chunk) = chunk else {
                // The image is read, or gone.
                self.scrub.at = self.objects.claimed_after(image).map(|next| (next, 0));
                if self.scrub.at.is_none() {
                    self.scrub.passes += 1;
                    tracing::debug!(passes = self.scrub.passes, "all stored chunks were read again");
                }
                budget = budget.saturating_sub(1024);
                continue;
            };
            self.scrub.at = Some((image, number + 1));
            if let Chunk::Durable(slot) = chunk {
                let cost = u64::from(slot.length).max(SCRUB_CHUNK_BYTES_MIN);
                self.scrub.reading += cost;
                budget = budget.saturating_sub(cost);
                self.chunks.read(cx, *slot, ReadPurpose::Scrub { cost });
            }
        }
    }

    /// A chunk was read for it.
    pub fn on_scrub_read(&mut self, cost: u64) {
        self.scrub.reading -= cost;
    }
}
