//! `helio log`: what the segments of a log hold, read in place by the same reader as recovery uses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use disk::DataDirView;
use disk::log_files::SegmentMap;
use logic::log::{Bad, EntryKind, Found, Reader, Reason, SegmentHeader};
use proto::codec::decode_record;
use proto::ids::{InboxId, InboxSeq};
use proto::record::{Record, RecordBody};
use serde_json::{Value, json};

use crate::args::LogCommand;
use crate::exit::{Cause, Failure};
use crate::table::{Table, counted, grouped};

/// A segment is told by its first bytes, whatever the file's name.
const MAGIC: &[u8] = b"HELIOSEG";

/// Dump or stat.
pub fn run(command: &LogCommand) -> Result<(), Failure> {
    let (arguments, is_dump) = match command {
        LogCommand::Verify(arguments) => return super::verify::run(arguments),
        LogCommand::Dump(arguments) => (arguments, true),
        LogCommand::Stat(arguments) => (arguments, false),
    };
    let segments = segments(&arguments.path)?;
    let outcome = if is_dump { dump(&segments, arguments.json) } else { stat(&segments, arguments.json) };
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(Cause::Failed, format!("cannot print: {error}"))),
    }
}

struct Segment {
    path: PathBuf,
    map: SegmentMap,
}

/// The segments at `path`, in the order of the log.
fn segments(path: &Path) -> Result<Vec<Segment>, Failure> {
    let failure = |path: &Path, text: String| Failure::new(Cause::File, format!("{}: {text}", path.display()));
    let unread = |path: &Path, error: &io::Error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "does not exist: name a segment, a folder of them, or a data directory",
            ErrorKind::PermissionDenied => "may not be read by this user: run this as the user of the node",
            _ => return failure(path, format!("cannot be read: {error}")),
        };
        failure(path, remedy.to_owned())
    };
    let files = if path.is_dir() {
        let folder = DataDirView::open(path).map_or_else(|_| path.to_owned(), |view| view.log_dir());
        let entries = fs::read_dir(&folder).map_err(|error| unread(&folder, &error))?;
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
    } else {
        vec![path.to_owned()]
    };
    let is_single = !path.is_dir();
    let mut found: Vec<(u64, Segment)> = Vec::new();
    for file in files {
        let map = match SegmentMap::open(&file) {
            Ok(map) => map,
            // An empty file cannot be mapped; in a folder it is just no segment.
            Err(_) if !is_single => continue,
            Err(error) => return Err(unread(&file, &error)),
        };
        match Reader::new(&map) {
            Ok(reader) => {
                let number = reader.header().segment.0;
                found.push((number, Segment { path: file, map }));
            }
            Err(_) if !is_single && !map.starts_with(MAGIC) => {}
            Err(error) => {
                return Err(failure(
                    &file,
                    format!("is no segment of a log ({error}): name a segment, or the data directory"),
                ));
            }
        }
    }
    if found.is_empty() {
        return Err(failure(
            path,
            "holds no segment of a log; name a segment, a folder of them, or a data directory".into(),
        ));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, segment)| segment).collect())
}

impl Segment {
    fn reader(&self) -> Reader<'_> {
        Reader::new(&self.map).expect("opened by the same reader")
    }
}

/// What follows the last entry of a segment.
fn is_end(bad: &Bad) -> bool {
    matches!(bad.reason, Reason::Zeros | Reason::Room { .. })
}

fn dump(segments: &[Segment], is_json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for segment in segments {
        let reader = segment.reader();
        let header = *reader.header();
        if !is_json {
            let name = segment.path.display();
            let (signature, cluster) = (header.signature, header.store.cluster);
            writeln!(out, "{name}: segment {} signature {signature} cluster {cluster}", header.segment.0)?;
        }
        for entry in reader.entries() {
            match entry {
                Ok(found) if is_json => writeln!(out, "{}", entry_json(&header, &found))?,
                Ok(found) => writeln!(out, "{}", entry_line(&header, &found))?,
                Err(bad) if is_end(&bad) => {}
                Err(bad) => bad_entry(&mut out, &reader, &bad, is_json)?,
            }
        }
    }
    out.flush()
}

/// Bytes that are neither an entry nor the end. What is intact behind them is shown too.
fn bad_entry(out: &mut impl Write, reader: &Reader<'_>, bad: &Bad, is_json: bool) -> io::Result<()> {
    let header = *reader.header();
    if is_json {
        writeln!(
            out,
            "{}",
            json!({ "segment": header.segment.0, "offset": bad.offset, "bad": bad.reason.to_string() })
        )?;
    } else {
        let used = reader.used_end(bad.offset) - bad.offset;
        writeln!(
            out,
            "{:>5} {:>10}  bad: {}; {used} bytes in use from here",
            header.segment.0, bad.offset, bad.reason
        )?;
    }
    for found in reader.resync(bad.offset + 8) {
        match is_json {
            true => writeln!(out, "{}", entry_json(&header, &found))?,
            false => writeln!(out, "{}", entry_line(&header, &found))?,
        }
    }
    Ok(())
}

fn entry_line(segment: &SegmentHeader, found: &Found<'_>) -> String {
    let header = &found.header;
    let last = if header.round_last { "." } else { "" };
    format!(
        "{:>5} {:>10}  term {:<3} index {:<8} round {}{last:1} commit {:<8} {:>5} B  {}",
        segment.segment.0,
        found.offset,
        header.term.0,
        header.index,
        header.round,
        header.commit,
        found.next - found.offset,
        describe(found)
    )
}

fn entry_json(segment: &SegmentHeader, found: &Found<'_>) -> Value {
    let header = &found.header;
    json!({
        "segment": segment.segment.0,
        "offset": found.offset,
        "bytes": found.next - found.offset,
        "payload_bytes": found.payload.len(),
        "term": header.term.0,
        "index": header.index.0,
        "round": header.round,
        "round_last": header.round_last,
        "durable_round": header.durable,
        "commit": header.commit.0,
        "kind": kind(found),
        "record": record_json(found),
    })
}

fn record_of(found: &Found<'_>) -> Option<Result<Record, String>> {
    let is_record = found.header.kind == EntryKind::Record && !found.payload.is_empty();
    is_record.then(|| decode_record(found.payload).map_err(|error| error.to_string()))
}

fn kind(found: &Found<'_>) -> &'static str {
    match (found.header.kind, record_of(found)) {
        (EntryKind::Seal, _) => "seal",
        (EntryKind::Record, None) => "term",
        (EntryKind::Record, Some(Err(_))) => "unknown",
        (EntryKind::Record, Some(Ok(record))) => match record.body {
            RecordBody::Genesis { .. } => "genesis",
            RecordBody::Register { .. } => "register",
            RecordBody::OpenSession { .. } => "session",
            RecordBody::Ready(_) => "ready",
            RecordBody::Acked { .. } => "acked",
            RecordBody::RingChange { .. } => "ring",
            RecordBody::ExpireSessions { .. } => "expire",
            RecordBody::Probe { .. } => "probe",
        },
    }
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn acknowledged(&(inbox, upto): &(InboxId, InboxSeq)) -> String {
    format!("{inbox} upto {upto}")
}

fn describe(found: &Found<'_>) -> String {
    let record = match record_of(found) {
        None if found.header.kind == EntryKind::Seal => return "seal".into(),
        None => return "term begins".into(),
        Some(Err(error)) => return format!("unknown record: {error}"),
        Some(Ok(record)) => record,
    };
    let what = match &record.body {
        RecordBody::Genesis { cluster, members, copies, image_bytes_max } => {
            let members = list(members, |member| member.node.to_string());
            format!("genesis of {cluster}: members {members}, copies {copies}, images up to {image_bytes_max} bytes")
        }
        RecordBody::Register { name } => format!("register {name:?} as b{}", found.header.index),
        RecordBody::OpenSession { sender } => format!("session s{} of {sender:?}", found.header.index),
        RecordBody::Ready(ready) => {
            let receivers = list(&ready.receivers, InboxId::to_string);
            let holders = list(&ready.holders, |holder| holder.address.to_string());
            let (length, checksum) = (ready.fingerprint.length, ready.fingerprint.checksum);
            format!(
                "ready {} {:?} {length} bytes {checksum:016x} for {receivers} on {holders}, low water {}",
                ready.image, ready.name, ready.low_water
            )
        }
        RecordBody::Acked { upto } => format!("acked {}", list(upto, acknowledged)),
        RecordBody::RingChange { node, incarnation, up, .. } => {
            format!("ring: {node} {incarnation} {}", if *up { "up" } else { "down" })
        }
        RecordBody::ExpireSessions { idle_since_ms } => format!("expire sessions idle since {idle_since_ms} ms"),
        RecordBody::Probe { payload } => format!("probe of {} bytes", payload.len()),
    };
    format!("{what}, at {} ms", record.time_ms)
}

fn record_json(found: &Found<'_>) -> Value {
    let record = match record_of(found) {
        None => return Value::Null,
        Some(Err(error)) => return json!({ "error": error }),
        Some(Ok(record)) => record,
    };
    let body = match record.body {
        RecordBody::Genesis { cluster, members, copies, image_bytes_max } => json!({
            "cluster": cluster.to_string(), "copies": copies, "image_bytes_max": image_bytes_max,
            "members": members.iter().map(|member| json!({ "node": member.node.0, "cores": member.cores,
                "client": member.client_address, "peer": member.peer_address })).collect::<Vec<_>>(),
        }),
        RecordBody::Register { name } => json!({ "name": name }),
        RecordBody::OpenSession { sender } => json!({ "sender": sender }),
        RecordBody::Ready(ready) => json!({
            "image": ready.image.to_string(), "name": ready.name, "low_water": ready.low_water.0,
            "length": ready.fingerprint.length, "checksum": format!("{:016x}", ready.fingerprint.checksum),
            "receivers": ready.receivers.iter().map(|inbox| inbox.0).collect::<Vec<_>>(),
            "holders": ready.holders.iter().map(|holder| holder.address.node.0).collect::<Vec<_>>(),
        }),
        RecordBody::Acked { upto } => json!({
            "upto": upto.iter().map(|(inbox, seq)| json!({ "inbox": inbox.0, "seq": seq.0 })).collect::<Vec<_>>(),
        }),
        RecordBody::RingChange { node, incarnation, cores, up, client_address, peer_address } => json!({
            "node": node.0, "incarnation": incarnation.0, "cores": cores, "up": up, "client": client_address,
            "peer": peer_address,
        }),
        RecordBody::ExpireSessions { idle_since_ms } => json!({ "idle_since_ms": idle_since_ms }),
        RecordBody::Probe { payload } => json!({ "payload_bytes": payload.len() }),
    };
    json!({ "time_ms": record.time_ms, "body": body })
}

#[derive(Default)]
struct Count {
    entries: u64,
    bytes: u64,
}

#[derive(Default)]
struct Stat {
    segments: u64,
    kinds: BTreeMap<&'static str, Count>,
    bad: u64,
    rounds: Option<(u64, u64)>,
    terms: Option<(u64, u64)>,
    // Indexes of the entries that count now; an entry replaces all from its index on.
    live: Vec<u64>,
    superseded: u64,
}

impl Stat {
    fn note(&mut self, found: &Found<'_>) {
        let header = &found.header;
        let count = self.kinds.entry(kind(found)).or_default();
        count.entries += 1;
        count.bytes += u64::from(found.next - found.offset);
        let span = |span: Option<(u64, u64)>, value: u64| {
            Some(span.map_or((value, value), |(a, b)| (a.min(value), b.max(value))))
        };
        self.rounds = span(self.rounds, header.round);
        self.terms = span(self.terms, header.term.0);
        if header.kind == EntryKind::Record {
            while self.live.last().is_some_and(|&last| last >= header.index.0) {
                self.live.pop();
                self.superseded += 1;
            }
            self.live.push(header.index.0);
        }
    }

    fn total(&self) -> Count {
        let sum = |of: fn(&Count) -> u64| self.kinds.values().map(of).sum();
        Count { entries: sum(|count| count.entries), bytes: sum(|count| count.bytes) }
    }

    fn per_ready(&self) -> Option<f64> {
        let total = self.total().bytes as f64;
        self.kinds.get("ready").map(|ready| total / ready.entries as f64)
    }
}

fn stat(segments: &[Segment], is_json: bool) -> io::Result<()> {
    let mut stat = Stat { segments: segments.len() as u64, ..Stat::default() };
    for segment in segments {
        for entry in segment.reader().entries() {
            match entry {
                Ok(found) => stat.note(&found),
                Err(bad) if is_end(&bad) => {}
                Err(_) => stat.bad += 1,
            }
        }
    }
    let mut out = io::stdout().lock();
    let indexes = stat.live.first().zip(stat.live.last());
    if is_json {
        let kinds: BTreeMap<&str, Value> = stat
            .kinds
            .iter()
            .map(|(kind, count)| (*kind, json!({ "entries": count.entries, "bytes": count.bytes })))
            .collect();
        let (ready, total) = (stat.kinds.get("ready"), stat.total());
        return writeln!(
            out,
            "{:#}",
            json!({
                "segments": stat.segments, "entries": total.entries, "bytes": total.bytes, "kinds": kinds,
                "index_first": indexes.map(|(first, _)| first), "index_last": indexes.map(|(_, last)| last),
                "superseded": stat.superseded, "bad": stat.bad,
                "term_first": stat.terms.map(|(first, _)| first), "term_last": stat.terms.map(|(_, last)| last),
                "round_first": stat.rounds.map(|(first, _)| first), "round_last": stat.rounds.map(|(_, last)| last),
                "ready_bytes_mean": ready.map(|ready| ready.bytes as f64 / ready.entries as f64),
                "bytes_per_ready": stat.per_ready(),
            })
        );
    }
    let mut table = Table::new(&["kind", "entries", "bytes", "bytes each"]);
    for (kind, count) in &stat.kinds {
        let each = format!("{:.1}", count.bytes as f64 / count.entries as f64);
        table.row(vec![(*kind).to_owned(), grouped(count.entries), grouped(count.bytes), each]);
    }
    let total = stat.total();
    table.row(vec!["all".into(), grouped(total.entries), grouped(total.bytes), "-".into()]);
    writeln!(out, "{}", table.render())?;
    let span = |span: Option<(u64, u64)>| span.map_or("none".into(), |(first, last)| format!("{first} to {last}"));
    writeln!(
        out,
        "{}, indexes {}, terms {}, rounds {}, {} superseded, {} bad",
        counted(stat.segments, "segment"),
        span(indexes.map(|(a, b)| (*a, *b))),
        span(stat.terms),
        span(stat.rounds),
        stat.superseded,
        stat.bad
    )?;
    match stat.per_ready() {
        Some(bytes) => writeln!(out, "{bytes:.0} bytes of log for each Ready record, everything counted"),
        None => writeln!(out, "no Ready record"),
    }
}
