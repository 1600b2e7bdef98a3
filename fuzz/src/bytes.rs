//! Input taken from the front, as numbers.

/// The input that is left; 0 once there is none.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
    pub fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |value, _| value << 8 | u64::from(self.byte()))
    }
    /// One time in `of`, if there is input.
    pub fn rarely(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }
}
