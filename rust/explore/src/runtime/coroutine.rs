//! Stackful coroutines on pooled stacks, whose state can be saved and brought back. The only `unsafe` of this crate.
//!
//! Most executions are abandoned half-way. Unwinding a suspended actor costs as much as 150 steps, so an abandoned one
//! is only marked as done and its stack is used again: no destructor runs. A depth-first search goes back to where an
//! actor stood before: the bytes of its stack are put back where they were, at their own address. Hence the rule for
//! whatever runs here: **at a suspension nothing on the stack needs `Drop`, and nothing there owns or counts anything
//! elsewhere.** The `kernel` crate keeps it by construction (`no_std` without `alloc`: no `Vec`, no `Box`; frames are
//! on intrusive lists, guards are plain values), `ActorPort` by giving back its borrow before it suspends.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine as Coro, CoroutineResult, Yielder};

/// Address space per stack; only the pages used are ever backed. A guard page ends it.
const STACK_BYTES: usize = 256 * 1024;

/// Bytes kept below the stack pointer that a body reports: the frame of the switch itself lies there.
const BELOW: usize = 1024;

/// Largest guard page at the low end of a stack.
const GUARD: usize = 64 * 1024;

/// Yields the address down to which the stack is in use.
type Raw = Coro<u16, usize, (), DefaultStack>;

/// Handle by which a body gives control back.
#[derive(Clone, Copy)]
pub struct Suspender<'c>(&'c Yielder<u16, usize>);

impl Suspender<'_> {
    /// Control to whoever resumed; returns the value of the next `resume`.
    #[inline(always)]
    pub fn suspend(self) -> u16 {
        self.0.suspend(stack_pointer())
    }
}

/// The stack pointer of the caller's frame. On an architecture not listed 0: then whole stacks are saved.
#[inline(always)]
fn stack_pointer() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let sp: usize;
        // SAFETY: copies a register; touches neither memory, stack nor flags.
        unsafe { std::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
        sp
    }
    #[cfg(target_arch = "aarch64")]
    {
        let sp: usize;
        // SAFETY: copies a register; touches neither memory, stack nor flags.
        unsafe { std::arch::asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
        sp
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        0
    }
}

/// Stacks that are not in use.
#[derive(Default)]
pub struct Stacks(Vec<DefaultStack>);

impl Stacks {
    /// Make sure that `n` stacks are at hand.
    ///
    /// # Errors
    /// The operating system refused the mapping.
    pub fn reserve(&mut self, n: usize) -> io::Result<()> {
        while self.0.len() < n {
            self.0.push(DefaultStack::new(STACK_BYTES)?);
        }
        Ok(())
    }
}

/// A suspended body that borrows for `'env`.
pub struct Coroutine<'env> {
    raw: Option<Raw>,
    /// End of its stack, and the lowest address that may be read of it.
    base: usize,
    lowest: usize,
    /// From here on its stack is in use, when suspended.
    used: usize,
    borrows: PhantomData<&'env ()>,
}

/// Where a body stood: the bytes of its stack, and the handle as it was then. Buffers are used again.
pub struct Saved {
    raw: MaybeUninit<Raw>,
    used: usize,
    bytes: Vec<MaybeUninit<u8>>,
}

impl Default for Saved {
    fn default() -> Self {
        Self { raw: MaybeUninit::uninit(), used: usize::MAX, bytes: Vec::new() }
    }
}

impl<'env> Coroutine<'env> {
    /// A body not yet started. `Copy` makes sure that the closure itself owns nothing.
    ///
    /// # Panics
    /// If no stack was reserved.
    pub fn new<F>(stacks: &mut Stacks, body: F) -> Self
    where
        F: FnOnce(Suspender<'_>) + Copy + 'env,
    {
        let stack = stacks.0.pop().expect("a stack was reserved for each actor");
        let (base, lowest) = (stack.base().get(), stack.limit().get() + GUARD);
        // SAFETY: the closure borrows for 'env, and this struct cannot outlive 'env (PhantomData). It never resumes
        // after it was reset or dropped; if it is forgotten, nobody can resume it, so nothing borrowed is ever touched
        // again.
        let raw = unsafe {
            Raw::with_stack_unchecked(stack, move |yielder: &Yielder<u16, usize>, _first: u16| body(Suspender(yielder)))
        };
        Self { raw: Some(raw), base, lowest, used: base, borrows: PhantomData }
    }

    /// Runs the body until it suspends (`true`) or ends (`false`). The value of the first call is ignored. A panic of
    /// the body comes out here.
    ///
    /// # Panics
    /// If the body has ended.
    #[inline]
    pub fn resume(&mut self, value: u16) -> bool {
        match self.raw.as_mut().expect("present until abandoned").resume(value) {
            CoroutineResult::Yield(used) => {
                self.used = used;
                true
            }
            CoroutineResult::Return(()) => false,
        }
    }

    /// Notes where the body stands, for `restore`. It is suspended.
    ///
    /// # Panics
    /// If the stack is all but used up.
    pub fn save(&self, into: &mut Saved) {
        let raw = self.raw.as_ref().expect("present until abandoned");
        let from = self.used.saturating_sub(BELOW).max(self.lowest);
        assert!(self.used == 0 || self.used >= from, "an actor's stack is used up");
        let length = self.base - from;
        into.used = self.used;
        into.bytes.clear();
        into.bytes.reserve(length);
        // SAFETY: `from..base` lies in the mapping of the stack, above its guard page (`lowest`), and nobody runs on
        // it: the body is suspended. Bytes are copied as they are, initialised or not. A bitwise copy of the handle is
        // never used but to overwrite the handle of the same stack, and never dropped.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const MaybeUninit<u8>, into.bytes.as_mut_ptr(), length);
            into.bytes.set_len(length);
            std::ptr::copy_nonoverlapping(raw, into.raw.as_mut_ptr(), 1);
        }
    }

    /// Back to where the body stood when it was saved; it may have run on meanwhile, to its end even.
    ///
    /// # Panics
    /// If nothing was saved.
    pub fn restore(&mut self, from: &Saved) {
        let raw = self.raw.as_mut().expect("present until abandoned");
        assert!(from.used != usize::MAX, "only what was saved can be restored");
        self.used = from.used;
        // SAFETY: the same part of the same stack that `save` read, with nobody running on it; pointers into it are
        // valid again since it lies where it lay. Nothing on it owned anything (module documentation), so nothing is
        // released twice or never. The handle that is overwritten owned the same stack as the one put in its place, so
        // neither is leaked.
        unsafe {
            let to = (self.base - from.bytes.len()) as *mut MaybeUninit<u8>;
            std::ptr::copy_nonoverlapping(from.bytes.as_ptr(), to, from.bytes.len());
            std::ptr::copy_nonoverlapping(from.raw.as_ptr(), raw, 1);
        }
    }

    /// Gives the stack back, wherever the body is.
    pub fn abandon(mut self, stacks: &mut Stacks) {
        if let Some(stack) = self.reset() {
            stacks.0.push(stack);
        }
    }

    fn reset(&mut self) -> Option<DefaultStack> {
        let mut raw = self.raw.take()?;
        // SAFETY: this is a longjmp to the body's start. Nothing on the stack needs Drop (module documentation), and
        // the initial closure is Copy, hence has no destructor either.
        unsafe { raw.force_reset() };
        Some(raw.into_stack())
    }
}

impl Drop for Coroutine<'_> {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Suspends at every level of a recursion, on the way down and on the way up; what comes out depends on all that is
    /// on the stack.
    fn body(s: Suspender<'_>, depth: u32, out: &Cell<u64>) -> u64 {
        let mut block = [u64::from(depth); 40];
        block[depth as usize % 40] ^= u64::from(s.suspend());
        let below = if depth == 0 { 1 } else { body(s, depth - 1, out) };
        block[0] = block.iter().fold(below, |a, b| a.rotate_left(5) ^ b);
        block[1] = u64::from(s.suspend());
        out.set(block[0] ^ block[1]);
        block[0].wrapping_mul(31) ^ block[1]
    }

    const DEPTH: u32 = 9;

    /// Up to its first suspension.
    fn started<'a>(stacks: &mut Stacks, out: &'a Cell<u64>) -> Coroutine<'a> {
        stacks.reserve(1).expect("a stack");
        let mut c = Coroutine::new(stacks, move |s: Suspender<'_>| {
            body(s, DEPTH, out);
        });
        assert!(c.resume(0));
        c
    }

    fn run(from: &[u16]) -> u64 {
        let out = Cell::new(0);
        let mut stacks = Stacks::default();
        let mut c = started(&mut stacks, &out);
        for &value in from {
            c.resume(value);
        }
        c.abandon(&mut stacks);
        out.get()
    }

    #[test]
    fn a_body_goes_on_from_where_it_was_saved_as_if_it_had_never_run_further() {
        let values: Vec<u16> = (0..2 * (DEPTH as u16 + 1)).map(|i| i * 7 + 3).collect();
        let straight = run(&values);
        let out = Cell::new(0);
        let mut stacks = Stacks::default();
        let mut c = started(&mut stacks, &out);
        let mut saved = Vec::new();
        for &value in &values {
            let mut here = Saved::default();
            c.save(&mut here);
            saved.push(here);
            c.resume(value);
        }
        assert_eq!(out.get(), straight);
        // From each point, the last first: another way for a while, back, and the same way to the end, which it had
        // reached.
        for (at, here) in saved.iter().enumerate().rev() {
            c.restore(here);
            for &value in values[at..].iter().take(3) {
                c.resume(value ^ 0x55);
            }
            c.restore(here);
            for &value in &values[at..] {
                c.resume(value);
            }
            assert_eq!(out.get(), straight, "from point {at}");
        }
        c.abandon(&mut stacks);
    }
}
