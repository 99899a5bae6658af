//! The time of a core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use logic::io::Now;

/// Gives each step its time: monotonic microseconds since the clock was made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { mono_us: micros(self.start.elapsed()), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// When the next tick is due. A core that was stopped for long gets one tick, not one for each that it missed: logic goes by
/// the time of its inputs, and a burst would only delay what waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    next_us: u64,
    every_us: u64,
}

impl Ticks {
    pub(crate) fn new(now_us: u64, every_us: u64) -> Ticks {
        assert!(every_us > 0, "ticks need a distance");
        Ticks { next_us: now_us + every_us, every_us }
    }

    /// Whether a tick is due now; then the next one is set, on the same grid.
    pub(crate) fn take_due(&mut self, now_us: u64) -> bool {
        if now_us < self.next_us {
            return false;
        }
        let missed = (now_us - self.next_us) / self.every_us;
        self.next_us += (missed + 1) * self.every_us;
        assert!(self.next_us > now_us, "next {} now {now_us}", self.next_us);
        true
    }

    /// Time until the next tick.
    pub(crate) fn wait(&self, now_us: u64) -> Duration {
        Duration::from_micros(self.next_us.saturating_sub(now_us))
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Ticks};

    #[test]
    fn core_that_was_stopped_gets_one_tick_and_keeps_its_grid() {
        let mut ticks = Ticks::new(0, 50);
        assert!(!ticks.take_due(49));
        assert!(ticks.take_due(50));
        assert!(!ticks.take_due(99));
        assert_eq!(ticks.wait(99).as_micros(), 1);
        assert!(ticks.take_due(1_020), "after a stop of a second");
        assert!(!ticks.take_due(1_049), "no burst");
        assert!(ticks.take_due(1_050));
    }

    #[test]
    fn time_never_runs_backwards() {
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(first.mono_us <= second.mono_us);
        assert!(second.wall_ms > 1_600_000_000_000, "after 2020");
    }
}
