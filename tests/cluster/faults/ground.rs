//! Namespaces of the run's own, so that nothing it makes is seen by others, and nothing outlives it.
//!
//! ```text
//! this program -> unshare (network, mount, process namespaces; as an ordinary user a user namespace too) -> this program
//! ```
//!
//! The inner one is process 1 of its process namespace: when it ends, however it ends, the kernel ends every process it
//! started, and with the last of them go the networks, the mounts and the loop devices. The outer one keeps the folder for
//! all files and removes it at the end. They hold on to each other by a pipe: when the outer one is told to end or dies,
//! the inner one sees the end of its input, lets the current part clean up, and ends.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Problem, problem};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::case::Rights;

const POLL: Duration = Duration::from_millis(50);
/// How long a part may take to clean up after the run was told to end.
const CLEAN_PATIENCE: Duration = Duration::from_secs(30);
/// Commands of the system that the parts use.
const TOOLS: [&str; 5] = ["ip", "nsenter", "unshare", "mount", "sh"];

/// What can be had here, and in words why not more.
pub fn rights() -> (Rights, String) {
    if let Some(missing) = TOOLS.into_iter().find(|tool| !is_there(tool)) {
        return (Rights::None, format!("{missing} is not installed (packages iproute2, util-linux)"));
    }
    let mut text = "not root".to_owned();
    for (rights, is_user) in [(Rights::Root, false), (Rights::User, true)] {
        if rights == Rights::Root && fs::metadata("/proc/self").map_or(0, |own| own.uid()) != 0 {
            continue;
        }
        let mut command = unshare(rights);
        // Exactly what is needed later: a network that can be configured, and a mount.
        let trial = "ip link set lo up && mount -t tmpfs heliograph /tmp";
        match command.args(["sh", "-c", trial]).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return (rights, text),
            Ok(output) => text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => text = error.to_string(),
        }
        if is_user {
            break;
        }
    }
    (Rights::None, text)
}

fn is_there(tool: &str) -> bool {
    path().split(':').any(|folder| Path::new(folder).join(tool).is_file())
}

/// Not every user has the folders of the administrator's commands in the path.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

fn unshare(rights: Rights) -> Command {
    let mut command = Command::new("unshare");
    // The inner half and all that it runs inherit it.
    command.env("PATH", path());
    if rights == Rights::User {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// The outer half: runs `inner` of this program there, and ends it when told to.
pub fn run_inside(rights: Rights, inner: &[String]) -> Result<ExitStatus, Problem> {
    let stop = stop_flag()?;
    let own = std::env::current_exe().map_err(problem("cannot find the own executable"))?;
    let mut command = match rights {
        Rights::None => Command::new(own),
        Rights::User | Rights::Root => {
            let mut command = unshare(rights);
            command.arg(own);
            command
        }
    };
    let mut child = command.args(inner).stdin(Stdio::piped()).spawn().map_err(problem("cannot start the run"))?;
    let mut input = child.stdin.take();
    loop {
        if let Some(status) = child.try_wait().map_err(problem("the run"))? {
            return Ok(status);
        }
        if stop.load(Ordering::Acquire) && input.take().is_some() {
            return wait_end(&mut child);
        }
        thread::sleep(POLL);
    }
}

fn wait_end(child: &mut Child) -> Result<ExitStatus, Problem> {
    let start = Instant::now();
    while start.elapsed() < CLEAN_PATIENCE * 2 {
        if let Some(status) = child.try_wait().map_err(problem("the run"))? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
    // With it goes the whole process namespace.
    child.kill().and_then(|()| child.wait()).map_err(problem("cannot end the run"))
}

/// The inner half: configures its network and listens for the end. Once the flag is set, the run cleans up and ends.
pub fn arrive(rights: Rights) -> Result<Arc<AtomicBool>, Problem> {
    if rights > Rights::None {
        cluster::network::run("ip", &["link", "set", "lo", "up"])?;
    }
    let stop = stop_flag()?;
    let told = stop.clone();
    thread::spawn(move || {
        let mut byte = [0u8; 1];
        while matches!(io::stdin().read(&mut byte), Ok(1)) {}
        told.store(true, Ordering::Release);
        thread::sleep(CLEAN_PATIENCE);
        eprintln!("the run does not end by itself: its processes are killed");
        std::process::exit(1);
    });
    Ok(stop)
}

fn stop_flag() -> Result<Arc<AtomicBool>, Problem> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).map_err(problem(format!("signal {signal}")))?;
    }
    Ok(stop)
}
