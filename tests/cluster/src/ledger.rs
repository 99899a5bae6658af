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
    /// The id that it was accepted under, if that is known.
    pub image: Option<ImageId>,
}

impl Sent {
    fn is_for(&self, receiver: &str) -> bool {
        self.receivers.iter().any(|name| name == receiver)
    }
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
            image: None,
        });
        number
    }

    /// Notes that an image is accepted.
    pub fn accepted(&mut self, number: usize) {
        self.sent[number].accepted.get_or_insert_with(Instant::now);
    }

    /// Notes that an image is accepted, and under which id: it must arrive under the same.
    pub fn accepted_as(&mut self, number: usize, image: ImageId) {
        self.accepted(number);
        self.sent[number].image = Some(image);
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
        self.sent.iter().filter(move |sent| sent.is_for(receiver))
    }

    /// Whether `received`, in the order of receiving, is right: the inbox has no gap, every accepted image is there, none
    /// twice, every byte equal, and what was accepted before another was begun comes before it.
    pub fn check(&self, receiver: &str, received: &[Received]) -> Result<(), Problem> {
        self.judge(receiver, received).first.map_or(Ok(()), |first| Err(Problem(first)))
    }

    /// As `check`, but counts all that is wrong.
    pub fn judge(&self, receiver: &str, received: &[Received]) -> Findings {
        let mut found = Findings { received: received.len(), ..Findings::default() };
        for pair in received.windows(2) {
            if pair[1].seq.0 != pair[0].seq.0 + 1 {
                found.gaps += 1;
                found.say(|| format!("{receiver}: place {} follows {}", pair[1].seq, pair[0].seq));
            }
        }
        let mut places: HashMap<usize, usize> = HashMap::new();
        for (place, image) in received.iter().enumerate() {
            let known = self.by_name.get(&image.name).copied();
            let Some(number) = known.filter(|&number| self.sent[number].is_for(receiver)) else {
                found.strange += 1;
                found.say(|| match known {
                    None => format!("{receiver}: {} was never sent", image.name),
                    Some(_) => format!("{receiver}: {} is for others", image.name),
                });
                continue;
            };
            if let Some(before) = places.insert(number, place) {
                found.twice += 1;
                found.say(|| format!("{receiver}: {} came twice, {before} and {place}", image.name));
            }
            if self.sent[number].image.is_some_and(|expected| expected != image.image) {
                found.wrong_ids += 1;
                found.say(|| format!("{receiver}: {} came as {}, not as it was accepted", image.name, image.image));
            }
            if *self.sent[number].bytes != image.bytes {
                found.wrong_bytes += 1;
                found.say(|| format!("{receiver}: {} has other bytes than were sent", image.name));
            }
        }
        for sent in self.for_receiver(receiver).filter(|sent| sent.accepted.is_some()) {
            if !places.contains_key(&self.by_name[&sent.name]) {
                found.lost += 1;
                found.say(|| format!("{receiver}: {} was accepted and did not come", sent.name));
            }
        }
        self.judge_order(receiver, &places, &mut found);
        found
    }

    /// In the order of the places: nothing may have been accepted before what came earlier was even begun.
    fn judge_order(&self, receiver: &str, places: &HashMap<usize, usize>, found: &mut Findings) {
        let mut in_order: Vec<(usize, usize)> = places.iter().map(|(&number, &place)| (place, number)).collect();
        in_order.sort_unstable();
        let mut last_begun: Option<usize> = None; // of those so far, the one that was begun last
        for (_, number) in in_order {
            let sent = &self.sent[number];
            if let (Some(accepted), Some(other)) = (sent.accepted, last_begun.map(|number| &self.sent[number]))
                && accepted < other.begun
            {
                found.out_of_order += 1;
                found.say(|| {
                    let (first, second) = (&sent.name, &other.name);
                    format!("{receiver}: {first} was accepted before {second} was begun, but comes after it")
                });
            }
            if last_begun.is_none_or(|last| self.sent[last].begun < sent.begun) {
                last_begun = Some(number);
            }
        }
    }
}

/// What is wrong with what one receiver got, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Images that came, right or wrong.
    pub received: usize,
    /// Accepted and did not come.
    pub lost: usize,
    /// Came at more than one place.
    pub twice: usize,
    /// Accepted before another was begun, and came after it.
    pub out_of_order: usize,
    /// Came with other bytes than were sent.
    pub wrong_bytes: usize,
    /// Came under another id than it was accepted under.
    pub wrong_ids: usize,
    /// Places of an inbox that are missing.
    pub gaps: usize,
    /// Never sent to this receiver.
    pub strange: usize,
    /// The first of all this, for people.
    pub first: Option<String>,
}

impl Findings {
    /// How many things are wrong.
    pub fn wrong(&self) -> usize {
        self.lost + self.twice + self.out_of_order + self.wrong_bytes + self.wrong_ids + self.gaps + self.strange
    }

    /// Adds those of another receiver.
    pub fn add(&mut self, other: Findings) {
        self.received += other.received;
        self.lost += other.lost;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
        self.wrong_bytes += other.wrong_bytes;
        self.wrong_ids += other.wrong_ids;
        self.gaps += other.gaps;
        self.strange += other.strange;
        self.first = self.first.take().or(other.first);
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        self.first.get_or_insert_with(text);
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
        check(&[a.clone(), b.clone(), received(3, "d", 2)], "was never sent");

        let found = ledger().judge("gallery", &[received(1, "b", 7), received(3, "a", 0), received(4, "a", 0)]);
        let counts = (found.lost, found.twice, found.out_of_order, found.wrong_bytes, found.gaps, found.strange);
        assert_eq!(counts, (0, 1, 1, 1, 1, 0), "{found:?}");
        assert_eq!(ledger().judge("gallery", &[]).lost, 2);

        let mut ledger_of_ids = ledger();
        ledger_of_ids.accepted_as(0, a.image);
        assert_eq!(ledger_of_ids.judge("gallery", &[a.clone(), b.clone()]).wrong(), 0);
        ledger_of_ids.accepted_as(1, ImageId { sequence: proto::ids::Sequence(9), ..a.image });
        assert_eq!(ledger_of_ids.judge("gallery", &[a.clone(), b.clone()]).wrong_ids, 1);
        assert_eq!(ledger().judge("archive", &[a, b]).strange, 2);
    }
}
