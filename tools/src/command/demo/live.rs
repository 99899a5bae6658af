//! A receiver that is connected while images are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{Inbox, Options};
use cluster::{Problem, Received};

/// How often the receiver looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last acknowledgements may take.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// Images between the receiver's thread and `finish`: more than the demo ever sends at a time.
const QUEUE_IMAGES_MAX: usize = 1024;

/// Receives in a thread of its own.
pub struct LiveInbox {
    images: Receiver<Received>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Problem>>,
}

impl LiveInbox {
    /// Opens the inbox of `name` and begins to receive and acknowledge.
    pub fn open(options: Options, name: &str) -> Result<LiveInbox, Problem> {
        let mut inbox = Inbox::open(options, name).map_err(cluster::problem(format!("inbox {name}")))?;
        let (sender, images) = sync_channel(QUEUE_IMAGES_MAX);
        let done = Arc::new(AtomicBool::new(false));
        let is_done = done.clone();
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Acquire) {
                let delivery = inbox.receive(LOOK).map_err(cluster::problem(format!("inbox {name}")))?;
                let Some(delivery) = delivery else { continue };
                let (head, bytes) = (delivery.head, delivery.bytes);
                inbox.acknowledge(head.seq).map_err(cluster::problem(format!("inbox {name}")))?;
                let image = Received { seq: head.seq, image: head.image, name: head.name, bytes, at: Instant::now() };
                if sender.send(image).is_err() {
                    break;
                }
            }
            match inbox.flush(FLUSH_PATIENCE).map_err(cluster::problem(format!("inbox {name}")))? {
                true => Ok(()),
                false => {
                    Err(Problem(format!("inbox {name}: acknowledgements not committed within {FLUSH_PATIENCE:?}")))
                }
            }
        });
        Ok(LiveInbox { images, done, thread })
    }

    /// Waits until `count` images are there, ends the receiver, and gives all that came.
    pub fn finish(self, count: usize, patience: Duration) -> Result<Vec<Received>, Problem> {
        let start = Instant::now();
        let mut received = Vec::with_capacity(count);
        while received.len() < count {
            match self.images.recv_timeout(patience.saturating_sub(start.elapsed())) {
                Ok(image) => received.push(image),
                Err(RecvTimeoutError::Timeout) => {
                    self.done.store(true, Ordering::Release);
                    return Err(Problem(format!("{} of {count} images within {patience:?}", received.len())));
                }
                // The thread ended: it has the reason.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.done.store(true, Ordering::Release);
        let ended = self.thread.join().unwrap_or_else(|_| Err(Problem("the receiver ended unexpectedly".into())));
        received.extend(self.images.try_iter());
        ended.map(|()| received)
    }
}
