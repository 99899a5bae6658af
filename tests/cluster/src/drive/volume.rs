//! An ext4 filesystem on a drive of ours, mounted in this process's mount namespace.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{Drive, fuse};
use crate::network::run;
use crate::{Problem, problem};

/// Inodes: a node makes a few dozen files. The default would take seconds to write.
const INODES: &str = "2048";
/// How long a filesystem may stay in use by processes that are gone.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);

/// Something mounted in this process's mount namespace. Dropping it unmounts, even while it is in use.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Takes over what is mounted at `point`.
    pub fn at(point: &Path) -> Mounted {
        Mounted(point.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It fails only if nothing is mounted there any more.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// The filesystem, while it is mounted. Dropping it unmounts, whatever state the drive is in.
#[derive(Debug)]
pub struct Volume {
    drive: Drive,
    // Where the file of the drive is.
    point: PathBuf,
    // Where the filesystem is.
    mounted: PathBuf,
    is_gone: bool,
}

impl Volume {
    /// Makes the file `base` of `bytes` with an empty filesystem on it.
    pub fn format(base: &Path, bytes: u64) -> Result<(), Problem> {
        let file = File::create(base).map_err(problem(format!("cannot make {}", base.display())))?;
        file.set_len(bytes).map_err(problem(format!("cannot size {}", base.display())))?;
        let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", INODES, "-E", options, &base.to_string_lossy()])
    }

    /// Switches the drive over `base` on and mounts its filesystem at `mounted`; `point` is a folder for the drive itself.
    /// The filesystem replays its journal if the power was cut before.
    pub fn mount(base: &Path, point: &Path, mounted: &Path) -> Result<Volume, Problem> {
        for folder in [point, mounted] {
            fs::create_dir_all(folder).map_err(problem(format!("cannot make {}", folder.display())))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = options.open(base).map_err(problem(format!("cannot open {}", base.display())))?;
        let drive = Drive::over(file).map_err(problem(format!("cannot read {}", base.display())))?;
        let device = options.open("/dev/fuse").map_err(problem("cannot open /dev/fuse"))?;
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
        let data = std::ffi::CString::from_vec_with_nul(data.into_bytes()).expect("one zero, at the end");
        mount("heliograph-drive", point, "fuse", MountFlags::NOSUID | MountFlags::NODEV, data.as_c_str())
            .map_err(problem(format!("cannot mount FUSE at {}", point.display())))?;
        let served = drive.clone();
        // It ends with the last use of the mount, which may be after this volume is gone.
        thread::spawn(move || {
            if let Err(error) = fuse::serve(device, &served) {
                eprintln!("the drive ended: {error}");
            }
        });
        let volume = Volume { drive, point: point.to_owned(), mounted: mounted.to_owned(), is_gone: false };
        // The loop device goes with the mount.
        let file = point.join(fuse::FILE_NAME);
        run("mount", &["-t", "ext4", "-o", "loop", &file.to_string_lossy(), &mounted.to_string_lossy()])?;
        Ok(volume)
    }

    /// To cut its power, or make it fail.
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// Unmounts; nothing may use it any more. A filesystem whose drive is gone goes all the same.
    pub fn unmount(mut self) -> Result<(), Problem> {
        self.is_gone = true;
        self.drive.release();
        // The kernel lets go of a killed process's files some moments after the process itself (io_uring).
        let start = Instant::now();
        while let Err(error) = unmount(&self.mounted, UnmountFlags::empty()) {
            if error != rustix::io::Errno::BUSY || start.elapsed() > BUSY_PATIENCE {
                return Err(Problem(format!("cannot unmount {}: {error}", self.mounted.display())));
            }
            thread::sleep(Duration::from_millis(2));
        }
        unmount(&self.point, UnmountFlags::DETACH).map_err(problem(format!("cannot unmount {}", self.point.display())))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if !self.is_gone {
            // Both fail only for what is not mounted.
            self.drive.release();
            let _ = unmount(&self.mounted, UnmountFlags::DETACH);
            let _ = unmount(&self.point, UnmountFlags::DETACH);
        }
    }
}
