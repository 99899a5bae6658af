#![allow(clippy::unwrap_used)]

use std::fs;

use logic::store::layout::SLOTS_PER_SECTOR;
use proto::ids::NodeId;
use proto::limits::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES};

use super::*;
use crate::buffers::blocks_of;
use crate::test_dir::test_dir;

const CORE: CoreId = CoreId(1);
const FILE: FileId = FileId(7);

fn open(path: &Path) -> DataDir {
    DataDir::open(path, NodeId(3), 2, true).unwrap()
}

async fn start(dir: &DataDir) -> (ChunkFiles, BufferPool) {
    let pool = BufferPool::new(16 << 20);
    (ChunkFiles::start(dir, CORE, pool.clone()).await.unwrap(), pool)
}

fn pattern(bytes: &mut [u8], seed: usize) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = ((at * 31 + seed) % 251) as u8;
    }
}

#[test]
fn chunks_of_every_size_come_back_as_they_were_written() {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("chunks", async {
        let (files, pool) = start(&dir).await;
        files.create(FILE).await.unwrap().unwrap();
        let mut block = 0;
        for payload in [1, 511, 3584, 3585, 65_536, CHUNK_BYTES_MAX] {
            let mut buffer = pool.take(payload).await;
            pattern(&mut buffer.bytes_mut()[..CHUNK_HEADER_BYTES + payload], payload);
            let expected = buffer.bytes().to_vec();
            let extent = Extent { file: FILE, block, blocks: blocks_of(payload) };
            files.write(extent, Rc::new(buffer)).await.unwrap();
            let read = files.read(extent).await.unwrap();
            assert!(read.bytes() == expected, "payload of {payload}");
            block += extent.blocks;
        }
        assert_eq!(pool.used_bytes(), 0);
    })
    .unwrap();
}

#[test]
fn slots_and_files_are_found_again_by_the_next_process() {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("first", async {
        let (files, _) = start(&dir).await;
        for file in [FILE, FileId(8)] {
            files.create(file).await.unwrap().unwrap();
        }
        let slot = |value: u8| Box::new([value; SECTOR_BYTES]);
        let last = FILE_BLOCKS / SLOTS_PER_SECTOR - 1;
        let slots = vec![(FILE, 3, slot(3)), (FILE, 4, slot(40)), (FileId(8), last, slot(9)), (FILE, 4, slot(4))];
        files.commit(slots, vec![FILE]).await.unwrap();
    })
    .unwrap();
    drop(dir);
    let dir = open(temp.path());
    let found = ChunkFiles::load(&dir, CORE).unwrap();
    assert_eq!(found.iter().map(|start| start.file).collect::<Vec<_>>(), [FILE, FileId(8)]);
    let nonzero = |table: &[u8]| -> Vec<(usize, u8)> {
        let sectors = table.chunks_exact(SECTOR_BYTES).enumerate();
        sectors
            .filter(|(_, sector)| sector.iter().any(|byte| *byte != 0))
            .map(|(at, sector)| (at, sector[511]))
            .collect()
    };
    assert_eq!(nonzero(&found[0].table), [(3, 3), (4, 4)]);
    assert_eq!(nonzero(&found[1].table), [(TABLE_BYTES / SECTOR_BYTES - 1, 9)]);
    assert!(ChunkFiles::load(&dir, CoreId(0)).unwrap().is_empty());
    let length = fs::metadata(dir.view().chunk_path(CORE, FILE)).unwrap().len();
    assert_eq!(length, FILE_BYTES);
}

#[test]
fn file_of_another_core_is_refused() {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("chunks", async { start(&dir).await.0.create(FILE).await.unwrap().unwrap() }).unwrap();
    let (here, there) = (dir.view().chunk_path(CORE, FILE), dir.view().chunk_path(CoreId(0), FILE));
    fs::rename(here, there).unwrap();
    let error = ChunkFiles::load(&dir, CoreId(0)).unwrap_err();
    assert!(matches!(error, ChunkOpenError::NotOurs { found: Some(header), .. } if header.core == CORE), "{error}");
}

#[test]
fn chunk_keeps_its_address_from_the_buffer_to_the_disk_and_many_are_written_at_once() {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("chunks", async {
        let (files, pool) = start(&dir).await;
        files.create(FILE).await.unwrap().unwrap();
        // More than may be under way at once.
        let count = IO_UNITS_MAX as u32 * 2;
        let mut writes = Vec::new();
        for number in 0..count {
            let mut buffer = pool.take(1).await;
            buffer.bytes_mut()[CHUNK_HEADER_BYTES] = number as u8;
            let address = buffer.dma().as_ptr();
            let buffer = Rc::new(buffer);
            let extent = Extent { file: FILE, block: number, blocks: 1 };
            writes.push({
                let (files, shared) = (files.clone(), buffer.clone());
                async move { files.write(extent, shared).await }
            });
            assert_eq!(buffer.dma().as_ptr(), address);
        }
        join_all(writes).await.unwrap();
        files.commit(Vec::new(), vec![FILE]).await.unwrap();
        for number in 0..count {
            let read = files.read(Extent { file: FILE, block: number, blocks: 1 }).await.unwrap();
            assert_eq!(read.payload(1), [number as u8]);
            assert_eq!(read.bytes().as_ptr() as usize % SECTOR_BYTES, 0);
        }
        assert!(files.free_bytes().await.unwrap() > 0);
    })
    .unwrap();
}

#[test]
fn shortened_file_is_unreadable_and_not_a_panic() {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("chunks", async {
        let (files, pool) = start(&dir).await;
        files.create(FILE).await.unwrap().unwrap();
        let path = dir.view().chunk_path(CORE, FILE);
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(DATA_OFFSET).unwrap();
        let result = files.read(Extent { file: FILE, block: 0, blocks: 1 }).await;
        assert_eq!(result.err(), Some(DiskError::Unreadable));
        assert_eq!(pool.used_bytes(), 0);
    })
    .unwrap();
}
