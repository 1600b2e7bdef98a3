//! The text of `/sys/kernel/debug/kernel_page_tables`, written byte for byte (`arch/arm64/mm/ptdump.c`;
//! kernel-semantics §8.3, §8.4). The walk and the grouping are kernel code; here are only lines.

use std::io::{self, Write};

use vmemmap_arch::{Attr, Va, Version};

use crate::hex::put_hex;

/// The bits of a descriptor that ptdump compares and shows.
pub const PROT_MASK: u64 = vmemmap_arch::descriptor::prot::PTDUMP_MASK;

/// A row of the kernel's `pte_bits`: prints `set` if `word & mask == value`, else `clear`.
pub(crate) struct Column {
    pub mask: u64,
    pub value: u64,
    pub set: &'static [u8],
    pub clear: &'static [u8],
}

const fn column(attr: Attr, set: &'static [u8], clear: &'static [u8]) -> Column {
    Column { mask: attr.bits(), value: attr.bits(), set, clear }
}
const fn memory_type(index: u64, set: &'static [u8]) -> Column {
    Column { mask: 7 << 2, value: index << 2, set, clear: b"" }
}

/// `pte_bits`, in the kernel's order. An empty string is not printed at all, not even its leading space.
pub(crate) static COLUMNS: [Column; 16] = [
    column(Attr::VALID, b" ", b"F"),
    column(Attr::USER, b"USR", b"   "),
    column(Attr::RDONLY, b"ro", b"RW"),
    column(Attr::PXN, b"NX", b"x "),
    column(Attr::SHARED, b"SHD", b"   "),
    column(Attr::AF, b"AF", b"  "),
    column(Attr::NG, b"NG", b"  "),
    column(Attr::CONT, b"CON", b"   "),
    column(Attr::TABLE_BIT, b"   ", b"BLK"),
    column(Attr::UXN, b"UXN", b"   "),
    column(Attr::GP, b"GP", b"  "),
    memory_type(3, b"DEVICE/nGnRnE"),
    memory_type(4, b"DEVICE/nGnRE"),
    memory_type(2, b"MEM/NORMAL-NC"),
    memory_type(0, b"MEM/NORMAL"),
    memory_type(1, b"MEM/NORMAL-TAGGED"),
];

/// Longest line: two addresses, the size, the level and every column at its widest.
const LINE: usize = 160;
/// Most bytes of a line up to its level's name: the size of a range has at most 20 digits.
pub(crate) const HEAD: usize = 65;

/// Writes the dump of one kernel, line by line.
///
/// Errors of the writer are kept and returned by `finish`; nothing is written after the first.
pub struct TextWriter<W> {
    out: W,
    names: [&'static [u8]; 5],
    /// `Version::ptdump_block_is_valid`.
    block_is_valid: bool,
    failed: io::Result<()>,
    prot: u64,
    columns: Vec<u8>,
}

impl<W: Write> TextWriter<W> {
    /// `levels` is the number of table levels of the machine.
    pub fn new(out: W, version: Version, levels: u32) -> Self {
        let names = version.ptdump_level_names(levels).map(str::as_bytes);
        let block_is_valid = version.ptdump_block_is_valid();
        let mut writer =
            Self { out, names, block_is_valid, failed: Ok(()), prot: 0, columns: Vec::with_capacity(LINE) };
        writer.set_columns(0);
        writer
    }

    /// `---[ name ]---`.
    pub fn marker(&mut self, name: &str) {
        let mut line = Vec::with_capacity(name.len() + 11);
        line.extend_from_slice(b"---[ ");
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b" ]---\n");
        self.put(&line);
    }

    /// One line for [start, end): `depth` is ptdump's level, 0 = PGD to 4 = PTE; `prot` is the descriptor's word, of
    /// which only `PROT_MASK` is looked at; 0 is a hole. `end` may be 0, one past the last address.
    pub fn range(&mut self, start: Va, end: Va, depth: u8, prot: u64) {
        let mut line = [0u8; LINE];
        let mut at = put_head(&mut line, start, end, self.names[usize::from(depth.min(4))]);
        let prot = prot & PROT_MASK;
        if prot != self.prot {
            self.set_columns(prot);
        }
        let columns = self.columns.as_slice();
        line[at..at + columns.len()].copy_from_slice(columns);
        at += columns.len();
        line[at] = b'\n';
        self.put(&line[..=at]);
    }

    /// # Errors
    /// The first error of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.failed?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn set_columns(&mut self, prot: u64) {
        self.prot = prot;
        self.columns.clear();
        if prot != 0 {
            // BLK where bits 1:0 are 01: of an invalid entry never.
            let never = self.block_is_valid && prot & Attr::VALID.bits() == 0;
            put_columns(&mut self.columns, if never { prot | Attr::TABLE_BIT.bits() } else { prot });
        }
    }

    fn put(&mut self, line: &[u8]) {
        if self.failed.is_ok() {
            self.failed = self.out.write_all(line);
        }
    }
}

/// A line up to the level's name, which has three letters or none. Returns the bytes used, at most `HEAD`.
pub(crate) fn put_head(line: &mut [u8], start: Va, end: Va, name: &[u8]) -> usize {
    put_hex(&mut line[0..18], start.0);
    line[18] = b'-';
    put_hex(&mut line[19..37], end.0);
    line[37..40].copy_from_slice(b"   ");
    let (size, unit) = scaled(end.since(start));
    let at = 40 + put_padded(&mut line[40..60], size);
    line[at] = unit;
    line[at + 1] = b' ';
    line[at + 2..at + 2 + name.len()].copy_from_slice(name);
    at + 2 + name.len()
}

/// What `put_head` returns for a level of three letters.
pub(crate) fn head_size(start: Va, end: Va) -> usize {
    let digits = scaled(end.since(start)).0.checked_ilog10().unwrap_or(0) as usize + 1;
    45 + digits.max(9)
}

/// `dump_prot`: everything after the level name of a range that is no hole.
pub(crate) fn put_columns(out: &mut Vec<u8>, prot: u64) {
    for c in &COLUMNS {
        let text = if prot & c.mask == c.value { c.set } else { c.clear };
        if !text.is_empty() {
            out.push(b' ');
            out.extend_from_slice(text);
        }
    }
}

/// The size as ptdump prints it: KiB, in the largest unit of `KMGTPE` that divides it. A range of 2^64 bytes is 0.
pub(crate) const fn scaled(bytes: u64) -> (u64, u8) {
    const UNITS: &[u8; 6] = b"KMGTPE";
    let mut size = bytes >> 10;
    let mut unit = 0;
    while size & 1023 == 0 && unit < 5 {
        size >>= 10;
        unit += 1;
    }
    (size, UNITS[unit])
}

/// `%9lu`: right-aligned in 9, wider if it must be. Returns the bytes used.
pub(crate) fn put_padded(out: &mut [u8], mut value: u64) -> usize {
    let mut digits = [b' '; 20];
    let mut at = 20;
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let first = at.min(11);
    out[..20 - first].copy_from_slice(&digits[first..]);
    20 - first
}
