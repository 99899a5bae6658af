//! How long to wait after a failure: exponential, capped, with jitter, so that many clients do not come back at once
//! (Brooker, "Exponential Backoff And Jitter", 2015).

use crate::limits::{BACKOFF_FIRST_US, BACKOFF_MAX_US};

/// Draws waits. Deterministic in its seed.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    state: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff { state: seed }
    }

    /// The wait after the `failures`-th failure in a row: between half and the whole of the capped power of two.
    pub(crate) fn wait_us(&mut self, failures: u32) -> u64 {
        assert!(failures > 0, "a wait follows a failure");
        let doublings = (failures - 1).min(BACKOFF_MAX_US.ilog2());
        let whole = BACKOFF_FIRST_US.saturating_mul(1 << doublings).min(BACKOFF_MAX_US);
        whole / 2 + self.draw() % (whole / 2 + 1)
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::limits::{BACKOFF_FIRST_US, BACKOFF_MAX_US};

    #[test]
    fn wait_doubles_up_to_its_cap_and_jitters_by_half() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            for failures in 1..80u32 {
                let whole = (u128::from(BACKOFF_FIRST_US) << (failures - 1)).min(u128::from(BACKOFF_MAX_US)) as u64;
                let wait = backoff.wait_us(failures);
                assert!(wait >= whole / 2 && wait <= whole, "seed {seed} failures {failures}: {wait} of {whole}");
            }
        }
        let (mut a, mut b) = (Backoff::new(1), Backoff::new(2));
        assert_ne!(a.wait_us(9), b.wait_us(9));
    }
}
