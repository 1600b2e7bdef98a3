//! Actors whose steps are answers rather than data: which operation comes next depends on the results of those before.
//!
//! Whoever knows (Python) is asked once for each distinct history, with its steps driven from their start. The answers
//! are kept in a trie for each actor; an actor's coroutine has no more than the number of a node in hand. Where no
//! answer is known it suspends, and the search asks on its own stack: no foreign frame ever lies on a coroutine's,
//! where CPython 3.14 may abort and where nothing may own anything (see `coroutine`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::runtime::execution::Answer;
use rustc_hash::FxHashMap;
use serde::Serialize;
use thiserror::Error;

/// Results after which a history counts as endless, in one round of an actor: a bound was exceeded then. A loop that
/// tries again until it succeeds has no end in an exploration, where it may be all that ever runs.
pub const MAX_RESULTS: usize = 1000;

/// Histories of an actor that are kept from one round of a stress to the next.
const MANY: usize = 100_000;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// Somebody wants the search to end.
    Interrupted,
    /// The steps failed; one line for people.
    Failed(String),
}

/// Drives an actor's steps from their start: when they are sent these results, one after the other (a value, or the
/// errno as a negative number), they yield so many operations and one; a `None` is their end, and the last.
pub type Source<'s, S> = dyn Fn(usize, &[i64]) -> Result<Vec<Option<S>>, Unanswered> + Sync + 's;

/// An operation as it is answered.
pub trait Scripted: Clone + PartialEq + Display {
    /// As it runs. A coroutine has one on its stack: it owns nothing.
    type Operation: Clone + PartialEq;
    /// What it takes to run it.
    type Context: ?Sized;
    fn resolve(&self, context: &Self::Context) -> Self::Operation;
    /// Its name.
    fn kind(&self) -> String;
}

/// What is wrong with an actor's steps; one line for people. Steps count from 1.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ScriptError {
    #[error("actor {actor:?}, step {step}: {what}")]
    Step { actor: String, step: usize, what: String },
    #[error(
        "actor {actor:?}, step {step}: after the same results it answered {first} once and {second} now; steps may \
            depend on results only"
    )]
    Nondeterministic { actor: String, step: usize, first: String, second: String },
}

/// What an actor does after a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next<O> {
    /// Nobody has been asked yet.
    Unknown,
    End,
    Run(O),
}

/// The history of an actor that has done nothing yet.
pub const ROOT: u32 = 0;

struct Node<S: Scripted> {
    parent: u32,
    /// The result that leads here from `parent`.
    sent: i64,
    answer: Option<Option<(S, S::Operation)>>,
}

impl<S: Scripted> Node<S> {
    const fn new(parent: u32, sent: i64) -> Self {
        Self { parent, sent, answer: None }
    }
}

struct Trie<S: Scripted> {
    nodes: Vec<Node<S>>,
    children: FxHashMap<(u32, i64), u32>,
}

impl<S: Scripted> Default for Trie<S> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(ROOT, 0)], children: FxHashMap::default() }
    }
}

impl<S: Scripted> Trie<S> {
    fn child(&mut self, node: u32, sent: i64) -> u32 {
        let fresh = self.nodes.len() as u32;
        let child = *self.children.entry((node, sent)).or_insert(fresh);
        if child == fresh {
            self.nodes.push(Node::new(node, sent));
        }
        child
    }

    /// From the root, which is not part of it, to `node`.
    fn path(&self, mut node: u32) -> Vec<u32> {
        let mut path = Vec::new();
        while node != ROOT {
            path.push(node);
            node = self.nodes[node as usize].parent;
        }
        path.reverse();
        path
    }
}

/// How much was asked of one actor's steps, with the keys of `explore --json`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Asked {
    /// Distinct histories, each asked for once.
    pub histories: usize,
    /// The kinds of operation that were answered.
    pub operations: Vec<String>,
}

/// What the actors' steps have answered so far.
pub struct Transcript<'s, S: Scripted> {
    context: &'s S::Context,
    names: Vec<String>,
    source: &'s Source<'s, S>,
    tries: Mutex<Vec<Trie<S>>>,
    failure: Mutex<Option<ScriptError>>,
    interrupted: AtomicBool,
}

/// What a thread that panicked left is whole: each change of it is one call.
fn own<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'s, S: Scripted> Transcript<'s, S> {
    /// `names` of all actors, those with a program included.
    pub fn new(context: &'s S::Context, names: Vec<String>, source: &'s Source<'s, S>) -> Self {
        let tries = names.iter().map(|_| Trie::default()).collect();
        Self {
            context,
            names,
            source,
            tries: Mutex::new(tries),
            failure: Mutex::new(None),
            interrupted: AtomicBool::new(false),
        }
    }

    /// Whether the search is to end: the steps failed, or somebody wants it to.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.interrupted.load(Relaxed) || own(&self.failure).is_some()
    }

    /// # Errors
    /// The steps of an actor failed, or answered differently for the same history.
    pub fn check(&self) -> Result<(), ScriptError> {
        own(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Forgets the answers, if they are many: where threads really run, histories repeat less. Nobody is in one now.
    pub fn thin_out(&self) {
        for trie in own(&self.tries).iter_mut().filter(|trie| trie.nodes.len() > MANY) {
            *trie = Trie::default();
        }
    }

    /// What the actor does after the history `node`.
    #[must_use]
    pub fn next(&self, actor: usize, node: u32) -> Next<S::Operation> {
        match &own(&self.tries)[actor].nodes[node as usize].answer {
            None => Next::Unknown,
            Some(None) => Next::End,
            Some(Some((_, operation))) => Next::Run(operation.clone()),
        }
    }

    /// The history that goes on from `node` with the result of its operation, as the steps are sent it.
    #[must_use]
    pub fn after(&self, actor: usize, node: u32, result: i64) -> u32 {
        own(&self.tries)[actor].child(node, result)
    }

    /// Asks what comes after the history `node`. Never on a coroutine's stack.
    #[must_use]
    pub fn ask(&self, actor: usize, node: u32) -> Answer {
        if self.is_over() {
            return Answer::None;
        }
        let (path, results) = {
            let tries = own(&self.tries);
            let path = tries[actor].path(node);
            let results: Vec<i64> = path.iter().map(|n| tries[actor].nodes[*n as usize].sent).collect();
            (path, results)
        };
        if results.len() > MAX_RESULTS {
            return Answer::Beyond;
        }
        let answers = match (self.source)(actor, &results) {
            Ok(answers) => answers,
            Err(Unanswered::Interrupted) => {
                self.interrupted.store(true, Relaxed);
                return Answer::None;
            }
            Err(Unanswered::Failed(what)) => {
                return self.fail(ScriptError::Step {
                    actor: self.names[actor].clone(),
                    step: results.len() + 1,
                    what,
                });
            }
        };
        let mut tries = own(&self.tries);
        let nodes = &mut tries[actor].nodes;
        let mut answers = answers.into_iter();
        for (at, node) in std::iter::once(ROOT).chain(path).enumerate() {
            let answer = answers.next().flatten();
            let answer = answer
                .map(|document| (document.resolve(self.context), document))
                .map(|(operation, document)| (document, operation));
            match &nodes[node as usize].answer {
                None => nodes[node as usize].answer = Some(answer),
                Some(known) if *known == answer => {}
                Some(known) => {
                    let (first, second) = (reported(known.as_ref()), reported(answer.as_ref()));
                    return self.fail(ScriptError::Nondeterministic {
                        actor: self.names[actor].clone(),
                        step: at + 1,
                        first,
                        second,
                    });
                }
            }
        }
        Answer::Given
    }

    fn fail(&self, error: ScriptError) -> Answer {
        *own(&self.failure) = Some(error);
        Answer::None
    }

    /// The operation that the actor does after the history `node`, as it was answered.
    #[must_use]
    pub fn document(&self, actor: usize, node: u32) -> Option<S> {
        own(&self.tries)[actor].nodes[node as usize].answer.as_ref()?.as_ref().map(|(document, _)| document.clone())
    }

    /// By actor, those whose steps were asked for.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, Asked> {
        let tries = own(&self.tries);
        let of = |trie: &Trie<S>| {
            let answers = trie.nodes.iter().filter_map(|n| n.answer.as_ref());
            let mut operations: Vec<String> = answers.clone().flatten().map(|(document, _)| document.kind()).collect();
            operations.sort_unstable();
            operations.dedup();
            Asked { histories: answers.count(), operations }
        };
        self.names.iter().cloned().zip(tries.iter().map(of)).filter(|(_, asked)| asked.histories != 0).collect()
    }
}

fn reported<S: Scripted>(answer: Option<&(S, S::Operation)>) -> String {
    answer.map_or_else(|| String::from("nothing more"), |(document, _)| document.to_string())
}
