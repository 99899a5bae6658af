//! Messages between the cores of one process: from each core to each core, in order, in batches.
//!
//! One queue per core, in which the items of each sender keep their order. The sender appends under a lock that is held for nanoseconds; only the append that finds
//! the queue empty wakes the other core, which then takes all that is there at once. A wake costs a system call if the
//! other core sleeps and next to nothing else, so a busy pair of cores pays for it once a batch.
//!
//! Why not glommio's `shared_channel`: it wakes slower, has two halves to be connected for each pair of cores, and a full
//! one makes the sender wait. It is faster only in bulk, far above what the cores of a node tell each other. Measured by
//! `examples/loopback.rs mesh channel` (2-core VM, dev profile, three runs): round trip p50 25 to 26 us here, 70 to 71 us
//! there; one way 2.8 to 2.9 million items/s here, 8.5 to 10.2 there.
//!
//! Items that may be lost are refused at `MESH_ITEMS_MAX`. Those that must not be lost are bounded by the protocol
//! between the cores; if they ever reach `MESH_ITEMS_END`, something is broken and the sender is told.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use proto::ids::CoreId;

use crate::limits::{MESH_ITEMS_END, MESH_ITEMS_MAX};

/// The item was not taken.
#[derive(PartialEq, Eq, Debug)]
pub enum MeshError<T> {
    /// Too many wait already.
    Full(T),
    /// The other core has ended.
    Closed(T),
}

/// One core's place in the mesh. `Send`, so that it can be given to its core's thread.
pub struct MeshSeat<T> {
    core: CoreId,
    inboxes: Arc<[Inbox<T>]>,
}

/// What waits for one core.
struct Inbox<T> {
    state: Mutex<InboxState<T>>,
}

struct InboxState<T> {
    // One queue for all senders: it keeps the order of each of them.
    items: VecDeque<(CoreId, T)>,
    waker: Option<Waker>,
    closed: bool,
}

/// The seats of `cores` cores, by core.
pub fn mesh<T: Send>(cores: u16) -> Vec<MeshSeat<T>> {
    let inbox = || Inbox { state: Mutex::new(InboxState { items: VecDeque::new(), waker: None, closed: false }) };
    let inboxes: Arc<[Inbox<T>]> = (0..cores).map(|_| inbox()).collect();
    (0..cores).map(|core| MeshSeat { core: CoreId(core), inboxes: Arc::clone(&inboxes) }).collect()
}

impl<T: Send> MeshSeat<T> {
    /// Which core this is.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Cores of the mesh.
    pub fn cores(&self) -> u16 {
        u16::try_from(self.inboxes.len()).expect("made from a u16")
    }

    /// Sends something that may be lost: refused when much waits already. Sending to oneself is fine.
    pub fn offer(&self, to: CoreId, item: T) -> Result<(), MeshError<T>> {
        self.push(to, item, MESH_ITEMS_MAX)
    }

    /// Sends something that must not be lost. An error means that the other core has ended, or is broken.
    pub fn send(&self, to: CoreId, item: T) -> Result<(), MeshError<T>> {
        self.push(to, item, MESH_ITEMS_END)
    }

    fn push(&self, to: CoreId, item: T, max: usize) -> Result<(), MeshError<T>> {
        let waker = {
            let mut inbox = self.inboxes[usize::from(to.0)].lock();
            if inbox.closed {
                return Err(MeshError::Closed(item));
            }
            if inbox.items.len() >= max {
                return Err(MeshError::Full(item));
            }
            inbox.items.push_back((self.core, item));
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Moves all that waits for this core to the end of `into`, in the order of each sender; returns how many came.
    pub fn take(&self, into: &mut VecDeque<(CoreId, T)>) -> usize {
        let mut inbox = self.inboxes[usize::from(self.core.0)].lock();
        move_all(&mut inbox.items, into)
    }

    /// As `take`, but waits until something comes. One task a core may wait.
    pub async fn receive(&self, into: &mut VecDeque<(CoreId, T)>) -> usize {
        poll_fn(|context| self.poll_receive(context, into)).await
    }

    /// Poll form of `receive`.
    pub fn poll_receive(&self, context: &mut Context<'_>, into: &mut VecDeque<(CoreId, T)>) -> Poll<usize> {
        let mut inbox = self.inboxes[usize::from(self.core.0)].lock();
        if inbox.items.is_empty() {
            // `clone_from` would clone, too, but only if it is another task's.
            match &mut inbox.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(move_all(&mut inbox.items, into))
    }
}

fn move_all<T>(from: &mut VecDeque<T>, into: &mut VecDeque<T>) -> usize {
    let count = from.len();
    if into.is_empty() {
        // The two exchange their memory: nothing is copied, nothing allocated.
        std::mem::swap(from, into);
    } else {
        into.append(from);
    }
    count
}

impl<T> Inbox<T> {
    fn lock(&self) -> MutexGuard<'_, InboxState<T>> {
        // Nothing inside the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for MeshSeat<T> {
    fn drop(&mut self) {
        let dropped = {
            let mut inbox = self.inboxes[usize::from(self.core.0)].lock();
            inbox.closed = true;
            inbox.waker = None;
            std::mem::take(&mut inbox.items)
        };
        drop(dropped);
    }
}
