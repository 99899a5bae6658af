//! Random numbers that are the same for the same seed: election timeouts must differ between nodes and repeat in the
//! simulator.

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is good, one addition and three multiplications a number.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of that seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` on and below `high`, which must be above `low`. Its bias is below 2^-32 for ranges below 2^32.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "{low} to {high}");
        low + self.draw() % (high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_that_of_the_reference() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.draw()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn each_value_of_a_range_is_drawn_and_none_outside() {
        let mut random = Random::new(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[(random.within(10, 15) - 10) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
