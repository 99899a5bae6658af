#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use super::*;

#[test]
fn spawned_executor_gives_its_value_and_its_panic() {
    let name = spawn("a-name", || async { thread::current().name().map(str::to_owned) }).unwrap();
    assert_eq!(name.join().unwrap().as_deref(), Some("a-name"));
    let panicked = spawn("panics", || async { panic!("on purpose") }).unwrap();
    assert!(panicked.join().is_err());
}

#[test]
fn blocking_work_of_one_kind_does_not_wait_for_another() {
    run("blocking", async {
        // Each waits for the next one's word: with one thread they would never end.
        let (first, second) = mpsc::channel();
        let waits = glommio::executor().spawn_blocking(move || second.recv_timeout(Duration::from_secs(30)));
        let waits = glommio::spawn_local(waits).detach();
        glommio::executor().spawn_blocking(move || first.send(5)).await.unwrap();
        assert_eq!(waits.await.unwrap(), Ok(5));
    })
    .unwrap();
}

#[test]
fn what_glommio_says_becomes_an_error_with_a_remedy() {
    let memlock = GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(65_536, MEMLOCK_BYTES_MIN));
    let system = |number| GlommioError::IoError(io::Error::from_raw_os_error(number));
    for (error, remedy) in [
        (memlock, "ulimit -l 8192"),
        (system(ENOMEM), "ulimit -l"),
        (system(1), "kernel.io_uring_disabled=0"),
        (system(ENOSYS), "Linux 5.15"),
        (system(EMFILE), "ulimit -n"),
        (system(5), "Input/output error"),
    ] {
        let text = StartError::of(error).to_string();
        assert!(text.contains(remedy), "{text}");
    }
}

#[test]
fn this_machine_runs_executors() {
    probe().unwrap();
}

/// Set for the child process of the test below.
const CHILD: &str = "EXECUTOR_TEST_CHILD";
/// With glommio's own preempt timer of 100 ms an executor hung after 8 to 56 such stops.
const STOPS: usize = 40;
const STOPPED: Duration = Duration::from_millis(150);
/// Tasks of one burst, and how often each of them yields: about a millisecond together.
const TASKS: usize = 4;
const BURST: usize = 2000;
/// The longest a line may take that comes every few milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn stopping_and_continuing_does_not_hang_an_executor() {
    if std::env::var_os(CHILD).is_some() {
        return work_for_ever();
    }
    let mut child = KilledOnDrop(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::stopping_and_continuing_does_not_hang_an_executor", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let (progress, lines) = mpsc::channel();
    let stdout = BufReader::new(child.0.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if progress.send(line).is_err() {
                return;
            }
        }
    });
    let moved = |when: &str| {
        while lines.try_recv().is_ok() {}
        // What was written before the stop may still be in the pipe: two more lines are new ones.
        for _ in 0..2 {
            lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the executor hangs {when}"));
        }
    };
    moved("before the first stop");
    for stop in 1..=STOPS {
        child.signal("STOP");
        thread::sleep(STOPPED);
        child.signal("CONT");
        moved(&format!("after stop {stop}"));
    }
    drop(child);
    reader.join().unwrap();
}

struct KilledOnDrop(Child);

impl KilledOnDrop {
    fn signal(&self, name: &str) {
        // The shell's own `kill`: always there, and no unsafe code is needed here.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.0.id())]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Two executors that take turns: one runs a burst of local tasks that keep each other runnable, then asks the other one.
/// No timer and no I/O is pending meanwhile, so an executor that parks with runnable tasks is never woken again.
fn work_for_ever() {
    // If the parent is gone, so is the pipe.
    thread::spawn(|| {
        let _ = io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let (ask, asked) = glommio::channels::shared_channel::new_bounded::<u64>(1);
    let (answer, answered) = glommio::channels::shared_channel::new_bounded::<u64>(1);
    let says = spawn("says", move || async move {
        let (asked, answer) = (asked.connect().await, answer.connect().await);
        while let Some(number) = asked.recv().await {
            let mut out = io::stdout().lock();
            writeln!(out, "{number}").and_then(|()| out.flush()).unwrap();
            drop(out);
            answer.send(number).await.unwrap();
        }
    })
    .unwrap();
    let works = spawn("works", move || async move {
        let (ask, answered) = (ask.connect().await, answered.connect().await);
        for round in 0.. {
            let tasks: Vec<_> = (0..TASKS).map(|_| glommio::spawn_local(burst())).collect();
            for task in tasks {
                task.await;
            }
            ask.send(round).await.unwrap();
            assert_eq!(answered.recv().await, Some(round));
        }
    })
    .unwrap();
    works.join().unwrap();
    says.join().unwrap();
}

async fn burst() {
    for _ in 0..BURST {
        glommio::executor().yield_now().await;
    }
}
