//! Receivers want to know whether there is more, and what they are told must be true.

use crate::scenario::Run;

/// Receivers ask whether there is more at most this often.
const ASK_GAP_US: u64 = 300_000;

impl Run {
    /// Receivers that were told that there is nothing more know that.
    pub(crate) fn check_questions(&mut self) {
        for (at, user) in self.inboxes.iter_mut().enumerate() {
            if let Some(asked_us) = user.take_caught_up() {
                self.book.check_caught_up(at, user, asked_us);
                self.told += 1;
            }
        }
    }

    /// Every now and then all receivers want to know whether there is more.
    pub(crate) fn ask(&mut self) {
        if self.world.now_us >= self.ask_us {
            self.ask_us = self.world.now_us + ASK_GAP_US;
            self.inboxes.iter_mut().for_each(|user| user.ask(&mut self.world));
        }
    }
}
