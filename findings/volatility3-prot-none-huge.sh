#!/bin/sh
# volatility3 reads every page of a PROT_NONE transparent hugepage as the last one, and of a HugeTLB page two as one.
#
# Version:  volatility3 2.28.2.
# Does:     writes a raw memory image of 6 MiB with one 2 MiB hugepage, whose 512 pages hold their numbers, and x86-64
#           page tables that map it four times, with the entries that Linux makes: readable; PROT_NONE by 512 PTEs;
#           PROT_NONE as a transparent hugepage; PROT_NONE as a HugeTLB page. Behind the hugepage lies other memory.
#           Each page is read through LinuxIntel32e, the layer for Linux on x86-64, and then all 2 MiB at once.
# Expected: page 0 to 511, four times. The pages are there, only the process is kept from them: by mprotect(), or for a
#           moment by automatic NUMA balancing, which marks much of a process's memory so, transparent hugepages too.
#           volatility3 is made to read PROT_NONE memory (pull request below).
# Seen:     readable and by PTEs: so it is. Transparent hugepage: 512 times page 511; all at once, that page and then
#           511 pages of the memory behind the hugepage. HugeTLB page: each even page is read as the odd one after it;
#           all at once, everything one page too late. `is_valid` is True for each page, nothing is raised.
# Why:      against L1TF, Linux inverts the frame number of what is not present. In a transparent hugepage that is bit
#           21 and up (pmd_modify() of arch/x86), the bits below stay 0; volatility3 inverts bit 12 and up, adds the
#           offset by OR, and so has ones there. In a HugeTLB page it is bit 12 and up (pte_modify()), but volatility3
#           first clears bit 12, which is the PAT bit of a hugepage, and the inverting sets it. Linux's pmd_pfn() takes
#           bit 21 and up of either.
# Reported: no. The support of PROT_NONE, shown there with PTEs:
#           https://github.com/volatilityfoundation/volatility3/pull/1335 (merged).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
cat > "$dir/requirements.txt" <<'EOF'
volatility3==2.28.2 --hash=sha256:0461d6dd71b9ddbaf70c96e079c06efdf174ac65383b3dcf10dd165181fbd3c3
EOF
# Without volatility3's only dependency, which reads Windows programs.
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
    -r "$dir/requirements.txt"

cat > "$dir/none.py" <<'EOF'
import pathlib
import struct
import sys

from volatility3.framework import contexts
from volatility3.framework.layers import intel, physical

PAGE = 4096
HUGE = 512 * PAGE
ROOT, UPPER, MIDDLE, LAST = (number * PAGE for number in range(1, 5))  # the tables; the hugepage lies at 2 MiB
AREA = 0x7F0000000000  # of a process; the four mappings follow each other
TABLE = 0x67
READABLE = 0x8000000000000067  # present, writable, user, accessed, dirty, not executable
NONE = 0x160  # PROT_NONE (the bit that is "global" in a present entry), accessed, dirty
LARGE = 0x80
PFN_OF_PTE = (1 << 52) - PAGE  # bits 12 to 51
PFN_OF_PMD = (1 << 52) - HUGE  # bits 21 to 51


def table(entries):
    words = [0] * 512
    for index, word in entries.items():
        words[index] = word
    return struct.pack("<512Q", *words)


def inverted(physical_address, mask):
    return ~physical_address & mask


def image(path):
    middle = {
        0: HUGE | READABLE | LARGE,
        1: LAST | TABLE,
        2: inverted(HUGE, PFN_OF_PMD) | NONE | LARGE,
        3: inverted(HUGE, PFN_OF_PTE) | NONE | LARGE,
    }
    last = {number: inverted(HUGE + number * PAGE, PFN_OF_PTE) | NONE for number in range(512)}
    memory = bytes(PAGE) + table({AREA >> 39 & 511: UPPER | TABLE}) + table({0: MIDDLE | TABLE})
    memory = (memory + table(middle) + table(last)).ljust(HUGE, b"\0")
    memory += b"".join(struct.pack("<1024I", *[number] * 1024) for number in range(512))
    path.write_bytes(memory + b"\xff" * HUGE)


path = pathlib.Path(sys.argv[1]) / "memory"
image(path)
context = contexts.Context()
context.config["file.location"] = path.as_uri()
context.layers.add_layer(physical.FileLayer(context, "file", "file"))
context.config["process.memory_layer"] = "file"
context.config["process.page_map_offset"] = ROOT
layer = intel.LinuxIntel32e(context, "process", "process")
context.layers.add_layer(layer)
for number, what in enumerate(("readable", "PROT_NONE, PTEs", "PROT_NONE, transparent", "PROT_NONE, HugeTLB")):
    start = AREA + number * HUGE
    pages = [struct.unpack("<I", layer.read(start + page * PAGE, 4))[0] for page in range(512)]
    valid = all(layer.is_valid(start + page * PAGE) for page in range(512))
    at_once = struct.unpack("<524288I", layer.read(start, HUGE))[::1024]
    other = at_once.count(0xFFFFFFFF)
    print(f"{what:22} pages", *pages[:4], "..", *pages[-4:])
    print(f"{'':22} right {sum(page == was for page, was in enumerate(pages))}, is_valid {valid};", end=" ")
    print(f"at once: right {sum(page == was for page, was in enumerate(at_once))}, from behind it {other}")
EOF
"$dir/venv/bin/python" "$dir/none.py" "$dir" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
readable               pages 0 1 2 3 .. 508 509 510 511
                       right 512, is_valid True; at once: right 512, from behind it 0
PROT_NONE, PTEs        pages 0 1 2 3 .. 508 509 510 511
                       right 512, is_valid True; at once: right 512, from behind it 0
PROT_NONE, transparent pages 511 511 511 511 .. 511 511 511 511
                       right 1, is_valid True; at once: right 0, from behind it 511
PROT_NONE, HugeTLB     pages 1 1 3 3 .. 509 509 511 511
                       right 256, is_valid True; at once: right 0, from behind it 1
EOF
echo "volatility3 2.28.2: a 2 MiB hugepage, each of its 512 pages holding its number"
echo "expected: 0 to 511, whatever the protection; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: of a PROT_NONE hugepage other pages are read"
