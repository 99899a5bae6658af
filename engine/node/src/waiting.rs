//! What waits for room in the queue of a link that carries bytes.
//!
//! A link takes a bounded number of bytes; what logic sends beyond it waits here, in order, and goes when the link has room
//! again. The bytes themselves are in memory anyway: their buffers keep the credit of whoever sent them, so a slow node
//! slows down its senders and loses nothing. What waits for a node that cannot be reached is dropped.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use link::{Event, OutBody};

use proto::ids::{Address, NodeId};
use proto::peer::{Lane, PeerMessage};

use crate::limits::{WAITING_BYTES_MAX, WAITING_MESSAGES_MAX};

/// Names a link.
pub(crate) type LinkKey = (Address, Lane);

/// A message that waits.
pub(crate) struct Held {
    pub(crate) message: PeerMessage,
    pub(crate) body: Option<OutBody>,
}

impl Held {
    fn bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| u64::from(body.length()))
    }
}

/// What waits, for all links of one core.
#[derive(Default)]
pub(crate) struct Waiting {
    queues: RefCell<HashMap<LinkKey, Queue>>, // none of them empty
    roomy: RefCell<VecDeque<LinkKey>>,
    changed: Event,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Held>,
    bytes: u64,
}

impl Waiting {
    /// Whether something waits for that link: then whatever follows waits behind it.
    pub(crate) fn is_waiting(&self, link: LinkKey) -> bool {
        self.queues.borrow().contains_key(&link)
    }

    /// Lets a message wait. `false`: too much waits already, and it is dropped.
    pub(crate) fn hold(&self, link: LinkKey, held: Held) -> bool {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.entry(link).or_default();
        let is_full = queue.messages.len() >= WAITING_MESSAGES_MAX || queue.bytes >= WAITING_BYTES_MAX;
        if !is_full {
            queue.bytes += held.bytes();
            queue.messages.push_back(held);
        }
        !is_full
    }

    /// The link has room again.
    pub(crate) fn on_room(&self, link: LinkKey) {
        self.roomy.borrow_mut().push_back(link);
        self.changed.notify();
    }

    /// Waits for a link to have room again.
    pub(crate) async fn roomy(&self) -> LinkKey {
        self.changed.until(|| self.roomy.borrow_mut().pop_front()).await
    }

    /// Gives what waits for a link to `send`, in order, until that gives a message back.
    pub(crate) fn release(&self, link: LinkKey, mut send: impl FnMut(Held) -> Option<Held>) {
        while let Some(held) = self.pop(link) {
            if let Some(refused) = send(held) {
                let mut queues = self.queues.borrow_mut();
                let queue = queues.entry(link).or_default();
                queue.bytes += refused.bytes();
                queue.messages.push_front(refused);
                return;
            }
        }
    }

    fn pop(&self, link: LinkKey) -> Option<Held> {
        let mut queues = self.queues.borrow_mut();
        let queue = queues.get_mut(&link)?;
        let held = queue.messages.pop_front().expect("a queue is there as long as something waits");
        queue.bytes -= held.bytes();
        if queue.messages.is_empty() {
            assert_eq!(queue.bytes, 0, "bytes of nothing");
            queues.remove(&link);
        }
        Some(held)
    }

    /// Drops what waits for a node that cannot be reached.
    pub(crate) fn forget(&self, node: NodeId) {
        let gone: Vec<Queue> = {
            let mut queues = self.queues.borrow_mut();
            let links: Vec<LinkKey> = queues.keys().copied().filter(|(to, _)| to.node == node).collect();
            links.iter().filter_map(|link| queues.remove(link)).collect()
        };
        // Not within the borrow: buffers that are freed wake whoever waits for memory.
        drop(gone);
    }

    /// Drops everything.
    pub(crate) fn forget_all(&self) {
        let gone = self.queues.take();
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{Address, CoreId, ImageId, NodeId, Sequence};
    use proto::peer::{Lane, PeerMessage};

    use super::{Held, Waiting};
    use crate::limits::WAITING_MESSAGES_MAX;

    fn link(node: u64) -> (Address, Lane) {
        (Address { node: NodeId(node), core: CoreId(0) }, Lane::Holder)
    }

    fn numbered(number: u64) -> Held {
        let image = ImageId { sequence: Sequence(number), ..ImageId::default() };
        Held { message: PeerMessage::UploadCancel { image, checksum: 0 }, body: None }
    }

    fn number(held: &Held) -> u64 {
        match &held.message {
            PeerMessage::UploadCancel { image, .. } => image.sequence.0,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn messages_leave_in_order_and_a_refused_one_stays_in_front() {
        let waiting = Waiting::default();
        assert!(!waiting.is_waiting(link(2)));
        (1..=5).for_each(|number| assert!(waiting.hold(link(2), numbered(number))));
        let mut sent = Vec::new();
        waiting.release(link(2), |held| {
            if number(&held) == 3 {
                return Some(held);
            }
            sent.push(number(&held));
            None
        });
        assert!(waiting.is_waiting(link(2)));
        waiting.release(link(2), |held| {
            sent.push(number(&held));
            None
        });
        assert_eq!(sent, [1, 2, 3, 4, 5]);
        assert!(!waiting.is_waiting(link(2)));
    }

    #[test]
    fn what_waits_is_bounded_and_dropped_with_its_node() {
        let waiting = Waiting::default();
        for count in 0..WAITING_MESSAGES_MAX {
            assert!(waiting.hold(link(2), numbered(count as u64)));
        }
        assert!(!waiting.hold(link(2), numbered(0)), "one more than the bound");
        assert!(waiting.hold(link(3), numbered(0)), "another link has a bound of its own");
        waiting.forget(NodeId(2));
        assert!(!waiting.is_waiting(link(2)) && waiting.is_waiting(link(3)));
    }
}
