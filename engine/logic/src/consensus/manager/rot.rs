//! A log that goes bad on its disk while this node runs: reading it again. Leadership is handed over (`hand_over`) until a
//! snapshot stands for what went bad. Why nothing else is needed: `log::scrub`.

use proto::ids::LogIndex;

use super::RaftManager;
use crate::io::{DiskError, Effect};

impl RaftManager {
    /// Begins to read the log again, from its first entry to its last durable one.
    pub fn begin_scrub(&mut self) {
        self.raw.mut_store().begin_scrub();
    }

    /// Whether not all of it was read yet.
    pub fn is_scrubbing(&self) -> bool {
        self.raw.store().is_scrubbing()
    }

    /// So many bytes of it may be asked for from now on.
    pub fn allow_scrub(&mut self, bytes: u32) {
        self.scrub_bytes = bytes;
    }

    /// The entry up to which a snapshot must reach to stand for what went bad of the log on disk; `None` if nothing did.
    pub fn rotten_upto(&self) -> Option<LogIndex> {
        self.raw.store().rot().map(|rot| rot.upto)
    }

    pub(super) fn ask_scrub(&mut self, effects: &mut Vec<Effect>) {
        if self.scrub_bytes == 0 || self.scrub_ticket.is_some() {
            return;
        }
        let Some(read) = self.raw.mut_store().take_scrub() else { return };
        let ticket = self.next_ticket();
        self.scrub_ticket = Some(ticket);
        self.scrub_bytes = self.scrub_bytes.saturating_sub(read.length);
        let (segment, offset, length) = (read.segment, read.offset, read.length);
        effects.push(Effect::LogRead { ticket, segment, offset, length });
    }

    pub(super) fn on_scrub_read(&mut self, bytes: Result<&[u8], DiskError>) {
        self.scrub_ticket = None;
        self.raw.mut_store().on_scrubbed(bytes);
    }
}
