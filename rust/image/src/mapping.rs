//! How addresses are mapped: bytes by region, level and contiguous bit.

use std::collections::BTreeMap;

use vmemmap_arch::{Attr, Desc, Kind, Level, Pa, TableView, Va};

use crate::table_image::TableImage;

/// Number of the region, level of the leaves, whether they are contiguous → bytes that they map.
pub type Mapping = BTreeMap<(usize, i8, bool), u64>;

/// Of the leaves of an image. A region begins at each of `bounds`, which ascend; number 0 is what lies before the
/// first. A leaf belongs to the region of its first address.
#[must_use]
pub fn mapping(image: &TableImage, bounds: &[u64]) -> Mapping {
    let g = image.meta().geometry;
    let mut found = Mapping::new();
    add(image, image.root(), g.top(), Va(0u64.wrapping_sub(1 << g.va_bits)), bounds, &mut found);
    found
}

fn add(image: &TableImage, table: Pa, level: Level, base: Va, bounds: &[u64], found: &mut Mapping) {
    let g = image.meta().geometry;
    let Some(row) = image.row(table) else { return };
    for (index, &word) in image.row_words(row)[..g.entries_at(level)].iter().enumerate() {
        let va = base.plus((index as u64) << g.level_shift(level));
        match g.kind(Desc(word), level) {
            Kind::Table(next) => add(image, next, level.next(), va, bounds, found),
            Kind::Page(_) | Kind::Block(_) => {
                let region = bounds.partition_point(|&bound| bound <= va.0);
                *found.entry((region, level.0, Desc(word).has(Attr::CONT))).or_default() += g.entry_span(level);
            }
            Kind::None | Kind::Invalid | Kind::Reserved => {}
        }
    }
}
