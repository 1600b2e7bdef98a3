//! Early loads of the explored machine: the shapes that need them are found, and each thing that orders a load forbids
//! them. Every verdict is what the exact search says, too.

use vmemmap_litmus::{Budget, Memory, Observation, Options, run};
use vmemmap_machine::Ets;

fn observed(text: &str, memory: Memory, ets: Ets) -> Observation {
    let options = Options { memory, ets, budget: Budget::Steps(3_000_000) };
    run(text, &options, &|| false).unwrap_or_else(|e| panic!("{e}\n{text}")).observation
}

/// What the machine and the exact search say of it, with and without FEAT_ETS2.
fn both(text: &str, expected: Observation) {
    for ets in [Ets::None, Ets::Two] {
        for memory in [Memory::Promises, Memory::Explored] {
            assert_eq!(observed(text, memory, ets), expected, "{memory:?} {ets:?}\n{text}");
        }
    }
}

/// Message passing: the data, then the flag; the flag, then `between`, then the data. `Sometimes` if the flag may be
/// new and the data old.
fn message(between: &[&str], load: &str) -> String {
    let first = ["MOV W0,#1 | LDR W0,[X1] ;", "STR W0,[X1] | {} ;", "DMB ST | {} ;", "STR W0,[X2] | {} ;"];
    let mut text = String::from(
        "AArch64 message\n{\nint x=0; int f=0; int g=0;\n0:X1=x; 0:X2=f; 1:X1=f; 1:X2=x; 1:X4=g;\n}\nP0 | P1 ;\n",
    );
    let own: Vec<&str> = between.iter().copied().chain([load]).collect();
    for row in 0..own.len().max(first.len() - 1) + 1 {
        let left = first.get(row).map_or("", |line| line.split('|').next().unwrap_or_default().trim());
        let right = if row == 0 { "LDR W0,[X1]" } else { own.get(row - 1).copied().unwrap_or_default() };
        text += &format!("{left} | {right} ;\n");
    }
    text + "exists (1:X0=1 /\\ 1:X3=0)\n"
}

#[test]
fn a_load_may_be_older_than_the_one_before_it() {
    both(&message(&[], "LDR W3,[X2]"), Observation::Sometimes);
    // What orders stores, or nothing, orders no loads.
    both(&message(&["DMB ST"], "LDR W3,[X2]"), Observation::Sometimes);
    both(&message(&["MOV W5,#1", "STR W5,[X4]"], "LDR W3,[X2]"), Observation::Sometimes);
    both(&message(&["MOV W5,#1", "STLR W5,[X4]"], "LDR W3,[X2]"), Observation::Sometimes);
    both(&message(&["LDR W5,[X4]"], "LDR W3,[X2]"), Observation::Sometimes);
    both(&message(&["CBNZ W0,L", "L:"], "LDR W3,[X2]"), Observation::Sometimes);
}

#[test]
fn what_orders_loads_keeps_it_new() {
    for barrier in ["DMB LD", "DMB SY", "DSB LD", "DSB SY"] {
        both(&message(&[barrier], "LDR W3,[X2]"), Observation::Never);
    }
    both(&message(&["EOR W5,W0,W0"], "LDR W3,[X2,W5,SXTW]"), Observation::Never);
    both(&message(&["CBNZ W0,L", "L:", "ISB"], "LDR W3,[X2]"), Observation::Never);
    let acquire = |text: String| text.replace("| LDR W0,[X1]", "| LDAR W0,[X1]");
    both(&acquire(message(&[], "LDR W3,[X2]")), Observation::Never);
    let swap = |text: String| text.replace("| LDR W0,[X1]", "| SWPA W6,W0,[X1]");
    both(&swap(message(&[], "LDR W3,[X2]")), Observation::Never);
}

/// Loads of one word are in order, and an own store is seen.
#[test]
fn a_word_is_coherent() {
    let text = "AArch64 coherence\n{\nint x=0;\n0:X1=x; 1:X1=x;\n}\nP0 | P1 ;\nMOV W0,#1 | LDR W0,[X1] ;\n\
                STR W0,[X1] | LDR W3,[X1] ;\nexists (1:X0=1 /\\ 1:X3=0)\n";
    both(text, Observation::Never);
    let text = "AArch64 own\n{\nint x=0;\n0:X1=x; 1:X1=x;\n}\nP0 | P1 ;\nMOV W0,#1 | MOV W2,#2 ;\n\
                STR W0,[X1] | STR W2,[X1] ;\n | LDR W3,[X1] ;\nexists (1:X3=0)\n";
    both(text, Observation::Never);
    // Through another address, too.
    let text = "AArch64 alias\n{\nint x=0; int y=0;\n[PTE(y)]=(oa:PA(x));\n0:X1=x; 1:X1=x; 1:X2=y;\n}\nP0 | P1 ;\n\
                MOV W0,#1 | LDR W0,[X1] ;\nSTR W0,[X1] | LDR W3,[X2] ;\nexists (1:X0=1 /\\ 1:X3=0)\n";
    both(text, Observation::Never);
}

/// Cleared and flushed; the flag is new, and the load was made through the old translation (`MP+shoot+po`). What is
/// ordered after the flag faults.
#[test]
fn a_load_may_be_older_than_a_complete_invalidate() {
    let text = |barrier: &str| {
        format!(
            "AArch64 shoot\n{{\nint x=1; int f=0;\n0:X1=PTE(x); 0:X2=(oa:PA(x), valid:0); 0:X3=x; 0:X5=f;\n1:X1=f; \
             1:X2=x;\n}}\nP0 | P1 ;\nSTR X2,[X1] | LDR W0,[X1] ;\nDSB SY | {barrier} ;\nLSR X4,X3,#12 | L0: LDR \
             W3,[X2] ;\nTLBI VAAE1IS,X4 | ;\nDSB SY | ;\nMOV W6,#1 | ;\nSTR W6,[X5] | ;\nexists (1:X0=1 /\\ \
             ~fault(P1:L0,x))\n"
        )
    };
    both(&text(""), Observation::Sometimes);
    both(&text("DMB LD"), Observation::Never);
}

/// Broken and made: new through the entry, then old, is never (rule 2).
#[test]
fn a_translation_is_not_newer_than_the_next() {
    let text = "AArch64 new-then-old\n{\nint x=1; int y=2;\n0:X1=PTE(x); 0:X2=(oa:PA(x), valid:0); 0:X3=x; \
                0:X5=(oa:PA(y));\n1:X2=x;\n}\nP0 | P1 ;\nSTR X2,[X1] | L0: LDR W0,[X2] ;\nDSB SY | L1: LDR W3,[X2] ;\n\
                LSR X4,X3,#12 | ;\nTLBI VAAE1IS,X4 | ;\nDSB SY | ;\nSTR X5,[X1] | ;\nexists (1:X0=2 /\\ 1:X3=1)\n";
    both(text, Observation::Never);
    // Through another page of the same offset, whose entry was made after that.
    let text = "AArch64 other-page\n{\nint x=1; int y=2; int z=3;\n[PTE(z)]=(oa:PA(z), valid:0);\n0:X1=PTE(x); \
                0:X2=(oa:PA(x), valid:0); 0:X3=x; 0:X5=(oa:PA(z)); 0:X6=PTE(z);\n1:X1=z; 1:X2=x;\n}\nP0 | P1 ;\n\
                STR X2,[X1] | L0: LDR W0,[X1] ;\nDSB SY | L1: LDR W3,[X2] ;\nLSR X4,X3,#12 | ;\nTLBI VAAE1IS,X4 | ;\n\
                DSB SY | ;\nSTR X5,[X6] | ;\nexists (1:X0=3 /\\ 1:X3=1)\n";
    both(text, Observation::Never);
}

/// An early load that went through a new entry has seen it in memory: what comes after does not fault on what it was.
#[test]
fn an_early_load_sees_its_entry_in_memory() {
    let text = "AArch64 seen\n{\nint x=1; int y=2;\n[PTE(x)]=(oa:PA(x), valid:0);\n0:X1=PTE(x); 0:X2=(oa:PA(y)); \
                0:X3=x;\n1:X1=y; 1:X2=x;\n}\nP0 | P1 ;\nSTLR X2,[X1] | MOV W0,#4 ;\nL0: LDR W4,[X3] | STR \
                W0,[X1] ;\n | L1: LDR W3,[X2] ;\nexists (0:X4=2 /\\ fault(P1:L1,x))\n";
    assert_eq!(observed(text, Memory::Promises, Ets::Two), Observation::Never);
    assert_eq!(observed(text, Memory::Explored, Ets::Two), Observation::Never);
}
