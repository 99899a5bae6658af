//! Snapshots of this node: when one is made, how it is written without stopping commits, which are kept, and how the ones
//! kept are given to nodes that lag.
//!
//! ```text
//! due -> freeze -> piece, write, piece, write ... end -> finish -> kept -> older ones removed, the log behind them forgotten
//! ```
//! The log is kept from the oldest snapshot on, so that a newer one that cannot be read costs nothing.

use std::collections::BTreeMap;

use proto::codec::{Encoder, encode_piece};
use proto::ids::{Address, ClusterId, LogIndex};
use proto::limits::SNAPSHOT_PART_BYTES_MAX;
use proto::peer::PeerMessage;

use crate::consensus::RaftManager;
use crate::context::Context;
use crate::io::{DiskError, Effect, Ticket};
use crate::limits::{SNAPSHOT_AGAIN_US, SNAPSHOT_PINNED_US, SNAPSHOT_READS_MAX, SNAPSHOT_TICK_BYTES, SNAPSHOTS_KEPT};
use crate::log::SnapshotMark;
use crate::snapshot::SnapshotHeader;
use crate::snapshot::layout::put_piece;
use crate::state::State;

/// A snapshot that is durable here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub mark: SnapshotMark,
    pub bytes: u64,
    pub read_us: u64, // when another node last asked for a part of it; 0 if never
}

/// The one that is being made.
struct Making {
    mark: SnapshotMark,
    seed: u32,
    items: u64,  // in the state, as it is written
    number: u64, // of the next piece
    offset: u64,
    under_way: Option<Ticket>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Writing,
    Written,
    Finishing,
}

/// A part that is read for another node.
struct Read {
    to: Address,
    mark: SnapshotMark,
    offset: u64,
}

/// See the top of this file.
pub(super) struct Snapshots {
    kept: Vec<Kept>,      // ascending
    items: u64,           // in the newest
    bad: Vec<LogIndex>,   // of no use
    is_one_missing: bool, // since it went bad
    making: Option<Making>,
    budget: u64,     // bytes that may still be written in this tick
    log_bytes: u64,  // behind the last one, before another is made
    log_before: u64, // of the log behind the newest when this process began
    log_at: u64,     // written by this process when the last one was begun
    again_us: u64,
    begun_us: u64, // the last one by this process
    reads: BTreeMap<Ticket, Read>,
    encoder: Encoder,
}

impl Snapshots {
    /// With those found at start, ascending, those of them that cannot be read, and the items in the newest. Of `segment_bytes` each is a segment; nodes with other `number`s do not all
    /// make theirs at the same moment.
    pub fn new(
        (kept, bad, items): (Vec<Kept>, Vec<LogIndex>, u64),
        segment_bytes: u32,
        number: u64,
        log_before: u64,
    ) -> Snapshots {
        let half = u64::from(segment_bytes) / 2;
        Snapshots {
            kept,
            items,
            bad,
            is_one_missing: false,
            making: None,
            budget: 0,
            log_bytes: half + half / 4 * (number % 4) / 4,
            log_before,
            log_at: 0,
            again_us: 0,
            begun_us: 0,
            reads: BTreeMap::new(),
            encoder: Encoder::new(),
        }
    }

    /// Bytes that all may come to take: those that are kept, and the next one, each larger than the last.
    pub fn bytes_bound(&self) -> u64 {
        let newest = self.newest().map_or(0, |kept| kept.bytes);
        (SNAPSHOTS_KEPT as u64 + 1) * (newest + newest / 4)
    }

    /// Bytes of all that are kept, and whether one is being made.
    pub fn standing(&self) -> (u64, bool) {
        (self.kept.iter().map(|kept| kept.bytes).sum(), self.making.is_some())
    }

    /// The newest.
    pub fn newest(&self) -> Option<Kept> {
        self.kept.last().copied()
    }

    /// Time passes: begins one if it is due, and goes on with the one that is being made.
    pub fn on_tick(&mut self, cx: &mut Context<'_>, state: &mut State, manager: &RaftManager) {
        self.budget = SNAPSHOT_TICK_BYTES;
        if self.making.is_none() && cx.now.mono_us >= self.again_us && self.is_due(cx.now.mono_us, state, manager) {
            self.begun_us = cx.now.mono_us;
            self.begin(state, manager);
        }
        self.go_on(cx, state);
    }

    /// A snapshot costs its own size; the log behind the last one is to be at least as large. Most of it is one item for each
    /// undelivered image: when they were received, the next one is small, and so is to be the log that is kept.
    fn is_due(&self, now_us: u64, state: &State, manager: &RaftManager) -> bool {
        let newest = self.newest();
        let (index, bytes) = newest.map_or((LogIndex(0), 0), |kept| (kept.mark.index, kept.bytes));
        let items = items_of(state);
        let shrunk = bytes.saturating_mul(items).checked_div(self.items).unwrap_or(bytes);
        let worth = self.log_bytes.max(bytes.min(shrunk));
        let behind = self.log_before + manager.log_bytes_written() - self.log_at;
        let log_bytes = manager.log_stats().entry_bytes;
        let is_soon = now_us < self.begun_us + SNAPSHOT_AGAIN_US;
        let is_rotten = manager.rotten_upto().is_some_and(|upto| index < upto && upto <= state.applied());
        state.cluster() != ClusterId::UNKNOWN
            && state.applied() > index
            && (is_rotten
                || self.is_one_missing
                || is_log_worth_one(behind, log_bytes, worth)
                || (!is_soon && is_log_out_of_proportion(log_bytes, worth, (self.items, items))))
    }

    /// What went bad of the log on disk is not missed once a snapshot stands for it: the log is forgotten up to that.
    pub fn cover_rot(&self, cx: &mut Context<'_>, manager: &mut RaftManager) {
        let (Some(upto), Some(newest)) = (manager.rotten_upto(), self.newest()) else { return };
        let index = newest.mark.index;
        if index < upto {
            return;
        }
        tracing::info!(%index, "the log is whole again: a snapshot stands for what went bad of it");
        if let Some(end) = manager.compact(index) {
            cx.out.push(Effect::SegmentsRetire { end });
        }
    }

    /// The first that is kept behind that index.
    pub fn kept_behind(&self, index: LogIndex) -> Option<SnapshotMark> {
        self.kept.iter().map(|kept| kept.mark).find(|mark| mark.index > index)
    }

    /// Whether that one is kept.
    pub fn is_kept(&self, mark: SnapshotMark) -> bool {
        self.kept.iter().any(|kept| kept.mark == mark)
    }

    /// One that is kept went bad: it is as good as none, and another one is made.
    pub fn drop_bad(&mut self, mark: SnapshotMark) {
        self.kept.retain(|kept| kept.mark != mark);
        self.bad.push(mark.index);
        self.is_one_missing = true;
    }

    fn begin(&mut self, state: &mut State, manager: &RaftManager) {
        let Some(mark) = manager.mark_of(state.applied()) else { return };
        state.freeze();
        (self.log_before, self.log_at) = (0, manager.log_bytes_written());
        let header = SnapshotHeader { mark, cluster: state.cluster() };
        let (seed, items, number) = (header.seed(), items_of(state), 0);
        self.making = Some(Making { mark, seed, items, number, offset: 0, under_way: None, phase: Phase::Writing });
        tracing::debug!(index = mark.index.0, "a snapshot is begun");
    }

    /// Writes the next piece, if none is being written and there is budget left.
    fn go_on(&mut self, cx: &mut Context<'_>, state: &mut State) {
        let Some(making) = self.making.as_mut().filter(|making| making.under_way.is_none()) else { return };
        let ticket = match making.phase {
            Phase::Writing if self.budget == 0 => return,
            Phase::Finishing => return,
            Phase::Writing | Phase::Written => cx.tickets.next(),
        };
        let index = making.mark.index;
        making.under_way = Some(ticket);
        if making.phase == Phase::Written {
            making.phase = Phase::Finishing;
            return cx.out.push(Effect::SnapshotFinish { ticket, index });
        }
        let mut bytes = Vec::new();
        if making.offset == 0 {
            let header = SnapshotHeader { mark: making.mark, cluster: state.cluster() };
            bytes.extend_from_slice(&header.encode());
        }
        let piece = loop {
            match state.take_piece() {
                Some(piece) if piece.head.is_none() && piece.items() == 0 => {}
                other => break other,
            }
        };
        match piece {
            Some(piece) => {
                put_piece(making.seed, making.number, Some(encode_piece(&mut self.encoder, &piece)), &mut bytes);
            }
            None => {
                put_piece(making.seed, making.number, None, &mut bytes);
                making.phase = Phase::Written;
            }
        }
        let offset = making.offset;
        making.number += 1;
        making.offset += bytes.len() as u64;
        self.budget = self.budget.saturating_sub(bytes.len() as u64);
        cx.out.push(Effect::SnapshotWrite { ticket, index, offset, bytes });
    }

    /// A write of the one that is being made is done; false if it was not that one's.
    pub fn on_written(
        &mut self,
        cx: &mut Context<'_>,
        state: &mut State,
        (ticket, result): (Ticket, Result<(), DiskError>),
    ) -> bool {
        let Some(making) = self.making.as_mut().filter(|making| making.under_way == Some(ticket)) else { return false };
        making.under_way = None;
        match result {
            Ok(()) => self.go_on(cx, state),
            Err(_) => self.give_up(cx, state),
        }
        true
    }

    /// The one that was made is durable, or had no room; false if it was another.
    pub fn on_finished(
        &mut self,
        cx: &mut Context<'_>,
        (state, manager): (&mut State, &mut RaftManager),
        (ticket, result): (Ticket, Result<(), DiskError>),
    ) -> bool {
        let Some(making) = self.making.take_if(|making| making.under_way == Some(ticket)) else { return false };
        match result {
            Ok(()) => {
                tracing::info!(index = making.mark.index.0, bytes = making.offset, "a snapshot was made");
                self.keep(cx, manager, Kept { mark: making.mark, bytes: making.offset, read_us: 0 }, making.items);
            }
            Err(_) => {
                self.making = Some(making);
                self.give_up(cx, state);
            }
        }
        true
    }

    /// Ends the one that is being made, if there is one.
    pub fn give_up(&mut self, cx: &mut Context<'_>, state: &mut State) {
        let Some(making) = self.making.take() else { return };
        tracing::warn!(index = making.mark.index.0, "a snapshot was given up; it is tried again");
        state.thaw();
        self.again_us = cx.now.mono_us + SNAPSHOT_AGAIN_US;
        cx.out.push(Effect::SnapshotRemove { index: making.mark.index });
    }

    /// Those that are of no use.
    pub fn unusable(&self) -> &[LogIndex] {
        &self.bad
    }

    /// One more is durable here, of so many items: older ones are removed, and the log that only they needed.
    pub fn keep(&mut self, cx: &mut Context<'_>, manager: &mut RaftManager, new: Kept, items: u64) {
        self.kept.push(new);
        self.items = items;
        self.is_one_missing = false;
        let is_read = |kept: &Kept| kept.read_us > 0 && cx.now.mono_us < kept.read_us + SNAPSHOT_PINNED_US;
        while self.kept.len() > SNAPSHOTS_KEPT && (self.kept.len() > SNAPSHOTS_KEPT + 1 || !is_read(&self.kept[0])) {
            let index = self.kept.remove(0).mark.index;
            cx.out.push(Effect::SnapshotRemove { index });
        }
        if self.kept.len() < SNAPSHOTS_KEPT {
            return;
        }
        // Nobody needs to look at those any more.
        for index in std::mem::take(&mut self.bad)
            .into_iter()
            .filter(|index| self.kept.iter().all(|kept| kept.mark.index != *index))
        {
            cx.out.push(Effect::SnapshotRemove { index });
        }
        if let Some(end) = manager.compact(self.kept[0].mark.index) {
            cx.out.push(Effect::SegmentsRetire { end });
        }
    }

    /// A node that lags asks for a part.
    pub fn on_ask(&mut self, cx: &mut Context<'_>, to: Address, mark: SnapshotMark, offset: u64) {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.mark == mark) else {
            return cx.send(to, PeerMessage::SnapshotGone { index: mark.index, term: mark.term });
        };
        if self.reads.len() >= SNAPSHOT_READS_MAX {
            return;
        }
        kept.read_us = cx.now.mono_us.max(1);
        let ticket = cx.tickets.next();
        self.reads.insert(ticket, Read { to, mark, offset });
        let length = SNAPSHOT_PART_BYTES_MAX as u32;
        cx.out.push(Effect::SnapshotRead { ticket, index: mark.index, offset, length });
    }

    /// A part was read.
    pub fn on_read(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<Vec<u8>, DiskError>) {
        let Read { to, mark, offset } = self.reads.remove(&ticket).expect("the read was asked for");
        let SnapshotMark { index, term } = mark;
        match result {
            Ok(data) => cx.send(to, PeerMessage::SnapshotPart { index, term, offset, data }),
            Err(error) => {
                if error != DiskError::Refused && self.is_kept(mark) {
                    self.drop_bad(mark);
                }
                cx.send(to, PeerMessage::SnapshotGone { index, term });
            }
        }
    }
}

/// Whether so much log was written `behind` the last snapshot, or is `kept` in all, that another one is worth it. What is kept
/// begins with the snapshot before the last, hence twice as far back; but no two are close to each other, or hardly any log
/// would be left for a node that lags a little, and for whoever follows the log.
fn is_log_worth_one(behind: u64, kept: u64, worth: u64) -> bool {
    behind >= worth || (behind >= worth / 2 && kept >= 2 * worth)
}

/// Whether more log is kept than such a state is worth, since it shrank to less than half of what it was: to acknowledge images
/// takes little log, so that what it took to accept them would stay for long. Ends by itself: the next one has as many as there are.
fn is_log_out_of_proportion(kept: u64, worth: u64, (before, now): (u64, u64)) -> bool {
    now.saturating_mul(2) < before && kept >= 2 * worth
}

/// How many items a snapshot of this state would have, but for those of finished images.
pub(super) fn items_of(state: &State) -> u64 {
    let (clients, sessions, undelivered) = state.counts();
    clients + sessions + undelivered + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_never_close_to_each_other_however_much_log_came_at_once() {
        let worth = 1 << 20;
        let (mut before, mut last) = (0, 0); // where the last two were made
        for written in (0..64 * worth).step_by(3 * worth as usize / 7) {
            if is_log_worth_one(written - last, written - before, worth) {
                assert!(written - last >= worth / 2);
                (before, last) = (last, written);
            }
            assert!(written - before < 3 * worth);
        }
        // One burst of four times as much: one snapshot, not one more at once, and one more halfway.
        assert!(is_log_worth_one(4 * worth, 4 * worth, worth));
        assert!(!is_log_worth_one(0, 4 * worth, worth) && !is_log_worth_one(worth / 2 - 1, 4 * worth, worth));
        assert!(is_log_worth_one(worth / 2, 4 * worth, worth) && !is_log_worth_one(worth / 2, worth, worth));
    }

    #[test]
    fn log_of_images_that_were_received_does_not_stay_because_little_comes_behind_it() {
        let worth = 1 << 20;
        assert!(is_log_out_of_proportion(2 * worth, worth, (1_000_000, 499_999)));
        assert!(!is_log_out_of_proportion(2 * worth - 1, worth, (1_000_000, 1)), "it is small");
        assert!(!is_log_out_of_proportion(9 * worth, worth, (1_000_000, 500_000)), "the next one would be as large");
        assert!(!is_log_out_of_proportion(9 * worth, worth, (1, 1)), "nothing shrank");
    }
}
