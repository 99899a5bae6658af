//! A node's clocks: one that never goes back but may be too fast or too slow, and one on the wall that may jump.

use logic::io::Now;

/// Parts of a million.
const MILLION: i64 = 1_000_000;

/// See the top of this file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_us: u64,      // time of the world at which
    base_mono_us: u64, // the clock showed this
    ppm: i64,          // too fast by so many parts of a million since then
    wall_ms: i64,      // ahead of the world
}

impl Clock {
    pub fn new(now_us: u64) -> Clock {
        Clock { base_us: now_us, base_mono_us: now_us, ppm: 0, wall_ms: 0 }
    }

    /// What a process of this node reads.
    pub fn now(&self, now_us: u64) -> Now {
        let wall_ms = (now_us / 1000).cast_signed() + self.wall_ms;
        Now { mono_us: self.mono_us(now_us), wall_ms: wall_ms.max(0).cast_unsigned() }
    }

    fn mono_us(&self, now_us: u64) -> u64 {
        let passed_us = (now_us - self.base_us).cast_signed();
        (self.base_mono_us.cast_signed() + passed_us + passed_us * self.ppm / MILLION).cast_unsigned()
    }

    /// Goes too fast (or too slow) from now on.
    pub fn skew(&mut self, now_us: u64, ppm: i64) {
        *self = Clock { base_us: now_us, base_mono_us: self.mono_us(now_us), ppm, wall_ms: self.wall_ms };
    }

    /// The wall clock jumps by that.
    pub fn jump(&mut self, ms: i64) {
        self.wall_ms += ms;
    }

    /// Time of the world in which this clock advances by `own_us`.
    pub fn real_us(&self, own_us: u64) -> u64 {
        (own_us.cast_signed() * MILLION / (MILLION + self.ppm)).cast_unsigned().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_gains_and_never_goes_back() {
        let mut clock = Clock::new(1000);
        clock.skew(1_000_000, 50_000);
        assert_eq!(clock.now(2_000_000).mono_us, 2_050_000);
        clock.skew(2_000_000, -50_000);
        assert_eq!(clock.now(3_000_000).mono_us, 3_000_000);
        clock.jump(-10);
        assert_eq!(clock.now(3_000_000), Now { mono_us: 3_000_000, wall_ms: 2990 });
        assert_eq!(clock.real_us(50_000), 52_631);
    }
}
