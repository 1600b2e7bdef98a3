//! Stackful coroutines on pooled stacks. The only `unsafe` of this crate.
//!
//! Most executions are abandoned half-way. Unwinding a suspended actor costs as much as 150 steps, so an abandoned one
//! is only marked as done and its stack is used again: no destructor runs. Hence the rule for whatever runs here: **at
//! a suspension nothing on the stack needs `Drop`.** The `kernel` crate keeps it by construction (`no_std` without
//! `alloc`: no `Vec`, no `Box`; frames are on intrusive lists, guards are plain values), `ActorPort` by giving back its
//! borrow before it suspends.

use std::io;
use std::marker::PhantomData;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine as Raw, CoroutineResult, Yielder};

/// Address space per stack; only the pages used are ever backed. A guard page ends it.
const STACK_BYTES: usize = 256 * 1024;

/// Handle by which a body gives control back.
#[derive(Clone, Copy)]
pub struct Suspender<'c>(&'c Yielder<u16, ()>);

impl Suspender<'_> {
    /// Control to whoever resumed; returns the value of the next `resume`.
    #[inline]
    pub fn suspend(self) -> u16 {
        self.0.suspend(())
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
    raw: Option<Raw<u16, (), (), DefaultStack>>,
    borrows: PhantomData<&'env ()>,
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
        // SAFETY: the closure borrows for 'env, and this struct cannot outlive 'env (PhantomData). It never resumes after
        // it was reset or dropped; if it is forgotten, nobody can resume it, so nothing borrowed is ever touched again.
        let raw = unsafe { Raw::with_stack_unchecked(stack, move |yielder: &Yielder<u16, ()>, _first: u16| body(Suspender(yielder))) };
        Self { raw: Some(raw), borrows: PhantomData }
    }

    /// Runs the body until it suspends (`true`) or ends (`false`). The value of the first call is ignored. A panic of the
    /// body comes out here.
    ///
    /// # Panics
    /// If the body has ended.
    #[inline]
    pub fn resume(&mut self, value: u16) -> bool {
        match self.raw.as_mut().expect("present until abandoned").resume(value) {
            CoroutineResult::Yield(()) => true,
            CoroutineResult::Return(()) => false,
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
        // SAFETY: this is a longjmp to the body's start. Nothing on the stack needs Drop (module documentation), and the
        // initial closure is Copy, hence has no destructor either.
        unsafe { raw.force_reset() };
        Some(raw.into_stack())
    }
}

impl Drop for Coroutine<'_> {
    fn drop(&mut self) {
        self.reset();
    }
}
