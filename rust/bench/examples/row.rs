//! The rows named on the command line, without Python: what a profiler is pointed at.
//! `cargo run --profile profiling -p vmemmap-bench --example row -- populate hotplug-section`

use vmemmap_bench::{BenchError, Effort, measure, rows};

#[allow(clippy::print_stdout)]
fn main() -> Result<(), BenchError> {
    let mut named: Vec<String> = std::env::args().skip(1).collect();
    let quick = named.iter().position(|word| word == "--quick").map(|at| named.remove(at));
    let effort = if quick.is_some() { Effort::Quick } else { Effort::Full };
    if named.is_empty() {
        named = rows().map(str::to_owned).collect();
    }
    for name in named {
        let row = measure(&name, effort, &|| false)?;
        println!("{name:22} {:11.4e} {:11.4e} {:12} {:8.3}", row.value, row.limit, row.unit, row.value / row.limit);
    }
    Ok(())
}
