//! Runs a seed so that a violation is a result, and makes a failing run small: fewer kinds of faults, less time.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::faults::{Fault, Mask};
use crate::mutants;
use crate::scenario::{Done, Limits, Run, plan};
use crate::trace::LINES;

/// Lines of a violation's text that people want to see; states of cores can be thousands.
const TEXT_LINES_MAX: usize = 600;

/// A violation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was violated, and where in the program it was noticed.
    pub text: String,
    /// The last things that happened before, if they were kept.
    pub trace: Vec<String>,
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a seed. A panic of any part, ours or raft's, is a violation.
pub fn try_run(seed: u64, limits: Limits) -> Result<Done, Failure> {
    try_with(seed, limits, |run| run.whole(seed, limits))
}

/// Does something in the world of a seed.
pub fn try_with<T>(seed: u64, limits: Limits, does: impl FnOnce(&mut Run) -> T) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            PLACE.with(|kept| *kept.borrow_mut() = place);
        }));
    });
    let mut run = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let run = run.insert(Run::new(plan(seed, limits)));
        does(run)
    }));
    result.map_err(|panic| {
        let trace = run.map(|mut run| run.world.trace.take()).unwrap_or_default();
        let place = PLACE.with(|place| place.borrow().clone());
        Failure { text: format!("{} ({place})", text_of(panic.as_ref())), trace }
    })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    let more = lines.len().saturating_sub(TEXT_LINES_MAX);
    lines.truncate(TEXT_LINES_MAX);
    let mut text = lines.join("\n");
    if more > 0 {
        text.push_str(&format!("\n... {more} more lines"));
    }
    text
}

/// A failing run made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The least that still fails.
    pub limits: Limits,
    /// How.
    pub failure: Failure,
    /// Runs that it took.
    pub runs: u64,
}

/// Switches off one kind of fault after the other and halves the time, as long as the seed still fails.
///
/// The result fails with some violation, perhaps another one than the first.
pub fn shrink(seed: u64, limits: Limits) -> Option<Shrunk> {
    let mut runs = 0;
    let mut fails = |limits: Limits| {
        runs += 1;
        try_run(seed, limits).err()
    };
    let mut least = limits;
    fails(least)?;
    loop {
        let fewer = Limits { phases: least.phases / 2, ..least };
        if fewer.phases == 0 || fails(fewer).is_none() {
            break;
        }
        least = fewer;
    }
    for fault in Fault::ALL {
        let fewer = Limits { mask: least.mask.without(fault), ..least };
        if fewer.mask != least.mask && fails(fewer).is_some() {
            least = fewer;
        }
    }
    while least.phases > 1 && fails(Limits { phases: least.phases - 1, ..least }).is_some() {
        least.phases -= 1;
    }
    let failure = fails(Limits { trace_lines: LINES, ..least })?;
    Some(Shrunk { limits: least, failure, runs })
}

/// The command that repeats a run.
pub fn command(seed: u64, limits: Limits) -> String {
    let mut command = format!("cargo run --release -p sim -- --seed {seed}");
    if limits.mask != Mask::ALL {
        command.push_str(&format!(" --faults {}", limits.mask));
    }
    if limits.phases != Limits::FULL.phases {
        command.push_str(&format!(" --phases {}", limits.phases));
    }
    if limits.focus != mutants::focus(limits.mutant) {
        command.push_str(&format!(" --focus {}", limits.focus));
    }
    if limits.mutant != Limits::FULL.mutant {
        command.push_str(&format!(" --mutant {}", limits.mutant.name()));
    }
    command
}
