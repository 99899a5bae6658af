use proto::error::Refusal;
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    Sequence, SessionId,
};
use proto::record::{Ready, Record, RecordBody};
use proto::ring::Member;
use proto::snapshot::Piece;

use crate::mutant::Mutant;
use crate::state::rebuild::picture;
use crate::state::{BadSnapshot, Outcome, Rebuild, State};

/// Deterministic noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}

/// A state that lives through random records.
struct Life {
    state: State,
    noise: Noise,
    inboxes: Vec<InboxId>,
    sessions: Vec<(SessionId, u64)>, // with the last sequence
    time_ms: u64,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut life = Life {
            state: State::default(),
            noise: Noise(seed * 77 + 1),
            inboxes: Vec::new(),
            sessions: Vec::new(),
            time_ms: 1000,
        };
        let member = Member {
            node: NodeId(1),
            incarnation: Incarnation(1),
            cores: 1,
            up: true,
            voter: true,
            client_address: String::new(),
            peer_address: String::new(),
        };
        let members = vec![member];
        life.apply(RecordBody::Genesis { cluster: ClusterId(7), members, copies: 2, image_bytes_max: 1000 });
        life
    }

    fn apply(&mut self, body: RecordBody) -> Outcome {
        let index = LogIndex(self.state.applied().0 + 1);
        self.state.apply(index, &Record { time_ms: self.time_ms, body })
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.noise.below(from.len() as u64) as usize])
    }

    fn step(&mut self) {
        self.time_ms += self.noise.below(20);
        match self.noise.below(20) {
            0 => {
                let name = format!("client-{}", self.noise.below(700));
                let Outcome::Registered(inbox) = self.apply(RecordBody::Register { name }) else { unreachable!() };
                self.inboxes.push(inbox);
            }
            1 => {
                let sender = format!("sender-{}", self.noise.below(9));
                let Outcome::SessionOpened(session) = self.apply(RecordBody::OpenSession { sender }) else {
                    unreachable!()
                };
                self.sessions.push((session, 0));
            }
            2 if self.noise.below(20) == 0 => {
                let idle_since_ms = self.time_ms.saturating_sub(self.noise.below(3000));
                self.apply(RecordBody::ExpireSessions { idle_since_ms });
            }
            3 if self.noise.below(20) == 0 => self.begin_life(),
            2..8 => self.acknowledge(),
            _ => self.ready(),
        }
    }

    fn begin_life(&mut self) {
        let (node, rejoin) = (NodeId(1), Some(u128::from(self.noise.below(u64::MAX))));
        let incarnation = self.state.ring().member(node).map(|member| Incarnation(member.incarnation.0 + 1)).unwrap();
        let (client_address, peer_address) = (String::new(), String::new());
        let up = self.noise.below(2) == 0;
        self.apply(RecordBody::RingChange { node, incarnation, cores: 1, up, client_address, peer_address, rejoin });
    }

    fn acknowledge(&mut self) {
        let Some(inbox) = self.pick(&self.inboxes.clone()) else { return };
        let upto = InboxSeq(self.noise.below(30));
        self.apply(RecordBody::Acked { upto: vec![(inbox, upto)] });
    }

    fn ready(&mut self) {
        let inboxes = self.inboxes.clone();
        let mut receivers: Vec<InboxId> = (0..=self.noise.below(3)).filter_map(|_| self.pick(&inboxes)).collect();
        receivers.sort_unstable();
        receivers.dedup();
        if receivers.is_empty() || self.sessions.is_empty() {
            return;
        }
        let at = self.noise.below(self.sessions.len() as u64) as usize;
        let is_again = self.noise.below(5) == 0;
        let (session, last) = &mut self.sessions[at];
        *last += u64::from(!is_again);
        let (session, sequence) = (*session, Sequence((*last).max(1)));
        let low_water = Sequence(sequence.0.saturating_sub(self.noise.below(40)).max(1));
        let holders =
            vec![Holder { address: Address { node: NodeId(1), core: CoreId(0) }, incarnation: Incarnation(1) }];
        let outcome = self.apply(RecordBody::Ready(Ready {
            image: ImageId { session, sequence },
            low_water,
            fingerprint: Fingerprint { length: 10, checksum: sequence.0 },
            name: format!("{}.png", sequence.0),
            receivers,
            holders,
        }));
        let Outcome::Ready(result) = outcome else { unreachable!() };
        let is_expected =
            matches!(result, Ok(_) | Err(Refusal::SessionUnknown | Refusal::AlreadyFinished | Refusal::OutOfWindow));
        assert!(is_expected, "{result:?}");
    }
}

fn rebuild(upto: LogIndex, pieces: Vec<Piece>) -> Result<State, BadSnapshot> {
    let mut rebuild = Rebuild::new(upto, Mutant::None);
    pieces.into_iter().try_for_each(|piece| rebuild.add(piece))?;
    rebuild.finish()
}

#[test]
fn pieces_taken_while_records_are_applied_give_the_state_at_the_freeze() {
    let mut items = [0; 4];
    for seed in 0..60 {
        let mut life = Life::new(seed);
        for _ in 0..3 {
            for _ in 0..life.noise.below(6000) {
                life.step();
            }
            let then = life.state.clone();
            life.state.freeze();
            let mut pieces = Vec::new();
            while let Some(piece) = life.state.take_piece() {
                pieces.push(piece);
                for _ in 0..life.noise.below(200) {
                    life.step();
                }
            }
            for piece in &pieces {
                piece.check().unwrap();
                items[0] += piece.inboxes.len();
                items[1] += piece.sessions.len();
                items[2] += piece.images.len();
                items[3] += piece.undelivered.len();
            }
            let rebuilt = rebuild(then.applied(), pieces).unwrap();
            assert_eq!(picture(&rebuilt), picture(&then), "seed {seed}");
        }
    }
    assert!(items.iter().all(|items| *items > 5_000), "{items:?}");
}

#[test]
fn a_snapshot_given_up_leaves_nothing_behind() {
    let mut life = Life::new(5);
    (0..500).for_each(|_| life.step());
    life.state.freeze();
    assert!(life.state.take_piece().is_some());
    life.state.thaw();
    assert_eq!(life.state.take_piece(), None);
    life.state.freeze();
    assert!(life.state.take_piece().unwrap().head.is_some());
}

#[test]
fn pieces_that_are_no_state_are_refused() {
    let mut life = Life::new(9);
    (0..3000).for_each(|_| life.step());
    let upto = life.state.applied();
    life.state.freeze();
    let pieces: Vec<Piece> = std::iter::from_fn(|| life.state.take_piece()).collect();
    rebuild(upto, pieces.clone()).unwrap();
    assert_eq!(rebuild(upto, pieces[1..].to_vec()).unwrap_err(), BadSnapshot::Head);
    assert_eq!(rebuild(upto, Vec::new()).unwrap_err(), BadSnapshot::Head);
    let twice = [&pieces[..1], &pieces[..]].concat();
    assert_eq!(rebuild(upto, twice).unwrap_err(), BadSnapshot::Head);
    for left_out in 1..pieces.len() - 1 {
        let has_inboxes = !pieces[left_out].inboxes.is_empty();
        let mut fewer = pieces.clone();
        fewer.remove(left_out);
        assert!(rebuild(upto, fewer).is_err() || !has_inboxes, "without piece {left_out}");
        let mut swapped = pieces.clone();
        swapped.swap(left_out, left_out + 1);
        let is_same = pieces[left_out].items() == 0 || pieces[left_out + 1].items() == 0;
        assert!(rebuild(upto, swapped).is_err() || is_same, "piece {left_out} swapped");
    }
    let early = LogIndex(upto.0 / 2);
    assert!(rebuild(early, pieces.clone()).is_err(), "items above the index");
    // Any number changed gives an error or a state, never a panic.
    for at in 0..pieces.len() {
        let mut changed = pieces.clone();
        let piece = &mut changed[at];
        piece.inboxes.iter_mut().for_each(|item| item.acked_record = LogIndex(u64::MAX));
        piece.sessions.iter_mut().for_each(|item| item.low_water = Sequence(u64::MAX));
        piece.images.iter_mut().for_each(|item| item.image.sequence = Sequence(u64::MAX));
        piece.undelivered.iter_mut().for_each(|item| item.index = LogIndex(u64::MAX));
        let _ = rebuild(upto, changed);
    }
}
