"""kdump-compressed dumps, of both writers and in every form: files assembled here,
and real ones where they are small.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import vmcore_builder as builder
from hypothesis import given, settings
from hypothesis import strategies as st
from vmcore_builder import STATES, Capture

from vmemmap.dumps.physical_memory import joined
from vmemmap.dumps.storage import open_storage
from vmemmap.dumps.unpack import Unpackable, unpack
from vmemmap.dumps.vmcore import Vmcore, read_vmcore
from vmemmap.errors import ImageError

PAGE = 4096

OF_EACH_MACHINE = [next(s for s in STATES if s.parent.name == name) for name in ("6.1-4k", "6.1-64k", "6.12-4k")]


def same_tables(found: Vmcore, capture: Capture) -> None:
    for name in ("pa", "level", "words"):
        assert np.array_equal(getattr(found.image, name), getattr(capture, name)), name
    found.memory.close()


@pytest.fixture(scope="module")
def small() -> Capture:
    """15 tables of 64K."""
    return builder.load(OF_EACH_MACHINE[1])


@pytest.mark.parametrize("flat", [False, True], ids=["plain", "flattened"])
@pytest.mark.parametrize("told", [True, False], ids=["vmcoreinfo", "nothing"])
@pytest.mark.parametrize("state", OF_EACH_MACHINE, ids=lambda state: state.parent.name)
def test_qemu_writes_64k_blocks_whatever_the_page_size_and_names_nothing(
    state: Path, told: bool, flat: bool, tmp_path: Path
) -> None:
    capture = builder.load(state)
    raw = builder.kdump_bytes(capture, writer="qemu", info=None if told else {})
    (tmp_path / "core").write_bytes(builder.flattened(raw, 50_000) if flat else raw)
    found = read_vmcore(tmp_path / "core")
    assert found.source == "kdump"
    assert [(start, end) for start, end, _ in found.image.description.ram] == list(joined(capture.machine_ram))
    assert any("the only candidate" in note for note in found.notes) != told
    same_tables(found, capture)


@pytest.mark.parametrize("method", builder.METHODS)
def test_every_method_that_makedumpfile_packs_by(method: str, small: Capture, tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(builder.kdump_bytes(small, method=method))
    same_tables(read_vmcore(tmp_path / "core"), small)


def test_a_table_that_was_left_out_is_missing_or_was_all_zeros(small: Capture, tmp_path: Path) -> None:
    """A dump level with 1 leaves out pages of zeros; nothing else that it leaves out can be a table."""
    gone, path = int(small.pa[3]), tmp_path / "core"
    path.write_bytes(builder.kdump_bytes(small, excluded=[gone], level=30))
    found = read_vmcore(path)
    assert found.missing == (gone,) and len(found.image.pa) == len(small.pa) - 1
    told = "1 of the tables that other tables name is not in the dump (left out of the dump or cut off with it)"
    assert found.notes[-1] == f"{told}: {gone:#x}"
    path.write_bytes(builder.kdump_bytes(small, excluded=[gone], level=31))
    found = read_vmcore(path)
    assert found.missing == () and not found.image.words[3].any()
    assert found.memory.read(gone, 8) == bytes(8) and found.memory.read(0, 8) is None


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20)), min_size=1, max_size=12),
    cut=st.integers(0, 40),
)
def test_a_flattened_file_is_the_file_that_its_pieces_write(
    pieces: list[tuple[int, bytes]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flattened"
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in pieces) + struct.pack(">qq", -1, -1)
    whole = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0") + body
    path.write_bytes(whole)
    written = bytearray(max(at + len(data) for at, data in pieces))
    for at, data in pieces:
        written[at : at + len(data)] = data
    storage = open_storage(path, os.open(path, os.O_RDONLY))
    assert storage.size == len(written) and storage.cut is None
    for start, length in itertools.product(range(0, len(written), 7), (1, 5, 200)):
        assert storage.read(start, length) == written[start : start + length]
    storage.close()
    path.write_bytes(whole[: len(whole) - 1 - cut])
    try:
        storage = open_storage(path, os.open(path, os.O_RDONLY))
        assert storage.cut
        storage.close()
    except ImageError as error:
        assert "without a piece" in str(error)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (272, b"x86_64\0\0", "machine: expected aarch64 (QEMU writes Unknown), found 'x86_64'"),
        (428, struct.pack("<I", 12345), "block_size: expected one of 4096, 8192, 16384, 32768, 65536, found 12345"),
        (432, struct.pack("<i", -1), "sub_hdr_size: expected a few blocks, found -1"),
        (436, struct.pack("<I", 0), "bitmap_blocks: expected a bit for each of "),
        (65536 + 96, struct.pack("<Q", 1 << 40), "max_mapnr: expected memory below 52 bits"),
    ],
)
def test_a_header_that_cannot_be_is_named(at: int, value: bytes, reason: str, small: Capture, tmp_path: Path) -> None:
    raw = bytearray(builder.kdump_bytes(small))
    raw[at : at + len(value)] = value
    (tmp_path / "core").write_bytes(raw)
    with pytest.raises(ImageError) as caught:
        read_vmcore(tmp_path / "core")
    assert str(caught.value).startswith(f"{tmp_path / 'core'}: header of the kdump-compressed dump: {reason}")


@pytest.mark.parametrize("length", [0, 100, PAGE - 1, PAGE + 1])
def test_a_page_that_unpacks_to_another_length_is_damaged(length: int) -> None:
    with pytest.raises(Unpackable, match=r"expected the block of 4,096|damaged zlib data"):
        unpack(1, zlib.compress(bytes(length)), PAGE)
    assert unpack(1, zlib.compress(bytes(PAGE)), PAGE) == bytes(PAGE)
