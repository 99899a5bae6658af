//! A leader that others do better without: its log went bad on its disk, or has no room. It hands leadership over (Ongaro,
//! "Consensus: Bridging Theory and Practice", 3.10), and no other that is as badly off takes it.

use std::cmp::Reverse;

use proto::peer::RaftMessage;
use raft::ProgressState;
use raft::eraftpb::MessageType;

use super::RaftManager;
use crate::consensus::convert;
use crate::io::DiskError;
use crate::limits::{HAND_OVER_TICKS, LOG_ROOM_LOW_BYTES};

/// When leadership is handed over, and to whom.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HandOver {
    wait_ticks: u32,
    attempts: usize,
    unfit_ticks: u32, // since when this node leads without room for its log
    // The disk refused the last segment that was asked for, and since then a batch of records had no room.
    refused: bool,
    starved: bool,
}

impl HandOver {
    /// Whether the disk refused the last segment that was asked for.
    pub fn refused(&self) -> bool {
        self.refused
    }
}

impl RaftManager {
    /// Why another node is to lead, if one can.
    fn unfit(&self) -> Option<&'static str> {
        if self.rotten_upto().is_some() {
            Some("its log went bad on disk")
        } else if self.lacks_room() {
            Some("its log has no room")
        } else {
            None
        }
    }

    /// Whether another node is to lead, if one can.
    pub(super) fn is_unfit(&self) -> bool {
        self.unfit().is_some()
    }

    fn lacks_room(&self) -> bool {
        let log = self.raw.store();
        let is_low = || log.room_bytes() < log.waiting_bytes() + LOG_ROOM_LOW_BYTES;
        self.hand_over.refused && (self.hand_over.starved || is_low())
    }

    /// Whether the log has no room, and there was time enough to ask every other voter to lead instead: then nothing that does
    /// not fit can be recorded until somebody frees space.
    pub fn is_out_of_room(&self) -> bool {
        self.lacks_room() && self.hand_over.unfit_ticks as usize >= (self.voters.len() - 1) * HAND_OVER_TICKS as usize
    }

    /// Whether enough of the others for a majority have all that is committed. Others that have no room either lag: were
    /// leadership handed over then, nobody could be elected, for a node whose log waits for room cannot vote.
    fn can_do_without_this_node(&self) -> bool {
        let committed = self.raw.raft.raft_log.committed;
        let has_all = |node: &u64| {
            let progress = self.raw.raft.prs().get(*node);
            progress.is_some_and(|progress| progress.recent_active && progress.matched >= committed)
        };
        let others = self.voters.iter().map(|voter| voter.0).filter(|node| *node != self.node.0);
        others.filter(has_all).count() > self.voters.len() / 2
    }

    /// The disk gave a segment, or did not.
    pub(super) fn note_room(&mut self, result: Result<(), DiskError>) {
        self.hand_over.refused = result.is_err();
        if result.is_ok() {
            self.hand_over = HandOver { unfit_ticks: 0, starved: false, ..self.hand_over };
        }
    }

    /// A batch of records did not fit into what is left of a full disk.
    pub(super) fn note_starved(&mut self) {
        self.hand_over.starved = true;
    }

    /// Whether a message is for this node: a leader that hands over does not know who is unfit.
    pub(super) fn takes_as_it_is(&self, message: &RaftMessage) -> bool {
        convert::kind_of(message.kind) != Some(MessageType::MsgTimeoutNow) || !self.is_unfit()
    }

    /// As leader that is unfit: hands leadership over to the voter whose log goes furthest, and if nothing comes of it, to
    /// another one some time later. Until an attempt is over, nothing can be proposed.
    pub(super) fn hand_over_if_unfit(&mut self) {
        self.hand_over.wait_ticks = self.hand_over.wait_ticks.saturating_sub(1);
        let leads_without_room = self.is_serving() && self.lacks_room();
        self.hand_over.unfit_ticks = if leads_without_room { self.hand_over.unfit_ticks.saturating_add(1) } else { 0 };
        if self.hand_over.wait_ticks > 0 || !self.is_serving() {
            return;
        }
        let Some(reason) = self.unfit() else { return };
        if self.rotten_upto().is_none() && !self.can_do_without_this_node() {
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
        let attempts = self.hand_over.attempts + 1;
        self.hand_over = HandOver { wait_ticks: HAND_OVER_TICKS, attempts, ..self.hand_over };
        if heirs.is_empty() {
            return;
        }
        let (_, heir) = heirs[(attempts - 1) % heirs.len()];
        tracing::info!(node = %self.node, heir, reason, "hands leadership over");
        self.raw.transfer_leader(heir);
    }
}
