//! `helio log verify`: what is damaged in the log of a stopped node, and what the node will do at its next start. Judged by
//! the code of the start itself (`logic::outlook`).

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use disk::log_files::LogFiles;
use disk::{DataDirView, SnapshotMaps, small_files};
use logic::log::{Finding, Reader};
use logic::outlook::{Outlook, outlook};
use logic::shard::GroupStart;
use logic::snapshot::{SnapshotHeader, load};
use logic::vote::Healing;
use serde_json::{Value, json};

use crate::args::VerifyArguments;
use crate::exit::{Cause, Failure};
use crate::table::{counted, grouped};

/// Damaged places told of one segment. What is behind them shows in the counts.
const PLACES_MAX: usize = 16;

/// Looks, says, and ends with the code of the worst that it found.
pub fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let failure = |error: &dyn Display| Failure::new(Cause::File, format!("{}: {error}", arguments.path.display()));
    let view = DataDirView::open(&arguments.path).map_err(|error| Failure::new(Cause::File, error))?;
    let log = LogFiles::inspect(&view).map_err(|error| Failure::new(Cause::File, error))?;
    let snapshots = SnapshotMaps::inspect(&view).map_err(|error| failure(&error))?;
    let start = GroupStart {
        identity: small_files::read_identity(&view).map_err(|error| failure(&error))?,
        vote: small_files::read_vote(&view).map_err(|error| failure(&error))?,
        segments: log.segments(),
        rounds: log.rounds(),
        snapshots: snapshots.contents(),
    };
    let outlook = outlook(&start);
    let segments: Vec<Look> = log.segments().iter().map(|(id, bytes)| Look::at(id.0, bytes)).collect();
    let snapshots: Vec<Snapshot> = start.snapshots.iter().map(|(index, bytes)| Snapshot::at(index.0, bytes)).collect();
    let printed = if arguments.json {
        print_json(&segments, &snapshots, &outlook)
    } else {
        print(&segments, &snapshots, &outlook)
    };
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::new(Cause::Failed, format!("cannot print: {error}")));
        }
        _ => {}
    }
    match cause(&outlook) {
        None => Ok(()),
        Some(cause) => Err(Failure::new(cause, format!("{}: {}", arguments.path.display(), verdict(&outlook)))),
    }
}

/// What one segment holds.
struct Look {
    segment: u64,
    header: Option<String>, // what is wrong with it
    entries: u64,
    first: Option<u64>,
    last: Option<u64>,
    used_bytes: u32,
    places: Vec<Place>,
}

/// What one snapshot is.
struct Snapshot {
    index: u64,
    bytes: usize,
    error: Option<String>,
}

impl Snapshot {
    fn at(index: u64, bytes: &[u8]) -> Snapshot {
        let cluster = SnapshotHeader::decode(bytes).map(|header| header.cluster).unwrap_or_default();
        let error = match load(bytes, cluster) {
            Ok((mark, _)) if mark.index.0 == index => None,
            Ok((mark, _)) => Some(format!("it is the snapshot of index {}", mark.index)),
            Err(error) => Some(error.to_string()),
        };
        Snapshot { index, bytes: bytes.len(), error }
    }
}

/// Bytes that are no entry, with entries or garbage behind them.
struct Place {
    offset: u32,
    reason: String,
    intact_behind: u64,
}

impl Look {
    fn at(segment: u64, bytes: &[u8]) -> Look {
        let mut look =
            Look { segment, header: None, entries: 0, first: None, last: None, used_bytes: 0, places: Vec::new() };
        let reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(error) => return Look { header: Some(error.to_string()), ..look },
        };
        look.used_bytes = reader.used_end(0);
        let mut offset = reader.entries().next().map_or(0, |first| match first {
            Ok(found) => found.offset,
            Err(bad) => bad.offset,
        });
        loop {
            match reader.entry(offset) {
                Ok(found) => {
                    look.entries += 1;
                    look.first.get_or_insert(found.header.index.0);
                    look.last = Some(found.header.index.0);
                    offset = found.next;
                }
                Err(reason) if offset < look.used_bytes => {
                    let next = reader.resync(offset).next().map(|found| found.offset);
                    if look.places.len() < PLACES_MAX {
                        let intact_behind = reader.resync(offset).count() as u64;
                        look.places.push(Place { offset, reason: reason.to_string(), intact_behind });
                    }
                    let Some(next) = next else { return look };
                    offset = next;
                }
                Err(_) => return look,
            }
        }
    }
}

fn cause(outlook: &Outlook) -> Option<Cause> {
    match outlook {
        Outlook::Begins | Outlook::Serves => None,
        Outlook::Drops(_) => Some(Cause::Torn),
        Outlook::Heals(Healing::Rot, _) => Some(Cause::Rot),
        Outlook::Heals(..) => Some(Cause::Uncertain),
        Outlook::Refuses(_) => Some(Cause::Refuses),
    }
}

/// For scripts.
fn name(outlook: &Outlook) -> &'static str {
    match outlook {
        Outlook::Begins => "empty",
        Outlook::Serves => "clean",
        Outlook::Drops(_) => "torn",
        Outlook::Heals(Healing::Rot, _) => "rot",
        Outlook::Heals(..) => "uncertain",
        Outlook::Refuses(_) => "refuses",
    }
}

/// What it is, and what the node will do.
fn verdict(outlook: &Outlook) -> String {
    let heals = "the node will start with what is intact, and take what it lost from the others before it votes again";
    match outlook {
        Outlook::Begins => "empty: the node will wait for the other initial members".to_owned(),
        Outlook::Serves => "clean: the node will start".to_owned(),
        Outlook::Drops(_) => {
            "torn: the last round was never finished, hence never acknowledged; the node will drop it and start"
                .to_owned()
        }
        Outlook::Heals(Healing::Rot, _) => format!("rot: entries that were durable are damaged or missing; {heals}"),
        Outlook::Heals(..) => format!("uncertain: the last round may have been acknowledged and is not whole; {heals}"),
        Outlook::Refuses(text) => format!("the node will refuse to start: {text}"),
    }
}

fn finding(outlook: &Outlook) -> Option<&Finding> {
    match outlook {
        Outlook::Drops(finding) | Outlook::Heals(_, Some(finding)) => Some(finding),
        _ => None,
    }
}

fn print(segments: &[Look], snapshots: &[Snapshot], outlook: &Outlook) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Snapshot { index, bytes, error } in snapshots {
        let found = error.as_ref().map_or("whole".to_owned(), |error| format!("damaged, and not used: {error}"));
        writeln!(out, "snapshot of index {index}  {} bytes, {found}", grouped(*bytes as u64))?;
    }
    for look in segments {
        if let Some(error) = &look.header {
            writeln!(out, "segment {}  {error}", look.segment)?;
            continue;
        }
        let range =
            look.first.zip(look.last).map_or("no index".to_owned(), |(first, last)| format!("{first} to {last}"));
        let entries = counted(look.entries, "entry").replace("entrys", "entries");
        writeln!(
            out,
            "segment {}  {entries}, {range}, {} bytes used",
            look.segment,
            grouped(u64::from(look.used_bytes))
        )?;
        for place in &look.places {
            let Place { offset, reason, intact_behind } = place;
            writeln!(out, "  damaged at {offset}: {reason}; {intact_behind} intact behind it")?;
        }
    }
    let is_damaged = segments.iter().any(|look| look.header.is_some() || !look.places.is_empty());
    if is_damaged && *outlook == Outlook::Serves {
        writeln!(out, "what is damaged is not needed: a snapshot has it")?;
    }
    if let Some(finding) = finding(outlook) {
        writeln!(out, "evidence: {finding}")?;
    }
    writeln!(out, "{}", verdict(outlook))
}

fn print_json(segments: &[Look], snapshots: &[Snapshot], outlook: &Outlook) -> io::Result<()> {
    let snapshots: Vec<Value> = snapshots
        .iter()
        .map(|Snapshot { index, bytes, error }| json!({"index": index, "bytes": bytes, "error": error}))
        .collect();
    let segments: Vec<Value> = segments
        .iter()
        .map(|look| {
            let place = |place: &Place| json!({"offset": place.offset, "reason": place.reason, "intact_behind": place.intact_behind});
            json!({
                "segment": look.segment,
                "header_error": look.header,
                "entries": look.entries,
                "first": look.first,
                "last": look.last,
                "used_bytes": look.used_bytes,
                "damaged": look.places.iter().map(place).collect::<Vec<_>>(),
            })
        })
        .collect();
    let value = json!({
        "judgement": name(outlook),
        "next_start": verdict(outlook),
        "evidence": finding(outlook).map(ToString::to_string),
        "segments": segments,
        "snapshots": snapshots,
    });
    writeln!(io::stdout().lock(), "{value:#}")
}
