//! What an access through an entry faults with, by Arm's order: valid, then AF, then AP.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Attr, Desc};
use vmemmap_machine::views::{FaultKind, Kind, is_cacheable};

#[test]
fn an_entry_faults_by_the_first_of_valid_af_and_ap() {
    let rw = Desc(0x4000_0000 | prot::PAGE_KERNEL);
    let ro = Desc(0x4000_0000 | prot::PAGE_KERNEL_RO);
    let of = |entry: Desc| [Kind::Load, Kind::Store].map(|kind| FaultKind::of(entry, kind));
    assert_eq!(of(rw), [None, None]);
    assert_eq!(of(ro), [None, Some(FaultKind::Permission)]);
    assert_eq!(of(ro.without(Attr::AF)), [Some(FaultKind::AccessFlag); 2]);
    assert_eq!(of(ro.without(Attr::AF).without(Attr::VALID)), [Some(FaultKind::Translation); 2]);
    assert_eq!([rw, rw.without(Attr::AF), rw.without(Attr::VALID)].map(is_cacheable), [true, false, false]);
}
