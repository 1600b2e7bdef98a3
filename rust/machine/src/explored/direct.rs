//! Operations executed at once on an explored machine: set-up and tests run the very same kernel functions on it.

use std::cell::{Cell, RefCell};

use vmemmap_arch::Geometry;

use super::world::World;
use crate::op::{Op, Reply};
use crate::op_cpu::Port;

/// A CPU's way into a machine that nobody else uses meanwhile.
#[derive(Debug)]
pub struct Direct<'w> {
    world: &'w RefCell<World>,
    geometry: Geometry,
    actor: u8,
    label: Cell<&'static str>,
}

impl<'w> Direct<'w> {
    /// `actor` is the number of the CPU.
    #[must_use]
    pub fn new(world: &'w RefCell<World>, actor: u8) -> Self {
        let geometry = world.borrow().geometry;
        Self { world, geometry, actor, label: Cell::new("") }
    }
    /// Kernel function that the CPU is in.
    #[must_use]
    pub fn current(&self) -> &'static str {
        self.label.get()
    }
}

impl Port for Direct<'_> {
    /// The first of the possible outcomes. An operation that is blocked can never go on: that is a deadlock (I25).
    fn call(&self, op: Op) -> Reply {
        self.world.borrow_mut().execute(self.actor, &op, 0)
    }
    fn id(&self) -> u8 {
        self.actor
    }
    fn label(&self, function: &'static str) {
        self.label.set(function);
    }
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}
