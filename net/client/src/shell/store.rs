//! Images of an inbox as files of a directory.
//!
//! ```text
//! DIR/000000000042-photo.jpg     image 42 of the inbox: durable, whole, its checksum verified
//! DIR/000000000043-b.jpg.damaged image 43, of which no node has the bytes any more: a text that says so
//! DIR/.heliograph-partial        the image that comes now
//! DIR/.heliograph-inbox          which inbox of which cluster; written before the first image
//! ```
//!
//! An image is written under the partial name, synced, renamed, and the directory is synced: then, and only then, it may be
//! acknowledged. The place in the inbox is in the name, so a file and the fact that it need not come again are one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use proto::client::ImageHead;
use proto::ids::{ClusterId, InboxId, InboxSeq};

use crate::error::ClientError;
use crate::inbox::StoredBefore;
use crate::shell::inbox::ImageSink;

pub use crate::file_name::{file_hint, safe_name};

const MARKER: &str = ".heliograph-inbox";
const PARTIAL: &str = ".heliograph-partial";
const SEQUENCE_DIGITS: usize = 12;

/// A received image as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// All about it.
    pub head: ImageHead,
    /// Where it is.
    pub path: PathBuf,
}

/// A directory that holds images of one inbox as files `<sequence>-<safe name>`. One process at a time may use it.
#[derive(Debug)]
pub struct DirectoryStore {
    directory: PathBuf,
    // Keeps the lock on the directory for as long as the store lives.
    handle: File,
    owner: Option<(ClusterId, InboxId)>,
    seqs: BTreeSet<InboxSeq>,
    current: Option<(ImageHead, File)>,
    last: Option<StoredFile>,
}

impl DirectoryStore {
    /// Opens (or makes) the directory and sees which images it holds. Files of an inbox that are moved away before their
    /// acknowledgement is committed come again.
    pub fn open(directory: &Path) -> Result<DirectoryStore, ClientError> {
        fs::create_dir_all(directory).map_err(|error| {
            let text = match error.kind() {
                ErrorKind::AlreadyExists => "is a file: name a directory".to_owned(),
                ErrorKind::NotADirectory => "a part of this path is a file: name a directory".to_owned(),
                ErrorKind::PermissionDenied => "cannot be made by this user: name another directory".to_owned(),
                _ => format!("cannot be made: {error}"),
            };
            at(directory, io::Error::new(error.kind(), text))
        })?;
        let handle = File::open(directory).map_err(|error| at(directory, error))?;
        handle.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                let text = "another receiver writes to this directory: stop it, or choose another directory";
                at(directory, io::Error::new(ErrorKind::ResourceBusy, text))
            }
            fs::TryLockError::Error(error) => at(directory, error),
        })?;
        let owner = read_marker(&directory.join(MARKER))?;
        let mut seqs = BTreeSet::new();
        for entry in fs::read_dir(directory).map_err(|error| at(directory, error))? {
            let entry = entry.map_err(|error| at(directory, error))?;
            let name = entry.file_name();
            if let Some(seq) = name.to_str().and_then(sequence_of) {
                seqs.insert(seq);
            }
        }
        let partial = directory.join(PARTIAL);
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&partial, error)),
            _ => {}
        }
        Ok(DirectoryStore { directory: directory.to_owned(), handle, owner, seqs, current: None, last: None })
    }

    /// What a session must know to take nothing twice.
    pub fn stored_before(&self) -> StoredBefore {
        // Without the marker nobody knows whose images the files are.
        let seqs = if self.owner.is_some() { self.seqs.clone() } else { BTreeSet::new() };
        StoredBefore { inbox: self.owner.map(|(_, inbox)| inbox), seqs }
    }

    /// Makes sure that the directory is that of this inbox, and stays so.
    pub fn bind(&mut self, cluster: ClusterId, inbox: InboxId) -> Result<(), ClientError> {
        match self.owner {
            Some((found_cluster, found)) if (found_cluster, found) != (cluster, inbox) => {
                Err(ClientError::DirectoryOfOtherInbox {
                    path: self.directory.clone(),
                    found,
                    found_cluster,
                    expected: inbox,
                    expected_cluster: cluster,
                })
            }
            Some(_) => Ok(()),
            None => {
                let text = format!("heliograph inbox 1\ncluster {cluster}\ninbox {}\n", inbox.0);
                let (partial, marker) = (self.directory.join(PARTIAL), self.directory.join(MARKER));
                write_durably(&partial, &marker, text.as_bytes()).map_err(|error| at(&marker, error))?;
                self.handle.sync_all().map_err(|error| at(&self.directory, error))?;
                self.owner = Some((cluster, inbox));
                Ok(())
            }
        }
    }

    /// The file of the image that was finished last; given once.
    pub(crate) fn take_last(&mut self) -> Option<StoredFile> {
        self.last.take()
    }

    fn partial(&self) -> PathBuf {
        self.directory.join(PARTIAL)
    }
}

impl ImageSink for DirectoryStore {
    fn begin(&mut self, head: &ImageHead) -> Result<(), ClientError> {
        let partial = self.partial();
        let file = File::create(&partial).map_err(|error| at(&partial, error))?;
        self.current = Some((head.clone(), file));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let partial = self.partial();
        let (_, file) = self.current.as_mut().expect("a write follows its begin");
        file.write_all(bytes).map_err(|error| at(&partial, error))
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        let partial = self.partial();
        let (head, file) = self.current.take().expect("a finish follows its begin");
        file.sync_all().map_err(|error| at(&partial, error))?;
        let name = format!("{:0width$}-{}", head.seq.0, safe_name(&head.name), width = SEQUENCE_DIGITS);
        let path = self.directory.join(name);
        fs::rename(&partial, &path).map_err(|error| at(&path, error))?;
        self.handle.sync_all().map_err(|error| at(&self.directory, error))?;
        self.last = Some(StoredFile { head, path });
        Ok(())
    }

    fn damaged(&mut self, head: &ImageHead) -> Result<(), ClientError> {
        let ImageHead { seq, image, fingerprint, sender, name, .. } = head;
        let text = format!(
            "The image at place {seq} of this inbox was lost: no node of the cluster has its bytes any more.\n\
             image {image}, {} bytes, from {sender}, named {name}\n",
            fingerprint.length
        );
        let file = format!("{:0width$}-{}.damaged", seq.0, safe_name(name), width = SEQUENCE_DIGITS);
        let path = self.directory.join(file);
        write_durably(&self.partial(), &path, text.as_bytes()).map_err(|error| at(&path, error))?;
        self.handle.sync_all().map_err(|error| at(&self.directory, error))?;
        self.last = Some(StoredFile { head: head.clone(), path });
        Ok(())
    }

    fn abort(&mut self) {
        self.current = None;
        // If it stays, the next image or the next start overwrites it.
        let _ = fs::remove_file(self.partial());
    }
}

fn at(path: &Path, error: io::Error) -> ClientError {
    ClientError::File { path: path.to_owned(), error }
}

fn write_durably(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(partial, path)
}

/// The sequence in the name of an image's file.
fn sequence_of(name: &str) -> Option<InboxSeq> {
    let (digits, rest) = name.split_once('-')?;
    let well_formed = digits.len() >= SEQUENCE_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seq = if well_formed && !rest.is_empty() { digits.parse().ok()? } else { return None };
    Some(InboxSeq(seq))
}

fn read_marker(path: &Path) -> Result<Option<(ClusterId, InboxId)>, ClientError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, error)),
    };
    let parse = || {
        let mut lines = text.lines();
        let version = lines.next()? == "heliograph inbox 1";
        let cluster = u128::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?;
        let inbox = lines.next()?.strip_prefix("inbox ")?.parse().ok()?;
        version.then_some((ClusterId(cluster), InboxId(inbox)))
    };
    match parse() {
        Some(owner) => Ok(Some(owner)),
        None => {
            let text = "not a file of this version of Heliograph: choose another directory";
            Err(at(path, io::Error::new(ErrorKind::InvalidData, text)))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proto::client::ImageHead;
    use proto::ids::{ClusterId, Fingerprint, ImageId, InboxId, InboxSeq, LogIndex};

    use super::{DirectoryStore, MARKER, PARTIAL, sequence_of};
    use crate::error::ClientError;
    use crate::shell::inbox::ImageSink;

    fn head(seq: u64, name: &str) -> ImageHead {
        ImageHead {
            inbox: InboxId(7),
            seq: InboxSeq(seq),
            image: ImageId::default(),
            fingerprint: Fingerprint { length: 3, checksum: 0 },
            sender: "sender".to_owned(),
            name: name.to_owned(),
            index: LogIndex(1),
            is_damaged: false,
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn image_has_its_name_only_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in/box");
        let mut store = DirectoryStore::open(&path).unwrap();
        store.bind(ClusterId(5), InboxId(7)).unwrap();
        store.begin(&head(3, "../a.jpg")).unwrap();
        store.write(b"abc").unwrap();
        assert_eq!(names(&path), [MARKER, PARTIAL]);
        store.finish().unwrap();
        assert_eq!(names(&path), [MARKER, "000000000003-a.jpg"]);
        assert_eq!(std::fs::read(store.take_last().unwrap().path).unwrap(), b"abc");
        store.begin(&head(4, "b.jpg")).unwrap();
        store.abort();
        assert_eq!(names(&path), [MARKER, "000000000003-a.jpg"]);
        store.damaged(&head(4, "b.jpg")).unwrap();
        assert_eq!(names(&path), [MARKER, "000000000003-a.jpg", "000000000004-b.jpg.damaged"]);
        assert!(std::fs::read_to_string(store.take_last().unwrap().path).unwrap().contains("place 4"));
        assert!(DirectoryStore::open(&path).is_err(), "one receiver at a time");
    }

    #[test]
    fn directory_remembers_its_inbox_and_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut store = DirectoryStore::open(path).unwrap();
        assert_eq!(store.stored_before().inbox, None);
        store.bind(ClusterId(5), InboxId(7)).unwrap();
        for seq in [1, 2, 1_000_000_000_000] {
            store.begin(&head(seq, "x")).unwrap();
            store.finish().unwrap();
        }
        store.begin(&head(9, "left behind")).unwrap();
        assert!(DirectoryStore::open(path).is_err(), "two receivers in one directory");
        drop(store);
        let mut store = DirectoryStore::open(path).unwrap();
        let before = store.stored_before();
        assert_eq!(before.inbox, Some(InboxId(7)));
        assert_eq!(before.seqs, BTreeSet::from([1, 2, 1_000_000_000_000].map(InboxSeq)));
        assert!(!path.join(PARTIAL).exists());
        store.bind(ClusterId(5), InboxId(7)).unwrap();
        let error = store.bind(ClusterId(5), InboxId(8)).unwrap_err();
        assert!(matches!(error, ClientError::DirectoryOfOtherInbox { found: InboxId(7), .. }), "{error}");
        assert!(store.bind(ClusterId(6), InboxId(7)).is_err());
    }

    #[test]
    fn only_names_of_images_count_as_images() {
        for (name, expected) in [
            ("000000000003-a.jpg", Some(3)),
            ("1000000000000-a", Some(1_000_000_000_000)),
            ("3-a.jpg", None),
            ("000000000003", None),
            ("000000000003-", None),
            ("00000000000x-a", None),
            ("99999999999999999999999-a", None),
            ("photo-1.jpg", None),
            (MARKER, None),
        ] {
            assert_eq!(sequence_of(name), expected.map(InboxSeq), "{name}");
        }
    }

    #[test]
    fn file_in_place_of_the_directory_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cat.png");
        std::fs::write(&file, "x").unwrap();
        for (path, expected) in
            [(file.clone(), "is a file: name a directory"), (file.join("in"), "a part of this path is a file")]
        {
            let text = DirectoryStore::open(&path).unwrap_err().to_string();
            assert!(text.starts_with(&format!("{}: {expected}", path.display())), "{text}");
        }
    }

    #[test]
    fn foreign_marker_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(MARKER), "heliograph inbox 2\n").unwrap();
        assert!(DirectoryStore::open(directory.path()).is_err());
    }
}
