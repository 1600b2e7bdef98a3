//! Random tests of two or three threads, on the explored machine and by the exact search: what the machine finds, the
//! architecture allows. A state beside that would be a false accusation of kernel code.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use vmemmap_litmus::{Budget, Memory, Options, run};
use vmemmap_machine::Ets;

/// One thread: code, initial registers, results.
#[derive(Default)]
struct Thread {
    number: usize,
    code: Vec<String>,
    init: Vec<String>,
    results: Vec<String>,
    faults: Vec<String>,
    registers: usize,
    labels: usize,
}

const PAGES: [&str; 2] = ["x", "y"];

impl Thread {
    fn register(&mut self) -> usize {
        self.registers += 1;
        self.registers - 1
    }
    fn holding(&mut self, what: &str) -> usize {
        let r = self.register();
        self.init.push(format!("{}:X{r}={what};", self.number));
        r
    }
    fn label(&mut self, variable: &str) -> String {
        let label = format!("L{}", self.labels);
        self.labels += 1;
        self.faults.push(format!("fault(P{}:{label},{variable})", self.number));
        label
    }
    fn result(&mut self) -> usize {
        let r = self.register();
        self.results.push(format!("{}:X{r}=0", self.number));
        r
    }

    fn draw(&mut self, rng: &mut Xoshiro256PlusPlus) {
        let page = PAGES[usize::from(rng.random_bool(0.25))];
        match rng.random_range(0..20) {
            0..6 => {
                let values =
                    ["(oa:PA(x))", "(oa:PA(y))", "(oa:PA(x), valid:0)", "(oa:PA(x), db:0)", "(oa:PA(x))", "(oa:PA(y))"];
                let (value, at) = (self.holding(values[rng.random_range(0..values.len())]), self.holding(&pte(page)));
                match rng.random_range(0..8) {
                    0 => self.code.push(format!("STLR X{value},[X{at}]")),
                    1 => {
                        let r = self.register();
                        self.code.push(format!("SWP X{value},X{r},[X{at}]"));
                    }
                    _ => self.code.push(format!("STR X{value},[X{at}]")),
                }
            }
            6..8 => {
                let (at, r) = (self.holding(&pte(page)), self.register());
                self.code.push(format!("LDR X{r},[X{at}]"));
            }
            8..11 => {
                let (at, r, label) = (self.holding(page), self.result(), self.label(page));
                let op = if rng.random_bool(0.2) { "LDAR" } else { "LDR" };
                self.code.push(format!("{label}: {op} W{r},[X{at}]"));
            }
            11..13 => {
                let (at, r, label) = (self.holding(page), self.register(), self.label(page));
                self.code.push(format!("MOV W{r},#{}", rng.random_range(3..6)));
                self.code.push(format!("{label}: STR W{r},[X{at}]"));
            }
            13 => {
                let (at, r) = (self.holding("f"), self.register());
                self.code.push(format!("MOV W{r},#1"));
                let op = if rng.random_bool(0.4) { "STLR" } else { "STR" };
                self.code.push(format!("{op} W{r},[X{at}]"));
            }
            14 => {
                let (at, r) = (self.holding("f"), self.result());
                let op = if rng.random_bool(0.4) { "LDAR" } else { "LDR" };
                self.code.push(format!("{op} W{r},[X{at}]"));
            }
            15 => {
                let at = self.holding(page);
                let r = self.register();
                self.code.push(format!("LSR X{r},X{at},#12"));
                self.code.push(format!("TLBI VAAE1IS,X{r}"));
            }
            16 => self.code.push("ISB".to_owned()),
            n => {
                let kind = ["SY", "LD", "ST"][rng.random_range(0..3)];
                self.code.push(format!("{} {kind}", if n == 17 { "DMB" } else { "DSB" }));
            }
        }
    }
}

fn pte(page: &str) -> String {
    format!("PTE({page})")
}

fn text(rng: &mut Xoshiro256PlusPlus) -> String {
    let threads = if rng.random_bool(0.1) { 3 } else { 2 };
    let mut all: Vec<Thread> = (0..threads).map(|number| Thread { number, ..Thread::default() }).collect();
    for thread in &mut all {
        for _ in 0..rng.random_range(2..=(if threads == 2 { 6 } else { 3 })) {
            thread.draw(rng);
        }
    }
    let mut text = String::from("AArch64 drawn\n{\nx=1; y=2;\n");
    let first = ["", "[PTE(x)]=(oa:PA(x), valid:0);\n", "[PTE(x)]=(oa:PA(y), db:0);\n"];
    text += first[rng.random_range(0..first.len())];
    all.iter().flat_map(|t| &t.init).for_each(|line| text += &format!("{line}\n"));
    text += "}\n";
    let head: Vec<String> = all.iter().map(|t| format!("P{}", t.number)).collect();
    let _ = writeln!(text, "{} ;", head.join(" | "));
    for row in 0..all.iter().map(|t| t.code.len()).max().unwrap_or(0) {
        let cells: Vec<&str> = all.iter().map(|t| t.code.get(row).map_or("", String::as_str)).collect();
        let _ = writeln!(text, "{} ;", cells.join(" | "));
    }
    let mut asked: Vec<String> = all.iter().flat_map(|t| t.results.iter().chain(&t.faults)).cloned().collect();
    asked.push("[x]=1".to_owned());
    let _ = writeln!(text, "exists ({})", asked.join(" /\\ "));
    text
}

fn states(text: &str, memory: Memory, ets: Ets) -> Option<BTreeSet<String>> {
    let budget = Budget::Steps(300_000);
    let answer = run(text, &Options { memory, ets, budget }, &|| false).unwrap_or_else(|e| panic!("{e}\n{text}"));
    answer.complete.then(|| answer.final_states.into_iter().collect())
}

/// Of `n` tests: how many were compared, and those with a state beside what the architecture allows.
fn beside_the_architecture(seed: u64, n: usize, memory: Memory, ets: Ets) -> (usize, Vec<String>) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut compared, mut accused) = (0, Vec::new());
    for nth in 0..n {
        let text = text(&mut rng);
        let (Some(found), Some(allowed)) = (states(&text, memory, ets), states(&text, Memory::Promises, ets)) else {
            continue;
        };
        compared += 1;
        let beside: Vec<&String> = found.difference(&allowed).collect();
        if !beside.is_empty() {
            accused.push(format!("test {nth} of seed {seed}, {memory:?}, {ets:?}:\n{text}\n{beside:#?}"));
        }
    }
    (compared, accused)
}

fn nothing_beside_the_architecture(seed: u64, n: usize, memory: Memory, ets: Ets) {
    let (compared, accused) = beside_the_architecture(seed, n, memory, ets);
    assert!(compared > n * 4 / 5, "{compared} of {n}");
    assert!(accused.is_empty(), "{}", accused[0]);
}

#[test]
fn what_the_explored_machine_finds_is_allowed() {
    nothing_beside_the_architecture(1, 1000, Memory::Sc, Ets::Two);
}

#[test]
fn what_it_finds_with_store_buffers_is_allowed() {
    nothing_beside_the_architecture(2, 800, Memory::Explored, Ets::Two);
}

#[test]
fn what_views_find_is_allowed() {
    nothing_beside_the_architecture(3, 500, Memory::Views, Ets::Two);
    nothing_beside_the_architecture(4, 500, Memory::Views, Ets::None);
}

#[test]
fn without_ets2_what_it_finds_is_allowed() {
    nothing_beside_the_architecture(5, 600, Memory::Sc, Ets::None);
    nothing_beside_the_architecture(6, 400, Memory::Explored, Ets::None);
}

/// More of them (nightly). Without FEAT_ETS2 a gap is known (docs/memory-model.md): it is counted and bounded.
#[test]
#[ignore = "takes minutes; run by make nightly"]
fn more_of_what_the_machine_finds_is_allowed() {
    for seed in 21..31 {
        for memory in [Memory::Sc, Memory::Explored] {
            nothing_beside_the_architecture(seed, 1000, memory, Ets::Two);
            let (compared, accused) = beside_the_architecture(seed, 1000, memory, Ets::None);
            assert!(accused.len() <= 2, "{} of {compared}:\n{}", accused.len(), accused.join("\n"));
        }
    }
}
