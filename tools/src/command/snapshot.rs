//! `helio snapshot inspect`: what a snapshot holds, and whether it is whole. Read by the code of the start.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use disk::DataDirView;
use disk::log_files::SegmentMap;
use logic::snapshot::{SnapshotHeader, load};
use serde_json::{Value, json};

use crate::args::SnapshotCommand;
use crate::exit::{Cause, Failure};
use crate::table::grouped;

/// Inspects a file, or all of a data directory.
pub fn run(command: &SnapshotCommand) -> Result<(), Failure> {
    let SnapshotCommand::Inspect(arguments) = command;
    let looks: Vec<Look> = files(&arguments.path)?.iter().map(|path| Look::at(path)).collect::<Result<_, _>>()?;
    let printed = if arguments.json { print_json(&looks) } else { print(&looks) };
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::new(Cause::Failed, format!("cannot print: {error}")));
        }
        _ => {}
    }
    match looks.iter().find_map(|look| look.found.as_ref().err().map(|error| (look, error))) {
        None => Ok(()),
        Some((look, error)) => {
            let text = format!(
                "{}: {error}; a node does without it: it has an older one, or asks the others",
                look.path.display()
            );
            Err(Failure::new(Cause::Rot, text))
        }
    }
}

/// The file, or those of the data directory.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failure = |text: String| Failure::new(Cause::File, format!("{}: {text}", path.display()));
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = DataDirView::open(path).map_or_else(|_| path.to_owned(), |view| view.snapshots_dir());
    let entries = fs::read_dir(&folder).map_err(|error| failure(format!("cannot be read: {error}")))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    files.sort();
    if files.is_empty() {
        return Err(failure("holds no snapshot; a node makes one when half a log segment is full".to_owned()));
    }
    Ok(files)
}

/// What one is.
struct Look {
    path: PathBuf,
    bytes: usize,
    found: Result<Facts, String>,
}

struct Facts {
    index: u64,
    term: u64,
    cluster: String,
    clients: u64,
    sessions: u64,
    undelivered: u64,
    members: usize,
}

impl Look {
    fn at(path: &Path) -> Result<Look, Failure> {
        let unread = |error: io::Error| {
            let text = match error.kind() {
                ErrorKind::NotFound => "does not exist: name a snapshot, or a data directory".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            Failure::new(Cause::File, format!("{}: {text}", path.display()))
        };
        let map = match fs::metadata(path).map_err(unread)?.len() {
            0 => None, // An empty file cannot be mapped.
            _ => Some(SegmentMap::open(path).and_then(|map| map.touch(0, map.len()).map(|()| map)).map_err(unread)?),
        };
        let bytes = map.as_deref().unwrap_or_default();
        Ok(Look { path: path.to_owned(), bytes: bytes.len(), found: facts(bytes) })
    }
}

fn facts(bytes: &[u8]) -> Result<Facts, String> {
    let header = SnapshotHeader::decode(bytes).map_err(|error| error.to_string())?;
    let (mark, state) = load(bytes, header.cluster).map_err(|error| error.to_string())?;
    let (clients, sessions, undelivered) = state.counts();
    let members = state.ring().members().len();
    let cluster = header.cluster.to_string();
    Ok(Facts { index: mark.index.0, term: mark.term.0, cluster, clients, sessions, undelivered, members })
}

fn print(looks: &[Look]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Look { path, bytes, found } in looks {
        writeln!(out, "{}: {} bytes", path.display(), grouped(*bytes as u64))?;
        match found {
            Ok(facts) => writeln!(
                out,
                "  whole; after record {} of term {}, cluster {}\n  {} clients, {} sessions, {} undelivered images, {} members",
                facts.index,
                facts.term,
                facts.cluster,
                grouped(facts.clients),
                grouped(facts.sessions),
                grouped(facts.undelivered),
                facts.members
            )?,
            Err(error) => writeln!(out, "  damaged: {error}")?,
        }
    }
    Ok(())
}

fn print_json(looks: &[Look]) -> io::Result<()> {
    let look = |Look { path, bytes, found }: &Look| {
        let mut value = json!({"path": path, "bytes": bytes, "error": found.as_ref().err()});
        if let Ok(facts) = found {
            let more = json!({
                "index": facts.index, "term": facts.term, "cluster": facts.cluster, "clients": facts.clients,
                "sessions": facts.sessions, "undelivered": facts.undelivered, "members": facts.members,
            });
            value.as_object_mut().expect("made above").extend(more.as_object().expect("made above").clone());
        }
        value
    };
    let value = Value::Array(looks.iter().map(look).collect());
    writeln!(io::stdout().lock(), "{value:#}")
}
