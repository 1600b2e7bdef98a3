//! What a test asks at the end: `locations`, `filter`, `exists`, `~exists`, `forall`.

use vmemmap_machine::views::FaultKind;

use crate::Refusal;
use crate::code;
use crate::lex::{Cursor, Token};
use crate::test::{FaultAtom, Place, Proposition, Quantifier, Test};
use crate::value::{self, Location};

/// Reads what follows the code into the test.
pub fn read(test: &mut Test, words: &[Token], line: usize) -> Result<(), Refusal> {
    let mut cursor = Cursor::new(words, line);
    let mut asked = false;
    while !cursor.is_done() {
        if asked && cursor.accept(";") {
            continue;
        }
        if cursor.accept("locations") {
            locations(&mut cursor, test)?;
        } else if cursor.accept("filter") {
            test.filter = Some(any(&mut cursor, test, 0)?);
        } else if !asked {
            test.quantifier = quantifier(&mut cursor)?;
            test.condition = any(&mut cursor, test, 0)?;
            asked = true;
        } else {
            return Err(cursor.refuse("the test was to end before"));
        }
    }
    if !asked {
        return Err(cursor.refuse("a condition (`exists`, `~exists`, `forall`) is missing before"));
    }
    let condition = test.condition.clone();
    condition.each(&mut |atom| match atom {
        Proposition::Equal(place, _) => test.shown.push(*place),
        Proposition::Same(a, b) => test.shown.extend([*a, *b]),
        Proposition::Fault(fault) => test.faults.push(fault.clone()),
        _ => {}
    });
    test.shown.sort_unstable();
    test.shown.dedup();
    test.faults.sort_unstable();
    test.faults.dedup();
    Ok(())
}

fn quantifier(cursor: &mut Cursor<'_>) -> Result<Quantifier, Refusal> {
    let not = cursor.accept("~") || cursor.accept("not");
    if cursor.accept("exists") {
        return Ok(if not { Quantifier::NotExists } else { Quantifier::Exists });
    }
    if !not && cursor.accept("forall") {
        return Ok(Quantifier::Forall);
    }
    Err(cursor.refuse("`exists`, `~exists` or `forall` was expected, not"))
}

fn locations(cursor: &mut Cursor<'_>, test: &mut Test) -> Result<(), Refusal> {
    cursor.expect("[")?;
    while !cursor.accept("]") {
        if cursor.accept(";") {
            continue;
        }
        if is_fault(cursor) {
            let fault = fault(cursor, test)?;
            test.faults.push(fault);
        } else {
            let place = place(cursor, test)?;
            test.shown.push(place);
        }
        if cursor.is_done() {
            return Err(cursor.refuse("`]` is missing before"));
        }
    }
    Ok(())
}

fn is_fault(cursor: &Cursor<'_>) -> bool {
    cursor.peek().is_some_and(|t| t.eq_ignore_ascii_case("fault")) && cursor.peek_after(1) == Some("(")
}

fn place(cursor: &mut Cursor<'_>, test: &mut Test) -> Result<Place, Refusal> {
    let brackets = cursor.peek() == Some("[") && cursor.peek_after(2) == Some(":");
    if brackets {
        cursor.next();
    }
    let found = if cursor.peek_after(1) == Some(":") {
        let text = cursor.peek().unwrap_or_default();
        let Ok(thread) = text.trim_start_matches('P').parse::<u8>() else {
            return Err(cursor.refuse("the number of a thread was expected, not"));
        };
        if usize::from(thread) >= test.threads.len() {
            return Err(cursor.refuse("there is no such thread:"));
        }
        cursor.next();
        cursor.next();
        let Some(register) = cursor.peek().and_then(code::register) else {
            return Err(cursor.refuse("a register was expected, not"));
        };
        cursor.next();
        Place::Register(thread, register.number)
    } else {
        match value::location(cursor, &mut test.variables)? {
            Location::Word(v) => Place::Word(v),
            Location::Entry(v) => Place::Entry(v),
        }
    };
    if brackets {
        cursor.expect("]")?;
    }
    Ok(found)
}

/// Deepest nesting of a condition, which is read, copied and judged by recursion.
const MAX_DEPTH: u32 = 200;

fn any(cursor: &mut Cursor<'_>, test: &mut Test, depth: u32) -> Result<Proposition, Refusal> {
    let mut parts = vec![all(cursor, test, depth)?];
    while cursor.accept("\\/") {
        parts.push(all(cursor, test, depth)?);
    }
    if cursor.accept("=>") {
        let then = any(cursor, test, depth + 1)?;
        return Ok(Proposition::Or(vec![Proposition::Not(Box::new(joined(parts, Proposition::Or))), then]));
    }
    Ok(joined(parts, Proposition::Or))
}

fn all(cursor: &mut Cursor<'_>, test: &mut Test, depth: u32) -> Result<Proposition, Refusal> {
    let mut parts = vec![atom(cursor, test, depth)?];
    while cursor.accept("/\\") {
        parts.push(atom(cursor, test, depth)?);
    }
    Ok(joined(parts, Proposition::And))
}

fn joined(mut parts: Vec<Proposition>, join: impl Fn(Vec<Proposition>) -> Proposition) -> Proposition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Proposition::True,
    }
}

fn atom(cursor: &mut Cursor<'_>, test: &mut Test, depth: u32) -> Result<Proposition, Refusal> {
    if depth > MAX_DEPTH {
        return Err(cursor.refuse("a condition may not be nested as deep as here:"));
    }
    if cursor.accept("~") || cursor.accept("not") {
        return Ok(Proposition::Not(Box::new(atom(cursor, test, depth + 1)?)));
    }
    if cursor.accept("(") {
        let inside = any(cursor, test, depth + 1)?;
        cursor.expect(")")?;
        return Ok(inside);
    }
    if cursor.accept("true") {
        return Ok(Proposition::True);
    }
    if cursor.accept("false") {
        return Ok(Proposition::False);
    }
    if is_fault(cursor) {
        return fault(cursor, test).map(Proposition::Fault);
    }
    let left = place(cursor, test)?;
    let differs = cursor.accept("<>") || cursor.accept("!=");
    if !differs {
        cursor.expect("=")?;
    }
    let found = if cursor.peek_after(1) == Some(":") {
        Proposition::Same(left, place(cursor, test)?)
    } else {
        let word = value::value(cursor, &mut test.variables)?;
        let of = if let Place::Entry(v) = left { Some(v) } else { None };
        match word.value(of) {
            Some(value) => Proposition::Equal(left, value),
            None => return Err(cursor.refuse("a descriptor without `oa:` before")),
        }
    };
    Ok(if differs { Proposition::Not(Box::new(found)) } else { found })
}

/// `fault(P0:L0, x, MMU:Translation)`; all but the thread may be absent.
fn fault(cursor: &mut Cursor<'_>, test: &mut Test) -> Result<FaultAtom, Refusal> {
    cursor.next();
    cursor.expect("(")?;
    let text = cursor.peek().unwrap_or_default();
    let thread = text.strip_prefix('P').unwrap_or(text).parse::<u8>().ok();
    let Some(thread) = thread.filter(|t| usize::from(*t) < test.threads.len()) else {
        return Err(cursor.refuse("a thread was expected, not"));
    };
    cursor.next();
    let mut found = FaultAtom { thread, label: None, variable: None, kind: None, written: None };
    if cursor.accept(":") {
        let label = cursor.next().unwrap_or_default();
        if !test.threads[usize::from(thread)].labels.iter().any(|(l, _)| l == label) {
            return Err(cursor.refuse(&format!("the label `{label}` is not in the code; before")));
        }
        found.label = Some(label.to_owned());
    }
    while cursor.accept(",") {
        match kind(cursor)? {
            Some((kind, written)) => (found.kind, found.written) = (kind, Some(written)),
            None => match value::location(cursor, &mut test.variables)? {
                Location::Word(v) => found.variable = Some(v),
                Location::Entry(_) => return Err(cursor.refuse("a fault on a descriptor's own address before")),
            },
        }
    }
    cursor.expect(")")?;
    Ok(found)
}

/// `MMU:Translation`, `D-MMU:Translation`, `Translation`, `MMU`.
fn kind(cursor: &mut Cursor<'_>) -> Result<Option<(Option<FaultKind>, String)>, Refusal> {
    let named = |text: &str| {
        [FaultKind::Translation, FaultKind::AccessFlag, FaultKind::Permission].into_iter().find(|k| k.name() == text)
    };
    let mut written = String::new();
    if cursor.peek() == Some("D") && cursor.peek_after(1) == Some("-") {
        cursor.next();
        cursor.next();
        written.push_str("D-");
    }
    if cursor.accept("MMU") {
        written.push_str("MMU");
        if !cursor.accept(":") {
            return Ok(Some((None, written)));
        }
        written.push(':');
    } else if cursor.peek().and_then(named).is_none() {
        return Ok(None);
    }
    let text = cursor.peek().unwrap_or_default();
    let kind = named(text).ok_or_else(|| cursor.refuse("a fault of a kind that is none of the core:"))?;
    cursor.next();
    written.push_str(text);
    Ok(Some((Some(kind), written)))
}

impl Proposition {
    /// Every atom.
    pub fn each(&self, visit: &mut impl FnMut(&Self)) {
        match self {
            Self::Not(p) => p.each(visit),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|p| p.each(visit)),
            atom => visit(atom),
        }
    }
    /// Whether it holds, by what each atom says.
    pub fn holds(&self, value: &impl Fn(Place) -> u64, faulted: &impl Fn(&FaultAtom) -> bool) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Equal(place, word) => value(*place) == *word,
            Self::Same(a, b) => value(*a) == value(*b),
            Self::Fault(atom) => faulted(atom),
            Self::Not(p) => !p.holds(value, faulted),
            Self::And(parts) => parts.iter().all(|p| p.holds(value, faulted)),
            Self::Or(parts) => parts.iter().any(|p| p.holds(value, faulted)),
        }
    }
}
