//! A quick hash for tables keyed by numbers that the harness itself gave out, where nobody can craft collisions.

use std::hash::Hasher;

/// Multiplies and folds; see [`MulHasher::mix`].
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct MulHasher(u64);

impl MulHasher {
    /// Spreads consecutive numbers over all bits.
    pub fn mix(value: u64) -> u64 {
        let wide = u128::from(value ^ 0x9E37_79B9_7F4A_7C15) * 0xA24B_AED4_963E_E407_u128;
        (wide as u64) ^ ((wide >> 64) as u64)
    }
}

impl Hasher for MulHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = MulHasher::mix(self.0.rotate_left(23) ^ value);
    }
}
