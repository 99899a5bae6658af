//! The generated code belongs to its schemas.

use std::path::Path;

use crate::checksum::crc32;

#[test]
fn generated_code_is_of_these_schemas_and_was_not_edited() {
    let checksums = include_str!("generated/checksums");
    assert_eq!(checksums.lines().count(), 10, "five schemas and what was generated from them");
    for line in checksums.lines() {
        let (expected, path) = line.split_once(' ').expect("a checksum and a path");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let bytes = std::fs::read(&path).expect("a file of this crate");
        let found = format!("{:08x}", crc32(&bytes));
        assert_eq!(found, expected, "{} was changed: run schema/generate", path.display());
    }
}
