//! Directories for tests: beside the test's executable, since the system's one may be in memory and O_DIRECT is not.

use tempfile::TempDir;

/// A fresh directory, removed on drop.
pub(crate) fn test_dir() -> TempDir {
    let executable = std::env::current_exe().expect("the system knows what it runs");
    let beside = executable.parent().expect("an executable lies in a directory");
    tempfile::Builder::new().prefix("disk-test-").tempdir_in(beside).expect("the build directory is writable")
}
