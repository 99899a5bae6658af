//! `helio log stat`: sums over a log.

use std::collections::BTreeMap;
use std::io::{self, Write};

use logic::log::EntryKind;
use serde_json::{Value, json};

use super::entry::Entry;
use super::segments::{Segment, is_end};
use crate::table::{Table, counted, grouped};

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
    fn note(&mut self, entry: &Entry<'_>) {
        let (header, found) = (&entry.found.header, entry.found);
        let count = self.kinds.entry(entry.kind_name()).or_default();
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

/// Prints what the segments hold, by kind.
pub fn stat(segments: &[Segment], is_json: bool) -> io::Result<()> {
    let mut stat = Stat { segments: segments.len() as u64, ..Stat::default() };
    for segment in segments {
        let reader = segment.reader();
        for entry in reader.entries() {
            match entry {
                Ok(found) => stat.note(&Entry::new(reader.header(), &found)),
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
