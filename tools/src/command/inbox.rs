//! `helio inbox`: images become files under safe names; each is acknowledged once it is synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{DirectoryStore, Inbox, StoredFile};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::InboxArguments;
use crate::connect;
use crate::exit::{Cause, Failure};
use crate::table::grouped;

/// How often a following inbox looks whether it was interrupted.
const LOOK: Duration = Duration::from_millis(200);
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
    let quiet_max = Duration::from_secs_f64(arguments.wait.clamp(0.05, 3600.0));
    let (mut count, mut quiet) = (0u64, Duration::ZERO);
    let outcome = loop {
        if stop.load(Ordering::Acquire) || (!arguments.follow && quiet >= quiet_max) {
            break Ok(());
        }
        match inbox.receive_file(&mut store, LOOK) {
            Ok(Some(file)) => {
                count += 1;
                quiet = Duration::ZERO;
                show(&file, arguments.json);
            }
            Ok(None) => quiet += LOOK,
            Err(error) => break Err(connect::failure(&error)),
        }
    };
    // What was stored is acknowledged, whatever ended the loop.
    let is_flushed = inbox.flush(FLUSH_PATIENCE);
    outcome?;
    if !is_flushed.map_err(|error| connect::failure(&error))? {
        return Err(Failure::new(
            Cause::Unreachable,
            "the images are stored, but the cluster did not confirm the acknowledgements; run the command again",
        ));
    }
    if count == 0 && !arguments.follow && !arguments.json {
        eprintln!("helio: the inbox of {} is empty", arguments.name);
    }
    Ok(())
}

fn show(file: &StoredFile, is_json: bool) {
    let head = &file.head;
    if is_json {
        println!(
            "{}",
            json!({ "seq": head.seq.0, "image": head.image.to_string(), "bytes": head.fingerprint.length,
                "checksum": format!("{:016x}", head.fingerprint.checksum), "sender": head.sender, "name": head.name,
                "index": head.index.0, "path": file.path })
        );
    } else {
        let bytes = grouped(head.fingerprint.length);
        println!(
            "{}: {bytes} bytes from {}, image {}, place {}",
            file.path.display(),
            head.sender,
            head.image,
            head.seq
        );
    }
}
