//! Values and places as tests write them.

use crate::Refusal;
use crate::lex::{Cursor, number};
use crate::places::{Fields, Variables, entry_address, frame, page};

/// A value; what a descriptor literal leaves out depends on where it stands.
#[derive(Clone, Copy)]
pub struct Literal {
    frame: Option<u16>,
    valid: bool,
    af: bool,
    db: bool,
    dbm: bool,
}

/// A value as it is written.
#[derive(Clone, Copy)]
pub enum Word {
    Plain(u64),
    Literal(Literal),
}

impl Word {
    /// `of`: the variable whose descriptor it is to be, whose own frame is meant if none is named.
    pub fn value(self, of: Option<u16>) -> Option<u64> {
        match self {
            Self::Plain(n) => Some(n),
            Self::Literal(l) => {
                let frame = frame(l.frame.or(of)?);
                Some(Fields { frame, valid: l.valid, af: l.af, db: l.db, dbm: l.dbm }.desc().0)
            }
        }
    }
}

/// A variable or its descriptor.
pub enum Location {
    Word(u16),
    Entry(u16),
}

fn variable(cursor: &mut Cursor<'_>, variables: &mut Variables, name: &str) -> Result<u16, Refusal> {
    let named = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let found = if named { variables.intern(name) } else { None };
    found.ok_or_else(|| cursor.refuse("a variable was expected before"))
}

/// `x`, `[x]`, `pte_x`, `PTE(x)`, `TTD(x)`, each also in brackets.
pub fn location(cursor: &mut Cursor<'_>, variables: &mut Variables) -> Result<Location, Refusal> {
    let brackets = cursor.accept("[");
    let name = cursor.next().unwrap_or_default();
    let found = if (name == "PTE" || name == "TTD") && cursor.peek() == Some("(") {
        Location::Entry(in_parentheses(cursor, variables)?)
    } else if let Some(name) = name.strip_prefix("pte_") {
        Location::Entry(variable(cursor, variables, name)?)
    } else {
        Location::Word(variable(cursor, variables, name)?)
    };
    if brackets {
        cursor.expect("]")?;
    }
    match cursor.peek() {
        Some("[") => Err(cursor.refuse("an array:")),
        _ => Ok(found),
    }
}

fn in_parentheses(cursor: &mut Cursor<'_>, variables: &mut Variables) -> Result<u16, Refusal> {
    cursor.expect("(")?;
    let name = cursor.next().unwrap_or_default();
    let found = variable(cursor, variables, name)?;
    cursor.expect(")")?;
    Ok(found)
}

/// A number, `x`, `pte_x`, `PTE(x)`, or a descriptor `(oa:PA(x), valid:0, …)`.
pub fn value(cursor: &mut Cursor<'_>, variables: &mut Variables) -> Result<Word, Refusal> {
    match cursor.peek() {
        Some("(") => literal(cursor, variables).map(Word::Literal),
        Some(t) if t.chars().next().is_some_and(|c| c.is_ascii_digit() || c == '-') => number(cursor).map(Word::Plain),
        Some(t) if t.starts_with("phy_") || t == "PA" => Err(cursor.refuse("a physical address outside a descriptor:")),
        Some(_) => Ok(Word::Plain(match location(cursor, variables)? {
            Location::Word(v) => page(v).0,
            Location::Entry(v) => entry_address(v),
        })),
        None => Err(cursor.refuse("a value was expected, not")),
    }
}

fn literal(cursor: &mut Cursor<'_>, variables: &mut Variables) -> Result<Literal, Refusal> {
    let mut l = Literal { frame: None, valid: true, af: true, db: true, dbm: false };
    cursor.expect("(")?;
    while !cursor.accept(")") {
        let field = cursor.next().unwrap_or_default();
        cursor.expect(":")?;
        match field {
            "oa" => {
                let name = cursor.next().unwrap_or_default();
                l.frame = Some(match name.strip_prefix("phy_") {
                    Some(name) => variable(cursor, variables, name)?,
                    None if name == "PA" => in_parentheses(cursor, variables)?,
                    None => return Err(cursor.refuse(&format!("the output address `{name}` before"))),
                });
            }
            "valid" | "af" | "db" | "dbm" => {
                let on = match number(cursor)? {
                    0 => false,
                    1 => true,
                    n => return Err(cursor.refuse(&format!("a bit of {n} before"))),
                };
                match field {
                    "valid" => l.valid = on,
                    "af" => l.af = on,
                    "db" => l.db = on,
                    _ => l.dbm = on,
                }
            }
            other => return Err(cursor.refuse(&format!("the field `{other}` of a descriptor before"))),
        }
        if cursor.peek() != Some(")") {
            cursor.expect(",")?;
        }
    }
    Ok(l)
}
