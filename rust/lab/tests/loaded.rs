//! A machine that is made of another's tables is that machine: the kernel's variables, the use of every frame and every
//! struct page are what booting and the operations since have left.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vmemmap_arch::{Geometry, Granule, Layout, Level, Pa, Pfn, Var, Version, Zone};
use vmemmap_kernel::mmzone::MMOP_ONLINE_MOVABLE;
use vmemmap_kernel::state::{Block, Hpage, Hstate, Scalar, Section, ZONE_TAILS, ZONES, section_flag};
use vmemmap_kernel::{Kernel, Operation, Policies, Ram};
use vmemmap_lab::live::{HugepageRun, LiveMachine, RealMachine, RealSection, RealTables};

const BASE: u64 = 0x4000_0000;

/// What is done to a booted machine before its tables are taken.
#[derive(Clone, Debug)]
struct Done {
    granule: Granule,
    version: Version,
    hvo: bool,
    boot_sections: u64,
    /// The last boot section lacks a part.
    ragged: bool,
    /// Hot-added sections: with their struct pages inside themselves, and whether they are online then.
    added: [Option<(bool, bool)>; 2],
    /// The sizes of hugepages that are allocated, by their number.
    hugepages: Vec<u8>,
}

fn done() -> impl Strategy<Value = Done> {
    let granule = prop_oneof![Just(Granule::K4), Just(Granule::K16), Just(Granule::K64)];
    let version = (0..Version::ALL.len()).prop_map(|n| Version::ALL[n]);
    let added = [any::<Option<(bool, bool)>>(), any::<Option<(bool, bool)>>()];
    (granule, version, any::<bool>(), 2u64..5, any::<bool>(), added, proptest::collection::vec(0u8..2, 0..4)).prop_map(
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
            let zone = if n % 2 == 0 { Zone::Movable } else { Zone::Normal };
            live.run(&Operation::MemoryOnline { start, bytes, zone }).unwrap();
        }
    }
    for &hstate in &done.hugepages {
        // As many as there is memory for.
        let _ = live.run(&Operation::HugetlbAlloc { hstate, at: None });
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
        let block = live.machine().var(k.vars.block(k.vars.section_number(start), Block::Zone));
        let zone = if block == MMOP_ONLINE_MOVABLE { Zone::Movable } else { Zone::Normal };
        let online = (flags & section_flag::IS_ONLINE != 0).then_some(zone);
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
            hugepages: HugepageRun::of((0..2).flat_map(|h| live.pages(h))),
            hvo: done.hvo,
            extra_prot: 0,
        },
        tables: words.iter().map(|(pa, level, words)| (*pa, *level, words.as_slice())).collect(),
    };
    LiveMachine::load(&real, Policies::default(), true).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn a_loaded_machine_is_the_one_whose_tables_were_taken(done in done()) {
        let live = machine(&done);
        let again = loaded(&live, &done);
        let (k, g) = (live.kernel(), live.kernel().geometry);
        // What was counted since boot cannot be seen in tables.
        let since_boot = k.vars.scalar(Scalar::NrPagetable);
        // Nor, whether a frame of struct pages is from boot: that of the head may have been copied since.
        let memmap = [Scalar::NrMemmapBootPages, Scalar::NrMemmapPages].map(|counter| k.vars.scalar(counter));
        let counted = |of: &LiveMachine| memmap.map(|counter| of.machine().var(counter) as i64);
        prop_assert_eq!(counted(&again).iter().sum::<i64>(), counted(&live).iter().sum::<i64>());
        prop_assert!(counted(&again).iter().all(|&pages| pages >= 0), "{:?}", counted(&again));
        // Nor in what order the free pages of a pool came.
        let lists = [0, 1].map(|h| k.vars.hstate(h, Hstate::FreeList));
        for h in 0..2 {
            prop_assert_eq!(again.pages(h), live.pages(h));
        }
        // Nor a tail frame of a zone that no page shares (its first could not be optimised).
        let page = g.page_size();
        let last = |(head, pages): (Pfn, u64)| live.translate(k.layout.page_va(head.plus(pages - 1)))?.output;
        let shared: Vec<Pa> =
            (0..2).flat_map(|h| live.pages(h)).filter_map(last).map(|pa| pa.align_down(page)).collect();
        let tails = (0..ZONES).flat_map(|zone| (0..ZONE_TAILS).map(move |n| k.vars.zone_tail(zone, n)));
        let unseen: Vec<(Var, Pa)> = tails
            .map(|slot| (slot, Pa(live.machine().var(slot))))
            .filter(|(_, pa)| pa.0 != 0 && !shared.contains(pa))
            .collect();
        let is_unseen = |var: &Var| unseen.iter().any(|(slot, _)| slot == var);
        let same =
            |var: &Var| *var != since_boot && !memmap.contains(var) && !lists.contains(var) && !is_unseen(var);
        for var in (0..k.vars.hpage(0, Hpage::Next).0).map(Var).filter(same) {
            prop_assert_eq!(again.machine().var(var), live.machine().var(var), "{:?}", var);
        }
        for frame in k.ram().iter().flat_map(|ram| (0..ram.bytes >> g.page_shift()).map(|n| g.pfn(ram.start).plus(n))) {
            let pa = g.pa(frame);
            if unseen.iter().any(|(_, tail)| *tail == pa) {
                continue;
            }
            prop_assert_eq!(again.machine().frame_info(pa), live.machine().frame_info(pa), "frame {}", pa);
            prop_assert_eq!(again.struct_page(frame), live.struct_page(frame), "struct page of {}", pa);
        }
        prop_assert_eq!(again.machine().violations(), vec![]);
        prop_assert_eq!(again.check().0, vec![]);
    }
}
