//! Both histories of a violation: who gave the frame or table away, who still had it in hand, who holds which lock.

use serde::Serialize;

use crate::counterexample::trace::TraceViolation;
use crate::model::Model;
use crate::runtime::actor::Step;
use crate::runtime::execution::Actors;

/// What an actor last did to the frame that the violation is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Gave it back to the page allocator.
    Freed,
    /// Cleared the entry that led to it.
    Unlinked,
    /// Worked on it, or read or wrote an entry that leads to it.
    Held,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct History {
    pub role: Role,
    pub actor: String,
    pub cpu: u8,
    /// Number of the step, from 1.
    pub step: u32,
    pub op: String,
    pub label: String,
    pub place: String,
}

/// A lock that an actor holds at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Held {
    pub actor: String,
    pub lock: String,
    pub step: u32,
}

/// The frame that a violation is about: the one at the address that it names if its last step touches it, else the one
/// that the last step works on.
#[must_use]
pub fn concerned(steps: &[Step], violation: &TraceViolation) -> Option<u64> {
    let last = steps.last().filter(|s| !s.broke.is_empty());
    let touched =
        |s: &Step| violation.address.filter(|a| s.text.about.contains(a)).or_else(|| s.text.about.first().copied());
    // A judgement touches nothing itself: then the last step at the address that it names.
    let named = || steps.iter().rev().find(|s| violation.address.is_some() && s.text.address == violation.address);
    last.and_then(touched).or_else(|| named().and_then(touched))
}

fn role(step: &Step, frame: u64) -> Option<Role> {
    let at = step.text.about.iter().position(|f| *f == frame)?;
    Some(match step.text.op.as_str() {
        "free" => Role::Freed,
        "write" | "swap" | "cmpxchg" if at != 0 && step.text.new == Some(0) => Role::Unlinked,
        _ => Role::Held,
    })
}

/// The last step of each actor in each role, in the order of the steps.
#[must_use]
pub fn histories<M: Model, A: Actors<M>>(steps: &[Step], violation: &TraceViolation, actors: &A) -> Vec<History> {
    let Some(frame) = concerned(steps, violation) else { return Vec::new() };
    let mut last: Vec<(u8, Role, usize)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let Some(role) = role(step, frame) else { continue };
        last.retain(|(actor, r, _)| (*actor, *r) != (step.actor, role));
        last.push((step.actor, role, at));
    }
    // Who gave it away knows that it is gone.
    let gone: Vec<(u8, usize)> =
        last.iter().filter(|(_, r, _)| *r != Role::Held).map(|(actor, _, at)| (*actor, *at)).collect();
    last.retain(|(actor, role, at)| *role != Role::Held || !gone.iter().any(|(a, given)| a == actor && given >= at));
    let reported = |(actor, role, at): (u8, Role, usize)| History {
        role,
        actor: actors.name(usize::from(actor)).to_owned(),
        cpu: actors.cpu(usize::from(actor)),
        step: at as u32 + 1,
        op: steps[at].text.op.clone(),
        label: steps[at].label.to_owned(),
        place: steps[at].text.place.clone(),
    };
    last.into_iter().map(reported).collect()
}

/// Locks taken and not released, in the order in which they were taken.
#[must_use]
pub fn locks<M: Model, A: Actors<M>>(steps: &[Step], actors: &A) -> Vec<Held> {
    let mut held: Vec<(u8, String, u32)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let name = || match step.text.op.as_str() {
            "rcu_read_lock" | "rcu_read_unlock" => String::from("rcu_read_lock"),
            _ => step.text.place.clone(),
        };
        match step.text.op.as_str() {
            "lock" | "rcu_read_lock" => held.push((step.actor, name(), at as u32 + 1)),
            "trylock" if step.text.new == Some(1) => held.push((step.actor, name(), at as u32 + 1)),
            "unlock" | "rcu_read_unlock" => {
                let name = name();
                if let Some(i) = held.iter().rposition(|(actor, lock, _)| *actor == step.actor && *lock == name) {
                    held.remove(i);
                }
            }
            _ => {}
        }
    }
    held.into_iter()
        .map(|(actor, lock, step)| Held { actor: actors.name(usize::from(actor)).to_owned(), lock, step })
        .collect()
}
