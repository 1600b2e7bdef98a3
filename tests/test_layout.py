"""``vmemmap layout`` against the tables of the specification, and against captured kernels."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from vmemmap.errors import SpecError
from vmemmap.sizing.layout import STRUCT_PAGE, layout
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
    kernel = path.parent.name.partition("-")[0]
    found = layout(data["granule"], data["va_bits"], kernel)
    answer = found.to_dict()
    for key in (
        "granule",
        "va_bits",
        "table_levels",
        "page_offset",
        "vmemmap_start",
        "vmemmap_end",
        "section_size",
        "struct_page_size",
    ):
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
    [
        ("4K", "6.1", True, (504, 507)),
        ("4K", "6.12", False, (507, 511)),
        ("64K", "6.1", False, (63, 63)),
        ("16K", "6.12", False, (1, 1)),
    ],
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
def test_what_no_kernel_had_is_refused_with_what_would_be_right(
    granule: str, va_bits: int | str, kernel: str, said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        layout(granule, va_bits, kernel)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# Granule, VA bits, kernel; PAGE_OFFSET, PAGE_END, VMEMMAP_START, VMEMMAP_END; first and last slot of the top table;
# its own. Worked out from arch/arm64/include/asm/memory.h of 6.1.192 and 6.12.117 by hand.
# fmt: off
WORKED = [
    ("4K", 39, "6.1",
     0xFFFFFF8000000000, 0xFFFFFFC000000000, 0xFFFFFFFE00000000, 0xFFFFFFFF00000000, (504, 507), True),
    ("4K", 39, "6.12",
     0xFFFFFF8000000000, 0xFFFFFFC000000000, 0xFFFFFFFEC0000000, 0xFFFFFFFFC0000000, (507, 510), True),
    ("4K", 48, "6.1",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFC0000000000, 0xFFFFFE0000000000, (504, 507), True),
    ("4K", 48, "6.12",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFDFFC0000000, 0xFFFFFFFFC0000000, (507, 511), False),
    ("4K", 52, "6.12",
     0xFFF0000000000000, 0xFFFF800000000000, 0xFFFFC1FFC0000000, 0xFFFFFFFFC0000000, (15, 15), False),
    ("16K", 36, "6.1",
     0xFFFFFFF000000000, 0xFFFFFFF800000000, 0xFFFFFFFFF0000000, 0xFFFFFFFFF8000000, (2040, 2043), True),
    ("16K", 36, "6.12",
     0xFFFFFFF000000000, 0xFFFFFFF800000000, 0xFFFFFFFFB8000000, 0xFFFFFFFFC0000000, (2012, 2015), True),
    ("16K", 47, "6.1",
     0xFFFF800000000000, 0xFFFFC00000000000, 0xFFFFFF8000000000, 0xFFFFFFC000000000, (2040, 2043), True),
    ("16K", 47, "6.12",
     0xFFFF800000000000, 0xFFFFC00000000000, 0xFFFFFFBFC0000000, 0xFFFFFFFFC0000000, (2043, 2047), False),
    ("16K", 48, "6.1",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFF0000000000, 0xFFFFFF8000000000, (1, 1), False),
    ("16K", 48, "6.12",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFF7FC0000000, 0xFFFFFFFFC0000000, (1, 1), False),
    ("16K", 52, "6.12",
     0xFFF0000000000000, 0xFFFFC00000000000, 0xFFFFF03FC0000000, 0xFFFFFFFFC0000000, (31, 31), False),
    ("64K", 42, "6.1",
     0xFFFFFC0000000000, 0xFFFFFE0000000000, 0xFFFFFFFF00000000, 0xFFFFFFFF80000000, (8184, 8187), True),
    ("64K", 42, "6.12",
     0xFFFFFC0000000000, 0xFFFFFE0000000000, 0xFFFFFFFF40000000, 0xFFFFFFFFC0000000, (8186, 8189), True),
    ("64K", 48, "6.1",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFFC000000000, 0xFFFFFFE000000000, (63, 63), False),
    ("64K", 48, "6.12",
     0xFFFF000000000000, 0xFFFF800000000000, 0xFFFFFFDFC0000000, 0xFFFFFFFFC0000000, (63, 63), False),
    ("64K", 52, "6.1",
     0xFFF0000000000000, 0xFFFF800000000000, 0xFFFFFC0000000000, 0xFFFFFFE000000000, (1023, 1023), False),
    ("64K", 52, "6.12",
     0xFFF0000000000000, 0xFFFF800000000000, 0xFFFFFC1FC0000000, 0xFFFFFFFFC0000000, (1023, 1023), False),
]
# fmt: on


@pytest.mark.parametrize(("granule", "va_bits", "kernel", "offset", "end", "first", "last", "slots", "own"), WORKED)
def test_every_layout_is_the_one_worked_out_by_hand(
    granule: str,
    va_bits: int,
    kernel: str,
    offset: int,
    end: int,
    first: int,
    last: int,
    slots: tuple[int, int],
    own: bool,
) -> None:
    like = {"6.1": ["2021", "6.1"], "6.12": ["6.12", "6.12.117"]}[kernel]
    for behaviour in like:
        found = layout(granule, va_bits, behaviour)
        assert found.regions["linear map"] == (offset, end)
        assert found.regions["vmemmap"] == (first, last)
        assert found.vmemmap_top_slots == slots
        assert found.vmemmap_shared_top is not own


def test_the_hand_worked_table_has_every_machine_there_is() -> None:
    covered = {(granule, bits, kernel) for granule, bits, kernel, *_ in WORKED}
    assert covered == {(granule, bits, kernel) for granule, bits, kernel in MACHINES if kernel in ("6.1", "6.12")}


# Linux: memory.h and kernel-pgtable.h. Where modules, vmalloc, fixmap and PCI I/O lie relative to vmemmap.
@pytest.mark.parametrize(("granule", "va_bits", "kernel"), [machine for machine in MACHINES if machine[1] != 52])
def test_the_regions_around_vmemmap_are_where_the_kernel_puts_them(granule: str, va_bits: int, kernel: str) -> None:
    regions = layout(granule, va_bits, kernel).regions
    end = regions["linear map"][1]
    first, last = regions["vmemmap"]
    new = kernel not in ("2021", "6.1")
    assert regions["modules"] == (end, end + ((2 << 30) if new else (128 << 20)))
    assert regions["vmalloc"] == (regions["modules"][1], first - ((8 << 20) if new else (256 << 20)))
    assert regions["fixmap"][1] == ((1 << 64) - (8 << 20) if new else first - (32 << 20))
    assert regions["PCI I/O"] == (
        (last + (8 << 20), last + (24 << 20)) if new else (first - (24 << 20), first - (8 << 20))
    )


@pytest.mark.parametrize(
    ("granule", "expected"),
    [
        ("4K", (128, 32768, 2 << 20, 512, 64, 512, 32 << 10, 1, [(2, 512), (1, 262144)])),
        ("16K", (128, 8192, 512 << 10, 32, 64, 128, 8 << 10, 64, [(2, 131072), (1, 1 << 28)])),
        ("64K", (512, 8192, 512 << 10, 8, 256, 32, 2 << 10, 1024, [(2, 1 << 23)])),
    ],
)
def test_sections_and_what_they_share_are_those_worked_out_by_hand(
    granule: str, expected: tuple[int | list[tuple[int, int]], ...]
) -> None:
    found = layout(granule, 48)
    d = found.to_dict()
    keys = ("pages_per_section", "vmemmap_per_section", "vmemmap_pages_per_section", "subsections_per_section")
    keys += ("pages_per_subsection", "vmemmap_per_subsection", "sections_per_pte_table")
    assert d["section_size"] >> 20 == expected[0]
    assert [d[key] for key in keys] == list(expected[1:8])
    assert isinstance(expected[8], list)
    for level, sections in expected[8]:
        assert next(t.sections_per_table for t in found.levels if t.level == level) == sections
    assert d["struct_page_size"] == STRUCT_PAGE == 64


# arch/arm64/mm/hugetlbpage.c, mm/hugetlb_vmemmap.h: vmemmap pages, frames freed with one page kept, with two as in
# 2021.
@pytest.mark.parametrize(
    ("granule", "rows"),
    [
        ("4K", [("64K", 0.25, 0, 0), ("2M", 8, 7, 6), ("32M", 128, 127, 126), ("1G", 4096, 4095, 4094)]),
        ("16K", [("2M", 0.5, 0, 0), ("32M", 8, 7, 6), ("1G", 256, 255, 254)]),
        ("64K", [("2M", 1 / 32, 0, 0), ("512M", 8, 7, 6), ("16G", 256, 255, 254)]),
    ],
)
def test_every_hugepage_frees_what_the_kernel_logs(granule: str, rows: list[tuple[str, float, int, int]]) -> None:
    for va_bits in VA_BITS[GRANULES[granule]]:
        found = layout(granule, va_bits, "6.12").to_dict()["hugepages"]
        assert [(h["name"], h["vmemmap_pages"], h["frames_freed"], h["frames_freed_2021"]) for h in found] == rows
