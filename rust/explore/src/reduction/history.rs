//! Hashes of what actors have observed, and of whole states by them.

use std::hash::{BuildHasherDefault, Hasher};

pub(crate) const FINISHED: u128 = 0x6a09_e667_f3bc_c908_bb67_ae85_84ca_a73b;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

#[inline]
pub(crate) fn roll(hash: u128, value: u64) -> u128 {
    let low = fold(hash as u64 ^ value, 0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    let high =
        fold((hash >> 64) as u64 ^ value.rotate_left(29), 0xd6e8_feb8_6659_fd93).wrapping_add(0xa076_1d64_78bd_642f);
    u128::from(high) << 64 | u128::from(low)
}

/// An actor's hash at its own place in the key, so that two actors never cancel out.
#[inline]
pub(crate) fn place(hash: u128, actor: u64) -> u128 {
    roll(roll(hash, actor.wrapping_add(1).wrapping_mul(0xe703_7ed1_a0b4_28db)), 0)
}

/// Marks, in a history, operations that were made at once.
pub(crate) const SKIPPED: u64 = 0x5bd1_e995_0000_0000;

/// Marks, in a history, the outcome of what was observed.
pub(crate) const ABSTRACTED: u64 = 0x1656_67b1_9e37_79f9;

/// Keys are hashes already.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
    fn write_u64(&mut self, key: u64) {
        self.0 ^= key;
    }
}
pub(crate) type KeyBuilder = BuildHasherDefault<KeyHasher>;
