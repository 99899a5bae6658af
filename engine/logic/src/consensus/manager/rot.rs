//! A log that goes bad on its disk while this node runs: reading it again, and handing leadership over until a snapshot stands
//! for what went bad. Why nothing else is needed: `log::scrub`.

use std::cmp::Reverse;

use proto::ids::LogIndex;
use proto::peer::RaftMessage;
use raft::ProgressState;
use raft::eraftpb::MessageType;

use super::RaftManager;
use crate::consensus::convert;
use crate::io::{DiskError, Effect};
use crate::limits::HAND_OVER_TICKS;

/// When leadership is handed over, and to whom.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    wait_ticks: u32,
    attempts: usize,
}

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

    /// Whether a message is for a node whose log is rotten: a leader that hands over does not know.
    pub(super) fn takes_while_rotten(&self, message: &RaftMessage) -> bool {
        convert::kind_of(message.kind) != Some(MessageType::MsgTimeoutNow) || self.rotten_upto().is_none()
    }

    /// As leader with a rotten log: hands leadership over to the voter whose log goes furthest, and if nothing comes of it,
    /// to another one some time later. Until an attempt is over, nothing can be proposed.
    pub(super) fn hand_over_if_rotten(&mut self) {
        self.hand_over.wait_ticks = self.hand_over.wait_ticks.saturating_sub(1);
        if self.hand_over.wait_ticks > 0 || self.rotten_upto().is_none() || !self.is_serving() {
            return;
        }
        let is_heir = |node: u64| self.voters.iter().any(|voter| voter.0 == node) && node != self.node.0;
        let mut heirs: Vec<(Reverse<(bool, u64)>, u64)> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(node, progress)| is_heir(**node) && progress.state == ProgressState::Replicate)
            .map(|(node, progress)| (Reverse((progress.recent_active, progress.matched)), *node))
            .collect();
        heirs.sort_unstable();
        if heirs.is_empty() {
            return;
        }
        let (_, heir) = heirs[self.hand_over.attempts % heirs.len()];
        self.hand_over = HandOver { wait_ticks: HAND_OVER_TICKS, attempts: self.hand_over.attempts + 1 };
        tracing::info!(node = %self.node, heir, "hands leadership over, since its log went bad on disk");
        self.raw.transfer_leader(heir);
    }
}
