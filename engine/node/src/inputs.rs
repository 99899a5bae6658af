//! The queue in front of a shard: everything it will be told, in order of arrival.
//!
//! Readers of connections wait while it is full (`push_when_room`); completions, ticks and notes of other cores do not
//! (`push`), since whoever asked for them bounded them and they must not be lost.

use std::cell::RefCell;
use std::collections::VecDeque;

use link::Event;
use logic::io::Input;

use crate::limits::QUEUED_INPUTS_MAX;

/// The inputs of one core.
#[derive(Default)]
pub(crate) struct Inputs {
    queue: RefCell<VecDeque<Input>>,
    filled: Event,
    room: Event,
}

impl Inputs {
    pub(crate) fn new() -> Inputs {
        Inputs::default()
    }

    /// Appends at once.
    pub(crate) fn push(&self, input: Input) {
        self.queue.borrow_mut().push_back(input);
        self.filled.notify();
    }

    /// Appends when there is room.
    pub(crate) async fn push_when_room(&self, input: Input) {
        if self.len() >= QUEUED_INPUTS_MAX {
            self.room.until(|| (self.len() < QUEUED_INPUTS_MAX).then_some(())).await;
        }
        self.push(input);
    }

    /// Waits until there is at least one input.
    pub(crate) async fn wait(&self) {
        self.filled.until(|| (!self.is_empty()).then_some(())).await;
    }

    /// Moves the first `max` inputs to the end of `taken`.
    pub(crate) fn take(&self, max: usize, taken: &mut VecDeque<Input>) {
        {
            let mut queue = self.queue.borrow_mut();
            let count = max.min(queue.len());
            taken.extend(queue.drain(..count));
        }
        if self.len() < QUEUED_INPUTS_MAX {
            self.room.notify();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::rc::Rc;

    use logic::io::{ConnId, Input};

    use super::Inputs;
    use crate::limits::QUEUED_INPUTS_MAX;

    fn closed(number: u64) -> Input {
        Input::ClientClosed { conn: ConnId(number) }
    }

    #[test]
    fn reader_waits_for_room_and_completions_do_not() {
        executor::run("inputs", async {
            let inputs = Rc::new(Inputs::new());
            for number in 0..QUEUED_INPUTS_MAX as u64 {
                inputs.push_when_room(closed(number)).await;
            }
            let reader = {
                let inputs = inputs.clone();
                glommio::spawn_local(async move { inputs.push_when_room(closed(u64::MAX)).await })
            };
            inputs.push(Input::Tick);
            glommio::executor().yield_now().await;
            assert_eq!(inputs.len(), QUEUED_INPUTS_MAX + 1, "the reader must wait");
            let mut taken = VecDeque::new();
            inputs.take(2, &mut taken);
            reader.await;
            assert_eq!(inputs.len(), QUEUED_INPUTS_MAX);
            inputs.take(usize::MAX, &mut taken);
            assert!(inputs.is_empty());
            let order: Vec<u64> = taken
                .iter()
                .filter_map(|input| match input {
                    Input::ClientClosed { conn } => Some(conn.0),
                    _ => None,
                })
                .collect();
            assert!(order.is_sorted(), "order of arrival");
            assert!(matches!(taken[QUEUED_INPUTS_MAX], Input::Tick));
        })
        .unwrap();
    }

    #[test]
    fn sleeping_loop_wakes_for_an_input() {
        executor::run("inputs", async {
            let inputs = Rc::new(Inputs::new());
            let waiter = {
                let inputs = inputs.clone();
                glommio::spawn_local(async move {
                    inputs.wait().await;
                    inputs.len()
                })
            };
            glommio::executor().yield_now().await;
            inputs.push(Input::Turn);
            assert_eq!(waiter.await, 1);
        })
        .unwrap();
    }
}
