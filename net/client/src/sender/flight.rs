//! One image of a sender session, from its first `Begin` to its outcome.
//!
//! ```text
//!   (new) --Begin, bytes follow at once--> Sending <------+
//!                                           |  ^          | BeginAnswer: from `resume_from`
//!        link lost: Parked <----------------+  |          |
//!          |   refused, may pass: Pausing <----+          |
//!          |                         | time is up         |
//!          +--- link up, Begin ------+----------------> Asking
//! ```

use proto::error::Refusal;
use proto::ids::Sequence;
use proto::limits::CHUNK_BYTES_MAX;

use crate::sender::ImageJob;
use crate::session::Trouble;

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

/// What an image waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// For a link, to begin again.
    Parked,
    /// For a moment, to begin again.
    Pausing {
        /// Which moment.
        until: u64,
    },
    /// For the answer to a repeated `Begin`, which says where to go on.
    Asking,
    /// For credit while bytes are left, then for the outcome.
    Sending,
}

impl Stage {
    fn may_become(self, next: Stage) -> bool {
        use Stage::{Asking, Parked, Pausing, Sending};
        matches!(
            (self, next),
            (Parked, Asking)
                | (Pausing { .. }, Asking | Parked)
                | (Asking, Asking | Sending | Pausing { .. } | Parked)
                | (Sending, Asking | Pausing { .. } | Parked)
        )
    }
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) job: ImageJob,
    stage: Stage,
    sent_end: u64,     // <= length; what this link was given, counted from 0
    durable_end: u64,  // <= length; as last told
    durable_best: u64, // >= durable_end
    /// A `Begin` with bytes right behind it is not answered yet: its answer was made before those bytes came.
    first_answer_due: bool,
    is_begun_again: bool,
    pub(super) news_at: u64,
    pub(super) progressed_at: u64,
    pub(super) refusals: u32, // in a row
    pub(super) trouble: Option<Trouble>,
}

/// What an answer or a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Nothing,
    Durable(u64),
    /// The numbers cannot be.
    Impossible,
}

impl Flight {
    /// An image whose first `Begin` goes out now, with its bytes behind it.
    pub(super) fn new(job: ImageJob, now_us: u64) -> Flight {
        Flight {
            job,
            stage: Stage::Sending,
            sent_end: 0,
            durable_end: 0,
            durable_best: 0,
            first_answer_due: true,
            is_begun_again: false,
            news_at: now_us,
            progressed_at: now_us,
            refusals: 0,
            trouble: None,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.job.fingerprint.length
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The next piece to send: offset and length.
    pub(super) fn next_chunk(&self) -> Option<(u64, u64)> {
        if self.stage != Stage::Sending || self.sent_end == self.length() {
            return None;
        }
        Some((self.sent_end, (self.length() - self.sent_end).min(CHUNK)))
    }

    pub(super) fn on_chunk_sent(&mut self, now_us: u64) {
        let (offset, length) = self.next_chunk().expect("the caller sent what next_chunk gave");
        self.sent_end = offset + length;
        self.news_at = now_us;
    }

    pub(super) fn become_stage(&mut self, next: Stage, now_us: u64) {
        assert!(self.stage.may_become(next), "{:?} becomes {next:?}", self.stage);
        self.stage = next;
        self.first_answer_due = false;
        self.is_begun_again = true;
        self.news_at = now_us;
    }

    /// Whether a refusal is not the last word. With "no space" it is if this is the first attempt: of an earlier one a whole copy
    /// may lie somewhere, and become the image.
    pub(super) fn may_pass(&self, refusal: Refusal) -> bool {
        refusal.is_transient() || (refusal == Refusal::NoSpace && self.is_begun_again)
    }

    pub(super) fn on_begin_answer(&mut self, now_us: u64, resume_from: u64) -> Moved {
        if resume_from > self.length() {
            return Moved::Impossible;
        }
        // Chunks begin at multiples of their size: what is durable of a piece of one is sent again.
        let resume_from = if resume_from == self.length() { resume_from } else { resume_from - resume_from % CHUNK };
        match self.stage {
            // An answer to a Begin before the last refusal or link.
            Stage::Parked | Stage::Pausing { .. } => return Moved::Nothing,
            Stage::Asking => {
                self.become_stage(Stage::Sending, now_us);
                self.sent_end = resume_from;
            }
            Stage::Sending if self.first_answer_due => {
                self.first_answer_due = false;
                self.sent_end = self.sent_end.max(resume_from);
            }
            Stage::Sending => self.sent_end = resume_from,
        }
        self.on_durable(now_us, resume_from)
    }

    pub(super) fn on_progress(&mut self, now_us: u64, durable_end: u64) -> Moved {
        if durable_end > self.length() {
            return Moved::Impossible;
        }
        if self.stage == Stage::Sending && durable_end > self.sent_end {
            self.sent_end = if durable_end == self.length() { durable_end } else { durable_end - durable_end % CHUNK };
        }
        self.on_durable(now_us, durable_end)
    }

    fn on_durable(&mut self, now_us: u64, durable_end: u64) -> Moved {
        self.news_at = now_us;
        if durable_end > self.durable_best {
            self.durable_best = durable_end;
            self.progressed_at = now_us;
            self.refusals = 0;
        }
        if durable_end == self.durable_end {
            return Moved::Nothing;
        }
        self.durable_end = durable_end;
        assert!(self.durable_end <= self.durable_best && self.durable_best <= self.length());
        Moved::Durable(durable_end)
    }

    /// Whether bytes are left for which this image waits its turn.
    pub(super) fn waits_for_credit(&self) -> bool {
        self.next_chunk().is_some()
    }
}

/// The lowest sequence that is not finished.
pub(super) fn low_water<'f>(mut unfinished: impl Iterator<Item = &'f Sequence>, next: Sequence) -> Sequence {
    unfinished.next().copied().unwrap_or(next)
}
