//! Serves one file, `drive`, by the kernel's FUSE protocol over `/dev/fuse`: just what a loop device asks for.
//!
//! ```text
//! request  length u32, opcode u32, unique u64, node u64, uid u32, gid u32, pid u32, _ u32, then the arguments
//! answer   length u32, error i32 (0 or negative), unique u64, then the results
//! ```
//!
//! All numbers are of the machine's byte order. What is not known is answered ENOSYS, which the kernel takes for "not here".

use std::fs::File;
use std::io::{self, Read, Write};

use super::Drive;

/// Name of the only file.
pub const FILE_NAME: &str = "drive";

const ROOT: u64 = 1;
const FILE: u64 = 2;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

const HEADER_BYTES: usize = 40;
/// Largest write asked for, and pages of one.
const WRITE_BYTES_MAX: u32 = 1 << 20;
const WRITE_PAGES_MAX: u16 = 256;
/// Protocol 7.31: the kernel speaks every older minor version.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
const FLAG_ASYNC_READ: u32 = 1;
const FLAG_BIG_WRITES: u32 = 1 << 5;
const FLAG_MAX_PAGES: u32 = 1 << 22;
/// The file never changes but through the kernel, so what it knows stays true.
const VALID_SECONDS: u64 = 3_600;

/// Answers requests until the filesystem is unmounted and nobody has the file open.
pub fn serve(mut device: File, drive: &Drive) -> io::Result<()> {
    let mut request = vec![0; WRITE_BYTES_MAX as usize + (64 << 10)];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) if length >= HEADER_BYTES => length,
            Ok(length) => return Err(io::Error::other(format!("a request of {length} bytes"))),
            // The kernel gave a request up before we read it, or a signal came.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 4 | 11)) => continue,
            // Unmounted.
            Err(error) if error.raw_os_error() == Some(19) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (opcode, unique) = (u32_at(&request, 4), u64_at(&request, 8));
        let answer = match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => answer(drive, opcode, u64_at(&request, 16), &request[HEADER_BYTES..length]),
        };
        let (error, results) = answer.map_or_else(|error| (-error, Out::default()), |results| (0, results));
        let mut out = Out::default().u32(16 + results.0.len() as u32).u32(error as u32).u64(unique);
        out.0.extend_from_slice(&results.0);
        match device.write(&out.0) {
            // ENOENT: nobody waits for the answer any more.
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
}

fn answer(drive: &Drive, opcode: u32, node: u64, arguments: &[u8]) -> Result<Out, i32> {
    let to_errno = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidInput => EINVAL,
        _ => EIO,
    };
    match opcode {
        INIT => Ok(init()),
        LOOKUP if node == ROOT && arguments.strip_suffix(&[0]) == Some(FILE_NAME.as_bytes()) => {
            let head = Out::default().u64(FILE).u64(0).u64(VALID_SECONDS).u64(VALID_SECONDS).u32(0).u32(0);
            Ok(attributes(head, drive, FILE))
        }
        LOOKUP => Err(ENOENT),
        // A loop device may set times; nothing of that is kept.
        GETATTR | SETATTR => Ok(attributes(Out::default().u64(VALID_SECONDS).u32(0).u32(0), drive, node)),
        OPEN if node == FILE => Ok(Out::default().u64(0).u32(0).u32(0)),
        READ if node == FILE => {
            let mut bytes = vec![0; u32_at(arguments, 16).min(WRITE_BYTES_MAX) as usize];
            let length = drive.read(u64_at(arguments, 8), &mut bytes).map_err(to_errno)?;
            bytes.truncate(length);
            Ok(Out(bytes))
        }
        WRITE if node == FILE => {
            let size = u32_at(arguments, 16);
            let bytes = arguments.get(40..40 + size as usize).ok_or(EINVAL)?;
            drive.write(u64_at(arguments, 8), bytes).map_err(to_errno)?;
            Ok(Out::default().u32(size).u32(0))
        }
        FSYNC if node == FILE => drive.flush().map(|()| Out::default()).map_err(to_errno),
        // Closing the file makes nothing durable.
        FLUSH | RELEASE | DESTROY => Ok(Out::default()),
        STATFS => {
            let head = Out::default().u64(0).u64(0).u64(0).u64(0).u64(0);
            Ok((0..6).fold(head.u32(4096).u32(255).u32(4096).u32(0), |out, _| out.u32(0)))
        }
        _ => Err(ENOSYS),
    }
}

fn init() -> Out {
    let flags = FLAG_ASYNC_READ | FLAG_BIG_WRITES | FLAG_MAX_PAGES;
    let head = Out::default().u32(MAJOR).u32(MINOR).u32(WRITE_BYTES_MAX).u32(flags);
    let head = head.u16(16).u16(12).u32(WRITE_BYTES_MAX).u32(1).u16(WRITE_PAGES_MAX).u16(0);
    (0..8).fold(head, |out, _| out.u32(0))
}

/// `struct fuse_attr` behind `head`.
fn attributes(head: Out, drive: &Drive, node: u64) -> Out {
    let (size, mode) = if node == FILE { (drive.length(), 0o100_600) } else { (0, 0o040_700) };
    let numbers = head.u64(node).u64(size).u64(size / 512).u64(0).u64(0).u64(0);
    // Times, mode, links, owner, group, device, block size, flags.
    numbers.u32(0).u32(0).u32(0).u32(mode).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0)
}

/// Bytes of an answer.
#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u16(mut self, number: u16) -> Out {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    fn u32(mut self, number: u32) -> Out {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Out {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }
}

/// 0 behind the end: the kernel sends whole structures.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().expect("4 bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_ne_bytes(bytes.try_into().expect("8 bytes")))
}
