//! Data directories of nodes that were killed under load, kept in memory without their zeros.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Inbox, MemorySource, PendingImage, ProbeLoad, ProbePlan, Routing, Sender};
use cluster::ledger::bytes_of;
use cluster::nodes::READY_PATIENCE;
use cluster::random::Random;
use cluster::{Cluster, Problem, Setup, problem};
use proto::client::Target;

use crate::HELIO;

/// What is read at once; of zeros nothing is kept.
const BLOCK_BYTES: usize = 4096;
/// Without news for this long, something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a file of a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    Marker,
    Lock,
    Identity,
    Vote,
    Segment,
    Rounds,
    Spare,
    Snapshot,
    ChunkFile,
    /// Never finished, or not looked at.
    Other,
}

impl FileKind {
    fn of(path: &Path) -> FileKind {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match (name.as_str(), path.extension().map(|extension| extension.to_string_lossy()).as_deref()) {
            ("HELIOGRAPH", _) => FileKind::Marker,
            ("LOCK", _) => FileKind::Lock,
            ("identity", _) => FileKind::Identity,
            ("vote", _) => FileKind::Vote,
            ("rounds", _) => FileKind::Rounds,
            ("spare", _) => FileKind::Spare,
            (_, Some("seg")) => FileKind::Segment,
            (_, Some("snap")) => FileKind::Snapshot,
            (_, Some("chk")) => FileKind::ChunkFile,
            _ => FileKind::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            FileKind::Marker => "marker",
            FileKind::Lock => "lock",
            FileKind::Identity => "identity",
            FileKind::Vote => "vote",
            FileKind::Segment => "log segment",
            FileKind::Rounds => "ring of rounds",
            FileKind::Spare => "spare segment",
            FileKind::Snapshot => "snapshot",
            FileKind::ChunkFile => "chunk file",
            FileKind::Other => "other",
        }
    }
}

/// A file, sparse.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Below the directory.
    pub path: PathBuf,
    pub kind: FileKind,
    pub length: u64,
    /// Where something else than zeros is; ascending, none touches the next.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

impl Stored {
    fn read(path: PathBuf, file: &File) -> std::io::Result<Stored> {
        let length = file.metadata()?.len();
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut block = vec![0; BLOCK_BYTES];
        let mut offset = 0;
        while offset < length {
            let there = (length - offset).min(BLOCK_BYTES as u64) as usize;
            file.read_exact_at(&mut block[..there], offset)?;
            if block[..there].iter().any(|byte| *byte != 0) {
                match pieces.last_mut() {
                    Some((start, bytes)) if *start + bytes.len() as u64 == offset => {
                        bytes.extend_from_slice(&block[..there]);
                    }
                    _ => pieces.push((offset, block[..there].to_vec())),
                }
            }
            offset += there as u64;
        }
        Ok(Stored { kind: FileKind::of(&path), path, length, pieces })
    }

    /// The bytes there.
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (start, piece) in &self.pieces {
            let from = offset.max(*start);
            let to = (offset + length as u64).min(start + piece.len() as u64);
            if from < to {
                let (target, source) = ((from - offset) as usize, (from - start) as usize);
                let count = (to - from) as usize;
                bytes[target..target + count].copy_from_slice(&piece[source..source + count]);
            }
        }
        bytes
    }

    /// Writes it below `directory`, over what is there.
    pub fn lay_out(&self, directory: &Path) -> std::io::Result<()> {
        let path = directory.join(&self.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::create(path)?;
        file.set_len(self.length)?;
        self.pieces.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
    }
}

/// A whole data directory.
#[derive(Clone, Debug)]
pub struct Template {
    /// Whose it is.
    pub node: u64,
    /// Nodes of its cluster.
    pub nodes: u64,
    /// Its files, by path.
    pub files: Vec<Stored>,
}

impl Template {
    /// Reads a directory that nobody uses.
    pub fn capture((node, nodes): (u64, u64), directory: &Path) -> Result<Template, Problem> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(directory.join(&folder)).map_err(problem("cannot list a data directory"))?;
            for entry in entries {
                let entry = entry.map_err(problem("cannot list a data directory"))?;
                let (path, full) = (folder.join(entry.file_name()), entry.path());
                if full.is_dir() {
                    folders.push(path);
                    continue;
                }
                let stored = File::open(&full).and_then(|file| Stored::read(path, &file));
                files.push(stored.map_err(problem(full.display()))?);
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Template { node, nodes, files })
    }

    /// Writes it, over what is there.
    pub fn lay_out(&self, directory: &Path) -> Result<(), Problem> {
        // Parts of a directory may be empty.
        for folder in ["log", "snapshots", "core-0"] {
            fs::create_dir_all(directory.join(folder)).map_err(problem("cannot make a folder"))?;
        }
        let laid = self.files.iter().try_for_each(|file| file.lay_out(directory));
        laid.map_err(problem("cannot lay out a data directory"))
    }
}

/// For each of so many moments a directory of every node: all of a cluster killed at once, under load.
pub fn make(folder: &Path, random: &mut Random, nodes: u64, moments: u64) -> Result<Vec<Template>, Problem> {
    let mut setup = Setup::new(HELIO);
    setup.nodes = nodes;
    setup.parent = Some(folder.to_owned());
    let mut cluster = Cluster::start(setup)?;
    let receivers = ["gallery", "archive"].map(str::to_owned);
    let mut client = Client::new(cluster.options(Routing::Any, PATIENCE)).map_err(problem("client"))?;
    for name in &receivers {
        client.register(name).map_err(problem("registering"))?;
    }
    let mut templates = Vec::new();
    for moment in 0..moments {
        if moment > 0 {
            cluster.start_all()?;
            cluster.wait_ready(READY_PATIENCE)?;
        }
        strain(&cluster, random, moment, &receivers)?;
        cluster.kill_together(&cluster.numbers())?;
        for number in cluster.numbers() {
            templates.push(Template::capture((number, nodes), &cluster.data_path(number))?);
        }
    }
    Ok(templates)
}

/// Several segments, snapshots, images that are waited for and images that are under way; returns in the middle of it.
fn strain(cluster: &Cluster, random: &mut Random, moment: u64, receivers: &[String]) -> Result<(), Problem> {
    let options = cluster.options(Routing::Any, PATIENCE);
    let mut probes = ProbeLoad::connect(&options, Target::Any).map_err(problem("probes"))?;
    let plan = ProbePlan { in_flight: 64, payload_bytes: 1024, duration: PATIENCE, count_max: Some(3000) };
    probes.run(&plan, |_| {}).map_err(problem("probes"))?;
    let sender = Sender::connect(options.clone(), "camera").map_err(problem("sender"))?;
    let pending = (0..60).map(|image| submit(&sender, random, &format!("{moment}-{image}"), receivers));
    let pending: Vec<PendingImage> = pending.collect::<Result<_, _>>()?;
    pending.into_iter().take(50).try_for_each(|image| image.wait().map(drop)).map_err(problem("sending"))?;
    // Some are received: their extents are free again.
    let mut inbox = Inbox::open(options, &receivers[0]).map_err(problem("inbox"))?;
    for _ in 0..random.between(1, 15) {
        let Some(delivery) = inbox.receive(PATIENCE).map_err(problem("inbox"))? else { break };
        inbox.acknowledge(delivery.head.seq).map_err(problem("inbox"))?;
    }
    inbox.flush(PATIENCE).map_err(problem("inbox"))?;
    for image in 60..60 + random.between(5, 40) {
        submit(&sender, random, &format!("{moment}-{image}"), receivers)?;
    }
    // Dropped with images and probes under way.
    let count = random.between(20, 200);
    let plan = ProbePlan { count_max: Some(count), in_flight: 1 + count as usize % 64, ..plan };
    probes.run(&plan, |_| {}).map(drop).map_err(problem("probes"))
}

fn submit(sender: &Sender, random: &mut Random, name: &str, receivers: &[String]) -> Result<PendingImage, Problem> {
    let length = if random.percent(3) { random.between(1_100_000, 2_500_000) } else { random.between(1, 60_000) };
    let bytes = bytes_of(random.number(), length as usize);
    let receiver = random.one(&[0, 1]);
    sender.submit(Arc::new(MemorySource(bytes)), name, &receivers[receiver..=receiver]).map_err(problem("submitting"))
}
