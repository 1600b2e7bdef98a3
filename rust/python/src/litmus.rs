//! Litmus tests: a text and options in, an answer out as JSON.

use std::time::Duration;

use pyo3::prelude::*;
use serde_json::json;
use vmemmap_litmus::{Budget, Memory, Options, run};
use vmemmap_machine::Ets;

use crate::errors::{Error, guarded};
use crate::interrupt::{Stop, interruptible};

/// Run one test. `memory` is `sc`, `views` or `promises`, `ets` is `none`, `2` or `3`; without a budget it runs to the
/// end. What is not read is `{"line": …, "refused": …}`.
#[pyfunction]
#[pyo3(signature = (text, memory, ets, steps = None, seconds = None))]
pub fn litmus(
    py: Python<'_>,
    text: &str,
    memory: &str,
    ets: &str,
    steps: Option<u64>,
    seconds: Option<f64>,
) -> PyResult<String> {
    guarded(py, || {
        let memory = match memory {
            "sc" => Memory::Sc,
            "views" => Memory::Views,
            "promises" => Memory::Promises,
            other => return Err(Error::Spec(format!("memory {other:?}: it is sc, views or promises"))),
        };
        let ets = match ets {
            "none" => Ets::None,
            "2" => Ets::Two,
            "3" => Ets::Three,
            other => return Err(Error::Spec(format!("ets {other:?}: it is none, 2 or 3"))),
        };
        let budget = match (steps, seconds) {
            (Some(steps), _) => Budget::Steps(steps),
            (None, Some(seconds)) => match Duration::try_from_secs_f64(seconds) {
                Ok(time) => Budget::Time(time),
                Err(_) => return Err(Error::Spec(format!("a budget of {seconds} s"))),
            },
            (None, None) => Budget::Steps(u64::MAX),
        };
        let options = Options { memory, ets, budget };
        let stop = Stop::default();
        let work = || run(text, &options, &|| stop.is_set());
        let (answer, pending) = interruptible(py, work, || stop.set(), |_| Ok(()))?;
        if let Some(error) = pending {
            return Err(error.into());
        }
        Ok(match answer {
            Ok(answer) => json!(answer).to_string(),
            Err(refusal) => json!({ "line": refusal.line, "refused": refusal.what }).to_string(),
        })
    })
}
