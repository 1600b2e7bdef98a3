//! What can be said of a text whose vmemmap is not in it, or whose machine is none that is modelled: a slice of another
//! region, one without headers, `efi_page_tables`, or a kernel of another time.

use std::fmt::Write as _;

use vmemmap_arch::{Geometry, Granule, Invariant, InvariantSet, Va};

use crate::ptdump_parse::{Line, Lines, NO_LEVEL, TextError};
use crate::text_check::{TextViolation, check_range};
use crate::text_machine::TextHints;

/// What a text is, told from what it prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextKind {
    pub headers: bool,
    /// Holes are printed, as since 5.6.
    pub holes: bool,
    /// Levels are named, as in 4.4 they are not.
    pub levels: bool,
    pub vmemmap: bool,
    /// `efi_page_tables`: the mappings of the firmware, at low addresses.
    pub efi: bool,
    /// The layout of a time before the behaviours that are modelled.
    pub layout: Option<&'static str>,
}

/// A text judged by itself.
#[derive(Clone, Debug)]
pub struct Alone {
    pub kind: TextKind,
    /// Machines of which the ranges can be, the first of which was taken.
    pub machines: Vec<Geometry>,
    pub visible: InvariantSet,
    /// What is not visible, and why, in words.
    pub notes: Vec<String>,
}

/// VMEMMAP_START before 5.4, of 5.4 to 5.10, for struct pages of 64 bytes.
fn old_layout(start: Va, linear_last: bool) -> Option<&'static str> {
    for granule in Granule::ALL {
        for va_bits in [36, 39, 42, 47, 48, 52] {
            let Ok(g) = Geometry::new(granule, va_bits) else { continue };
            let size = 1u64 << (va_bits - 1 - g.page_shift() + 6);
            if start.0 == (1u64 << (va_bits - 1)).wrapping_neg() - size && linear_last {
                return Some("before 5.4, whose linear map is the upper half of the addresses");
            }
            if start.0 == size.wrapping_neg() - (2 << 20) {
                return Some("of 5.4 to 5.10, which end vmemmap 2M below the top of the address space");
            }
        }
    }
    None
}

/// What the text is.
///
/// # Errors
/// The first line that is none of a dump's.
pub fn kind_of_text(text: &[u8]) -> Result<TextKind, TextError> {
    let mut kind = TextKind { levels: true, ..TextKind::default() };
    let (mut linear_last, mut awaiting, mut vmemmap, mut first) = (false, false, None, None);
    for line in Lines::new(text) {
        match line? {
            Line::Marker(name) => {
                kind.headers = true;
                kind.vmemmap |= name.starts_with(b"vmemmap ");
                kind.efi |= name.starts_with(b"UEFI runtime");
                linear_last |= matches!(name, b"Linear Mapping" | b"Linear mapping" | b"Kernel Mapping");
                awaiting = name == b"vmemmap start";
            }
            Line::Range(range) => {
                first.get_or_insert(range.start);
                if core::mem::take(&mut awaiting) {
                    vmemmap.get_or_insert(range.start);
                }
                kind.holes |= range.columns.is_empty();
                kind.levels &= range.depth != NO_LEVEL;
            }
        }
    }
    kind.efi |= first.is_some_and(|first| first.0 >> 52 == 0);
    kind.layout = vmemmap.and_then(|start| old_layout(start, linear_last));
    if kind.layout.is_none() && linear_last {
        kind.layout = Some("before 5.4, whose linear map is the upper half of the addresses");
    }
    Ok(kind)
}

/// Check what a text shows whatever region it is of (I30, I31), on the machines that it can be of.
///
/// # Errors
/// The first line that is none of a dump's.
pub fn check_alone(text: &[u8], hints: &TextHints, mut sink: impl FnMut(TextViolation)) -> Result<Alone, TextError> {
    let kind = kind_of_text(text)?;
    let machines = machines(text, hints, &kind)?;
    if let Some(g) = machines.first() {
        for line in Lines::new(text) {
            if let Line::Range(range) = line? {
                check_range(&range, g, None, &mut sink);
            }
        }
    }
    let mut visible = InvariantSet::of(&[Invariant::TreeWellFormed, Invariant::NoWritableExecutable]);
    let mut notes = Vec::new();
    if kind.efi {
        notes.push("efi_page_tables: what the firmware's runtime services see, no mapping of the kernel's".to_owned());
    } else if !kind.headers {
        notes.push("no header: which region a range belongs to is not visible".to_owned());
    }
    if !kind.vmemmap && !kind.efi {
        notes.push(
            "vmemmap is not in this text: its tables, struct pages and hugepages (I9, I32) are not visible".to_owned(),
        );
    }
    if let Some(layout) = kind.layout {
        notes.push(format!("the layout of a kernel {layout}: its vmemmap is not judged"));
    }
    if !kind.holes {
        notes.push(
            "no line of a hole: a kernel before 5.6 prints none; where tables are empty (I32) is not visible"
                .to_owned(),
        );
    }
    if !kind.levels {
        visible = InvariantSet::only(Invariant::NoWritableExecutable);
        notes.push(
            "no level column, as in 4.4: blocks and pages are not told apart, and alignment (I30) is not visible"
                .to_owned(),
        );
    }
    if machines.len() > 1 && kind.levels {
        let mut names = String::new();
        for (n, g) in machines.iter().enumerate() {
            let _ =
                write!(names, "{}{} pages with {} bits", if n == 0 { "" } else { ", " }, g.granule.name(), g.va_bits);
        }
        notes
            .push(format!("the text can be of several machines ({names}); judged as the first (--granule, --va-bits)"));
    }
    Ok(Alone { kind, machines, visible, notes })
}

/// The machines on which fewest ranges are wrong, smallest pages first.
fn machines(text: &[u8], hints: &TextHints, kind: &TextKind) -> Result<Vec<Geometry>, TextError> {
    let mut candidates: Vec<(Geometry, u64)> = Vec::new();
    for granule in Granule::ALL {
        for va_bits in [36, 39, 42, 47, 48, 52] {
            let wanted = hints.granule.is_none_or(|g| g == granule) && hints.va_bits.is_none_or(|bits| bits == va_bits);
            if let (true, Ok(g)) = (wanted, Geometry::new(granule, va_bits)) {
                candidates.push((g, 0));
            }
        }
    }
    let mut linear = false;
    for line in Lines::new(text) {
        match line? {
            Line::Marker(name) => linear = name == b"Linear Mapping start",
            Line::Range(range) => {
                for (g, wrong) in &mut candidates {
                    let bottom = if kind.efi { 0 } else { (1u64 << g.va_bits).wrapping_neg() };
                    // The linear map begins where the addresses of the kernel do.
                    *wrong += u64::from(range.start.0 < bottom || linear && range.start.0 != bottom);
                    check_range(&range, g, None, &mut |finding: TextViolation| {
                        *wrong += u64::from(finding.invariant == Invariant::TreeWellFormed)
                    });
                }
                linear = false;
            }
        }
    }
    let least = candidates.iter().map(|c| c.1).min();
    candidates.retain(|c| Some(c.1) == least);
    candidates.sort_by_key(|(g, _)| (g.page_size(), g.va_bits != 48, g.va_bits));
    Ok(candidates.into_iter().map(|c| c.0).collect())
}
