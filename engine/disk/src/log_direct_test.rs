#![allow(clippy::unwrap_used)]

use super::*;

fn write(offset: u32, bytes: usize) -> LogWrite {
    LogWrite { file: LogFile::Rounds, offset, bytes: vec![1; bytes] }
}

#[test]
fn neighbouring_and_overlapping_writes_become_one_run() {
    let writes = [write(700, 100), write(800, 300), write(5000, 1), write(100, 10), write(1000, 24)];
    let writes: Vec<&LogWrite> = writes.iter().collect();
    assert_eq!(merged(&writes), [0..1536, 4608..5120]);
    assert_eq!(partly_covered(&writes), [0, 512, 1024, 4608]);
}

#[test]
fn whole_sectors_need_nothing_of_the_old_content() {
    let writes = [write(512, 1024), write(4096, 512)];
    let writes: Vec<&LogWrite> = writes.iter().collect();
    assert_eq!(merged(&writes), [512..1536, 4096..4608]);
    assert!(partly_covered(&writes).is_empty());
}
