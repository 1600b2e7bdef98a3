"""``vmemmap layout`` against the tables of the specification, and against captured kernels."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from vmemmap.errors import SpecError
from vmemmap.layout import layout
from vmemmap.spec import GRANULES, HUGEPAGE_SIZES, KERNELS, VA_BITS, format_size

CAPTURES = sorted((Path(__file__).parent / "captures").glob("*/A.json"))
MACHINES = [
    (granule, va_bits, kernel)
    for granule in GRANULES
    for va_bits in VA_BITS[GRANULES[granule]]
    for kernel in KERNELS
    if va_bits != 52 or granule == "64K" or kernel.startswith("6.12")
]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.parent.name)
def test_a_captured_kernel_has_the_layout(path: Path) -> None:
    data = json.loads(path.read_text())
    kernel = "6.12" if path.parent.name.startswith("6.12") else "6.1"
    found = layout(data["granule"], data["va_bits"], kernel)
    answer = found.to_dict()
    for key in ("granule", "va_bits", "table_levels", "page_offset", "vmemmap_start", "vmemmap_end", "section_size", "struct_page_size"):
        assert answer[key] == data[key], key
    markers = {name: int(start, 16) for start, name in data["ptdump_markers"]}
    assert found.regions["vmalloc"] == (markers["vmalloc() area"], markers["vmalloc() end"])
    assert found.regions["fixmap"] == (markers["Fixmap start"], markers["Fixmap end"])
    assert found.regions["PCI I/O"] == (markers["PCI I/O start"], markers["PCI I/O end"])


@pytest.mark.parametrize(("granule", "va_bits", "kernel"), MACHINES)
def test_every_machine_can_be_described(granule: str, va_bits: int, kernel: str) -> None:
    found = layout(granule, va_bits, kernel)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    regions = list(found.regions.values())
    assert all(start < end for start, end in regions)
    assert all(before[1] <= after[0] for before, after in pairwise(regions))
    assert found.levels[0].table_span == 1 << va_bits
    assert found.levels[-1].level == 3 and found.levels[-1].entry_span == GRANULES[granule]
    assert found.hugepage_sizes == HUGEPAGE_SIZES[GRANULES[granule]]
    assert f"{va_bits}-bit" in found.text() and found.to_dict()["vmemmap_start"][2:] in found.text()


@pytest.mark.parametrize(("granule", "shared", "ram"), [("4K", 1, "128M"), ("16K", 64, "8G"), ("64K", 1024, "512G")])
def test_sections_share_a_pte_table_as_the_granule_says(granule: str, shared: int, ram: str) -> None:
    found = layout(granule, 48)
    assert found.to_dict()["sections_per_pte_table"] == shared
    assert format_size(shared * found.section_size) == ram


@pytest.mark.parametrize(
    ("granule", "kernel", "own", "slots"),
    [("4K", "6.1", True, (504, 507)), ("4K", "6.12", False, (507, 511)), ("64K", "6.1", False, (63, 63)), ("16K", "6.12", False, (1, 1))],
)
def test_who_shares_the_top_table_is_told(granule: str, kernel: str, own: bool, slots: tuple[int, int]) -> None:
    found = layout(granule, 48, kernel)
    assert found.vmemmap_shared_top is not own
    assert found.vmemmap_top_slots == slots


@pytest.mark.parametrize(
    ("granule", "va_bits", "names"),
    [
        ("4K", 39, ["PGD", "PMD", "PTE"]),
        ("4K", 48, ["PGD", "PUD", "PMD", "PTE"]),
        ("4K", 52, ["PGD", "P4D", "PUD", "PMD", "PTE"]),
        ("16K", 36, ["PGD", "PTE"]),
        ("16K", 52, ["PGD", "PUD", "PMD", "PTE"]),
        ("64K", 52, ["PGD", "PMD", "PTE"]),
    ],
)
def test_levels_have_the_names_that_linux_gives_them(granule: str, va_bits: int, names: list[str]) -> None:
    assert [level.name for level in layout(granule, va_bits, "6.12").levels] == names


@pytest.mark.parametrize(
    ("granule", "va_bits", "kernel", "said"),
    [
        ("4K", 52, "6.1", "kernel 6.12"),
        ("16K", 52, "2021", "kernel 6.12"),
        ("4K", 47, "6.1", "39, 48, 52"),
        ("64K", 39, "6.1", "42, 48, 52"),
        ("8K", 48, "6.1", "4K, 16K or 64K"),
        ("4K", "x", "6.1", "expected 36"),
        ("4K", 48, "6.2", "2021, 6.1, 6.12, 6.12.117"),
    ],
)
def test_what_no_kernel_had_is_refused_with_what_would_be_right(granule: str, va_bits: int | str, kernel: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        layout(granule, va_bits, kernel)
    assert said in str(caught.value) and "\n" not in str(caught.value)
