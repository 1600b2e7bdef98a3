//! The laboratory: scenario documents in, kernel code on every machine, answers out.
//!
//! | module | what |
//! |---|---|
//! | `session` | a check, a replay or a stress as it comes from outside, JSON in and out |
//! | `document`, `scenario` | the scenario as it is written, and as it runs |
//! | `world`, `setup` | the explored machine as the engine's model, and how a kernel gets into it |
//! | `programs`, `script` | kernel operations as bodies of actors, listed beforehand or asked for one by one |
//! | `live`, `stress` | kernel code on real threads |
//! | `costed` | kernel code on a machine that charges for it, with so many CPUs |
//! | `dump_check` | the rules, asked of a dump |

pub mod costed;
pub mod document;
pub mod dump_check;
pub mod live;
pub mod programs;
pub mod scenario;
pub mod script;
pub mod session;
pub mod setup;
pub mod stress;
pub mod world;
