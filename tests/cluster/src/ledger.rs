//! What was sent, and whether what was received is exactly that (promises P1 to P3, as seen from outside).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Inbox, Options};
use proto::ids::{ImageId, InboxSeq};

use crate::{Problem, problem};

/// How long an inbox is watched for images that should not come.
const EXTRA_WATCH: Duration = Duration::from_millis(250);

/// An image handed to the client.
#[derive(Clone, Debug)]
pub struct Sent {
    /// File name: unique in the ledger.
    pub name: String,
    /// To whom.
    pub receivers: Vec<String>,
    /// The bytes.
    pub bytes: Arc<Vec<u8>>,
    /// Before it was handed over.
    pub begun: Instant,
    /// When it was known to be accepted. None: unknown, it may arrive or not.
    pub accepted: Option<Instant>,
}

/// An image that came out of an inbox.
#[derive(Clone, Debug)]
pub struct Received {
    /// Place in the inbox.
    pub seq: InboxSeq,
    /// Which image.
    pub image: ImageId,
    /// File name.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// When it was whole.
    pub at: Instant,
}

/// All that was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: Vec<Sent>,
    by_name: HashMap<String, usize>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// Notes an image that is about to be handed over; gives its number.
    pub fn begin(&mut self, name: &str, receivers: &[String], bytes: Arc<Vec<u8>>) -> usize {
        let number = self.sent.len();
        let known = self.by_name.insert(name.to_owned(), number);
        assert!(known.is_none(), "{name} is in the ledger already");
        self.sent.push(Sent {
            name: name.to_owned(),
            receivers: receivers.to_vec(),
            bytes,
            begun: Instant::now(),
            accepted: None,
        });
        number
    }

    /// Notes that an image is accepted.
    pub fn accepted(&mut self, number: usize) {
        self.sent[number].accepted.get_or_insert_with(Instant::now);
    }

    /// All that was sent.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// How many images `receiver` must get.
    pub fn due(&self, receiver: &str) -> usize {
        self.for_receiver(receiver).filter(|sent| sent.accepted.is_some()).count()
    }

    fn for_receiver<'a>(&'a self, receiver: &'a str) -> impl Iterator<Item = &'a Sent> {
        self.sent.iter().filter(move |sent| sent.receivers.iter().any(|name| name == receiver))
    }

    /// Whether `received`, in the order of receiving, is right: the inbox has no gap, every accepted image is there, none
    /// twice, every byte equal, and what was accepted before another was begun comes before it.
    pub fn check(&self, receiver: &str, received: &[Received]) -> Result<(), Problem> {
        for pair in received.windows(2) {
            if pair[1].seq.0 != pair[0].seq.0 + 1 {
                return Err(Problem(format!("{receiver}: place {} follows {}", pair[1].seq, pair[0].seq)));
            }
        }
        let mut places: HashMap<usize, usize> = HashMap::new();
        for (place, image) in received.iter().enumerate() {
            let Some(&number) = self.by_name.get(&image.name) else {
                return Err(Problem(format!("{receiver}: {} was never sent", image.name)));
            };
            if let Some(before) = places.insert(number, place) {
                return Err(Problem(format!("{receiver}: {} came twice, {before} and {place}", image.name)));
            }
            let sent = &self.sent[number];
            if !sent.receivers.iter().any(|name| name == receiver) {
                return Err(Problem(format!("{receiver}: {} is for others", image.name)));
            }
            if *sent.bytes != image.bytes {
                return Err(Problem(format!("{receiver}: {} has other bytes than were sent", image.name)));
            }
        }
        for sent in self.for_receiver(receiver).filter(|sent| sent.accepted.is_some()) {
            if !places.contains_key(&self.by_name[&sent.name]) {
                return Err(Problem(format!("{receiver}: {} was accepted and did not come", sent.name)));
            }
        }
        self.check_order(receiver, &places)
    }

    fn check_order(&self, receiver: &str, places: &HashMap<usize, usize>) -> Result<(), Problem> {
        for (&first, &first_place) in places {
            let Some(accepted) = self.sent[first].accepted else { continue };
            for (&second, &second_place) in places {
                if accepted < self.sent[second].begun && first_place > second_place {
                    let (first, second) = (&self.sent[first].name, &self.sent[second].name);
                    return Err(Problem(format!(
                        "{receiver}: {first} was accepted before {second} was begun, but comes after it"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Receives and acknowledges `count` images, and makes sure that no further one is there.
pub fn receive(options: Options, name: &str, count: usize, patience: Duration) -> Result<Vec<Received>, Problem> {
    let mut received = receive_some(options, name, count, patience)?;
    let extra = received.split_off(count);
    match extra.first() {
        Some(extra) => Err(Problem(format!("{name}: one too many: {} {} at {}", extra.name, extra.image, extra.seq))),
        None => Ok(received),
    }
}

/// Receives and acknowledges at least `count` images, and what comes within a moment after them.
pub fn receive_some(options: Options, name: &str, count: usize, patience: Duration) -> Result<Vec<Received>, Problem> {
    let start = Instant::now();
    let mut inbox = Inbox::open(options, name).map_err(problem(format!("inbox {name}")))?;
    let mut received: Vec<Received> = Vec::with_capacity(count);
    loop {
        let is_enough = received.len() >= count;
        let left = if is_enough { EXTRA_WATCH } else { patience.saturating_sub(start.elapsed()) };
        match inbox.receive(left).map_err(problem(format!("inbox {name} after {} images", received.len())))? {
            Some(delivery) => {
                let head = delivery.head;
                inbox.acknowledge(head.seq).map_err(problem(format!("acknowledging {}", head.seq)))?;
                received.push(Received {
                    seq: head.seq,
                    image: head.image,
                    name: head.name,
                    bytes: delivery.bytes,
                    at: Instant::now(),
                });
            }
            None if is_enough => break,
            None => {
                return Err(Problem(format!("inbox {name}: {} of {count} images within {patience:?}", received.len())));
            }
        }
    }
    let left = patience.saturating_sub(start.elapsed()).max(Duration::from_secs(2));
    match inbox.flush(left).map_err(problem(format!("inbox {name}: acknowledgements")))? {
        true => Ok(received),
        false => Err(Problem(format!("inbox {name}: acknowledgements not committed within {left:?}"))),
    }
}

/// Bytes that look like nothing and are the same for the same number and length.
pub fn bytes_of(number: u64, length: usize) -> Arc<Vec<u8>> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    Arc::new(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use proto::ids::{ImageId, InboxSeq};

    use super::{Ledger, Received, bytes_of};

    fn received(seq: u64, name: &str, number: u64) -> Received {
        let bytes = bytes_of(number, 100).to_vec();
        Received { seq: InboxSeq(seq), image: ImageId::default(), name: name.to_owned(), bytes, at: Instant::now() }
    }

    /// "a" accepted, then "b" accepted, "c" unknown.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            let receivers = ["gallery".to_owned()];
            let at = ledger.begin(name, &receivers, bytes_of(number as u64, 100));
            if name != "c" {
                ledger.accepted(at);
            }
        }
        ledger
    }

    fn check(images: &[Received], expected: &str) {
        let said = ledger().check("gallery", images).map_or_else(|problem| problem.0, |()| "ok".to_owned());
        assert!(said.contains(expected), "said {said:?}, expected {expected:?}");
    }

    #[test]
    fn ledger_finds_what_is_missing_twice_changed_or_out_of_order() {
        let (a, b, c) = (received(1, "a", 0), received(2, "b", 1), received(3, "c", 2));
        check(&[a.clone(), b.clone()], "ok");
        check(&[a.clone(), b.clone(), c.clone()], "ok");
        check(&[a.clone(), c.clone()], "place 3 follows 1");
        check(std::slice::from_ref(&a), "b was accepted and did not come");
        check(&[a.clone(), b.clone(), received(3, "b", 1)], "came twice");
        check(&[received(1, "b", 1), received(2, "a", 0)], "comes after it");
        check(&[a.clone(), received(2, "b", 5)], "other bytes");
        check(&[a, b, received(3, "d", 2)], "was never sent");
    }
}
