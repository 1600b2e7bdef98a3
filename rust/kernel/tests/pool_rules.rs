//! What a pool does with surplus pages: in use, free, dissolved, and beside a shrink (kernel-7.3 §6; R43 to R45).

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::{Granule, Pa, Pfn, Version};
use vmemmap_kernel::hugetlb::dissolve::dissolve_free_hugetlb_folios;
use vmemmap_kernel::hugetlb::fault::hugetlb_no_page;
use vmemmap_kernel::hugetlb::resize::{hugetlb_acct_memory, nr_overcommit_hugepages_store, set_max_huge_pages};
use vmemmap_kernel::hugetlb::{alloc_pool_huge_folio, remove_pool_hugetlb_folio};
use vmemmap_kernel::policy::ShrinkRule;
use vmemmap_kernel::state::Hstate;
use vmemmap_kernel::{Errno, Operation, Policies};

/// Nothing of it is optimised: counters alone are at stake.
const SMALL: u8 = 0;
const PMD: u8 = 1;
const GIGANTIC: u8 = 3;
const RULES: [ShrinkRule; 3] = [ShrinkRule::AllInUse, ShrinkRule::PersistentInUse, ShrinkRule::OneWord];

struct Pool {
    m: Lab,
    h: u8,
}

impl Pool {
    fn new(version: Version, h: u8, shrink_minimum: ShrinkRule) -> Self {
        Self { m: Lab::new(Granule::K4, version, 2, true, Policies { shrink_minimum, ..Policies::default() }), h }
    }
    fn get(&self, field: Hstate) -> u64 {
        self.m.m.var(self.m.k.vars.hstate(self.h, field))
    }
    fn counts(&self) -> [u64; 5] {
        use Hstate::{FreeHugePages, MaxHugePages, NrHugePages, ResvHugePages, SurplusHugePages};
        [NrHugePages, FreeHugePages, ResvHugePages, SurplusHugePages, MaxHugePages].map(|field| self.get(field))
    }
    fn resize(&self, count: u64) -> u64 {
        set_max_huge_pages(&self.m.k, &self.m.cpu(), self.h, count).unwrap()
    }
    fn allocate(&self, pages: u64) {
        for _ in 0..pages {
            alloc_pool_huge_folio(&self.m.k, &self.m.cpu(), self.h, None).unwrap();
        }
    }
    /// Faults that keep their pages.
    fn take(&self, pages: u64) {
        for _ in 0..pages {
            hugetlb_no_page(&self.m.k, &self.m.cpu(), self.h).unwrap();
        }
    }
    fn reserve(&self, pages: i64) -> Result<u64, Errno> {
        hugetlb_acct_memory(&self.m.k, &self.m.cpu(), self.h, pages)
    }
    fn overcommit(&self, pages: u64) -> Result<u64, Errno> {
        nr_overcommit_hugepages_store(&self.m.k, &self.m.cpu(), self.h, pages)
    }
    /// 6.12.117's restore leaves copies of the head (I11); its counters are as sound as the others'.
    fn assert_clean(&self, version: Version) {
        if version != Version::V6_12_117 {
            self.m.assert_clean(version.name());
        }
    }
    fn dissolve_all(&self) -> Result<u64, Errno> {
        let start = self.m.k.geometry.pfn(Pa(BASE));
        let end = start.plus(2 * self.m.k.geometry.pages_per_section());
        dissolve_free_hugetlb_folios(&self.m.k, &self.m.cpu(), start, end)
    }
}

/// With `surplus` pages in use, `used` persistent ones in use, `free` free ones of which `resv` are reserved: what is
/// left of a pool that shrinks to nothing.
#[test]
fn surplus_pages_in_use_keep_as_many_free_ones_alive_under_the_old_rule() {
    for rule in RULES {
        for (surplus, used, free) in [(0, 0, 3), (0, 2, 2), (1, 0, 3), (1, 2, 3), (2, 0, 1), (2, 1, 4), (3, 0, 2)] {
            for resv in 0..=free {
                let pool = Pool::new(Version::V7_3, SMALL, rule);
                pool.overcommit(surplus).unwrap();
                pool.take(surplus);
                pool.allocate(used);
                pool.take(used);
                pool.allocate(free);
                pool.reserve(resv as i64).unwrap();
                assert_eq!(pool.counts(), [surplus + used + free, free, resv, surplus, used + free]);
                let too_careful = if rule == ShrinkRule::AllInUse { surplus } else { 0 };
                let freed = free.saturating_sub(resv + too_careful);
                let case = format!("{rule:?}: surplus {surplus}, used {used}, free {free}, reserved {resv}");
                assert_eq!(pool.resize(0), surplus + used + free - freed, "{case}");
                assert_eq!(pool.get(Hstate::FreeHugePages), free - freed, "{case}");
                pool.m.assert_clean(&case);
            }
        }
    }
}

/// Pages whose restore failed are free and surplus. The one-word rule wraps if more than the reserved ones are, and
/// frees nothing; no rule frees a reserved page.
#[test]
fn free_surplus_pages_make_the_one_word_rule_wrap_and_cost_no_reservation() {
    for rule in RULES {
        for (failed, free) in [(1, 2), (2, 1), (2, 3), (3, 0)] {
            for resv in 0..=failed + free {
                let pool = Pool::new(Version::V7_3, PMD, rule);
                pool.resize(failed);
                pool.m.fail_all();
                assert_eq!(pool.resize(0), failed);
                pool.m.fail_none();
                pool.allocate(free);
                pool.reserve(resv as i64).unwrap();
                assert_eq!(pool.counts(), [failed + free, failed + free, resv, failed, free]);
                let freed = match rule {
                    ShrinkRule::ByKernel | ShrinkRule::AllInUse | ShrinkRule::PersistentInUse => {
                        free.saturating_sub(resv)
                    }
                    ShrinkRule::OneWord if resv < failed => 0,
                    ShrinkRule::OneWord => failed + free - resv,
                };
                let case = format!("{rule:?}: free surplus {failed}, free {free}, reserved {resv}");
                assert_eq!(pool.resize(0), failed + free - freed, "{case}");
                assert!(pool.get(Hstate::FreeHugePages) >= resv, "{case}");
                pool.m.assert_clean(&case);
            }
        }
    }
}

#[test]
fn surplus_pages_never_exceed_the_limit_and_go_when_nobody_wants_them() {
    for version in Version::ALL {
        let pool = Pool::new(version, SMALL, ShrinkRule::ByKernel);
        pool.overcommit(2).unwrap();
        assert_eq!(pool.reserve(3), Err(Errno::ENOMEM), "{}", version.name());
        assert_eq!(pool.counts(), [0; 5], "{}: nothing is left of the attempt", version.name());
        assert_eq!(pool.reserve(2), Ok(2));
        assert_eq!(pool.counts(), [2, 2, 2, 2, 0]);
        // A larger pool takes them over.
        assert_eq!(pool.resize(1), 2);
        assert_eq!(pool.counts(), [2, 2, 2, 1, 1], "{}", version.name());
        assert_eq!(pool.reserve(-2), Ok(0));
        assert_eq!(pool.counts(), [1, 1, 0, 0, 1], "{}", version.name());
        pool.m.assert_clean(version.name());
    }
}

#[test]
fn gigantic_pages_may_be_surplus_from_7_2_on() {
    for version in Version::ALL {
        let pool = Pool::new(version, GIGANTIC, ShrinkRule::ByKernel);
        let allowed = matches!(version, Version::V7_2 | Version::V7_3);
        assert_eq!(pool.overcommit(1), if allowed { Ok(1) } else { Err(Errno::EINVAL) }, "{}", version.name());
    }
}

/// A persistent page in use, one free, and a surplus page in use: the free one is dissolved.
#[test]
fn a_dissolve_uses_up_a_surplus_page_first_from_6_12_113_on() {
    for version in Version::ALL {
        let pool = Pool::new(version, PMD, ShrinkRule::ByKernel);
        pool.overcommit(1).unwrap();
        pool.take(1);
        pool.allocate(1);
        assert_eq!(pool.counts(), [2, 1, 0, 1, 1], "{}", version.name());
        pool.m.fail_all();
        assert_eq!(pool.dissolve_all(), Err(Errno::EBUSY), "{}: one is in use", version.name());
        let old = matches!(version, Version::V2021 | Version::V6_1);
        assert_eq!(pool.counts()[..3], [2, 1, 0], "{}", version.name());
        pool.m.fail_none();
        let free = pool.m.k.geometry.pfn(Pa(BASE));
        let head = (0..128)
            .map(|n| free.plus(n * 512))
            .find(|&head| dissolve_free_hugetlb_folios(&pool.m.k, &pool.m.cpu(), head, head.plus(512)) == Ok(1));
        assert!(head.is_some(), "{}", version.name());
        assert_eq!(pool.counts(), if old { [1, 0, 0, 1, 0] } else { [1, 0, 0, 0, 1] }, "{}", version.name());
        pool.assert_clean(version);
    }
}

/// If the restore of a dissolve fails, the page and what was counted off come back.
#[test]
fn a_dissolve_that_fails_puts_the_counters_back() {
    for version in Version::ALL {
        for surplus in [0, 1] {
            let pool = Pool::new(version, PMD, ShrinkRule::ByKernel);
            pool.overcommit(surplus).unwrap();
            pool.take(surplus);
            pool.allocate(2);
            let before = pool.counts();
            pool.m.fail_all();
            for n in 0..128 {
                let head = pool.m.k.geometry.pfn(Pa(BASE)).plus(n * 512);
                let done = dissolve_free_hugetlb_folios(&pool.m.k, &pool.m.cpu(), head, head.plus(512));
                assert!(matches!(done, Ok(0) | Err(Errno::ENOMEM | Errno::EBUSY)), "{}: {done:?}", version.name());
            }
            pool.m.fail_none();
            assert_eq!(pool.counts(), before, "{}", version.name());
            pool.assert_clean(version);
            assert!(remove_pool_hugetlb_folio(&pool.m.k, &pool.m.cpu(), PMD, None).is_ok());
        }
    }
}

/// A page that somebody uses, one of another size, and a tail are no free pages of the pool, whoever names them.
#[test]
fn only_a_free_page_of_the_pool_can_be_named() {
    for version in Version::ALL {
        let pool = Pool::new(version, SMALL, ShrinkRule::AllInUse);
        pool.allocate(3);
        let m = &pool.m;
        let used = hugetlb_no_page(&m.k, &m.cpu(), SMALL).unwrap();
        let other = alloc_pool_huge_folio(&m.k, &m.cpu(), PMD, None).unwrap();
        let free = alloc_pool_huge_folio(&m.k, &m.cpu(), SMALL, None).unwrap();
        for pfn in [used, other, free + 1] {
            let named = remove_pool_hugetlb_folio(&m.k, &m.cpu(), SMALL, Some(Pfn(pfn)));
            assert_eq!(named, Err(Errno::EBUSY), "{version:?}: {pfn:#x}");
        }
        assert_eq!(remove_pool_hugetlb_folio(&m.k, &m.cpu(), SMALL, Some(Pfn(free))), Ok(free));
        pool.assert_clean(version);
    }
}

#[test]
fn a_subpool_counts_while_it_is_mounted() {
    let pool = Pool::new(Version::V7_3, SMALL, ShrinkRule::AllInUse);
    let run = |operation: Operation| operation.run(&pool.m.k, &pool.m.cpu());
    pool.allocate(4);
    assert_eq!(run(Operation::SubpoolGetPages { pages: 1 }), Err(Errno::EINVAL), "nothing is mounted");
    assert_eq!(run(Operation::SubpoolNew { hstate: SMALL, min: 2 }), Ok(2));
    assert_eq!(run(Operation::SubpoolGetPages { pages: 1 }), Ok(1));
    assert_eq!(run(Operation::SubpoolGetPages { pages: 2 }), Ok(3));
    assert_eq!(run(Operation::SubpoolPutPages { hstate: SMALL, pages: 1 }), Ok(0));
    assert_eq!(run(Operation::SubpoolPut { hstate: SMALL }), Ok(0), "two are used still");
    assert_eq!(run(Operation::SubpoolPutPages { hstate: SMALL, pages: 2 }), Ok(1), "its end");
    assert_eq!(pool.get(Hstate::ResvHugePages), 0);
}
