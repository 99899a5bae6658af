//! Sets aside what a data directory holds when its node begins a new life: nothing is deleted.
//!
//! ```text
//! before-rejoin-<n>/    core-<c>/, snapshots/, log/, vote, identity as they were
//! ```
//! Chunk files go first and the identity last: whatever a crash leaves, a start without the identity that belongs to it is
//! refused, and the next attempt sets aside the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proto::ids::CoreId;

use crate::dir::{DataDir, DirError, make_part, sync_dir, system};

/// Such a folder begins with this.
pub(crate) const SET_ASIDE: &str = "before-rejoin-";

impl DataDir {
    /// Moves everything that the node wrote into a folder of its own beside it, durably, and makes the parts of the directory
    /// again. Gives the folder; none if there was nothing to move. Blocking; before anything of it is open.
    pub fn set_aside(&self) -> Result<Option<PathBuf>, DirError> {
        let view = self.view();
        let parts: Vec<PathBuf> = (0..view.cores())
            .map(|core| view.core_dir(CoreId(core)))
            .chain([view.snapshots_dir(), view.log_dir()])
            .collect();
        let files = [view.vote_path(), view.identity_path()];
        let holds = |path: &Path| match fs::read_dir(path) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(system(path, "list it")(error)),
        };
        let mut is_empty = !files.iter().any(|file| file.exists());
        for part in &parts {
            is_empty &= !holds(part)?;
        }
        let folder = (!is_empty).then(|| self.make_folder()).transpose()?;
        for part in &parts {
            if let Some(folder) = folder.as_ref().filter(|_| part.exists()) {
                move_into(folder, part)?;
            }
            make_part(part)?;
        }
        let Some(folder) = folder else { return Ok(None) };
        for file in files.iter().filter(|file| file.exists()) {
            sync_both(view.path(), &folder)?;
            move_into(&folder, file)?;
        }
        sync_both(view.path(), &folder)?;
        Ok(Some(folder))
    }

    fn make_folder(&self) -> Result<PathBuf, DirError> {
        let mut number = 1;
        loop {
            let folder = self.view().path().join(format!("{SET_ASIDE}{number}"));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(system(&folder, "create it")(error)),
            }
        }
    }
}

fn move_into(folder: &Path, path: &Path) -> Result<(), DirError> {
    let name = path.file_name().expect("a part of the directory has a name");
    fs::rename(path, folder.join(name)).map_err(system(path, "move it"))
}

fn sync_both(dir: &Path, folder: &Path) -> Result<(), DirError> {
    for path in [folder, dir] {
        sync_dir(path).map_err(system(path, "sync it"))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::NodeId;

    use super::*;
    use crate::test_dir::test_dir;

    #[test]
    fn everything_is_moved_and_nothing_lost_and_the_directory_is_a_new_one() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(3), 2, true).unwrap();
        assert_eq!(dir.set_aside().unwrap(), None, "nothing to move");
        let files =
            ["identity", "vote", "log/rounds", "core-1/0000000000000001.chk", "snapshots/0000000000000007.snap"];
        for number in 1..=2 {
            for file in files {
                fs::write(temp.path().join(file), format!("{number} {file}")).unwrap();
            }
            let folder = dir.set_aside().unwrap().unwrap();
            assert_eq!(folder, temp.path().join(format!("before-rejoin-{number}")));
            for file in files {
                assert!(!temp.path().join(file).exists(), "{file}");
                assert_eq!(fs::read(folder.join(file)).unwrap(), format!("{number} {file}").into_bytes());
            }
        }
        drop(dir);
        drop(DataDir::open(temp.path(), NodeId(3), 2, false).unwrap());
        fs::remove_file(temp.path().join("HELIOGRAPH")).unwrap();
        drop(DataDir::open(temp.path(), NodeId(3), 2, true).unwrap());
    }

    #[test]
    fn directory_with_a_part_gone_can_be_set_aside() {
        let temp = test_dir();
        drop(DataDir::open(temp.path(), NodeId(3), 2, true).unwrap());
        fs::write(temp.path().join("identity"), b"identity").unwrap();
        fs::remove_dir(temp.path().join("core-1")).unwrap();
        assert!(matches!(DataDir::open(temp.path(), NodeId(3), 2, true), Err(DirError::PartMissing { .. })));
        let (dir, missing) = DataDir::open_incomplete(temp.path(), NodeId(3), 2).unwrap();
        assert!(matches!(missing, Some(DirError::PartMissing { .. })));
        dir.set_aside().unwrap().unwrap();
        drop(dir);
        drop(DataDir::open(temp.path(), NodeId(3), 2, false).unwrap());
    }
}
