//! A member that lags behind the log of its leader: what the leader offers, and how this node begins anew behind a snapshot.

use std::collections::BTreeSet;

use proto::ids::{Address, CoreId, Holder, ImageId, LogIndex};
use proto::peer::PeerMessage;

use super::incoming::{Fate, Incoming};
use super::running::Running;
use super::snapshots::{Kept, items_of};
use super::{cores_here, group_of};
use crate::context::Context;
use crate::identity::Identity;
use crate::io::{CoreNote, DiskError, Effect, Ticket};
use crate::log::SnapshotMark;
use crate::mutant::Mutant;
use crate::shard::ShardConfig;
use crate::state::State;

/// So exactly is it told how much log and snapshots may grow.
const GROWTH_STEP_BYTES: u64 = 16 << 20;

impl Running {
    /// Bytes that log and snapshots may come to take beside what they have: the log as long as the larger of its bound and the
    /// newest snapshot, with the segment that is prepared and the spare one.
    pub(super) fn log_growth_bytes(&self, config: &ShardConfig) -> u64 {
        let (segment, snapshots) = (u64::from(config.segment_bytes), self.snapshots.bytes_bound());
        let bound = 6 * segment + snapshots + snapshots;
        let taken = self.manager.log_stats().segments * segment + self.snapshots.standing().0;
        bound.saturating_sub(taken).next_multiple_of(GROWTH_STEP_BYTES)
    }

    /// As leader: offers the newest snapshot to members that lack what the log has no more.
    pub(super) fn offer(&mut self, cx: &mut Context<'_>) {
        for node in self.manager.take_lagging() {
            let Some(Kept { mark, .. }) = self.snapshots.newest() else { continue };
            cx.send(group_of(node), PeerMessage::SnapshotOffer { index: mark.index, term: mark.term });
        }
    }

    /// A leader offers a snapshot.
    pub(super) fn on_offer(&mut self, cx: &mut Context<'_>, from: Address, mark: SnapshotMark) {
        if self.state.ring().member(from.node).is_none() && !self.members.contains(&from.node) {
            return;
        }
        if !self.manager.lacks(mark) {
            // It does not know yet how far this log goes.
            let last = self.manager.state().last;
            if last >= mark.index {
                cx.send(from, PeerMessage::HealAsk { nonce: 0, last });
            }
            return;
        }
        if self.incoming.is_none() && self.manager.knows_term_of(mark) {
            self.snapshots.give_up(cx, &mut self.state);
            self.incoming = Some(Incoming::new(cx, from, mark, self.cluster, self.mutant));
        }
    }

    /// A part of one came.
    pub(super) fn on_part(&mut self, cx: &mut Context<'_>, from: Address, place: (SnapshotMark, u64), data: Vec<u8>) {
        if let Some(incoming) = &mut self.incoming {
            let fate = incoming.on_part(cx, from, place, data);
            self.meet(cx, fate);
        }
    }

    /// The source has it no more.
    pub(super) fn on_gone(&mut self, cx: &mut Context<'_>, from: Address, mark: SnapshotMark) {
        if let Some(incoming) = &self.incoming {
            let fate = incoming.on_gone(from, mark);
            self.meet(cx, fate);
        }
    }

    /// Time passes.
    pub(super) fn on_snapshot_tick(&mut self, cx: &mut Context<'_>) {
        if let Some(incoming) = &mut self.incoming {
            let fate = incoming.on_tick(cx);
            self.meet(cx, fate);
        } else {
            self.snapshots.on_tick(cx, &mut self.state, &self.manager);
        }
    }

    /// A write of a snapshot is done.
    pub(super) fn on_snapshot_written(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<(), DiskError>) {
        if !self.snapshots.on_written(cx, &mut self.state, (ticket, result)) {
            self.on_incoming_done(cx, ticket, result);
        }
    }

    /// A snapshot is finished.
    pub(super) fn on_snapshot_finished(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<(), DiskError>) {
        let parts = (&mut self.state, &mut self.manager);
        if !self.snapshots.on_finished(cx, parts, (ticket, result)) {
            self.on_incoming_done(cx, ticket, result);
        }
    }

    /// What is done of one that was given up is nobody's.
    fn on_incoming_done(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<(), DiskError>) {
        if let Some(fate) = self.incoming.as_mut().and_then(|incoming| incoming.on_done(cx, ticket, result)) {
            self.meet(cx, fate);
        }
    }

    fn meet(&mut self, cx: &mut Context<'_>, fate: Fate) {
        match fate {
            Fate::Goes | Fate::Durable => {}
            Fate::Failed => {
                let incoming = self.incoming.take().expect("it has a fate");
                cx.out.push(Effect::SnapshotRemove { index: incoming.mark().index });
            }
        }
    }

    /// Takes the place of everything with a snapshot that has come, as soon as nothing is under way. Whether it did.
    pub(super) fn try_install(&mut self, cx: &mut Context<'_>, identity: &Identity) -> bool {
        let Some(mark) = self.incoming.as_ref().filter(|incoming| incoming.is_durable()).map(Incoming::mark) else {
            return false;
        };
        if !self.manager.lacks(mark) {
            // The log came first, or another term.
            self.manager.pause(false);
            self.meet(cx, Fate::Failed);
            return false;
        }
        if self.manager.knows_term_of(mark) {
            self.manager.pause(true);
        }
        if !self.manager.is_paused() || !self.manager.is_quiet() {
            return false;
        }
        let incoming = self.incoming.take().expect("it was there above");
        let (source, bytes) = (incoming.source(), incoming.bytes());
        tracing::info!(index = mark.index.0, bytes, "goes on behind a snapshot of another node");
        self.manager.begin_behind(mark);
        let before = std::mem::replace(&mut self.state, incoming.into_state());
        if !self.mutant.is(Mutant::InstallForgetsClaims) {
            self.tell_difference(cx, identity, &before);
        }
        self.subscriptions.on_anew(&self.state, cx.out);
        let items = items_of(&self.state);
        self.snapshots.keep(cx, &mut self.manager, Kept { mark, bytes, read_us: 0 }, items);
        cx.send(source, PeerMessage::HealAsk { nonce: 0, last: mark.index });
        true
    }

    /// Tells the cores which bytes they are to keep now, and which not any more.
    fn tell_difference(&self, cx: &mut Context<'_>, identity: &Identity, before: &State) {
        let (node, incarnation) = (identity.node, identity.incarnation());
        let claims = |state: &State| -> BTreeSet<(LogIndex, CoreId)> {
            let of = |(index, _, _, holders): (LogIndex, ImageId, _, &[Holder])| {
                cores_here(holders, node, incarnation).map(move |core| (index, core)).collect::<Vec<_>>()
            };
            state.live_records().flat_map(of).collect()
        };
        let (old, new) = (claims(before), claims(&self.state));
        for (index, image, _, holders) in before.live_records() {
            for core in cores_here(holders, node, incarnation).filter(|core| !new.contains(&(index, *core))) {
                cx.tell(core, CoreNote::Free { image, index });
            }
        }
        for (index, image, fingerprint, holders) in self.state.live_records() {
            for core in cores_here(holders, node, incarnation).filter(|core| !old.contains(&(index, *core))) {
                cx.tell(core, CoreNote::Claim { image, index, fingerprint, receivers: Vec::new() });
            }
        }
    }
}
