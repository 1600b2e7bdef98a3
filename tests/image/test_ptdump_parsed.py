"""``kernel_page_tables`` text taken apart into arrays and printed back byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap.dumps.ptdump import Columns, Marker, Ptdump, load_ptdump, parse_ptdump
from vmemmap.errors import ImageError
from vmemmap.machine.machine import Machine

CAPTURES = Path(__file__).parents[1] / "captures"
TEXTS = sorted(CAPTURES.glob("*/*.ptdump.txt"))
MACHINES = [
    (granule, va_bits, kernel)
    for granule, sizes in {"4K": (39, 48, 52), "16K": (36, 47, 48, 52), "64K": (42, 48, 52)}.items()
    for va_bits in sizes
    for kernel in ("2021", "6.1", "6.12", "6.12.117")
    if va_bits != 52 or granule == "64K" or kernel.startswith("6.12")
]
HUGEPAGE = {"4K": "2M", "16K": "32M", "64K": "512M"}


def identity(path: Path) -> str:
    return f"{path.parent.name}-{path.name.split('.')[0]}"


@pytest.mark.parametrize("path", TEXTS, ids=identity)
def test_a_kernels_text_is_printed_back(path: Path) -> None:
    dump = load_ptdump(path)
    text = path.read_bytes()
    assert dump.to_bytes() == text
    assert str(dump) == text.decode()
    assert dump.known.all()
    assert len(dump) + len(dump.markers) == text.count(b"\n")


@pytest.mark.parametrize("path", TEXTS, ids=identity)
def test_the_arrays_say_what_the_lines_say(path: Path) -> None:
    dump = load_ptdump(path)
    marker, records = None, iter(dump)
    for line in path.read_text().splitlines():
        if line.startswith("---["):
            marker = line[5:-5]
            continue
        found = next(records)
        assert line.startswith(f"{found.start:#018x}-{found.end % (1 << 64):#018x}  ")
        assert line.endswith(f" {found.level}{found.columns.text}")
        assert found.marker == marker
        assert bool(found.columns.prot) == bool(found.columns.text)
        assert (" ro " in line, "  RW " in line) == (
            found.columns.prot >> 7 & 1 == 1,
            bool(found.columns.text) and found.columns.prot >> 7 & 1 == 0,
        )
    assert next(records, None) is None
    assert (dump.size == dump.end - dump.start).all() and int(dump.end[-1]) == 0
    assert dump[3] == list(dump)[3] and dump[-1] == list(dump)[-1]
    with pytest.raises(IndexError):
        dump[len(dump)]


@settings(max_examples=60, deadline=None)
@given(
    machine=st.sampled_from(MACHINES),
    mapping=st.sampled_from(["blocks", "basepages"]),
    hugepages=st.integers(0, 3),
    added=st.integers(0, 2),
    region=st.sampled_from([None, "vmemmap", "linear", "modules", "fixmap"]),
)
def test_the_text_of_any_machine_is_printed_back(
    machine: tuple[str, int, str], mapping: str, hugepages: int, added: int, region: str | None
) -> None:
    granule, va_bits, kernel = machine
    m = Machine(granule=granule, va_bits=va_bits, kernel=kernel, boot_memory="2G", hotplug_memory="1G", mapping=mapping)
    m.hugetlb[HUGEPAGE[granule]].nr_hugepages = hugepages
    for _ in range(added):
        m.memory.add("512M").online()
    text = m.ptdump(region)
    dump = parse_ptdump(text)
    assert str(dump) == text
    assert dump.known.all()
    kept = [columns.text for columns in dump.texts]
    assert len(set(kept)) == len(kept)


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(TEXTS),
    column=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=8),
    name=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    every=st.integers(1, 5),
    place=st.integers(0, 200),
)
def test_unknown_columns_and_markers_are_kept(path: Path, column: str, name: str, every: int, place: int) -> None:
    lines = path.read_text().splitlines()
    lines = [f"{line} {column}" if line.startswith("0x") and i % every == 0 else line for i, line in enumerate(lines)]
    lines.insert(1 + place % len(lines), f"---[ {name} ]---")
    text = "\n".join(lines) + "\n"
    dump = parse_ptdump(text)
    assert str(dump) == text
    assert name in [marker.name for marker in dump.markers]
    if every == 1:
        assert all(columns.text.endswith(f" {column}") for columns in (found.columns for found in dump))


def test_a_large_dump_is_a_few_arrays() -> None:
    turn = np.arange(100_000)
    texts = (Columns("", 0, True), Columns("       RW NX SHD AF            UXN    MEM/NORMAL"))
    dump = Ptdump(
        turn.astype(np.uint64) * np.uint64(4096),
        np.full(99_999, 4),
        turn[1:] % 2,
        texts,
        (Marker(0, "x"), Marker(99_999, "end")),
    )
    text = dump.to_bytes()
    assert text.count(b"\n") == 100_001 and text.endswith(b"---[ end ]---\n")
    again = parse_ptdump(text)
    assert sum(array.nbytes for array in (again.bounds, again.level, again.columns)) <= 13 * 100_000
    assert again.to_bytes() == text


def test_a_changed_dump_is_printed_as_it_was_changed() -> None:
    dump = load_ptdump(CAPTURES / "6.1-4k" / "B.ptdump.txt")
    renamed = replace(dump, markers=tuple(Marker(m.before, m.name.upper()) for m in dump.markers))
    assert "---[ VMEMMAP START ]---\n" in str(renamed)
    half = len(dump) // 2
    sliced = replace(
        dump, bounds=dump.bounds[: half + 1], level=dump.level[:half], columns=dump.columns[:half], markers=()
    )
    assert str(dump).replace("---[ ", "\0").split("\0")[1].split("\n", 1)[1] in str(sliced)
    strided = replace(sliced, bounds=np.repeat(sliced.bounds, 2)[::2])
    assert strided.to_bytes() == sliced.to_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bounds": np.zeros(3, np.uint64)}, "3 bounds"),
        ({"level": np.full(1, 6, np.uint8)}, "level 6"),
        ({"columns": np.full(1, 7, np.uint32)}, "columns 7"),
        ({"bounds": np.array([8, 4], np.uint64)}, "backwards"),
        ({"texts": (Columns("no space"),)}, "expected nothing, or a space"),
        ({"texts": (Columns(" \n"),)}, "printable"),
        ({"texts": (Columns(" é"),)}, "printable"),
        ({"markers": (Marker(2, "x"),)}, "before range 2"),
        ({"markers": (Marker(0, "\n"),)}, "printable"),
    ],
)
def test_what_no_dump_can_say_is_not_printed(change: dict[str, object], said: str) -> None:
    dump = parse_ptdump("0x0000000000001000-0x0000000000002000           4K PTE\n")
    with pytest.raises(ImageError, match=said) as caught:
        replace(dump, **change).to_bytes()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: no line at all"),
        ("0x0000000000001000-0x0000000000002000           4K PTE\r\n", "line 1: ends in a carriage return"),
        ("0x0000000000001000-0x0000000000002000           4K PTE é\n", "line 1: expected"),
        ("0x0000000000001000-0x0000000000002000           4K PTE \ud800\n", "line 1: expected"),
        ("0x0000000000001000-0x0000000000002000           4K PTE\njunk\n", "line 2: expected"),
        ("0x0000000000001000-0x0000000000002000           4K 3  \n", "line 1: level `3  ` is none of"),
    ],
    ids=ascii,
)
def test_a_text_that_is_no_dump_names_its_line(text: str, said: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_ptdump(text)
    assert str(caught.value).startswith(said)


def test_the_file_is_named_before_the_line(tmp_path: Path) -> None:
    path = tmp_path / "dump.txt"
    with pytest.raises(ImageError, match=r"dump\.txt: cannot be read: No such file"):
        load_ptdump(path)
    path.write_text("junk\n")
    with pytest.raises(ImageError, match=r"dump\.txt: line 1: "):
        load_ptdump(path)


def test_an_empty_slice_has_headers_only() -> None:
    dump = parse_ptdump("---[ PCI I/O start ]---\n")
    assert (len(dump), list(dump), dump.markers) == (0, [], (Marker(0, "PCI I/O start"),))
    assert len(dump.start) == len(dump.end) == len(dump.prot) == len(dump.known) == len(dump.marker) == 0
    assert str(dump) == "---[ PCI I/O start ]---\n"
