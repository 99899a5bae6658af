//! `helio inbox`: images become files under safe names; each is acknowledged once it is synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{ClientError, DirectoryStore, Inbox, StoredFile};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::InboxArguments;
use crate::connect;
use crate::exit::{Cause, Failure};
use crate::table::counted;

/// How often a receiver looks whether it was interrupted, and how long it waits for the answer whether there is more.
const LOOK: Duration = Duration::from_millis(200);
/// What has arrived is taken in any case.
const LOOK_MIN: Duration = Duration::from_millis(1);
/// How long the last acknowledgements may take to be committed.
const FLUSH_PATIENCE: Duration = Duration::from_secs(15);

/// Receives until the inbox is empty, or until interrupted.
pub fn run(arguments: &InboxArguments) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Failure::new(Cause::Failed, format!("cannot handle signal {signal}: {error}")))?;
    }
    let mut store = DirectoryStore::open(&arguments.out).map_err(|error| connect::failure(&error))?;
    let options = connect::options(&arguments.nodes)?;
    let mut inbox = Inbox::open_with(options, &arguments.name, &mut store).map_err(|error| connect::failure(&error))?;
    let (mut count, mut damaged) = (0u64, 0u64);
    let outcome = receive(arguments, &stop, &mut inbox, &mut store, |file| {
        count += 1;
        damaged += u64::from(file.head.is_damaged);
        show(file, arguments.json);
    });
    // What was stored is acknowledged, whatever ended the loop.
    let is_flushed = inbox.flush(FLUSH_PATIENCE);
    outcome.map_err(|error| connect::failure(&error))?;
    if !is_flushed.map_err(|error| connect::failure(&error))? {
        return Err(Failure::new(
            Cause::Unreachable,
            "the images are stored, but the cluster did not confirm the acknowledgements; run the command again",
        ));
    }
    if damaged > 0 {
        return Err(Failure::new(
            Cause::Damaged,
            format!(
                "{} lost: no node has the bytes any more; files .damaged stand in their places: ask the senders",
                if damaged == 1 { "1 image was".to_owned() } else { format!("{damaged} images were") }
            ),
        ));
    }
    if count == 0 && !arguments.follow && !arguments.json {
        eprintln!("helio: the inbox of {} is empty", arguments.name);
    }
    Ok(())
}

/// Takes images until interrupted or, unless it is to follow, until the home has no more and nothing came for a while.
fn receive(
    arguments: &InboxArguments,
    stop: &AtomicBool,
    inbox: &mut Inbox,
    store: &mut DirectoryStore,
    mut on_file: impl FnMut(&StoredFile),
) -> Result<(), ClientError> {
    let wait = Duration::from_secs_f64(arguments.wait.clamp(0.0, 3600.0));
    let seconds = arguments.nodes.timeout.max(1);
    let (mut moved_at, mut bytes) = (Instant::now(), 0);
    while !stop.load(Ordering::Acquire) {
        let left = if arguments.follow { LOOK } else { wait.saturating_sub(moved_at.elapsed()) };
        let file = inbox.receive_file(store, left.clamp(LOOK_MIN, LOOK))?;
        if file.is_some() || inbox.received_bytes() > bytes {
            (moved_at, bytes) = (Instant::now(), inbox.received_bytes());
        }
        if let Some(file) = file {
            on_file(&file);
            continue;
        }
        if arguments.follow || moved_at.elapsed() < wait {
            continue;
        }
        if inbox.is_caught_up(LOOK)? {
            break;
        }
        if moved_at.elapsed() >= Duration::from_secs(seconds).max(wait) {
            return Err(ClientError::TimedOut { what: "receiving", seconds, troubles: inbox.troubles() });
        }
    }
    Ok(())
}

fn show(file: &StoredFile, is_json: bool) {
    let head = &file.head;
    if is_json {
        say!(
            "{}",
            json!({ "seq": head.seq.0, "image": head.image.to_string(), "bytes": head.fingerprint.length,
                "checksum": format!("{:016x}", head.fingerprint.checksum), "sender": head.sender, "name": head.name,
                "index": head.index.0, "path": file.path, "damaged": head.is_damaged })
        );
    } else if head.is_damaged {
        say!("{}: lost, from {}, image {}, place {}", file.path.display(), head.sender, head.image, head.seq);
    } else {
        let bytes = counted(head.fingerprint.length, "byte");
        say!("{}: {bytes} from {}, image {}, place {}", file.path.display(), head.sender, head.image, head.seq);
    }
}
