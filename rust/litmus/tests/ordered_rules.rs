//! The ordered rules of the sequentially consistent machine (docs/memory-model.md), each by a shape that falls when it
//! is left out. What is expected is what the exact search says, too.

use vmemmap_litmus::{Budget, Memory, Observation, Options, run};
use vmemmap_machine::Ets;

fn check(text: &str, ets: Ets, expected: Observation) {
    for memory in [Memory::Promises, Memory::Sc] {
        let options = Options { memory, ets, budget: Budget::Steps(3_000_000) };
        let answer = run(text, &options, &|| false).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(answer.observation, expected, "{memory:?} {ets:?}\n{text}");
    }
}

/// Two columns of code.
fn test(init: &str, columns: [&[&str]; 2], exists: &str) -> String {
    let rows = columns[0].len().max(columns[1].len());
    let cell = |column: &[&str], row: usize| column.get(row).copied().unwrap_or_default().to_owned();
    let code: String = (0..rows).map(|r| format!("{} | {} ;\n", cell(columns[0], r), cell(columns[1], r))).collect();
    format!("AArch64 rule\n{{\n{init}\n}}\nP0 | P1 ;\n{code}exists ({exists})\n")
}

const INVALID: &str = "int x=1; int f=0;\n[PTE(x)]=(oa:PA(x), valid:0);\n0:X1=PTE(x); 0:X2=(oa:PA(x)); 0:X3=x; \
                       0:X5=f; 1:X1=f; 1:X2=x; 1:X4=PTE(x);";
const VALID: &str = "int x=1; int f=0;\n0:X1=PTE(x); 0:X2=(oa:PA(x), valid:0); 0:X3=x; 0:X5=f; 1:X1=f; 1:X2=x;";

/// A new entry, then a flag, in order: with FEAT_ETS2 whoever has seen the flag does not fault.
#[test]
fn a_dmb_of_the_writer_ends_the_invalid_entry() {
    let text = |barrier| {
        let publish: &[&str] = &["STR X2,[X1]", barrier, "MOV W6,#1", "STR W6,[X5]"];
        test(INVALID, [publish, &["LDR W0,[X1]", "DMB LD", "L0: LDR W3,[X2]"]], "1:X0=1 /\\ fault(P1:L0,x)")
    };
    for barrier in ["DMB ST", "DMB SY", "DSB ST"] {
        check(&text(barrier), Ets::Two, Observation::Never);
    }
    check(&text("DMB LD"), Ets::Two, Observation::Sometimes);
    check(&text("DMB ST"), Ets::None, Observation::Sometimes);
}

/// Made valid: the own CPU does not fault with FEAT_ETS2; without it, not after its DSB and ISB.
#[test]
fn the_own_cpu_takes_its_own_entry() {
    let own = |barriers: &[&str]| {
        let mut code = vec!["STR X2,[X1]"];
        code.extend(barriers);
        code.push("L0: LDR W6,[X3]");
        test(INVALID, [&code, &[]], "fault(P0:L0,x)")
    };
    check(&own(&[]), Ets::Two, Observation::Never);
    check(&own(&["DSB SY"]), Ets::None, Observation::Sometimes);
    check(&own(&["DSB SY", "ISB"]), Ets::None, Observation::Never);
}

/// Who has translated through the new entry, or read it on another CPU, has seen it in memory: what is done after that,
/// there or elsewhere, comes after it.
#[test]
fn what_was_seen_in_memory_is_everywhere() {
    let init = "int x=1; int y=2;\n[PTE(x)]=(oa:PA(x), valid:0);\n0:X1=PTE(x); 0:X2=(oa:PA(y)); 0:X3=x;\n1:X1=y; \
                1:X2=x; 1:X4=PTE(x);";
    let text = test(
        init,
        [&["STR X2,[X1]", "L0: LDR W4,[X3]"], &["MOV W0,#4", "STR W0,[X1]", "L1: LDR W3,[X2]"]],
        "0:X4=2 /\\ fault(P1:L1,x)",
    );
    check(&text, Ets::Two, Observation::Never);
    let read = |barriers: &[&str]| {
        let mut code = vec!["LDR X0,[X4]"];
        code.extend(barriers);
        code.push("L1: LDR W3,[X2]");
        test(INVALID, [&["STR X2,[X1]"], &code], "1:X0=(oa:PA(x)) /\\ fault(P1:L1,x)")
    };
    check(&read(&[]), Ets::Two, Observation::Never);
    check(&read(&["DSB SY", "ISB"]), Ets::None, Observation::Never);
}

/// Who uses a value from before the break has seen nothing of what came after it: it may fault yet. (The flag is stored
/// last and without a barrier, so it tells nothing either.)
#[test]
fn a_value_from_before_the_break_says_nothing_of_what_came_after() {
    let init = "int x=1; int y=2; int f=0;\n0:X1=PTE(x); 0:X2=(oa:PA(x), valid:0); 0:X3=(oa:PA(y)); 0:X5=f; 1:X1=f; \
                1:X2=x;";
    let breaks: &[&str] = &["STR X2,[X1]", "STR X3,[X1]", "MOV W6,#1", "STR W6,[X5]"];
    let text = test(
        init,
        [breaks, &["LDR W0,[X1]", "DMB LD", "L0: LDR W3,[X2]", "L1: LDR W4,[X2]"]],
        "1:X0=1 /\\ 1:X3=1 /\\ fault(P1:L1,x)",
    );
    check(&text, Ets::Two, Observation::Sometimes);
}

/// An invalidate covers what another CPU overwrote, and of the own stores those that a DSB has followed.
#[test]
fn an_invalidate_covers_what_came_before_it() {
    let other: &[&str] =
        &["LDR W0,[X1]", "DSB SY", "LSR X4,X2,#12", "TLBI VAAE1IS,X4", "DSB SY", "ISB", "L0: LDR W3,[X2]"];
    let text =
        test(VALID, [&["STR X2,[X1]", "DMB ST", "MOV W6,#1", "STR W6,[X5]"], other], "1:X0=1 /\\ ~fault(P1:L0,x)");
    check(&text, Ets::Two, Observation::Never);
    let own = |barrier| {
        let code: &[&str] =
            &["STR X2,[X1]", barrier, "LSR X4,X3,#12", "TLBI VAAE1IS,X4", "DSB SY", "MOV W6,#1", "STR W6,[X5]"];
        test(VALID, [code, &["LDR W0,[X1]", "DMB LD", "L0: LDR W3,[X2]"]], "1:X0=1 /\\ ~fault(P1:L0,x)")
    };
    check(&own(""), Ets::Two, Observation::Sometimes);
    check(&own("DMB SY"), Ets::Two, Observation::Sometimes);
    check(&own("DSB SY"), Ets::Two, Observation::Never);
}

/// `TLBI; DSB`: with FEAT_ETS2 the own CPU is done, without it after an ISB.
#[test]
fn an_isb_ends_what_the_own_cpu_invalidated() {
    let own = |barriers: &[&str]| {
        let mut code = vec!["STR X2,[X1]", "DSB SY", "LSR X4,X3,#12", "TLBI VAAE1IS,X4"];
        code.extend(barriers);
        code.push("L0: LDR W6,[X3]");
        test(VALID, [&code, &[]], "~fault(P0:L0,x)")
    };
    check(&own(&["DSB SY"]), Ets::None, Observation::Sometimes);
    check(&own(&["DSB SY", "ISB"]), Ets::None, Observation::Never);
    check(&own(&["DSB SY"]), Ets::Two, Observation::Never);
    check(&own(&["ISB"]), Ets::Two, Observation::Sometimes);
}

/// `flush_tlb_kernel_range` begins with `dsb(ishst)`: for what another CPU cleared that is enough if the news came by a
/// lock's read-modify-write, which stores, or if there is a branch on it; an acquire load alone is not ordered before
/// the invalidate. This is the exact search, and `views`; the explored machine tracks no branches and takes it as
/// ordered.
#[test]
fn a_dsb_of_stores_orders_no_load_before_a_tlbi() {
    let text = |learns: &'static str, branch: &[&'static str]| {
        let mut code = vec![learns];
        code.extend(branch);
        code.extend(["DSB ST", "LSR X4,X2,#12", "TLBI VAAE1IS,X4", "DSB SY", "ISB", "L0: LDR W3,[X2]", "E:"]);
        let publish: &[&str] = &["STR X2,[X1]", "DMB ST", "MOV W6,#1", "STR W6,[X5]"];
        test(VALID, [publish, &code], "1:X0=1 /\\ ~fault(P1:L0,x)")
    };
    for (text, expected) in [
        (text("LDAR W0,[X1]", &[]), Observation::Sometimes),
        (text("LDAR W0,[X1]", &["CBZ W0,E"]), Observation::Never),
        (text("SWPA W7,W0,[X1]", &[]), Observation::Never),
    ] {
        for memory in [Memory::Promises, Memory::Views] {
            for ets in [Ets::None, Ets::Two] {
                let options = Options { memory, ets, budget: Budget::Steps(3_000_000) };
                let answer = run(&text, &options, &|| false).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(answer.observation, expected, "{memory:?} {ets:?}\n{text}");
            }
        }
    }
}

/// A search that is cut says so, whatever the test asks, unless what it found decides.
#[test]
fn a_search_that_is_cut_says_unknown() {
    let text = test(VALID, [&["STR X2,[X1]", "DSB SY"], &["LDR W0,[X1]", "L0: LDR W3,[X2]"]], "1:X0=7");
    for memory in [Memory::Sc, Memory::Explored, Memory::Views, Memory::Promises] {
        let asked = |steps| {
            let options = Options { memory, ets: Ets::Two, budget: Budget::Steps(steps) };
            run(&text, &options, &|| false).expect("a test of the core")
        };
        let (cut, whole) = (asked(1), asked(1_000_000));
        assert_eq!((cut.observation, cut.complete), (Observation::Unknown, false), "{memory:?}");
        assert!(cut.text.contains("Unknown"), "{memory:?}: {}", cut.text);
        assert_eq!((whole.observation, whole.complete), (Observation::Never, true), "{memory:?}");
    }
}

/// A loop without an end: no execution came to one, so it is not Never.
#[test]
fn a_test_whose_executions_are_all_cut_says_unknown() {
    let text = test(VALID, [&["L: B L"], &["LDR W0,[X1]"]], "1:X0=0");
    for memory in [Memory::Sc, Memory::Views, Memory::Promises] {
        let options = Options { memory, ets: Ets::Two, budget: Budget::Steps(1_000_000) };
        let answer = run(&text, &options, &|| false).expect("a test of the core");
        assert_eq!(answer.observation, Observation::Unknown, "{memory:?}");
    }
}
