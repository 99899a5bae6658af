//! An input read as a script: each decision of a target takes a few bytes off its front.
//!
//! An input that has ended answers 0 to everything, so every input is a script and every prefix of one too.

/// The rest of an input.
#[derive(Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Script<'a> {
        Script { rest: data }
    }

    /// Whether there is nothing left.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// Half of all bytes say yes.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`: one byte for a small `end`, else four.
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0);
        if end <= 256 { usize::from(self.byte()) % end } else { self.word() as usize % end }
    }

    /// Four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// A number that is mostly small (one byte), sometimes near a power of two, rarely any (nine bytes).
    pub fn number(&mut self, max: u64) -> u64 {
        let number = match self.byte() {
            small @ 0..=223 => u64::from(small),
            power @ 224..=253 => (1u64 << (2 * (power - 224) + 5)).wrapping_add_signed(i64::from(self.byte()) - 128),
            254 => max.saturating_sub(u64::from(self.byte())),
            255 => u64::from(self.word()) << 32 | u64::from(self.word()),
        };
        number.min(max)
    }

    /// At most `max` bytes; their number is the first byte.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let count = usize::from(self.byte()).min(max).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        bytes
    }
}
