//! The machine code of one exchange, as shown in `docs/assembly.md`; and its time beside a bare exchange.
//!
//! `cargo build --release -p vmemmap-machine --example asm_swap`, then `objdump -d -M intel` and look for
//! `native_swap`.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use vmemmap_arch::{Cpu, Desc, Geometry, Granule, Level, Order, Pa, Slot};
use vmemmap_machine::{Machine, MachineConfig, Native, RamRange};

/// `Cpu::swap` of the unchecked machine.
#[inline(never)]
pub fn native_swap(cpu: &Native<'_>, at: Slot<()>, new: Desc) -> Desc {
    cpu.swap(at, new, Order::Relaxed).desc
}

const ROUNDS: u64 = 10_000_000;

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let config = MachineConfig {
        geometry: Geometry { granule: Granule::K4, va_bits: 48, levels: 4 },
        ram: vec![RamRange { start: Pa(0x4000_0000), bytes: 64 << 20, boot: true }],
        cpus: 1,
        vars: 0,
        root: None,
        seed: 0,
    };
    let machine = match Machine::new(&config) {
        Ok(machine) => machine,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let cpu = machine.cpu(0);
    let at = |i: u64| Slot { table: machine.root(), index: (i & 511) as u16, level: Level(0), tok: () };
    black_box(native_swap(black_box(&cpu), black_box(at(1)), black_box(Desc(1))));
    let bare: Vec<AtomicU64> = (0..512).map(AtomicU64::new).collect();
    let checked = machine.checked_cpu(0);
    let root = checked.root();
    for _ in 0..3 {
        let start = Instant::now();
        for i in 0..ROUNDS {
            black_box(bare[(i & 511) as usize].swap(i, Ordering::Relaxed));
        }
        let limit = start.elapsed();
        let start = Instant::now();
        for i in 0..ROUNDS {
            black_box(cpu.swap(at(i), Desc(i), Order::Relaxed));
        }
        let native = start.elapsed();
        let start = Instant::now();
        for i in 0..ROUNDS / 10 {
            let slot = Slot { table: root.pa, index: (i & 511) as u16, level: Level(0), tok: root.tok };
            black_box(checked.swap(slot, Desc::NONE, Order::Relaxed));
        }
        let with_checks = start.elapsed() * 10;
        let ns = |d: std::time::Duration| d.as_nanos() as f64 / ROUNDS as f64;
        println!("bare {:.2} ns, native {:.2} ns, checked {:.1} ns", ns(limit), ns(native), ns(with_checks));
    }
    ExitCode::SUCCESS
}
