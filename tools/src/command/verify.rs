//! `helio log verify`: what is damaged in the log of a stopped node, and what the node will do at its next start. Judged by
//! the code of the start itself (`node::forecast`).

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use disk::{LogFiles, SnapshotMaps};
use logic::log::Reader;
use logic::outlook::Outlook;
use logic::snapshot::{SnapshotHeader, load};
use logic::vote::Healing;
use node::{Forecast, forecast};
use serde_json::{Value, json};

use crate::args::VerifyArguments;
use crate::exit::{Cause, Failure};
use crate::table::{counted, grouped};

/// Damaged places told of one segment. What is behind them shows in the counts.
const PLACES_MAX: usize = 16;

/// Looks, says, and ends with the code of the worst that it found.
pub fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let forecast = forecast(&arguments.path).map_err(|error| Failure::new(Cause::File, error))?;
    let segments = forecast.log.as_ref().map(LogFiles::segments).unwrap_or_default();
    let segments: Vec<Look> = segments.iter().map(|(id, bytes)| Look::at(id.0, bytes)).collect();
    let snapshots = forecast.snapshots.as_ref().map(SnapshotMaps::contents).unwrap_or_default();
    let snapshots: Vec<Snapshot> = snapshots
        .iter()
        .map(|(index, bytes)| Snapshot::at(index.0, bytes, !forecast.unusable_snapshots.contains(index)))
        .collect();
    let steps = steps(&arguments.path, &forecast);
    let printed = if arguments.json {
        print_json(&segments, &snapshots, (&forecast, &steps))
    } else {
        print(&segments, &snapshots, (&forecast, &steps))
    };
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::new(Cause::Failed, format!("cannot print: {error}")));
        }
        _ => {}
    }
    match cause(&forecast.outlook) {
        None => Ok(()),
        Some(cause) => Err(Failure::new(cause, format!("{}: {}", arguments.path.display(), forecast.outlook))),
    }
}

/// What the next start does to the files, in its order: as `helio log repair` would.
fn steps(path: &Path, forecast: &Forecast) -> Vec<String> {
    if matches!(forecast.outlook, Outlook::Refuses(_)) {
        return Vec::new();
    }
    // Of a directory in use only what it shows.
    let shown = |_| forecast.repairs.iter().map(|repair| format!("repairs {repair}")).collect();
    node::repair::plan(path).unwrap_or_else(shown)
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
    is_usable: bool, // as the start judges, which reads only the header of older ones
}

impl Snapshot {
    fn at(index: u64, bytes: &[u8], is_usable: bool) -> Snapshot {
        let cluster = SnapshotHeader::decode(bytes).map(|header| header.cluster).unwrap_or_default();
        let error = match load(bytes, cluster) {
            Ok((mark, _)) if mark.index.0 == index && is_usable => None,
            Ok((mark, _)) if mark.index.0 == index => Some(format!("it is of cluster {cluster}")),
            Ok((mark, _)) => Some(format!("it is the snapshot of index {}", mark.index)),
            Err(error) => Some(error.to_string()),
        };
        Snapshot { index, bytes: bytes.len(), error, is_usable }
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

pub(super) fn cause(outlook: &Outlook) -> Option<Cause> {
    match outlook {
        Outlook::Begins | Outlook::Serves => None,
        Outlook::Drops(_) => Some(Cause::Torn),
        Outlook::Heals(Healing::Rot, _) => Some(Cause::Rot),
        Outlook::Heals(..) => Some(Cause::Uncertain),
        Outlook::Refuses(_) => Some(Cause::Refuses),
    }
}

fn print(segments: &[Look], snapshots: &[Snapshot], (forecast, steps): (&Forecast, &[String])) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for Snapshot { index, bytes, error, is_usable } in snapshots {
        let use_of_it = if *is_usable { "and not needed, a newer one is whole" } else { "and not used" };
        let found = error.as_ref().map_or("whole".to_owned(), |error| format!("damaged, {use_of_it}: {error}"));
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
    if is_damaged && forecast.outlook == Outlook::Serves {
        writeln!(out, "what is damaged is not needed: a snapshot has it")?;
    }
    for (path, slots) in &forecast.damaged_slots {
        let slots = counted(*slots as u64, "slot");
        writeln!(
            out,
            "{}: {slots} of the chunk index damaged: the node takes what it lacks from other holders",
            path.display()
        )?;
    }
    for step in steps {
        writeln!(out, "the next start {step}")?;
    }
    if let Some(evidence) = forecast.outlook.evidence() {
        writeln!(out, "evidence: {evidence}")?;
    }
    writeln!(out, "{}", forecast.outlook)
}

fn print_json(segments: &[Look], snapshots: &[Snapshot], (forecast, steps): (&Forecast, &[String])) -> io::Result<()> {
    let slot = |(path, slots): &(PathBuf, usize)| json!({"file": path, "slots": slots});
    let snapshots: Vec<Value> = snapshots
        .iter()
        .map(|Snapshot { index, bytes, error, is_usable }| json!({"index": index, "bytes": bytes, "error": error, "usable": is_usable}))
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
        "judgement": forecast.outlook.name(),
        "next_start": forecast.outlook.to_string(),
        "evidence": forecast.outlook.evidence().map(ToString::to_string),
        "repairs": forecast.repairs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "steps": steps,
        "damaged_slots": forecast.damaged_slots.iter().map(slot).collect::<Vec<_>>(),
        "segments": segments,
        "snapshots": snapshots,
    });
    writeln!(io::stdout().lock(), "{value:#}")
}
