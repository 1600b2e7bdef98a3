#!/bin/sh
# stateright takes two states for one if an element has only moved from a HashableHashSet to the next one, timers too.
#
# Version:  stateright 0.31.0.
# Does:     a token lies left or right: a state of two sets, the first one with an element, and one action that swaps
#           them. Property: "it lies left". The sets are std's BTreeSet and BTreeMap, then stateright's HashableHashSet
#           and HashableHashMap. After that, three actors with a timer each that go off one by one, and for each of them
#           the property that it is sometimes the first. All breadth first and depth first.
# Expected: two states, and the property violated by the one swap, whatever the sets are. Eight states of the three
#           timers, and each of them sometimes the first. Fingerprints may collide by chance; these are 64 bits wide.
# Seen:     BTreeSet and BTreeMap: so it is. HashableHashSet and HashableHashMap, which the documentation offers for
#           states: one state, and the property holds. The timers, of which stateright itself keeps a HashableHashSet
#           for each actor: four states, as many as numbers of timers, and only the timer of the first actor is ever the
#           first to go off.
# Why:      a checker knows a state by its hash alone. HashableHashSet and HashableHashMap feed the hashes of their
#           entries into it, but neither their number nor an end, as std's collections do: where one stops and the next
#           one starts is not in the hash, be they fields, a tuple or a Vec. `Eq` does tell the states apart.
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "sets"
version = "0.0.0"
edition = "2021"

[dependencies]
stateright = "=0.31.0"

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use stateright::actor::{Actor, ActorModel, ActorModelState, Id, Out};
use stateright::util::{HashableHashMap, HashableHashSet};
use stateright::{Checker, Expectation, Model, Property};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

/// Two sets of which the left one is this at first, the right one empty.
#[derive(Clone)]
struct Token<S>(S);

impl<S: Clone + Default + Hash + PartialEq> Model for Token<S> {
    type State = (S, S);
    type Action = ();

    fn init_states(&self) -> Vec<(S, S)> {
        vec![(self.0.clone(), S::default())]
    }
    fn actions(&self, _: &(S, S), actions: &mut Vec<()>) {
        actions.push(());
    }
    fn next_state(&self, (left, right): &(S, S), _: ()) -> Option<(S, S)> {
        Some((right.clone(), left.clone()))
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("it lies left", |_, (left, _): &(S, S)| *left != S::default())]
    }
}

fn said<S: Clone + Default + Hash + PartialEq>(checker: &impl Checker<Token<S>>) -> String {
    let verdict = if checker.discovery("it lies left").is_some() { "violated" } else { "holds" };
    format!("{verdict}, states {}", checker.unique_state_count())
}

fn token<S>(what: &str, one: S)
where
    S: Clone + Default + Hash + PartialEq + Send + Sync + 'static,
{
    let model = Token(one);
    let start = &model.init_states()[0];
    assert!(model.next_state(start, ()).unwrap() != *start);
    let breadth_first = model.clone().checker().spawn_bfs().join();
    let depth_first = model.checker().spawn_dfs().join();
    println!("{what:15} bfs {}; dfs {}", said(&breadth_first), said(&depth_first));
}

/// Has a timer that goes off, and does nothing then.
struct Alarm;

impl Actor for Alarm {
    type Msg = ();
    type State = ();
    type Timer = ();
    type Random = ();
    type Storage = ();

    fn on_start(&self, _: Id, _: &Option<()>, out: &mut Out<Self>) {
        out.set_timer((), Duration::from_secs(1)..Duration::from_secs(2));
    }
    fn on_timeout(&self, _: Id, _: &mut Cow<()>, _: &(), _: &mut Out<Self>) {}
}

fn first(actor: usize, state: &ActorModelState<Alarm>) -> bool {
    let off = |timer: usize| state.timers_set[timer].iter().next().is_none();
    (0..3).all(|other| off(other) == (other == actor))
}

fn alarms() -> ActorModel<Alarm> {
    ActorModel::new((), ())
        .actors([Alarm, Alarm, Alarm])
        .property(Expectation::Sometimes, "0", |_, state| first(0, state))
        .property(Expectation::Sometimes, "1", |_, state| first(1, state))
        .property(Expectation::Sometimes, "2", |_, state| first(2, state))
}

fn main() {
    token("BTreeSet", BTreeSet::from([7]));
    token("BTreeMap", BTreeMap::from([(7, 1)]));
    token("HashableHashSet", <HashableHashSet<_>>::from_iter([7]));
    token("HashableHashMap", <HashableHashMap<_, _>>::from_iter([(7, 1)]));
    let breadth_first = alarms().checker().spawn_bfs().join();
    let depth_first = alarms().checker().spawn_dfs().join();
    for timer in ["0", "1", "2"] {
        let seen = |found: bool| if found { "sometimes the first" } else { "never the first" };
        let bfs = seen(breadth_first.discovery(timer).is_some());
        let dfs = seen(depth_first.discovery(timer).is_some());
        println!("timer {timer}         bfs {bfs}; dfs {dfs}");
    }
    let [bfs, dfs] = [breadth_first.unique_state_count(), depth_first.unique_state_count()];
    println!("three timers    bfs states {bfs}; dfs states {dfs}");
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
grep -q fd1157f21b11916f90fe1f2ac9a8d0e09a8813b28701584141060f414eedf6ba Cargo.lock ||
    { echo "stateright 0.31.0 is not the one meant" >&2; exit 2; }
cargo build --quiet --release --target-dir "$dir/target"
"$dir/target/release/sets" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
BTreeSet        bfs violated, states 2; dfs violated, states 2
BTreeMap        bfs violated, states 2; dfs violated, states 2
HashableHashSet bfs holds, states 1; dfs holds, states 1
HashableHashMap bfs holds, states 1; dfs holds, states 1
timer 0         bfs sometimes the first; dfs sometimes the first
timer 1         bfs never the first; dfs never the first
timer 2         bfs never the first; dfs never the first
three timers    bfs states 4; dfs states 4
EOF
echo "stateright 0.31.0: a token moved between two sets; three timers that go off one by one"
echo "expected: violated, states 2, by all; each timer sometimes the first, states 8; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: states that differ in where one set ends and the next one starts are one"
