//! The two small files outside of the log: term and vote, and the node's identity.
//!
//! ```text
//! vote:  copy A at 0, copy B at 4096; each one sector, so that no write of one can harm the other
//! ```
//! Invariant: copy A is durable before copy B is touched, so at every moment one of them is whole.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use proto::limits::SECTOR_BYTES;

use crate::dir::{DataDir, DataDirView, publish, replace_file, sync_dir};
use crate::new_file::blocking;
use crate::reading;

/// Where the copies lie: in different blocks of any disk of today.
const COPY_OFFSETS: [u64; 2] = [0, 4096];
const VOTE_FILE_BYTES: u64 = 8192;
/// An identity is far smaller.
const IDENTITY_BYTES_MAX: u64 = 1 << 20;

/// One copy of term and vote, as logic encodes it.
pub type VoteSector = Box<[u8; SECTOR_BYTES]>;

/// Both copies as found, made durable; `None` if the file does not exist. A copy whose bytes are lost comes as
/// ones: never as zeros, which would say that nothing was ever written there. Any other failure to read says nothing about the
/// vote, and is an error. Blocking.
pub fn read_vote(dir: &DataDirView) -> io::Result<Option<[VoteSector; 2]>> {
    let file = match reading::open(&dir.vote_path()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A killed process may have left a vote that is not yet on the disk; whoever acts on it must not lose it again.
    file.sync_data()?;
    let read = |offset| {
        let mut sector = Box::new([0; SECTOR_BYTES]);
        // Ones are a bad copy: logic then counts on the other one, or refuses if there is none.
        match file.read_exact_at(&mut sector[..], offset) {
            Err(error) if reading::is_content_lost(&error) => {
                tracing::error!(path = %dir.vote_path().display(), offset, %error, "a copy of the vote could not be read");
                *sector = [0xff; SECTOR_BYTES];
                Ok(sector)
            }
            read => read.map(|()| sector),
        }
    };
    let [first, second] = COPY_OFFSETS.map(read);
    Ok(Some([first?, second?]))
}

/// The identity file's content, made durable; `None` if it does not exist. Blocking.
pub fn read_identity(dir: &DataDirView) -> io::Result<Option<Vec<u8>>> {
    let path = dir.identity_path();
    // The content was synced before the file got its name; the name may not be.
    sync_dir(dir.path())?;
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() <= IDENTITY_BYTES_MAX => reading::read(&path).map(Some),
        Ok(metadata) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {} bytes are no identity", path.display(), metadata.len()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the small files from an executor. One write of a kind at a time, in the order of the calls.
#[derive(Debug)]
pub struct SmallFiles {
    dir: DataDirView,
    vote: RefCell<Option<Arc<File>>>,
}

impl SmallFiles {
    /// For the directory of this process.
    #[must_use]
    pub fn new(dir: &DataDir) -> SmallFiles {
        SmallFiles { dir: dir.view().clone(), vote: RefCell::new(None) }
    }

    /// Writes copy A, syncs, writes copy B, syncs. `Err` ends the process.
    pub async fn write_vote(&self, sector: VoteSector) -> io::Result<()> {
        let path = self.dir.vote_path();
        let known = self.vote.borrow().clone();
        let file = blocking(move || {
            let file = match known {
                Some(file) => file,
                None => Arc::new(open_vote(&path, &sector)?),
            };
            for offset in COPY_OFFSETS {
                file.write_all_at(&sector[..], offset)?;
                file.sync_data()?;
            }
            Ok(file)
        })
        .await?;
        *self.vote.borrow_mut() = Some(file);
        Ok(())
    }

    /// Replaces the identity file: new file, sync, rename, sync of the directory. `Err` ends the process.
    pub async fn write_identity(&self, bytes: Vec<u8>) -> io::Result<()> {
        let path = self.dir.identity_path();
        blocking(move || replace_file(&path, &path.with_extension("new"), &bytes)).await
    }
}

/// Opens the file of votes. A new one appears whole, with both copies.
fn open_vote(path: &Path, sector: &VoteSector) -> io::Result<File> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let new = path.with_extension("new");
    let file = File::create(&new)?;
    file.set_len(VOTE_FILE_BYTES)?;
    for offset in COPY_OFFSETS {
        file.write_all_at(&sector[..], offset)?;
    }
    file.sync_all()?;
    publish(&new, path)?;
    open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::NodeId;

    use super::*;
    use crate::test_dir::test_dir;

    #[test]
    fn both_copies_of_the_vote_are_found_again_whoever_wrote_them() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        assert!(read_vote(dir.view()).unwrap().is_none());
        for value in [1, 2, 3] {
            executor::run("vote", async {
                let files = SmallFiles::new(&dir);
                files.write_vote(Box::new([0xee; SECTOR_BYTES])).await.unwrap();
                files.write_vote(Box::new([value; SECTOR_BYTES])).await.unwrap();
            })
            .unwrap();
            let copies = read_vote(dir.view()).unwrap().unwrap();
            assert_eq!(copies, [Box::new([value; SECTOR_BYTES]), Box::new([value; SECTOR_BYTES])]);
        }
        let length = fs::metadata(dir.view().vote_path()).unwrap().len();
        assert_eq!(length, VOTE_FILE_BYTES);
    }

    #[test]
    fn a_copy_that_cannot_be_read_comes_as_a_bad_one_beside_the_other() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        fs::write(dir.view().vote_path(), [5; SECTOR_BYTES]).unwrap();
        let copies = read_vote(dir.view()).unwrap().unwrap();
        assert_eq!(copies, [Box::new([5; SECTOR_BYTES]), Box::new([0xff; SECTOR_BYTES])]);
    }

    #[test]
    fn the_identity_is_replaced_as_a_whole() {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        assert_eq!(read_identity(dir.view()).unwrap(), None);
        executor::run("identity", async {
            let files = SmallFiles::new(&dir);
            files.write_identity(b"first, and longer".to_vec()).await.unwrap();
            files.write_identity(b"second".to_vec()).await.unwrap();
        })
        .unwrap();
        assert_eq!(read_identity(dir.view()).unwrap().unwrap(), b"second");
        assert!(!dir.view().path().join("identity.new").exists());
    }
}
