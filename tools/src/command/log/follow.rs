//! `helio log dump --follow`: shows entries as a running node writes them, each once.
//!
//! Only what is new is read, and the entry before it: if that is not what was shown any more, the node has cut its log
//! there (it healed), and what it writes in its place is shown from there on. A place that is no entry is simply not
//! written yet, unless an entry further on proves that it was durable: then it is damaged, and passed over.

use std::collections::VecDeque;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use disk::DataDirView;
use disk::dir::segments_in;
use logic::io::SegmentId;
use logic::log::layout::SEGMENT_HEADER_BYTES;
use logic::log::{Position, Reason};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::filter::Filter;
use super::live_segment::{LiveSegment, Shown};
use super::print::Printer;
use super::printed;
use super::segments::{no_segment, unread};
use crate::args::DumpArguments;
use crate::exit::{Cause, Failure};

/// How often the log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Shown entries that are remembered for the case that the log is cut: more than the segments in which it can be.
const SHOWN_MAX: usize = 1 << 20;

/// Shows what is there and what comes, until interrupted or until nobody reads the output any more.
pub fn run(arguments: &DumpArguments) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal ends it at once, should the output be stuck.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Failure::new(Cause::Failed, format!("cannot handle signal {signal}: {error}")))?;
    }
    let mut follower = Follower::new(folder(&arguments.path)?);
    let filter = Filter::new(&arguments.filter);
    let mut printer = Printer::new(BufWriter::new(io::stdout().lock()), arguments.json, filter, true);
    loop {
        let turn = follower.turn(&mut printer, &stop);
        match turn.and_then(|()| printer.flush().map_err(Trouble::Print)) {
            Ok(()) if stop.load(Ordering::Acquire) || is_output_closed() => return Ok(()),
            Ok(()) => thread::sleep(POLL),
            Err(Trouble::Print(error)) => return printed(Err(error)),
            Err(Trouble::Read(path, error)) => return Err(unread(&path, &error)),
        }
    }
}

/// The folder of segments that `path` means.
fn folder(path: &Path) -> Result<PathBuf, Failure> {
    if let Ok(view) = DataDirView::open(path) {
        return Ok(view.log_dir());
    }
    match segments_in(path) {
        Ok(segments) if segments.is_empty() => Err(no_segment(path)),
        Ok(_) => Ok(path.to_owned()),
        Err(_) if path.is_file() => Err(Failure::new(
            Cause::Usage,
            format!("{}: --follow goes on from segment to segment: name the data directory", path.display()),
        )),
        Err(error) => Err(unread(path, &error)),
    }
}

/// Whoever read the output has gone. A file or terminal never tells.
fn is_output_closed() -> bool {
    let stdout = io::stdout();
    let mut looked_at = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked_at, Some(&at_once)).is_ok() && looked_at[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// What ends the following.
#[derive(Debug)]
enum Trouble {
    Print(io::Error),
    Read(PathBuf, io::Error),
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    let path = path.to_owned();
    move |error| Trouble::Read(path, error)
}

/// Where in the log the next entry comes, and what was shown before.
struct Follower {
    folder: PathBuf,
    open: Option<LiveSegment>,
    left: Option<SegmentId>, // the segment that was read before; the next is a later one
    shown: VecDeque<Shown>,  // in the order of the log, at most SHOWN_MAX
    // All of the open segment was looked through for what follows a bad place. Later on the next segment proves damage: then
    // not all of a segment is read just to look for it.
    is_searched: bool,
    is_first_turn: bool,
}

impl Follower {
    fn new(folder: PathBuf) -> Follower {
        Follower { folder, open: None, left: None, shown: VecDeque::new(), is_searched: false, is_first_turn: true }
    }

    /// Shows all that is there now and was not shown yet.
    fn turn(&mut self, printer: &mut Printer<impl Write>, stop: &AtomicBool) -> Result<(), Trouble> {
        if let Some(open) = &mut self.open
            && !open.begin_turn().map_err(unreadable(&open.path))?
        {
            self.leave_vanished();
        }
        self.go_back(printer)?;
        while !stop.load(Ordering::Acquire) {
            if self.open.is_none() && !self.open_next(printer)? {
                break;
            }
            match self.show_entries(printer, stop)? {
                None => self.leave(),
                Some(reason) if self.pass_damage(reason, printer)? => {}
                Some(_) => break,
            }
        }
        self.is_first_turn = false;
        Ok(())
    }

    /// Opens the segment behind the last one; false if it is not there yet.
    fn open_next(&mut self, printer: &mut Printer<impl Write>) -> Result<bool, Trouble> {
        for (segment, path, is_last) in self.segments_behind(self.left)? {
            if let Some(left) = self.left.filter(|left| left.0 + 1 < segment.0) {
                eprintln!("helio: segments {} to {} were gone before they were read", left.0 + 1, segment.0 - 1);
            }
            match LiveSegment::open(&path, SEGMENT_HEADER_BYTES) {
                Ok(Ok(open)) => {
                    printer.segment(&path, &open.header).map_err(Trouble::Print)?;
                    (self.open, self.is_searched) = (Some(open), !self.is_first_turn);
                    return Ok(true);
                }
                // A segment gets its name after its header: one that was never used may be made again, any other is damaged.
                Ok(Err(_)) if is_last => return Ok(false),
                Ok(Err(error)) => eprintln!("helio: {}: bad: {error}", path.display()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Trouble::Read(path, error)),
            }
            self.left = Some(segment);
        }
        Ok(false)
    }

    /// Segments behind this one, ascending, with whether it is the last.
    fn segments_behind(&self, left: Option<SegmentId>) -> Result<Vec<(SegmentId, PathBuf, bool)>, Trouble> {
        let segments = segments_in(&self.folder).map_err(unreadable(&self.folder))?;
        let last = segments.last().map(|(segment, _)| *segment);
        let behind = segments.into_iter().filter(|(segment, _)| left.is_none_or(|left| *segment > left));
        Ok(behind.map(|(segment, path)| (segment, path, Some(segment) == last)).collect())
    }

    /// Shows entries up to the seal (`None`), or up to the first place that is none.
    fn show_entries(
        &mut self,
        printer: &mut Printer<impl Write>,
        stop: &AtomicBool,
    ) -> Result<Option<Reason>, Trouble> {
        let open = self.open.as_mut().expect("the caller opened it");
        loop {
            if let Err(reason) = open.fill().map_err(unreadable(&open.path))? {
                return Ok(Some(reason));
            }
            let found = match open.entry() {
                Ok(found) if !stop.load(Ordering::Acquire) => found,
                other => return Ok(Some(other.err().unwrap_or(Reason::Zeros))),
            };
            printer.entry(&open.header, &found).map_err(Trouble::Print)?;
            if self.shown.len() == SHOWN_MAX {
                self.shown.pop_front();
            }
            let shown = open.as_shown(&found);
            self.shown.push_back(shown);
            open.offset = shown.next;
            if shown.is_seal {
                return Ok(None);
            }
        }
    }

    /// Goes on behind a place that is no entry if it is proven that there was one. False: nothing was written there yet.
    fn pass_damage(&mut self, reason: Reason, printer: &mut Printer<impl Write>) -> Result<bool, Trouble> {
        if !self.is_damage()? {
            return Ok(false);
        }
        let open = self.open.as_mut().expect("the caller opened it");
        // Read again after the proof: it may have been in the middle of being written, or be the file of newer entries.
        if !open.begin_turn().map_err(unreadable(&open.path))? {
            self.leave_vanished();
            return Ok(true);
        }
        if open.fill().map_err(unreadable(&open.path))?.is_ok() {
            return Ok(true);
        }
        let (next, used) = open.look_behind().map_err(unreadable(&open.path))?;
        printer.bad(&open.header, open.offset, reason, used).map_err(Trouble::Print)?;
        self.is_searched = false;
        match next {
            Some(next) => open.offset = next,
            None => self.leave(),
        }
        Ok(true)
    }

    fn is_damage(&mut self) -> Result<bool, Trouble> {
        let open = self.open.as_mut().expect("the caller opened it");
        let bad = Position { segment: open.header.segment, offset: open.offset };
        if !std::mem::replace(&mut self.is_searched, true) && open.proves_itself().map_err(unreadable(&open.path))? {
            return Ok(true);
        }
        for (_, path, _) in self.segments_behind(Some(bad.segment))? {
            // One that cannot be read proves nothing; it has its turn later.
            if let Ok(Ok(mut later)) = LiveSegment::open(&path, SEGMENT_HEADER_BYTES)
                && later.proves(bad).map_err(unreadable(&path))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn leave(&mut self) {
        self.left = self.open.take().map(|open| open.header.segment).or(self.left);
    }

    fn leave_vanished(&mut self) {
        if let Some(open) = &self.open {
            eprintln!("helio: segment {} was gone before all of it was read", open.header.segment.0);
        }
        self.leave();
    }

    /// If what was shown last is not there any more: back to where the log was cut.
    fn go_back(&mut self, printer: &mut Printer<impl Write>) -> Result<(), Trouble> {
        let mut reading = None;
        let Some(last) = self.shown.back() else { return Ok(()) };
        if self.is_there(last, &mut reading)? {
            return Ok(());
        }
        // What is cut off is the end.
        let (mut kept, mut end) = (0, self.shown.len());
        while kept < end {
            let middle = kept.midpoint(end);
            match self.is_there(&self.shown[middle], &mut reading)? {
                true => kept = middle + 1,
                false => end = middle,
            }
        }
        // All of it, on a second look: the file changed hands in between.
        let Some(&cut) = self.shown.get(kept) else { return Ok(()) };
        self.shown.truncate(kept);
        let at = match self.shown.back() {
            Some(last) if last.is_seal => Position::first(SegmentId(last.segment.0 + 1)),
            Some(last) => Position { segment: last.segment, offset: last.next },
            None => Position { segment: cut.segment, offset: cut.offset },
        };
        eprintln!("helio: the node cut its log at {at}: what it writes there replaces what was shown from there on");
        (self.open, self.left) = (None, Some(SegmentId(at.segment.0 - 1)));
        if self.open_next(printer)?
            && let Some(open) = self.open.as_mut().filter(|open| open.header.segment == at.segment)
        {
            open.offset = at.offset;
        }
        Ok(())
    }

    /// Whether an entry is as it was shown. What is in a segment that is gone by now cannot have been cut.
    fn is_there(&self, shown: &Shown, reading: &mut Option<LiveSegment>) -> Result<bool, Trouble> {
        if reading.as_ref().is_none_or(|open| open.header.segment != shown.segment) {
            *reading = None;
            for (segment, path, _) in self.segments_behind(Some(SegmentId(shown.segment.0 - 1)))? {
                if segment == shown.segment
                    && let Ok(Ok(open)) = LiveSegment::open(&path, SEGMENT_HEADER_BYTES)
                {
                    *reading = Some(open);
                }
            }
        }
        match reading {
            Some(open) if open.header.segment == shown.segment => open.holds(shown).map_err(unreadable(&open.path)),
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "follow_test.rs"]
mod tests;
