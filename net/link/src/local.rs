//! Small things that the tasks of one core need: a condition to wait for, a deadline, a pause that lets I/O happen, and
//! a set of tasks that can be stopped.
//!
//! Everything here stays on one core. Nothing holds a borrow while it waits or while it wakes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use glommio::Task;
use glommio::timer::Timer;

/// Wakes the tasks of this core that wait for something to become true.
///
/// A waiter gives its condition to `until`; whoever may have made it true calls `notify`. Nothing is lost, because the
/// condition is looked at before the task sleeps and nothing else runs in between.
#[derive(Default)]
pub struct Event {
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// An event for which nobody waits.
    pub fn new() -> Event {
        Event::default()
    }

    /// Lets every waiter look at its condition again.
    pub fn notify(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let waiting = self.waiting.take();
        for waker in waiting {
            waker.wake();
        }
    }

    /// Waits until `condition` gives a value; asks at once and after each `notify`.
    pub async fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match condition() {
            Some(value) => Poll::Ready(value),
            None => {
                self.register(context);
                Poll::Pending
            }
        })
        .await
    }

    /// Has the polling task woken by the next `notify`.
    pub(crate) fn register(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }
}

/// A moment after which something has taken too long.
///
/// The timer is set only when somebody really waits. (A glommio `Timer` that is polled again before its time registers
/// once more and leaves the old registration behind; and each turn of the executor looks at every registered timer.)
pub(crate) struct Deadline {
    when: Instant,
    timer: Option<(Timer, Waker)>,
}

impl Deadline {
    pub(crate) fn after(time: Duration) -> Deadline {
        Deadline { when: Instant::now() + time, timer: None }
    }

    /// Ready when the moment has passed; else the task is woken when it does.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if now >= self.when {
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_some_and(|(_, waker)| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        let mut timer = Timer::new(self.when - now);
        let polled = Pin::new(&mut timer).poll(context);
        self.timer = Some((timer, context.waker().clone()));
        polled.map(|_| ())
    }
}

/// What `future` gives, or `None` after `time`.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut deadline = Deadline::after(time);
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => deadline.poll(context).map(|()| None),
    })
    .await
}

/// Lets the executor look at its sockets, disks and timers before this task goes on.
///
/// Nothing preempts a task here, and glommio looks at I/O only when no task can run: a task that always finds its next
/// bytes ready (or that merely yields) would starve the core. This one really sleeps, for as short as possible.
pub async fn breathe() {
    Timer::new(Duration::from_micros(1)).await;
}

/// What `future` gives, or `None` if it panicked; a panic that leaves a task would end the whole executor.
pub async fn guarded<T>(what: &'static str, future: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(value) => Some(value),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&'static str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no text".to_owned());
            tracing::error!(what, text, "a task panicked and was ended");
            None
        }
    }
}

/// Tasks of this core that end when they are done, or all together at `stop`.
///
/// A task that is alive when the executor's main future returns is leaked with its sockets, so whoever starts tasks
/// keeps them here and stops them. Dropping the set cancels them, too, but does not wait for it.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Rc<TasksInner>,
}

#[derive(Default)]
struct TasksInner {
    running: RefCell<HashMap<u64, Task<()>>>,
    ended: RefCell<Vec<u64>>,
    next: Cell<u64>,
    stopping: Cell<bool>,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Starts `future` as a task of this core. A panic ends only it. After `stop` nothing is started.
    pub fn spawn(&self, what: &'static str, future: impl Future<Output = ()> + 'static) {
        self.reap();
        if self.inner.stopping.get() {
            return;
        }
        let number = self.inner.next.get();
        self.inner.next.set(number + 1);
        let set = Rc::downgrade(&self.inner);
        let task = glommio::spawn_local(async move {
            guarded(what, future).await;
            if let Some(set) = set.upgrade() {
                set.ended.borrow_mut().push(number);
            }
        });
        self.inner.running.borrow_mut().insert(number, task);
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        self.reap();
        self.inner.running.borrow().len()
    }

    /// Cancels all tasks and waits until each has been dropped.
    ///
    /// Never call it from one of them.
    pub async fn stop(&self) {
        self.inner.stopping.set(true);
        let running = self.inner.running.take();
        for (_, task) in running {
            task.cancel().await;
        }
        self.inner.ended.borrow_mut().clear();
    }

    fn reap(&self) {
        let ended = self.inner.ended.take();
        let mut running = self.inner.running.borrow_mut();
        for number in ended {
            running.remove(&number);
        }
    }
}
