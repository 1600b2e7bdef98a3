//! A machine that is made of another's tables is that machine: the kernel's variables, the use of every frame and every
//! struct page are what booting and the operations since have left.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vmemmap_arch::{Geometry, Granule, Layout, Level, Pa, Var, Version, Zone};
use vmemmap_kernel::state::{Scalar, Section, section_flag};
use vmemmap_kernel::{Kernel, Operation, Policies, Ram};
use vmemmap_lab::live::{HugepageRun, LiveMachine, RealMachine, RealSection, RealTables};

const BASE: u64 = 0x4000_0000;

/// What is done to a booted machine before its tables are taken.
#[derive(Clone, Copy, Debug)]
struct Done {
    granule: Granule,
    version: Version,
    hvo: bool,
    boot_sections: u64,
    /// The last boot section lacks a part.
    ragged: bool,
    /// Hot-added sections: with their struct pages inside themselves, and whether they are online then.
    added: [Option<(bool, bool)>; 2],
    hugepages: u64,
}

fn done() -> impl Strategy<Value = Done> {
    let granule = prop_oneof![Just(Granule::K4), Just(Granule::K16), Just(Granule::K64)];
    let version = (0..Version::ALL.len()).prop_map(|n| Version::ALL[n]);
    let added = [any::<Option<(bool, bool)>>(), any::<Option<(bool, bool)>>()];
    (granule, version, any::<bool>(), 2u64..5, any::<bool>(), added, 0u64..4).prop_map(
        |(granule, version, hvo, boot_sections, ragged, added, hugepages)| Done {
            granule,
            version,
            hvo,
            boot_sections,
            ragged,
            added,
            hugepages,
        },
    )
}

fn ram(g: &Geometry, done: &Done) -> [Ram; 2] {
    let size = g.section_size();
    let missing = if done.ragged { size / 4 } else { 0 };
    let hot = BASE + (done.boot_sections + 1) * size;
    [
        Ram { start: Pa(BASE), bytes: done.boot_sections * size - missing, boot: true },
        Ram { start: Pa(hot), bytes: done.added.len() as u64 * size, boot: false },
    ]
}

fn machine(done: &Done) -> LiveMachine {
    let g = Geometry::new(done.granule, 48).unwrap();
    let layout = Layout::new(g, done.version, BASE as i64).unwrap();
    let ram = ram(&g, done);
    let live = LiveMachine::boot(Kernel::new(layout, Policies::default(), &ram, done.hvo), true).unwrap();
    let bytes = g.section_size();
    for (n, added) in (0..).zip(done.added) {
        let Some((memmap_on_memory, online)) = added else { continue };
        let start = ram[1].start.plus(n * bytes);
        let add = |memmap_on_memory| live.run(&Operation::MemoryAdd { start, bytes, memmap_on_memory });
        // Not every kernel lets every section hold its own.
        add(memmap_on_memory).or_else(|_| add(false)).unwrap();
        if online {
            live.run(&Operation::MemoryOnline { start, bytes, zone: Zone::Movable }).unwrap();
        }
    }
    for _ in 0..done.hugepages {
        // As many as there is memory for.
        let _ = live.run(&Operation::HugetlbAlloc { hstate: 0, at: None });
    }
    live
}

/// What a dump of it would show.
fn loaded(live: &LiveMachine, done: &Done) -> LiveMachine {
    let k = live.kernel();
    let g = &k.geometry;
    let own = |start: Pa| {
        let frame = live.translate(k.layout.page_va(g.pfn(start))).and_then(|walk| walk.output);
        frame.is_some_and(|pa| pa >= start && pa.0 < start.0 + g.section_size())
    };
    let sections = live.sections().into_iter().map(|(start, early)| {
        let flags = live.machine().var(k.vars.section(k.vars.section_number(start), Section::MemMap));
        let online = flags & section_flag::IS_ONLINE != 0;
        RealSection { start, early, online, self_hosted: !early && own(start) }
    });
    let words: Vec<(Pa, Level, Vec<u64>)> = live
        .machine()
        .tables()
        .into_iter()
        .map(|(pa, level)| {
            let words = live.machine().table_words(pa).unwrap();
            (pa, level, words.iter().map(|word| word.load(Ordering::Relaxed)).collect())
        })
        .collect();
    let real = RealTables {
        machine: RealMachine {
            layout: k.layout,
            root: live.machine().root(),
            ram: ram(g, done).to_vec(),
            sections: sections.collect(),
            hugepages: HugepageRun::of(live.pages(0)),
            hvo: done.hvo,
            extra_prot: 0,
        },
        tables: words.iter().map(|(pa, level, words)| (*pa, *level, words.as_slice())).collect(),
    };
    LiveMachine::load(&real, Policies::default(), true).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn a_loaded_machine_is_the_one_whose_tables_were_taken(done in done()) {
        let live = machine(&done);
        let again = loaded(&live, &done);
        let (k, g) = (live.kernel(), live.kernel().geometry);
        // What was counted since boot cannot be seen in tables.
        let since_boot = k.vars.scalar(Scalar::NrPagetable);
        for var in (0..k.vars.count() as u32).map(Var).filter(|var| *var != since_boot) {
            prop_assert_eq!(again.machine().var(var), live.machine().var(var), "{:?}", var);
        }
        for frame in k.ram().iter().flat_map(|ram| (0..ram.bytes >> g.page_shift()).map(|n| g.pfn(ram.start).plus(n))) {
            let pa = g.pa(frame);
            prop_assert_eq!(again.machine().frame_info(pa), live.machine().frame_info(pa), "frame {}", pa);
            prop_assert_eq!(again.struct_page(frame), live.struct_page(frame), "struct page of {}", pa);
        }
        prop_assert_eq!(again.machine().violations(), vec![]);
        prop_assert_eq!(again.check().0, vec![]);
    }
}
