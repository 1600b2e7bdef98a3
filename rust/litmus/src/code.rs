//! Instructions: the core of AArch64 that translation tests use.

use vmemmap_machine::views::Orders;

use crate::Refusal;
use crate::lex::{Cursor, Token, number, tokens};
use crate::test::{
    Address, Alu, Change, Condition, Instruction, Invalidate, Operand, Order, Otherwise, Register, Shift, Thread, When,
    ZERO,
};

/// Most instructions of a thread. Loops count once; each instruction may take a frame of the searches' stack.
const MAX_INSTRUCTIONS: usize = 1000;

/// A column of the test: cells of one thread from the top, each with its line.
///
/// # Errors
/// The first thing that is not read.
pub fn thread(cells: &[(String, usize)]) -> Result<Thread, Refusal> {
    let mut thread = Thread::default();
    let mut targets = Vec::new();
    for (cell, line) in cells {
        let words = tokens(cell, *line);
        let mut cursor = Cursor::new(&words, *line);
        while cursor.peek_after(1) == Some(":") {
            let label = cursor.next().unwrap_or_default();
            cursor.next();
            thread.labels.push((label.to_owned(), thread.code.len()));
        }
        if cursor.is_done() {
            continue;
        }
        if thread.code.len() >= MAX_INSTRUCTIONS {
            return Err(cursor.refuse(&format!("a thread has at most {MAX_INSTRUCTIONS} instructions, so not also")));
        }
        let (instruction, target) = Reader { cursor: &mut cursor, words: &words }.instruction()?;
        if !cursor.is_done() {
            return Err(cursor.refuse("an instruction was to end before"));
        }
        if let Some(label) = target {
            targets.push((thread.code.len(), label, *line));
        }
        thread.code.push(instruction);
    }
    for (at, label, line) in targets {
        let Some((_, to)) = thread.labels.iter().find(|(l, _)| *l == label) else {
            return Err(Refusal::new(line, &format!("a branch to the label `{label}`, which is not there")));
        };
        let to = *to;
        if let Instruction::Branch { target, .. } = &mut thread.code[at] {
            *target = to;
        }
    }
    Ok(thread)
}

/// `Xn`, `Wn`, `XZR`, `WZR`.
pub fn register(text: &str) -> Option<Register> {
    let text = text.to_ascii_uppercase();
    let half = match text.chars().next()? {
        'X' => false,
        'W' => true,
        _ => return None,
    };
    let number = match &text[1..] {
        "ZR" => ZERO,
        n if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => n.parse().ok().filter(|n| *n < ZERO)?,
        _ => return None,
    };
    Some(Register { number, half })
}

fn condition(text: &str) -> Option<Condition> {
    Some(match text.to_ascii_uppercase().as_str() {
        "EQ" => Condition::Eq,
        "NE" => Condition::Ne,
        "CS" | "HS" => Condition::Cs,
        "CC" | "LO" => Condition::Cc,
        "MI" => Condition::Mi,
        "PL" => Condition::Pl,
        "VS" => Condition::Vs,
        "VC" => Condition::Vc,
        "HI" => Condition::Hi,
        "LS" => Condition::Ls,
        "GE" => Condition::Ge,
        "LT" => Condition::Lt,
        "GT" => Condition::Gt,
        "LE" => Condition::Le,
        "AL" => Condition::Al,
        _ => return None,
    })
}

impl Condition {
    const fn inverted(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Cs => Self::Cc,
            Self::Cc => Self::Cs,
            Self::Mi => Self::Pl,
            Self::Pl => Self::Mi,
            Self::Vs => Self::Vc,
            Self::Vc => Self::Vs,
            Self::Hi => Self::Ls,
            Self::Ls => Self::Hi,
            Self::Ge => Self::Lt,
            Self::Lt => Self::Ge,
            Self::Gt => Self::Le,
            Self::Le => Self::Gt,
            Self::Al => Self::Al,
        }
    }
}

struct Reader<'a, 'b> {
    cursor: &'b mut Cursor<'a>,
    words: &'a [Token],
}

const ZR: Register = Register { number: ZERO, half: false };

impl Reader<'_, '_> {
    fn register(&mut self) -> Result<Register, Refusal> {
        match self.cursor.peek().and_then(register) {
            Some(r) => {
                self.cursor.next();
                Ok(r)
            }
            None => Err(self.cursor.refuse("a register was expected, not")),
        }
    }
    fn comma(&mut self) -> Result<(), Refusal> {
        self.cursor.expect(",")
    }
    fn immediate(&mut self) -> Result<u64, Refusal> {
        self.cursor.accept("#");
        number(self.cursor)
    }
    fn operand(&mut self) -> Result<Operand, Refusal> {
        if self.cursor.peek().and_then(register).is_none() {
            let value = self.immediate()?;
            if self.cursor.accept(",") {
                self.cursor.expect("LSL")?;
                return Ok(Operand::Immediate(value << (self.immediate()? & 63)));
            }
            return Ok(Operand::Immediate(value));
        }
        let r = self.register()?;
        let shift = if self.cursor.accept(",") { self.shift()? } else { Shift::None };
        Ok(Operand::Register(r, shift))
    }
    fn shift(&mut self) -> Result<Shift, Refusal> {
        let name = self.cursor.peek().unwrap_or_default().to_ascii_uppercase();
        match name.as_str() {
            "LSL" | "LSR" => {
                self.cursor.next();
                let n = (self.immediate()? & 63) as u8;
                Ok(if name == "LSL" { Shift::Left(n) } else { Shift::Right(n) })
            }
            "SXTW" | "UXTW" => {
                self.cursor.next();
                if self.cursor.peek() == Some("#") && self.immediate()? != 0 {
                    return Err(self.cursor.refuse("an extended register is shifted before"));
                }
                Ok(if name == "SXTW" { Shift::SignExtendHalf } else { Shift::ZeroExtendHalf })
            }
            _ => Err(self.cursor.refuse("a shift was expected, not")),
        }
    }
    fn address(&mut self) -> Result<Address, Refusal> {
        self.cursor.expect("[")?;
        let base = self.register()?;
        let offset = if self.cursor.accept(",") { self.operand()? } else { Operand::Immediate(0) };
        self.cursor.expect("]")?;
        if self.cursor.peek() == Some("!") || self.cursor.peek() == Some(",") {
            return Err(self.cursor.refuse("an address that is written back:"));
        }
        Ok(Address { base, offset })
    }

    fn instruction(mut self) -> Result<(Instruction, Option<String>), Refusal> {
        let line = self.cursor.line();
        let name = self.cursor.next().unwrap_or_default().to_ascii_uppercase();
        let plain = |i| Ok((i, None));
        if let Some(op) = self.compute(&name)? {
            return plain(op);
        }
        if let Some(op) = self.access(&name)? {
            return plain(op);
        }
        if let Some(op) = self.branch(&name)? {
            return Ok(op);
        }
        let op = match name.as_str() {
            "NOP" => Instruction::Nop,
            "ISB" => {
                self.cursor.accept("SY");
                Instruction::Isb
            }
            "DMB" => Instruction::Dmb(self.orders()?),
            "DSB" => Instruction::Dsb(self.orders()?),
            "TLBI" => self.tlbi()?,
            _ => {
                let text: Vec<&str> = self.words.iter().map(|t| t.text.as_str()).collect();
                return Err(Refusal::new(line, &format!("the instruction `{}` is none of the core", text.join(" "))));
            }
        };
        plain(op)
    }

    fn orders(&mut self) -> Result<Orders, Refusal> {
        let orders = match self.cursor.peek().unwrap_or_default().to_ascii_uppercase().as_str() {
            "SY" | "ISH" | "OSH" | "NSH" => Orders::All,
            "LD" | "ISHLD" | "OSHLD" | "NSHLD" => Orders::Loads,
            "ST" | "ISHST" | "OSHST" | "NSHST" => Orders::Stores,
            _ => return Err(self.cursor.refuse("a barrier of SY, ISH, LD, ISHLD, ST, ISHST was expected, not")),
        };
        self.cursor.next();
        Ok(orders)
    }

    fn tlbi(&mut self) -> Result<Instruction, Refusal> {
        let name = self.cursor.peek().unwrap_or_default().to_ascii_uppercase();
        let broadcast = name.ends_with("IS");
        let stem = name.strip_suffix("IS").unwrap_or(&name);
        let (by_page, last_level, all_asids) = match stem {
            "VMALLE1" => (false, false, true),
            "VAE1" => (true, false, false),
            "VAAE1" => (true, false, true),
            "VALE1" => (true, true, false),
            "VAALE1" => (true, true, true),
            _ => return Err(self.cursor.refuse("TLBI of a kind that is none of the core:")),
        };
        self.cursor.next();
        let page = if by_page {
            self.comma()?;
            Some(self.register()?)
        } else {
            None
        };
        Ok(Instruction::Tlbi(Invalidate { page, broadcast, last_level, all_asids }))
    }

    fn compute(&mut self, name: &str) -> Result<Option<Instruction>, Refusal> {
        let (op, flags) = match name {
            "MOV" | "MOVZ" => {
                let to = self.register()?;
                self.comma()?;
                let b = self.operand()?;
                return Ok(Some(Instruction::Compute { to, op: Alu::Or, a: ZR, b, flags: false }));
            }
            "MVN" | "NEG" => {
                let to = self.register()?;
                self.comma()?;
                let b = self.operand()?;
                let op = if name == "MVN" { Alu::OrNot } else { Alu::Sub };
                return Ok(Some(Instruction::Compute { to, op, a: ZR, b, flags: false }));
            }
            "CMP" | "CMN" | "TST" => {
                let a = self.register()?;
                self.comma()?;
                let b = self.operand()?;
                let op = match name {
                    "CMP" => Alu::Sub,
                    "CMN" => Alu::Add,
                    _ => Alu::And,
                };
                let to = Register { number: ZERO, half: a.half };
                return Ok(Some(Instruction::Compute { to, op, a, b, flags: true }));
            }
            "CSEL" | "CSINC" | "CSINV" | "CSNEG" => {
                let to = self.register()?;
                self.comma()?;
                let a = self.register()?;
                self.comma()?;
                let b = self.register()?;
                self.comma()?;
                let condition = self.condition()?;
                let otherwise = match name {
                    "CSEL" => Otherwise::Same,
                    "CSINC" => Otherwise::Increment,
                    "CSINV" => Otherwise::Invert,
                    _ => Otherwise::Negate,
                };
                return Ok(Some(Instruction::Select { to, a, b, otherwise, condition }));
            }
            "CSET" | "CSETM" => {
                let to = self.register()?;
                self.comma()?;
                let condition = self.condition()?.inverted();
                let otherwise = if name == "CSET" { Otherwise::Increment } else { Otherwise::Invert };
                return Ok(Some(Instruction::Select { to, a: ZR, b: ZR, otherwise, condition }));
            }
            "CINC" => {
                let to = self.register()?;
                self.comma()?;
                let a = self.register()?;
                self.comma()?;
                let condition = self.condition()?.inverted();
                return Ok(Some(Instruction::Select { to, a, b: a, otherwise: Otherwise::Increment, condition }));
            }
            "ADD" => (Alu::Add, false),
            "ADDS" => (Alu::Add, true),
            "SUB" => (Alu::Sub, false),
            "SUBS" => (Alu::Sub, true),
            "AND" => (Alu::And, false),
            "ANDS" => (Alu::And, true),
            "ORR" => (Alu::Or, false),
            "EOR" => (Alu::Xor, false),
            "BIC" => (Alu::AndNot, false),
            "BICS" => (Alu::AndNot, true),
            "ORN" => (Alu::OrNot, false),
            "LSL" => (Alu::ShiftLeft, false),
            "LSR" => (Alu::ShiftRight, false),
            "ASR" => (Alu::ShiftRightSigned, false),
            _ => return Ok(None),
        };
        let to = self.register()?;
        self.comma()?;
        let a = self.register()?;
        self.comma()?;
        let b = self.operand()?;
        Ok(Some(Instruction::Compute { to, op, a, b, flags }))
    }

    fn condition(&mut self) -> Result<Condition, Refusal> {
        let found = self.cursor.peek().and_then(condition);
        let found = found.ok_or_else(|| self.cursor.refuse("a condition was expected, not"))?;
        self.cursor.next();
        Ok(found)
    }

    fn access(&mut self, name: &str) -> Result<Option<Instruction>, Refusal> {
        let load = |order, exclusive| (order, exclusive);
        let loads = match name {
            "LDR" | "LDUR" => Some(load(Order::Plain, false)),
            "LDAPR" => Some(load(Order::AcquirePc, false)),
            "LDAR" => Some(load(Order::Acquire, false)),
            "LDXR" => Some(load(Order::Plain, true)),
            "LDAXR" => Some(load(Order::Acquire, true)),
            _ => None,
        };
        if let Some((order, exclusive)) = loads {
            let to = self.register()?;
            self.comma()?;
            let at = self.address()?;
            return Ok(Some(Instruction::Load { to, at, order, exclusive }));
        }
        match name {
            "STR" | "STUR" | "STLR" => {
                let from = self.register()?;
                self.comma()?;
                let at = self.address()?;
                return Ok(Some(Instruction::Store { from, at, release: name == "STLR" }));
            }
            "STXR" | "STLXR" => {
                let status = self.register()?;
                self.comma()?;
                let from = self.register()?;
                self.comma()?;
                let at = self.address()?;
                return Ok(Some(Instruction::StoreExclusive { status, from, at, release: name == "STLXR" }));
            }
            _ => {}
        }
        self.atomic(name)
    }

    fn atomic(&mut self, name: &str) -> Result<Option<Instruction>, Refusal> {
        const STEMS: [(&str, Option<Change>, bool); 10] = [
            ("SWP", Some(Change::Swap), true),
            ("CAS", None, true),
            ("LDADD", Some(Change::Add), true),
            ("LDCLR", Some(Change::Clear), true),
            ("LDSET", Some(Change::Set), true),
            ("LDEOR", Some(Change::Xor), true),
            ("STADD", Some(Change::Add), false),
            ("STCLR", Some(Change::Clear), false),
            ("STSET", Some(Change::Set), false),
            ("STEOR", Some(Change::Xor), false),
        ];
        let found = STEMS.iter().find_map(|(stem, change, loads)| Some((name.strip_prefix(stem)?, change, loads)));
        let Some((suffix, change, loads)) = found else { return Ok(None) };
        let (acquire, release) = match suffix {
            "" => (false, false),
            "A" if *loads => (true, false),
            "L" => (false, true),
            "AL" if *loads => (true, true),
            _ => return Ok(None),
        };
        let first = self.register()?;
        self.comma()?;
        let second = if *loads {
            let r = self.register()?;
            self.comma()?;
            r
        } else {
            Register { number: ZERO, half: first.half }
        };
        let at = self.address()?;
        Ok(Some(match change {
            // An acquire whose result nobody keeps is none.
            Some(change) => Instruction::Atomic {
                to: second,
                change: *change,
                with: first,
                at,
                acquire: acquire && second.number != ZERO,
                release,
            },
            None => Instruction::CompareAndSwap { expected: first, new: second, at, acquire, release },
        }))
    }

    fn branch(&mut self, name: &str) -> Result<Option<(Instruction, Option<String>)>, Refusal> {
        let when = match name {
            "B" => When::Always,
            "CBZ" | "CBNZ" | "TBZ" | "TBNZ" => {
                let r = self.register()?;
                self.comma()?;
                match name {
                    "CBZ" => When::Zero(r),
                    "CBNZ" => When::NotZero(r),
                    _ => {
                        let bit = (self.immediate()? & 63) as u8;
                        self.comma()?;
                        if name == "TBZ" { When::BitClear(r, bit) } else { When::BitSet(r, bit) }
                    }
                }
            }
            _ => match name.strip_prefix("B.").and_then(condition) {
                Some(c) => When::Flags(c),
                None => return Ok(None),
            },
        };
        let Some(label) = self.cursor.next() else { return Err(self.cursor.refuse("a label was expected, not")) };
        Ok(Some((Instruction::Branch { when, target: 0 }, Some(label.to_owned()))))
    }
}
