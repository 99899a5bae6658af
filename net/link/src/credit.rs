//! Credit in bytes: how much of what a sender may send has been permitted, received and freed again.
//!
//! ```text
//! permitted = window + freed        never falls; told to the sender as a total since the connection began
//! received <= announced <= permitted
//! ```
//! The receiver holds at most `window` bytes of bodies for one connection: a body counts from its receipt until the last
//! clone of its `CreditGuard` is dropped. Grants are told when they are worth a frame, or at once if the sender may be
//! unable to send one more chunk.

use std::cell::Cell;
use std::rc::Rc;

use proto::limits::CHUNK_BYTES_MAX;

use crate::limits::GRANT_BYTES_MIN;
use crate::local::Event;

/// The receiver's account of one connection.
#[derive(Clone)]
pub struct CreditMeter {
    account: Rc<Account>,
}

struct Account {
    window: u64,
    announced: Cell<u64>,
    received: Cell<u64>,
    freed: Cell<u64>,
    changed: Event,
}

/// A body came for which no credit had been announced. The sender breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("body bytes {received} in all, permitted were {announced}")]
pub struct CreditExceeded {
    /// Bytes received with this body.
    pub received: u64,
    /// What the sender had been told.
    pub announced: u64,
}

/// Keeps the bytes of one body counted. Clones share the count; the last one to be dropped gives the credit back.
#[derive(Clone)]
pub struct CreditGuard {
    _held: Rc<Held>,
}

struct Held {
    account: Rc<Account>,
    bytes: u64,
}

impl CreditMeter {
    /// An account that permits `window` bytes of bodies to be held, at least a chunk; 0 permits none at all. The window
    /// itself counts as announced: it is told in the answer to the hello.
    pub fn new(window: u64) -> CreditMeter {
        assert!(window == 0 || window >= CHUNK_BYTES_MAX as u64, "a window of {window} bytes cannot take a chunk");
        let account = Account {
            window,
            announced: Cell::new(window),
            received: Cell::new(0),
            freed: Cell::new(0),
            changed: Event::new(),
        };
        CreditMeter { account: Rc::new(account) }
    }

    /// The total that the sender has been told.
    pub fn announced(&self) -> u64 {
        self.account.announced.get()
    }

    /// Body bytes received and not yet freed.
    pub fn held(&self) -> u64 {
        self.account.received.get() - self.account.freed.get()
    }

    /// Counts a body that came. Keep the guard for as long as the bytes are kept.
    pub fn on_body(&self, bytes: u64) -> Result<CreditGuard, CreditExceeded> {
        let account = &self.account;
        let (received, announced) = (account.received.get() + bytes, account.announced.get());
        if received > announced {
            return Err(CreditExceeded { received, announced });
        }
        account.received.set(received);
        // Fewer bytes may be left than a chunk has: then what was freed so far is told now.
        account.changed.notify();
        Ok(CreditGuard { _held: Rc::new(Held { account: Rc::clone(account), bytes }) })
    }

    /// The new total, if it is worth telling the sender; it then counts as announced.
    pub fn take_grant(&self) -> Option<u64> {
        self.account.take_grant()
    }

    /// Waits until a new total is worth telling the sender, and counts it as announced.
    pub async fn grant(&self) -> u64 {
        self.account.changed.until(|| self.account.take_grant()).await
    }
}

impl Account {
    fn take_grant(&self) -> Option<u64> {
        let (announced, received) = (self.announced.get(), self.received.get());
        let permitted = self.window + self.freed.get();
        assert!(received <= announced, "received {received} announced {announced}");
        assert!(announced <= permitted, "announced {announced} permitted {permitted}");
        let (gain, left) = (permitted - announced, announced - received);
        let worth_telling = gain >= GRANT_BYTES_MIN.min(self.window / 4);
        let starved = left < CHUNK_BYTES_MAX as u64;
        if gain == 0 || !(worth_telling || starved) {
            return None;
        }
        self.announced.set(permitted);
        Some(permitted)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let freed = self.account.freed.get() + self.bytes;
        assert!(freed <= self.account.received.get(), "freed {freed} received {}", self.account.received.get());
        self.account.freed.set(freed);
        self.account.changed.notify();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{CreditExceeded, CreditMeter};

    const MIB: u64 = 1 << 20;

    #[test]
    fn freed_bytes_are_granted_when_worth_a_frame() {
        let meter = CreditMeter::new(8 * MIB);
        let large = meter.on_body(300 << 10).unwrap();
        let small = meter.on_body(100 << 10).unwrap();
        assert_eq!(meter.take_grant(), None);
        drop(small);
        assert_eq!(meter.take_grant(), None, "100 KiB wait for more");
        let other_hold = large.clone();
        drop(large);
        assert_eq!(meter.take_grant(), None, "a clone still holds the bytes");
        drop(other_hold);
        assert_eq!(meter.take_grant(), Some(8 * MIB + (400 << 10)));
        assert_eq!(meter.held(), 0);
    }

    #[test]
    fn starved_sender_is_told_of_every_byte() {
        let meter = CreditMeter::new(MIB);
        let one = meter.on_body(1).unwrap();
        drop(one);
        assert_eq!(meter.take_grant(), Some(MIB + 1));
    }

    #[test]
    fn nothing_is_told_without_a_window() {
        let meter = CreditMeter::new(0);
        assert_eq!(meter.take_grant(), None);
        assert!(meter.on_body(1).is_err());
    }

    #[test]
    fn body_beyond_the_credit_is_refused() {
        let meter = CreditMeter::new(MIB);
        let _held = meter.on_body(MIB).unwrap();
        let refused = meter.on_body(1).err();
        assert_eq!(refused, Some(CreditExceeded { received: MIB + 1, announced: MIB }));
    }
}
