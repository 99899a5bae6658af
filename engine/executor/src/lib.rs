//! The one place where glommio executors are made, for nodes, benchmarks and tests alike.
//!
//! Invariants (each was learned by experiment, engine/notes/001):
//! - **The preempt timer never fires.** If a thread loses the CPU for longer than glommio's preempt timer (100 ms by
//!   default) at the wrong moment, the executor parks for ever with runnable tasks. With a timer of an hour it does not;
//!   the price: nothing preempts a task, so no task may compute for more than about 200 us without awaiting I/O, and
//!   loops of `yield_now` starve the core. Longer work goes to `blocking`.
//! - **Little registered memory.** Locked memory is a budget of the user, often 8 MiB for all processes together.
//! - **More than one blocking thread.** rename, unlink and truncate share the pool with page faults of the log.
//! - **No executor ends before its blocking work.** A thread of the pool that finds its executor gone panics.
//! - **Not pinned, never real-time.** Cores are shared with other processes.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, ReactorErrorKind};

/// Longer than any process is stopped or starved; see the top of this file.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// Registered memory of one executor: the least glommio takes. Larger buffers come from the allocator.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Threads for blocking work of one executor.
const BLOCKING_THREADS: usize = 3;
/// Below this limit of locked memory glommio refuses to start.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Why no executor could be started. The text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// RLIMIT_MEMLOCK is too low.
    #[error(
        "the limit of locked memory is {limit} bytes, io_uring needs at least {needed}: raise it with `ulimit -l 8192`, \
         `LimitMEMLOCK=8M` in the systemd unit, or a `memlock` line in /etc/security/limits.conf"
    )]
    MemlockTooLow {
        /// The limit of this process.
        limit: u64,
        /// What glommio asks for.
        needed: u64,
    },
    /// The locked memory of this user is used up.
    #[error(
        "the locked memory allowed to this user is used up: raise it with `ulimit -l`, `LimitMEMLOCK=` in the systemd \
         unit, or a `memlock` line in /etc/security/limits.conf"
    )]
    MemlockUsedUp,
    /// io_uring is switched off for this process.
    #[error(
        "io_uring is forbidden here: set `sysctl kernel.io_uring_disabled=0`, or allow the io_uring system calls in the \
         seccomp profile of the container"
    )]
    IoUringForbidden,
    /// The kernel has no io_uring, or one too old.
    #[error("this kernel has no usable io_uring: Linux 5.15 or newer is needed, with CONFIG_IO_URING")]
    IoUringMissing,
    /// Too many descriptors are open.
    #[error("no file descriptor is left: raise the limit with `ulimit -n 65536` or `LimitNOFILE=65536`")]
    NoDescriptor,
    /// Anything else the system said.
    #[error("the executor did not start: {0}")]
    Other(#[source] io::Error),
}

impl StartError {
    fn of(error: GlommioError<()>) -> StartError {
        if let GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(limit, needed)) = error {
            return StartError::MemlockTooLow { limit, needed };
        }
        let error = io::Error::from(error);
        match (error.raw_os_error(), error.kind()) {
            (Some(ENOMEM), _) | (_, io::ErrorKind::OutOfMemory) => StartError::MemlockUsedUp,
            (_, io::ErrorKind::PermissionDenied) => StartError::IoUringForbidden,
            (Some(ENOSYS | EINVAL), _) | (_, io::ErrorKind::Unsupported) => StartError::IoUringMissing,
            (Some(EMFILE | ENFILE), _) => StartError::NoDescriptor,
            _ => StartError::Other(error),
        }
    }
}

// Linux error numbers, the same on every architecture Rust builds for.
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSYS: i32 = 38;

/// A running executor. Dropping the handle lets it run on.
#[derive(Debug)]
#[must_use = "join it, or the end of the executor goes unnoticed"]
pub struct JoinHandle<T> {
    // `None` only if the executor did not start, and then `spawn` gave no handle.
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits for the future to end. `Err` holds the panic that ended the executor.
    pub fn join(self) -> thread::Result<T> {
        self.thread.join().map(|value| value.expect("spawn gave this handle only after the executor had started"))
    }

    /// Whether the future has ended or panicked.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The executor's thread.
    #[must_use]
    pub fn thread(&self) -> &thread::Thread {
        self.thread.thread()
    }
}

/// Starts an executor on a thread of its own and runs the future that `make` gives there.
///
/// Returns when the executor runs, or says why it does not. A panic of any task ends the executor.
pub fn spawn<G, F, T>(name: &str, make: G) -> Result<JoinHandle<T>, StartError>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (started_sender, started) = mpsc::sync_channel(1);
    let executor_name = name.to_owned();
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let executor = match make_executor(&executor_name) {
                Ok(executor) => executor,
                Err(error) => {
                    // The receiver waits below; if it is gone, nobody wants to know.
                    let _ = started_sender.send(Err(error));
                    return None;
                }
            };
            let _ = started_sender.send(Ok(()));
            Some(executor.run(async move { make().await }))
        })
        .map_err(StartError::Other)?;
    match started.recv() {
        Ok(Ok(())) => Ok(JoinHandle { thread }),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(StartError::Other(io::Error::other("the thread ended before its executor ran"))),
    }
}

/// Runs a future on an executor of this thread, until it ends.
pub fn run<T>(name: &str, future: impl Future<Output = T>) -> Result<T, StartError> {
    Ok(make_executor(name)?.run(future))
}

/// Whether executors can run here: makes one and drops it.
pub fn probe() -> Result<(), StartError> {
    run("probe", async {})
}

thread_local! {
    // Of the executor of this thread.
    static BLOCKING: Cell<usize> = const { Cell::new(0) };
}

/// Counts one piece of blocking work as long as it lives.
struct UnderWay;

impl UnderWay {
    fn begin() -> UnderWay {
        BLOCKING.set(BLOCKING.get() + 1);
        UnderWay
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        BLOCKING.set(BLOCKING.get() - 1);
    }
}

/// Runs work that may block on a thread of this executor's pool. It is done to its end also if nobody waits for it any more:
/// `blocking_under_way` counts it until then.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let under_way = UnderWay::begin();
    // A task of its own: who drops this future must not take the place away to which the thread sends its result.
    let task = glommio::spawn_local(async move {
        let result = glommio::executor().spawn_blocking(work).await;
        drop(under_way);
        result
    });
    task.detach().await.expect("nobody cancels a detached task")
}

/// How much blocking work of this thread's executor has not ended. An executor must not end before it is none.
#[must_use]
pub fn blocking_under_way() -> usize {
    BLOCKING.get()
}

fn make_executor(name: &str) -> Result<LocalExecutor, StartError> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .preempt_timer(PREEMPT_TIMER)
        .io_memory(IO_MEMORY_BYTES)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
        .make()
        .map_err(StartError::of)
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
