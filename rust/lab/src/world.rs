//! The World of operations as a model to explore, and how a kernel gets into it.

use std::ops::{Deref, DerefMut};

use thiserror::Error;
use vmemmap_arch::bbm::FeatBbm;
use vmemmap_arch::{Invariant, LockId, Mode, Tlbi};
use vmemmap_kernel::{Errno, Kernel, Operation, boot};
use vmemmap_machine::explored::{Conflict, Mark, Touch, World, WorldOptions};
use vmemmap_machine::op::{Op, Reply};
use vmemmap_machine::{ConfigError, Ets, MachineConfig, RamRange};

use crate::setup::{SetupError, alone, set_up};
use vmemmap_explore::model::{Access, AccessSet, Described, Held, InvariantSet, Model, NewOrder, NoOps, Violation};

/// The explored machine as the engine's model.
#[derive(Clone, Debug)]
pub struct Explored(pub World);

impl Deref for Explored {
    type Target = World;
    #[inline]
    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Explored {
    #[inline]
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

/// Early loads among the numbers of what begins and ends, beside stores that wait.
const EARLY: u64 = 1 << 32;

/// An access set that the machine fills.
struct Touched<'f>(&'f mut AccessSet);

impl Touch for Touched<'_> {
    #[inline]
    fn read(&mut self, location: u32) {
        self.0.read(location);
    }
    #[inline]
    fn write(&mut self, location: u32) {
        self.0.write(location);
    }
    #[inline]
    fn enabledness_read(&mut self, location: u32) {
        self.0.touch(location, Access::EnablednessRead);
    }
    #[inline]
    fn commuting_update(&mut self, location: u32) {
        self.0.touch(location, Access::CommutingUpdate);
    }
}

impl Model for Explored {
    type Op = Op;
    type Reply = Reply;
    type Mark = Mark;

    fn reset(&mut self) {
        World::reset(self);
    }
    fn over_approximate(&mut self, on: bool) -> bool {
        // Where a longer life of translations would keep a store waiting, an execution would have no like.
        let is = self.options().store_buffer == 0;
        World::over_approximate(self, on && is);
        is
    }
    fn is_over_approximated(&self, actor: u8, op: &Op) -> bool {
        self.options().store_buffer == 0
            && matches!(*op, Op::Tlbi(tlbi) if World::is_over_approximated(self, actor, tlbi))
    }
    fn checkpoint(&mut self) -> Mark {
        World::checkpoint(self)
    }
    fn rollback(&mut self, mark: &Mark) {
        World::rollback(self, mark);
    }
    #[inline]
    fn is_local(op: &Op) -> bool {
        op.is_local()
    }
    #[inline]
    fn outcomes(&mut self, actor: u8, op: &Op) -> u16 {
        World::outcomes(self, actor, op)
    }
    #[inline]
    fn access_set(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        World::access_set(self, actor, op, &mut Touched(out));
        if self.buffers(actor) {
            World::touch_wait(self, actor, op, &mut Touched(out));
        }
    }
    #[inline]
    fn first_for_all(&mut self, actor: u8, op: &Op, out: &mut AccessSet) -> bool {
        let waits = self.buffers(actor) && World::waits_or_not(self, actor, op);
        if waits {
            World::access_set(self, actor, op, &mut Touched(out));
            World::touch_exposed(self, actor, op, &mut Touched(out));
        }
        waits
    }
    fn beyond_first(&mut self, actor: u8, op: &Op, out: &mut AccessSet) {
        World::touch_wait(self, actor, op, &mut Touched(out));
    }
    #[inline]
    fn execute(&mut self, actor: u8, op: &Op, outcome: u16) -> Reply {
        World::execute(self, actor, op, outcome)
    }
    #[inline]
    fn observed(reply: Reply) -> u64 {
        reply.value ^ u64::from(reply.tok).rotate_left(32)
    }
    fn no_ops(&self, op: &Op, n: usize) -> NoOps {
        match *op {
            // The own buffer may have another answer.
            Op::Read { .. } if !World::buffers_are_empty(self) => NoOps::Alike(0),
            Op::Read { at, .. } => NoOps::Reads(World::none_from(self, at, n)),
            Op::Tlbi(Tlbi::Vaale1is(first)) => NoOps::Alike(World::unreached_from(self, first, n)),
            _ => NoOps::Alike(0),
        }
    }
    fn alias(&self, location: u32) -> Option<u32> {
        World::address_key_beside(self, location)
    }
    #[inline]
    fn numbered(&self) -> usize {
        World::numbered(self)
    }
    #[inline]
    fn fingerprint(&self) -> u128 {
        World::fingerprint(self)
    }
    #[inline]
    fn violated(&self) -> InvariantSet {
        World::violated(self)
    }
    fn waits_for(&self, actor: u8, op: &Op) -> u16 {
        World::waits_for(self, actor, op)
    }
    #[inline]
    fn may_never_come(&self, actor: u8, op: &Op) -> bool {
        match op {
            Op::InterruptEnter => World::may_never_come(self, actor),
            Op::Commit => World::has_drained(self, actor),
            // Nobody needs it.
            Op::LoadEarly => true,
            _ => false,
        }
    }
    fn is_interrupted(&self, actor: u8) -> bool {
        World::is_interrupted(self, actor)
    }
    fn held(&self, actor: u8) -> Vec<String> {
        let one = |(lock, mode): (LockId, Mode)| match mode {
            Mode::Read => format!("{} for reading", lock.name()),
            Mode::Write => lock.name().to_owned(),
        };
        World::held(self, actor).map(one).collect()
    }
    fn locks(&self, actor: u8) -> Held {
        let (any, alone) = World::locks(self, actor);
        Held { any, alone }
    }
    fn locks_at(&self, actor: u8, op: &Op) -> Held {
        let (any, alone) = World::locks_at(self, actor, op);
        Held { any, alone }
    }
    #[inline]
    fn new_order(&mut self) -> Option<NewOrder> {
        World::new_order(self).map(|o| NewOrder { actor: o.actor, held: o.held, taken: o.taken })
    }
    fn overflowed(&self) -> bool {
        World::overflowed(self)
    }
    fn violations(&self) -> Vec<Violation> {
        let reported = |v: &vmemmap_machine::explored::Violation| Violation {
            invariant: v.invariant,
            address: v.address,
            actor: v.actor,
            step: v.step,
            message: format!("{}: {}", v.invariant.short(), v.message),
            evidence: (),
        };
        World::violations(self).iter().map(reported).collect()
    }
    fn describe(&self, actor: u8, op: &Op) -> Described {
        let d = World::describe(self, actor, op);
        Described {
            op: d.op.to_owned(),
            place: d.place,
            address: d.address,
            old: d.old,
            new: d.new,
            about: d.about,
            begins: None,
            ends: d.ends.map(|number| EARLY | number),
            instead: d.instead,
            scratch: d.waiting,
        }
    }
    fn alternative(&mut self, actor: u8, op: &Op, outcome: u16) -> String {
        World::alternative(self, actor, op, outcome)
    }
    fn describe_after(&self, actor: u8, op: &Op, reply: Reply, text: &mut Described) {
        if let (waiting, Some(last)) = World::waiting(self, actor)
            && waiting > text.scratch
        {
            text.begins = Some(last);
        }
        match op {
            // What was found is what was there; a read leaves it there.
            Op::Read { .. } | Op::VarLoad { .. } | Op::Load { .. } | Op::LoadFrame { .. } | Op::WaitUntil { .. } => {
                text.old = Some(reply.value)
            }
            Op::Rmw { op, .. } | Op::VarRmw { op, .. } => {
                (text.old, text.new) = (Some(reply.value), Some(op.apply(reply.value)))
            }
            Op::VarAdd { n, .. } => text.new = text.old.map(|old| old.wrapping_add(*n as u64)),
            Op::LoadEarly => {
                text.begins = Some(EARLY | u64::from(reply.tok));
                (text.old, text.address) = (Some(reply.value), World::early_address(self, reply.tok));
            }
            Op::Commit => {
                text.ends = Some(reply.value);
                if let Some((address, new)) = World::committed(self, reply.value) {
                    (text.address, text.new) = (address, Some(new));
                    text.about.extend(address);
                }
            }
            Op::Alloc(_) => {
                text.address = (reply != Reply::NOTHING).then_some(reply.value);
                text.about.extend(text.address);
            }
            // Whether it was taken.
            Op::TryAcquire { .. } => text.new = Some(reply.value),
            Op::CompareExchange { old, .. } if reply.value != old.0 => text.new = Some(reply.value),
            _ => {}
        }
    }
    fn memory_model(&self) -> String {
        let o = self.options();
        let oracle = if o.strict { "strict" } else { "observed" };
        let memory = match o.store_buffer {
            0 => "sequentially consistent memory".to_owned(),
            n => {
                let loads = match self.early_words() {
                    0 => "loads are in order".to_owned(),
                    1 => "loads are in order, but for one word's".to_owned(),
                    n => format!("loads are in order, but for those of {n} words"),
                };
                format!("weak memory (up to {n} plain stores of a CPU wait unordered; {loads})")
            }
        };
        let mut words = format!("{memory}, stale translations per slot, {oracle} oracle");
        let parts = [
            (o.spurious_fault_is_fatal, ", spurious faults fatal"),
            (o.ets == Ets::None, ", without FEAT_ETS2"),
            (o.ets == Ets::Three, ", with FEAT_ETS3"),
            (!o.is_ordered(), ", a store counts from its CPU's DSB on"),
            (o.conflict == Conflict::AtAccess, ", conflicting translations judged at the access too"),
            (o.conflict == Conflict::Amalgamate, ", loads may mix conflicting translations"),
            (o.conflict == Conflict::Abort, ", conflicting translations may abort"),
            (o.iommu, ", an IOMMU beyond the TLBI broadcast"),
        ];
        words.extend(parts.into_iter().filter(|(holds, _)| *holds).map(|(_, text)| text));
        if o.feat_bbm.iter().any(|level| *level != FeatBbm::Level0) {
            let levels: Vec<_> = o.feat_bbm.iter().map(|level| level.name()).collect();
            words += &format!(", FEAT_BBM {}", levels.join("/"));
        }
        if !o.asids.is_empty() {
            words += &format!(", ASIDs {:?}", o.asids);
        }
        words
    }
    fn visible(&self) -> InvariantSet {
        let torn = InvariantSet::only(Invariant::SingleCopyAtomic);
        let hidden = match self.options().store_buffer {
            0 => torn.or(InvariantSet::only(Invariant::ContentBeforePte)),
            _ => torn,
        };
        InvariantSet::ALL.minus(hidden)
    }
}

/// Most boot memory of an explored machine, in bytes. Its struct pages are mapped one by one, and a document from
/// elsewhere is not to take this host's memory.
pub const MAX_BOOT: u64 = 64 << 30;

/// Most bytes from the first to the last of its memory: a kernel has variables for each section and hugepage.
pub const MAX_SPAN: u64 = 2 << 40;

/// Why a machine cannot be explored.
#[derive(Debug, Error)]
pub enum WorldError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "RAM: {boot} bytes from boot, {span} bytes from its first to its last: an explored machine has at most \
         {MAX_BOOT} and {MAX_SPAN}, each of whose descriptors it keeps a history of"
    )]
    Large { boot: u64, span: u64 },
    #[error("boot: {0}")]
    Boot(Errno),
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// An empty machine for this kernel and so many actors.
///
/// # Errors
/// `Config`, `Large`.
pub fn empty(kernel: &Kernel, actors: u8, options: WorldOptions) -> Result<Explored, WorldError> {
    let boot = kernel.ram().iter().filter(|r| r.boot).fold(0, |sum: u64, r| sum.saturating_add(r.bytes));
    let span = kernel.vars.limit.since(kernel.vars.base);
    if boot > MAX_BOOT || span > MAX_SPAN {
        return Err(WorldError::Large { boot, span });
    }
    let ram = kernel.ram().iter().map(|r| RamRange { start: r.start, bytes: r.bytes, boot: r.boot }).collect();
    let config = MachineConfig {
        geometry: kernel.geometry,
        ram,
        cpus: actors.max(1),
        vars: kernel.vars.count(),
        root: None,
        seed: 0,
    };
    Ok(Explored(World::new(&config, options)?))
}

/// A machine as it is when user space starts, on which `setup` has happened; marked, ready to be explored.
///
/// # Errors
/// `Config`, `Large`, `Boot` if memory is too small for its own struct pages, `Setup` if an operation of the setup
/// fails.
pub fn booted(kernel: &Kernel, actors: u8, options: WorldOptions, setup: &[Operation]) -> Result<Explored, WorldError> {
    let mut world = empty(kernel, actors, options)?;
    alone(&mut world, &kernel.geometry, |cpu| boot::boot(kernel, cpu))?.map_err(WorldError::Boot)?;
    world.seal_boot();
    set_up(&mut world, kernel, setup)?;
    world.mark();
    Ok(world)
}
