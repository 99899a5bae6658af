//! The power of all machines goes at once, and drives fail to flush: three nodes, each on an ext4 filesystem of its own
//! over a drive of ours (`cluster::drive` says what that is, and what it is not).
//!
//! After a power cut a node may find its log torn in a way that it cannot judge alone, and so may all of them: they settle it
//! between them and go on by themselves (ARCHITECTURE.md, P4).

use std::time::{Duration, Instant};

use cluster::drive::{Cut, Volume};
use cluster::nodes::Place;
use cluster::{Cluster, Problem, problem};

use crate::case::{Case, Rights};
use crate::load::{Load, PATIENCE, Plan};
use cluster::random::Random;

const NODES: u64 = 3;
/// Room for the reserve of 64 MiB, the log, and some chunk files.
const DRIVE_BYTES: u64 = 640 << 20;
/// How long the load may take to make a node flush.
const FLUSH_PATIENCE: Duration = Duration::from_secs(20);
/// The ways in which a log becomes durable, in turn.
const FLUSHES: [&str; 2] = ["direct", "mmap"];
/// Exit code of a node that ended itself to keep a promise.
const CODE_FATAL: i32 = 8;

/// Why this cannot be tried here, if so.
fn forbidden(case: &Case) -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if case.rights < Rights::Root {
        Some("needs a loop device and FUSE: run as root".to_owned())
    } else if let Err(error) = device {
        Some(format!("needs FUSE: /dev/fuse: {error}; load the kernel module fuse"))
    } else if !std::path::Path::new("/dev/loop-control").exists() {
        Some("needs loop devices: /dev/loop-control is missing; load the kernel module loop".to_owned())
    } else {
        None
    }
}

/// The drives of one cluster, by node number less one; none while it is not mounted.
struct Machines {
    // First, so that it is dropped first: nothing may use the filesystems any more.
    cluster: Cluster,
    volumes: Vec<Option<Volume>>,
    life: u64,
}

impl Machines {
    fn start(case: &mut Case, life: u64) -> Result<Machines, Problem> {
        let mut volumes = Vec::new();
        let mut places = Vec::new();
        for number in 1..=NODES {
            Volume::format(&case.path(&format!("drive-{life}-{number}")), DRIVE_BYTES)?;
            volumes.push(Some(mount(case, life, number)?));
            // Not the root of the filesystem: `lost+found` is there.
            let data = case.path(&format!("mounted-{number}/data"));
            places.push(Place { data: Some(data), ..Place::default() });
        }
        let mut setup = case.setup(NODES, places);
        let flush = FLUSHES[life as usize % FLUSHES.len()];
        setup.settings.push(format!("flush = {flush:?}"));
        case.count_seen(&format!("cluster that flushes its log by {flush}"));
        let cluster = case.start(setup)?;
        Ok(Machines { cluster, volumes, life })
    }

    fn volume(&self, number: u64) -> &Volume {
        self.volumes[number as usize - 1].as_ref().expect("a running node has its drive")
    }

    /// Cuts the power of all nodes, or of one, at a moment when some of them wait for a flush.
    fn cut(&mut self, case: &mut Case) -> Result<(), Problem> {
        let mut victims = self.cluster.running();
        // Draws must not depend on how much is unsynced, else a seed would not give the same schedule.
        let mut random = Random::new(case.random.number(), "power cut");
        random.shuffle(&mut victims);
        if random.percent(20) {
            victims.truncate(1);
        }
        let waiting = victims[..random.between(0, victims.len() as u64) as usize].to_vec();
        for &number in &waiting {
            self.volume(number).drive().hold_flush();
        }
        for (at, &number) in waiting.iter().enumerate() {
            // While the first one waits, the others may have nothing to flush.
            let patience = if at == 0 { FLUSH_PATIENCE } else { Duration::from_millis(300) };
            if !self.volume(number).drive().wait_held(patience) && at == 0 {
                return Err(Problem(format!("node {number} flushed nothing for {FLUSH_PATIENCE:?} under load")));
            }
        }
        // Of what was not flushed nothing survives, half of it, or most.
        for &number in &victims {
            let share = random.one(&[0, 0, 50, 90]);
            let cut = self.volume(number).drive().cut(|| random.percent(share)).map_err(problem("power cut"))?;
            match cut {
                Cut { unsynced: 0, .. } => case.count_seen("drive with nothing unsynced"),
                Cut { unsynced, lost } if unsynced == lost => case.count_seen("drive that lost all unsynced sectors"),
                Cut { lost: 0, .. } => case.count_seen("drive that kept all unsynced sectors"),
                Cut { .. } => case.count_seen("drive that lost a part of the unsynced sectors"),
            }
        }
        case.count(if victims.len() == 1 { "power cut of one node" } else { "power cut of all nodes at once" });
        self.cluster.kill_together(&victims)?;
        victims.iter().try_for_each(|&number| self.switch_on(case, number))?;
        case.wait_back(&mut self.cluster, "its power was cut")
    }

    /// Mounts the drive of a node that was ended, and starts the node.
    fn switch_on(&mut self, case: &mut Case, number: u64) -> Result<(), Problem> {
        let slot = number as usize - 1;
        if let Some(volume) = self.volumes[slot].take() {
            volume.unmount()?;
        }
        self.volumes[slot] = Some(mount(case, self.life, number)?);
        self.cluster.start_node(number)
    }

    /// Settles and judges what this cluster was given, if it can, and ends it.
    fn finish(self, case: &mut Case, load: Load, images: usize) -> Result<(), Problem> {
        case.settle(load, images)?;
        let Machines { mut cluster, volumes, life } = self;
        let running = cluster.running();
        cluster.kill_together(&running)?;
        volumes.into_iter().flatten().try_for_each(Volume::unmount)?;
        for number in 1..=NODES {
            let base = case.path(&format!("drive-{life}-{number}"));
            std::fs::remove_file(&base).map_err(problem(format!("cannot remove {}", base.display())))?;
        }
        Ok(())
    }
}

fn mount(case: &Case, life: u64, number: u64) -> Result<Volume, Problem> {
    let base = case.path(&format!("drive-{life}-{number}"));
    Volume::mount(&base, &case.path(&format!("point-{number}")), &case.path(&format!("mounted-{number}")))
}

/// See the module.
pub fn cuts(case: &mut Case) -> Result<(), Problem> {
    if let Some(reason) = forbidden(case) {
        case.outcome.not_run.push(format!("power cuts: {reason}"));
        return Ok(());
    }
    lives(case, (48, 8), (2, 1), |case, machines, load| {
        load.wait_accepted(case.random.between(5, 60) as usize, "before a power cut")?;
        machines.cut(case)
    })
}

/// A flush fails: the node ends at once with its own exit code, confirms nothing more, and the others go on without it.
pub fn failed_flushes(case: &mut Case) -> Result<(), Problem> {
    if let Some(reason) = forbidden(case) {
        case.outcome.not_run.push(format!("failed flushes: {reason}"));
        return Ok(());
    }
    lives(case, (18, 5), (2, 1), |case, machines, load| {
        load.wait_accepted(case.random.between(5, 60) as usize, "before a failed flush")?;
        let victim = case.random.one(&machines.cluster.numbers());
        fail_flush(case, machines, load, victim)
    })
}

/// Repeats a fault, (in all, with one cluster at most) for the long form and for the short one. A cluster that is no
/// longer whole is settled, judged and followed by a new one; each second one flushes its log in the other way.
fn lives(
    case: &mut Case,
    full: (u64, u64),
    short: (u64, u64),
    mut fault: impl FnMut(&mut Case, &mut Machines, &Load) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let ((mut left, at_most), images) = (case.scale(full, short), case.scale(300, 100));
    for life in 0.. {
        let mut machines = Machines::start(case, life)?;
        let load = case.load(&machines.cluster, Plan { bytes_max: 1 << 20, ..Plan::usual(60) })?;
        let end = left.saturating_sub(at_most);
        while left > end && machines.cluster.is_whole() {
            fault(case, &mut machines, &load)?;
            left -= 1;
        }
        machines.finish(case, load, images)?;
        if left == 0 {
            return Ok(());
        }
    }
    unreachable!("the lives end with the last fault")
}

fn fail_flush(case: &mut Case, machines: &mut Machines, load: &Load, victim: u64) -> Result<(), Problem> {
    machines.volume(victim).drive().fail_flushes();
    let start = Instant::now();
    let status = loop {
        case.check_interrupt()?;
        if let Some(status) = machines.cluster.take_ended(victim)? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            return Err(Problem(format!("node {victim} runs {PATIENCE:?} after its drive ceased to flush")));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = machines.cluster.log_tail(victim, 2);
    if status.code() != Some(CODE_FATAL) {
        return Err(Problem(format!("node {victim} after a failed flush: {status}, not code {CODE_FATAL}: {said}")));
    }
    case.count("flush that failed with EIO");
    load.wait_accepted(10, "with one node ended by a failed flush")?;
    machines.volume(victim).drive().cut(|| false).map_err(problem("switching the drive off"))?;
    machines.switch_on(case, victim)?;
    case.wait_back(&mut machines.cluster, "a flush failed")
}
