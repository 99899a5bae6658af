//! A snapshot of another node on its way to this one, which lacks entries that the leader's log does not have any more.
//!
//! ```text
//! leader: offer -> ask, part, write; ask, part, write ... end -> finish -> raft begins anew behind it (`Running`)
//! ```
//! Each part is asked for when the one before it is on disk, so nothing piles up; after a broken connection it is asked for
//! again, and the source stays the same, whoever leads meanwhile. The bytes are checked and read as they come.

use proto::ids::{Address, ClusterId};
use proto::peer::PeerMessage;

use crate::context::Context;
use crate::io::{DiskError, Effect, Ticket};
use crate::limits::{SNAPSHOT_ASK_US, SNAPSHOT_ASKS_MAX};
use crate::log::SnapshotMark;
use crate::mutant::Mutant;
use crate::snapshot::{Loading, SnapshotHeader};
use crate::state::State;

/// See the top of this file.
pub(super) struct Incoming {
    from: Address,
    mark: SnapshotMark,
    offset: u64, // of the next part
    loading: Option<Loading>,
    state: Option<State>, // when all has come
    asked_us: u64,
    asks: u32, // without an answer
    under_way: Option<Ticket>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Asking,
    Writing { bytes: u64 },
    Finishing,
    Durable,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Fate {
    /// It goes on.
    Goes,
    /// It cannot go on; its file is not needed.
    Failed,
    /// It is durable.
    Durable,
}

impl Incoming {
    /// Begins to ask for it.
    pub fn new(
        cx: &mut Context<'_>,
        from: Address,
        mark: SnapshotMark,
        cluster: ClusterId,
        mutant: Mutant,
    ) -> Incoming {
        tracing::info!(index = mark.index.0, %from, "asks for a snapshot: the log is too far behind");
        let loading = Loading::with_mutant(SnapshotHeader { mark, cluster }, mutant);
        let mut incoming = Incoming {
            from,
            mark,
            offset: 0,
            loading: Some(loading),
            state: None,
            asked_us: 0,
            asks: 0,
            under_way: None,
            step: Step::Asking,
        };
        incoming.ask(cx);
        incoming
    }

    /// Which.
    pub fn mark(&self) -> SnapshotMark {
        self.mark
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Whose it is.
    pub fn source(&self) -> Address {
        self.from
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        let SnapshotMark { index, term } = self.mark;
        (self.asked_us, self.asks) = (cx.now.mono_us, self.asks + 1);
        cx.send(self.from, PeerMessage::SnapshotAsk { index, term, offset: self.offset });
    }

    /// Time passes.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.step != Step::Asking || cx.now.mono_us < self.asked_us + SNAPSHOT_ASK_US {
            return Fate::Goes;
        }
        if self.asks >= SNAPSHOT_ASKS_MAX {
            tracing::warn!(from = %self.from, "a snapshot that was asked for does not come");
            return Fate::Failed;
        }
        self.ask(cx);
        Fate::Goes
    }

    /// The source does not have it any more.
    pub fn on_gone(&self, from: Address, mark: SnapshotMark) -> Fate {
        if (from, mark) == (self.from, self.mark) && self.step == Step::Asking { Fate::Failed } else { Fate::Goes }
    }

    /// A part came.
    pub fn on_part(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        (mark, offset): (SnapshotMark, u64),
        data: Vec<u8>,
    ) -> Fate {
        let is_asked = (from, mark, offset) == (self.from, self.mark, self.offset) && self.step == Step::Asking;
        let Some(loading) = self.loading.as_mut().filter(|_| is_asked) else { return Fate::Goes };
        if data.is_empty() {
            tracing::warn!(%from, offset, "a snapshot ends before its end");
            return Fate::Failed;
        }
        if let Err(error) = loading.feed(&data) {
            tracing::warn!(%from, offset, %error, "a snapshot came damaged");
            return Fate::Failed;
        }
        self.asks = 0;
        let ticket = cx.tickets.next();
        (self.under_way, self.step) = (Some(ticket), Step::Writing { bytes: data.len() as u64 });
        cx.out.push(Effect::SnapshotWrite { ticket, index: self.mark.index, offset, bytes: data });
        Fate::Goes
    }

    /// A write or the finish is done; `None` if it was not of this one.
    pub fn on_done(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<(), DiskError>) -> Option<Fate> {
        self.under_way.take_if(|under_way| *under_way == ticket)?;
        if result.is_err() {
            tracing::error!("no space for a snapshot: free space on the filesystem of the data directory");
            return Some(Fate::Failed);
        }
        match self.step {
            Step::Writing { bytes } => {
                self.offset += bytes;
                if let Some(whole) = self.loading.take_if(|loading| loading.is_whole()) {
                    match whole.finish() {
                        Ok(state) => self.state = Some(state),
                        Err(error) => {
                            tracing::warn!(from = %self.from, %error, "a snapshot cannot be read");
                            return Some(Fate::Failed);
                        }
                    }
                    let ticket = cx.tickets.next();
                    (self.under_way, self.step) = (Some(ticket), Step::Finishing);
                    cx.out.push(Effect::SnapshotFinish { ticket, index: self.mark.index });
                } else {
                    self.step = Step::Asking;
                    self.ask(cx);
                }
                Some(Fate::Goes)
            }
            Step::Finishing => {
                self.step = Step::Durable;
                Some(Fate::Durable)
            }
            Step::Asking | Step::Durable => unreachable!("nothing was under way"),
        }
    }

    /// Whether it is durable.
    pub fn is_durable(&self) -> bool {
        self.step == Step::Durable
    }

    /// The state, of one that is durable.
    pub fn into_state(self) -> State {
        assert!(self.is_durable());
        self.state.expect("it was read before it was finished")
    }
}
