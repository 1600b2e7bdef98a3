//! Reference counts of struct pages: what each function leaves in the word that holds `_mapcount` and `_refcount`.

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::contents::word;
use vmemmap_arch::{Cpu, Granule, Order, Pa, Version};
use vmemmap_kernel::Policies;
use vmemmap_kernel::page::{
    page_ref_add_unless, page_ref_count, page_ref_freeze, put_page_testzero, read_word, set_page_count, word_va,
    write_word,
};
use vmemmap_kernel::policy::{Atomics, PageRef, Row};

const COUNTS: [u32; 5] = [0, 1, 2, 7, u32::MAX - 1];
const MAPCOUNTS: [u32; 3] = [0, 3, u32::MAX];

#[test]
fn a_reference_changes_the_count_and_nothing_beside_it() {
    for (atomics, page_ref) in Atomics::ALL.iter().flat_map(|&a| PageRef::ALL.iter().map(move |&p| (a, p))) {
        let m = Lab::new(Granule::K4, Version::V6_12, 1, true, Policies { atomics, page_ref, ..Policies::default() });
        let (cpu, page) = (m.cpu(), m.k.layout.page_va(m.k.geometry.pfn(Pa(BASE))));
        let write = |count: u32, mapcount: u32| {
            cpu.store(word_va(page, word::COUNT), u64::from(count) << 32 | u64::from(mapcount), Order::Plain);
        };
        let read = || {
            let both = read_word(&cpu, page, word::COUNT);
            ((both >> 32) as u32, both as u32)
        };
        for (count, mapcount) in COUNTS.into_iter().flat_map(|count| MAPCOUNTS.map(|mapcount| (count, mapcount))) {
            let case = format!("{atomics:?}, {page_ref:?}: {count} and {mapcount:#x}");
            for unless in COUNTS {
                write(count, mapcount);
                assert_eq!(page_ref_add_unless(&m.k, &cpu, page, 1, unless), count != unless, "{case}");
                assert_eq!(read(), (if count == unless { count } else { count + 1 }, mapcount), "{case}");
                write(count, mapcount);
                assert_eq!(page_ref_freeze(&cpu, page, unless), count == unless, "{case}");
                assert_eq!(read(), (if count == unless { 0 } else { count }, mapcount), "{case}");
                write(count, mapcount);
                set_page_count(&cpu, page, unless);
                assert_eq!(read(), (unless, mapcount), "{case}");
                assert_eq!(page_ref_count(&cpu, page), unless);
            }
            if count != 0 {
                write(count, mapcount);
                assert_eq!(put_page_testzero(&cpu, page), count == 1, "{case}");
                assert_eq!(read(), (count - 1, mapcount), "{case}");
            }
        }
        write_word(&cpu, page, word::COUNT, u64::from(u32::MAX));
    }
}
