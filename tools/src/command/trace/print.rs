//! How a trace is told: to people and to programs.

use std::io::{self, Write};

use proto::error::Refusal;
use proto::ids::{Address, Holder, NodeId};
use serde_json::{Value, json};

use super::life::{At, Event, Life, Receiver, Waiting, What};
use super::witness::{Chunk, CoreChunks};
use super::{Directory, Report};
use crate::args::TraceArguments;
use crate::moment;
use crate::table::{Table, counted, grouped};

/// Prints the report.
pub fn print(arguments: &TraceArguments, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if arguments.json {
        return writeln!(out, "{:#}", report_json(report));
    }
    writeln!(out, "{}", head(&report.life))?;
    for note in &report.life.notes {
        writeln!(out, "{note}")?;
    }
    if !report.life.events.is_empty() {
        let mut table = Table::new(&["time", "index", "term", "nodes", "event"]);
        for Event { at, what } in &report.life.events {
            let index = format!("{}{}", at.index, if at.is_committed { "" } else { "?" });
            table.row(vec![moment::show(at.time_ms), index, at.term.to_string(), nodes(&at.nodes), told(what)]);
        }
        writeln!(out, "{}", table.render())?;
        if report.life.events.iter().any(|event| !event.at.is_committed) {
            writeln!(out, "?  no log given says yet that this record is committed")?;
        }
    }
    for directory in &report.directories {
        print_directory(&mut out, report, directory)?;
    }
    Ok(())
}

/// What the image is.
fn head(life: &Life) -> String {
    match &life.portrait {
        Some(portrait) => {
            let sender =
                life.sender.as_ref().map_or("a sender whose name is not known".into(), |name| format!("{name:?}"));
            let (length, checksum) = (grouped(portrait.fingerprint.length), portrait.fingerprint.checksum);
            let name = portrait.name.as_ref().map_or(String::new(), |name| format!(" {name:?}"));
            format!("{}{name}: {length} bytes, checksum {checksum:016x}, from {sender}", life.image)
        }
        None if !life.notes.is_empty() => format!("{}: no record that made it ready is left", life.image),
        None => format!("{}: no record that made it ready", life.image),
    }
}

fn print_directory(out: &mut impl Write, report: &Report, directory: &Directory) -> io::Result<()> {
    let witness = &directory.witness;
    let range = match (witness.places.first(), witness.places.last()) {
        (Some(first), Some(last)) => {
            format!("entries {} to {}, committed up to {}", first.index, last.index, witness.commit)
        }
        _ => "no entries".to_owned(),
    };
    writeln!(out, "{} ({}): {range}", witness.path.display(), witness.node)?;
    for lack in lacks(report, directory) {
        writeln!(out, "  {lack}")?;
    }
    let length = report.life.portrait.as_ref().map(|portrait| portrait.fingerprint.length);
    for core in witness.cores.iter().filter(|core| !core.chunks.is_empty()) {
        let address = Address { node: witness.node, core: core.core };
        let is_needed = report.life.holders().any(|(_, holder)| holder.address == address);
        let remark = match (is_needed, report.life.portrait.is_none() && report.life.is_blind()) {
            (true, _) => "",
            (false, true) => "; whether they are needed is not told by the entries that are left",
            (false, false) => "; freed, or never named as holder",
        };
        writeln!(out, "  core {}: {}{remark}", core.core.0, sum(core, length))?;
        for Chunk { number, bytes, file, offset } in &core.chunks {
            writeln!(
                out,
                "    chunk {number}: {} at {} offset {offset}",
                counted((*bytes).into(), "byte"),
                file.display()
            )?;
        }
    }
    if witness.cores.iter().all(|core| core.chunks.is_empty()) {
        writeln!(out, "  no bytes of the image")?;
    }
    Ok(())
}

/// "2 chunks, 1,500 of 2,000 bytes".
fn sum(core: &CoreChunks, length: Option<u64>) -> String {
    let chunks = counted(core.chunks.len() as u64, "chunk");
    match length {
        Some(length) if length == core.bytes() => format!("{chunks}, all {} bytes", grouped(length)),
        Some(length) => format!("{chunks}, {} of {} bytes", grouped(core.bytes()), grouped(length)),
        None => format!("{chunks}, {} bytes", grouped(core.bytes())),
    }
}

/// What a directory is without, for people.
fn lacks(report: &Report, directory: &Directory) -> Vec<String> {
    let witness = &directory.witness;
    let mut lacks = witness.faults.clone();
    if !directory.lacks.is_empty() {
        lacks.push(format!("lacks entries {}, which others have", directory.lacks.text()));
    }
    if !directory.differs.is_empty() {
        lacks.push(format!("has other entries at {}: others have what replaces them", directory.differs.text()));
    }
    if !directory.denies.is_empty() {
        let ranges = directory.denies.text();
        lacks
            .push(format!("knows its entries {ranges} as committed, and others theirs: they cannot be of one cluster"));
    }
    let length = report.life.portrait.as_ref().map_or(0, |portrait| portrait.fingerprint.length);
    for (index, holder) in report.life.holders().filter(|(_, holder)| holder.address.node == witness.node) {
        let core = witness.cores.iter().find(|core| core.core == holder.address.core);
        let bytes = core.map_or(0, CoreChunks::bytes);
        if bytes < length {
            let (address, missing) = (holder.address, grouped(length - bytes));
            // Where places are not known, nobody here can tell when it was freed.
            let unless = if report.life.is_blind() { ", unless it was freed meanwhile" } else { "" };
            lacks.push(format!("record {index} names {address} as holder: it lacks {missing} bytes{unless}"));
        }
    }
    lacks
}

fn nodes(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

fn holders(holders: &[Holder]) -> String {
    holders.iter().map(|holder| holder.address.to_string()).collect::<Vec<_>>().join(" ")
}

fn name(receiver: &Receiver) -> String {
    receiver.name.clone().map_or_else(|| receiver.inbox.to_string(), |name| format!("{name} ({})", receiver.inbox))
}

fn placed(receiver: &Receiver) -> String {
    match receiver.seq {
        Some(seq) => format!("{} as place {seq}", name(receiver)),
        None => format!("{}, place not known", name(receiver)),
    }
}

fn list(receivers: &[Receiver], text: fn(&Receiver) -> String) -> String {
    receivers.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// An event in words.
pub fn told(what: &What) -> String {
    match what {
        What::SessionOpened { sender } => format!("session opened by {sender:?}"),
        What::Ready { receivers, holders: on } => format!("ready for {} on {}", list(receivers, placed), holders(on)),
        What::Repeated { receivers } => format!("ready again for {}: changed nothing", list(receivers, name)),
        What::Refused { why } => format!("refused: {}", reason(*why)),
        What::Acked { receiver, upto } => format!("acked by {}, up to place {upto}", name(receiver)),
        What::PerhapsAcked { receiver, upto } => format!(
            "first acked behind it by {}, up to place {upto}: whether that covers the image is not known",
            name(receiver)
        ),
        What::Freed { ready, holders: on } => {
            format!("freed: all receivers of record {ready} have it; {} may free", holders(on))
        }
        What::Lost { ready, holder, left } if left.is_empty() => {
            format!("lost: {} gave up the bytes of record {ready}, the last who had them", holders(&[*holder]))
        }
        What::Lost { ready, holder, left } => {
            format!("{} gave up the bytes of record {ready}; {} still has them", holders(&[*holder]), holders(left))
        }
        What::SessionEnded => "session ended, unused for too long".to_owned(),
        What::Snapshot { waiting, received, is_finished } => {
            let mut parts: Vec<String> = waiting.iter().map(waits).collect();
            parts.extend(
                received.iter().map(|(receiver, ready)| format!("acked by {}, record {ready}", name(receiver))),
            );
            if *is_finished {
                parts.push("its sender needs no answer any more".to_owned());
            }
            format!("snapshot: {}", parts.join("; "))
        }
    }
}

fn waits(Waiting { ready, receivers, holders: on }: &Waiting) -> String {
    let on = if on.is_empty() { "nobody any more: it is damaged".to_owned() } else { holders(on) };
    format!("record {ready} waits for {} on {on}", list(receivers, placed))
}

fn reason(why: Refusal) -> &'static str {
    match why {
        Refusal::DifferentBytes => "the id is known with other bytes",
        Refusal::SessionUnknown => "the session was not known any more",
        Refusal::OutOfWindow => "the sequence was too far ahead",
        Refusal::AlreadyFinished => "the sender had said that it was finished",
        Refusal::UnknownReceiver => "a receiver was not registered",
        Refusal::ImageTooLarge => "the image was too large",
        Refusal::ImageEmpty => "the image was empty",
        _ => "it could not be judged",
    }
}

fn report_json(report: &Report) -> Value {
    let life = &report.life;
    let portrait = life.portrait.as_ref();
    json!({
        "image": life.image.to_string(),
        "found": report.is_found(),
        "name": portrait.and_then(|portrait| portrait.name.as_ref()),
        "sender": life.sender,
        "bytes": portrait.map(|portrait| portrait.fingerprint.length),
        "checksum": portrait.map(|portrait| format!("{:016x}", portrait.fingerprint.checksum)),
        "notes": life.notes,
        "events": life.events.iter().map(event_json).collect::<Vec<_>>(),
        "directories": report.directories.iter().map(|directory| directory_json(report, directory)).collect::<Vec<_>>(),
    })
}

fn event_json(Event { at, what }: &Event) -> Value {
    let At { index, term, is_committed, time_ms, nodes } = at;
    let mut event = json!({
        "index": index, "term": term, "committed": is_committed, "time_ms": time_ms, "time": moment::show(*time_ms),
        "nodes": nodes.iter().map(|node| node.0).collect::<Vec<_>>(), "text": told(what),
    });
    let (kind, details) = match what {
        What::SessionOpened { sender } => ("session", json!({ "sender": sender })),
        What::Ready { receivers, holders } => {
            ("ready", json!({ "receivers": receivers_json(receivers), "holders": holders_json(holders) }))
        }
        What::Repeated { receivers } => ("repeated", json!({ "receivers": receivers_json(receivers) })),
        What::Refused { why } => ("refused", json!({ "why": reason(*why) })),
        What::Acked { receiver, upto } => ("acked", json!({ "receiver": receiver_json(receiver), "upto": upto.0 })),
        What::PerhapsAcked { receiver, upto } => {
            ("perhaps-acked", json!({ "receiver": receiver_json(receiver), "upto": upto.0 }))
        }
        What::Freed { ready, holders } => ("freed", json!({ "ready": ready, "holders": holders_json(holders) })),
        What::Lost { ready, holder, left } => (
            "lost",
            json!({ "ready": ready, "holders": holders_json(&[*holder]), "left": holders_json(left),
                "damaged": left.is_empty() }),
        ),
        What::SessionEnded => ("session-ended", json!({})),
        What::Snapshot { waiting, received, is_finished } => {
            let waits = |Waiting { ready, receivers, holders }: &Waiting| json!({ "ready": ready, "receivers": receivers_json(receivers), "holders": holders_json(holders) });
            let acked =
                |(receiver, ready): &(Receiver, u64)| json!({ "ready": ready, "receiver": receiver_json(receiver) });
            let (waiting, received): (Vec<Value>, Vec<Value>) =
                (waiting.iter().map(waits).collect(), received.iter().map(acked).collect());
            ("snapshot", json!({ "waiting": waiting, "received": received, "finished": is_finished }))
        }
    };
    event["event"] = json!(kind);
    for (key, value) in details.as_object().into_iter().flatten() {
        event[key] = value.clone();
    }
    event
}

fn receiver_json(receiver: &Receiver) -> Value {
    json!({ "inbox": receiver.inbox.0, "name": receiver.name, "seq": receiver.seq.map(|seq| seq.0) })
}

fn receivers_json(receivers: &[Receiver]) -> Vec<Value> {
    receivers.iter().map(receiver_json).collect()
}

fn holders_json(holders: &[Holder]) -> Vec<Value> {
    let holder = |holder: &Holder| json!({ "node": holder.address.node.0, "core": holder.address.core.0 });
    holders.iter().map(holder).collect()
}

fn directory_json(report: &Report, directory: &Directory) -> Value {
    let witness = &directory.witness;
    let chunk = |chunk: &Chunk| json!({ "chunk": chunk.number, "bytes": chunk.bytes, "file": chunk.file, "offset": chunk.offset });
    let core = |core: &CoreChunks| json!({ "core": core.core.0, "bytes": core.bytes(), "chunks": core.chunks.iter().map(chunk).collect::<Vec<_>>() });
    json!({
        "path": witness.path, "node": witness.node.0,
        "first": witness.places.first().map(|place| place.index),
        "last": witness.places.last().map(|place| place.index),
        "commit": witness.commit,
        "lacks": lacks(report, directory),
        "cores": witness.cores.iter().filter(|core| !core.chunks.is_empty()).map(core).collect::<Vec<_>>(),
    })
}
