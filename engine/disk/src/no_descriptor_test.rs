//! What happens when no file descriptor is left, in a child process with a low limit: the tests of this one go on beside it.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::process::Command;

use logic::io::{DiskError, FileId, SegmentId};
use logic::store::layout::FILE_BYTES;
use proto::ids::{CoreId, LogIndex, NodeId};

use crate::buffers::BufferPool;
use crate::chunk_files::ChunkFiles;
use crate::descriptors;
use crate::dir::DataDir;
use crate::log_device::{FlushMethod, LogDevice};
use crate::log_files::LogFiles;
use crate::snapshot_files::SnapshotFiles;
use crate::test_dir::test_dir;

/// Set in the child.
const LOW: &str = "DISK_TEST_LOW_LIMIT";
const TEST: &str = "no_descriptor_test::without_descriptors_no_file_is_made_and_with_some_again_it_is";
const LIMIT: u64 = 200;

#[test]
fn without_descriptors_no_file_is_made_and_with_some_again_it_is() {
    if std::env::var_os(LOW).is_some() {
        return under_low_limit();
    }
    // Soft and hard: a node raises the first to the second.
    let script = format!("ulimit -n {LIMIT} && exec \"$1\" --exact {TEST} --nocapture");
    let output = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .env(LOW, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn under_low_limit() {
    assert_eq!(descriptors::raise().unwrap(), LIMIT);
    for method in [FlushMethod::Direct, FlushMethod::Mmap] {
        let temp = test_dir();
        let dir = DataDir::open(temp.path(), NodeId(1), 1, true).unwrap();
        let core_dir = dir.view().core_dir(CoreId(0));
        let count = |path| fs::read_dir(path).unwrap().count();
        let files = LogFiles::open(&dir).unwrap();
        executor::run("low", async {
            let device = LogDevice::start(method, files, 1 << 20).await.unwrap();
            let chunks = ChunkFiles::start(&dir, CoreId(0), BufferPool::new(0)).await.unwrap();
            let snapshots = SnapshotFiles::new(&dir);
            let files_before = chunks.room().await.unwrap().files;
            assert_eq!(files_before, LIMIT / 2 - 22 - 64);

            let mut taken = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                taken.push(file);
            }
            assert_eq!(chunks.create(FileId(1)).await.unwrap(), Err(DiskError::Refused));
            assert_eq!(device.prepare(SegmentId(1), Box::new([1; 512])).await.unwrap(), Err(DiskError::Refused));
            assert_eq!(snapshots.write(LogIndex(5), 0, vec![1; 512]).await.unwrap(), Err(DiskError::Refused));
            taken.truncate(taken.len() - 20);
            assert_eq!((count(core_dir.clone()), dir.view().segments().unwrap().len()), (0, 0));

            assert_eq!(chunks.create(FileId(1)).await.unwrap(), Ok(()));
            assert_eq!(device.prepare(SegmentId(1), Box::new([1; 512])).await.unwrap(), Ok(()));
            assert_eq!(snapshots.write(LogIndex(5), 0, vec![1; 512]).await.unwrap(), Ok(()));
            assert_eq!(snapshots.finish(LogIndex(5)).await.unwrap(), Ok(()));
            assert_eq!(chunks.room().await.unwrap().files, files_before - 1);
            assert_eq!(fs::metadata(dir.view().chunk_path(CoreId(0), FileId(1))).unwrap().len(), FILE_BYTES);
            chunks.close().await.unwrap();
            device.close().await.unwrap();
        })
        .unwrap();
    }
}
