//! Which machine a `kernel_page_tables` text is of: granule, VA size and layout, told from its markers and addresses.

use vmemmap_arch::{Geometry, Granule, Layout, Level, RegionOrder, Va, Version};

use crate::ptdump_parse::{Line, Lines, NO_LEVEL, TextError};
use crate::shape::level_of_depth;

/// What the reader of a text knows already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TextHints {
    pub granule: Option<Granule>,
    pub va_bits: Option<u32>,
    pub version: Option<Version>,
    /// `memstart_addr`.
    pub memstart: Option<i64>,
}

/// Why the machine of a text cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMachine {
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(
        "the text fits no arm64 kernel of 6.1, 6.12 or 7.x: its vmemmap and its ranges belong to no granule and VA \
            size known"
    )]
    None,
    #[error("the text fits several machines ({0}): give the granule, the VA size or the kernel")]
    Several(String),
    #[error("the text has no vmemmap region")]
    NoVmemmap,
}

/// Where a marker stands among the ranges.
#[derive(Clone, Copy)]
struct Place {
    /// Starts of the ranges before it, the last one first.
    before: [Option<Va>; 3],
    after: Option<Va>,
}

impl Place {
    /// Markers are announced at the first range that does not lie before them, at most two at a time: when one hole
    /// holds several, the last comes a range or two late (`note_page`).
    fn fits(self, marker: Va) -> bool {
        self.before[2].is_none_or(|start| start < marker) && self.after.is_none_or(|start| marker <= start)
    }
    fn is_beside(self, marker: Va) -> bool {
        self.after == Some(marker) || self.before.contains(&Some(marker))
    }
}

#[derive(Default)]
struct Seen {
    first: Option<Va>,
    linear_first: bool,
    start: Option<Place>,
    end: Option<Place>,
    fixmap_first: Option<bool>,
    /// All addresses of ranges at the level of pages, or'ed.
    page_bits: u64,
    /// (start | end, depth) of the leaves above.
    blocks: Vec<(u64, u8)>,
}

/// The layout of the machine that a text is of.
///
/// # Errors
/// `UnknownMachine`: no machine fits, or more than one.
pub fn machine_of_text(text: &[u8], hints: &TextHints) -> Result<Layout, UnknownMachine> {
    let seen = see(text)?;
    let Some(start) = seen.start else { return given_machine(text, hints) };
    let mut fitting: Vec<Layout> = Vec::new();
    for granule in Granule::ALL {
        for va_bits in [36, 39, 42, 47, 48, 52] {
            for version in Version::REPRESENTATIVES {
                let Ok(g) = Geometry::new(granule, va_bits) else { continue };
                let Ok(layout) = Layout::new(g, hints.version.unwrap_or(version), hints.memstart.unwrap_or(0)) else {
                    continue;
                };
                let wanted = hints.granule.is_none_or(|wanted| wanted == granule)
                    && hints.va_bits.is_none_or(|wanted| wanted == va_bits)
                    && hints.version.is_none_or(|wanted| wanted.region_order() == version.region_order());
                if wanted && seen.fits(&layout, start) {
                    fitting.push(layout);
                }
            }
        }
    }
    // Struct pages of the first section are always mapped, so vmemmap begins where its first range does.
    if fitting.len() > 1 && fitting.iter().filter(|l| start.is_beside(l.vmemmap_start)).count() == 1 {
        fitting.retain(|l| start.is_beside(l.vmemmap_start));
    }
    match fitting.len() {
        0 => Err(UnknownMachine::None),
        1 => Ok(fitting[0]),
        _ => {
            let name = |l: &Layout| {
                format!("{} pages, {} bits, {}", l.geometry.granule.name(), l.geometry.va_bits, l.version.name())
            };
            Err(UnknownMachine::Several(fitting.iter().map(name).collect::<Vec<_>>().join("; ")))
        }
    }
}

/// Of a text without headers: the machine that is given, if any range lies in its vmemmap.
fn given_machine(text: &[u8], hints: &TextHints) -> Result<Layout, UnknownMachine> {
    let (Some(granule), Some(va_bits), Some(version)) = (hints.granule, hints.va_bits, hints.version) else {
        return Err(UnknownMachine::NoVmemmap);
    };
    let geometry = Geometry::new(granule, va_bits).map_err(|_| UnknownMachine::None)?;
    let layout = Layout::new(geometry, version, hints.memstart.unwrap_or(0)).map_err(|_| UnknownMachine::None)?;
    for line in Lines::new(text) {
        if matches!(line?, Line::Range(range) if layout.in_vmemmap(range.start)) {
            return Ok(layout);
        }
    }
    Err(UnknownMachine::NoVmemmap)
}

fn see(text: &[u8]) -> Result<Seen, TextError> {
    let mut seen = Seen::default();
    let mut last: [Option<Va>; 3] = [None; 3];
    let (mut awaiting_start, mut awaiting_end) = (false, false);
    for line in Lines::new(text) {
        match line? {
            Line::Marker(name) => match name {
                b"Linear Mapping start" => seen.linear_first = seen.first.is_none(),
                b"vmemmap start" => {
                    seen.start.get_or_insert(Place { before: last, after: None });
                    awaiting_start = true;
                    seen.fixmap_first.get_or_insert(false);
                }
                b"vmemmap end" => {
                    seen.end.get_or_insert(Place { before: last, after: None });
                    awaiting_end = true;
                }
                b"Fixmap start" => {
                    seen.fixmap_first.get_or_insert(true);
                }
                _ => {}
            },
            Line::Range(range) => {
                seen.first.get_or_insert(range.start);
                for (place, awaiting) in [(&mut seen.start, &mut awaiting_start), (&mut seen.end, &mut awaiting_end)] {
                    if core::mem::take(awaiting)
                        && let Some(place) = place
                    {
                        place.after.get_or_insert(range.start);
                    }
                }
                let bits = range.start.0 | range.end.0;
                if range.depth == NO_LEVEL {
                    // Nothing of it tells the granule.
                } else if range.depth == 4 {
                    seen.page_bits |= bits;
                } else if range.prot != 0 && seen.blocks.len() < 4096 {
                    seen.blocks.push((bits, range.depth));
                }
                last = [Some(range.start), last[0], last[1]];
            }
        }
    }
    Ok(seen)
}

impl Seen {
    fn fits(&self, layout: &Layout, start: Place) -> bool {
        let g = layout.geometry;
        let whole = |bits: u64, level: Level| bits & (g.entry_span(level) - 1) == 0;
        let leaf = |&(bits, depth): &(u64, u8)| {
            let level = level_of_depth(&g, depth);
            g.block_allowed(level) && whole(bits, level)
        };
        (!self.linear_first || self.first == Some(layout.page_offset))
            && self.fixmap_first.is_none_or(|first| {
                first == (layout.version.region_order() == RegionOrder::VmemmapOnTop) || !self.linear_first
            })
            && start.fits(layout.vmemmap_start)
            && start.after.is_none_or(|after| after < layout.vmemmap_end)
            && self.end.is_none_or(|place| place.fits(layout.vmemmap_end))
            && whole(self.page_bits, Level::PTE)
            && self.blocks.iter().all(leaf)
    }
}
