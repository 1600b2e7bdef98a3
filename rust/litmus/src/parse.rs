//! herd's format: name, header, `{initial state}`, columns of code, condition.

use vmemmap_machine::config::Ets;

use crate::Refusal;
use crate::code;
use crate::condition;
use crate::lex::{Cursor, number, tokens, without_comments};
use crate::places::{Fields, Variables, frame};
use crate::test::{OnFault, Proposition, Quantifier, Test, Thread};
use crate::value::{Location, Word, location, value};

/// Words that end the code.
const ENDS: [&str; 7] = ["exists", "~exists", "forall", "locations", "filter", "not", "~"];
/// Most threads.
const MAX_THREADS: usize = 8;

/// # Errors
/// The first thing that is not read: its line, and what it is.
pub fn test(text: &str) -> Result<Test, Refusal> {
    let text = without_comments(text)?;
    let lines: Vec<&str> = text.lines().collect();
    let (name, info, init_line) = header(&lines)?;
    let (init, code_line, rest) = braces(&lines, init_line)?;
    let mut test = Test {
        name,
        ets: None,
        on_fault: OnFault::Fatal,
        variables: Variables::default(),
        words: Vec::new(),
        threads: Vec::new(),
        shown: Vec::new(),
        faults: Vec::new(),
        filter: None,
        quantifier: Quantifier::Exists,
        condition: Proposition::True,
        info,
    };
    variants(&mut test)?;
    let initial = initial(&mut test.variables, &init, init_line + 1)?;
    let end_line = columns(&mut test, &lines, code_line, rest)?;
    let final_text = lines[end_line..].join("\n");
    condition::read(&mut test, &tokens(&final_text, end_line + 1), end_line + 1)?;
    settle(&mut test, &initial, init_line + 1)?;
    Ok(test)
}

type Info = Vec<(String, String)>;

fn header(lines: &[&str]) -> Result<(String, Info, usize), Refusal> {
    let first = lines.iter().position(|l| !l.trim().is_empty()).ok_or_else(|| Refusal::new(1, "an empty file"))?;
    let mut words = lines[first].split_whitespace();
    if words.next() != Some("AArch64") {
        return Err(Refusal::new(first + 1, "a test of AArch64 begins with `AArch64 NAME`"));
    }
    let name = words.next().ok_or_else(|| Refusal::new(first + 1, "the name of the test is missing"))?.to_owned();
    let mut info = Info::new();
    for (n, line) in lines.iter().enumerate().skip(first + 1) {
        let line = line.trim();
        if line.starts_with('{') {
            return Ok((name, info, n));
        }
        if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('"')) {
            info.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Err(Refusal::new(lines.len(), "the initial state `{…}` is missing"))
}

/// What stands between the braces, the line on which they close, and what follows on it.
fn braces<'a>(lines: &[&'a str], from: usize) -> Result<(String, usize, &'a str), Refusal> {
    let mut inside = String::new();
    for (n, line) in lines.iter().enumerate().skip(from) {
        let line = if n == from { line.trim_start().strip_prefix('{').unwrap_or(line) } else { line };
        if let Some((before, after)) = line.split_once('}') {
            inside.push_str(before);
            return Ok((inside, n, after));
        }
        inside.push_str(line);
        inside.push('\n');
    }
    Err(Refusal::new(from + 1, "the initial state is not closed by `}`"))
}

fn variants(test: &mut Test) -> Result<(), Refusal> {
    let info = test.info.clone();
    for (key, value) in &info {
        if key.eq_ignore_ascii_case("TTHM") && !value.trim().is_empty() {
            return Err(Refusal::new(1, &format!("hardware updates of the access and dirty flags (`TTHM={value}`)")));
        }
        if !key.eq_ignore_ascii_case("variant") {
            continue;
        }
        for variant in value.split([',', ' ']).filter(|v| !v.is_empty()) {
            match variant.to_ascii_lowercase().as_str() {
                "vmsa" | "kvm" => {}
                "fatal" | "precise" => test.on_fault = OnFault::Fatal,
                "handled" | "imprecise" => test.on_fault = OnFault::Again,
                "faulttonext" | "skip" => test.on_fault = OnFault::Skip,
                "ets2" => test.ets = test.ets.max(Some(Ets::Two)),
                "ets3" => test.ets = test.ets.max(Some(Ets::Three)),
                other => return Err(Refusal::new(1, &format!("the variant `{other}`"))),
            }
        }
    }
    Ok(())
}

/// One initial value.
enum Initial {
    Register(usize, u8, Word),
    Frame(u16, Word),
    Entry(u16, Word),
}

const TYPES: [&str; 7] = ["int", "int32_t", "int64_t", "uint32_t", "uint64_t", "pteval_t", "long"];

fn initial(variables: &mut Variables, text: &str, line: usize) -> Result<Vec<(Initial, usize)>, Refusal> {
    let words = tokens(text, line);
    let mut cursor = Cursor::new(&words, line);
    let mut found = Vec::new();
    while !cursor.is_done() {
        if cursor.accept(";") {
            continue;
        }
        let at = cursor.line();
        if cursor.peek().is_some_and(|t| TYPES.contains(&t)) {
            cursor.next();
            if cursor.peek() == Some("*") {
                return Err(cursor.refuse("a pointer's type:"));
            }
        }
        if cursor.peek_after(1) == Some(":") {
            let thread = number(&mut cursor)? as usize;
            cursor.next();
            let Some(register) = cursor.peek().and_then(code::register) else {
                return Err(cursor.refuse("a register was expected, not"));
            };
            cursor.next();
            if cursor.accept("=") {
                found.push((Initial::Register(thread, register.number, value(&mut cursor, variables)?), at));
            }
        } else {
            match location(&mut cursor, variables)? {
                Location::Word(v) => {
                    let word = if cursor.accept("=") { value(&mut cursor, variables)? } else { Word::Plain(0) };
                    found.push((Initial::Frame(v, word), at));
                }
                Location::Entry(v) => {
                    cursor.expect("=")?;
                    found.push((Initial::Entry(v, value(&mut cursor, variables)?), at));
                }
            }
        }
        if !cursor.is_done() && cursor.peek() != Some(";") {
            return Err(cursor.refuse("an initial value was to end before"));
        }
    }
    Ok(found)
}

/// Reads the code. Returns the number (from 0) of the line on which the condition begins.
fn columns(test: &mut Test, lines: &[&str], from: usize, rest: &str) -> Result<usize, Refusal> {
    let begins = |line: &str| {
        let line = line.trim_start();
        ENDS.iter().any(|end| {
            line.strip_prefix(end)
                .is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        })
    };
    let end = (from + 1..lines.len()).find(|n| begins(lines[*n]));
    let end = end.ok_or_else(|| Refusal::new(lines.len(), "a condition (`exists`, `~exists`, `forall`) is missing"))?;
    let mut rows: Vec<(String, usize)> = Vec::new();
    let mut open = String::new();
    let mut line = from + 1;
    for (n, text) in lines.iter().enumerate().take(end).skip(from) {
        let text = if n == from { rest } else { text };
        for (i, part) in text.split(';').enumerate() {
            if i > 0 {
                rows.push((std::mem::take(&mut open), line));
            }
            if !part.trim().is_empty() {
                if open.trim().is_empty() {
                    line = n + 1;
                }
                open.push_str(part);
            }
        }
    }
    if !open.trim().is_empty() {
        return Err(Refusal::new(line, "a row that no `;` ends"));
    }
    let mut rows = rows.into_iter();
    let (head, head_line) = rows.next().ok_or_else(|| Refusal::new(from + 1, "the code is missing"))?;
    let names: Vec<&str> = head.split('|').map(str::trim).collect();
    for (n, name) in names.iter().enumerate() {
        if *name != format!("P{n}") {
            let what = format!("a column `{name}`: the columns are P0, P1, … without handlers");
            return Err(Refusal::new(head_line, &what));
        }
    }
    if names.len() > MAX_THREADS {
        return Err(Refusal::new(head_line, &format!("{} threads: at most {MAX_THREADS}", names.len())));
    }
    let mut cells = vec![Vec::new(); names.len()];
    for (row, line) in rows {
        let parts: Vec<&str> = row.split('|').collect();
        if parts.len() > names.len() {
            return Err(Refusal::new(line, &format!("{} columns under {} threads", parts.len(), names.len())));
        }
        for (column, part) in parts.iter().enumerate() {
            cells[column].push(((*part).to_owned(), line));
        }
    }
    test.threads = cells.iter().map(|cells| code::thread(cells)).collect::<Result<Vec<Thread>, _>>()?;
    Ok(end)
}

/// Gives every word and register its value, now that all variables are known.
fn settle(test: &mut Test, initial: &[(Initial, usize)], line: usize) -> Result<(), Refusal> {
    let n = test.variables.len();
    test.words = vec![0; usize::from(n)];
    test.words.extend((0..n).map(|v| Fields::of_frame(frame(v)).desc().0));
    for (what, at) in initial {
        let no_frame = || Refusal::new(*at, "a descriptor without `oa:` outside PTE(…)");
        match *what {
            Initial::Register(thread, number, word) => {
                let value = word.value(None).ok_or_else(no_frame)?;
                let Some(thread) = test.threads.get_mut(thread) else {
                    return Err(Refusal::new(*at, &format!("a register of thread {thread}, which is not there")));
                };
                thread.registers[usize::from(number)] = value;
            }
            Initial::Frame(v, word) => {
                test.words[usize::from(v)] = word.value(None).ok_or_else(no_frame)?;
            }
            Initial::Entry(v, word) => {
                let word = match word {
                    Word::Plain(0) => Word::Plain(Fields { valid: false, ..Fields::of_frame(frame(v)) }.desc().0),
                    word => word,
                };
                let value = word.value(Some(v)).filter(|value| Fields::of(*value).is_some());
                test.words[usize::from(n + v)] =
                    value.ok_or_else(|| Refusal::new(*at, "a descriptor was expected, `(oa:PA(x), …)`"))?;
            }
        }
    }
    if n == 0 {
        return Err(Refusal::new(line, "a test without variables"));
    }
    Ok(())
}
