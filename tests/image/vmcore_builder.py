"""Dumps assembled from a capture's table pages: the memory of the captured machine, all of it zero but its tables."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

CAPTURES = Path(__file__).parents[1] / "captures"
STATES = sorted(path.with_suffix("") for path in CAPTURES.glob("*/*.npz"))
RELEASES = {"6.1-4k": "6.1.192", "6.1-64k": "6.1.192", "6.12-4k": "6.12.0", "7.3-4k": "7.3.4"}
NOWHERE = (1 << 64) - 1
needs_drgn = pytest.mark.skipif(find_spec("drgn") is None, reason="drgn has no wheel for this machine")
PT_LOAD, PT_NOTE, PN_XNUM = 1, 4, 0xFFFF

Layout = Literal["vmcore", "qemu", "kcore"]


@dataclass(frozen=True)
class Capture:
    """A capture's arrays, and what its JSON says of the machine."""

    state: Path
    json: Mapping[str, Any]
    pa: np.ndarray
    level: np.ndarray
    words: np.ndarray

    @property
    def granule(self) -> int:
        return self.json["granule"]

    @property
    def system_ram(self) -> list[tuple[int, int]]:
        """(first byte, one past the last), as /proc/iomem says it: what a crash kernel is told to dump."""
        ranges = (re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line) for line in self.json["guest"]["system_ram"])
        return [(int(match[1], 16), int(match[2], 16) + 1) for match in ranges if match]

    @property
    def machine_ram(self) -> list[tuple[int, int]]:
        """What the virtual machine has for RAM, plugged or not: what it dumps itself."""
        ranges = ((int(r["base"], 16), r["size"]) for r in self.json["ram"])
        return [(base, base + size) for base, size in ranges]

    def linear(self, pa: int) -> int:
        """Address in the linear map."""
        return (pa - int(self.json["memstart"], 16) + int(self.json["page_offset"], 16)) % (1 << 64)

    def pages(self) -> list[tuple[int, bytes]]:
        return [(int(pa), row.tobytes()) for pa, row in zip(self.pa, self.words, strict=True)]


def load(state: Path) -> Capture:
    data = json.loads(state.with_suffix(".json").read_text())
    with np.load(state.with_suffix(".npz")) as arrays:
        return Capture(state, data, arrays["pa"], arrays["level"], arrays["words"])


def vmcoreinfo(capture: Capture, **replaced: str | None) -> dict[str, str]:
    """The lines of arm64 that matter, and some that do not; ``None`` leaves one out. Names stand for their keys."""
    d, t = capture.json, capture.json["registers"]
    lines = {
        "OSRELEASE": RELEASES[capture.state.parent.name],
        "BUILD-ID": "00" * 20,
        "PAGESIZE": str(d["granule"]),
        "SYMBOL(init_uts_ns)": "ffff800009c25a40",
        "OFFSET(uts_namespace.name)": "0",
        "SYMBOL(swapper_pg_dir)": d["swapper_pg_dir_va"].removeprefix("0x"),
        "SYMBOL(_stext)": "ffff800008010000",
        "SYMBOL(mem_section)": "ffff00003fdfc080",
        "LENGTH(mem_section)": "1024",
        "SIZE(mem_section)": "16",
        "OFFSET(mem_section.section_mem_map)": "0",
        "NUMBER(SECTION_SIZE_BITS)": str(d["section_size"].bit_length() - 1),
        "NUMBER(MAX_PHYSMEM_BITS)": "48",
        "SIZE(page)": "64",
        "NUMBER(VA_BITS)": str(d["va_bits"]),
        "NUMBER(VMEMMAP_START)": d["vmemmap_start"],
        "NUMBER(VMEMMAP_END)": d["vmemmap_end"],
        "NUMBER(kimage_voffset)": d["kimage_voffset"],
        "NUMBER(PHYS_OFFSET)": d["memstart"],
        "NUMBER(TCR_EL1_T1SZ)": hex(int(t["TCR_EL1"], 16) >> 16 & 63),
        "KERNELOFFSET": "0",
        "NUMBER(KERNELPACMASK)": "0x0",
        "NUMBER(PG_head_mask)": str(1 << 16 if RELEASES[capture.state.parent.name].startswith("6.1.") else 1 << 6),
        "CRASHTIME": "1700000000",
    }
    for key, value in replaced.items():
        matches = [k for k in lines if re.sub(r"[^a-zA-Z0-9_]", "", k.split("(")[-1]) == key]
        assert len(matches) == 1, key
        if value is None:
            del lines[matches[0]]
        else:
            lines[matches[0]] = value
    return lines


def text_of(lines: Mapping[str, str]) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in lines.items()).encode()


def note(name: bytes, kind: int, data: bytes) -> bytes:
    def padded(raw: bytes) -> bytes:
        return raw + bytes(-len(raw) % 4)

    return struct.pack("<III", len(name) + 1, len(data), kind) + padded(name + b"\0") + padded(data)


@dataclass(frozen=True)
class Load:
    """A PT_LOAD; ``offset`` is filled in by the writer unless the segment stores nothing."""

    va: int
    pa: int
    stored: int
    size: int
    offset: int | None = None


def loads_of(capture: Capture, layout: Layout) -> list[Load]:
    d = capture.json
    if layout == "qemu":
        return [Load(0, start, end - start, end - start) for start, end in capture.machine_ram]
    ram = [Load(capture.linear(start), start, end - start, end - start) for start, end in capture.system_ram]
    # The kernel's image is named again, where it runs; both name the same memory.
    text_pa = int(d["root_pa"], 16) & ~0xFFFF
    text = Load((text_pa + int(d["kimage_voffset"], 16)) % (1 << 64), text_pa, 1 << 20, 1 << 20)
    if layout == "vmcore":
        return [text, *ram]
    vmalloc, vmemmap = (
        next(int(a, 16) for a, n in d["ptdump_markers"] if n == name) for name in ("vmalloc() area", "vmemmap start")
    )
    # As read_kcore_iter puts them: far beyond what a copy of the file could hold.
    far = 1 << 46
    return [
        text,
        Load(vmalloc, NOWHERE, 1 << 40, 1 << 40, far),
        Load(int(d["ptdump_markers"][2][0], 16), NOWHERE, 1 << 27, 1 << 27, far),
        Load(vmemmap, NOWHERE, 16 << 20, 16 << 20, far),
        # Kernels before v4.11 gave 0 for "none".
        Load(vmemmap + (1 << 30), 0, 1 << 20, 1 << 20, far),
        *ram,
    ]


def write_elf(
    path: Path,
    capture: Capture,
    layout: Layout = "vmcore",
    *,
    info: Mapping[str, str] | None = None,
    loads: Sequence[Load] | None = None,
    pages: Sequence[tuple[int, bytes]] | None = None,
    xnum: bool = False,
) -> Path:
    """A sparse ELF core dump. ``info`` is the VMCOREINFO (an empty one leaves the note out); ``xnum`` counts the
    program headers in a section header, as dumps with 65,535 and more do.
    """
    info = vmcoreinfo(capture) if info is None else info
    loads = loads_of(capture, layout) if loads is None else loads
    notes = note(b"CORE", 1, bytes(392)) + (note(b"VMCOREINFO", 0, text_of(info)) if info else b"")
    section = 64 if xnum else 0
    notes_at = 64 + section + 56 * (1 + len(loads))
    at = -(-(notes_at + len(notes)) // 65536) * 65536
    headers = [struct.pack("<IIQQQQQQ", PT_NOTE, 0, notes_at, 0, 0, len(notes), len(notes), 0)]
    placed: list[tuple[Load, int]] = []
    for load in loads:
        offset = at if load.offset is None else load.offset
        headers.append(struct.pack("<IIQQQQQQ", PT_LOAD, 7, offset, load.va, load.pa, load.stored, load.size, 0))
        if load.offset is None:
            placed.append((load, offset))
            at += load.stored
    count = PN_XNUM if xnum else len(headers)
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", 4, 183, 1, 0, 64 + section, section, 0, 64, 56, count, 64 if xnum else 0, int(xnum), 0
    )
    first_section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, len(headers), 0, 0) if xnum else b""
    with path.open("wb") as file:
        file.write(ident + header + first_section + b"".join(headers) + notes)
        file.truncate(at)
        for pa, page in capture.pages() if pages is None else pages:
            for load, offset in placed:
                if load.pa <= pa and pa + len(page) <= load.pa + load.stored:
                    file.seek(offset + pa - load.pa)
                    file.write(page)
    return path


def write_raw(path: Path, capture: Capture) -> tuple[Path, int]:
    """All of the machine's RAM from its lowest address on, sparse; and that address."""
    base, end = capture.machine_ram[0][0], capture.machine_ram[-1][1]
    with path.open("wb") as file:
        file.truncate(end - base)
        for pa, page in capture.pages():
            file.seek(pa - base)
            file.write(page)
    return path, base


METHODS = {"raw": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}


def pack(method: str, block: bytes) -> bytes:
    """As makedumpfile packs a page, by the libraries that unpack it elsewhere."""
    if method == "zlib":
        return zlib.compress(block)
    if method == "lzo":
        return pytest.importorskip("lzallright").LZOCompressor().compress(block)
    if method == "snappy":
        return bytes(pytest.importorskip("cramjam").snappy.compress_raw(block))
    return pytest.importorskip("zstandard").compress(block) if method == "zstd" else block


def kdump_bytes(
    capture: Capture,
    *,
    info: Mapping[str, str] | None = None,
    writer: Literal["makedumpfile", "qemu"] = "makedumpfile",
    method: str = "zlib",
    level: int = 31,
    excluded: Collection[int] = (),
    memory: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """A kdump-compressed file (``diskdump_mod.h``): header, sub header, notes, two bitmaps, a descriptor for each
    stored block, blocks packed where that is shorter. An empty ``info`` leaves VMCOREINFO out; ``excluded`` are
    addresses of blocks not stored.

    As makedumpfile writes it, blocks are the guest's pages and only tables are stored; as QEMU does (``dump/dump.c``),
    blocks have 64 KiB, the header names nothing, all of memory is stored, and blocks of zeros share their data.
    """
    qemu = writer == "qemu"
    block = 65536 if qemu else capture.granule
    info = vmcoreinfo(capture) if info is None else info
    text = text_of(info)
    memory = memory or (capture.machine_ram if qemu else capture.system_ram)
    highest = max(end for _, end in memory) // block
    name = (
        [b"", b"", b"", b"", b"Unknown"] if qemu else [b"Linux", b"host", b"6.1.192", b"#1 SMP", b"aarch64", b"(none)"]
    )
    utsname = b"".join(field.ljust(65, b"\0") for field in name).ljust(390, b"\0")
    notes = note(b"CORE", 1, bytes(392)) + (note(b"VMCOREINFO", 0, text) if info else b"")
    notes_at = block + 104 if qemu else 2 * block
    sub_blocks = -(-(notes_at + len(notes)) // block) - 1
    bitmap_bytes = -(-highest // 8)
    bitmap_bytes += -bitmap_bytes % block
    header = struct.pack(
        "<8si390s6xqqIiiIIIIIIi",
        b"KDUMP   ",
        6,
        utsname,
        0,
        0,
        METHODS[method],
        block,
        sub_blocks,
        2 * bitmap_bytes // block,
        highest,
        0,
        0,
        0,
        0,
        1,
    )
    info_at = notes_at + len(notes) - len(text) - -len(text) % 4 if info else 0
    places = info_at, len(text), notes_at, len(notes)
    sub = struct.pack("<QiiQQQQQQQQQQQ", memory[0][0], 1 if qemu else level, 0, 0, 0, *places, 0, 0, 0, 0, highest)
    blocks: dict[int, bytearray] = {}
    for start, end in memory if qemu else ():
        blocks |= {number: bytearray() for number in range(start // block, end // block)}
    for pa, page in capture.pages():
        if pa // block not in blocks or not blocks[pa // block]:
            blocks[pa // block] = bytearray(block)
        blocks[pa // block][pa % block : pa % block + len(page)] = page
    blocks = {number: data for number, data in sorted(blocks.items()) if number * block not in excluded}
    exists, stored = bytearray(bitmap_bytes), bytearray(bitmap_bytes)
    for start, end in memory:
        for number in range(start // block, end // block):
            exists[number // 8] |= 1 << number % 8
    for number in blocks:
        stored[number // 8] |= 1 << number % 8
    head = (
        header.ljust(block, b"\0")
        + (sub.ljust(notes_at - block, b"\0") + notes).ljust(sub_blocks * block, b"\0")
        + bytes(exists)
        + bytes(stored)
    )
    data_at = len(head) + 24 * len(blocks)
    descriptors, data = bytearray(), bytearray(block if qemu else 0)
    for contents in blocks.values():
        if not contents:
            descriptors += struct.pack("<QIIQ", data_at, block, 0, 0)
            continue
        packed = pack(method, bytes(contents))
        flags, raw = (METHODS[method], packed) if len(packed) < block else (0, bytes(contents))
        descriptors += struct.pack("<QIIQ", data_at + len(data), len(raw), flags, 0)
        data += raw
    return head + bytes(descriptors) + bytes(data)


def flattened(whole: bytes, piece: int = 10_000) -> bytes:
    """The same file as makedumpfile sends it through a pipe: pieces with their places, big-endian."""
    pieces = (struct.pack(">qq", at, len(part := whole[at : at + piece])) + part for at in range(0, len(whole), piece))
    return (
        struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0") + b"".join(pieces) + struct.pack(">qq", -1, -1)
    )
