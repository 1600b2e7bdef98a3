#!/bin/sh
# stateright's depth-first checker with `target_max_depth` misses a violation that lies well within the depth.
#
# Version:  stateright 0.31.0.
# Does:     a model of seven states with two ways to state 4, a long one (1, 2, 3, 4) and a short one (6, 4), and the
#           property "never in state 5", which follows state 4. `spawn_dfs` and `spawn_bfs` are run with
#           `target_max_depth` 3 to 7, one thread, and asked whether the property holds.
# Expected: the bad state is three steps away, so whoever explores to that depth finds it: both from depth 5 on (the
#           first state has depth 1, and a state at the limit is not looked at).
# Seen:     breadth first finds it from 5 on. Depth first finds it at 7 only: at 5 and 6 `is_done()` is true, nothing is
#           discovered and `assert_properties()` returns.
# Why:      depth first meets state 4 by the long way, at the limit, and leaves it unexpanded, but remembered: on the
#           short way it counts as visited. The documentation of the option ("the maximum depth that the checker should
#           aim to explore") does not say that a smaller depth is left out too. Spin has the same with -m, and there a
#           compile-time option against it (-DREACH).
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "depth"
version = "0.0.0"
edition = "2021"

[dependencies]
stateright = "=0.31.0"

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use stateright::{Checker, Model, Property};

#[derive(Clone)]
struct TwoWays;

impl Model for TwoWays {
    type State = u8;
    /// The next state.
    type Action = u8;

    fn init_states(&self) -> Vec<u8> {
        vec![0]
    }
    fn actions(&self, state: &u8, next: &mut Vec<u8>) {
        match state {
            0 => next.extend([6, 1]),
            6 => next.push(4),
            1..=4 => next.push(state + 1),
            _ => (),
        }
    }
    fn next_state(&self, _: &u8, next: u8) -> Option<u8> {
        Some(next)
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("never in state 5", |_, state| *state != 5)]
    }
}

fn said(checker: &impl Checker<TwoWays>) -> String {
    assert!(checker.is_done());
    match checker.discovery("never in state 5") {
        Some(path) => format!("violated by {:?}", path.into_actions()),
        None => {
            checker.assert_properties();
            "holds".to_owned()
        }
    }
}

fn main() {
    for depth in 3..=7 {
        let depth_first = TwoWays.checker().target_max_depth(depth).spawn_dfs().join();
        let breadth_first = TwoWays.checker().target_max_depth(depth).spawn_bfs().join();
        println!("depth {depth}: dfs {}, bfs {}", said(&depth_first), said(&breadth_first));
    }
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
grep -q fd1157f21b11916f90fe1f2ac9a8d0e09a8813b28701584141060f414eedf6ba Cargo.lock ||
    { echo "stateright 0.31.0 is not the one meant" >&2; exit 2; }
cargo build --quiet --release --target-dir "$dir/target"
"$dir/target/release/depth" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
depth 3: dfs holds, bfs holds
depth 4: dfs holds, bfs holds
depth 5: dfs holds, bfs violated by [6, 4, 5]
depth 6: dfs holds, bfs violated by [6, 4, 5]
depth 7: dfs violated by [1, 2, 3, 4, 5], bfs violated by [6, 4, 5]
EOF
echo "stateright 0.31.0: a state three steps away, target_max_depth 3 to 7"
echo "expected: depth first and breadth first find it from the same depth on; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: at depth 5 and 6 the depth-first checker says that the property holds"
