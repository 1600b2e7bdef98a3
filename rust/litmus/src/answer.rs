//! The answer to a test, as herd prints it.

use serde::Serialize;
use vmemmap_machine::config::Ets;
use vmemmap_machine::explored::STORE_BUFFER;

use crate::budget::{Budget, Left};
use crate::outcome::{Final, Watched};
use crate::test::{Instruction, Proposition, Quantifier, Test};
use crate::thread::Setting;
use crate::{Memory, Refusal, buffered, parse, promises, sequential};

/// How a test is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub memory: Memory,
    /// What the CPUs have; a test that asks for more has more.
    pub ets: Ets,
    pub budget: Budget,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Observation {
    Never,
    Sometimes,
    Always,
    /// The search did not end, and what it found decides nothing.
    Unknown,
}

#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub name: String,
    pub memory: &'static str,
    pub ets: &'static str,
    pub observation: Observation,
    /// Number of different final states.
    pub states: usize,
    /// Each as herd writes it.
    pub final_states: Vec<String>,
    /// States that satisfy the condition under the quantifier, and that do not. herd counts executions.
    pub positive: usize,
    pub negative: usize,
    /// `exists` is satisfied, `~exists` and `forall` are not contradicted.
    pub ok: bool,
    pub complete: bool,
    pub steps: u64,
    pub seconds: f64,
    /// The block that herd prints.
    pub text: String,
}

/// # Errors
/// What of the text is none of the core.
pub fn run(text: &str, options: &Options, stop: &dyn Fn() -> bool) -> Result<Answer, Refusal> {
    let test = parse::test(text)?;
    let ets = test.ets.map_or(options.ets, |own| own.max(options.ets));
    let changing = changing(&test);
    let setting = Setting { test: &test, ets, changing: &changing };
    let watched = Watched::new(&test);
    let mut left = Left::new(options.budget, stop);
    let found = match options.memory {
        Memory::Views => buffered::search(&setting, &watched, &mut left),
        Memory::Promises => promises::search(&setting, &watched, &mut left),
        Memory::Sc => sequential::search(&test, (ets, 0), &watched, &mut left),
        Memory::Explored => sequential::search(&test, (ets, STORE_BUFFER), &watched, &mut left),
    };
    let found = found.map_err(|u| Refusal::new(1, &format!("P{}, instruction {}: {}", u.thread, u.at + 1, u.what)))?;
    let (with, without): (Vec<&Final>, Vec<&Final>) = found.ends.iter().partition(|end| watched.is_witness(end));
    let observation = match (with.len(), without.len()) {
        (1.., 1..) => Observation::Sometimes,
        // Nor does it decide anything if no execution came to an end: each was cut in a loop.
        _ if !found.complete || found.ends.is_empty() => Observation::Unknown,
        (0, _) => Observation::Never,
        (_, 0) => Observation::Always,
    };
    let mut shown: Vec<Final> = found.ends.iter().map(|end| watched.shown(end)).collect();
    shown.sort_unstable();
    shown.dedup();
    let final_states: Vec<String> = shown.iter().map(|end| watched.line(end)).collect();
    let (positive, negative) = match test.quantifier {
        Quantifier::NotExists => (without.len(), with.len()),
        Quantifier::Exists | Quantifier::Forall => (with.len(), without.len()),
    };
    let ok = match test.quantifier {
        Quantifier::Exists => !with.is_empty(),
        Quantifier::NotExists => with.is_empty(),
        Quantifier::Forall => without.is_empty(),
    };
    let mut answer = Answer {
        name: test.name.clone(),
        memory: options.memory.name(),
        ets: ets_name(ets),
        observation,
        states: final_states.len(),
        final_states,
        positive,
        negative,
        ok,
        complete: found.complete,
        steps: found.steps,
        seconds: left.seconds(),
        text: String::new(),
    };
    answer.text = block(&test, &answer, (with.len(), without.len()), found.cut);
    Ok(answer)
}

impl Memory {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sc => "sc",
            Self::Explored => "explored",
            Self::Views => "views",
            Self::Promises => "promises",
        }
    }
}

const fn ets_name(ets: Ets) -> &'static str {
    match ets {
        Ets::None => "none",
        Ets::Two => "2",
        Ets::Three => "3",
    }
}

/// Which words somebody may store to: descriptors whose address is in some register, or comes to be.
fn changing(test: &Test) -> Vec<bool> {
    let n = usize::from(test.variables.len());
    let stores = |code: &[Instruction]| {
        code.iter().any(|i| {
            matches!(
                i,
                Instruction::Store { .. }
                    | Instruction::StoreExclusive { .. }
                    | Instruction::Atomic { .. }
                    | Instruction::CompareAndSwap { .. }
            )
        })
    };
    let mut found = vec![false; 2 * n];
    for v in 0..n as u16 {
        let address = crate::places::entry_address(v);
        let named = test.threads.iter().any(|t| stores(&t.code) && t.registers.contains(&address));
        // An address may be loaded, too.
        let kept = test.words.contains(&address);
        found[n + usize::from(v)] = named || kept;
    }
    found
}

fn block(test: &Test, answer: &Answer, (with, without): (usize, usize), cut: bool) -> String {
    let kind = match test.quantifier {
        Quantifier::Exists => "Allowed",
        Quantifier::NotExists => "Forbidden",
        Quantifier::Forall => "Required",
    };
    let mut text = format!("Test {} {kind}\nStates {}\n", answer.name, answer.states);
    for line in &answer.final_states {
        text += line;
        text.push('\n');
    }
    text += if cut { "Loop " } else { "" };
    let decided = match test.quantifier {
        Quantifier::Exists | Quantifier::NotExists => with != 0,
        Quantifier::Forall => without != 0,
    };
    text += match answer.ok {
        _ if answer.observation == Observation::Unknown && !decided => "Unknown\n",
        true => "Ok\n",
        false => "No\n",
    };
    text += &format!("Witnesses\nPositive: {} Negative: {}\n", answer.positive, answer.negative);
    let quantifier = match test.quantifier {
        Quantifier::Exists => "exists",
        Quantifier::NotExists => "~exists",
        Quantifier::Forall => "forall",
    };
    text += &format!("Condition {quantifier} ({})\n", proposition(test, &test.condition));
    text += &format!("Observation {} {:?} {with} {without}\n", answer.name, answer.observation);
    text += &format!("Time {} {:.2}\n", answer.name, answer.seconds);
    for (_, hash) in test.info.iter().filter(|(key, _)| key == "Hash") {
        text += &format!("Hash={hash}\n");
    }
    text
}

fn proposition(test: &Test, what: &Proposition) -> String {
    use crate::test::Place;
    let place = |place: &Place| match *place {
        Place::Register(t, r) => format!("{t}:X{r}"),
        Place::Word(v) => format!("[{}]", test.variables.name(v)),
        Place::Entry(v) => format!("[PTE({})]", test.variables.name(v)),
    };
    let inner = |p: &Proposition| match p {
        Proposition::And(_) | Proposition::Or(_) => format!("({})", proposition(test, p)),
        atom => proposition(test, atom),
    };
    match what {
        Proposition::True => "true".to_owned(),
        Proposition::False => "false".to_owned(),
        Proposition::Equal(p, word) => format!("{}={}", place(p), test.variables.text(*word)),
        Proposition::Same(a, b) => format!("{}={}", place(a), place(b)),
        Proposition::Fault(atom) => atom.text(test, "fault"),
        Proposition::Not(p) => match &**p {
            Proposition::Fault(atom) => format!("~{}", atom.text(test, "fault")),
            p => format!("not ({})", proposition(test, p)),
        },
        Proposition::And(parts) => parts.iter().map(inner).collect::<Vec<_>>().join(" /\\ "),
        Proposition::Or(parts) => parts.iter().map(inner).collect::<Vec<_>>().join(" \\/ "),
    }
}
