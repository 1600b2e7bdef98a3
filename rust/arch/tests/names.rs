//! What is written in scenarios and said in messages, and small functions that other crates rely on.

use std::collections::HashSet;

use vmemmap_arch::bbm::{FeatBbm, changes_permissions_alone};
use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Desc, Frame, FrameList, Granule, LockId, Outcome, Pa, Until, Va, Version};

#[test]
fn levels_and_granules_have_the_names_that_are_written() {
    use FeatBbm::{Level0, Level1, Level2, NoAbort};
    assert_eq!([Level0, Level1, Level2, NoAbort].map(FeatBbm::name), ["0", "1", "2", "noabort"]);
    assert_eq!(Granule::ALL.map(Granule::name), ["4K", "16K", "64K"]);
}

/// Arm ARM D8.3: AP[2:1] 7:6, AF 10, GP 50, DBM 51, PXN and UXN 54:53, and software's 58:55.
#[test]
fn a_permission_is_one_of_these_bits() {
    let permissions = [6, 7, 10, 50, 51, 53, 54, 55, 56, 57, 58];
    let entry = Desc(0x4000_0000 | prot::PAGE_KERNEL);
    assert!(changes_permissions_alone(entry, entry));
    for bit in 0..64 {
        let other = Desc(entry.0 ^ 1 << bit);
        assert_eq!(changes_permissions_alone(entry, other), permissions.contains(&bit), "bit {bit}");
    }
}

#[test]
fn a_condition_holds_of_the_words_that_it_says() {
    let holding = |condition: Until| (0..8).filter(|&word| condition.holds(word)).collect::<Vec<u64>>();
    assert_eq!(holding(Until::Equals(3)), [3]);
    assert_eq!(holding(Until::Differs(3)), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(holding(Until::Clear(0b101)), [0, 2]);
    assert_eq!(holding(Until::AtLeast(5)), [5, 6, 7]);
}

#[test]
fn a_list_of_frames_is_empty_until_it_has_one() {
    let frame = Some(Frame { pa: Pa(0x1000), tok: () });
    assert!(FrameList::<()>::new().is_empty());
    assert!(!FrameList { first: frame, last: frame, len: 1 }.is_empty());
}

/// kernel-semantics §0: spinlocks may not be held by who sleeps; mutexes and rwsems may.
#[test]
fn spinlocks_are_these_and_every_lock_has_a_number_of_its_own() {
    use LockId::{
        CpuHotplug, DeviceHotplug, Fixmap, Hugetlb, HugetlbResize, InitMmMmap, InitMmPageTable, MemHotplug,
        PcpBatchHigh, Subpool, SwapperPgdir, VmapArea,
    };
    let spin = [InitMmPageTable, SwapperPgdir, Hugetlb, VmapArea, Subpool];
    let sleep = [DeviceHotplug, CpuHotplug, MemHotplug, PcpBatchHigh, InitMmMmap, Fixmap, HugetlbResize(0)];
    assert!(spin.iter().all(|lock| lock.is_spinlock()));
    assert!(!sleep.iter().any(|lock| lock.is_spinlock()));
    let sizes = (1..8).map(HugetlbResize);
    let numbers: HashSet<usize> = spin.into_iter().chain(sleep).chain(sizes).map(LockId::index).collect();
    assert_eq!((numbers.len(), numbers.into_iter().max()), (LockId::COUNT, Some(LockId::COUNT - 1)));
}

/// Two outcomes with the same bits are taken for the same.
#[test]
fn outcomes_that_differ_have_different_bits() {
    let results = (0..4).map(Ok).chain((0..4).map(Err));
    let bits: HashSet<u64> = results.map(|result: Result<u8, u8>| result.bits()).collect();
    assert_eq!(bits.len(), 8);
    assert_ne!(true.bits(), false.bits());
    assert_ne!(Va(1).bits(), Va(2).bits());
}

#[test]
fn tables_have_the_access_flag_from_7_1_on() {
    for version in Version::ALL {
        assert_eq!(version.sets_table_af(), ["7.2", "7.3"].contains(&version.name()), "{version:?}");
    }
}
