//! Who waits for whom.

/// A ring in the wait-for graph, in order; empty if there is none.
pub(crate) fn ring_of(waits: &[u16], blocked: u16) -> Vec<usize> {
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
