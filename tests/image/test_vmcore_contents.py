"""A vmcore that holds struct pages: what the tables alone cannot show is judged too."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from vmcore_builder import Capture, load, vmcoreinfo, write_elf, write_raw

from vmemmap import Machine
from vmemmap.dumps.checking import Check, check
from vmemmap.dumps.difference import diff
from vmemmap.errors import ImageError

CAPTURES = Path(__file__).parents[1] / "captures"
PG_HEAD = 1 << 16
"""Of the model's struct pages."""


def dumped(m: Machine, state: Path, pfns: list[int], to: Path) -> Path:
    """An ELF vmcore of `m`, with the struct pages of `pfns` and the tables; all else zero."""
    pages: dict[int, bytearray] = {}
    for pfn in pfns:
        found = m.translate(m.page_address(pfn))
        page = m.struct_page(pfn)
        assert found.physical is not None and page is not None
        frame, inside = found.physical & ~(m.granule - 1), found.physical & (m.granule - 1)
        pages.setdefault(frame, bytearray(m.granule))[inside : inside + 64] = struct.pack("<8Q", *page.words)
    tables = m.tables.copy()
    frames = np.array(sorted({int(pa) for pa in tables.pa} | pages.keys()), dtype=np.uint64)
    rows = {int(pa): row for pa, row in zip(tables.pa, tables.words, strict=True)}
    words = np.stack([np.frombuffer(bytes(pages[pa]), "<u8") if pa in pages else rows[pa] for pa in map(int, frames)])
    data = json.loads(state.with_suffix(".json").read_text())
    capture = Capture(state, data, frames, np.zeros(len(frames), np.uint8), words)
    release = {"7.3": "7.3.4", "6.12.117": "6.12.117", "6.12": "6.12.0", "6.1": "6.1.192"}[m.kernel]
    field = "compound_info" if m.kernel == "7.3" else "compound_head"
    info = vmcoreinfo(capture) | {"OSRELEASE": release, "NUMBER(PG_head_mask)": str(PG_HEAD)}
    info[f"OFFSET(page.{field})"] = "8"
    write_elf(to, capture, "vmcore", info=info)
    return to


def vmemmap_of(m: Machine, heads: list[int]) -> list[int]:
    return [head + i for head in heads for i in range(512)]


def states(answer: Check) -> dict[str, str]:
    return {n: answer.invariants[n] for n in ("I10", "I11", "I12", "I29")}


@pytest.mark.parametrize(("name", "kernel"), [("6.1-4k/B", "6.1"), ("6.12-4k/B", "6.12"), ("7.3-4k/B", "7.3")])
def test_optimised_pages_hold(name: str, kernel: str, tmp_path: Path) -> None:
    state = CAPTURES / name
    m = Machine.load(state.with_suffix(".npz"), kernel=kernel)
    heads = [pfn for pfn, _ in m.hugetlb["2M"].pages]
    answer = check(dumped(m, state, vmemmap_of(m, heads), tmp_path / "x.vmcore"))
    assert answer.verdict == "clean", answer.text()
    assert states(answer) == dict.fromkeys(("I10", "I11", "I12", "I29"), "held")
    assert answer.counts["optimised_hugepages"] == 8


def test_tails_of_7_name_their_head_by_a_mask_or_by_an_address(tmp_path: Path) -> None:
    """The value tells which: a mask with HVO in the kernel (`test_optimised_pages_hold`), an address without."""
    state = CAPTURES / "7.3-4k/B"
    m = Machine.load(state.with_suffix(".npz"))
    heads = [pfn for pfn, _ in m.hugetlb["2M"].pages]
    path = dumped(m, state, vmemmap_of(m, heads), tmp_path / "x.vmcore")
    mask, pointer = struct.pack("<Q", 0xFFFFFFFFFFFF8001), struct.pack("<Q", m.page_address(heads[0]) | 1)
    whole = path.read_bytes()
    assert whole.count(mask) > 60
    # The tail frame is shared, so an address is right for one page alone, and wrong for the other seven.
    path.write_bytes(whole.replace(mask, pointer))
    answer = check(path)
    # Told once for each of a page's eight vmemmap pages.
    assert {violation.invariant for violation in answer.violations} == {"I10"}
    assert len(answer.violations) == 8 * (len(heads) - 1), answer.text()


@pytest.mark.parametrize(("name", "other"), [("7.3-4k/B", "6.12"), ("6.12-4k/B", "7.3")])
def test_a_vmcore_of_one_generation_is_not_believed_to_be_of_the_other(name: str, other: str, tmp_path: Path) -> None:
    state = CAPTURES / name
    m = Machine.load(state.with_suffix(".npz"))
    path = dumped(m, state, [], tmp_path / "x.vmcore")
    with pytest.raises(ImageError, match=r"OFFSET\(page\.compound_(info|head)\)"):
        check(path, kernel=other)


def test_a_tail_that_names_another_head_is_found(tmp_path: Path) -> None:
    state = CAPTURES / "6.1-4k/B"
    m = Machine.load(state.with_suffix(".npz"))
    heads = [pfn for pfn, _ in m.hugetlb["2M"].pages]
    path = dumped(m, state, vmemmap_of(m, heads), tmp_path / "x.vmcore")
    right, wrong = (struct.pack("<Q", m.page_address(head) | 1) for head in heads[:2])
    assert path.read_bytes().count(right) > 60
    path.write_bytes(path.read_bytes().replace(right, wrong, 2))
    answer = check(path)
    assert "I10" in answer.found, answer.text()


def test_a_page_that_lost_its_flag_is_found(tmp_path: Path) -> None:
    state = CAPTURES / "6.1-4k/B"
    m = Machine.load(state.with_suffix(".npz"))
    head = m.hugetlb["2M"].pages[0][0]
    path = dumped(m, state, vmemmap_of(m, [head]), tmp_path / "x.vmcore")
    page = m.struct_page(head)
    assert page is not None
    data = path.read_bytes()
    record = struct.pack("<8Q", *page.words)
    assert data.count(record) == 1
    path.write_bytes(data.replace(record, struct.pack("<8Q", *page.words[:5], 0, *page.words[6:])))
    answer = check(path)
    assert "I12" in answer.found, answer.text()


@pytest.mark.parametrize(("kernel", "verdict"), [("6.12", "clean"), ("6.12.117", "violated")])
def test_what_the_restore_of_6_12_117_leaves_shows_in_a_vmcore(kernel: str, verdict: str, tmp_path: Path) -> None:
    state = CAPTURES / "6.12-4k/B"
    m = Machine.load(state.with_suffix(".npz"), kernel=kernel)
    heads = [pfn for pfn, _ in m.hugetlb["2M"].pages]
    m.hugetlb["2M"].nr_hugepages = 0
    answer = check(dumped(m, state, vmemmap_of(m, heads), tmp_path / "x.vmcore"))
    assert answer.verdict == verdict, answer.text()
    assert answer.found.get("I11", 0) == (56 if verdict == "violated" else 0)


def test_a_vmcore_without_struct_pages_says_so(tmp_path: Path) -> None:
    capture = load(CAPTURES / "6.1-4k/B")
    path = tmp_path / "x.vmcore"
    write_elf(path, capture, "vmcore")
    answer = check(path)
    assert answer.verdict == "clean"
    assert states(answer) == dict.fromkeys(("I10", "I11", "I12", "I29"), "not visible here")
    assert answer.counts == check(CAPTURES / "6.1-4k/B.npz").counts


@pytest.mark.parametrize("name", ["6.1-4k/B", "6.1-64k/B", "6.12-4k/B"])
def test_a_vmcore_compares_with_images_and_texts(name: str, tmp_path: Path) -> None:
    capture = load(CAPTURES / name)
    core = write_elf(tmp_path / "x.vmcore", capture, "qemu")
    for other in (CAPTURES / f"{name}.npz", CAPTURES / f"{name}.ptdump.txt", core):
        assert not diff(core, other) and not diff(other, core)
    before = CAPTURES / name.replace("B", "A")
    told = diff(before.with_suffix(".npz"), core).to_dict()
    assert told == diff(before.with_suffix(".npz"), CAPTURES / f"{name}.npz").to_dict() | {"b": str(core)}
    m = Machine.load(core)
    assert m.ptdump() == (CAPTURES / f"{name}.ptdump.txt").read_text()
    heads = sorted(pfn for pfn, _ in capture.json["guest"]["hugetlb_heads_pfn_npages"])
    assert sorted(pfn for pool in m.hugetlb.values() for pfn, _ in pool.pages) == heads
    assert m.check() == []


def test_raw_memory_takes_what_is_given(tmp_path: Path) -> None:
    capture = load(CAPTURES / "6.1-4k/B")
    path, base = write_raw(tmp_path / "ram.bin", capture)
    given = {
        "base": base,
        "root": capture.json["root_pa"],
        "granule": "4K",
        "va_bits": 48,
        "memstart": "0x40000000",
        "kernel": "6.1",
    }
    assert check(path, **given).verdict == "clean"
    assert not diff(path, CAPTURES / "6.1-4k/B.ptdump.txt", **given)
