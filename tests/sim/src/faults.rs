//! The kinds of faults, how often each was drawn, and the weather: which faults a phase of a run has, and when.

use std::fmt;

use crate::random::Random;

macro_rules! faults {
    ($($variant:ident $name:literal $text:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $text] $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: [Fault; [$($name),*].len()] = [$(Fault::$variant),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$variant => $name,)*
                }
            }
        }
    };
}

faults! {
    Loss "loss" "A message between nodes is lost.",
    Duplicate "duplicate" "A message between nodes comes twice.",
    Reorder "reorder" "A message between nodes overtakes others.",
    Clog "clog" "A link is slow for a while.",
    LinkBreak "link-break" "A connection between nodes breaks; what was on the way is lost or comes late, after newer ones.",
    OneWay "one-way" "A node does not hear another.",
    Isolate "isolate" "A node hears nobody and is heard by nobody.",
    Kill "kill" "A process is killed.",
    Power "power-cut" "The machine of a node loses its power.",
    PowerAll "power-cut-all" "All machines lose their power at once.",
    Stop "stop" "A process stands still.",
    SlowDisk "slow-disk" "A disk is slow for a while.",
    FailedSync "failed-sync" "A sync fails, and the process ends.",
    FullDisk "full-disk" "A filesystem is full for a while.",
    LogRot "log-rot" "Garbage in the log.",
    SnapshotRot "snapshot-rot" "Garbage in snapshots.",
    VoteRot "vote-rot" "Garbage in a copy of term and vote.",
    ChunkRot "chunk-rot" "Garbage in chunks.",
    IndexRot "index-rot" "Garbage in the index of chunks.",
    ClockJump "clock-jump" "A wall clock jumps.",
    ClockSkew "clock-skew" "A clock is too fast or too slow.",
    Emptied "emptied" "A node's log directory, or everything it had, is gone; it may rejoin with a new one.",
    ChangedFile "changed-file" "A sender's file changes after its checksum was taken.",
    OtherBytes "other-bytes" "Somebody sends other bytes under an id that is in use.",
    Twins "twins" "Two nodes get different bytes under one id, and nobody a further copy of either.",
    AckAhead "ack-ahead" "A receiver acknowledges what it was never sent.",
    Overload "overload" "Many images at once.",
    ClientBreak "client-break" "A client's connection breaks.",
    ClientGone "client-gone" "A client ends without a word; it, or its successor, comes back elsewhere.",
}

/// How often each kind was drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Counts {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        self.add_many(fault, 1);
    }

    /// That many more.
    pub fn add_many(&mut self, fault: Fault, count: u64) {
        self.0[fault as usize] += count;
    }

    /// How many.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }
}

/// Which kinds may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(u32);

impl Mask {
    /// All kinds.
    pub const ALL: Mask = Mask((1 << Fault::ALL.len()) - 1);
    /// No fault.
    pub const NONE: Mask = Mask(0);

    /// Only these.
    pub fn of(faults: &[Fault]) -> Mask {
        Mask(faults.iter().fold(0, |bits, &fault| bits | 1 << fault as u32))
    }

    /// Whether it is among them.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// All but that one.
    #[must_use]
    pub fn without(self, fault: Fault) -> Mask {
        Mask(self.0 & !(1 << fault as u32))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Fault::ALL.into_iter().filter(|&fault| self.has(fault)).map(Fault::name).collect();
        if *self == Mask::ALL { f.write_str("all") } else { f.write_str(&names.join(",")) }
    }
}

/// What messages between nodes suffer, in parts of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Lost.
    pub loss: u64,
    /// Come twice.
    pub duplicate: u64,
    /// Overtake others.
    pub reorder: u64,
}

/// One phase of a run: the faults that come at their times, and those that last.
#[derive(Clone, Debug)]
pub struct Phase {
    /// How long, in microseconds.
    pub length_us: u64,
    /// For messages.
    pub rates: Rates,
    /// At which microsecond of the phase; ascending.
    pub events: Vec<(u64, Fault)>,
}

impl Phase {
    /// Draws a phase: each kind is there or not, mild or wild; those in focus are there.
    pub fn draw(mask: Mask, focus: Mask, random: &mut Random) -> Phase {
        let length_us = random.within(100_000, 2_500_000);
        let mut rates = Rates::default();
        let mut events = Vec::new();
        for fault in Fault::ALL {
            // Drawn for kinds that are switched off as well, so that switching one off changes little else.
            let (chance, most) = weight(fault);
            let (is_there, wild) = (random.chance(chance), random.chance(15));
            let count = random.within(1, most + 1) * if wild { 3 } else { 1 };
            let times: Vec<u64> = (0..count).map(|_| random.within(0, length_us)).collect();
            if !(is_there || focus.has(fault)) || !mask.has(fault) {
                continue;
            }
            match fault {
                Fault::Loss => rates.loss = count * 4,
                Fault::Duplicate => rates.duplicate = count * 4,
                Fault::Reorder => rates.reorder = count * 4,
                _ => events.extend(times.into_iter().map(|at| (at, fault))),
            }
        }
        events.sort_unstable();
        Phase { length_us, rates, events }
    }
}

/// In how many of 100 phases a kind is there, and how often at most (before wild ones).
fn weight(fault: Fault) -> (u64, u64) {
    match fault {
        Fault::Loss | Fault::Duplicate | Fault::Reorder => (30, 15),
        Fault::LinkBreak | Fault::ClientBreak => (30, 4),
        Fault::Kill => (30, 2),
        Fault::Clog | Fault::OneWay | Fault::Stop | Fault::SlowDisk => (20, 2),
        Fault::Isolate | Fault::Power | Fault::ClockJump | Fault::ClockSkew => (15, 1),
        Fault::ClientGone | Fault::Overload => (10, 1),
        Fault::FailedSync | Fault::FullDisk | Fault::ChunkRot | Fault::IndexRot => (10, 1),
        Fault::PowerAll => (5, 1),
        Fault::VoteRot => (5, 1),
        Fault::Emptied | Fault::Twins => (2, 1),
        Fault::AckAhead => (5, 1),
        Fault::ChangedFile | Fault::OtherBytes => (15, 2),
        Fault::LogRot => (2, 1),
        Fault::SnapshotRot => (4, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_says_what_it_has() {
        let mask = Mask::of(&[Fault::Loss, Fault::ClientGone]);
        assert_eq!(mask.to_string(), "loss,client-gone");
        assert_eq!(mask.without(Fault::Loss), Mask::of(&[Fault::ClientGone]));
        assert_eq!(Mask::ALL.to_string(), "all");
        assert!(Fault::ALL.into_iter().all(|fault| Mask::ALL.has(fault) && !Mask::NONE.has(fault)));
    }

    #[test]
    fn a_phase_has_only_what_its_mask_has() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let phase = Phase::draw(Mask::of(&[Fault::Kill]), Mask::of(&[Fault::Kill, Fault::Loss]), &mut random);
            assert!(!phase.events.is_empty());
            assert!(phase.events.iter().all(|&(at, fault)| fault == Fault::Kill && at < phase.length_us));
            assert_eq!((phase.rates.loss, phase.rates.duplicate, phase.rates.reorder), (0, 0, 0));
        }
    }
}
