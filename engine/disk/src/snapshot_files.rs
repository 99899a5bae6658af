//! Snapshots of the replicated state as they lie on disk: read whole at start, written in parts, by O_DIRECT so that a large
//! one leaves no heap of dirty pages for the next sync of the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use glommio::io::DmaFile;
use logic::io::DiskError;
use proto::ids::LogIndex;
use proto::limits::SECTOR_BYTES;

use crate::dir::{DataDir, DataDirView, publish, remove_unfinished, sync_dir};
use crate::direct_io;
use crate::error::{Outcome, from_glommio, outcome};
use crate::log_files::SegmentMap;
use crate::new_file::blocking;
use crate::reading;

/// The snapshots as found at start, mapped.
#[derive(Debug)]
pub struct SnapshotMaps {
    // None: its bytes are lost.
    maps: Vec<(LogIndex, Option<SegmentMap>)>,
}

impl SnapshotMaps {
    /// Maps every snapshot, after removing what was never finished. One whose bytes are lost is as good as empty: there are
    /// others, and other nodes. Any other failure is an error: a snapshot that only cannot be read now may be what the log
    /// begins with. Blocking.
    pub fn open(dir: &DataDir) -> io::Result<SnapshotMaps> {
        let path = dir.view().snapshots_dir();
        remove_unfinished(&path)?;
        sync_dir(&path)?;
        SnapshotMaps::inspect(dir.view())
    }

    /// As `open`, but changes nothing. Blocking.
    pub fn inspect(dir: &DataDirView) -> io::Result<SnapshotMaps> {
        let mut maps = Vec::new();
        for index in dir.snapshots()? {
            let path = dir.snapshot_path(index);
            let map = match SegmentMap::open(&path).and_then(|map| map.touch(0, map.len()).map(|()| map)) {
                Ok(map) => Some(map),
                Err(error) if reading::is_content_lost(&error) => {
                    tracing::warn!(path = %path.display(), %error, "a snapshot cannot be read");
                    None
                }
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            };
            maps.push((index, map));
        }
        Ok(SnapshotMaps { maps })
    }

    /// Their indexes and bytes, ascending.
    #[must_use]
    pub fn contents(&self) -> Vec<(LogIndex, &[u8])> {
        self.maps.iter().map(|(index, map)| (*index, map.as_deref().unwrap_or_default())).collect()
    }
}

/// Writes and reads snapshots while the node runs. Belongs to core 0's executor; of one snapshot one call at a time.
#[derive(Debug)]
pub struct SnapshotFiles {
    dir: DataDirView,
    // Those that are not finished.
    open: RefCell<BTreeMap<LogIndex, Rc<DmaFile>>>,
}

impl SnapshotFiles {
    /// For the directory of this process.
    #[must_use]
    pub fn new(dir: &DataDir) -> SnapshotFiles {
        SnapshotFiles { dir: dir.view().clone(), open: RefCell::default() }
    }

    /// Writes whole sectors. The write at offset 0 begins a new file. Nothing is durable before `finish`.
    pub async fn write(&self, index: LogIndex, offset: u64, bytes: Vec<u8>) -> Outcome<()> {
        assert!(bytes.len().is_multiple_of(SECTOR_BYTES), "{} bytes are not whole sectors", bytes.len());
        outcome(self.try_write(index, offset, &bytes).await)
    }

    async fn try_write(&self, index: LogIndex, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset == 0 {
            self.abandon(index).await?;
            let file = direct_io::create(&self.dir.snapshot_path(index).with_extension("new")).await?;
            self.open.borrow_mut().insert(index, Rc::new(file));
        }
        let file = self.open.borrow().get(&index).cloned();
        let file = file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the snapshot was not begun"))?;
        let mut buffer = direct_io::zeroed(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        direct_io::write(&file, buffer, offset).await
    }

    /// Makes it durable and gives it its name.
    pub async fn finish(&self, index: LogIndex) -> Outcome<()> {
        outcome(self.try_finish(index).await)
    }

    async fn try_finish(&self, index: LogIndex) -> io::Result<()> {
        self.close(index).await?;
        let path = self.dir.snapshot_path(index);
        blocking(move || {
            let new = path.with_extension("new");
            File::open(&new)?.sync_all()?;
            publish(&new, &path)
        })
        .await
    }

    /// Reads at most that many bytes of one that is finished; fewer at its end. `Unreadable`: the bytes are lost, or the file is.
    pub async fn read(&self, index: LogIndex, offset: u64, length: u32) -> Result<Vec<u8>, DiskError> {
        let path = self.dir.snapshot_path(index);
        let read = blocking(move || {
            let file = reading::open(&path)?;
            let rest = file.metadata()?.len().saturating_sub(offset).min(u64::from(length));
            let mut bytes = vec![0; usize::try_from(rest).expect("at most `length`")];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        });
        read.await.map_err(|error| {
            tracing::error!(index = index.0, offset, %error, "a snapshot could not be read");
            let is_gone = error.kind() == io::ErrorKind::NotFound;
            if is_gone || reading::is_content_lost(&error) { DiskError::Unreadable } else { DiskError::Refused }
        })
    }

    /// Removes it, finished or not.
    pub async fn remove(&self, index: LogIndex) -> io::Result<()> {
        self.abandon(index).await?;
        let path = self.dir.snapshot_path(index);
        blocking(move || remove_if_there(fs::remove_file(&path))).await
    }

    /// Closes what is open.
    pub async fn close_all(&self) -> io::Result<()> {
        let open: Vec<LogIndex> = self.open.borrow().keys().copied().collect();
        for index in open {
            self.close(index).await?;
        }
        Ok(())
    }

    async fn abandon(&self, index: LogIndex) -> io::Result<()> {
        self.close(index).await?;
        let new = self.dir.snapshot_path(index).with_extension("new");
        blocking(move || remove_if_there(fs::remove_file(&new))).await
    }

    async fn close(&self, index: LogIndex) -> io::Result<()> {
        let file = self.open.borrow_mut().remove(&index);
        match file.map(Rc::try_unwrap) {
            Some(Ok(file)) => file.close().await.map_err(from_glommio),
            _ => Ok(()),
        }
    }
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::NodeId;

    use super::*;
    use crate::test_dir::test_dir;

    #[test]
    fn snapshot_appears_under_its_name_only_when_it_is_finished() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        let (one, other) = (LogIndex(77), LogIndex(80));
        executor::run("snapshots", async {
            let files = SnapshotFiles::new(&dir);
            files.write(one, 0, vec![1; 1024]).await.unwrap().unwrap();
            files.write(other, 0, vec![3; 512]).await.unwrap().unwrap();
            files.write(one, 1024, vec![2; 512]).await.unwrap().unwrap();
            assert!(dir.view().snapshots().unwrap().is_empty());
            files.finish(one).await.unwrap().unwrap();
            assert_eq!(dir.view().snapshots().unwrap(), [one]);
            let whole = [vec![1; 1024], vec![2; 512]].concat();
            assert_eq!(files.read(one, 0, 4096).await.unwrap(), whole);
            assert_eq!(files.read(one, 512, 512).await.unwrap(), whole[512..1024]);
            assert!(files.read(one, 1536, 512).await.unwrap().is_empty());
            assert_eq!(files.read(other, 0, 512).await, Err(DiskError::Unreadable));
            // Begun again from its beginning.
            files.write(other, 0, vec![4; 512]).await.unwrap().unwrap();
            files.finish(other).await.unwrap().unwrap();
            assert_eq!(
                SnapshotMaps::inspect(dir.view()).unwrap().contents(),
                [(one, &whole[..]), (other, &[4; 512][..])]
            );
            files.remove(one).await.unwrap();
            files.remove(one).await.unwrap();
            files.write(one, 0, vec![9; 512]).await.unwrap().unwrap();
            files.close_all().await.unwrap();
        })
        .unwrap();
        assert_eq!(SnapshotMaps::open(&dir).unwrap().contents(), [(other, &[4; 512][..])]);
        assert_eq!(fs::read_dir(dir.view().snapshots_dir()).unwrap().count(), 1, "what was not finished is gone");
    }

    #[test]
    fn snapshot_that_only_cannot_be_opened_now_is_no_bad_one() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        let (good, odd) = (dir.view().snapshot_path(LogIndex(5)), dir.view().snapshot_path(LogIndex(9)));
        fs::write(&good, [1; 512]).unwrap();
        // As for want of a permission, whoever runs this: what it leads to goes round in a circle.
        std::os::unix::fs::symlink(&odd, &odd).unwrap();
        for found in [SnapshotMaps::inspect(dir.view()), SnapshotMaps::open(&dir)] {
            let error = found.unwrap_err().to_string();
            assert!(error.contains("0000000000000009.snap"), "{error}");
        }
        executor::run("refused", async {
            let files = SnapshotFiles::new(&dir);
            assert_eq!(files.read(LogIndex(9), 0, 512).await, Err(DiskError::Refused));
            assert_eq!(files.read(LogIndex(7), 0, 512).await, Err(DiskError::Unreadable), "it is gone");
        })
        .unwrap();
        fs::remove_file(&odd).unwrap();
        // One that was emptied is a bad one.
        fs::write(&odd, []).unwrap();
        assert_eq!(
            SnapshotMaps::open(&dir).unwrap().contents(),
            [(LogIndex(5), &[1; 512][..]), (LogIndex(9), &[][..])]
        );
    }
}
