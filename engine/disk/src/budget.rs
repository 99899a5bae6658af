//! A counted budget of one executor: who asks first gets first, and a waiter that goes away loses nothing.
//!
//! glommio's semaphore lets small takers overtake large ones for ever, and a woken waiter that is dropped before it ran
//! swallows the wake-up of the next one; connections do go away while they wait.
//!
//! Invariants:
//! - `free + units of living permits = total`.
//! - Only the front of the queue may take; whoever leaves the queue, or gives units back, wakes the front.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A budget of units, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    state: Rc<RefCell<State>>,
}

#[derive(Debug)]
struct State {
    total: u64,
    free: u64,
    next_waiter: u64,
    queue: VecDeque<(u64, Option<Waker>)>,
}

impl State {
    /// Called after every change that may let the front go on.
    fn front_waker(&mut self) -> Option<Waker> {
        self.queue.front_mut().and_then(|(_, waker)| waker.take())
    }
}

impl Budget {
    pub(crate) fn new(total: u64) -> Budget {
        Budget { state: Rc::new(RefCell::new(State { total, free: total, next_waiter: 0, queue: VecDeque::new() })) }
    }

    /// Units not taken now.
    pub(crate) fn free(&self) -> u64 {
        self.state.borrow().free
    }

    /// Waits until `units` are free and everyone who asked before was served.
    pub(crate) fn acquire(&self, units: u64) -> Acquire {
        assert!(units <= self.state.borrow().total, "{units} units can never be free of {}", self.state.borrow().total);
        Acquire { budget: self.clone(), units, waiter: None }
    }

    /// Takes `units` if they are free and nobody waits.
    pub(crate) fn try_acquire(&self, units: u64) -> Option<Permit> {
        let mut state = self.state.borrow_mut();
        if !state.queue.is_empty() || state.free < units {
            return None;
        }
        state.free -= units;
        Some(Permit { budget: self.clone(), units })
    }
}

/// Units taken from a budget; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Budget,
    units: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.budget.state.borrow_mut();
            state.free += self.units;
            assert!(state.free <= state.total, "free {} total {}", state.free, state.total);
            state.front_waker()
        };
        // Outside the borrow: a waker may run arbitrary code.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// See [`Budget::acquire`].
#[derive(Debug)]
#[must_use = "nothing is taken before it is awaited"]
pub(crate) struct Acquire {
    budget: Budget,
    units: u64,
    // Some: this future stands in the queue under that number.
    waiter: Option<u64>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let this = self.get_mut();
        let mut state = this.budget.state.borrow_mut();
        let first = match (this.waiter, state.queue.front()) {
            (Some(number), Some((front, _))) => number == *front,
            (None, front) => front.is_none(),
            (Some(number), None) => unreachable!("waiter {number} left the queue without its units"),
        };
        if first && state.free >= this.units {
            state.free -= this.units;
            let waker = if this.waiter.take().is_some() {
                state.queue.pop_front();
                state.front_waker()
            } else {
                None
            };
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready(Permit { budget: this.budget.clone(), units: this.units });
        }
        match this.waiter {
            None => {
                let number = state.next_waiter;
                state.next_waiter += 1;
                state.queue.push_back((number, Some(cx.waker().clone())));
                this.waiter = Some(number);
            }
            Some(number) => {
                let place = state.queue.iter_mut().find(|(other, _)| *other == number);
                place.expect("a waiter stands in the queue until it is served or dropped").1 = Some(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(number) = self.waiter else { return };
        let waker = {
            let mut state = self.budget.state.borrow_mut();
            let was_front = state.queue.front().is_some_and(|(front, _)| *front == number);
            state.queue.retain(|(other, _)| *other != number);
            if was_front { state.front_waker() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use glommio::spawn_local;
    use glommio::timer::Timer;

    use super::*;

    async fn settle() {
        Timer::new(std::time::Duration::from_millis(1)).await;
    }

    #[test]
    fn a_large_taker_is_not_overtaken_by_small_ones() {
        executor::run("budget", async {
            let budget = Budget::new(4);
            let held = budget.acquire(3).await;
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = [4u64, 1]
                .into_iter()
                .map(|units| {
                    let (budget, order) = (budget.clone(), order.clone());
                    spawn_local(async move {
                        let _permit = budget.acquire(units).await;
                        order.borrow_mut().push(units);
                    })
                })
                .collect();
            settle().await;
            assert!(order.borrow().is_empty(), "one unit is free, but the taker of four asked first");
            assert!(budget.try_acquire(1).is_none());
            drop(held);
            for task in tasks {
                task.await;
            }
            assert_eq!(*order.borrow(), [4, 1]);
            assert_eq!(budget.free(), 4);
        })
        .unwrap();
    }

    #[test]
    fn a_waiter_that_goes_away_lets_the_next_one_in() {
        executor::run("budget", async {
            let budget = Budget::new(1);
            let held = budget.acquire(1).await;
            let served = Rc::new(Cell::new(false));
            let waiting = budget.clone();
            let leaver = spawn_local(async move { drop(waiting.acquire(1).await) });
            let (waiting, flag) = (budget.clone(), served.clone());
            let stayer = spawn_local(async move {
                let _permit = waiting.acquire(1).await;
                flag.set(true);
            });
            settle().await;
            // The leaver is woken by this, and cancelled before it runs.
            drop(held);
            leaver.cancel().await;
            stayer.await;
            assert!(served.get());
            assert_eq!(budget.free(), 1);
        })
        .unwrap();
    }
}
