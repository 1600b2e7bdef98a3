#!/bin/sh
# volatility3 says that 7 of 8 struct pages of a 1 GiB hugepage are not mapped, once the kernel has shared their pages.
#
# Version:  volatility3 2.28.2; drgn 0.3.0 beside it (the wheel for Linux on x86-64, CPython 3.10 to 3.14).
# Does:     writes an x86-64 ELF core with the page tables of the vmemmap of one 1 GiB hugepage as HugeTLB vmemmap
#           optimization (HVO) leaves them: 4096 entries in eight tables, all to one page, the first of them writable,
#           the others read-only. Reads each page through both, from that core and from one in which an entry of the
#           fourth table is writable too.
# Expected: 4096 readable pages. The entries are valid ones and the CPU follows them; `is_valid` of volatility3's layer
#           "Returns whether the address offset can be translated to a valid address".
# Seen:     drgn: all. volatility3: of the first table all, of the seven others none ("Page Fault at entry ... in table
#           page table"); with `pad=True`, zeros. With the one entry different, the whole fourth table is there too.
# Why:      a table whose entries are all the same is taken for an invalid one, since Windows 10 has many such, and they
#           slow down a scan. A comment in the code says so and calls valid ones rare; the documentation does not. HVO
#           makes seven for each 1 GiB hugepage.
# Reported: the check, for other addresses than these and as wanted:
#           https://github.com/volatilityfoundation/volatility3/issues/723 and, of Windows pages with the same data,
#           https://github.com/volatilityfoundation/volatility3/issues/1923 (both closed). That it hides Linux's struct
#           pages is not reported.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
cat > "$dir/requirements.txt" <<'EOF'
volatility3==2.28.2 --hash=sha256:0461d6dd71b9ddbaf70c96e079c06efdf174ac65383b3dcf10dd165181fbd3c3
drgn==0.3.0 --hash=sha256:a7feb99bb43155fb6c3347758c4bc4ea01176f760bee1ea05f26b9030696da93 \
    --hash=sha256:5e887717f59682cbc53ce14038f7fcf39b5f5690d8a1b6e91b90306b27bf13eb \
    --hash=sha256:1ad0c6eacc7f37374899ac9b4fbcc82b5d6f2e9fc57d80dda699d53e4261a2a9 \
    --hash=sha256:37e9cd7bd2c7e67940439c07b32014ca4613ffa7460c07ced78907e754cfcb92 \
    --hash=sha256:09157bd50743dab4c21868a62fea240933c9011030c53a6809adb108febc2d19
EOF
# Without volatility3's only dependency, which reads Windows programs.
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
    -r "$dir/requirements.txt"

cat > "$dir/hvo.py" <<'EOF'
import pathlib
import struct
import sys

import drgn
from volatility3.framework import contexts, exceptions
from volatility3.framework.layers import elf, intel, physical

PAGE = 4096
KERNEL = 0xFFFFFFFF80000000  # where the kernel image has physical address 0
LINEAR = 0xFFFF888000000000
VMEMMAP = 0xFFFFEA0000000000
BASE = 0x1000000  # physical address of the tables and, behind them, the page of struct pages
ROOT, UPPER, MIDDLE, LAST = (BASE + number * PAGE for number in range(4))
SHARED = LAST + 8 * PAGE
PAGES = VMEMMAP + (1 << 30) // PAGE * 64  # struct pages of the hugepage at physical address 1 GiB
TABLE = 0x67
READ_ONLY = 0x8000000000000121  # PAGE_KERNEL_RO
WRITABLE = 0x8000000000000163  # PAGE_KERNEL
VMCOREINFO = f"""OSRELEASE=6.12.0
PAGESIZE=4096
SYMBOL(swapper_pg_dir)={KERNEL + ROOT:x}
NUMBER(phys_base)=0
NUMBER(pgtable_l5_enabled)=0
KERNELOFFSET=0
""".encode()


def table(entries):
    words = [0] * 512
    for index, word in entries.items():
        words[index] = word
    return struct.pack("<512Q", *words)


def padded(text):
    return text + bytes(-len(text) % 4)


def core(path, writable):
    middle = {(PAGES >> 21 & 511) + number: LAST + number * PAGE | TABLE for number in range(8)}
    memory = table({PAGES >> 39 & 511: UPPER | TABLE}) + table({PAGES >> 30 & 511: MIDDLE | TABLE}) + table(middle)
    entries = (SHARED | (WRITABLE if number in writable else READ_ONLY) for number in range(8 * 512))
    memory += struct.pack("<4096Q", *entries) + b"\x11" * PAGE

    note = struct.pack("<III", 11, len(VMCOREINFO), 0) + padded(b"VMCOREINFO\0") + padded(VMCOREINFO)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 4)
    header += struct.pack("<IIQQQQQQ", 1, 7, PAGE, LINEAR + BASE, BASE, len(memory), len(memory), PAGE)
    with open(path, "wb") as file:
        file.write((header + note).ljust(PAGE, b"\0") + memory)


def volatility(path):
    context = contexts.Context()
    context.config["file.location"] = pathlib.Path(path).as_uri()
    context.layers.add_layer(physical.FileLayer(context, "file", "file"))
    context.config["elf.base_layer"] = "file"
    context.layers.add_layer(elf.Elf64Layer(context, "elf", "elf"))
    context.config["kernel.memory_layer"] = "elf"
    context.config["kernel.page_map_offset"] = ROOT
    layer = intel.LinuxIntel32e(context, "kernel", "kernel")
    context.layers.add_layer(layer)
    return layer


def report(path):
    prog = drgn.Program()
    prog.set_core_dump(path)
    layer = volatility(path)

    def reads(read, error):
        counts = []
        for start in range(0, 8 * 512, 512):
            count = 0
            for number in range(start, start + 512):
                try:
                    count += read(PAGES + number * PAGE, 4) == b"\x11" * 4
                except error:
                    pass
            counts.append(count)
        return counts

    print("  drgn                 ", *reads(prog.read, drgn.FaultError))
    print("  volatility3, read    ", *reads(layer.read, exceptions.InvalidAddressException))
    valid = (sum(layer.is_valid(PAGES + (start + n) * PAGE) for n in range(512)) for start in range(0, 8 * 512, 512))
    print("  volatility3, is_valid", *valid)
    last = PAGES + 4095 * PAGE
    padded_read = layer.read(last, 4, pad=True)
    print("  the last page: drgn", prog.read(last, 4).hex(), "volatility3 with pad=True", padded_read.hex())


print("as HVO leaves it: pages read, by table")
core(sys.argv[1] + "/core", {0})
report(sys.argv[1] + "/core")
print("one entry of the fourth table different: pages read, by table")
core(sys.argv[1] + "/different", {0, 3 * 512 + 5})
report(sys.argv[1] + "/different")
EOF
"$dir/venv/bin/python" "$dir/hvo.py" "$dir" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
as HVO leaves it: pages read, by table
  drgn                  512 512 512 512 512 512 512 512
  volatility3, read     512 0 0 0 0 0 0 0
  volatility3, is_valid 512 0 0 0 0 0 0 0
  the last page: drgn 11111111 volatility3 with pad=True 00000000
one entry of the fourth table different: pages read, by table
  drgn                  512 512 512 512 512 512 512 512
  volatility3, read     512 0 0 512 0 0 0 0
  volatility3, is_valid 512 0 0 512 0 0 0 0
  the last page: drgn 11111111 volatility3 with pad=True 00000000
EOF
echo "volatility3 2.28.2: the struct pages of a 1 GiB hugepage, 4096 pages by eight page tables"
echo "expected: all, as drgn reads them; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: a table whose entries are all the same is taken for none"
