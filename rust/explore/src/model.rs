//! What the search asks of the thing it explores: one pending operation of each actor; ask who may go, execute, undo.
//!
//! The explored machine of a kernel laboratory is one such thing; the toy of the soundness tests is another, small
//! enough that the naive search can check every reduction on it.

use std::fmt::Debug;
use std::ops::Range;

pub use vmemmap_arch::InvariantSet;
use vmemmap_arch::{Invariant, LockId};

/// Most actors of one scenario (sets of actors are bits of a `u16`).
pub const MAX_ACTORS: usize = 16;

/// Locations that an operation reads and writes (docs/search.md §1): dense numbers given by the model.
///
/// Two operations conflict if both touch a location, one of them changes it, and their changes are not both commuting
/// updates. The filters decide most pairs at once.
#[derive(Clone, Default, Debug)]
pub struct AccessSet {
    /// `location << 2 | access`.
    touched: Vec<u64>,
    filter: u64,
    change_filter: u64,
}

/// How an operation touches a location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Access {
    Read,
    Write,
    /// A read that commutes with removals: it asks whether the actor may run at all, or reads a relation that is empty
    /// and that nobody ends before somebody has begun it by changing another location that the operation reads. It
    /// makes the changes scheduling points, but need not be one itself (`Inner::touch` has the proof).
    EnablednessRead,
    /// A commuting update: it changes the location in a way that commutes with all other such updates.
    CommutingUpdate,
}

impl Access {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::EnablednessRead, Self::CommutingUpdate];

    const fn conflicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Write, _) | (_, Self::Write) => true,
            (Self::CommutingUpdate, other) | (other, Self::CommutingUpdate) => !matches!(other, Self::CommutingUpdate),
            _ => false,
        }
    }
}

impl AccessSet {
    #[inline]
    pub fn clear(&mut self) {
        self.touched.clear();
        self.filter = 0;
        self.change_filter = 0;
    }
    #[inline]
    pub fn touch(&mut self, location: u32, access: Access) {
        self.touched.push(u64::from(location) << 2 | access as u64);
        self.filter |= bit(location);
        if matches!(access, Access::Write | Access::CommutingUpdate) {
            self.change_filter |= bit(location);
        }
    }
    #[inline]
    pub fn read(&mut self, location: u32) {
        self.touch(location, Access::Read);
    }
    #[inline]
    pub fn write(&mut self, location: u32) {
        self.touch(location, Access::Write);
    }
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Touched> + '_ {
        self.touched.iter().map(|t| Touched { location: (t >> 2) as u32, access: Access::ALL[(t & 3) as usize] })
    }
    #[must_use]
    pub fn conflicts(&self, other: &AccessSet) -> bool {
        if self.change_filter & other.filter == 0 && other.change_filter & self.filter == 0 {
            return false;
        }
        self.iter().any(|a| other.iter().any(|b| a.location == b.location && a.access.conflicts(b.access)))
    }
}

/// Locks that an actor holds, by number: all, and those that nobody else may hold beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    pub any: u64,
    pub alone: u64,
}

impl Held {
    pub(crate) const ALL: Self = Self { any: u64::MAX, alone: u64::MAX };

    pub(crate) const fn and(self, other: Self) -> Self {
        Self { any: self.any & other.any, alone: self.alone & other.alone }
    }
    /// Whether nobody can hold `other` meanwhile.
    pub(crate) const fn excludes(self, other: Self) -> bool {
        self.alone & other.any != 0 || self.any & other.alone != 0
    }
}

/// One access of an access set; a location may come more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touched {
    pub location: u32,
    pub access: Access,
}

#[inline]
const fn bit(location: u32) -> u64 {
    1 << (location.wrapping_mul(0x9e37_79b9) >> 26)
}

/// Text of one executed operation, for traces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Described {
    /// Stable name: `write`, `tlbi vaale1is`, `lock`.
    pub op: String,
    /// Symbolic place, the same in every run: `pte[3] of table 0x…`, `mem_hotplug_lock`.
    pub place: String,
    pub address: Option<u64>,
    pub old: Option<u64>,
    pub new: Option<u64>,
    /// Frames that it is about, by address, the most telling first: the table or frame that it works on, then those
    /// that the words in it lead to.
    pub about: Vec<u64>,
    /// The operation begins something that takes effect in a later step, or ends what an earlier one began, by number:
    /// a store that waits, a load that is made early.
    pub begins: Option<u64>,
    pub ends: Option<u64>,
    /// Of an old value: where, and the word that would be found now.
    pub instead: Option<(u64, u64)>,
    /// For the model's own use between `describe` and `describe_after`.
    pub scratch: usize,
}

/// A violated invariant as the model reports it, by actor number.
pub type Violation = vmemmap_arch::Violation<u8, String>;

/// A run of operations that do nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoOps {
    /// Each reads one of these locations, in the place of what the first of them reads.
    Reads(Range<u32>),
    /// So many, with the same access set.
    Alike(usize),
}

/// A lock that was taken under another for the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewOrder {
    pub actor: u8,
    pub held: LockId,
    pub taken: LockId,
}

/// The machine under exploration.
pub trait Model {
    type Op: Copy + Eq + Debug;
    /// What an operation gives back.
    type Reply: Copy;
    /// A state to go back to.
    type Mark;

    /// Back to the state in which the search began.
    fn reset(&mut self);
    /// From now on: a model with fewer conflicts, in which each execution of this one has its like (the same schedule,
    /// the same replies) that violates as much, or more. `false`: there is none. Called after a `reset`, or where an
    /// execution is not gone back behind.
    fn over_approximate(&mut self, _on: bool) -> bool {
        false
    }
    /// Whether the operation conflicts with fewer others where this model is over-approximated.
    fn is_over_approximated(&self, _actor: u8, _op: &Self::Op) -> bool {
        false
    }
    /// The state now, to go back to while it is an ancestor: no `rollback` to an earlier mark, and no `reset`, came
    /// between.
    fn checkpoint(&mut self) -> Self::Mark;
    /// Back to the state of `mark`, which may be gone back to again.
    fn rollback(&mut self, mark: &Self::Mark);
    /// Never a scheduling point: independent of all other operations, whenever it executes.
    fn is_local(op: &Self::Op) -> bool;
    /// In how many ways the operation can go now; 0 = blocked.
    fn outcomes(&mut self, actor: u8, op: &Self::Op) -> u16;
    /// Adds what the operation would touch if it executed now.
    fn access_set(&mut self, actor: u8, op: &Self::Op, out: &mut AccessSet);
    /// Of an operation whose outcomes nobody can tell apart who does not conflict with the first of them (a store that
    /// happens now, or waits): adds what that one touches. `false`: it is none such, and nothing is added.
    fn first_for_all(&mut self, _actor: u8, _op: &Self::Op, _out: &mut AccessSet) -> bool {
        false
    }
    /// After `first_for_all`: adds what the other outcomes touch, so that the set is that of `access_set`.
    fn beyond_first(&mut self, _actor: u8, _op: &Self::Op, _out: &mut AccessSet) {}
    /// # Panics
    /// May panic if `outcome` is not below `outcomes` of this moment.
    fn execute(&mut self, actor: u8, op: &Self::Op, outcome: u16) -> Self::Reply;
    /// What the actor observes of a reply: all that its future may depend on.
    fn observed(reply: Self::Reply) -> u64;
    /// Of a run of `n` operations, the first of which is `op`, those up to the first that would find or reach something
    /// now. What comes before that changes nothing, has one outcome and replies 0.
    fn no_ops(&self, _op: &Self::Op, _n: usize) -> NoOps {
        NoOps::Alike(0)
    }
    /// A location that is touched wherever this one is, or nearly so: what is learned of one may be expected of the
    /// other.
    fn alias(&self, _location: u32) -> Option<u32> {
        None
    }
    /// How much has been numbered when it was first met: what locations and fingerprints are made of. Copies of a model
    /// agree in both for as long as none of them numbers more.
    fn numbered(&self) -> usize {
        0
    }
    /// Hash of everything that later operations can depend on.
    fn fingerprint(&self) -> u128;
    /// Invariants broken since `reset`.
    fn violated(&self) -> InvariantSet;
    /// Actors that this blocked actor waits for, each of which it needs (bits).
    fn waits_for(&self, actor: u8, op: &Self::Op) -> u16;
    /// An operation that may never come (an interrupt's entry): while it cannot, its actor counts neither as blocked
    /// nor as unfinished. Its coming last, when all others are done, stands for its never coming.
    fn may_never_come(&self, _actor: u8, _op: &Self::Op) -> bool {
        false
    }
    /// For the text of a deadlock: what keeps the actor from going on is an interrupt on its CPU.
    fn is_interrupted(&self, _actor: u8) -> bool {
        false
    }
    /// For the text of a deadlock: the locks that the actor holds.
    fn held(&self, _actor: u8) -> Vec<String> {
        Vec::new()
    }
    /// Locks that the actor holds. While it holds one `alone`, no other actor can come to hold it in any way; while it
    /// holds one, no other actor can come to hold it `alone`. It gives back by an operation of its own only.
    fn locks(&self, _actor: u8) -> Held {
        Held::default()
    }
    /// `locks`, and the lock that the operation waits for, if it is one that takes a lock and cannot execute before:
    /// what nobody else can hold, in a way that excludes it, in any state in which the operation executes.
    fn locks_at(&self, actor: u8, _op: &Self::Op) -> Held {
        self.locks(actor)
    }
    /// A lock was taken under another for the first time in this exploration (R17), and nobody has asked for it yet.
    fn new_order(&mut self) -> Option<NewOrder> {
        None
    }
    /// Called once when all actors are done, for what must hold at rest; of locations that only one actor touched
    /// nothing may be asked (its last work may have been left out).
    fn at_rest(&mut self) {}
    /// A bound of the model was exceeded since `reset`: nothing found absent is proven absent.
    fn overflowed(&self) -> bool {
        false
    }
    /// Which invariants this machine can see violated at all. I22 and I23 need weak memory and torn accesses.
    fn visible(&self) -> InvariantSet {
        InvariantSet::ALL.minus(InvariantSet::of(&[Invariant::ContentBeforePte, Invariant::SingleCopyAtomic]))
    }
    /// For the scope of a verdict.
    fn memory_model(&self) -> String {
        String::from("sequentially consistent memory")
    }
    /// Details of what was broken since `reset`, in order.
    fn violations(&self) -> Vec<Violation>;
    /// What the operation is; `old` as of now (called before `execute`), `new` filled by `described_after`.
    fn describe(&self, actor: u8, op: &Self::Op) -> Described;
    /// What makes this outcome (below `outcomes`) another than the first, in words that are the same in every run.
    fn alternative(&mut self, _actor: u8, _op: &Self::Op, outcome: u16) -> String {
        format!("alternative {outcome}")
    }
    fn describe_after(&self, actor: u8, op: &Self::Op, reply: Self::Reply, text: &mut Described);
}
