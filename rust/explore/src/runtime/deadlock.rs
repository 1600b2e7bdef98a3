//! Who waits for whom.

use vmemmap_arch::Invariant;

use crate::model::{MAX_ACTORS, Model, Violation};
use crate::runtime::execution::Actors;
use crate::runtime::runner::Runner;

impl<M: Model, A: Actors<M>> Runner<'_, M, A> {
    /// Looks for a deadlock: nobody can go, or blocked actors wait for each other in a ring. Records I25.
    pub(crate) fn find_deadlock(&self, enabled: u16, blocked: u16) -> bool {
        if blocked == 0 {
            return false;
        }
        let mut inner = self.inner();
        if !inner.own_violations.is_empty() {
            return true;
        }
        let mut waits = [0u16; MAX_ACTORS];
        for (i, wait) in waits.iter_mut().enumerate().take(self.count()) {
            if blocked & 1 << i != 0
                && let Some(op) = inner.actors[i].pending
            {
                *wait = inner.model.waits_for(i as u8, &op);
            }
        }
        let ring = ring_of(&waits[..self.count()], blocked);
        if enabled != 0 && ring.is_empty() {
            return false;
        }
        let who: Vec<usize> =
            if ring.is_empty() { (0..self.count()).filter(|i| blocked & 1 << i != 0).collect() } else { ring };
        let mut parts = Vec::new();
        for &i in &who {
            let op = inner.actors[i].pending.expect("a blocked actor has a pending operation");
            let text = inner.model.describe(i as u8, &op);
            let for_whom: Vec<&str> =
                (0..self.count()).filter(|j| waits[i] & 1 << j != 0).map(|j| self.actors().name(j)).collect();
            let holder =
                if for_whom.is_empty() { String::from("nobody who could wake it") } else { for_whom.join(" and ") };
            let held = inner.model.held(i as u8);
            let holding = if held.is_empty() { String::new() } else { format!(", holding {}", held.join(" and ")) };
            let label = inner.actors[i].label;
            let place = if label.is_empty() { String::new() } else { format!(" in {label}") };
            let at = format!("{} {}", text.op, text.place);
            let waits = if inner.model.is_interrupted(i as u8) {
                format!("is interrupted before {}{place} by", at.trim_end())
            } else {
                format!("waits at {}{place} for", at.trim_end())
            };
            parts.push(format!("{} {waits} {holder}{holding}", self.actors().name(i)));
        }
        let violation = Violation {
            invariant: Invariant::LockOrder,
            address: 0,
            actor: who[0] as u8,
            step: u64::from(inner.steps),
            message: format!("deadlock: {}", parts.join("; ")),
            evidence: (),
        };
        inner.own_violations.push(violation);
        inner.note_broken(Invariant::LockOrder);
        inner.halted |= inner.ending.contains(Invariant::LockOrder);
        true
    }
}

/// A ring in the wait-for graph, in order; empty if there is none.
fn ring_of(waits: &[u16], blocked: u16) -> Vec<usize> {
    for start in 0..waits.len() {
        let mut path = vec![start];
        if let Some(ring) = walk(waits, blocked, start, &mut path) {
            return ring;
        }
    }
    Vec::new()
}

fn walk(waits: &[u16], blocked: u16, start: usize, path: &mut Vec<usize>) -> Option<Vec<usize>> {
    let last = *path.last()?;
    if blocked & 1 << last == 0 {
        return None;
    }
    for next in 0..waits.len() {
        if waits[last] & 1 << next == 0 {
            continue;
        }
        if next == start {
            return Some(path.clone());
        }
        if !path.contains(&next) {
            path.push(next);
            if let Some(ring) = walk(waits, blocked, start, path) {
                return Some(ring);
            }
            path.pop();
        }
    }
    None
}
