//! Images under way while faults happen, and the check of each of them.
//!
//! Senders hand over images at a given pace, some for several receivers, some of several chunks; receivers take and
//! acknowledge them all the while. In the end every image that was accepted must be at each of its receivers, once, in
//! order, with the bytes that were sent. Nothing is refused or given up while a majority is there, or comes back: that
//! counts as a failure too, unless the fault is one that refuses (a full disk).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::{Client, Inbox, MemorySource, Options, PendingImage, Routing, SendError, Sender};
use cluster::ledger::{Findings, bytes_of};
use cluster::{Cluster, Ledger, Problem, Received, problem};

use cluster::random::Random;

/// Without progress for this long, something hangs. The machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long a receiver listens before it looks around.
const LISTEN: Duration = Duration::from_millis(200);
/// How long an inbox may take to open before its home is looked for anew.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
/// A sender that fell behind its pace by more than this does not catch up.
const BEHIND_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);

/// What load to make.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Each with a session of its own.
    pub senders: usize,
    /// Images that one sender has under way.
    pub window: usize,
    /// Inboxes.
    pub receivers: usize,
    /// Images a second, all senders together, when nothing is in their way.
    pub pace: u64,
    /// Largest image.
    pub bytes_max: usize,
}

impl Plan {
    /// What most faults are tried with.
    pub fn usual(pace: u64) -> Plan {
        Plan { senders: 4, window: 12, receivers: 6, pace, bytes_max: 5 << 19 }
    }
}

/// Senders and receivers at work.
pub struct Load {
    shared: Arc<Shared>,
    names: Vec<String>,
    senders: Vec<JoinHandle<Result<(), Problem>>>,
    receivers: Vec<JoinHandle<Result<(), Problem>>>,
}

struct Shared {
    interrupt: Arc<AtomicBool>,
    ledger: Mutex<Ledger>,
    accepted: AtomicUsize,
    // Not accepted: name and why.
    unsettled: Mutex<Vec<String>>,
    // Senders hand over nothing new.
    done: AtomicBool,
    // All is settled: receivers end when they have everything.
    settled: AtomicBool,
    // By receiver.
    received: Vec<Mutex<Vec<Received>>>,
    again: AtomicUsize,
    is_dropped: AtomicBool,
}

/// What became of a load.
#[derive(Debug, Default)]
pub struct Tally {
    /// Images accepted.
    pub accepted: usize,
    /// Images handed over and not accepted.
    pub unsettled: Vec<String>,
    /// Places delivered again because their acknowledgement had not been committed.
    pub again: usize,
    /// What is wrong.
    pub findings: Findings,
}

impl Load {
    /// Registers the receivers and begins. `purpose` makes names unlike those of other loads.
    pub fn start(
        cluster: &Cluster,
        interrupt: &Arc<AtomicBool>,
        plan: Plan,
        purpose: &str,
        random: &mut Random,
    ) -> Result<Load, Problem> {
        let names: Vec<String> = (1..=plan.receivers).map(|number| format!("receiver-{number}")).collect();
        register(cluster, &names)?;
        let shared = Arc::new(Shared {
            interrupt: interrupt.clone(),
            ledger: Mutex::default(),
            accepted: AtomicUsize::new(0),
            unsettled: Mutex::default(),
            done: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            received: names.iter().map(|_| Mutex::default()).collect(),
            again: AtomicUsize::new(0),
            is_dropped: AtomicBool::new(false),
        });
        let senders = (0..plan.senders).map(|number| {
            let (shared, names, random) = (shared.clone(), names.clone(), Random::new(random.number(), "sender"));
            // Each way of choosing a node has its senders.
            let mut options = cluster.options([Routing::Rotate, Routing::Home, Routing::Any][number % 3], PATIENCE);
            let count = options.nodes.len();
            options.nodes.rotate_left(number % count);
            let feed = Feed { shared, options, plan, names, name: format!("{purpose}-{number}"), random };
            thread::spawn(move || feed.run())
        });
        let senders = senders.collect();
        let receivers = names.iter().enumerate().map(|(number, name)| {
            let (shared, name) = (shared.clone(), name.clone());
            let options = cluster.options(Routing::Any, OPEN_PATIENCE);
            thread::spawn(move || shared.receive_all(number, &name, &options))
        });
        let receivers = receivers.collect();
        Ok(Load { shared, names, senders, receivers })
    }

    /// Images accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Waits until `more` images were accepted from now on.
    pub fn wait_accepted(&self, more: usize, what: &str) -> Result<(), Problem> {
        let (start, from) = (Instant::now(), self.accepted());
        while self.accepted() < from + more {
            self.shared.check_interrupt()?;
            if start.elapsed() > PATIENCE {
                let got = self.accepted() - from;
                return Err(Problem(format!("{what}: {got} of {more} images were accepted within {PATIENCE:?}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Goes on until `images` were accepted in all, settles every image, lets the receivers get all that is due, and checks.
    pub fn finish(mut self, images: usize) -> Result<Tally, Problem> {
        while self.accepted() < images {
            self.wait_accepted(1, "after the faults")?;
        }
        self.shared.done.store(true, Ordering::Release);
        self.join(true)?;
        self.shared.settled.store(true, Ordering::Release);
        self.join(false)?;
        Ok(self.shared.tally(&self.names))
    }

    /// Waits for the ends of the senders, or of the receivers.
    fn join(&mut self, is_senders: bool) -> Result<(), Problem> {
        let threads = if is_senders { &mut self.senders } else { &mut self.receivers };
        while !threads.iter().all(JoinHandle::is_finished) {
            self.shared.check_interrupt()?;
            thread::sleep(POLL);
        }
        for thread in threads.drain(..) {
            thread.join().map_err(|_| Problem("a thread of the load panicked".into()))??;
        }
        Ok(())
    }
}

impl Drop for Load {
    /// Threads that still wait for a node end with that wait.
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Release);
    }
}

/// Gives each name an inbox.
pub fn register(cluster: &Cluster, names: &[String]) -> Result<(), Problem> {
    let mut client = Client::new(cluster.options(Routing::Any, PATIENCE)).map_err(problem("registering"))?;
    for name in names {
        client.register(name).map_err(problem(format!("registering {name}")))?;
    }
    Ok(())
}

impl Shared {
    fn check_interrupt(&self) -> Result<(), Problem> {
        if self.interrupt.load(Ordering::Acquire) || self.is_dropped.load(Ordering::Acquire) {
            return Err(Problem("interrupted".into()));
        }
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives until everything is settled and nothing more is due or comes.
    fn receive_all(&self, number: usize, name: &str, options: &Options) -> Result<(), Problem> {
        let mut opened: Option<Inbox> = None;
        let mut last_news = Instant::now();
        loop {
            self.check_interrupt()?;
            let is_settled = self.settled.load(Ordering::Acquire);
            // What does not come is counted as lost.
            if is_settled && last_news.elapsed() > PATIENCE {
                return Ok(());
            }
            let Some(inbox) = &mut opened else {
                opened = Inbox::open(options.clone(), name).ok();
                continue;
            };
            match inbox.receive(LISTEN) {
                Ok(Some(delivery)) => {
                    last_news = Instant::now();
                    let seq = delivery.head.seq;
                    self.note(number, delivery);
                    inbox.acknowledge(seq).map_err(problem(format!("acknowledging {seq} of {name}")))?;
                }
                Ok(None) if !is_settled => last_news = Instant::now(),
                Ok(None) if self.judge(number, name).lost == 0 && inbox.flush(LISTEN * 10).unwrap_or(false) => {
                    return Ok(());
                }
                Ok(None) => {}
                // A new inbox is opened; it takes up where the acknowledgements ended.
                Err(_) => opened = None,
            }
        }
    }

    fn note(&self, number: usize, delivery: client::Delivery) {
        let mut received = self.received[number].lock().unwrap_or_else(PoisonError::into_inner);
        let head = delivery.head;
        let (seq, name, image) = (head.seq, head.name, head.image);
        let is_same = |before: &Received| before.seq == seq && before.image == image && before.bytes == delivery.bytes;
        let is_before = received.last().is_some_and(|last| last.seq >= seq);
        if is_before && received.iter().any(is_same) {
            // Its acknowledgement was not committed when the inbox was opened anew: the same place again, with the same image.
            self.again.fetch_add(1, Ordering::Relaxed);
            return;
        }
        received.push(Received { seq, image, name, bytes: delivery.bytes, at: Instant::now() });
    }

    fn judge(&self, number: usize, name: &str) -> Findings {
        let received = self.received[number].lock().unwrap_or_else(PoisonError::into_inner);
        let mut findings = self.ledger().judge(name, &received);
        if received.first().is_some_and(|first| first.seq.0 != 1) {
            findings.gaps += 1;
            findings.first.get_or_insert_with(|| format!("{name}: the first place is {}", received[0].seq));
        }
        findings
    }

    fn tally(&self, names: &[String]) -> Tally {
        let mut tally = Tally {
            accepted: self.accepted.load(Ordering::Acquire),
            unsettled: std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)),
            again: self.again.load(Ordering::Acquire),
            findings: Findings::default(),
        };
        for (number, name) in names.iter().enumerate() {
            tally.findings.add(self.judge(number, name));
        }
        tally
    }
}

/// What one sender does.
struct Feed {
    shared: Arc<Shared>,
    options: Options,
    plan: Plan,
    names: Vec<String>,
    name: String,
    random: Random,
}

impl Feed {
    fn run(mut self) -> Result<(), Problem> {
        let mut sender = self.connect()?;
        let mut flying: VecDeque<(usize, String, PendingImage)> = VecDeque::new();
        let gap = Duration::from_micros(1_000_000 * self.plan.senders as u64 / self.plan.pace.max(1));
        let mut due = Instant::now();
        for count in 0u64.. {
            if self.shared.done.load(Ordering::Acquire) {
                break;
            }
            self.shared.check_interrupt()?;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due = (due + gap).max(Instant::now().checked_sub(BEHIND_MAX).unwrap_or(due));
            let (number, name, submitted) = self.hand_over(&sender, count);
            match submitted {
                Ok(pending) => flying.push_back((number, name, pending)),
                Err(error) => self.give_up(&name, &error),
            }
            if flying.len() >= self.plan.window
                && let Some((number, name, pending)) = flying.pop_front()
                && !self.settle(number, &name, pending)
            {
                self.settle_all(&mut flying);
                sender = self.connect()?;
            }
        }
        self.settle_all(&mut flying);
        Ok(())
    }

    fn settle_all(&self, flying: &mut VecDeque<(usize, String, PendingImage)>) {
        for (number, name, pending) in flying.drain(..) {
            self.settle(number, &name, pending);
        }
    }

    fn connect(&self) -> Result<Sender, Problem> {
        Sender::connect(self.options.clone(), &self.name).map_err(problem(format!("sender {}", self.name)))
    }

    fn hand_over(&mut self, sender: &Sender, count: u64) -> (usize, String, Result<PendingImage, SendError>) {
        let name = format!("{}-{count}", self.name);
        let mut receivers = self.names.clone();
        self.random.shuffle(&mut receivers);
        receivers.truncate(if self.random.percent(8) { self.random.between(2, 3) as usize } else { 1 });
        let length = match self.random.between(0, 99) {
            0 => self.random.between(200_000, self.plan.bytes_max as u64),
            1..15 => self.random.between(20_000, 200_000),
            _ => self.random.between(1, 20_000),
        };
        let bytes = bytes_of(self.random.number(), (length as usize).min(self.plan.bytes_max));
        let number = self.shared.ledger().begin(&name, &receivers, bytes.clone());
        let submitted = sender.submit(Arc::new(MemorySource(bytes)), &name, &receivers);
        (number, name, submitted)
    }

    /// Waits for one image. False: the session is of no use any more.
    fn settle(&self, number: usize, name: &str, pending: PendingImage) -> bool {
        match pending.wait() {
            Ok(receipt) => {
                self.shared.ledger().accepted_as(number, receipt.image);
                self.shared.accepted.fetch_add(1, Ordering::AcqRel);
                true
            }
            Err(error) => {
                self.give_up(name, &error);
                !matches!(error, SendError::Client(_))
            }
        }
    }

    fn give_up(&self, name: &str, error: &SendError) {
        let mut unsettled = self.shared.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        unsettled.push(format!("{name}: {error}"));
    }
}
