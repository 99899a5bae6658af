//! Finding out whether the home has more: all that was accepted when it was asked for, at whatever node.
//!
//! ```text
//! Nothing --ask--> Due --all that was told is stored and acknowledged--> Marked --index--> Behind --> Asked --answer--> CaughtUp
//!                   ^                                                      |                 ^          |                 |
//!                   +-- another image came, or the link fell, or no leader +-----------------+----------+   another image: Nothing
//! ```
//! A home that has not applied the end of the log does not know that there is more. So a mark is set there first: an empty
//! `Probe`, which is committed behind everything that was accepted before (a read through the log, as in section 6.4 of Ongaro's
//! thesis, without its shortcuts). The question is `Status`, and counts when the home has applied the mark.
//!
//! A home hands out what its inbox has before it answers a question that came later: when it has no entries left it has already
//! asked its core 0 for more, core 0 takes that and the question in their order, both answers come back in that order, and
//! frames of one connection keep theirs.

use proto::client::ClientRequest;
use proto::ids::{InboxSeq, LogIndex, RequestId};

use crate::limits::{HOME_BEHIND_US, MARK_AGAIN_US};

/// See the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    Due {
        at: u64,
    },
    /// Out on the present link, when this was the next place.
    Marked {
        request: RequestId,
        next_seq: InboxSeq,
    },
    /// The home is to have applied the mark; it is asked then.
    Behind {
        at: u64,
        next_seq: InboxSeq,
        mark: LogIndex,
    },
    Asked {
        request: RequestId,
        next_seq: InboxSeq,
        mark: LogIndex,
    },
    CaughtUp,
}

/// Whether the home has more, as far as it was asked.
#[derive(Debug)]
pub(super) struct CaughtUp {
    phase: Phase,
    asked: u64, // so far
}

impl CaughtUp {
    pub(super) fn new() -> CaughtUp {
        CaughtUp { phase: Phase::Nothing, asked: 0 }
    }

    /// Somebody wants to know. What is being found out already goes on.
    pub(super) fn want(&mut self) {
        if matches!(self.phase, Phase::Nothing | Phase::CaughtUp) {
            self.phase = Phase::Due { at: 0 };
        }
    }

    /// When something is to be asked, if anything is.
    pub(super) fn wake_at(&self) -> Option<u64> {
        match self.phase {
            Phase::Due { at } | Phase::Behind { at, .. } => Some(at),
            _ => None,
        }
    }

    /// What is to be asked, if it is due; nothing may be under way now.
    pub(super) fn ask(&mut self, now_us: u64, now_next: InboxSeq) -> Option<ClientRequest> {
        if now_us < self.wake_at()? {
            return None;
        }
        self.asked += 1;
        let request = RequestId(self.asked);
        match self.phase {
            Phase::Behind { next_seq, mark, .. } if next_seq == now_next => {
                self.phase = Phase::Asked { request, next_seq, mark };
                Some(ClientRequest::Status { request })
            }
            _ => {
                self.phase = Phase::Marked { request, next_seq: now_next };
                Some(ClientRequest::Probe { request, payload: Vec::new() })
            }
        }
    }

    /// The mark is committed at that index.
    pub(super) fn on_mark(&mut self, marked: RequestId, mark: LogIndex) {
        if let Phase::Marked { request, next_seq } = self.phase
            && request == marked
        {
            self.phase = Phase::Behind { at: 0, next_seq, mark };
        }
    }

    /// No mark could be set, for now. False: it was not asked for.
    pub(super) fn on_refused(&mut self, now_us: u64, refused: RequestId) -> bool {
        let is_mine = matches!(self.phase, Phase::Marked { request, .. } if request == refused);
        if is_mine {
            self.phase = Phase::Due { at: now_us + MARK_AGAIN_US };
        }
        is_mine
    }

    /// The answer came: the home has applied the log up to there, and this is the next place now.
    pub(super) fn on_answer(&mut self, now_us: u64, answered: RequestId, applied: LogIndex, now_next: InboxSeq) {
        if let Phase::Asked { request, next_seq, mark } = self.phase
            && request == answered
        {
            self.phase = if next_seq != now_next {
                Phase::Due { at: 0 }
            } else if applied < mark {
                Phase::Behind { at: now_us + HOME_BEHIND_US, next_seq, mark }
            } else {
                Phase::CaughtUp
            };
        }
    }

    /// Another image begins.
    pub(super) fn on_head(&mut self) {
        if self.phase == Phase::CaughtUp {
            self.phase = Phase::Nothing;
        }
    }

    /// The link is gone, and the question with it.
    pub(super) fn on_down(&mut self) {
        if !matches!(self.phase, Phase::Nothing | Phase::CaughtUp) {
            self.phase = Phase::Due { at: 0 };
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.phase == Phase::CaughtUp
    }
}
