//! Sets of invariants: the bit of each is its number less one, and both ways of saying it agree.

use vmemmap_arch::{Invariant, InvariantSet};

#[test]
fn a_set_is_the_bits_of_its_numbers() {
    for number in 1..=Invariant::COUNT as u8 {
        let invariant = Invariant::from_number(number).unwrap();
        let set = InvariantSet::only(invariant);
        assert_eq!(set.bits(), 1 << (number - 1));
        assert_eq!(InvariantSet::from_bits(set.bits()), set);
        assert_eq!(set.iter().collect::<Vec<_>>(), [invariant]);
    }
    assert_eq!(InvariantSet::from_bits(u64::MAX), InvariantSet::ALL);
    assert_eq!(InvariantSet::ALL.iter().count(), Invariant::COUNT);
}
