//! How a node is told to stop, from any thread or from a signal handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops the node whose `run` was given a clone of it. Every core looks at it at least once a tick.
#[derive(Clone, Debug, Default)]
pub struct StopHandle {
    flag: Arc<AtomicBool>,
}

impl StopHandle {
    /// Of a node not yet stopped.
    pub fn new() -> StopHandle {
        StopHandle::default()
    }

    /// Asks the node to stop. May be called often, from anywhere.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// Whether it was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// The flag behind it, for `signal_hook::flag::register`: setting it to true is all that `stop` does.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}
