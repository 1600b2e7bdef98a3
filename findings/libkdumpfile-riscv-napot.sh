#!/bin/sh
# libkdumpfile reads all sixteen pages of a RISC-V 64 KiB NAPOT mapping as the ninth of them, without an error.
#
# Version:  the libkdumpfile in the wheel of drgn 0.3.0 (Linux on x86-64, CPython 3.10 to 3.14), asked through drgn,
#           which has no reader of RISC-V page tables beside it.
# Does:     writes an ELF core of a RISC-V kernel (Sv39) with two 64 KiB areas of vmalloc over the same sixteen frames:
#           one by a NAPOT mapping (Svnapot), one by plain PTEs. Each page is read, and by its physical address too.
# Expected: the same bytes three times. "Full support for 64-bit RISC-V" is in libkdumpfile's news since 0.5.4.
# Seen:     by its physical address and by plain PTEs: page 0 to 15. By the NAPOT mapping: page 8, sixteen times.
# Why:      in the PTEs of such a mapping, sixteen times the same, bit 63 is set and the low four bits of the frame
#           number are 1000: they say the size, and the hardware puts those of the address in their place (chapter
#           Svnapot of the privileged architecture). libkdumpfile keeps them as part of the frame number. Linux maps so
#           what huge vmalloc allocates in pieces of 64 KiB, where the hardware has Svnapot
#           (arch_vmap_pte_range_map_size() and pte_mknapot() of arch/riscv).
# Reported: no.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT INT TERM
python3 -m venv "$dir/venv"
cat > "$dir/requirements.txt" <<'EOF'
drgn==0.3.0 --hash=sha256:a7feb99bb43155fb6c3347758c4bc4ea01176f760bee1ea05f26b9030696da93 \
    --hash=sha256:5e887717f59682cbc53ce14038f7fcf39b5f5690d8a1b6e91b90306b27bf13eb \
    --hash=sha256:1ad0c6eacc7f37374899ac9b4fbcc82b5d6f2e9fc57d80dda699d53e4261a2a9 \
    --hash=sha256:37e9cd7bd2c7e67940439c07b32014ca4613ffa7460c07ced78907e754cfcb92 \
    --hash=sha256:09157bd50743dab4c21868a62fea240933c9011030c53a6809adb108febc2d19
EOF
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
    -r "$dir/requirements.txt"

cat > "$dir/napot.py" <<'EOF'
import struct
import sys

import drgn

PAGE = 4096
RAM = 0x80000000  # physical; the linear map has its first GiB in one leaf
LINEAR = 0xFFFFFFD600000000
KERNEL = 0xFFFFFFFF80000000  # the kernel image is linked here and loaded at BASE
BASE = RAM + 0x200000
ROOT, MIDDLE, LAST = (BASE + number * PAGE for number in range(3))
FRAMES = BASE + 16 * PAGE
NAPOT_AREA = 0xFFFFFFC600000000  # start of the vmalloc area
PLAIN_AREA = NAPOT_AREA + 16 * PAGE
VMCOREINFO = f"""OSRELEASE=6.12.0
PAGESIZE=4096
NUMBER(VA_BITS)=39
NUMBER(PAGE_OFFSET)={LINEAR:#x}
NUMBER(phys_ram_base)={RAM:#x}
NUMBER(KERNEL_LINK_ADDR)={KERNEL:#x}
NUMBER(va_kernel_pa_offset)={KERNEL - BASE:#x}
SYMBOL(swapper_pg_dir)={KERNEL - BASE + ROOT:x}
""".encode()
KERNEL_PAGE = 0xE7  # valid, readable, writable, global, accessed, dirty


def entry(physical, flags):
    return physical >> 12 << 10 | flags


def napot(physical):
    """Linux's pte_mknapot() of order 4."""
    return entry(physical & ~0xFFFF | 0x8000, KERNEL_PAGE) | 1 << 63


def table(entries):
    words = [0] * 512
    for index, word in entries.items():
        words[index] = word
    return struct.pack("<512Q", *words)


def padded(text):
    return text + bytes(-len(text) % 4)


def core(path):
    areas = {number: napot(FRAMES) for number in range(16)}
    areas |= {16 + number: entry(FRAMES + number * PAGE, KERNEL_PAGE) for number in range(16)}
    root = {LINEAR >> 30 & 511: entry(RAM, KERNEL_PAGE), NAPOT_AREA >> 30 & 511: entry(MIDDLE, 1)}
    memory = table(root) + table({NAPOT_AREA >> 21 & 511: entry(LAST, 1)}) + table(areas)
    memory = memory.ljust(16 * PAGE, b"\0") + b"".join(bytes([number]) * PAGE for number in range(16))

    note = struct.pack("<III", 11, len(VMCOREINFO), 0) + padded(b"VMCOREINFO\0") + padded(VMCOREINFO)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 243, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 4, 0, 176, 0, 0, len(note), len(note), 4)
    virtual = LINEAR + BASE - RAM
    header += struct.pack("<IIQQQQQQ", 1, 7, PAGE, virtual, BASE, len(memory), len(memory), PAGE)
    with open(path, "wb") as file:
        file.write((header + note).ljust(PAGE, b"\0") + memory)


core(sys.argv[1] + "/core")
prog = drgn.Program()
prog.set_core_dump(sys.argv[1] + "/core")
for what, start, physical in (
    ("physical addresses", FRAMES, True),
    ("plain PTEs", PLAIN_AREA, False),
    ("NAPOT mapping", NAPOT_AREA, False),
):
    pages = (prog.read(start + number * PAGE, 1, physical)[0] for number in range(16))
    print(f"{what:18} page", *pages)
EOF
DRGN_USE_LIBKDUMPFILE_FOR_ELF=1 "$dir/venv/bin/python" "$dir/napot.py" "$dir" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
physical addresses page 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
plain PTEs         page 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
NAPOT mapping      page 8 8 8 8 8 8 8 8 8 8 8 8 8 8 8 8
EOF
echo "libkdumpfile, in drgn 0.3.0: the pages of 64 KiB of RISC-V kernel memory, each page holding its number"
echo "expected: 0 to 15, by whatever way; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: by a NAPOT mapping all sixteen pages are the ninth"
