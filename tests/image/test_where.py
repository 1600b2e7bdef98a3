"""``vmemmap where``: a walk of every address agrees with the machine's own, and arithmetic with both."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vmemmap
from vmemmap.cli import main
from vmemmap.dumps.dump import Hints
from vmemmap.dumps.where import parse_query, where
from vmemmap.errors import SpecError, VmemmapError

CAPTURES = Path(__file__).parents[1] / "captures"
IMAGES = sorted(CAPTURES.glob("*/[AB].npz"))
loaded = cache(vmemmap.Machine.load)


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_walk_is_the_machine_s(path: Path) -> None:
    machine = vmemmap.Machine.load(path)
    start, size, _ = machine.memory.ranges[0]
    for pa in (start, start + size // 3 // machine.granule * machine.granule, start + size - machine.granule):
        pfn = pa // machine.granule
        found = where(f"pfn:{pfn}", path)
        page = machine.page_address(pfn)
        assert (found.physical, found.pfn, found.struct_page, found.region) == (pa, pfn, page, "linear map")
        assert found.walk is not None and found.struct_page_walk is not None and found.address is not None
        for address, walk in ((found.address, found.walk), (page, found.struct_page_walk)):
            real = machine.translate(address)
            assert (walk[-1].level, walk[-1].descriptor) == (real.level, real.descriptor)
        # Asked by its linear address and by its struct page it is the same page.
        assert where(hex(found.address), path).pfn == pfn
        of_page = where(hex(page + 8), path)
        assert (of_page.region, of_page.pfn, of_page.struct_page) == ("vmemmap", pfn, page)
        assert found.block is not None and found.block["state"] == "online"
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_hugepages_and_their_state_are_told(path: Path) -> None:
    machine = vmemmap.Machine.load(path)
    pages = [page for pool in machine.hugetlb.values() for page in pool.pages]
    for head, count in pages:
        found = where(f"pfn:{head + count - 1}", path).hugepage
        assert found is not None and (found["pfn"], found["pages"], found["number"]) == (head, count, count - 1)
        assert "optimised" in found["state"]
    assert where("pfn:0x40010" if path.parent.name != "6.1-64k" else "pfn:0x4010", path).hugepage is None or pages


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_text_and_arithmetic_say_what_they_can(path: Path) -> None:
    exact = where("pfn:0x40200", path)
    memstart = "0x40000000"
    text = where(hex(exact.struct_page or 0), path.with_suffix(".ptdump.txt"), Hints.parse(memstart=memstart))
    assert (text.pfn, text.struct_page, text.region, text.physical) == (exact.pfn, exact.struct_page, "vmemmap", None)
    assert (
        text.walk is not None
        and exact.struct_page_walk is not None
        and text.walk[-1].level == exact.struct_page_walk[-1].level
    )
    hints = Hints.parse(
        granule=exact.granule, va_bits=exact.va_bits, kernel=exact.kernel.rsplit(".117")[0], memstart=memstart
    )
    bare = where(f"{exact.address or 0:#x}", None, hints)
    assert (bare.physical, bare.pfn, bare.struct_page, bare.walk) == (
        exact.physical,
        exact.pfn,
        exact.struct_page,
        None,
    )


def test_a_number_that_is_no_pfn_is_an_address() -> None:
    path = CAPTURES / "6.1-4k/B.npz"
    found = where("0x48000000", path)
    assert found.pfn == 0x48000 and any("taken for a physical address" in note for note in found.notes)
    assert where("phys:0x48000000", path).pfn == where("0x48000", path).pfn == 0x48000
    assert where("0", path).block is not None and any("outside the RAM" in note for note in where("0", path).notes)


@pytest.mark.parametrize(
    "text", ["", "hello", "0x", "pfn:", "pfn:0xfffffffffffffffff", "-1", "phys:0xffff000000000000", "12 34"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"expected an address|64 bits|52 bits"):
        parse_query(text)


@given(
    st.integers(0, (1 << 64) - 1) | st.integers(0xFFF << 52, (1 << 64) - 1),
    st.sampled_from(["", "pfn:", "phys:", "va:"]),
)
@settings(deadline=None, max_examples=60)
def test_any_number_is_answered_or_refused_in_one_line(number: int, prefix: str) -> None:
    for path in (CAPTURES / "6.1-64k/B.npz", CAPTURES / "6.12-4k/B.ptdump.txt", None):
        try:
            found = where(f"{prefix}{number:#x}", path)
        except VmemmapError as error:
            assert "\n" not in str(error)
        else:
            json.dumps(found.to_dict())
            found.text()


def test_the_command_prints_json_and_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CAPTURES / "6.1-4k/B.npz")
    assert main(["where", path, "0xffff000008200000", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {
        "address",
        "region",
        "physical",
        "pfn",
        "struct_page",
        "walk",
        "permissions",
        "hugepage",
        "block",
    } <= answer.keys()
    assert main(["where", path, "nothing"]) == 2 and main(["where", "a", "b", "c"]) == 2
    assert main(["where", "0xfffffdffc1200000", "--kernel", "6.12"]) == 0


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_text_s_top_level_is_that_of_the_tables(path: Path) -> None:
    for address in ("0xffffffffffff0000", "0xffff7fffffff0000"):
        tables, text = (where(address, dump).walk for dump in (path, path.with_suffix(".ptdump.txt")))
        assert tables is not None and text is not None
        assert (text[-1].level, text[-1].kind) == (tables[-1].level, "none")


@given(
    st.integers(0, (1 << 64) - 1) | st.integers(0xFFF << 52, (1 << 64) - 1),
    st.sampled_from([path for path in IMAGES if path.stem == "B"]),
)
@settings(deadline=None, max_examples=60)
def test_what_no_table_of_the_kernel_translates_is_not_translated(address: int, path: Path) -> None:
    found, machine = where(f"va:{address:#x}", path), loaded(path)
    first = (1 << 64) - (1 << found.va_bits)
    if address >= first:
        assert found.walk is not None
        assert machine.translate(address).level == found.walk[-1].level
        return
    assert (found.walk, found.physical, found.pfn, found.permissions, found.block) == (None,) * 5
    assert found.region == ("user space" if address < 1 << 52 else "between user and kernel addresses")
    assert f"no table of the kernel translates it: those of TTBR1 begin at {first:#x}" in found.notes
    with pytest.raises(SpecError, match=f"va is {address:#x}: the tables of TTBR1 translate {first:#x} to"):
        machine.translate(address)
    text = where(f"va:{address:#x}", path.with_suffix(".ptdump.txt"))
    assert (text.walk, text.region, text.pfn) == (None, found.region, None)


@pytest.mark.parametrize("number", ["0xdead000000000122", "0xfffffc0000000040", "0x10000000000000"])
def test_more_than_52_bits_are_a_virtual_address(number: str) -> None:
    assert parse_query(number).kind == "address"
    assert parse_query("0xfffffffffffff").kind == "number"


@given(st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 49))
@example(1 << 52)
@settings(deadline=None)
def test_arithmetic_of_a_machine_wraps_nowhere(value: int) -> None:
    machine = loaded(CAPTURES / "6.1-4k/B.npz")
    for of, shift, start in ((machine.page_address, 6, 0xFFFFFC0000000000), (machine.linear_address, 0, 0xFFFF << 48)):
        first = 0x40000000 // (machine.granule if shift else 1)
        size = (1 << 47) // (machine.granule if shift else 1)
        if first <= value < first + size:
            assert of(value) == start + ((value - first) << shift)
        else:
            with pytest.raises(SpecError, match=f"is {value:#x}: expected .*, {first:#x} to {first + size - 1:#x}"):
                of(value)


def test_a_pfn_beyond_physical_memory_is_refused() -> None:
    with pytest.raises(SpecError, match="pfn:0x10000000000 is the memory at 0x10000000000000: physical addresses have"):
        where("pfn:0x10000000000", CAPTURES / "6.1-4k/B.npz")
