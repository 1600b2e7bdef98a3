//! The errors that kernel functions return.

use core::fmt;

use vmemmap_arch::Outcome;

/// A Linux error number; `Errno::ENOMEM` prints `ENOMEM`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
pub enum Errno {
    EPERM = 1,
    EINTR = 4,
    ENXIO = 6,
    EAGAIN = 11,
    ENOMEM = 12,
    EBUSY = 16,
    EEXIST = 17,
    ENODEV = 19,
    EINVAL = 22,
    ENOSPC = 28,
    EHWPOISON = 133,
    /// Internal to the kernel, never seen by user space.
    ENOTSUPP = 524,
}

impl Errno {
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl Outcome for Errno {
    fn bits(&self) -> u64 {
        self.number() as u64
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
