//! Finding out whether the home has more.
//!
//! ```text
//! Nothing --ask--> Due --all that was told is stored and acknowledged--> Asked --answer--> CaughtUp
//!                   ^                                                      |                  |
//!                   +---------- another image came, or the link fell ------+    another image: Nothing
//! ```
//! The question is `Status`. A home hands out what its inbox has before it answers a question that came later: when it has
//! no entries left it has already asked its core 0 for more, core 0 takes that and the question in their order, both
//! answers come back in that order, and frames of one connection keep theirs.

use proto::client::ClientRequest;
use proto::ids::{InboxSeq, RequestId};

/// See the top of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Nothing,
    Due,
    /// Out on the present link, when this was the next place.
    Asked {
        request: RequestId,
        next_seq: InboxSeq,
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

    /// Somebody wants to know, as of now.
    pub(super) fn want(&mut self) {
        self.phase = Phase::Due;
    }

    /// The question, if it is due; nothing may be under way now.
    pub(super) fn ask(&mut self, next_seq: InboxSeq) -> Option<ClientRequest> {
        if self.phase != Phase::Due {
            return None;
        }
        self.asked += 1;
        let request = RequestId(self.asked);
        self.phase = Phase::Asked { request, next_seq };
        Some(ClientRequest::Status { request })
    }

    /// The answer came, and this is the next place now.
    pub(super) fn on_answer(&mut self, answered: RequestId, now_next: InboxSeq) {
        if let Phase::Asked { request, next_seq } = self.phase
            && request == answered
        {
            self.phase = if next_seq == now_next { Phase::CaughtUp } else { Phase::Due };
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
        if let Phase::Asked { .. } = self.phase {
            self.phase = Phase::Due;
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.phase == Phase::CaughtUp
    }
}
