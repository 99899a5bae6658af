//! What a node does to its files at its start, without the start: said, or done. Everything here is the start's own code, in
//! the start's order; what has to come from other nodes is left to the next start.

use std::io;
use std::path::Path;

use disk::log_device::FlushMethod;
use disk::{ChunkFiles, DataDir, DataDirView, LogDevice, SmallFiles};
use logic::io::{Effect, FileId, Input, LogFile};
use logic::mending::Mending;
use logic::shard::StartError;
use proto::ids::CoreId;

use crate::config::SEGMENT_BYTES_DEFAULT;
use crate::error::NodeError;
use crate::start::GroupFound;

/// What the start would do to the files in `path`, in words, in its order. Reads only; refused while a process uses them, and
/// where the start would refuse. Blocking.
pub fn plan(path: &Path) -> Result<Vec<String>, NodeError> {
    if let Some(error) = DataDir::in_use(path) {
        return Err(NodeError::of_dir(error));
    }
    let view = DataDirView::open(path).and_then(|dir| dir.check_parts().map(|()| dir)).map_err(NodeError::of_dir)?;
    let unfinished = view.unfinished().map_err(|error| failed(path, "list its files", &error))?;
    let mut steps: Vec<String> =
        unfinished.iter().map(|path| format!("removes {}, which was never finished", path.display())).collect();
    for core in cores(&view) {
        for file in ChunkFiles::inspect(&view, core).map_err(unusable)? {
            steps.extend(file.map_err(unusable)?.repairs.iter().map(|repair| format!("repairs {repair}")));
        }
    }
    let found = GroupFound::inspect(&view)?;
    let mut mending = mending(&view, &found)?;
    steps.extend(found.repairs().iter().map(|repair| format!("repairs {repair}")));
    let mut is_ring_there = !found.log.rounds().is_empty();
    while let Some(change) = mending.take_next() {
        if matches!(change, Effect::LogFlush { .. }) && !std::mem::replace(&mut is_ring_there, true) {
            steps.push("makes the ring of round identifiers anew".to_owned());
        }
        steps.push(words(&change));
        mending.done(completion(&change));
    }
    Ok(steps)
}

/// Does it. Gives what was done. Refused, and nothing changed, where the start would refuse. Blocking.
pub fn repair(path: &Path) -> Result<Vec<String>, NodeError> {
    let steps = plan(path)?;
    if steps.is_empty() {
        return Ok(steps);
    }
    let view = DataDirView::open(path).map_err(NodeError::of_dir)?;
    let dir = DataDir::open(path, view.node(), view.cores(), false).map_err(NodeError::of_dir)?;
    executor::run("repair", carry_out(&dir)).map_err(|error| NodeError::Machine { text: error.to_string() })??;
    Ok(steps)
}

async fn carry_out(dir: &DataDir) -> Result<(), NodeError> {
    let path = dir.view().path();
    // All of it is judged before anything is changed.
    let found = GroupFound::open(dir)?;
    let mut mending = mending(dir.view(), &found)?;
    for core in cores(dir.view()) {
        let files = ChunkFiles::load(dir, core).map_err(unusable)?;
        let broken = files.iter().filter(|file| !file.repairs.is_empty()).map(|file| file.start.file);
        ChunkFiles::mend(dir, core, &broken.collect::<Vec<FileId>>()).map_err(unusable)?;
    }
    let broke = |error| failed(path, "write to its log or vote", &error);
    let device = LogDevice::start(FlushMethod::Direct, found.log, SEGMENT_BYTES_DEFAULT).await.map_err(broke)?;
    let small = SmallFiles::new(dir);
    while let Some(change) = mending.take_next() {
        let completion = completion(&change);
        write(&device, &small, change).await.map_err(broke)?;
        mending.done(completion);
    }
    device.close().await.map_err(broke)
}

async fn write(device: &LogDevice, small: &SmallFiles, change: Effect) -> io::Result<()> {
    match change {
        Effect::VoteWrite { sector, .. } => small.write_vote(sector).await,
        Effect::LogFlush { drop_from, writes, .. } => {
            if let Some(first) = drop_from {
                device.drop_from(first).await?;
            }
            device.flush(writes).await
        }
        other => unreachable!("no change of the files: {other:?}"),
    }
}

fn cores(dir: &DataDirView) -> impl Iterator<Item = CoreId> {
    (0..dir.cores()).map(CoreId)
}

fn mending(dir: &DataDirView, found: &GroupFound) -> Result<Mending, NodeError> {
    Mending::new(dir.node(), dir.cores(), &found.start()).map_err(|error| refused(dir.path(), &error))
}

fn completion(change: &Effect) -> Input {
    match change {
        Effect::VoteWrite { ticket, .. } => Input::VoteWritten { ticket: *ticket },
        Effect::LogFlush { ticket, .. } => Input::LogFlushed { ticket: *ticket },
        other => unreachable!("no change of the files: {other:?}"),
    }
}

fn words(change: &Effect) -> String {
    match change {
        Effect::VoteWrite { .. } => {
            "writes term and vote again, both copies, with what is known of the log's losses".to_owned()
        }
        Effect::LogFlush { drop_from, writes, .. } => {
            let bytes = |is_ring| -> usize {
                let of = writes.iter().filter(|write| (write.file == LogFile::Rounds) == is_ring);
                of.map(|write| write.bytes.len()).sum()
            };
            let removed =
                drop_from.map_or(String::new(), |first| format!("removes the segments from {} on, ", first.0));
            format!(
                "{removed}cuts the log where it is intact: {} bytes of zeros in segments, {} bytes in the ring of round identifiers",
                bytes(false),
                bytes(true)
            )
        }
        other => unreachable!("no change of the files: {other:?}"),
    }
}

fn unusable(error: disk::chunk_files::ChunkOpenError) -> NodeError {
    NodeError::Data { text: error.to_string() }
}

fn refused(path: &Path, error: &StartError) -> NodeError {
    NodeError::Recovery { text: format!("{}: {}", path.display(), error.text) }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> NodeError {
    NodeError::Data { text: format!("{}: cannot {what}: {error}", path.display()) }
}
