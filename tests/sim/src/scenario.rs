//! What a seed does: phases in which users send and everything may go wrong, then a healed phase in which everything must
//! arrive and nothing may be left over.

use std::collections::BTreeMap;

use client::session::Routing;
use logic::io::ConnId;
use proto::client::{Begin, ClientReply};
use proto::ids::{ImageId, InboxId, NodeId, Sequence};
use proto::limits::UPLOAD_CREDIT_BYTES;

use crate::book::{Book, Want};
use crate::faults::{Counts, Fault, Mask, Phase, Rates};
use crate::mutants::Mutant;
use crate::random::Random;
use crate::setup::{SEGMENT_BYTES, SESSION_IDLE_MS};
use crate::user::{InboxUser, SenderUser, ack_ahead, fingerprint, impostor, register};
use crate::world::{Heard, Plan, World};

/// A clock jumps by up to an hour back or forth, and rarely by as much as this.
const CLOCK_JUMP_MS_MAX: u64 = HOUR_MS + 20 * 24 * HOUR_MS;
const HOUR_MS: u64 = 3_600_000;
/// Simulated seconds within which a healed cluster must have delivered everything.
const HEALED_SECONDS: u64 = 120;
/// And within which nothing may be left over; longer than an incomplete upload is kept.
const CLEAN_SECONDS: u64 = 300;
/// A receiver to which nothing is sent.
const HASTY: &str = "hasty";
/// Phases of a run, at most.
pub const PHASES_MAX: u64 = 12;

/// What a run may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Faults that may be drawn.
    pub mask: Mask,
    /// Faults that every phase has, if they may be drawn.
    pub focus: Mask,
    /// Phases at most.
    pub phases: u64,
    /// A wrong decision planted into every node.
    pub mutant: Mutant,
    /// How many of the last things that happened are kept for people.
    pub trace_lines: usize,
}

impl Limits {
    /// Everything, nothing wrong.
    pub const FULL: Limits =
        Limits { mask: Mask::ALL, focus: Mask::NONE, phases: PHASES_MAX, mutant: Mutant::None, trace_lines: 0 };
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Images sent.
    pub images: u64,
    /// How often a receiver was told that there is nothing more.
    pub told: u64,
    /// Deliveries checked.
    pub deliveries: u64,
    /// Records committed.
    pub records: u64,
    /// Checks made after steps.
    pub checks: u64,
    /// Faults that happened.
    pub faults: Counts,
    /// Nodes that refused to start until the others could heal them.
    pub lost: u64,
    /// Nodes whose log lost entries and that have them again.
    pub healed: u64,
    /// Copies of images that were given up by a record, and images that came without bytes.
    pub lost_copies: u64,
    /// See `lost_copies`.
    pub damaged: u64,
    /// Nodes that began a new life with a new directory.
    pub rejoined: u64,
    /// Snapshots made or taken over.
    pub snapshots: u64,
    /// Logs that began anew behind a snapshot of another node.
    pub caught_up: u64,
    /// Simulated microseconds.
    pub simulated_us: u64,
    /// Over everything users heard: the same for the same seed and program.
    pub hash: u64,
}

/// A world with its users.
pub struct Run {
    /// The world.
    pub world: World,
    senders: Vec<SenderUser>,
    pub(crate) inboxes: Vec<InboxUser>,
    names: Vec<String>,
    pub(crate) book: Book,
    hasty: InboxId,  // of a receiver to which nothing is sent
    weather: Random, // draws faults and work, apart from the world's own chance
    restarts: BTreeMap<NodeId, u64>,
    endings: Vec<(u64, Ending)>,
    pub(crate) ask_us: u64, // when receivers ask next whether there is more
    pub(crate) told: u64,   // how often they were told that there is nothing
    hash: u64,
}

/// What ends a fault that lasts.
#[derive(Clone, Debug)]
enum Ending {
    Cut(NodeId, NodeId),
    Isolate(NodeId),
    Clog(NodeId, NodeId),
    Full(NodeId),
    Skew(NodeId),
    HangUp(ConnId),
    Holders,
    Rejoin(NodeId),
    FirstTwin(Begin, u64),
    SecondTwin(Begin, u64),
}

impl Run {
    /// A healthy world with registered receivers and senders.
    pub fn new(plan: Plan) -> Run {
        let mut weather = Random::new(plan.seed ^ 0x005e_ed0f_7ea7_4e12);
        let mut world = World::new(plan);
        let names: Vec<String> = (0..weather.within(2, 5)).map(|number| format!("gallery{number}")).collect();
        for name in &names {
            register(&mut world, name);
        }
        let hasty = register(&mut world, HASTY);
        let routings = [Routing::Home, Routing::Any, Routing::Rotate];
        let senders = (0..weather.within(1, 4))
            .map(|number| SenderUser::new(&mut world, &format!("cam{number}"), routings[number as usize % 3]))
            .collect();
        let inboxes = names.iter().map(|name| InboxUser::new(&mut world, name)).collect();
        let (book, restarts, endings) = (Book::default(), BTreeMap::new(), Vec::new());
        let (ask_us, told, hash) = (world.now_us, 0, 0);
        Run { world, senders, inboxes, names, book, hasty, weather, restarts, endings, ask_us, told, hash }
    }

    /// Sends `count` more images, of sizes from one byte to many chunks, to one to three receivers.
    pub fn submit(&mut self, count: u64) {
        for _ in 0..count {
            let weather = &mut self.weather;
            let length = match weather.within(0, 12) {
                0 => 1,
                1..=4 => weather.within(2, 100_000),
                5 | 6 => 1 << 20,
                7 => (1 << 20) + 1,
                8..=10 => weather.within(1, 6 << 20),
                _ => weather.within(6 << 20, 20 << 20),
            };
            let mut receivers: Vec<usize> = (0..self.names.len()).collect();
            let keep = weather.within(1, 4) as usize;
            while receivers.len() > keep {
                let at = weather.within(0, receivers.len() as u64) as usize;
                receivers.remove(at);
            }
            let sender = weather.within(0, self.senders.len() as u64) as usize;
            let want = self.book.want(Want { sender, receivers, length });
            self.send(want);
        }
    }

    fn send(&mut self, want: usize) {
        let content = self.book.submit(want, self.world.now_us);
        let Want { sender, receivers, length } = self.book.wants[want].clone();
        let names: Vec<String> = receivers.iter().map(|&at| self.names[at].clone()).collect();
        self.senders[sender].submit(&mut self.world, content, &names, length);
    }

    /// Lets `us` microseconds pass.
    pub fn pass(&mut self, us: u64) {
        let end_us = self.world.now_us + us;
        while self.world.now_us < end_us {
            self.step();
        }
    }

    /// Phases of faults while images are sent. Ends as it is: `settle` heals.
    pub fn torment(&mut self, mask: Mask, focus: Mask, phases: u64) {
        for _ in 0..phases {
            let phase = Phase::draw(mask, focus, &mut self.weather);
            let images = self.weather.within(0, 8);
            self.submit(images);
            self.ask();
            let begin_us = self.world.now_us;
            self.world.rates = phase.rates;
            for (at_us, fault) in phase.events {
                let now_us = self.world.now_us;
                self.pass((begin_us + at_us).saturating_sub(now_us));
                self.ask();
                self.strike(fault);
            }
            let now_us = self.world.now_us;
            self.pass((begin_us + phase.length_us).saturating_sub(now_us));
        }
    }

    /// One fault happens now.
    fn strike(&mut self, fault: Fault) {
        let nodes = self.world.nodes();
        let node = nodes[self.weather.within(0, nodes.len() as u64) as usize];
        let other = nodes[self.weather.within(0, nodes.len() as u64) as usize];
        let long_us = self.weather.within(1_000, 3_000_000);
        let end_us = self.world.now_us + long_us;
        match fault {
            Fault::Loss | Fault::Duplicate | Fault::Reorder => return, // They have rates, and are counted as they happen.
            Fault::FailedSync => return self.world.fail_sync(node),
            Fault::Clog => {
                self.world.clog(node, other, long_us / 3);
                self.endings.push((end_us, Ending::Clog(node, other)));
            }
            Fault::LinkBreak => self.world.break_link(node, other),
            Fault::OneWay => {
                self.world.cut(node, other, true);
                self.endings.push((end_us, Ending::Cut(node, other)));
            }
            Fault::Isolate => {
                let node = if self.weather.chance(50) { self.world.leader().unwrap_or(node) } else { node };
                self.world.isolate(node, true);
                self.endings.push((end_us, Ending::Isolate(node)));
            }
            Fault::Kill | Fault::Power if !self.world.is_up(node) => return,
            Fault::Kill | Fault::Power => self.world.crash(node, fault),
            Fault::PowerAll => nodes.iter().for_each(|&node| self.world.crash(node, fault)),
            Fault::Stop => self.world.stop(node, long_us),
            Fault::SlowDisk => self.world.slow(node, long_us),
            Fault::FullDisk => {
                self.world.fill(node, true);
                self.endings.push((end_us, Ending::Full(node)));
            }
            Fault::LogRot | Fault::SnapshotRot | Fault::VoteRot | Fault::ChunkRot | Fault::IndexRot => {
                if !self.world.may_damage(node) || !self.world.rot(node, fault) {
                    return;
                }
                if fault == Fault::LogRot && self.weather.chance(50) {
                    self.world.crash(node, fault); // Before anything more is written behind it.
                }
            }
            Fault::Emptied => {
                if !self.world.may_damage(node) || !self.world.is_up(node) {
                    return;
                }
                let is_all = self.weather.chance(50);
                self.world.empty(node, is_all);
                if self.weather.chance(70) {
                    self.endings.push((end_us, Ending::Rejoin(node)));
                }
            }
            Fault::ChangedFile => {
                let sender = self.weather.within(0, self.senders.len() as u64) as usize;
                self.senders[sender].changes_next = true;
            }
            Fault::OtherBytes => {
                let sender = self.weather.within(0, self.senders.len() as u64) as usize;
                if !self.send_other_bytes(sender) {
                    return;
                }
            }
            Fault::Twins => {
                if !self.send_twins() {
                    return;
                }
            }
            Fault::AckAhead => {
                for conn in ack_ahead(&mut self.world, HASTY, self.hasty) {
                    self.endings.push((self.world.now_us + 4_000_000, Ending::HangUp(conn)));
                }
            }
            Fault::ClockJump => {
                let most = if self.weather.chance(10) { CLOCK_JUMP_MS_MAX } else { HOUR_MS };
                let ms = self.weather.within(0, HOUR_MS + most).cast_signed() - HOUR_MS.cast_signed();
                self.world.jump(node, ms);
            }
            Fault::ClockSkew => {
                let ppm = self.weather.within(0, 200_000).cast_signed() - 100_000;
                self.world.skew(node, ppm);
                self.endings.push((end_us, Ending::Skew(node)));
            }
            Fault::Overload => {
                let images = self.weather.within(20, 60);
                self.submit(images);
            }
            Fault::ClientBreak => {
                if !self.world.break_client() {
                    return;
                }
            }
            Fault::ClientGone => {
                let at = self.weather.within(0, (self.senders.len() + self.inboxes.len()) as u64) as usize;
                match self.senders.get_mut(at) {
                    Some(sender) => sender.vanish(&mut self.world),
                    None => self.inboxes[at - self.senders.len()].vanish(&mut self.world),
                }
            }
        }
        self.world.counts.add(fault);
    }

    /// Somebody sends other bytes under the id of an image that is being sent. `false` if there is none.
    fn send_other_bytes(&mut self, sender: usize) -> bool {
        let Some((content, begin)) = self.senders[sender].newest_begin() else { return false };
        let other = self.book.rival(content, self.world.now_us);
        self.send_as(begin, other);
        true
    }

    /// Bytes are stored by one node only, which then hears nobody; others under the same id by the next node, which cannot
    /// pass them on either. Then both tell the leader what they have.
    fn send_twins(&mut self) -> bool {
        let sender = self.weather.within(0, self.senders.len() as u64) as usize;
        let Some((content, mut begin)) = self.senders[sender].newest_begin() else { return false };
        begin.image.sequence.0 += self.weather.within(1, 100);
        begin.fingerprint.length = self.weather.within(1, 100_000);
        let now_us = self.world.now_us;
        let first = self.book.stray(content, now_us);
        self.world.cut_holders(true);
        self.send_as(begin.clone(), first);
        self.endings.push((now_us + 400_000, Ending::FirstTwin(begin, first)));
        self.endings.push((now_us + 9_000_000, Ending::Holders));
        true
    }

    fn send_as(&mut self, begin: Begin, content: u64) {
        let conn = impostor(&mut self.world, begin, content);
        self.endings.push((self.world.now_us + 4_000_000, Ending::HangUp(conn)));
    }

    /// Heals everything and waits until every image is accepted, delivered and acknowledged, and nothing is left over.
    /// Panics with a report if it takes too long.
    pub fn settle(&mut self) -> Done {
        self.heal();
        let mut deadline_us = self.world.now_us + HEALED_SECONDS * 1_000_000;
        let mut has_given_up = false;
        while !self.is_settled() {
            if self.world.now_us >= deadline_us {
                if self.has_rivals() && !has_given_up {
                    has_given_up = true;
                    self.give_up_rivals();
                    deadline_us += HEALED_SECONDS * 1_000_000;
                    continue;
                }
                panic!("not live again within {HEALED_SECONDS} s: {}\n{}", self.report(), self.world.describe());
            }
            self.step();
        }
        self.check_nothing_is_held();
        let deliveries = self.inboxes.iter().enumerate().map(|(at, user)| self.book.check_inbox(at, user)).sum();
        Done {
            images: self.book.images(),
            told: self.told,
            deliveries,
            records: self.world.checks.committed(),
            checks: self.world.checks.made + deliveries,
            faults: self.world.counts,
            lost: self.world.lost() as u64,
            healed: self.world.healed,
            damaged: self.world.damaged,
            lost_copies: self.world.checks.lost,
            rejoined: self.world.rejoined,
            snapshots: self.world.snapshots,
            caught_up: self.world.caught_up,
            simulated_us: self.world.now_us,
            hash: self.hash,
        }
    }

    /// Whether somebody sent different bytes under one id.
    fn has_rivals(&self) -> bool {
        self.world.counts.of(Fault::OtherBytes) + self.world.counts.of(Fault::Twins) > 0
    }

    /// As many nodes may have the one bytes as have the others, and neither are enough: it stays undecided which are the
    /// image's until its session ends (documented at `Begin`). The remedy is a new id.
    fn give_up_rivals(&mut self) {
        for sender in self.senders.iter_mut().filter(|sender| sender.newest_begin().is_some()) {
            sender.vanish(&mut self.world);
        }
    }

    fn heal(&mut self) {
        self.world.rates = Rates::default();
        self.world.heal_network();
        self.world.heal_nodes();
        self.endings.retain(|(_, ending)| matches!(ending, Ending::HangUp(_) | Ending::Rejoin(_)));
        let now_us = self.world.now_us;
        self.restarts.values_mut().for_each(|at_us| *at_us = now_us);
    }

    /// Everything is acknowledged: after the idle time at the latest no upload, request or byte is left.
    fn check_nothing_is_held(&mut self) {
        let mut deadline_us = self.world.now_us + CLEAN_SECONDS * 1_000_000;
        let mut has_waited = false;
        loop {
            self.pass(1_000_000);
            let left = self.world.under_way();
            if left.is_empty() && self.is_settled() {
                return;
            }
            if self.world.now_us >= deadline_us {
                if (self.world.has_rot() || self.has_rivals()) && !has_waited {
                    // Bytes of which the leader was told before they rotted go with the session of their sender. Log time may
                    // be ahead by as much as clocks jump.
                    has_waited = true;
                    let ms = (SESSION_IDLE_MS + CLOCK_JUMP_MS_MAX).cast_signed();
                    self.world.nodes().into_iter().for_each(|node| self.world.jump(node, ms));
                    deadline_us += CLEAN_SECONDS * 1_000_000;
                    continue;
                }
                panic!("held for ever: {left:?}\n{}", self.world.describe());
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.book.is_settled(&self.inboxes) && self.inboxes.iter().all(InboxUser::is_settled)
    }

    pub(crate) fn step(&mut self) {
        let heard = self.world.run();
        for heard in &heard {
            let said = format!("{} {heard:?}", self.world.now_us);
            self.hash = self.hash.rotate_left(5) ^ proto::checksum::crc64(said.as_bytes());
            self.check_reply(heard);
        }
        for user in &mut self.senders {
            heard.iter().for_each(|heard| user.hear(&mut self.world, heard));
            user.tick(&mut self.world);
            for outcome in user.outcomes.drain(..) {
                let pause_us = self.weather.within(1_000, 2_000_000);
                self.book.note(&outcome, self.world.now_us, pause_us);
            }
        }
        for user in &mut self.inboxes {
            heard.iter().for_each(|heard| user.hear(&mut self.world, heard));
            user.tick(&mut self.world);
        }
        self.check_questions();
        for want in self.book.take_retries(self.world.now_us) {
            self.send(want);
        }
        self.restart();
        self.end_faults();
    }

    /// What a user hears must be true at that moment, whoever it is.
    fn check_reply(&self, heard: &Heard) {
        if let Heard::Reply(_, ClientReply::Acked { inbox, upto }, _) = heard {
            let most = self.book.images();
            assert!(upto.0 <= most, "{inbox:?} counts {} images as acknowledged, and {most} were sent", upto.0);
        }
    }

    /// Nodes that ended, by whatever fault, come back some time later.
    fn restart(&mut self) {
        for node in self.world.nodes() {
            if self.world.is_up(node) || self.world.is_lost(node) {
                continue;
            }
            let now_us = self.world.now_us;
            let weather = &mut self.weather;
            let at_us = *self.restarts.entry(node).or_insert_with(|| now_us + weather.within(1_000, 2_500_000));
            if now_us >= at_us {
                self.restarts.remove(&node);
                self.world.start(node);
            }
        }
    }

    fn end_faults(&mut self) {
        let now_us = self.world.now_us;
        for at in (0..self.endings.len()).rev() {
            if self.endings[at].0 > now_us {
                continue;
            }
            match self.endings.swap_remove(at).1 {
                Ending::Rejoin(node) => {
                    self.world.rejoin(node);
                }
                Ending::Holders => self.world.cut_holders(false),
                Ending::FirstTwin(begin, first) => {
                    let whole = fingerprint(first, begin.fingerprint.length);
                    for node in self.world.copies(begin.image, whole) {
                        self.world.isolate(node, true);
                        self.endings.push((now_us + 2_500_000, Ending::Isolate(node)));
                    }
                    self.endings.push((now_us + 1_500_000, Ending::SecondTwin(begin, first)));
                }
                Ending::SecondTwin(begin, first) => {
                    let second = self.book.rival(first, now_us);
                    self.send_as(begin, second);
                }
                Ending::Cut(from, to) => self.world.cut(from, to, false),
                Ending::Isolate(node) => self.world.isolate(node, false),
                Ending::Clog(from, to) => self.world.clog(from, to, 0),
                Ending::Full(node) => self.world.fill(node, false),
                Ending::Skew(node) => self.world.skew(node, 0),
                Ending::HangUp(conn) => self.world.hang_up(conn),
            }
        }
    }

    fn report(&self) -> String {
        let inboxes: Vec<_> = self.inboxes.iter().map(|user| (user.stored.len(), user.is_settled())).collect();
        let (open, missing) = (self.book.open(), self.book.missing(&self.inboxes));
        format!(
            "{open} wants open; accepted and missing (image, receiver): {missing:?}; stored, settled {inboxes:?}; lost nodes {}",
            self.world.lost()
        )
    }

    /// Somebody has begun the next image of a sender with other bytes, and goes no further: its sender does not wait for that.
    pub fn outlast_rival(&mut self) {
        let want = Want { sender: 0, receivers: vec![0], length: 2 * UPLOAD_CREDIT_BYTES };
        let first = self.book.want(want.clone());
        self.send(first);
        let (content, begin) = loop {
            match self.senders[0].newest_begin() {
                Some(begun) => break begun,
                None => self.step(),
            }
        };
        self.settle();
        let image = ImageId { sequence: Sequence(begin.image.sequence.0 + 1), ..begin.image };
        let rival = self.book.stray(content, self.world.now_us);
        impostor(&mut self.world, Begin { image, ..begin }, rival);
        self.pass(300_000);
        let second = self.book.want(want);
        self.send(second);
        let deadline_us = self.world.now_us + 10_000_000;
        while self.book.open() > 0 {
            assert!(self.world.now_us < deadline_us, "kept waiting by other bytes: {}", self.report());
            self.step();
        }
    }

    /// Kills the leader with images under way and returns how long it took until all were accepted, in microseconds.
    pub fn kill_leader(&mut self) -> u64 {
        self.submit(10);
        self.settle();
        self.submit(4);
        let pause_us = self.weather.within(1, 3_000);
        self.pass(pause_us);
        let leader = self.world.leader().expect("a settled cluster has a leader");
        self.world.crash(leader, Fault::Kill);
        self.restarts.insert(leader, u64::MAX);
        let start_us = self.world.now_us;
        while self.book.open() > 0 {
            self.step();
            if self.world.now_us > start_us + 5_000_000 {
                panic!("{leader} killed, 5 s later: {}\n{}", self.report(), self.world.describe());
            }
        }
        self.world.now_us - start_us
    }
}

/// The size of a seed's cluster: three nodes, or five for every fourth seed; one to three cores.
pub fn plan(seed: u64, limits: Limits) -> Plan {
    let nodes = if seed % 4 == 3 { 5 } else { 3 };
    Plan {
        seed,
        nodes,
        cores: 1 + (seed / 4 % 3) as u16,
        is_busy: seed.is_multiple_of(2),
        segment_bytes: SEGMENT_BYTES[usize::from(!seed.is_multiple_of(3))],
        upload_idle_us: if seed % 5 == 2 { 1_000_000 } else { 60_000_000 },
        mutant: limits.mutant,
        trace_lines: limits.trace_lines,
    }
}

/// Runs one seed whole. Panics at a violation; `shrink::try_run` catches that.
pub fn run(seed: u64, limits: Limits) -> Done {
    let mut run = Run::new(plan(seed, limits));
    run.whole(seed, limits)
}

impl Run {
    /// Faults, healing, checks.
    pub(crate) fn whole(&mut self, seed: u64, limits: Limits) -> Done {
        let drawn = 4 + seed % (PHASES_MAX - 3);
        self.torment(limits.mask, limits.focus, drawn.min(limits.phases));
        self.settle()
    }
}
