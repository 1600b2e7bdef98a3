"""Dumps that are damaged, cut or made to hurt: one line of error or what can be read,
and no more memory than the file justifies.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import vmcore_builder as builder
from hypothesis import given, settings
from hypothesis import strategies as st
from vmcore_builder import STATES, Load

from vmemmap import _core
from vmemmap.dumps.vmcore import Vmcore, read_vmcore
from vmemmap.errors import ImageError

SMALL = builder.load(next(s for s in STATES if s.parent.name == "6.1-64k"))
BUDGET = 100 << 20
PAGE = 4096
BASE = 0x40000000
HAND = {"root": BASE, "granule": PAGE, "va_bits": 48, "memstart": BASE, "kernel": "6.1"}


def within_budget(path: Path, **arguments: object) -> Vmcore | str:
    """What a dump gives, or the one line of its error; traced allocations stay below the budget,
    tables below the file.
    """
    tracemalloc.start()
    try:
        found: Vmcore | str = read_vmcore(path, **arguments)  # pyright: ignore[reportArgumentType]
    except ImageError as error:
        found = str(error)
        assert "\n" not in found and found.startswith(f"{path}: "), found
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < BUDGET
    if isinstance(found, Vmcore):
        found.memory.close()
        # A page of a kdump-compressed dump takes a descriptor of 24 bytes there, and may share its data.
        smallest = 24 if found.source == "kdump" else found.image.description.granule
        # Blocks that were left out with the pages of zeros cost nothing at all.
        assert len(found.image.words) * smallest <= path.stat().st_size or not found.image.words.any(axis=1).all()
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def whole(directory: Path) -> bytes:
    """An ELF dump of a megabyte: a segment for each table."""
    loads = [Load(SMALL.linear(int(pa)), int(pa), 65536, 65536) for pa in SMALL.pa]
    return builder.write_elf(directory / "whole", SMALL, loads=loads).read_bytes()


def damage(data: st.DataObject, raw: bytearray, places: st.SearchStrategy[int]) -> bytearray:
    if data.draw(st.integers(0, 3)) == 0:
        del raw[data.draw(st.integers(0, len(raw))) :]
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(places)
        value = data.draw(
            st.sampled_from([b"\0", b"\xff", b"\xff" * 8, b"\x7f" + b"\xff" * 3, bytes(8)])
            | st.binary(min_size=1, max_size=8)
        )
        if at < len(raw):
            raw[at : at + len(value)] = value
    return raw


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_elf_dump_is_refused_or_read_in_part(whole: bytes, directory: Path, data: st.DataObject) -> None:
    # Mostly headers and notes, where a byte means something.
    places = (
        st.integers(0, 64 + 56 * 17) | st.integers(64 + 56 * 16, 64 + 56 * 16 + 1400) | st.integers(0, len(whole) - 1)
    )
    path = directory / "damaged"
    path.write_bytes(damage(data, bytearray(whole), places))
    within_budget(path)


@settings(max_examples=150, deadline=None)
@given(
    counts=st.tuples(*[st.integers(0, 0xFFFF)] * 4),
    offsets=st.tuples(*[st.sampled_from([0, 64, 120, 1 << 20, 1 << 63, (1 << 64) - 1]) | st.integers(0, 1024)] * 2),
    rest=st.binary(max_size=900),
)
def test_a_header_of_any_numbers_is_refused(
    counts: tuple[int, int, int, int], offsets: tuple[int, int], rest: bytes, directory: Path
) -> None:
    path = directory / "header"
    phentsize = counts[0] if counts[0] % 2 else 56
    phnum = counts[1] if counts[1] % 3 else 0xFFFF
    header = struct.pack("<HHIQQQIHHHHHH", 4, 183, 1, 0, *offsets, 0, 64, phentsize, phnum, counts[2], counts[3], 0)
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + header + rest)
    within_budget(path)


@settings(max_examples=100, deadline=None)
@given(
    fields=st.lists(
        st.tuples(st.sampled_from([1, 4]), *[st.integers(0, (1 << 64) - 1) | st.integers(0, 2048)] * 5), max_size=12
    ),
    note=st.binary(max_size=200),
)
def test_program_headers_of_any_numbers_are_refused_or_read(
    fields: list[tuple[int, ...]], note: bytes, directory: Path
) -> None:
    path = directory / "segments"
    header = struct.pack("<HHIQQQIHHHHHH", 4, 183, 1, 0, 64, 0, 0, 64, 56, len(fields), 0, 0, 0)
    segments = b"".join(struct.pack("<IIQQQQQQ", kind, 7, *numbers, 0) for kind, *numbers in fields)
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + header + segments + note)
    within_budget(path, **HAND)


@settings(max_examples=150, deadline=None)
@given(
    lines=st.dictionaries(
        st.sampled_from(sorted(builder.vmcoreinfo(SMALL))),
        st.text(st.characters(codec="ascii"), max_size=24)
        | st.integers().map(str)
        | st.integers(0, (1 << 70) - 1).map(hex),
        max_size=4,
    )
)
def test_vmcoreinfo_of_any_values_is_refused_by_name_or_believed(lines: dict[str, str], directory: Path) -> None:
    path = directory / "info"
    loads = [Load(0, int(pa), 65536, 65536) for pa in SMALL.pa]
    builder.write_elf(path, SMALL, loads=loads, info={**builder.vmcoreinfo(SMALL), **lines})
    within_budget(path)


def test_a_note_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = builder.write_elf(tmp_path / "core", SMALL, "vmcore")
    with path.open("rb") as file:
        raw = bytearray(file.read(1 << 16))
    at = raw.index(b"VMCOREINFO") - 12
    for length in (0x7FFFFFFF, 0xFFFFFFFF, 100_000):
        raw[at + 4 : at + 8] = struct.pack("<I", length)
        path.write_bytes(raw)
        assert "the note VMCOREINFO claims" in str(within_budget(path))
    raw[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(raw)
    assert isinstance(within_budget(path), str)
    path = builder.write_elf(tmp_path / "core", SMALL, "vmcore")
    with path.open("r+b") as file:
        file.seek(64 + 32)
        file.write(struct.pack("<Q", 1 << 30))
    assert "of notes: expected at most 16 MiB" in str(within_budget(path))


def small_dump(path: Path, tables: dict[int, dict[int, int]], *, loads: list[Load] | None = None) -> Path:
    """Tables of 4K: address → index → word."""
    pages: list[tuple[int, bytes]] = []
    for pa, words in tables.items():
        row = np.zeros(PAGE // 8, dtype="<u8")
        for index, word in words.items():
            row[index] = word
        pages.append((pa, row.tobytes()))
    loads = [Load(0, pa, PAGE, PAGE) for pa in tables] if loads is None else loads
    return builder.write_elf(path, SMALL, loads=loads, pages=pages, info={"OSRELEASE": "6.1.192"})


def levels(found: Vmcore | str) -> dict[int, int]:
    assert isinstance(found, Vmcore), found
    return {int(pa): int(level) for pa, level in zip(found.image.pa, found.image.level, strict=True)}


def test_a_damaged_tree_gives_what_can_be_read_of_it(tmp_path: Path) -> None:
    """A cycle, a table outside memory, one reached at two levels (the first counts), one reached twice, a block,
    a hole.
    """
    a, b, c, outside = BASE + PAGE, BASE + 2 * PAGE, BASE + 3 * PAGE, 1 << 40
    path = small_dump(
        tmp_path / "core",
        {
            BASE: {0: a | 3, 1: BASE | 3, 2: outside | 3, 3: b | 3, 511: a | 3},
            a: {0: BASE | 3, 1: b | 3, 2: c | 3, 3: 0x80000000 | 0x701},
            b: {0: outside | 3},
            c: {0: c | 3, 1: c | 2},
        },
    )
    found = within_budget(path, **HAND)
    assert levels(found) == {BASE: 0, a: 1, b: 1, c: 2}
    assert isinstance(found, Vmcore)
    with pytest.raises(ImageError):
        image = found.image
        _core.TableImage(image.pa, image.level, image.words, image.description)


def test_one_stored_page_shown_at_many_addresses_is_refused(tmp_path: Path) -> None:
    """512 entries of one page that is shown everywhere would be 512 tables at each level."""
    loads = [Load(0, BASE, PAGE, PAGE), *[Load(0, BASE + n * PAGE, PAGE, PAGE, 1 << 16) for n in range(1, 513)]]
    words = {n: (BASE + (n + 1) * PAGE) | 3 for n in range(512)}
    path = small_dump(tmp_path / "core", {BASE: words}, loads=loads)
    # The same page is the struct page of the root too, in the newer layout.
    assert "more than" in str(within_budget(path, **{**HAND, "kernel": "6.12"}))


def test_the_root_must_be_readable(tmp_path: Path) -> None:
    path = small_dump(tmp_path / "core", {BASE: {}})
    assert levels(within_budget(path, **HAND)) == {BASE: 0}
    assert str(within_budget(path, **{**HAND, "root": BASE + PAGE})).endswith(
        "swapper_pg_dir at 0x40001000 (root) is not in the dump"
    )


@builder.needs_drgn
@pytest.mark.parametrize("form", [bytes, builder.flattened], ids=["plain", "flattened"])
def test_a_damaged_kdump_dump_ends_its_reader_and_not_this_process(
    form: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """libkdumpfile maps what a header tells it to: without a process of its own a cut
    file would end this one (SIGBUS).
    """
    whole, path, numbers = form(builder.kdump_bytes(SMALL)), tmp_path / "core", random.Random(7)
    for kept in (100, 5000, 70_000, 200_000, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:kept])
        within_budget(path)
    for _ in range(12):
        raw = bytearray(whole)
        for _ in range(4):
            at = numbers.choice(
                [numbers.randrange(8, 4700), numbers.randrange(65536, 65700), numbers.randrange(len(raw))]
            )
            raw[at : at + 4] = numbers.choice([b"\xff\xff\xff\x7f", bytes(4), numbers.randbytes(4)])
        path.write_bytes(raw)
        within_budget(path)


@builder.needs_drgn
def test_a_kdump_header_that_claims_gigabytes_gets_none(tmp_path: Path) -> None:
    whole = bytearray(builder.kdump_bytes(SMALL)[: 4 * 65536])
    # bitmap_blocks; a flattened file reads as zero what it does not hold.
    whole[436:440] = struct.pack("<I", 0x4000)
    path = tmp_path / "core"
    path.write_bytes(builder.flattened(bytes(whole)))
    assert "the bitmaps: 1,073,741,824 bytes at 0x30000, which the file does not hold" in str(within_budget(path))


@lru_cache
def whole_kdump(writer: Literal["makedumpfile", "qemu"], method: str) -> bytes:
    memory = [(0x40000000, 0x50000000)] if writer == "qemu" else None
    return builder.kdump_bytes(SMALL, writer=writer, memory=memory, method=method)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_kdump_dump_is_refused_or_read_in_part(directory: Path, data: st.DataObject) -> None:
    """By the own reader, of either writer: headers, bitmaps, descriptors, packed pages, pieces."""
    whole = whole_kdump(
        *data.draw(st.sampled_from([("makedumpfile", "zlib"), ("qemu", "zlib"), ("makedumpfile", "lzo")]))
    )
    whole = builder.flattened(whole, 60_000) if data.draw(st.booleans()) else whole
    places = (
        st.integers(0, 600) | st.integers(4096, 4200) | st.integers(65536, 65536 + 700) | st.integers(0, len(whole) - 1)
    )
    path = directory / "kdump"
    path.write_bytes(damage(data, bytearray(whole), places))
    within_budget(path)


@settings(max_examples=150, deadline=None)
@given(
    numbers=st.lists(
        st.sampled_from([0, 1, 4, 16, 1 << 20, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1),
        min_size=24,
        max_size=24,
    ),
    block=st.sampled_from([4096, 65536]),
    pieces=st.booleans(),
    tail=st.binary(max_size=200),
)
def test_a_kilobyte_that_claims_to_be_a_kdump_dump_costs_little(
    numbers: list[int], block: int, pieces: bool, tail: bytes, directory: Path
) -> None:
    head = struct.pack(
        "<8si390s6xqqIiiIIIIIII", b"KDUMP   ", numbers[0] % 8, b"", 0, 0, 1, block, numbers[1] % 64 + 1, *numbers[2:9]
    )
    sub = struct.pack("<26I", *(numbers[:24] + numbers[:2]))
    path = directory / "kilobyte"
    if pieces:
        parts = [
            (0, head),
            (block, sub),
            (block * (numbers[10] % 512), tail or b"x"),
            ((1 << 40) + numbers[11], b"end"),
        ]
        body = b"".join(struct.pack(">qq", at, len(part)) + part for at, part in parts)
        path.write_bytes(
            struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0") + body + struct.pack(">qq", -1, -1)
        )
    else:
        path.write_bytes(head.ljust(block, b"\0") + sub + tail)
    within_budget(path)
    within_budget(path, **HAND)
