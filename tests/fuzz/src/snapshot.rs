//! Snapshots: their file, their pieces, and the state that is built from them.
//!
//! ```text
//! input  even, bytes                a file
//!        odd, (length, bytes)...    payloads of pieces; header, frames and checksums are right
//! ```
//! Properties: whatever the bytes are, the answer is a state or an error, in memory that is bounded by them; a state that was
//! built can be handed out again, and from that the same is built; however a file is cut into parts, the answer is the same.

use logic::log::SnapshotMark;
use logic::snapshot::layout::put_piece;
use logic::snapshot::{Loading, SnapshotHeader, load};
use logic::state::State;
use proto::codec::{Encoder, encode_piece};
use proto::ids::{ClusterId, LogIndex, Term};
use proto::samples;

use crate::memory;
use crate::script::Script;

/// That of the sample pieces.
const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const HEAP_PER_BYTE: usize = 64;
const HEAP_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 16;

/// Runs one input.
pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let file = if form % 2 == 0 { rest.to_vec() } else { forged(&mut Script::new(rest)) };
    let loaded = memory::within(HEAP_PER_BYTE * file.len() + HEAP_BYTES, || load(&file, CLUSTER).ok());
    check_parts(&file, loaded.is_some());
    let Some((mark, mut state)) = loaded else { return };
    let again = written(&mut state, mark);
    let (same_mark, mut same) = load(&again, CLUSTER).expect("what was built is handed out whole");
    assert_eq!((same_mark, same.counts()), (mark, state.counts()));
    assert_eq!(written(&mut same, mark), again);
}

/// The same file as it comes over a link.
fn check_parts(file: &[u8], is_good: bool) {
    let Ok(header) = SnapshotHeader::decode(file) else { return };
    if header.cluster != CLUSTER {
        return;
    }
    let mut loading = Loading::new(header);
    let fed = file.chunks(512).try_for_each(|part| loading.feed(part));
    assert_eq!(fed.is_ok() && loading.finish().is_ok(), is_good);
}

/// Header, frames and checksums around any payloads.
fn forged(script: &mut Script<'_>) -> Vec<u8> {
    let mark = SnapshotMark { index: LogIndex(1 + script.number(5000)), term: Term(1 + script.number(9)) };
    let header = SnapshotHeader { mark, cluster: CLUSTER };
    let mut file = header.encode().to_vec();
    let count = usize::from(script.byte()) % PIECES_MAX;
    for number in 0..count {
        let length = script.below(4096);
        let payload: Vec<u8> = (0..length).map(|_| script.byte()).collect();
        put_piece(header.seed(), number as u64, Some(&payload), &mut file);
    }
    put_piece(header.seed(), count as u64, None, &mut file);
    file
}

fn written(state: &mut State, mark: SnapshotMark) -> Vec<u8> {
    let header = SnapshotHeader { mark, cluster: CLUSTER };
    let (mut file, mut encoder, mut number) = (header.encode().to_vec(), Encoder::new(), 0);
    state.freeze();
    while let Some(piece) = state.take_piece() {
        put_piece(header.seed(), number, Some(encode_piece(&mut encoder, &piece)), &mut file);
        number += 1;
    }
    put_piece(header.seed(), number, None, &mut file);
    file
}

/// A file of the sample pieces, and the same as payloads.
pub fn seeds() -> Vec<Vec<u8>> {
    let header = SnapshotHeader { mark: SnapshotMark { index: LogIndex(5000), term: Term(3) }, cluster: CLUSTER };
    let (mut file, mut encoder) = (header.encode().to_vec(), Encoder::new());
    for (number, piece) in samples::pieces().iter().enumerate() {
        put_piece(header.seed(), number as u64, Some(encode_piece(&mut encoder, piece)), &mut file);
    }
    put_piece(header.seed(), 3, None, &mut file);
    // Index 5001, term 4, three pieces.
    let mut script = vec![1, 255, 0, 0, 0, 0, 0x88, 0x13, 0, 0, 3, 3];
    for piece in samples::pieces() {
        let payload = encode_piece(&mut encoder, &piece);
        script.extend((payload.len() as u32).to_le_bytes());
        script.extend(payload);
    }
    vec![[&[0][..], &file].concat(), script, vec![1, 9, 1, 2, 3]]
}
