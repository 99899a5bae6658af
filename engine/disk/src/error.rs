//! How operations of this crate fail.

use std::io;

use glommio::GlommioError;
use logic::io::DiskError;

use crate::descriptors::REMEDY;

/// The outer error ends the process (promise P6); the inner one is the completion's result.
pub type Outcome<T> = io::Result<Result<T, DiskError>>;

/// Whether the system said that there is no room: full filesystem, quota, or limit of a file's size.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether this process, or the system, has no descriptor left.
pub(crate) fn is_no_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Keeps the system's error number, which the conversion of glommio loses.
pub(crate) fn from_glommio(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::from(error),
    }
}

/// Sorts the failure of an operation that makes a file: no room and no descriptor are expected, all else ends the process.
pub(crate) fn outcome<T>(result: io::Result<T>) -> Outcome<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if is_no_space(&error) => Ok(Err(DiskError::NoSpace)),
        Err(error) if is_no_descriptor(&error) => {
            tracing::error!(%error, "a file could not be made: {REMEDY}");
            Ok(Err(DiskError::Refused))
        }
        Err(error) => Err(error),
    }
}
