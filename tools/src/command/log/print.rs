//! Prints entries as they pass the filter, and every damaged place.

use std::io::{self, Write};
use std::path::Path;

use logic::log::{Found, Reason, SegmentHeader};
use serde_json::json;

use super::entry::Entry;
use super::filter::Filter;

/// Where the entries go. Every entry comes by here, in the order of the log.
pub struct Printer<W> {
    out: W,
    is_json: bool,
    filter: Filter,
    is_head_kept: bool,
    head: Option<String>, // of a segment, kept until something of it is shown
}

impl<W: Write> Printer<W> {
    /// `is_head_kept`: a segment is only named when something of it is shown.
    pub fn new(out: W, is_json: bool, filter: Filter, is_head_kept: bool) -> Printer<W> {
        Printer { out, is_json, filter, is_head_kept, head: None }
    }

    /// What comes now is of this segment.
    pub fn segment(&mut self, path: &Path, header: &SegmentHeader) -> io::Result<()> {
        if self.is_json {
            return Ok(());
        }
        let (number, signature, cluster) = (header.segment.0, header.signature, header.store.cluster);
        self.head = Some(format!("{}: segment {number} signature {signature} cluster {cluster}", path.display()));
        if self.is_head_kept { Ok(()) } else { self.show_head() }
    }

    pub fn entry(&mut self, segment: &SegmentHeader, found: &Found<'_>) -> io::Result<()> {
        let entry = Entry::new(segment, found);
        let is_shown = self.filter.passes(&entry);
        if let Some(note) = self.filter.take_note() {
            eprintln!("helio: {note}");
        }
        if !is_shown {
            return Ok(());
        }
        self.show_head()?;
        if self.is_json { writeln!(self.out, "{}", entry.json()) } else { writeln!(self.out, "{}", entry.line()) }
    }

    /// Bytes that are neither an entry nor the end; `used` of them, from `offset` on, are not zero.
    pub fn bad(&mut self, segment: &SegmentHeader, offset: u32, reason: Reason, used: u32) -> io::Result<()> {
        self.show_head()?;
        let number = segment.segment.0;
        if self.is_json {
            let bad = json!({ "segment": number, "offset": offset, "bad": reason.to_string() });
            return writeln!(self.out, "{bad}");
        }
        writeln!(self.out, "{number:>5} {offset:>10}  bad: {reason}; {used} bytes in use from here")
    }

    /// Everything is handed on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn show_head(&mut self) -> io::Result<()> {
        match self.head.take() {
            Some(head) => writeln!(self.out, "{head}"),
            None => Ok(()),
        }
    }
}
