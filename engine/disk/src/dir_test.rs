#![allow(clippy::unwrap_used)]

use super::*;
use crate::test_dir::test_dir;

fn open(path: &Path) -> Result<DataDir, DirError> {
    DataDir::open(path, NodeId(3), 2, true)
}

#[test]
fn a_new_directory_has_all_parts_and_is_recognised_again() {
    let temp = test_dir();
    let path = temp.path().join("a/b");
    drop(open(&path).unwrap());
    let dir = DataDir::open(&path, NodeId(3), 2, false).unwrap();
    assert_eq!((dir.view().node(), dir.view().cores()), (NodeId(3), 2));
    assert!(dir.view().log_dir().is_dir() && dir.view().core_dir(CoreId(1)).is_dir());
    assert!(dir.view().segments().unwrap().is_empty());
    assert!(!path.join(MARKER_NEW).exists());
    // An inspector needs no lock.
    assert_eq!(DataDirView::open(&path).unwrap().node(), NodeId(3));
}

#[test]
fn a_second_process_is_refused_while_the_first_lives() {
    let temp = test_dir();
    let first = open(temp.path()).unwrap();
    let error = open(temp.path()).unwrap_err();
    let expected = std::process::id().to_string();
    assert!(matches!(&error, DirError::InUse { pid, .. } if *pid == expected), "{error}");
    drop(first);
    open(temp.path()).unwrap();
}

#[test]
fn what_is_not_ours_is_refused_and_stays_as_it_is() {
    let temp = test_dir();
    fs::write(temp.path().join("holiday.jpg"), b"precious").unwrap();
    let error = open(temp.path()).unwrap_err();
    assert!(matches!(&error, DirError::Foreign { found, .. } if found == Path::new("holiday.jpg")), "{error}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing was added");
    let file = temp.path().join("holiday.jpg");
    assert!(matches!(open(&file), Err(DirError::Foreign { .. })));
    assert!(matches!(DataDirView::open(temp.path()), Err(DirError::Foreign { .. })));
}

#[test]
fn a_directory_of_another_node_or_other_cores_is_refused() {
    let temp = test_dir();
    drop(open(temp.path()).unwrap());
    let other = DataDir::open(temp.path(), NodeId(4), 2, true).unwrap_err();
    assert!(matches!(other, DirError::OtherNode { found: 3, node: 4, .. }), "{other}");
    let cores = DataDir::open(temp.path(), NodeId(3), 1, true).unwrap_err();
    assert!(matches!(cores, DirError::OtherCores { found: 2, cores: 1, .. }), "{cores}");
    assert!(cores.to_string().contains("cores = 2"));
}

#[test]
fn a_missing_directory_is_made_only_if_asked_for() {
    let temp = test_dir();
    for path in [temp.path().join("none"), temp.path().to_owned()] {
        assert!(matches!(DataDir::open(&path, NodeId(3), 2, false), Err(DirError::Missing { .. })));
    }
    assert!(!temp.path().join("none").exists());
}

#[test]
fn making_that_was_interrupted_is_taken_up_again() {
    let temp = test_dir();
    fs::create_dir(temp.path().join("core-0")).unwrap();
    fs::write(temp.path().join(LOCK), b"").unwrap();
    fs::write(temp.path().join(MARKER_NEW), b"heliogr").unwrap();
    open(temp.path()).unwrap();
}

#[test]
fn damaged_marker_unknown_format_and_missing_part_are_told_apart() {
    let temp = test_dir();
    drop(open(temp.path()).unwrap());
    fs::remove_dir(temp.path().join("core-1")).unwrap();
    assert!(matches!(open(temp.path()), Err(DirError::PartMissing { part }) if part.ends_with("core-1")));
    let marker = temp.path().join(MARKER);
    fs::write(&marker, "heliograph data directory\nformat 2\nshape round\n").unwrap();
    assert!(matches!(open(temp.path()), Err(DirError::Format { found: 2, known: FORMAT, .. })));
    for text in [&b"heliograph data directory\nformat 1\nnode x\n"[..], b"", b"\xff\xfe"] {
        fs::write(&marker, text).unwrap();
        assert!(matches!(open(temp.path()), Err(DirError::MarkerDamaged { .. })));
    }
}

#[test]
fn only_numbered_files_count_in_order_of_their_numbers() {
    let temp = test_dir();
    let dir = open(temp.path()).unwrap();
    for name in ["0000000000000010.seg", "0000000000000009.seg", "0000000000000011.new", "x.seg", "11.seg", "rounds"] {
        fs::write(dir.view().log_dir().join(name), b"").unwrap();
    }
    assert_eq!(dir.view().segments().unwrap(), [SegmentId(9), SegmentId(10)]);
    assert!(dir.view().segment_path(SegmentId(9)).exists());
}
