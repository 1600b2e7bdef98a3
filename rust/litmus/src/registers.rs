//! What an instruction does between registers, and what its results depend on.

use vmemmap_machine::views::Time;

use crate::test::{Address, Alu, Change, Condition, Operand, Otherwise, Register, Shift, When, ZERO};

/// A value, the view that it depends on, and the one that selected it: CSEL and CSET order later stores only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Value {
    pub word: u64,
    pub view: Time,
    pub pick: Time,
}

impl Value {
    #[must_use]
    pub const fn of(word: u64, view: Time) -> Self {
        Self { word, view, pick: 0 }
    }
    fn with(self, other: Self, word: u64) -> Self {
        Self { word, view: self.view.max(other.view), pick: self.pick.max(other.pick) }
    }
    /// Of both: what a store or a branch waits for.
    #[must_use]
    pub fn all(self) -> Time {
        self.view.max(self.pick)
    }
}

/// N, Z, C and V.
const N: u64 = 8;
const Z: u64 = 4;
const C: u64 = 2;
const V: u64 = 1;

/// The registers of a thread; the flags are one more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Registers {
    values: [Value; 32],
    flags: Value,
}

const fn cut(word: u64, half: bool) -> u64 {
    if half { word & 0xffff_ffff } else { word }
}

impl Registers {
    #[must_use]
    pub fn new(initial: &[u64; 32]) -> Self {
        Self { values: initial.map(|word| Value::of(word, 0)), flags: Value::default() }
    }
    #[must_use]
    pub fn get(&self, r: Register) -> Value {
        if r.number == ZERO {
            return Value::default();
        }
        let value = self.values[usize::from(r.number)];
        Value { word: cut(value.word, r.half), ..value }
    }
    pub fn set(&mut self, r: Register, value: Value) {
        if r.number != ZERO {
            self.values[usize::from(r.number)] = Value { word: cut(value.word, r.half), ..value };
        }
    }
    fn operand(&self, operand: Operand) -> Value {
        match operand {
            Operand::Immediate(n) => Value::of(n, 0),
            Operand::Register(r, shift) => {
                let value = self.get(r);
                let word = match shift {
                    Shift::None => value.word,
                    Shift::Left(n) => value.word << n,
                    Shift::Right(n) => value.word >> n,
                    Shift::SignExtendHalf => i64::from(value.word as i32) as u64,
                    Shift::ZeroExtendHalf => cut(value.word, true),
                };
                Value { word, ..value }
            }
        }
    }
    #[must_use]
    pub fn address(&self, at: Address) -> Value {
        let (base, offset) = (self.get(at.base), self.operand(at.offset));
        base.with(offset, base.word.wrapping_add(offset.word))
    }

    pub fn compute(&mut self, to: Register, op: Alu, a: Register, b: Operand, flags: bool) {
        let (a, b) = (self.get(a), self.operand(b));
        let (x, y) = (cut(a.word, to.half), cut(b.word, to.half));
        let bits = if to.half { 32 } else { 64 };
        let word = match op {
            Alu::Add => x.wrapping_add(y),
            Alu::Sub => x.wrapping_sub(y),
            Alu::And => x & y,
            Alu::Or => x | y,
            Alu::Xor => x ^ y,
            Alu::AndNot => x & !y,
            Alu::OrNot => x | !y,
            Alu::ShiftLeft => x << (y % bits),
            Alu::ShiftRight => x >> (y % bits),
            Alu::ShiftRightSigned if to.half => (x as i32 >> (y % bits)) as u64,
            Alu::ShiftRightSigned => (x as i64 >> (y % bits)) as u64,
        };
        let word = cut(word, to.half);
        let value = a.with(b, word);
        if flags {
            let sign = 1 << (bits - 1);
            let (carry, overflow) = match op {
                Alu::Add => (word < x, (x ^ word) & (y ^ word) & sign != 0),
                Alu::Sub => (x >= y, (x ^ y) & (x ^ word) & sign != 0),
                _ => (false, false),
            };
            let bit = |flag, on| if on { flag } else { 0 };
            let nzcv = bit(N, word & sign != 0) | bit(Z, word == 0) | bit(C, carry) | bit(V, overflow);
            self.flags = Value { word: nzcv, ..value };
        }
        self.set(to, value);
    }

    fn condition(&self, condition: Condition) -> bool {
        let has = |flag| self.flags.word & flag != 0;
        match condition {
            Condition::Eq => has(Z),
            Condition::Ne => !has(Z),
            Condition::Cs => has(C),
            Condition::Cc => !has(C),
            Condition::Mi => has(N),
            Condition::Pl => !has(N),
            Condition::Vs => has(V),
            Condition::Vc => !has(V),
            Condition::Hi => has(C) && !has(Z),
            Condition::Ls => !has(C) || has(Z),
            Condition::Ge => has(N) == has(V),
            Condition::Lt => has(N) != has(V),
            Condition::Gt => !has(Z) && has(N) == has(V),
            Condition::Le => has(Z) || has(N) != has(V),
            Condition::Al => true,
        }
    }

    pub fn select(&mut self, to: Register, a: Register, b: Register, otherwise: Otherwise, condition: Condition) {
        let chosen = if self.condition(condition) {
            self.get(a)
        } else {
            let value = self.get(b);
            let word = match otherwise {
                Otherwise::Same => value.word,
                Otherwise::Increment => value.word.wrapping_add(1),
                Otherwise::Invert => !value.word,
                Otherwise::Negate => value.word.wrapping_neg(),
            };
            Value { word, ..value }
        };
        self.set(to, Value { pick: chosen.pick.max(self.flags.all()), ..chosen });
    }

    /// Whether the branch is taken, and the view that this depends on.
    #[must_use]
    pub fn taken(&self, when: When) -> (bool, Time) {
        let bit = |r: Register, n: u8| (self.get(r).word >> n & 1 != 0, self.get(r).all());
        match when {
            When::Always => (true, 0),
            When::Flags(condition) => (self.condition(condition), self.flags.all()),
            When::Zero(r) => (self.get(r).word == 0, self.get(r).all()),
            When::NotZero(r) => (self.get(r).word != 0, self.get(r).all()),
            When::BitSet(r, n) => bit(r, n),
            When::BitClear(r, n) => (!bit(r, n).0, bit(r, n).1),
        }
    }
}

impl Change {
    /// The word after the operation.
    #[must_use]
    pub const fn apply(self, old: u64, with: u64) -> u64 {
        match self {
            Self::Swap => with,
            Self::Add => old.wrapping_add(with),
            Self::Clear => old & !with,
            Self::Set => old | with,
            Self::Xor => old ^ with,
        }
    }
}
