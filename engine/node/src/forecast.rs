//! What the next start of a node will do with its data directory: the code of the start, run without changing anything.

use std::path::{Path, PathBuf};

use disk::chunk_files::FoundChunkFile;
use disk::{ChunkFiles, DataDirView, DirError, LogFiles, Repair, SnapshotMaps};

use logic::outlook::{self, Outlook};
use logic::store::slot::damaged_slots;
use proto::ids::{CoreId, LogIndex};

use crate::error::NodeError;
use crate::start::GroupFound;

/// What a start on this directory, with a configuration that fits to it, will do.
#[derive(Debug)]
pub struct Forecast {
    /// Whether it starts, and what it does with the log.
    pub outlook: Outlook,
    /// What it mends before.
    pub repairs: Vec<Repair>,
    /// Slots of the chunk index that are damaged, by chunk file. What they spoke of is taken from other holders.
    pub damaged_slots: Vec<(PathBuf, usize)>,
    /// Snapshots that it will not use because they are damaged.
    pub unusable_snapshots: Vec<LogIndex>,
    /// The log as judged, if it could be read.
    pub log: Option<LogFiles>,
    /// The snapshots as judged, if they could be read.
    pub snapshots: Option<SnapshotMaps>,
}

/// Looks at the directory of a stopped node, or a copy. `Err`: it is none, or this process may not look. Blocking.
pub fn forecast(path: &Path) -> Result<Forecast, DirError> {
    let mut forecast = Forecast {
        outlook: Outlook::Begins,
        repairs: Vec::new(),
        damaged_slots: Vec::new(),
        unusable_snapshots: Vec::new(),
        log: None,
        snapshots: None,
    };
    let opened = DataDirView::open(path).and_then(|dir| dir.check_parts().map(|()| dir));
    let judged = match opened {
        Err(error @ (DirError::Missing { .. } | DirError::Foreign { .. } | DirError::System { .. })) => {
            return Err(error);
        }
        Err(error) => Err(NodeError::Data { text: error.to_string() }),
        Ok(dir) => forecast.judge(&dir),
    };
    if let Err(error) = judged {
        forecast.outlook = Outlook::Refuses(error.to_string());
    }
    Ok(forecast)
}

impl Forecast {
    fn judge(&mut self, dir: &DataDirView) -> Result<(), NodeError> {
        // First, so that it can be shown whatever else there is.
        let found = GroupFound::inspect(dir);
        let chunk_files: Result<Vec<Vec<ChunkFileLook>>, NodeError> =
            (0..dir.cores()).map(|core| inspect_chunk_files(dir, CoreId(core))).collect();
        let found = found?;
        let outlook::Forecast { outlook, unusable_snapshots } =
            outlook::forecast(dir.node(), dir.cores(), &found.start());
        self.unusable_snapshots = unusable_snapshots;
        self.repairs = found.repairs().to_vec();
        (self.log, self.snapshots) = (Some(found.log), Some(found.snapshots));
        for ChunkFileLook { path, repairs, damaged_slots } in chunk_files?.into_iter().flatten() {
            self.repairs.extend(repairs);
            self.damaged_slots.extend((damaged_slots > 0).then_some((path, damaged_slots)));
        }
        self.outlook = outlook;
        Ok(())
    }
}

struct ChunkFileLook {
    path: PathBuf,
    repairs: Vec<Repair>,
    damaged_slots: usize,
}

fn inspect_chunk_files(dir: &DataDirView, core: CoreId) -> Result<Vec<ChunkFileLook>, NodeError> {
    let refuses = |error: disk::chunk_files::ChunkOpenError| NodeError::Data { text: error.to_string() };
    let mut looks = Vec::new();
    for file in ChunkFiles::inspect(dir, core).map_err(refuses)? {
        let FoundChunkFile { start, repairs } = file.map_err(refuses)?;
        let damaged_slots = damaged_slots(&start.table, start.file);
        looks.push(ChunkFileLook { path: dir.chunk_path(core, start.file), repairs, damaged_slots });
    }
    Ok(looks)
}
