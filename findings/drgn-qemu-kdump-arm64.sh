#!/bin/sh
# drgn cannot read a kdump-compressed file of an arm64 guest as QEMU writes it: no architecture, then no page.
#
# Version:  drgn 0.3.0 with the libkdumpfile in its wheel (Linux on x86-64, CPython 3.10 to 3.14).
# Does:     writes kdump-compressed files of four pages, with VMCOREINFO. For an arm64 guest, QEMU (`dump-guest-memory`
#           with `format=kdump-zlib`; 7.2.22 was looked at) differs from makedumpfile in two fields: the machine in the
#           header is "Unknown" and the other strings are empty; block_size, the unit of the bitmap and of the page
#           descriptors, is 65536 for every guest, while PAGESIZE in VMCOREINFO is what the kernel was built with.
#           Each is tried alone, then both, all without and with the platform given to drgn.
# Expected: the pages. The file says nothing false: block_size is the unit that it uses, VMCOREINFO is the guest's. A
#           given platform should be as good as one found in the file.
# Seen:     makedumpfile's strings, block_size = PAGESIZE (4096 or 65536): read
#           QEMU's strings: KDUMP_ATTR_ARCH_NAME has no value; with the platform given: read
#           block_size 65536, PAGESIZE=4096: opened, but every page is an "Out-of-bounds PFN" (the number behind it is
#           drgn's: the address asked for)
#           both: the first error; with the platform given: the second. Nothing that one can give makes it readable.
# Why:      once VMCOREINFO is read, its PAGESIZE replaces block_size as libkdumpfile's page size: the frame looked for
#           is 0x40000, of 4 KiB, and the file's last is 0x4003, of 64 KiB. The first error has been met where the
#           strings were damaged otherwise: https://github.com/ptesarik/libkdumpfile/issues/36,
#           https://github.com/osandov/drgn/issues/382.
# Reported: no. An ELF dump of the same guest (QEMU's default format) is read.
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

cat > "$dir/kdump.py" <<'EOF'
import struct
import sys
import zlib

import drgn

RAM = 0x40000000
PAGES = 4
VMCOREINFO = """OSRELEASE=6.12.0
PAGESIZE=%d
SYMBOL(swapper_pg_dir)=ffff800081001000
NUMBER(VA_BITS)=48
NUMBER(kimage_voffset)=0xffff800040000000
NUMBER(PHYS_OFFSET)=0x40000000
NUMBER(TCR_EL1_T1SZ)=0x10
"""
# sysname, nodename, release, version, machine, domainname
MAKEDUMPFILE = (b"Linux", b"guest", b"6.12.0", b"#1 SMP", b"aarch64", b"(none)")
QEMU = (b"", b"", b"", b"", b"Unknown", b"")


def note(name, kind, desc):
    def padded(text):
        return text + bytes(-len(text) % 4)

    return struct.pack("<III", len(name), len(desc), kind) + padded(name) + padded(desc)


def kdump(path, uts, block, page):
    first = RAM // block
    end = first + PAGES
    bitmap = bytearray(-(-end // 8 // block) * block)
    for pfn in range(first, end):
        bitmap[pfn >> 3] |= 1 << (pfn & 7)

    info = (VMCOREINFO % page).encode()
    prstatus = note(b"CORE\0", 1, bytes(392))
    notes = prstatus + note(b"VMCOREINFO\0", 0, info)
    notes_at = block + 104  # behind the sub-header, at the end of which three 64-bit frame numbers are
    info_at = notes_at + len(prstatus) + 24

    header = b"KDUMP   " + struct.pack("<I", 6) + b"".join(text.ljust(65, b"\0") for text in uts)
    header = header.ljust(424, b"\0")
    header += struct.pack("<10I", 1, block, 1, 2 * len(bitmap) // block, end, 0, 0, 0, 0, 1)
    sub = struct.pack("<QIIQQQQQQQQQQQ", RAM, 1, 0, 0, 0, info_at, len(info), notes_at, len(notes), 0, 0, 0, 0, end)

    data = [zlib.compress(bytes([0x11 * (page + 1)]) * block) for page in range(PAGES)]
    at = 2 * block + 2 * len(bitmap) + 24 * PAGES
    descriptors = b""
    for page in data:
        descriptors += struct.pack("<QIIQ", at, len(page), 1, 0)
        at += len(page)
    with open(path, "wb") as file:
        file.write(header.ljust(block, b"\0") + (sub + notes).ljust(block, b"\0"))
        file.write(bytes(bitmap) * 2 + descriptors + b"".join(data))


def answer(path, block, platform):
    prog = drgn.Program(platform)
    try:
        prog.set_core_dump(path)
        return "read " + " ".join(prog.read(RAM + n * block, 4, True).hex() for n in range(PAGES))
    except Exception as error:  # set_core_dump raises a plain Exception
        return str(error)


path = sys.argv[1] + "/kdump"
arm64 = drgn.Platform(drgn.Architecture.AARCH64)
for strings, uts in (("makedumpfile's", MAKEDUMPFILE), ("QEMU's", QEMU)):
    for block, page in ((4096, 4096), (65536, 65536), (65536, 4096)):
        kdump(path, uts, block, page)
        print(f"{strings} strings, block_size {block}, PAGESIZE={page}")
        print("  " + answer(path, block, None))
        print("  platform given: " + answer(path, block, arm64))
EOF
"$dir/venv/bin/python" "$dir/kdump.py" "$dir" > "$dir/seen"
cat > "$dir/stated" <<'EOF'
makedumpfile's strings, block_size 4096, PAGESIZE=4096
  read 11111111 22222222 33333333 44444444
  platform given: read 11111111 22222222 33333333 44444444
makedumpfile's strings, block_size 65536, PAGESIZE=65536
  read 11111111 22222222 33333333 44444444
  platform given: read 11111111 22222222 33333333 44444444
makedumpfile's strings, block_size 65536, PAGESIZE=4096
  could not read memory from kdump: Out-of-bounds PFN: 0x40000000
  platform given: could not read memory from kdump: Out-of-bounds PFN: 0x40000000
QEMU's strings, block_size 4096, PAGESIZE=4096
  kdump_get_string_attr(KDUMP_ATTR_ARCH_NAME): Key has no value
  platform given: read 11111111 22222222 33333333 44444444
QEMU's strings, block_size 65536, PAGESIZE=65536
  kdump_get_string_attr(KDUMP_ATTR_ARCH_NAME): Key has no value
  platform given: read 11111111 22222222 33333333 44444444
QEMU's strings, block_size 65536, PAGESIZE=4096
  kdump_get_string_attr(KDUMP_ATTR_ARCH_NAME): Key has no value
  platform given: could not read memory from kdump: Out-of-bounds PFN: 0x40000000
EOF
echo "drgn 0.3.0: kdump-compressed files of an arm64 guest; QEMU writes the last kind for a kernel with 4K pages"
echo "expected: the four pages, each time; seen:"
cat "$dir/seen"
diff "$dir/stated" "$dir/seen" || { echo "CHANGED: this is not what was found" >&2; exit 1; }
echo "as found: QEMU's strings hide the architecture, its block_size beside PAGESIZE=4096 hides the pages"
