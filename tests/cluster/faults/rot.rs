//! Bits flip on the disks of two nodes of five: in their logs, their chunks, their snapshots, under load, with restarts.
//!
//! The same two nodes all the time: two of five voters, and fewer than the three copies of each image. Images that nobody fetches
//! until the end lie on all of them meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use client::{MemorySource, Routing, Sender};
use cluster::ledger::{bytes_of, receive_some};
use cluster::{Cluster, Ledger, Problem, problem};

use crate::HELIO;
use crate::case::Case;
use crate::load::{Load, PATIENCE, Plan, register};

const SHELF: &str = "shelf";
/// Sectors in which a round flips a bit.
const FLIPS_MAX: u64 = 24;
/// What the sectors of a sparse or zeroed file are looked through by.
const SECTOR: usize = 512;
/// What direct reads and writes are aligned to.
const BLOCK: usize = 4096;

/// What rots.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Log,
    Chunks,
    LiveChunks,
    Snapshots,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Log => "flipped bits in the logs of two nodes of five",
            Kind::Chunks => "flipped bits in chunk files of a dead node",
            Kind::LiveChunks => "flipped bits in chunk files of a running node",
            Kind::Snapshots => "flipped bits in snapshots of a dead node",
        }
    }

    /// Where its files are.
    fn is_of(self, path: &Path) -> bool {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match self {
            Kind::Log => extension == Some("seg") || path.ends_with("log/rounds"),
            Kind::Chunks | Kind::LiveChunks => extension == Some("chk"),
            Kind::Snapshots => extension == Some("snap"),
        }
    }
}

/// See the top of this file.
pub fn rot(case: &mut Case) -> Result<(), Problem> {
    let counts = case.scale([24, 12, 24, 12], [2, 1, 2, 1]);
    let kinds = [Kind::Log, Kind::Chunks, Kind::LiveChunks, Kind::Snapshots];
    let mut rounds: Vec<Kind> =
        kinds.iter().zip(counts).flat_map(|(&kind, count)| std::iter::repeat_n(kind, count)).collect();
    case.random.shuffle(&mut rounds);
    let mut setup = case.setup(5, Vec::new());
    setup.settings.push("scrub_seconds = 1".to_owned());
    let mut cluster = case.start(setup)?;
    let mut victims = cluster.numbers();
    case.random.shuffle(&mut victims);
    victims.truncate(2);
    let load = case.load(&cluster, Plan::usual(60))?;
    register(&cluster, &[SHELF.to_owned()])?;
    let mut shelf = Ledger::new();
    for (round, kind) in rounds.into_iter().enumerate() {
        store(&cluster, &mut shelf, round, case)?;
        load.wait_accepted(case.random.between(10, 60) as usize, "before bits flip")?;
        hit(case, &mut cluster, &load, kind, &victims)?;
    }
    wait_whole(case, &mut cluster)?;
    let images = case.scale(6_000, 300);
    case.settle(load, images)?;
    let options = cluster.options(Routing::Any, PATIENCE);
    let received = receive_some(options, SHELF, shelf.due(SHELF), PATIENCE)?;
    case.outcome.findings.add(shelf.judge(SHELF, &received));
    case.outcome.accepted += shelf.sent().len();
    cluster.check_alive()?;
    compare_logs(&mut cluster)
}

/// Some images that wait until the end.
fn store(cluster: &Cluster, shelf: &mut Ledger, round: usize, case: &mut Case) -> Result<(), Problem> {
    let options = cluster.options(Routing::Any, PATIENCE);
    let sender = Sender::connect(options, "keeper").map_err(problem("the shelf's sender"))?;
    let mut flying = Vec::new();
    for image in 0..8 {
        let bytes = bytes_of(case.random.number(), case.random.between(1, 2_500_000) as usize);
        let (name, receivers) = (format!("kept-{round}-{image}"), vec![SHELF.to_owned()]);
        let number = shelf.begin(&name, &receivers, bytes.clone());
        let pending = sender.submit(Arc::new(MemorySource(bytes)), &name, &receivers);
        flying.push((number, pending.map_err(problem("an image for the shelf"))?));
    }
    for (number, pending) in flying {
        pending.wait().map_err(problem("an image for the shelf"))?;
        shelf.accepted(number);
    }
    Ok(())
}

fn hit(case: &mut Case, cluster: &mut Cluster, load: &Load, kind: Kind, victims: &[u64]) -> Result<(), Problem> {
    let hit: Vec<u64> = if matches!(kind, Kind::Log) { victims.to_vec() } else { vec![case.random.one(victims)] };
    if !matches!(kind, Kind::LiveChunks) {
        cluster.kill_together(&hit)?;
    }
    let mut flipped = 0;
    for &victim in &hit {
        flipped += flip(case, &cluster.data_path(victim), kind)?;
    }
    if flipped > 0 {
        case.count(kind.name());
    }
    if !matches!(kind, Kind::LiveChunks) {
        load.wait_accepted(5, "with nodes of five down")?;
        for &victim in &hit {
            cluster.start_node(victim)?;
        }
        case.wait_back(cluster, kind.name())?;
        if matches!(kind, Kind::Log) {
            // The next round hits them again: what both lose before they have it all again, three good nodes must have alone.
            wait_whole(case, cluster)?;
        }
    }
    Ok(())
}

/// Flips one bit in each of some sectors that hold something.
fn flip(case: &mut Case, data: &Path, kind: Kind) -> Result<u64, Problem> {
    let mut files = Vec::new();
    files_below(data, &mut files)?;
    files.retain(|path| kind.is_of(path));
    files.sort();
    let mut used = Vec::new();
    for path in &files {
        let bytes = fs::read(path).map_err(problem("cannot read what is to rot"))?;
        let sectors = bytes.chunks(SECTOR).enumerate().filter(|(_, sector)| sector.iter().any(|&byte| byte != 0));
        used.extend(sectors.map(|(number, _)| (path, number * SECTOR)));
    }
    let count = case.random.between(1, FLIPS_MAX).min(used.len() as u64);
    for _ in 0..count {
        let (path, sector) = case.random.one(&used);
        let at = sector as u64 + case.random.between(0, SECTOR as u64 - 1);
        flip_bit(path, at, 1 << case.random.between(0, 7))?;
    }
    Ok(count)
}

/// As a disk does it: past the page cache, which a running node does not use.
fn flip_bit(path: &Path, at: u64, bit: u8) -> Result<(), Problem> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path).map_err(problem("cannot open what is to rot"))?;
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = &mut memory[start..start + BLOCK];
    let offset = at - at % BLOCK as u64;
    let count = file.read_at(block, offset).map_err(problem("cannot read what is to rot"))?;
    // The last block of a file may be shorter; files are whole sectors.
    let block = &mut block[..count];
    block[(at - offset) as usize] ^= bit;
    file.write_all_at(block, offset).map_err(problem("cannot flip a bit"))
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Problem> {
    for entry in fs::read_dir(folder).map_err(problem("cannot look into a data directory"))? {
        let path = entry.map_err(problem("cannot look into a data directory"))?.path();
        if path.is_dir() { files_below(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Until no node heals, and none fetches bytes again.
fn wait_whole(case: &mut Case, cluster: &mut Cluster) -> Result<(), Problem> {
    case.check_interrupt()?;
    cluster.wait_for("every node to be whole again", PATIENCE, |cluster| {
        for number in cluster.numbers() {
            let status = cluster.status(number)?;
            let repairs: u64 = status.cores.iter().map(|core| core.repairs).sum();
            if status.healing || repairs > 0 {
                return Err(Problem(format!("node {number} heals: {}, repairs {repairs}", status.healing)));
            }
        }
        Ok(())
    })
}

/// No two nodes hold different records at one place that is committed: else two leaders were believed.
fn compare_logs(cluster: &mut Cluster) -> Result<(), Problem> {
    let mut committed = u64::MAX;
    for number in cluster.numbers() {
        committed = committed.min(cluster.status(number)?.committed.0);
    }
    cluster.stop_all()?;
    let mut known: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    let mut compared = 0u64;
    for number in cluster.numbers() {
        let data = cluster.data_path(number);
        let out = Command::new(HELIO).args(["log", "dump", "--json"]).arg(&data).output();
        let out = out.map_err(problem("cannot dump a log"))?;
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let entry: serde_json::Value = serde_json::from_str(line).map_err(problem("a dumped entry"))?;
            let (Some(index), Some(term)) = (entry["index"].as_u64(), entry["term"].as_u64()) else { continue };
            if index > committed || entry["kind"] == "seal" {
                continue;
            }
            let found = (term, entry["record"].to_string());
            let before = known.entry(index).or_insert_with(|| found.clone());
            if *before != found {
                return Err(Problem(format!(
                    "split brain: entry {index} of node {number} is {found:?}, and {before:?}"
                )));
            }
            compared += 1;
        }
    }
    if compared == 0 { Err(Problem("no log has an entry that could be compared".into())) } else { Ok(()) }
}
