//! `helio log`: what the segments of a log hold, read in place by the same reader as recovery uses.

pub mod entry;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod fake_log;
mod filter;
mod follow;
mod live_segment;
pub mod names;
mod print;
pub mod segments;
mod stat;

use std::io::{self, BufWriter, ErrorKind, Write};

use logic::log::EntryKind;
use logic::log::layout::{ENTRY_ALIGN_BYTES, SEGMENT_HEADER_BYTES};

pub use self::entry::Kind;

use self::filter::Filter;
pub use self::filter::IndexRange;
use self::print::Printer;
use self::segments::{Segment, segments};
use crate::args::{DumpArguments, LogCommand};
use crate::exit::{Cause, Failure};

/// Dump, stat, verify or repair.
pub fn run(command: &LogCommand) -> Result<(), Failure> {
    match command {
        LogCommand::Verify(arguments) => super::verify::run(arguments),
        LogCommand::Repair(arguments) => super::repair::run(arguments),
        LogCommand::Dump(arguments) if arguments.follow => follow::run(arguments),
        LogCommand::Dump(arguments) => printed(dump(&segments(&arguments.path)?, arguments)),
        LogCommand::Stat(arguments) => printed(stat::stat(&segments(&arguments.path)?, arguments.json)),
    }
}

/// Whoever reads the output may have had enough of it.
pub fn printed(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::new(Cause::Failed, format!("cannot print: {error}"))),
    }
}

fn dump(segments: &[Segment], arguments: &DumpArguments) -> io::Result<()> {
    let filter = Filter::new(&arguments.filter);
    let is_head_kept = !filter.is_empty();
    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()), arguments.json, filter, is_head_kept);
    for segment in segments {
        dump_segment(segment, &mut printer)?;
    }
    printer.flush()
}

/// Every entry, and every place that is none although something is there or behind it.
fn dump_segment(segment: &Segment, printer: &mut Printer<impl Write>) -> io::Result<()> {
    let reader = segment.reader();
    let header = *reader.header();
    printer.segment(&segment.path, &header)?;
    // Looked at first: what a running node appends meanwhile is not taken for damage.
    let used_end = reader.used_end(0);
    let mut offset = SEGMENT_HEADER_BYTES;
    loop {
        match reader.entry(offset) {
            Ok(found) => {
                printer.entry(&header, &found)?;
                offset = found.next;
                if found.header.kind == EntryKind::Seal {
                    return Ok(());
                }
            }
            Err(_) if offset >= used_end || segment.is_given_away(&reader) => return Ok(()),
            Err(reason) => {
                printer.bad(&header, offset, reason, used_end - offset)?;
                let Some(found) = reader.resync(offset + ENTRY_ALIGN_BYTES).next() else { return Ok(()) };
                offset = found.offset;
            }
        }
    }
}
