//! `helio send`: files to receivers, with a bar on a terminal. Every file is accepted or has its own line that says why not.

use std::collections::VecDeque;
use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use client::{FileSource, PendingImage, Receipt, Sender};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::limits::{FILE_NAME_BYTES_MAX, RECEIVERS_MAX};
use proto::name::check_name;
use serde_json::json;

use crate::args::SendArguments;
use crate::command::node_names;
use crate::connect;
use crate::exit::{Cause, Failure};
use crate::table::counted;

/// A file that was handed to the client.
struct Under {
    name: String,
    bytes: u64,
    pending: PendingImage,
}

/// What happened to all files.
struct Tally<'a> {
    arguments: &'a SendArguments,
    bar: ProgressBar,
    accepted: usize,
    accepted_bytes: u64,
    done_bytes: u64,
    first: Option<Cause>,
}

/// Sends; the exit code is that of the first file that failed.
pub fn run(arguments: &SendArguments) -> Result<(), Failure> {
    check_receivers(&arguments.to)?;
    let start = Instant::now();
    let mut tally = Tally::new(arguments);
    // A file that cannot be read is said before anything is sent; the others go all the same.
    let files: Vec<(&Path, u64)> = arguments
        .files
        .iter()
        .filter_map(|path| match length(path) {
            Ok(bytes) => Some((path.as_path(), bytes)),
            Err(failure) => {
                tally.failed(path.display().to_string(), &failure);
                None
            }
        })
        .collect();
    if !files.is_empty() {
        tally.bar.set_length(files.iter().map(|(_, bytes)| bytes).sum());
        send_all(arguments, &files, &mut tally)?;
    }
    tally.finish(start)
}

fn send_all(arguments: &SendArguments, files: &[(&Path, u64)], tally: &mut Tally<'_>) -> Result<(), Failure> {
    let sender = Sender::connect(connect::options(&arguments.nodes)?, &arguments.from)
        .map_err(|error| connect::failure(&error))?;
    let mut under: VecDeque<Under> = VecDeque::new();
    for &(path, bytes) in files {
        while under.len() >= arguments.in_flight.max(1) {
            settle(under.pop_front(), tally);
        }
        let name = file_name(path);
        let submitted = FileSource::open(path).map_err(|error| Failure::new(Cause::File, error)).and_then(|source| {
            sender.submit(Arc::new(source), &name, &arguments.to).map_err(|error| connect::send_failure(&error))
        });
        match submitted {
            Ok(pending) => under.push_back(Under { name, bytes, pending }),
            Err(failure) => tally.failed(path.display().to_string(), &failure),
        }
    }
    while !under.is_empty() {
        settle(under.pop_front(), tally);
    }
    Ok(())
}

fn settle(under: Option<Under>, tally: &mut Tally<'_>) {
    let Some(Under { name, bytes, pending }) = under else { return };
    let (bar, before) = (tally.bar.clone(), tally.done_bytes);
    bar.set_message(name.clone());
    let outcome = pending.wait_with(|durable, _| bar.set_position(before + durable));
    tally.done_bytes += bytes;
    bar.set_position(tally.done_bytes);
    match outcome {
        Ok(receipt) => tally.accepted(&name, bytes, &receipt),
        Err(error) => tally.failed(name, &connect::send_failure(&error)),
    }
}

impl Tally<'_> {
    fn new(arguments: &SendArguments) -> Tally<'_> {
        let is_shown = !arguments.json && std::io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {msg}",
        )
        .expect("the template is constant");
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        Tally { arguments, bar, accepted: 0, accepted_bytes: 0, done_bytes: 0, first: None }
    }

    fn accepted(&mut self, name: &str, bytes: u64, receipt: &Receipt) {
        self.accepted += 1;
        self.accepted_bytes += bytes;
        let ms = receipt.elapsed.as_secs_f64() * 1e3;
        let holders = node_names(&receipt.holders);
        if self.arguments.json {
            say!(
                "{}",
                json!({ "file": name, "accepted": true, "image": receipt.image.to_string(), "bytes": bytes,
                    "checksum": format!("{:016x}", receipt.fingerprint.checksum), "index": receipt.index.0,
                    "holders": receipt.holders.iter().map(|holder| holder.address.node.0).collect::<Vec<_>>(),
                    "accepted_ms": ms })
            );
        } else {
            let line = format!(
                "{name}: accepted as {}, {} in {ms:.1} ms, log index {}, on {holders}",
                receipt.image,
                counted(bytes, "byte"),
                receipt.index
            );
            self.bar.suspend(|| say!("{line}"));
        }
    }

    fn failed(&mut self, name: String, failure: &Failure) {
        self.first.get_or_insert(failure.cause);
        if self.arguments.json {
            let code = failure.cause as u8;
            say!("{}", json!({ "file": name, "accepted": false, "error": failure.text, "exit_code": code }));
        }
        // The text may begin with the name already.
        let text = failure.text.strip_prefix(&format!("{name}: ")).unwrap_or(&failure.text);
        self.bar.suspend(|| eprintln!("helio: {name}: {text}"));
    }

    fn finish(self, start: Instant) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let all = self.arguments.files.len();
        if let Some(cause) = self.first {
            if all == 1 {
                return Err(Failure::said(cause));
            }
            return Err(Failure::new(cause, format!("{} of {all} files accepted", self.accepted)));
        }
        if all > 1 && !self.arguments.json {
            let rate = self.accepted_bytes as f64 / 1e6 / seconds.max(1e-9);
            let (images, bytes) = (counted(all as u64, "image"), counted(self.accepted_bytes, "byte"));
            say!("{images} accepted, {bytes} in {seconds:.2} s, {rate:.1} MB/s");
        }
        Ok(())
    }
}

/// What no cluster would take is the command line's fault, and said before anything is sent.
fn check_receivers(receivers: &[String]) -> Result<(), Failure> {
    let wrong = |text: String| Err(Failure::new(Cause::Usage, format!("--to: {text}")));
    if receivers.len() > RECEIVERS_MAX {
        return wrong(format!("{} receivers, an image has at most {RECEIVERS_MAX}", receivers.len()));
    }
    for (at, receiver) in receivers.iter().enumerate() {
        if let Err(reason) = check_name(receiver) {
            return wrong(format!("the name {receiver:?} cannot be a client's: {reason}"));
        }
        if receivers[..at].contains(receiver) {
            return wrong(format!("{receiver:?} is named twice; name each receiver once"));
        }
    }
    Ok(())
}

fn length(path: &Path) -> Result<u64, Failure> {
    let file = |text: String| Failure::new(Cause::File, text);
    let metadata = fs::metadata(path).map_err(|error| file(format!("{error}; check the path")))?;
    if !metadata.is_file() {
        return Err(file("not a regular file; name the files themselves".to_owned()));
    }
    if metadata.len() == 0 {
        return Err(file("is empty; an image has at least one byte".to_owned()));
    }
    Ok(metadata.len())
}

/// The last part of the path, cut to what may travel.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut end = name.len().min(FILE_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::{RECEIVERS_MAX, check_receivers};
    use crate::exit::Cause;

    #[test]
    fn receivers_are_checked_before_anything_is_sent() {
        let check = |receivers: &[&str], expected: &str| {
            let receivers: Vec<String> = receivers.iter().map(|&name| name.to_owned()).collect();
            match check_receivers(&receivers) {
                Ok(()) => assert_eq!(expected, "ok"),
                Err(failure) => {
                    assert!(failure.cause == Cause::Usage && failure.text.contains(expected), "{}", failure.text);
                }
            }
        };
        check(&["a", "b"], "ok");
        check(&["a", "b", "a"], "\"a\" is named twice");
        check(&["not/a name"], "\"not/a name\" cannot be");
        check(&[""], "\"\" cannot be");
        check(&["x"; RECEIVERS_MAX + 1], "at most 64");
    }
}
