#!/bin/sh
# loom tries one order only of Arc::strong_count against another thread's drop, and of try_recv against a send.
#
# Version:  loom 0.7.3, with its defaults.
# Does:     models of two threads that do one thing each: one drops its clone of an `Arc`, or sends a message; the other
#           asks once whether that has happened, by `strong_count`, `get_mut` or `try_recv`. Each model twice, the main
#           thread asking and then the spawned one, and every answer of every execution is collected.
# Expected: both answers each time, since nothing orders the two: `strong_count` 1 and 2, `get_mut` None and Some,
#           `try_recv` Empty and the message. loom's documentation calls the check exhaustive, unless it is bounded.
# Seen:     `get_mut`: both. `strong_count`: 1 and 2 if the spawned thread asks; if the main thread asks, one execution,
#           and 2 alone. `try_recv`: one execution either way, Empty alone if the main thread asks and the message alone
#           if the spawned one does. An assertion on the other answer passes.
# Why:      loom runs two operations in the other order too only if it counts them as dependent. It compares a count
#           with the last clone or drop before it, but a drop only with drops (and `get_mut`): what was "count, drop" is
#           never turned round. A send it compares with sends and a receipt with receipts; `try_recv` of an empty
#           channel is no operation to it at all, and no other thread is let run before it.
# Reported: no. That a load hides a race of its thread's next store is another gap of the same part:
#           https://github.com/tokio-rs/loom/issues/166 and https://github.com/tokio-rs/loom/issues/392 (both open).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "asks"
version = "0.0.0"
edition = "2021"

[dependencies]
loom = "=0.7.3"

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use loom::sync::mpsc::channel;
use loom::sync::Arc;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Runs one side in a spawned thread, the other one in the main thread, and gives what the asking side had. The object
/// that was asked lives until both are through.
fn race<T: Send + 'static>(
    asker_spawned: bool,
    act: impl FnOnce() + Send + 'static,
    ask: impl FnOnce() -> (String, T) + Send + 'static,
) -> String {
    let (answer, _object) = if asker_spawned {
        let asker = loom::thread::spawn(ask);
        act();
        asker.join().unwrap()
    } else {
        let actor = loom::thread::spawn(act);
        let answer = ask();
        actor.join().unwrap();
        answer
    };
    answer
}

fn get_mut(asker_spawned: bool) -> String {
    let mut kept = Arc::new(7);
    let other = kept.clone();
    race(asker_spawned, move || drop(other), move || (format!("{:?}", Arc::get_mut(&mut kept)), kept))
}

fn strong_count(asker_spawned: bool) -> String {
    let kept = Arc::new(7);
    let other = kept.clone();
    race(asker_spawned, move || drop(other), move || (Arc::strong_count(&kept).to_string(), kept))
}

fn try_recv(asker_spawned: bool) -> String {
    let (sender, receiver) = channel();
    race(asker_spawned, move || sender.send(7).unwrap(), move || (format!("{:?}", receiver.try_recv()), receiver))
}

fn explore(what: &str, model: fn(bool) -> String) {
    for asker_spawned in [false, true] {
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let answers = seen.clone();
        loom::model(move || {
            let answer = model(asker_spawned);
            answers.lock().unwrap().push(answer);
        });
        let seen = seen.lock().unwrap();
        let asker = if asker_spawned { "spawned" } else { "main" };
        let answers = seen.iter().map(String::as_str).collect::<BTreeSet<_>>();
        let answers = answers.into_iter().collect::<Vec<_>>().join(", ");
        println!("{what:12} by the {asker:7} thread: executions {}, answers {answers}", seen.len());
    }
}

fn main() {
    explore("get_mut", get_mut);
    explore("strong_count", strong_count);
    explore("try_recv", try_recv);
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
grep -q f1611ddbf89dc6ae42cfbd51fc207836140130257646eab8d6d2fb16577db2d2 Cargo.lock ||
    { echo "loom 0.7.3 is not the one meant" >&2; exit 2; }
cargo build --quiet --release --target-dir "$dir/target"
for setting in $(env | sed -n 's/^\(LOOM_[A-Z_]*\)=.*/\1/p'); do unset "$setting"; done
"$dir/target/release/asks" > "$dir/seen" 2> "$dir/errors" || { cat "$dir/errors" >&2; exit 1; }
cat > "$dir/stated" <<'EOF'
get_mut      by the main    thread: executions 4, answers None, Some(7)
get_mut      by the spawned thread: executions 4, answers None, Some(7)
strong_count by the main    thread: executions 1, answers 2
strong_count by the spawned thread: executions 3, answers 1, 2
try_recv     by the main    thread: executions 1, answers Err(Empty)
try_recv     by the spawned thread: executions 1, answers Ok(7)
EOF
echo "loom 0.7.3: two threads, one drops or sends, the other asks whether that has happened"
echo "expected: two answers in each line; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: of strong_count and try_recv one order is left out"
