//! `bench state`: what the replicated state takes of memory, for each client and for each undelivered image, as every node has it.

use std::fs;
use std::time::Instant;

use logic::state::{Outcome, State};
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, Incarnation, LogIndex, NodeId, Sequence,
    SessionId,
};
use proto::record::{Ready, Record, RecordBody};
use proto::ring::Member;

use crate::numbers::{round, table};
use crate::{StateArguments, failed};

const NODES: u64 = 3;
const COPIES: u8 = 2;
const SENDERS: u64 = 64;

/// A state and where its log is.
struct Growing {
    state: State,
    index: u64,
}

impl Growing {
    fn apply(&mut self, body: RecordBody) -> Outcome {
        self.index += 1;
        self.state.apply(LogIndex(self.index), &Record { time_ms: 1_763_800_000_000 + self.index, body })
    }
}

/// Builds it from records, and prints.
pub fn run(arguments: &StateArguments) -> Result<(), String> {
    let mut growing = Growing { state: State::default(), index: 0 };
    growing.apply(RecordBody::Genesis {
        cluster: ClusterId(1),
        members: (1..=NODES).map(member).collect(),
        copies: COPIES,
        image_bytes_max: 64 << 20,
    });
    let mut rows = Vec::new();
    let (before, start) = (resident()?, Instant::now());
    let inboxes: Vec<InboxId> =
        (0..arguments.clients.max(1)).filter_map(|number| register(&mut growing, number)).collect();
    let list = inboxes.len() as u64 * size_of::<InboxId>() as u64;
    rows.push(row("clients", arguments.clients.max(1), resident()?.saturating_sub(before + list), start));
    let sessions: Vec<SessionId> = (0..SENDERS).filter_map(|number| open_session(&mut growing, number)).collect();
    let (before, start) = (resident()?, Instant::now());
    for number in 0..arguments.images {
        let (session, turn) = (sessions[(number % SENDERS) as usize], number / SENDERS + 1);
        let ready = Ready {
            image: ImageId { session, sequence: Sequence(turn) },
            // As of a sender that has a few under way.
            low_water: Sequence(turn.saturating_sub(8).max(1)),
            fingerprint: Fingerprint { length: 2_000_000, checksum: number.wrapping_mul(0x9E37_79B9_7F4A_7C15) },
            name: format!("IMG_{number:08}.jpg"),
            receivers: vec![inboxes[(number % inboxes.len() as u64) as usize]],
            holders: holders(number),
        };
        let outcome = growing.apply(RecordBody::Ready(ready));
        if !matches!(&outcome, Outcome::Ready(Ok(ready)) if ready.fresh.len() == 1) {
            return Err(format!("image {number} was not taken: {outcome:?}"));
        }
    }
    rows.push(row("undelivered images", arguments.images, resident()?.saturating_sub(before), start));
    println!("{}", table(&["what", "count", "bytes each", "MB", "seconds"], &rows));
    println!("the state of a node; what a holder's store keeps of an image comes to it: bench backlog");
    let (clients, _, undelivered) = growing.state.counts();
    if (clients, undelivered) == (inboxes.len() as u64, arguments.images) { Ok(()) } else { Err("miscounted".into()) }
}

fn row(what: &str, count: u64, bytes: u64, start: Instant) -> Vec<String> {
    let each = bytes as f64 / count.max(1) as f64;
    vec![
        what.into(),
        count.to_string(),
        round(each).to_string(),
        (bytes >> 20).to_string(),
        round(start.elapsed().as_secs_f64()).to_string(),
    ]
}

fn register(growing: &mut Growing, number: u64) -> Option<InboxId> {
    match growing.apply(RecordBody::Register { name: format!("receiver-{number:08}") }) {
        Outcome::Registered(inbox) => Some(inbox),
        _ => None,
    }
}

fn open_session(growing: &mut Growing, number: u64) -> Option<SessionId> {
    match growing.apply(RecordBody::OpenSession { sender: format!("camera-{number}") }) {
        Outcome::SessionOpened(session) => Some(session),
        _ => None,
    }
}

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 2,
        up: true,
        voter: true,
        client_address: format!("10.0.0.{node}:7401"),
        peer_address: format!("10.0.0.{node}:7402"),
    }
}

fn holders(number: u64) -> Vec<Holder> {
    let holder = |copy: u64| Holder {
        address: Address { node: NodeId(1 + (number + copy) % NODES), core: CoreId((number % 2) as u16) },
        incarnation: Incarnation(1),
    };
    (0..u64::from(COPIES)).map(holder).collect()
}

/// Bytes of this process in memory.
fn resident() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/self/statm").map_err(failed("/proc/self/statm"))?;
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| "cannot read /proc/self/statm".to_owned())
}
