//! What happens on a full filesystem, on a real one of a few MiB: mounted in namespaces of a child process, so that an
//! ordinary user may and nothing stays behind. Where namespaces are forbidden the test says that it was skipped.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use logic::io::{DiskError, FileId, LogFile, LogWrite, SegmentId};
use proto::ids::{CoreId, NodeId};

use crate::buffers::BufferPool;
use crate::chunk_files::ChunkFiles;
use crate::dir::DataDir;
use crate::log_device::{FlushMethod, LogDevice};
use crate::log_files::LogFiles;
use crate::repair::lengthen;
use crate::test_dir::test_dir;

/// Where the child finds the small filesystem.
const SMALL: &str = "DISK_TEST_SMALL_FILESYSTEM";
const TEST: &str = "no_space_test::full_filesystem_leaves_nothing_half_made_and_what_is_there_still_works";
/// Room for three segments of 1 MiB and the rounds, but not for a fourth, and for no chunk file.
const SMALL_BYTES: u32 = 4 << 20;

#[test]
fn full_filesystem_leaves_nothing_half_made_and_what_is_there_still_works() {
    if let Some(small) = std::env::var_os(SMALL) {
        return on_small_filesystem(Path::new(&small));
    }
    let mount_point = test_dir();
    let namespaces = ["--user", "--map-root-user", "--mount"];
    let allowed = Command::new("unshare").args(namespaces).arg("true").status().is_ok_and(|status| status.success());
    if !allowed {
        println!("skipped: user and mount namespaces are not allowed here");
        return;
    }
    let script = format!("mount -t tmpfs -o size={SMALL_BYTES} none \"$1\" && exec \"$2\" --exact {TEST} --nocapture");
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", &script, "sh"])
        .arg(mount_point.path())
        .arg(std::env::current_exe().unwrap())
        .env(SMALL, mount_point.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn on_small_filesystem(path: &Path) {
    for method in [FlushMethod::Direct, FlushMethod::Mmap] {
        let path = path.join(method.to_string());
        let dir = DataDir::open(&path, NodeId(1), 1, true).unwrap();
        let files = LogFiles::open(&dir).unwrap();
        executor::run("full", async {
            let device = LogDevice::start(method, files, 1 << 20).await.unwrap();
            let chunks = ChunkFiles::start(&dir, CoreId(0), BufferPool::new(0)).await.unwrap();
            assert_eq!(chunks.create(FileId(1)).await.unwrap(), Err(DiskError::NoSpace));
            let mut made = 0;
            while device.prepare(SegmentId(made + 1), Box::new([1; 512])).await.unwrap().is_ok() {
                made += 1;
            }
            assert_eq!(made, 3);
            assert_eq!(dir.view().segments().unwrap().len(), 3);
            assert_eq!(fs::read_dir(dir.view().log_dir()).unwrap().count(), 4, "three segments and the rounds");
            assert_eq!(fs::read_dir(dir.view().core_dir(CoreId(0))).unwrap().count(), 0);
            // What was set aside can still be written.
            let write = LogWrite { file: LogFile::Segment(SegmentId(3)), offset: 512, bytes: vec![7; 100_000] };
            device.flush(vec![write]).await.unwrap();
            assert_eq!(device.read(SegmentId(3), 512, 100_000).await.unwrap(), vec![7; 100_000]);
            assert!(chunks.room().await.unwrap().free_bytes < 1 << 20);
            chunks.close().await.unwrap();
            device.close().await.unwrap();
        })
        .unwrap();
        drop(dir);
        // Full to the last byte it opens all the same, and what cannot have its length back takes nothing.
        let (chunk_file, segment) = (path.join("core-0/0000000000000001.chk"), path.join("log/0000000000000003.seg"));
        fs::write(&chunk_file, [0; 5_000]).unwrap();
        let mut ballast = fs::File::create(path.join("log/ballast")).unwrap();
        while ballast.write(&[1; 100]).is_ok_and(|written| written > 0) {}
        let dir = DataDir::open(&path, NodeId(1), 1, false).unwrap();
        ChunkFiles::mend(&dir, CoreId(0), &[FileId(1)]).unwrap_err();
        let mut file = fs::File::options().append(true).open(&segment).unwrap();
        lengthen(&mut file, |file| file.write_all(&[0; 1 << 20])).unwrap_err();
        assert_eq!([&chunk_file, &segment].map(|path| fs::metadata(path).unwrap().len()), [5_000, 1 << 20]);
        drop(dir);
        fs::remove_dir_all(&path).unwrap();
    }
}
