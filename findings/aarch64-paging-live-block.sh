#!/bin/sh
# aarch64-paging splits a live block, and moves a page of it, without the error it gives for every neighbouring request.
#
# Version:  aarch64-paging 0.12.3 (a library; the tables are built and read here, on any host, no MMU takes part).
# Does:     maps a writable 2 MiB block at 0x200000 to 0x800000, marks the table active, and asks `Mapping::map_range`
#           for one 4 KiB page of it in several ways, each on a fresh table.
# Expected: `BreakBeforeMakeViolation`, the documented error for an update of a live mapping that needs
#           break-before-make, for all but the first. The Arm architecture asks for that sequence (invalid entry, TLBI,
#           new entry) when the size of a mapping changes, and when the output address of a writable mapping changes.
#           The second and third requests do both (FEAT_BBM can lift the first rule, not the second).
# Seen:     another block, a page not mapped any more, a page read-only: refused, the table is as before. Another page
#           inside the same 2 MiB of physical memory: `Ok`, the block has become a table of 512 pages and one of them
#           points elsewhere.
# Why:      the check compares the entry that it finds, the block, with the one asked for after rounding its output
#           address down to the block's size. Both are the same then. `IdMap` and `LinearMap` cannot ask for it, since
#           their physical addresses follow from the virtual ones; users of `Mapping` can.
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "block"
version = "0.0.0"
edition = "2021"

[dependencies]
aarch64-paging = "=0.12.3"

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use aarch64_paging::descriptor::{El1Attributes as Attributes, PhysicalAddress};
use aarch64_paging::idmap::IdTranslation;
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, VaRange};
use aarch64_paging::{MapError, Mapping};

const BLOCK: usize = 2 << 20;
const WRITABLE: Attributes = Attributes::ATTRIBUTE_INDEX_1
    .union(Attributes::INNER_SHAREABLE)
    .union(Attributes::ACCESSED)
    .union(Attributes::NON_GLOBAL)
    .union(Attributes::VALID);

fn main() {
    for (request, output, flags) in [
        ("the same again", 0x801000, WRITABLE),
        ("next page of the block", 0x802000, WRITABLE),
        ("last page of the block", 0x9ff000, WRITABLE),
        ("a page of another block", 0xa01000, WRITABLE),
        ("read-only", 0x801000, WRITABLE.union(Attributes::READ_ONLY)),
        ("not mapped", 0x801000, Attributes::empty()),
    ] {
        let mut mapping = Mapping::with_asid_and_va_range(IdTranslation::new(), 1, 1, El1And0, VaRange::Lower);
        let block = MemoryRegion::new(BLOCK, 2 * BLOCK);
        mapping.map_range(&block, PhysicalAddress(4 * BLOCK), WRITABLE, Constraints::empty()).unwrap();
        mapping.mark_active();
        let page = MemoryRegion::new(BLOCK + 0x1000, BLOCK + 0x2000);
        let answer = match mapping.map_range(&page, PhysicalAddress(output), flags, Constraints::empty()) {
            Ok(()) => "Ok",
            Err(MapError::BreakBeforeMakeViolation(_)) => "BreakBeforeMakeViolation",
            Err(error) => panic!("{error}"),
        };
        let mut after = String::new();
        mapping
            .walk_range(&page, &mut |_, descriptor, level| {
                after = format!("level {level}, {:#x}", descriptor.output_address().0);
                Ok(())
            })
            .unwrap();
        println!("{request:24} {answer:25} {after}");
        mapping.mark_inactive();
    }
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
grep -q 33031af061bdc70425bc55be120e6ac1801d5613aeb84906a282febadf72176e Cargo.lock ||
    { echo "aarch64-paging 0.12.3 is not the one meant" >&2; exit 2; }
cargo build --quiet --target-dir "$dir/target"
"$dir/target/debug/block" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
the same again           Ok                        level 2, 0x800000
next page of the block   Ok                        level 3, 0x802000
last page of the block   Ok                        level 3, 0x9ff000
a page of another block  BreakBeforeMakeViolation  level 2, 0x800000
read-only                BreakBeforeMakeViolation  level 2, 0x800000
not mapped               BreakBeforeMakeViolation  level 2, 0x800000
EOF
echo "aarch64-paging 0.12.3: a live 2 MiB block at 0x200000 to 0x800000; page 0x201000 is to become"
echo "expected: BreakBeforeMakeViolation for all but the first; seen, with the entry afterwards:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: a page moved inside the block's own 2 MiB is accepted and splits the live block"
