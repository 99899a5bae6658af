//! Snapshot files as logic asks for them, on core 0: writes of one are carried out in their order, reads beside them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use disk::SnapshotFiles;
use link::Event;

use logic::io::{Input, Ticket};
use proto::ids::LogIndex;

use crate::core::Core;
use crate::disk_ops::{fatal, group};

/// A change of a snapshot file.
pub(crate) enum SnapshotTask {
    Write { ticket: Ticket, index: LogIndex, offset: u64, bytes: Vec<u8> },
    Finish { ticket: Ticket, index: LogIndex },
    Remove { index: LogIndex },
}

/// The files, and the changes that wait. Logic has few under way.
pub(crate) struct Snapshots {
    files: SnapshotFiles,
    waiting: RefCell<VecDeque<SnapshotTask>>,
    filled: Event,
}

impl Snapshots {
    pub(crate) fn new(files: SnapshotFiles) -> Snapshots {
        Snapshots { files, waiting: RefCell::default(), filled: Event::new() }
    }

    async fn next(&self) -> SnapshotTask {
        self.filled.until(|| self.waiting.borrow_mut().pop_front()).await
    }
}

/// Puts a change in line.
pub(crate) fn ask(core: &Core, task: SnapshotTask) {
    let snapshots = &group(core).snapshots;
    snapshots.waiting.borrow_mut().push_back(task);
    snapshots.filled.notify();
}

/// `Effect::SnapshotRead`.
pub(crate) fn read(core: &Rc<Core>, ticket: Ticket, (index, offset, length): (LogIndex, u64, u32)) {
    let own = core.clone();
    core.operate("snapshot read", async move {
        let result = group(&own).snapshots.files.read(index, offset, length).await;
        own.inputs.push(Input::SnapshotRead { ticket, result });
    });
}

/// Carries out the changes, for as long as the core lives.
pub(crate) async fn carry_out(core: Rc<Core>) {
    let snapshots = &group(&core).snapshots;
    loop {
        let done = match snapshots.next().await {
            SnapshotTask::Write { ticket, index, offset, bytes } => {
                let result = snapshots.files.write(index, offset, bytes).await;
                result.map(|result| Some(Input::SnapshotWritten { ticket, result }))
            }
            SnapshotTask::Finish { ticket, index } => {
                let result = snapshots.files.finish(index).await;
                result.map(|result| Some(Input::SnapshotFinished { ticket, result }))
            }
            SnapshotTask::Remove { index } => snapshots.files.remove(index).await.map(|()| None),
        };
        match done {
            Ok(Some(input)) => core.inputs.push(input),
            Ok(None) => {}
            Err(error) => return fatal(&core, "write a snapshot", &error),
        }
    }
}

/// Closes what is open; nothing is carried out any more.
pub(crate) async fn close(core: &Core) {
    let Some(group) = &core.group else { return };
    if let Err(error) = group.snapshots.files.close_all().await {
        tracing::warn!(%error, "an unfinished snapshot could not be closed");
    }
}
