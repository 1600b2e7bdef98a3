//! A litmus test, as it was read.

use vmemmap_machine::config::Ets;
use vmemmap_machine::views::{FaultKind, Orders};

use crate::places::Variables;

/// Number of a register; 31 is the zero register.
pub type Number = u8;
pub const ZERO: Number = 31;

/// A register as an instruction names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    pub number: Number,
    /// `Wn`: its lower half.
    pub half: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    Register(Register, Shift),
    Immediate(u64),
}

/// Of a second operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shift {
    #[default]
    None,
    Left(u8),
    Right(u8),
    SignExtendHalf,
    ZeroExtendHalf,
}

/// `[Xn]`, `[Xn,#imm]`, `[Xn,Xm]`, `[Xn,Wm,SXTW]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub base: Register,
    pub offset: Operand,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alu {
    Add,
    Sub,
    And,
    Or,
    Xor,
    AndNot,
    OrNot,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
}

/// What an atomic makes of the word and its operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Swap,
    Add,
    Clear,
    Set,
    Xor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Eq,
    Ne,
    Cs,
    Cc,
    Mi,
    Pl,
    Vs,
    Vc,
    Hi,
    Ls,
    Ge,
    Lt,
    Gt,
    Le,
    Al,
}

/// When a branch is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    Always,
    Flags(Condition),
    Zero(Register),
    NotZero(Register),
    BitClear(Register, u8),
    BitSet(Register, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Plain,
    /// LDAPR.
    AcquirePc,
    Acquire,
}

/// The second result of a selection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Otherwise {
    Same,
    Increment,
    Invert,
    Negate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalidate {
    /// Of the page whose number the register has; otherwise of all.
    pub page: Option<Register>,
    pub broadcast: bool,
    pub last_level: bool,
    pub all_asids: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    Nop,
    Compute { to: Register, op: Alu, a: Register, b: Operand, flags: bool },
    Select { to: Register, a: Register, b: Register, otherwise: Otherwise, condition: Condition },
    Load { to: Register, at: Address, order: Order, exclusive: bool },
    Store { from: Register, at: Address, release: bool },
    StoreExclusive { status: Register, from: Register, at: Address, release: bool },
    Atomic { to: Register, change: Change, with: Register, at: Address, acquire: bool, release: bool },
    CompareAndSwap { expected: Register, new: Register, at: Address, acquire: bool, release: bool },
    Branch { when: When, target: usize },
    Dmb(Orders),
    Dsb(Orders),
    Isb,
    Tlbi(Invalidate),
}

/// A label stands before the instruction of that number.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    pub code: Vec<Instruction>,
    pub labels: Vec<(String, usize)>,
    pub registers: [u64; 32],
}

impl Thread {
    pub fn labels_at(&self, at: usize) -> impl Iterator<Item = &str> {
        self.labels.iter().filter(move |(_, n)| *n == at).map(|(label, _)| label.as_str())
    }
}

/// What an access that faults does then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFault {
    /// The thread ends.
    #[default]
    Fatal,
    /// The access is made again; if it faults again the thread ends (herd: `handled`, `imprecise`).
    Again,
    /// The next instruction (herd: `faulttonext`, `skip`).
    Skip,
}

/// Where a final value is looked at. The order is that of herd's lines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    Register(u8, Number),
    Word(u16),
    Entry(u16),
}

/// A fault that the test looks for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultAtom {
    pub thread: u8,
    pub label: Option<String>,
    pub variable: Option<u16>,
    pub kind: Option<FaultKind>,
    /// The kind as it was written.
    pub written: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposition {
    True,
    False,
    Equal(Place, u64),
    Same(Place, Place),
    Fault(FaultAtom),
    Not(Box<Proposition>),
    And(Vec<Proposition>),
    Or(Vec<Proposition>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Quantifier {
    #[default]
    Exists,
    NotExists,
    Forall,
}

#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    /// `key=value` of the header.
    pub info: Vec<(String, String)>,
    pub ets: Option<Ets>,
    pub on_fault: OnFault,
    pub variables: Variables,
    /// Of the frames, then of the descriptors.
    pub words: Vec<u64>,
    pub threads: Vec<Thread>,
    pub shown: Vec<Place>,
    pub faults: Vec<FaultAtom>,
    pub filter: Option<Proposition>,
    pub quantifier: Quantifier,
    pub condition: Proposition,
}
