//! The first format, as it was written once: files that every later version must still read, or refuse by their version.
//!
//! The files in `first_format/` never change. They were made by this test with `MAKE` in the environment, which never writes
//! over them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use logic::identity::{Identity, IdentityState, MemberIdentity, Membership};
use logic::io::{Extent, FileId, LogFile, SegmentId};
use logic::log::{Judgement, Log, LogConfig, LogFlush, ROUNDS_BYTES, RecoverInput, SnapshotMark, StoreId};
use logic::snapshot::layout::put_piece;
use logic::snapshot::{SnapshotHeader, load};
use logic::state::{Outcome, State};
use logic::store::header::ChunkHeader;
use logic::store::slot::Slot;
use logic::vote::{Healing, Vote};
use proto::codec::{Encoder, decode_record, encode_piece, encode_record};
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    Sequence, SessionId, Term,
};
use proto::record::{Ready, Record, RecordBody};
use proto::ring::Member;
use raft::Storage;
use raft::eraftpb::Entry;

const CLUSTER: ClusterId = ClusterId(0x1111_2222_3333_4444_5555_6666_7777_8888);
const NONCE: u128 = 0x99aa_bbcc_ddee_ff00_1122_3344_5566_7788;
const SEGMENT_BYTES: u32 = 4096;
/// See the top of this file.
const MAKE: &str = "HELIO_MAKE_FIRST_FORMAT";
/// Of the ring of identifiers so much is kept: more was never used.
const ROUNDS_KEPT: usize = 64 << 10;
/// Where the snapshot was made.
const SNAPSHOT_AT: u64 = 20;
const TERM_2_FROM: u64 = 12;
const ENTRIES: u64 = 30;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/first_format")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn image(sequence: u64) -> ImageId {
    ImageId { session: SessionId(4), sequence: Sequence(sequence) }
}

fn holder(node: u64) -> Holder {
    Holder { address: Address { node: NodeId(node), core: CoreId(0) }, incarnation: Incarnation(1) }
}

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 2,
        up: true,
        voter: true,
        client_address: format!("10.0.0.{node}:7400"),
        peer_address: format!("10.0.0.{node}:7500"),
    }
}

/// The record at an index; none for the first entry of a term.
fn record(index: u64) -> Option<Record> {
    let body = match index {
        1 | TERM_2_FROM => return None,
        2 => RecordBody::Genesis {
            cluster: CLUSTER,
            members: (1..=3).map(member).collect(),
            copies: 2,
            image_bytes_max: 64 << 20,
        },
        3 => RecordBody::Register { name: "gallery".into() },
        4 => RecordBody::OpenSession { sender: "camera".into() },
        5 => RecordBody::Register { name: "album".into() },
        6 => RecordBody::RingChange {
            node: NodeId(3),
            incarnation: Incarnation(1),
            cores: 2,
            up: false,
            client_address: String::new(),
            peer_address: "10.0.0.3:7599".into(),
            rejoin: None,
        },
        7 => RecordBody::Probe { payload: b"probe".to_vec() },
        8 => RecordBody::ExpireSessions { idle_since_ms: 1 },
        10 | 25 => RecordBody::Acked { upto: vec![(InboxId(3), InboxSeq(index / 10))] },
        index => RecordBody::Ready(Ready {
            image: image(index),
            low_water: Sequence(3),
            fingerprint: Fingerprint { length: 1000 + index, checksum: index * 0x0101_0101 },
            name: format!("picture {index}.jpg"),
            receivers: vec![InboxId(3), InboxId(5)],
            holders: vec![holder(1), holder(2)],
        }),
    };
    Some(Record { time_ms: 1_763_800_000_000 + index, body })
}

fn vote() -> Vote {
    Vote { counter: 7, term: Term(2), voted: NodeId(3), cluster: CLUSTER, node: NodeId(1), healing: Healing::Whole }
}

fn identity() -> Identity {
    let members =
        (1..=3).map(|node| MemberIdentity { node: NodeId(node), nonce: NONCE + u128::from(node) - 1, cores: 2 });
    let membership = Membership {
        cluster: CLUSTER,
        incarnation: Incarnation(1),
        members: members.collect(),
        voters: (1..=3).map(NodeId).collect(),
    };
    Identity { node: NodeId(1), cores: 2, nonce: NONCE, state: IdentityState::Member(membership) }
}

fn slot() -> Slot {
    Slot {
        image: image(9),
        chunk: 3,
        length: 70_000,
        crc32: 0xdead_beef,
        crc64: 0x0123_4567_89ab_cdef,
        extent: Extent { file: FileId(5), block: 40, blocks: 18 },
        birth: 77,
    }
}

fn chunk_header() -> ChunkHeader {
    ChunkHeader { image: image(9), offset: 3 << 20, length: 70_000, crc32: 0xdead_beef, crc64: 0x0123_4567_89ab_cdef }
}

fn apply(state: &mut State, index: u64, payload: &[u8]) -> Option<Outcome> {
    if payload.is_empty() {
        state.apply_empty(LogIndex(index));
        return None;
    }
    Some(state.apply(LogIndex(index), &decode_record(payload).unwrap()))
}

/// What is asked of a state that went through all of it.
fn check_state(state: &State) {
    assert_eq!((state.cluster(), state.copies(), state.image_bytes_max()), (CLUSTER, 2, 64 << 20));
    assert_eq!(state.inbox_of("gallery"), Some((InboxId(3), InboxSeq(2))));
    assert_eq!(state.inbox_of("album"), Some((InboxId(5), InboxSeq(0))));
    let down: Vec<NodeId> =
        state.ring().members().iter().filter(|member| !member.up).map(|member| member.node).collect();
    assert_eq!(down, [NodeId(3)]);
    let waiting = state.entries_after(InboxId(3), InboxSeq(2), 100);
    assert_eq!((waiting[0].seq, waiting[0].image, &*waiting[0].name), (InboxSeq(3), image(13), "picture 13.jpg"));
    assert_eq!((waiting[0].index, &waiting[0].holders[..]), (LogIndex(13), &[holder(1), holder(2)][..]));
    // 9, 11 and 13 to 29 but 25 are images, and 30; the first two are acknowledged by one of both.
    assert_eq!(state.counts(), (2, 1, 19));
}

#[test]
fn identity_vote_slot_and_chunk_header_are_read() {
    assert_eq!(Identity::decode(&read("identity")).unwrap(), identity());
    let bytes = read("vote");
    let copy = |at: usize| -> [u8; 512] { bytes[at..at + 512].try_into().unwrap() };
    assert_eq!(Vote::choose([&copy(0), &copy(4096)]), Ok(Some(vote())));
    assert_eq!(Slot::decode(&read("slot"), FileId(5), 40), Some(slot()));
    assert_eq!(ChunkHeader::parse(&read("chunk")), Some(chunk_header()));
}

#[test]
fn log_is_read_entry_by_entry() {
    let (log, content) = recover(&[]);
    assert_eq!((log.judgement(), content.len() as u64), (Judgement::Clean, ENTRIES));
    let mut state = State::default();
    for (index, (term, payload)) in (1..).zip(&content) {
        assert_eq!(*term, if index < TERM_2_FROM { 1 } else { 2 });
        let found = (!payload.is_empty()).then(|| decode_record(payload).unwrap());
        assert_eq!(found, record(index), "entry {index}");
        apply(&mut state, index, payload);
    }
    check_state(&state);
}

#[test]
fn snapshot_and_the_log_behind_it_give_the_same_state() {
    let (mark, mut state) = load(&read("snapshot"), CLUSTER).unwrap();
    assert_eq!(mark, SnapshotMark { index: LogIndex(SNAPSHOT_AT), term: Term(2) });
    let (_, content) = recover(&[mark]);
    for (index, (_, payload)) in (SNAPSHOT_AT + 1..).zip(&content) {
        apply(&mut state, index, payload);
    }
    check_state(&state);
}

/// Terms and payloads of the entries behind the snapshot.
fn recover(snapshots: &[SnapshotMark]) -> (Log, Vec<(u64, Vec<u8>)>) {
    let files: Vec<(SegmentId, Vec<u8>)> =
        (1..).map_while(|id| Some((SegmentId(id), fs::read(folder().join(format!("{id}.seg"))).ok()?))).collect();
    let segments: Vec<(SegmentId, &[u8])> = files.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
    let mut rounds = read("rounds");
    rounds.resize(ROUNDS_BYTES as usize, 0);
    let (config, heals) = (config(), Healing::Whole);
    let input = RecoverInput { segments: &segments, rounds: &rounds, vote_term: vote().term, config, snapshots, heals };
    let mut content = Vec::new();
    let log = Log::recover(input, |_, term, payload| content.push((term.0, payload.to_vec()))).unwrap();
    let (low, high) = (log.commit().0 + 1, log.last_index().unwrap() + 1);
    let above = log.entries(low, high, None, raft::GetEntriesContext::empty(false)).unwrap();
    content.extend(above.into_iter().map(|entry| (entry.term, entry.data.to_vec())));
    (log, content)
}

fn config() -> LogConfig {
    LogConfig::new(StoreId { cluster: CLUSTER, nonce: NONCE }, SEGMENT_BYTES)
}

#[test]
fn all_files_are_there() {
    if !folder().exists() && std::env::var_os(MAKE).is_some() {
        make();
    }
    let mut names: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["1.seg", "2.seg", "3.seg", "chunk", "identity", "rounds", "slot", "snapshot", "vote"]);
}

fn make() {
    let folder = folder();
    fs::create_dir(&folder).expect("the first format is never made again");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("identity", &identity().encode());
    let mut bytes = vec![0; 8192];
    for at in [0, 4096] {
        bytes[at..at + 512].copy_from_slice(&vote().encode()[..]);
    }
    write("vote", &bytes);
    write("slot", &slot().encode());
    let mut sector = [0; 512];
    chunk_header().fill(&mut sector);
    write("chunk", &sector);
    let (segments, rounds) = written_log();
    for (id, bytes) in segments {
        write(&format!("{id}.seg"), &bytes);
    }
    write("rounds", &rounds[..ROUNDS_KEPT]);
    let mut state = State::default();
    for index in 1..=SNAPSHOT_AT {
        apply(&mut state, index, &record(index).map(|record| encode_record(&record)).unwrap_or_default());
    }
    let mark = SnapshotMark { index: LogIndex(SNAPSHOT_AT), term: Term(2) };
    let header = SnapshotHeader { mark, cluster: CLUSTER };
    let (mut file, mut encoder, mut number) = (header.encode().to_vec(), Encoder::new(), 0);
    state.freeze();
    while let Some(piece) = state.take_piece() {
        put_piece(header.seed(), number, Some(encode_piece(&mut encoder, &piece)), &mut file);
        number += 1;
    }
    put_piece(header.seed(), number, None, &mut file);
    write("snapshot", &file);
}

/// Segments and ring of a log with all records, two a round.
fn written_log() -> (BTreeMap<u64, Vec<u8>>, Vec<u8>) {
    let (mut segments, mut rounds) = (BTreeMap::<u64, Vec<u8>>::new(), vec![0; ROUNDS_BYTES as usize]);
    let empty = RecoverInput {
        segments: &[],
        rounds: &rounds,
        vote_term: vote().term,
        config: config(),
        snapshots: &[],
        heals: Healing::Whole,
    };
    let mut log = Log::recover(empty, |_, _, _| {}).unwrap();
    for first in (1..=ENTRIES).step_by(2) {
        let entries: Vec<Entry> = (first..first + 2)
            .map(|index| {
                let data = record(index).map(|record| encode_record(&record)).unwrap_or_default();
                let term = if index < TERM_2_FROM { 1 } else { 2 };
                Entry { index, term, data: data.into(), ..Entry::default() }
            })
            .collect();
        log.append(&entries, first - 1);
        loop {
            if let Some((segment, header)) = log.take_prepare() {
                let mut bytes = vec![0; SEGMENT_BYTES as usize];
                bytes[..512].copy_from_slice(&header[..]);
                segments.insert(segment.0, bytes);
                log.on_prepared(segment, Ok(()));
            }
            let Some(LogFlush { round, writes, .. }) = log.take_flush() else { break };
            for write in writes {
                let file = match write.file {
                    LogFile::Rounds => &mut rounds,
                    LogFile::Segment(segment) => segments.get_mut(&segment.0).unwrap(),
                };
                file[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
            }
            log.on_flushed(round);
        }
    }
    (segments, rounds)
}
