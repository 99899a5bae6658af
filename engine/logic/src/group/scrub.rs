//! Reads log and snapshots again, pass after pass, at a bounded rate. What is done about rot in the log: `log::scrub`; a snapshot
//! that went bad is as good as none, and another one is made.
//!
//! ```text
//! idle -- pass_us --> log, from its first entry to its last durable one --> snapshots, the oldest first --> idle
//! ```
//! One read is under way at a time.

use proto::ids::LogIndex;
use proto::limits::SNAPSHOT_PART_BYTES_MAX;

use super::running::Running;
use crate::context::Context;
use crate::io::{DiskError, Effect, Ticket};
use crate::limits::SCRUB_GROUP_TICK_BYTES;
use crate::log::SnapshotMark;
use crate::snapshot::{Checking, SnapshotHeader};

/// How far a pass is.
pub(super) struct Scrub {
    pass_us: u64,         // between the beginnings of two passes, at least; 0 if there are none
    next_us: Option<u64>, // when the next pass begins; drawn with the first tick
    phase: Phase,
    bytes: u32, // of snapshots, that may still be asked for in this tick
    passes: u64,
}

enum Phase {
    Idle,
    Log,
    Snapshots(LogIndex), // up to this one they are read
    Snapshot(Box<Reading>),
}

/// A snapshot of which all before `offset` was good.
struct Reading {
    mark: SnapshotMark,
    offset: u64,
    checking: Checking,
    under_way: Option<Ticket>,
}

impl Scrub {
    pub fn new(pass_us: u64) -> Scrub {
        Scrub { pass_us, next_us: None, phase: Phase::Idle, bytes: 0, passes: 0 }
    }
}

impl Running {
    /// Time passes: what went bad is covered if it can be, before anything is done about it; reads on in a pass.
    pub(super) fn go_on_scrubbing(&mut self, cx: &mut Context<'_>) {
        self.snapshots.cover_rot(cx, &mut self.manager);
        let pass_us = self.scrub.pass_us;
        let next_us = *self.scrub.next_us.get_or_insert(cx.now.mono_us + pass_us);
        if matches!(self.scrub.phase, Phase::Idle) {
            if pass_us == 0 || cx.now.mono_us < next_us {
                return;
            }
            self.scrub.next_us = Some(cx.now.mono_us + pass_us);
            self.scrub.phase = Phase::Log;
            self.manager.begin_scrub();
        }
        self.scrub.bytes = SCRUB_GROUP_TICK_BYTES;
        self.manager.allow_scrub(SCRUB_GROUP_TICK_BYTES);
        if matches!(self.scrub.phase, Phase::Log) && !self.manager.is_scrubbing() {
            self.scrub.phase = Phase::Snapshots(LogIndex(0));
        }
        self.read_on(cx);
    }

    /// Asks for the next part of a snapshot, or ends the pass.
    fn read_on(&mut self, cx: &mut Context<'_>) {
        if let Phase::Snapshots(upto) = self.scrub.phase {
            let Some(mark) = self.snapshots.kept_behind(upto) else {
                self.scrub.passes += 1;
                self.scrub.phase = Phase::Idle;
                return tracing::debug!(passes = self.scrub.passes, "log and snapshots were read again");
            };
            let checking = Checking::new(SnapshotHeader { mark, cluster: self.cluster });
            self.scrub.phase = Phase::Snapshot(Box::new(Reading { mark, offset: 0, checking, under_way: None }));
        }
        let Phase::Snapshot(reading) = &mut self.scrub.phase else { return };
        let length = SNAPSHOT_PART_BYTES_MAX as u32;
        if reading.under_way.is_some() || self.scrub.bytes < length {
            return;
        }
        if !self.snapshots.is_kept(reading.mark) {
            self.scrub.phase = Phase::Snapshots(reading.mark.index);
            return; // It was removed meanwhile: the next one with the next tick.
        }
        self.scrub.bytes -= length;
        let ticket = cx.tickets.next();
        reading.under_way = Some(ticket);
        cx.out.push(Effect::SnapshotRead { ticket, index: reading.mark.index, offset: reading.offset, length });
    }

    /// A part of a snapshot was read, for the scrub or for a node that lags.
    pub(super) fn on_snapshot_read(
        &mut self,
        cx: &mut Context<'_>,
        ticket: Ticket,
        result: Result<Vec<u8>, DiskError>,
    ) {
        match &mut self.scrub.phase {
            Phase::Snapshot(reading) if reading.under_way == Some(ticket) => reading.under_way = None,
            _ => return self.snapshots.on_read(cx, ticket, result),
        }
        let Phase::Snapshot(reading) = &mut self.scrub.phase else { unreachable!("it was a line above") };
        let mark = reading.mark;
        if !self.snapshots.is_kept(mark) {
            self.scrub.phase = Phase::Snapshots(mark.index);
            return self.read_on(cx);
        }
        let fault = match result {
            // It may be good: the next pass looks again.
            Err(DiskError::Refused) => {
                self.scrub.phase = Phase::Snapshots(mark.index);
                return;
            }
            Err(error) => Some(format!("it cannot be read: {error:?}")),
            Ok(bytes) => {
                reading.offset += bytes.len() as u64;
                let is_end = bytes.len() < SNAPSHOT_PART_BYTES_MAX;
                match reading.checking.feed(&bytes) {
                    Err(error) => Some(error.to_string()),
                    Ok(()) if is_end && !reading.checking.is_whole() => Some("it is cut off".to_owned()),
                    Ok(()) => None,
                }
            }
        };
        let is_over = fault.is_some() || reading.checking.is_whole();
        if let Some(fault) = fault {
            tracing::error!(index = mark.index.0, %fault, "a snapshot went bad on disk: another one is made. Check the disk");
            self.snapshots.drop_bad(mark);
        }
        if is_over {
            self.scrub.phase = Phase::Snapshots(mark.index);
        }
        self.read_on(cx);
    }
}
