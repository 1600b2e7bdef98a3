//! The setup: kernel code run directly on an explored machine, before anybody is scheduled.

use std::cell::{Cell, RefCell};

use thiserror::Error;
use vmemmap_arch::Geometry;
use vmemmap_kernel::{Errno, Kernel, Operation};
use vmemmap_machine::op::{Op, Reply};
use vmemmap_machine::op_cpu::{OpCpu, Port};

use vmemmap_explore::model::Model;

/// Why the setup failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SetupError {
    #[error("setup: {operation:?} (number {number}) failed with {errno}")]
    Failed { number: usize, operation: Operation, errno: Errno },
    #[error("setup: {0} would wait for ever")]
    Blocked(String),
}

/// A port whose operations execute at once, each with its first outcome.
pub struct Direct<'w, M: Model<Op = Op, Reply = Reply>> {
    model: RefCell<&'w mut M>,
    geometry: &'w Geometry,
    blocked: Cell<Option<&'static str>>,
}

impl<M: Model<Op = Op, Reply = Reply>> Port for &Direct<'_, M> {
    fn call(&self, op: Op) -> Reply {
        let mut model = self.model.borrow_mut();
        if model.outcomes(0, &op) == 0 {
            self.blocked.set(Some(op.name()));
            return Reply::default();
        }
        model.execute(0, &op, 0)
    }
    fn id(&self) -> u8 {
        0
    }
    fn label(&self, _function: &'static str) {}
    fn geometry(&self) -> &Geometry {
        self.geometry
    }
}

/// Run `body` as actor 0, alone.
///
/// # Errors
/// `Blocked` if it had to wait for somebody.
pub fn alone<'w, M: Model<Op = Op, Reply = Reply>, R>(
    model: &'w mut M,
    geometry: &'w Geometry,
    body: impl FnOnce(&OpCpu<&Direct<'w, M>>) -> R,
) -> Result<R, SetupError> {
    let direct = Direct { model: RefCell::new(model), geometry, blocked: Cell::new(None) };
    let result = body(&OpCpu::new(&direct));
    match direct.blocked.get() {
        Some(op) => Err(SetupError::Blocked(op.to_owned())),
        None => Ok(result),
    }
}

/// Run the operations that happened before, one after the other.
///
/// # Errors
/// The first that fails or would wait.
pub fn set_up<M: Model<Op = Op, Reply = Reply>>(
    model: &mut M,
    kernel: &Kernel,
    setup: &[Operation],
) -> Result<(), SetupError> {
    for (number, operation) in setup.iter().enumerate() {
        alone(model, &kernel.geometry, |cpu| operation.run(kernel, cpu))?.map_err(|errno| SetupError::Failed {
            number,
            operation: operation.clone(),
            errno,
        })?;
    }
    Ok(())
}
