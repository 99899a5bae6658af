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
fn blocking_work_that_nobody_waits_for_any_more_is_counted_until_it_ends() {
    run("blocking", async {
        let (go, gate) = mpsc::channel::<()>();
        let waits = glommio::spawn_local(blocking(move || gate.recv()));
        glommio::executor().yield_now().await;
        waits.cancel().await;
        assert_eq!(blocking_under_way(), 1);
        go.send(()).unwrap();
        while blocking_under_way() > 0 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(blocking(|| 5).await, 5);
        assert_eq!(blocking_under_way(), 0);
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

/// Set for the child processes of the test below.
const CHILD: &str = "EXECUTOR_TEST_CHILD";
/// With glommio's own preempt timer of 100 ms one of them hung after 8 to 56 stops.
const CHILDREN: usize = 3;
const STOPS: usize = 25;
const STOPPED: Duration = Duration::from_millis(150);
/// Rounds of a child between two lines: a few milliseconds.
const ROUNDS_PER_LINE: u64 = 50;
/// The longest a line may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn stopping_and_continuing_does_not_hang_an_executor() {
    if std::env::var_os(CHILD).is_some() {
        return work_for_ever();
    }
    let children: Vec<StoppableChild> = (0..CHILDREN).map(|_| StoppableChild::start()).collect();
    children.iter().for_each(|child| child.wait_for_progress("before the first stop"));
    for stop in 1..=STOPS {
        signal(&children, "STOP");
        thread::sleep(STOPPED);
        signal(&children, "CONT");
        children.iter().for_each(|child| child.wait_for_progress(&format!("after stop {stop}")));
    }
}

/// The shell's own `kill`: always there, and no unsafe code is needed here.
fn signal(children: &[StoppableChild], name: &str) {
    let processes: Vec<String> = children.iter().map(|child| child.process.id().to_string()).collect();
    let command = format!("kill -{name} {}", processes.join(" "));
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
}

struct StoppableChild {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl StoppableChild {
    fn start() -> StoppableChild {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::stopping_and_continuing_does_not_hang_an_executor", "--nocapture"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (progress, lines) = mpsc::channel();
        // Ends with the child's end of the pipe.
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| progress.send(line)));
        StoppableChild { process, lines }
    }

    fn wait_for_progress(&self, when: &str) {
        while self.lines.try_recv().is_ok() {}
        // What was written before the stop may still be in the pipe: the last of some more lines is a new one.
        for _ in 0..3 {
            self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("an executor hangs {when}"));
        }
    }
}

impl Drop for StoppableChild {
    fn drop(&mut self) {
        // It may have ended by itself after a failure; then there is nothing to kill.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

/// Two executors that take turns as fast as they can. No timer and no I/O is pending meanwhile, so an executor that
/// parks with runnable tasks is never woken again.
fn work_for_ever() {
    // If the parent is gone, so is the pipe.
    thread::spawn(|| {
        let _ = io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let (ask, asked) = glommio::channels::shared_channel::new_bounded::<u64>(1);
    let (answer, answered) = glommio::channels::shared_channel::new_bounded::<u64>(1);
    let answers = spawn("answers", move || async move {
        let (asked, answer) = (asked.connect().await, answer.connect().await);
        while let Some(number) = asked.recv().await {
            answer.send(number).await.unwrap();
        }
    })
    .unwrap();
    let asks = spawn("asks", move || async move {
        let (ask, answered) = (ask.connect().await, answered.connect().await);
        for round in 0.. {
            ask.send(round).await.unwrap();
            assert_eq!(answered.recv().await, Some(round));
            if round % ROUNDS_PER_LINE == 0 {
                let mut out = io::stdout().lock();
                writeln!(out, "{round}").and_then(|()| out.flush()).unwrap();
            }
        }
    })
    .unwrap();
    asks.join().unwrap();
    answers.join().unwrap();
}
