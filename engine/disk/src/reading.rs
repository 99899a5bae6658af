//! Opening files of the data directory for reading, and what a failure says about their content.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use logic::io::DiskError;

/// Opens a file for reading. What is no file (a pipe, say, whose opening would wait for ever) is an error.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without an effect on files.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file"))
    }
}

/// As `open`, and reads all of it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open(path)?, &mut bytes)?;
    Ok(bytes)
}

/// Whether the failure to read a file says that the bytes are lost: the device cannot read them, the filesystem lost track of
/// them, or the file ends before them. Anything else (permissions, memory, descriptors) passes, and says nothing about what is
/// in the file: whoever took it for damage would throw away what is good.
pub(crate) fn is_content_lost(error: &io::Error) -> bool {
    // EFAULT and EHWPOISON are what `MADV_POPULATE_READ` says where an access would end the process.
    const LOST: [i32; 8] = [
        libc::EIO,
        libc::EFAULT,
        libc::EHWPOISON,
        libc::EUCLEAN,
        libc::EBADMSG,
        libc::EILSEQ,
        libc::ENODATA,
        libc::EREMOTEIO,
    ];
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error().is_some_and(|number| LOST.contains(&number))
}

/// What the failure of a read says while the node runs: the system refused it, which passes, or the bytes cannot be had.
pub(crate) fn failure(error: &io::Error) -> DiskError {
    const PASSING: [i32; 8] =
        [libc::EACCES, libc::EPERM, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EINTR];
    match error.raw_os_error() {
        Some(number) if PASSING.contains(&number) => DiskError::Refused,
        _ => DiskError::Unreadable,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::test_dir::test_dir;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let temp = test_dir();
        let pipe = temp.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: the name ends with zero and outlives the call.
        let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
        assert_eq!(made, 0);
        assert_eq!(open(&pipe).unwrap_err().to_string(), "this is not a file");
        assert!(open(temp.path()).is_err());
        std::fs::write(temp.path().join("file"), [1]).unwrap();
        assert_eq!(read(&temp.path().join("file")).unwrap(), [1]);
    }

    #[test]
    fn only_the_device_and_the_end_of_the_file_say_that_bytes_are_lost() {
        let of = io::Error::from_raw_os_error;
        assert!(is_content_lost(&of(libc::EIO)) && is_content_lost(&io::ErrorKind::UnexpectedEof.into()));
        for passes in [libc::EACCES, libc::EPERM, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR, libc::ENOENT] {
            assert!(!is_content_lost(&of(passes)), "{passes}");
        }
        assert_eq!(failure(&of(libc::ENOMEM)), DiskError::Refused);
        assert_eq!(failure(&of(libc::EMFILE)), DiskError::Refused);
        for lost in [of(libc::EIO), of(libc::ETIMEDOUT), of(libc::ENOENT), io::ErrorKind::UnexpectedEof.into()] {
            assert_eq!(failure(&lost), DiskError::Unreadable, "{lost}");
        }
    }
}
