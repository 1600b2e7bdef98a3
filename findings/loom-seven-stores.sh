#!/bin/sh
# loom keeps the last seven values of an atomic; an older one is never read again, so one more store hides a bug.
#
# Version:  loom 0.7.3, with its defaults.
# Does:     message passing with everything Relaxed: one thread stores 1 to n to `data`, then 1 to `flag`; the other
#           reads `flag`, and if it is 1, reads `data` and asserts that it is not 0, the value before the first store.
#           The model is explored for n = 1 to 10.
# Expected: the assertion fails for every n. Nothing orders the two stores or the two loads, so C11 (and Rust) allow
#           `flag` = 1 beside any of the n + 1 values of `data`; further stores forbid nothing.
# Seen:     n = 1 to 6: it fails, and each of the n + 1 values is read. n = 7 and more: `loom::model` returns and says
#           nothing, only the last seven values are read. The value given to `new` is one of the seven.
# Why:      the stores that an atomic remembers are a ring of fixed size; a full one overwrites its oldest. The list of
#           unsupported features in loom's README (it calls itself incomplete) names SeqCst accesses and load buffering,
#           not this. A missing Release beside a word that a test writes seven times goes unseen.
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "seven"
version = "0.0.0"
edition = "2021"

[dependencies]
loom = "=0.7.3"

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// What `data` was beside `flag` = 1, over every execution that loom has.
fn explore(stores: usize, asserted: bool) -> BTreeSet<usize> {
    let values = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = values.clone();
    loom::model(move || {
        let cells = loom::sync::Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let writer = loom::thread::spawn({
            let cells = cells.clone();
            move || {
                let [data, flag] = &*cells;
                for value in 1..=stores {
                    data.store(value, Relaxed);
                }
                flag.store(1, Relaxed);
            }
        });
        let [data, flag] = &*cells;
        if flag.load(Relaxed) == 1 {
            let value = data.load(Relaxed);
            seen.lock().unwrap().insert(value);
            assert!(!asserted || value != 0);
        }
        writer.join().unwrap();
    });
    let values = values.lock().unwrap();
    values.clone()
}

fn main() {
    std::panic::set_hook(Box::new(|_| {}));
    for stores in 1..=10 {
        let verdict = std::panic::catch_unwind(|| explore(stores, true));
        let verdict = if verdict.is_ok() { "passes" } else { "fails" };
        println!("{stores:2} stores: assertion {verdict}, values read {:?}", explore(stores, false));
    }
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
grep -q f1611ddbf89dc6ae42cfbd51fc207836140130257646eab8d6d2fb16577db2d2 Cargo.lock ||
    { echo "loom 0.7.3 is not the one meant" >&2; exit 2; }
cargo build --quiet --release --target-dir "$dir/target"
for setting in $(env | sed -n 's/^\(LOOM_[A-Z_]*\)=.*/\1/p'); do unset "$setting"; done
"$dir/target/release/seven" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
 1 stores: assertion fails, values read {0, 1}
 2 stores: assertion fails, values read {0, 1, 2}
 3 stores: assertion fails, values read {0, 1, 2, 3}
 4 stores: assertion fails, values read {0, 1, 2, 3, 4}
 5 stores: assertion fails, values read {0, 1, 2, 3, 4, 5}
 6 stores: assertion fails, values read {0, 1, 2, 3, 4, 5, 6}
 7 stores: assertion passes, values read {1, 2, 3, 4, 5, 6, 7}
 8 stores: assertion passes, values read {2, 3, 4, 5, 6, 7, 8}
 9 stores: assertion passes, values read {3, 4, 5, 6, 7, 8, 9}
10 stores: assertion passes, values read {4, 5, 6, 7, 8, 9, 10}
EOF
echo "loom 0.7.3: message passing, all Relaxed, n stores before the flag"
echo "expected: the assertion fails for every n, all n + 1 values are read; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: from the seventh store on, the missing order is not found"
