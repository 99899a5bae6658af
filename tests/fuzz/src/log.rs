//! The recovery of the log: what `recover` makes of segments and round identifiers, whatever became of them.
//!
//! An input is a script of a log's life on a disk (`disk`): entries appended and replaced, flushed, cut off by a power cut
//! in any sectors, read back; then, on copies of that disk, damage (`damage`): rot without and with right checksums.
//!
//! Properties (`history`): a power cut is never called rot, and never loses what was flushed; an entry that is there was
//! written, in its place and order; whatever an intact later round proves is there, or the log is refused; damage in one
//! of the two places (segments, identifiers) is found or harmless; a log that is accepted goes on, and is clean once
//! mended; memory in proportion to the disk.

mod damage;
pub(crate) mod disk;
pub(crate) mod history;

use logic::log::{Judgement, Log, RecoverError, Trace};
use logic::vote::Healing;
use raft::Storage;
use raft::eraftpb::Entry;

use crate::script::Script;
use disk::Disk;
use history::{Content, History};

const SEGMENT_BYTES: [u32; 4] = [4096, 4096, 4096, 16 << 10];
/// Second byte of an input that begins with an empty disk; such inputs are slow (`Disk::aged`).
const FRESH: u8 = 0xf7;
/// Bytes of one input's log: enough for some turns of a small segment, and for a turn of the ring.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let segment_bytes = SEGMENT_BYTES[script.below(SEGMENT_BYTES.len())];
    let disk = if script.byte() == FRESH { Disk::new(segment_bytes) } else { Disk::aged(segment_bytes) };
    let mut life = Life::new(disk);
    while !script.is_done() && life.log.stats().entry_bytes < LOG_BYTES_MAX {
        match script.below(16) {
            0..=3 => life.append(&mut script),
            4 | 5 => life.prepare(),
            6..=8 => life.flush(&mut script),
            9 | 10 => life.flush_cut(&mut script),
            11 => life.restart(),
            12 => life.many_rounds(&mut script),
            13 | 14 => life.rot(&mut script),
            _ => life.forge(&mut script),
        }
    }
    life.restart();
}

/// A log, its disk, and what both must hold.
struct Life {
    disk: Disk,
    log: Log,
    /// As raft sees it.
    memory: Content,
    /// As on disk after the last finished flush.
    durable: Content,
    term: u64,
    /// Never replaced from here down.
    committed: u64,
}

impl Life {
    fn new(disk: Disk) -> Life {
        let (log, content) = disk.recover(1).expect("it was made a moment ago");
        assert!(!log.needs_mending());
        Life { disk, log, memory: content.clone(), durable: content, term: 1, committed: 0 }
    }

    fn append(&mut self, script: &mut Script<'_>) {
        let last = self.memory.len() as u64;
        let (mut first, how) = (last + 1, script.byte());
        if how & 1 == 1 {
            self.term += 1 + u64::from(how >> 6);
            if how & 2 == 2 && last > self.committed {
                first = self.committed + 1 + script.below((last - self.committed) as usize) as u64;
            }
        }
        let mut term = if first > 1 && how & 4 == 4 { self.memory[first as usize - 2].0 } else { self.term };
        self.memory.truncate(first as usize - 1);
        let mut entries = Vec::new();
        for index in first..=first + u64::from(how >> 3 & 3) {
            term = if script.flag() { self.term } else { term };
            let bytes = script.number(u64::from(self.log.payload_bytes_max()).min(3000));
            let payload: Vec<u8> = (0..bytes).map(|at| (at as u8).wrapping_mul(index as u8) ^ term as u8).collect();
            self.memory.push((term, payload.clone()));
            entries.push(Entry { index, term, data: payload.into(), ..Entry::default() });
        }
        let news = self.memory.len() as u64 - self.committed;
        self.committed += script.below(news as usize + 1) as u64;
        self.log.append(&entries, self.committed);
        self.log.check_invariants();
    }

    fn prepare(&mut self) {
        if let Some((segment, header)) = self.log.take_prepare() {
            self.disk.prepare(segment, &header);
            self.log.on_prepared(segment, Ok(()));
        }
    }

    /// A flush that succeeds. More may be appended, or the next segment made, while it is under way.
    fn flush(&mut self, script: &mut Script<'_>) {
        let Some(flush) = self.log.take_flush() else { return };
        match script.below(4) {
            0 => self.append(script),
            1 => self.prepare(),
            _ => {}
        }
        self.disk.write(&flush.writes);
        history::apply(&mut self.durable, &self.disk, &flush);
        let flushed = self.log.on_flushed(flush.round);
        let last = flushed.index.0 as usize;
        assert!(last <= self.durable.len() && (last == 0 || self.memory[last - 1].0 == flushed.term.0));
        self.log.check_invariants();
    }

    /// Flushes all that waits, so that memory and disk agree.
    fn settle(&mut self) {
        loop {
            self.prepare();
            let Some(flush) = self.log.take_flush() else { break };
            self.disk.write(&flush.writes);
            history::apply(&mut self.durable, &self.disk, &flush);
            self.log.on_flushed(flush.round);
        }
        assert_eq!(self.durable, self.memory);
    }

    /// A power cut while a flush is under way: any of its sectors are old, the others new.
    fn flush_cut(&mut self, script: &mut Script<'_>) {
        let Some(flush) = self.log.take_flush() else { return };
        if script.flag() {
            self.prepare();
        }
        let before = self.disk.clone();
        let mut whole = self.disk.clone();
        whole.write(&flush.writes);
        self.disk.write_some(&flush.writes, || script.flag());
        let (has_identifier, is_intact) = (self.disk.rounds == whole.rounds, self.disk.segments == whole.segments);
        let steps = history::steps(&self.durable, &whole, &flush);
        match self.disk.recover(self.term) {
            Err(RecoverError::Uncertain(finding)) => {
                assert!(has_identifier && !is_intact, "{finding}");
                assert!(matches!(finding.identifier, Trace::Present { .. }), "{finding}");
                // Nobody goes on with it. The script does as if the cut had come a moment earlier, or later.
                self.disk = if script.flag() { before } else { whole };
                let (log, content) = self.disk.recover(self.term).expect("no flush was under way");
                assert!(content == steps[0] || content == steps[steps.len() - 1]);
                self.take_over(log, content);
            }
            Err(error) => panic!("a power cut is no rot: {error}"),
            Ok((log, content)) => {
                assert!(is_intact || !has_identifier, "entries are missing although the identifier is there");
                assert!(steps.contains(&content), "not what was flushed and a part of what was being flushed");
                assert!(!is_intact || steps.last() == Some(&content), "everything of the round is there");
                self.take_over(log, content);
                self.mend(script);
            }
        }
    }

    /// Raft's view after a start is what is on disk.
    fn take_over(&mut self, log: Log, content: Content) {
        self.committed = log.commit().0;
        self.log = log;
        self.memory = content.clone();
        self.durable = content;
    }

    /// Repairs a torn end, perhaps with further power cuts. Then the log is clean.
    fn mend(&mut self, script: &mut Script<'_>) {
        while self.log.needs_mending() {
            let mend = self.log.take_flush().expect("the first flush mends");
            let is_cut = script.flag();
            self.disk.write_some(&mend.writes, || !is_cut || script.flag());
            let (log, content) = self.disk.recover(self.term).expect("a log being mended is no worse");
            assert_eq!(content, self.durable, "mending changes nothing that was kept");
            assert!(is_cut || (log.judgement() == Judgement::Clean && !log.needs_mending()), "{:?}", log.judgement());
            self.take_over(log, content);
        }
    }

    /// The process starts again with no flush under way.
    fn restart(&mut self) {
        if self.log.needs_mending() {
            return;
        }
        let (log, content) = self.disk.recover(self.term).expect("whatever was flushed is whole");
        assert_eq!((log.judgement(), log.needs_mending()), (Judgement::Clean, false));
        assert_eq!(content, self.durable);
        assert_eq!(log.last_index(), Ok(content.len() as u64));
        self.take_over(log, content);
    }

    /// Rounds of one small entry each, to and beyond a turn of the ring of identifiers.
    fn many_rounds(&mut self, script: &mut Script<'_>) {
        self.settle();
        for _ in 0..usize::from(script.byte()) * 8 {
            let index = self.memory.len() as u64 + 1;
            self.memory.push((self.term, vec![]));
            self.log.append(&[Entry { index, term: self.term, ..Entry::default() }], self.committed);
            self.prepare();
            let flush = self.log.take_flush().expect("one entry fits");
            self.disk.write(&flush.writes);
            self.log.on_flushed(flush.round);
        }
        self.durable = self.memory.clone();
    }

    /// Damage that knows no checksums, on a copy of the disk.
    fn rot(&mut self, script: &mut Script<'_>) {
        self.settle();
        let history = History::of(&self.disk, &self.durable);
        let mut rotten = self.disk.clone();
        for _ in 0..1 + script.below(5) {
            damage::rot(script, &mut rotten, &self.disk);
        }
        let same = (rotten.segments == self.disk.segments, rotten.rounds == self.disk.rounds);
        match rotten.recover(self.term) {
            Ok((log, content)) => {
                history.check(&content, &rotten);
                if same.0 || same.1 {
                    assert_eq!(content, self.durable, "{:?}: rot in one place was not noticed", log.judgement());
                }
                let outcome = go_on(rotten, log, content, self.term);
                // A rotten identifier of an old round is met again when its slot's turn comes.
                let is_late = !same.1 && matches!(outcome, Err(RecoverError::Uncertain(_)));
                assert!(outcome.is_ok() || is_late, "{outcome:?}");
            }
            Err(RecoverError::Rot(_) | RecoverError::Uncertain(_)) => {
                assert_ne!(same, (true, true));
                heal(rotten, self.term);
            }
            Err(error) => panic!("rot is taken for something else: {error}"),
        }
    }

    /// Damage with right checksums: no entry need be one that was written, but nothing may break.
    fn forge(&mut self, script: &mut Script<'_>) {
        if script.flag() {
            self.settle();
        }
        let mut forged = self.disk.clone();
        for _ in 0..1 + script.below(3) {
            damage::forge(script, &mut forged, self.log.stats().round);
        }
        if let Ok((log, content)) = forged.recover(u64::MAX) {
            let term = content.iter().map(|(term, _)| *term).fold(self.term, u64::max);
            // A round number far ahead leaves slots of the ring empty, or is soon too far, whereupon a later start is
            // refused.
            let outcome = go_on(forged, log, content, term);
            let is_refused = matches!(outcome, Err(RecoverError::Uncertain(_) | RecoverError::Exhausted { .. }));
            assert!(outcome.is_ok() || is_refused, "{outcome:?}");
        }
    }
}

/// A log that lost entries is cut where it is intact, if it can be healed, and has just that at the next start.
fn heal(mut disk: Disk, term: u64) {
    let Ok((mut log, content)) = disk.recover_as(term, Healing::Rot) else { return };
    log.check_invariants();
    disk.settle(&mut log);
    let (again, found) = disk.recover_as(term, Healing::Rot).expect("a log being healed is no worse");
    assert!(!again.needs_mending() || again.lost() != Healing::Whole, "{:?}", again.judgement());
    assert_eq!(found, content);
}

/// A log that was accepted, whatever the disk looked like, is mended, takes more, and has it after the next start.
fn go_on(mut disk: Disk, mut log: Log, mut content: Content, term: u64) -> Result<(), RecoverError> {
    log.check_invariants();
    disk.settle(&mut log);
    let (again, found) = disk.recover(u64::MAX)?;
    assert!(again.judgement() == Judgement::Clean && !again.needs_mending(), "{:?}", again.judgement());
    assert_eq!(found, content);
    for bytes in [0usize, 700] {
        let index = content.len() as u64 + 1;
        content.push((term, vec![7; bytes]));
        log.append(&[Entry { index, term, data: vec![7; bytes].into(), ..Entry::default() }], 0);
        disk.settle(&mut log);
        log.check_invariants();
        assert_eq!(disk.recover(u64::MAX)?.1, content);
    }
    Ok(())
}

/// Lives of a log with everything that can happen to it.
pub fn seeds() -> Vec<Vec<u8>> {
    // Two segments ready; appends with small and large payloads, each flushed.
    let begin: &[u8] = &[0, 1, 4, 4, 0, 24, 1, 5, 0, 100, 1, 9, 0, 200, 2, 6, 3];
    let rounds: &[u8] = &[0, 0, 1, 50, 1, 6, 3, 0, 1, 1, 60, 0, 6, 3, 4, 0, 8, 1, 229, 200, 0, 90, 1, 6, 3];
    let replaced: &[u8] = &[4, 0, 3, 0, 1, 30, 0, 6, 3, 0, 7, 1, 0, 229, 250, 1, 6, 3, 4];
    let cut: &[u8] = &[0, 25, 1, 229, 9, 0, 230, 8, 1, 80, 1, 9, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1];
    let ring: &[u8] = &[12, 130];
    // A round's identifier with the largest numbers; entries with the largest term, and with round 2^62.
    let huge: &[u8] = &[15, 1, 0, 5, 1, 0, 254, 0, 0, 0, 254, 0, 3, 15, 1, 0, 0, 0, 2, 1, 1, 3, 254, 0];
    let power: &[u8] = &[15, 1, 0, 0, 0, 2, 1, 3, 3, 255, 0, 0, 0, 0x40];
    let lives: [&[&[u8]]; 7] = [
        &[begin, rounds, &[11], replaced],
        &[begin, rounds, replaced, cut, &[11], rounds, cut, rounds],
        &[begin, rounds, replaced, ring, cut, rounds],
        &[begin, rounds, &[13], &[0, 0, 1, 3, 0, 9], &[13], &[2, 1, 0, 4, 2, 3, 1, 0, 5], &[13, 1, 7, 0, 1]],
        &[begin, rounds, replaced, &[13, 4, 2, 1, 3, 3, 0, 4, 4, 1, 5, 5, 0, 6, 0, 7, 1, 8, 1, 2]],
        &[begin, rounds, replaced, &[15, 1, 0, 0, 3, 2, 5], &[15, 1, 1, 1, 4, 9, 1], &[15, 1, 2, 2, 1, 3, 200]],
        &[begin, rounds, huge, power],
    ];
    let aged = lives.map(|life| life.concat());
    let mut fresh = aged[3].clone();
    fresh[1] = FRESH;
    aged.into_iter().chain([fresh]).collect()
}
