#!/bin/sh
# goblin reads 65,535 program headers of an ELF core that has 70,000, and says nothing.
#
# Version:  goblin 0.10.7; object 0.37.3 beside it.
# Does:     writes ELF cores of one note and 65,533, 65,534, 65,535 or 69,999 PT_LOADs, each of one page, every other page
#           of memory, as a dump of fragmented memory has them (they share one page of the file, to keep it small). From
#           65,535 program headers on, e_phnum is PN_XNUM (0xffff) and the number is in sh_info of section header 0
#           (elf(5)); QEMU's cores, among others, use it. Then counts what each crate has.
# Expected: as many as there are, or an error.
# Seen:     object: all. goblin: up to 65,535 all; of 65,536 and of 70,000 it has 65,535, without an error. What lies in
#           the memory behind them looks like memory that the dump does not hold.
# Why:      e_phnum is taken as the number. Other readers had the same and mended it, each after a real core:
#           https://github.com/eliben/pyelftools/pull/326, https://github.com/libbpf/blazesym/pull/391; open:
#           https://github.com/golang/go/issues/78217.
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
cat > "$dir/cores.py" <<'EOF'
import struct
import sys

PAGE = 4096
BASE = 0x41000000  # physical address of the first page; RAM starts at 0x40000000
LINEAR = 0xFFFF000000000000  # where the linear map has 0x40000000


def load(number, offset):
    physical = BASE + 2 * PAGE * number
    return struct.pack("<IIQQQQQQ", 1, 7, offset, LINEAR + physical - 0x40000000, physical, PAGE, PAGE, PAGE)


def core(path, headers):
    extended = headers >= 0xFFFF
    table = 128 if extended else 64
    notes = table + 56 * headers
    note = struct.pack("<III8s", 5, 0, 1, b"CORE")
    data = -(-(notes + len(note)) // PAGE) * PAGE
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    out = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 183, 1, 0, table, 64 if extended else 0, 0, 64, 56,
                      0xFFFF if extended else headers, 64, 1 if extended else 0, 0)
    if extended:
        out += struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, headers, 0, 0)
    out += struct.pack("<IIQQQQQQ", 4, 0, notes, 0, 0, len(note), len(note), 4)
    out += b"".join(load(number, data) for number in range(headers - 1))
    with open(path, "wb") as file:
        file.write((out + note).ljust(data, b"\0") + b"\x5a" * PAGE)


for headers in map(int, sys.argv[2:]):
    core(f"{sys.argv[1]}/{headers}", headers)
EOF
mkdir "$dir/src"
cat > "$dir/Cargo.toml" <<'EOF'
[package]
name = "headers"
version = "0.0.0"
edition = "2021"

[dependencies]
goblin = "=0.10.7"
object = { version = "=0.37.3", default-features = false, features = ["elf", "read", "std"] }

[workspace]
EOF
cat > "$dir/src/main.rs" <<'EOF'
use object::read::elf::FileHeader;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap();
    for number in arguments {
        let file = std::fs::read(format!("{folder}/{number}")).unwrap();
        let goblin = goblin::elf::Elf::parse(&file).map(|core| core.program_headers.len());
        let header = object::elf::FileHeader64::<object::Endianness>::parse(&*file).unwrap();
        let object = header.program_headers(object::Endianness::Little, &*file).map(|all| all.len());
        println!("{number} program headers: object {object:?}, goblin {goblin:?}");
    }
}
EOF
cd "$dir"
cargo generate-lockfile --quiet
for hash in 17582616a7718cca54cec18e534a76c7c4aec11a8b9a85695712f262fd15a4c8 ff76201f031d8863c38aa7f905eca4f53abbfa15f609db4277d44cd8938f33fe; do
    grep -q "$hash" Cargo.lock || { echo "goblin 0.10.7 or object 0.37.3 is not the one meant" >&2; exit 2; }
done
cargo build --quiet --release --target-dir "$dir/target"
python3 "$dir/cores.py" "$dir" 65534 65535 65536 70000
"$dir/target/release/headers" "$dir" 65534 65535 65536 70000 > "$dir/seen"
cat > "$dir/stated" <<'EOF'
65534 program headers: object Ok(65534), goblin Ok(65534)
65535 program headers: object Ok(65535), goblin Ok(65535)
65536 program headers: object Ok(65536), goblin Ok(65535)
70000 program headers: object Ok(70000), goblin Ok(65535)
EOF
echo "goblin 0.10.7: ELF cores with 65,534 to 70,000 program headers"
echo "expected: all of them, or an error; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: what lies behind header 65,535 is left out without a word"
