//! Where the variables of a test live, and how a word is written that names them.
//!
//! Variable x is the first word of one page: its virtual address `x`, its frame `PA(x)`, its descriptor `PTE(x)`.

use vmemmap_arch::descriptor::prot;
use vmemmap_arch::{Attr, Desc, Geometry, Granule, Pa, Va};
use vmemmap_machine::views::Word;

/// First page, in the vmalloc area.
const FIRST_PAGE: u64 = 0xffff_8000_1000_0000;
/// First frame.
pub const FIRST_FRAME: u64 = 0x4800_0000;
/// Address of the first descriptor, in the linear map.
const FIRST_ENTRY: u64 = 0xffff_0000_4700_0000;
const PAGE: u64 = 0x1000;

/// Most variables of a test: as many as one table maps.
pub const MAX_VARIABLES: usize = 512;

/// What an address leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The first word of that variable's page.
    Page(u16),
    /// The descriptor of that variable's page.
    Entry(u16),
}

#[must_use]
pub const fn geometry() -> Geometry {
    match Geometry::new(Granule::K4, 48) {
        Ok(geometry) => geometry,
        Err(_) => unreachable!(),
    }
}

#[must_use]
pub const fn page(variable: u16) -> Va {
    Va(FIRST_PAGE + variable as u64 * PAGE)
}
#[must_use]
pub const fn frame(variable: u16) -> Pa {
    Pa(FIRST_FRAME + variable as u64 * PAGE)
}
#[must_use]
pub const fn entry_address(variable: u16) -> u64 {
    FIRST_ENTRY + variable as u64 * 8
}

/// Fields of a descriptor that a test may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    pub frame: Pa,
    pub valid: bool,
    pub af: bool,
    pub db: bool,
    pub dbm: bool,
}

impl Fields {
    /// What a test leaves out.
    #[must_use]
    pub const fn of_frame(frame: Pa) -> Self {
        Self { frame, valid: true, af: true, db: true, dbm: false }
    }
    #[must_use]
    pub fn desc(self) -> Desc {
        let plain = Desc(prot::PAGE_KERNEL).without(Attr::WRITE).without(Attr::VALID).without(Attr::AF);
        let set = |desc: Desc, attr, on| if on { desc.with(attr) } else { desc };
        let desc = geometry().with_output(plain, self.frame);
        set(
            set(set(set(desc, Attr::VALID, self.valid), Attr::AF, self.af), Attr::RDONLY, !self.db),
            Attr::WRITE,
            self.dbm,
        )
    }
    /// The fields of a word, if it is a descriptor that a test can write.
    #[must_use]
    pub fn of(word: u64) -> Option<Self> {
        let desc = Desc(word);
        let fields = Self {
            frame: geometry().output(desc),
            valid: desc.is_valid(),
            af: desc.has(Attr::AF),
            db: desc.is_writable(),
            dbm: desc.has(Attr::WRITE),
        };
        (fields.desc() == desc).then_some(fields)
    }
}

/// The variables of a test, by number.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    names: Vec<String>,
}

impl Variables {
    pub fn intern(&mut self, name: &str) -> Option<u16> {
        if let Some(at) = self.names.iter().position(|n| n == name) {
            return Some(at as u16);
        }
        if self.names.len() == MAX_VARIABLES {
            return None;
        }
        self.names.push(name.to_owned());
        Some(self.names.len() as u16 - 1)
    }
    #[must_use]
    pub fn len(&self) -> u16 {
        self.names.len() as u16
    }
    #[must_use]
    pub fn name(&self, variable: u16) -> &str {
        &self.names[usize::from(variable)]
    }
    /// Histories: of the frames, then of the descriptors.
    #[must_use]
    pub fn words(&self) -> usize {
        2 * self.names.len()
    }
    #[must_use]
    pub fn entry_word(&self, variable: u16) -> Word {
        self.len() + variable
    }
    /// What that address leads to.
    #[must_use]
    pub fn target(&self, address: u64) -> Option<Target> {
        let at = |first: u64, unit: u64| {
            let offset = address.wrapping_sub(first);
            (offset.is_multiple_of(unit) && offset / unit < u64::from(self.len())).then(|| (offset / unit) as u16)
        };
        at(FIRST_PAGE, PAGE).map(Target::Page).or_else(|| at(FIRST_ENTRY, 8).map(Target::Entry))
    }
    /// The variable whose frame that is.
    #[must_use]
    pub fn of_frame(&self, pa: Pa) -> Option<u16> {
        let n = pa.0.wrapping_sub(FIRST_FRAME) / PAGE;
        (n < u64::from(self.len())).then_some(n as u16)
    }
    /// The variable that a TLBI's operand names, by its page number.
    #[must_use]
    pub fn of_page_number(&self, operand: u64) -> Option<u16> {
        let number = operand & ((1 << 44) - 1);
        (0..self.len()).find(|v| page(*v).0 >> 12 & ((1 << 44) - 1) == number)
    }
    /// The word as herd writes it.
    #[must_use]
    pub fn text(&self, word: u64) -> String {
        match self.target(word) {
            Some(Target::Page(v)) => return self.name(v).to_owned(),
            Some(Target::Entry(v)) => return format!("PTE({})", self.name(v)),
            None => {}
        }
        match Fields::of(word).and_then(|f| Some((f, self.of_frame(f.frame)?))) {
            Some((f, v)) => {
                let mut text = format!("(oa:PA({})", self.name(v));
                for (name, value, usual) in
                    [("af", f.af, true), ("db", f.db, true), ("dbm", f.dbm, false), ("valid", f.valid, true)]
                {
                    if value != usual {
                        text += &format!(", {name}:{}", u8::from(value));
                    }
                }
                text + ")"
            }
            None => (word as i64).to_string(),
        }
    }
}
