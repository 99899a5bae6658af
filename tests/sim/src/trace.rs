//! The last things that happened, for people. Kept only when a failing seed is repeated.

use std::collections::VecDeque;

/// Lines kept of a failing run.
pub const LINES: usize = 400;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 260;

/// See the top of this file.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    /// A trace that keeps the last `lines_max` lines.
    pub fn new(lines_max: usize) -> Trace {
        Trace { lines: VecDeque::new(), lines_max }
    }

    /// Adds a line, if lines are kept.
    pub fn add(&mut self, now_us: u64, line: impl FnOnce() -> String) {
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        let mut line = line();
        if let Some((at, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(at);
        }
        self.lines.push_back(format!("{:>12.6} {line}", now_us as f64 / 1e6));
    }

    /// Takes all lines.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}
