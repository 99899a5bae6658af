//! The loop of a core: inputs to logic, effects to the world.
//!
//! ```text
//! wait for an input -> step each, carry out what it wants, take what came of that ... -> Turn -> carry out -> again
//! ```
//! A turn ends when nothing is left or after `TURN_US`; then the executor gets to look at its I/O before the next.

use std::collections::VecDeque;
use std::rc::Rc;

use glommio::timer::sleep;
use link::breathe;

use logic::io::{Effect, Input};
use logic::limits::TICK_US;
use logic::shard::Shard;

use crate::clock::Ticks;
use crate::core::Core;
use crate::effects::carry_out;
use crate::limits::{TURN_INPUTS_MAX, TURN_US};

/// Runs the shard until the node ends. `effects` is what its start asked for.
pub(crate) async fn run(core: &Rc<Core>, shard: &mut Shard, mut effects: Vec<Effect>) {
    let mut taken = VecDeque::new();
    let mut busy_since_us = core.clock.now().mono_us;
    carry_out(core, &mut effects);
    loop {
        if taken.is_empty() && core.inputs.is_empty() {
            core.inputs.wait().await;
            busy_since_us = core.clock.now().mono_us;
        }
        if core.ending.is_due() {
            return;
        }
        turn(core, shard, &mut taken, &mut effects, busy_since_us + TURN_US);
        let is_late = core.clock.now().mono_us >= busy_since_us + TURN_US;
        if is_late && !(taken.is_empty() && core.inputs.is_empty()) {
            breathe().await;
            busy_since_us = core.clock.now().mono_us;
        }
    }
}

/// Gives logic what is there, and what comes of it at once, until `end_us`; then lets it send what it gathered.
fn turn(core: &Rc<Core>, shard: &mut Shard, taken: &mut VecDeque<Input>, effects: &mut Vec<Effect>, end_us: u64) {
    loop {
        if taken.is_empty() {
            core.inputs.take(TURN_INPUTS_MAX, taken);
        }
        let Some(input) = taken.pop_front() else { break };
        let now = core.clock.now();
        shard.step(now, input, effects);
        // Carried out when the batch is through: a flush gathers what its inputs wanted. But never later than this.
        if taken.is_empty() || now.mono_us >= end_us {
            carry_out(core, effects);
        }
        if now.mono_us >= end_us || core.ending.is_due() {
            break;
        }
    }
    shard.step(core.clock.now(), Input::Turn, effects);
    carry_out(core, effects);
}

/// Gives a tick each `TICK_US` and looks whether the node is to end. One tick after a pause, however long it was.
pub(crate) async fn tick(core: Rc<Core>) {
    let mut ticks = Ticks::new(core.clock.now().mono_us, TICK_US);
    loop {
        sleep(ticks.wait(core.clock.now().mono_us)).await;
        // The loop is woken by it, and looks whether the node is to end.
        if ticks.take_due(core.clock.now().mono_us) {
            core.inputs.push(Input::Tick);
        }
    }
}
