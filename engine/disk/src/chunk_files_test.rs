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
    let found: Vec<ChunkFileStart> = ChunkFiles::load(&dir, CORE).unwrap().into_iter().map(|file| file.start).collect();
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
    assert!(matches!(error, ChunkOpenError::NotOurs { found, .. } if found.core == CORE), "{error}");
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
        let room = files.room().await.unwrap();
        assert!(room.free_bytes > 0 && room.files > 0, "{room:?}");
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

/// Two chunk files; the first has a slot sector full of `5`, and is then changed.
fn changed(change: impl FnOnce(&File)) -> (tempfile::TempDir, DataDir) {
    let temp = test_dir();
    let dir = open(temp.path());
    executor::run("chunks", async {
        let (files, _) = start(&dir).await;
        for file in [FILE, FileId(8)] {
            files.create(file).await.unwrap().unwrap();
        }
        files.commit(vec![(FILE, 2, Box::new([5; SECTOR_BYTES]))], Vec::new()).await.unwrap();
    })
    .unwrap();
    change(&fs::OpenOptions::new().read(true).write(true).open(dir.view().chunk_path(CORE, FILE)).unwrap());
    (temp, dir)
}

/// What the inspector foresees is what the start does, once.
fn check_repaired(dir: &DataDir, expected: &[Repair]) -> ChunkFileStart {
    let path = dir.view().chunk_path(CORE, FILE);
    let before = fs::read(&path).unwrap();
    let foreseen = ChunkFiles::inspect(dir.view(), CORE).unwrap().remove(0).unwrap();
    assert!(fs::read(&path).unwrap() == before, "an inspector changes nothing");
    let done = ChunkFiles::load(dir, CORE).unwrap();
    assert_eq!((&foreseen.repairs[..], &done[0].repairs[..], &done[1].repairs[..]), (expected, expected, &[][..]));
    assert!(fs::read(&path).unwrap() == before, "nothing is changed before all is judged");
    ChunkFiles::mend(dir, CORE, &[FILE]).unwrap();
    let again = ChunkFiles::load(dir, CORE).unwrap().remove(0);
    assert!(again.repairs.is_empty() && again.start.table == foreseen.start.table, "{:?}", again.repairs);
    assert_eq!((&again.start.header, fs::metadata(&path).unwrap().len()), (&foreseen.start.header, FILE_BYTES));
    again.start
}

#[test]
fn a_damaged_header_of_a_chunk_file_is_written_anew_and_its_slots_stay() {
    let (_temp, dir) = changed(|file| file.write_all_at(&[0xee; 40], 4).unwrap());
    let path = dir.view().chunk_path(CORE, FILE);
    let start = check_repaired(&dir, &[Repair::ChunkFileHeader { path }]);
    assert_eq!(start.table[2 * SECTOR_BYTES..3 * SECTOR_BYTES], [5; SECTOR_BYTES]);
}

#[test]
fn a_chunk_file_that_was_cut_off_gets_its_length_back_and_keeps_the_slots_that_are_left() {
    // In the data, in the slot table, in the header, and before it.
    for (length, slots) in [(DATA_OFFSET + 777, true), (TABLE_OFFSET + 1536, true), (TABLE_OFFSET + 1024, false)] {
        let (_temp, dir) = changed(|file| file.set_len(length).unwrap());
        let path = dir.view().chunk_path(CORE, FILE);
        let start = check_repaired(&dir, &[Repair::ChunkFileLength { path, found: length }]);
        assert_eq!(start.table[1024..1536] == [5; SECTOR_BYTES], slots, "cut off at {length}");
    }
    for found in [100, 0] {
        let (_temp, dir) = changed(|file| file.set_len(found).unwrap());
        let path = dir.view().chunk_path(CORE, FILE);
        check_repaired(
            &dir,
            &[Repair::ChunkFileHeader { path: path.clone() }, Repair::ChunkFileLength { path, found }],
        );
    }
}

#[test]
fn a_chunk_file_of_another_version_is_refused() {
    let (_temp, dir) = changed(|file| {
        let mut header = [0; SECTOR_BYTES];
        file.read_exact_at(&mut header, 0).unwrap();
        header[8] = 9;
        let crc = crc32fast::hash(&header[..SECTOR_BYTES - 4]);
        header[SECTOR_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, 0).unwrap();
    });
    let error = ChunkFiles::load(&dir, CORE).unwrap_err();
    assert!(matches!(error, ChunkOpenError::Version { found: 9, .. }), "{error}");
}
