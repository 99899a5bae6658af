//! What each part of the run is given, and what it leaves for the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::ledger::Findings;
use cluster::nodes::Place;
use cluster::{Cluster, Problem, Setup};

use crate::HELIO;
use crate::load::{Load, PATIENCE, Plan, Tally};
use cluster::random::Random;

/// What this run may do to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Nothing but processes.
    None,
    /// Networks and mounts of its own, as an ordinary user.
    User,
    /// The same as root: loop devices and FUSE too.
    Root,
}

/// One part.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The long form.
    pub is_full: bool,
    /// What may be done.
    pub rights: Rights,
    /// For its files.
    pub folder: PathBuf,
    /// Drawn from the seed and the name.
    pub random: Random,
    /// Set when the run is to end.
    pub interrupt: Arc<AtomicBool>,
    /// What happened so far.
    pub outcome: Outcome,
}

/// What a part did and found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Faults by name, in the order of their first time.
    pub faults: Vec<(String, u64)>,
    /// What was seen because of them, or beside them.
    pub seen: Vec<(String, u64)>,
    /// Images accepted and judged.
    pub accepted: usize,
    /// Of the images that were received.
    pub findings: Findings,
    /// Not accepted though nothing forbade it: name and why.
    pub unsettled: Vec<String>,
    /// Other things worth a line.
    pub notes: Vec<String>,
    /// Faults not tried: what, why and the remedy.
    pub not_run: Vec<String>,
}

impl Outcome {
    /// Adds what became of a load.
    pub fn add(&mut self, tally: Tally) {
        self.accepted += tally.accepted;
        self.findings.add(tally.findings);
        self.unsettled.extend(tally.unsettled);
        if tally.again > 0 {
            self.notes.push(format!(
                "{} places came again to a receiver that connected anew before its acknowledgement was committed",
                tally.again
            ));
        }
    }
}

impl Case {
    /// Counts a fault.
    pub fn count(&mut self, fault: &str) {
        add_one(&mut self.outcome.faults, fault);
    }

    /// Counts what is not a fault of ours.
    pub fn count_seen(&mut self, what: &str) {
        add_one(&mut self.outcome.seen, what);
    }

    /// The number for the long form or for the short one.
    pub fn scale<T>(&self, full: T, short: T) -> T {
        if self.is_full { full } else { short }
    }

    /// What clusters of this part are made with.
    pub fn setup(&self, nodes: u64, places: Vec<Place>) -> Setup {
        let mut setup = Setup::new(HELIO);
        setup.nodes = nodes;
        setup.places = places;
        setup.parent = Some(self.folder.clone());
        setup.interrupt = self.interrupt.clone();
        setup
    }

    /// Three nodes here, ready.
    pub fn cluster(&self) -> Result<Cluster, Problem> {
        self.start(self.setup(3, Vec::new()))
    }

    /// Starts a cluster and waits longer than tests do: the machine may be busy.
    pub fn start(&self, setup: Setup) -> Result<Cluster, Problem> {
        let mut cluster = Cluster::prepare(setup)?;
        // What the nodes said is shown when the part fails; the folder goes with that of the part.
        cluster.keep_folder();
        cluster.start_all()?;
        cluster.wait_ready(PATIENCE)?;
        Ok(cluster)
    }

    /// Senders and receivers for a cluster.
    pub fn load(&mut self, cluster: &Cluster, plan: Plan) -> Result<Load, Problem> {
        Load::start(cluster, &self.interrupt, plan, self.name, &mut self.random)
    }

    /// Lets a drawn time pass, in milliseconds: a fault that lasts, or work between two faults.
    pub fn pass(&mut self, from_ms: u64, to_ms: u64) -> Result<(), Problem> {
        let time = Duration::from_millis(self.random.between(from_ms, to_ms));
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()) {
            self.check_interrupt()?;
            thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    /// An error once the run is to end.
    pub fn check_interrupt(&self) -> Result<(), Problem> {
        if self.interrupt.load(Ordering::Acquire) { Err(Problem("interrupted".into())) } else { Ok(()) }
    }

    /// Waits until every started node serves, and the cluster is ready. A node that ends is an error.
    pub fn wait_back(&mut self, cluster: &mut Cluster, after: &str) -> Result<(), Problem> {
        let start = Instant::now();
        let mut open = cluster.running();
        while !open.is_empty() {
            self.check_interrupt()?;
            if start.elapsed() > PATIENCE {
                return Err(Problem(format!("nodes {open:?} neither serve nor say why within {PATIENCE:?}")));
            }
            let mut still = Vec::new();
            for number in open {
                match cluster.take_ended(number)? {
                    Some(status) => {
                        let said = cluster.log_tail(number, 2);
                        return Err(Problem(format!("node {number} ended after {after} ({status}): {said}")));
                    }
                    // A node that answers has read its log.
                    None if cluster.status(number).is_err() => still.push(number),
                    None => {}
                }
            }
            open = still;
            thread::sleep(Duration::from_millis(20));
        }
        cluster.wait_ready(PATIENCE).map(drop)
    }

    /// Settles and judges a load, once `images` were accepted in all.
    pub fn settle(&mut self, load: Load, images: usize) -> Result<(), Problem> {
        self.outcome.add(load.finish(images)?);
        Ok(())
    }

    /// Files of this part.
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }
}

fn add_one(counts: &mut Vec<(String, u64)>, name: &str) {
    match counts.iter_mut().find(|(known, _)| known == name) {
        Some((_, count)) => *count += 1,
        None => counts.push((name.to_owned(), 1)),
    }
}
