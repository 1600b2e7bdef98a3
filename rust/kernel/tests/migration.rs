//! Where a hugepage in use moves: to a free page of its pool, or to a fresh one, and what becomes of the old page
//! (kernel-semantics §7.4, §7.7, §13.9).

mod lab;

use lab::{BASE, Lab};
use vmemmap_arch::{FrameKind, Granule, Pa, Pfn, Version, Zone};
use vmemmap_kernel::hugetlb::dissolve::{alloc_contig_range, migrate_huge_page};
use vmemmap_kernel::hugetlb::fault::{__unmap_hugepage_range, hugetlb_no_page};
use vmemmap_kernel::hugetlb::resize::hugetlb_acct_memory;
use vmemmap_kernel::hugetlb::{Pool, alloc_pool_huge_folio};
use vmemmap_kernel::state::Hstate;
use vmemmap_kernel::{Errno, Operation, Policies, Ram};

/// 2M, and 32M, which is gigantic.
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// Boot memory, and one block of movable memory that is online.
struct Block {
    m: Lab,
    start: Pa,
    bytes: u64,
}

impl Block {
    fn new(version: Version) -> Self {
        let m = Lab::new(Granule::K4, version, 3, true, Policies::default());
        let Ram { start, bytes, .. } = m.k.ram()[1];
        let block = Self { m, start, bytes };
        block.run(Operation::MemoryAdd { start, bytes, memmap_on_memory: false }).unwrap();
        block.run(Operation::MemoryOnline { start, bytes, zone: Zone::Movable }).unwrap();
        block
    }
    fn run(&self, operation: Operation) -> Result<u64, Errno> {
        operation.run(&self.m.k, &self.m.cpu())
    }
    fn offline(&self) -> Result<u64, Errno> {
        self.run(Operation::MemoryOffline { start: self.start, bytes: self.bytes })
    }
    /// The n-th page of the size in the block, or in the second block of boot memory, allocated into the pool.
    fn inside(&self, h: u8, n: u64) -> Pfn {
        self.at(h, self.start, n)
    }
    fn outside(&self, h: u8, n: u64) -> Pfn {
        self.at(h, Pa(BASE + self.bytes), n)
    }
    fn at(&self, h: u8, start: Pa, n: u64) -> Pfn {
        let pages = Pool::new(&self.m.k, h).unwrap().pages;
        let pfn = self.m.k.geometry.pfn(start).plus(n * pages);
        Pfn(alloc_pool_huge_folio(&self.m.k, &self.m.cpu(), h, Some(pfn)).unwrap())
    }
    /// A fault that keeps its page.
    fn take(&self, h: u8) -> Pfn {
        Pfn(hugetlb_no_page(&self.m.k, &self.m.cpu(), h).unwrap())
    }
    /// Where the page that `take` gave is now, on its way back.
    fn put(&self, h: u8, taken: Pfn) -> Pfn {
        Pfn(__unmap_hugepage_range(&self.m.k, &self.m.cpu(), h, taken).unwrap())
    }
    /// nr, free and surplus.
    fn counts(&self, h: u8) -> [u64; 3] {
        [Hstate::NrHugePages, Hstate::FreeHugePages, Hstate::SurplusHugePages]
            .map(|field| self.m.m.var(self.m.k.vars.hstate(h, field)))
    }
    /// 6.12.117 restores copies of the head (I11): its counters are as sound as the others'.
    fn assert_clean(&self, version: Version) {
        let m = &self.m;
        if version == Version::V6_12_117 { m.assert_unlocked(version.name()) } else { m.assert_clean(version.name()) }
    }
}

/// Three pages, one in use in the block: it moves to a free one, its old place is dissolved, and two are left.
#[test]
fn a_free_page_of_the_pool_takes_over_the_user_and_offline_dissolves_the_old_one() {
    for version in Version::ALL {
        let b = Block::new(version);
        let old = b.inside(SMALL, 0);
        assert_eq!(b.take(SMALL), old);
        let free = [b.outside(SMALL, 0), b.outside(SMALL, 1)];
        assert_eq!(b.offline(), Ok(1), "{}", version.name());
        assert_eq!(b.counts(SMALL), [2, 1, 0], "{}", version.name());
        // The first of the free list, which is the one allocated last.
        assert_eq!(b.put(SMALL, old), free[1], "{}", version.name());
        assert_eq!(b.counts(SMALL), [2, 2, 0], "{}", version.name());
        assert_eq!(b.m.frames_of(FrameKind::Huge), 2 * 512);
        b.assert_clean(version);
    }
}

/// What is free and reserved is spoken for: a fresh page is the target, and the number of pages stays.
#[test]
fn a_reserved_page_is_no_target() {
    for version in Version::ALL {
        let b = Block::new(version);
        let old = b.inside(SMALL, 0);
        b.take(SMALL);
        let free = b.outside(SMALL, 0);
        hugetlb_acct_memory(&b.m.k, &b.m.cpu(), SMALL, 1).unwrap();
        assert_eq!(b.offline(), Ok(1), "{}", version.name());
        assert_eq!(b.counts(SMALL), [2, 1, 0], "{}", version.name());
        let new = b.put(SMALL, old);
        assert!(new != free && new != old, "{}", version.name());
        hugetlb_acct_memory(&b.m.k, &b.m.cpu(), SMALL, -1).unwrap();
        b.assert_clean(version);
    }
}

/// The free page lies in the same block: to move there would be to move again, and back.
#[test]
fn a_page_of_the_block_that_goes_offline_is_no_target() {
    for version in Version::ALL {
        let b = Block::new(version);
        let old = b.inside(SMALL, 0);
        b.take(SMALL);
        b.inside(SMALL, 1);
        assert_eq!(b.offline(), Ok(1), "{}", version.name());
        // A fresh one and none: the free one is dissolved.
        assert_eq!(b.counts(SMALL), [1, 0, 0], "{}", version.name());
        let new = b.put(SMALL, old);
        assert!(new < b.m.k.geometry.pfn(b.start), "{}", version.name());
        b.assert_clean(version);
    }
}

/// There is no fresh gigantic page, but a free one will do.
#[test]
fn a_gigantic_page_moves_to_a_free_one_only() {
    for version in Version::ALL {
        let b = Block::new(version);
        let old = b.inside(LARGE, 0);
        b.take(LARGE);
        assert_eq!(migrate_huge_page(&b.m.k, &b.m.cpu(), old), Err(Errno::ENOMEM), "{}", version.name());
        let free = b.outside(LARGE, 1);
        assert_eq!(b.offline(), Ok(1), "{}", version.name());
        assert_eq!(b.counts(LARGE), [1, 0, 0], "{}", version.name());
        assert_eq!(b.put(LARGE, old), free, "{}", version.name());
        b.assert_clean(version);
    }
}

/// Migration frees the old page into the pool, where it is in the way of a contiguous range as before.
#[test]
fn a_range_whose_page_moved_to_a_free_one_is_not_free() {
    for version in Version::ALL {
        let b = Block::new(version);
        let old = b.outside(SMALL, 0);
        b.take(SMALL);
        let free = b.outside(SMALL, 1);
        assert_eq!(alloc_contig_range(&b.m.k, &b.m.cpu(), old), Err(Errno::EBUSY), "{}", version.name());
        assert_eq!(b.counts(SMALL), [2, 1, 0], "{}", version.name());
        // Free now, it is replaced.
        assert_ne!(alloc_contig_range(&b.m.k, &b.m.cpu(), old), Err(Errno::EBUSY), "{}", version.name());
        assert_eq!(b.counts(SMALL), [2, 1, 0], "{}", version.name());
        assert_eq!(b.put(SMALL, old), free, "{}", version.name());
        b.assert_clean(version);
    }
}
