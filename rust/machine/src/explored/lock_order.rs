//! Which lock was taken under which, over a whole exploration (R17).
//!
//! Two locks taken in both orders are a warning and no violation: that nobody was seen to hang may be due to a third
//! lock that keeps the two apart, or to these actors. Taking a lock again that is held (a nested reader) orders
//! nothing.

use vmemmap_arch::LockId;

/// An order met for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewOrder {
    pub held: LockId,
    pub taken: LockId,
    pub actor: u8,
}

/// Orders met since the machine was marked: neither undone nor part of the state.
#[derive(Clone, Debug, Default)]
pub(super) struct LockOrders {
    /// Bit `taken` of each lock held.
    seen: [u32; LockId::COUNT],
    pub fresh: Vec<NewOrder>,
}

impl LockOrders {
    pub fn forget(&mut self) {
        *self = Self::default();
    }
    pub fn note(&mut self, order: NewOrder) {
        let (seen, bit) = (&mut self.seen[order.held.index()], 1 << order.taken.index());
        if *seen & bit == 0 {
            *seen |= bit;
            self.fresh.push(order);
        }
    }
}
