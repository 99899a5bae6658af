//! One node process: started, signalled and ended by its own process id.
//!
//! The child's standard input is a pipe from us that never carries a byte: `node --exit-with-parent` ends when it
//! closes, so no node outlives the program that started it, however that one ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// How often a process that is ending is looked at.
const WAIT_POLL: Duration = Duration::from_millis(2);

/// A running child. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Process> {
        let output: File = OpenOptions::new().create(true).append(true).open(log)?;
        let errors = output.try_clone()?;
        let child = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn()?;
        Ok(Process { child })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: ends at once, as after a crash of the process. On return it is gone.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// SIGKILL, without waiting for its end.
    pub fn strike(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGTERM: asks it to stop cleanly.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGINT: as Ctrl-C in a terminal.
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// SIGSTOP: takes the CPU from it until `resume`.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, at most for `patience`. `None`: still running.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if start.elapsed() > patience {
                return Ok(None);
            }
            thread::sleep(WAIT_POLL);
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // The child is not yet waited for, so its id cannot belong to anybody else.
        kill_process(Pid::from_child(&self.child), signal).map_err(io::Error::from)
    }
}

/// Allows this process, and those it starts from now on, `count` open files. `Err`: how many are allowed at most.
pub fn allow_files(count: u64) -> Result<(), u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let new = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match limit.maximum {
        Some(maximum) if maximum < count => Err(maximum),
        _ => setrlimit(Resource::Nofile, new).map_err(|_| limit.current.unwrap_or(0)),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
