"""``vmemmap estimate`` against published tables, and against what captured kernels did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmemmap.dumps.image import Image, read_npz
from vmemmap.errors import SpecError
from vmemmap.machine.machine import Machine
from vmemmap.sizing.estimate import estimate
from vmemmap.sizing.layout import frames_freed, vmemmap_pages
from vmemmap.spec import GRANULES, HUGEPAGE_SIZES, format_size

CAPTURES = Path(__file__).parent / "captures"
TIB = 1 << 40

# Granule, hugepage, vmemmap pages, frames freed, bytes freed, % of memory, GiB saved per TiB.
PUBLISHED = [
    ("4K", "64K", 0.25, 0, 0, 0.0, 0.0),
    ("4K", "2M", 8, 7, 28_672, 1.367, 14.00),
    ("4K", "32M", 128, 127, 520_192, 1.550, 15.88),
    ("4K", "1G", 4096, 4095, 16_773_120, 1.562, 16.00),
    ("16K", "2M", 0.5, 0, 0, 0.0, 0.0),
    ("16K", "32M", 8, 7, 114_688, 0.342, 3.50),
    ("16K", "1G", 256, 255, 4_177_920, 0.389, 3.98),
    ("64K", "2M", 1 / 32, 0, 0, 0.0, 0.0),
    ("64K", "512M", 8, 7, 458_752, 0.085, 0.88),
    ("64K", "16G", 256, 255, 16_711_680, 0.097, 1.00),
]


@pytest.mark.parametrize(("granule", "size", "pages", "freed", "saved", "percent", "per_tib"), PUBLISHED)
def test_the_published_table_comes_out(
    granule: str, size: str, pages: float, freed: int, saved: int, percent: float, per_tib: float
) -> None:
    answer = estimate("1T", {size: "1T"}, granule).to_dict()
    pool = answer["hugepages"][0]
    assert (pool["vmemmap_pages_each"], pool["frames_freed_each"], pool["bytes_saved_each"]) == (pages, freed, saved)
    assert round(pool["percent"], 3) == pytest.approx(percent, abs=0.0011)
    assert round(pool["bytes_saved_per_tib"] / (1 << 30), 2) == per_tib
    assert answer["bytes_saved"] == pool["count"] * saved == pool["bytes_saved_per_tib"]
    two = estimate("1T", {size: "1T"}, granule, reserved=2).to_dict()["hugepages"][0]
    assert two["frames_freed_each"] == max(0, freed - 1)


def vmemmap_leaves(image: Image) -> tuple[set[int], int]:
    """Frames that the vmemmap maps, and tables of level 3 it has: by walking the arrays."""
    d = image.description
    shift = d.granule.bit_length() - 1
    rows = {int(pa): i for i, pa in enumerate(image.pa)}
    frames: set[int] = set()
    tables = 0
    todo = [(d.root_pa, 4 - (d.va_bits - 4) // (shift - 3), -(1 << d.va_bits) % (1 << 64))]
    while todo:
        pa, level, base = todo.pop()
        row = image.words[rows[pa]]
        for index in np.flatnonzero(row):
            word = int(row[index])
            span = 1 << ((shift - 3) * (4 - level) + 3)
            va = base + int(index) * span
            if not (va + span > d.vmemmap_start and va < d.vmemmap_end) or not word & 1:
                continue
            out = word & ((1 << 48) - 1) & -d.granule
            if level < 3 and word & 2:
                tables += level == 2
                todo.append((out, level + 1, va))
            else:
                frames.update(range(out >> shift, (out + span) >> shift))
    return frames, tables


@pytest.mark.parametrize(
    ("machine", "before", "after", "pool", "memory"),
    [
        ("6.1-4k", "A", "B", "2M=16M", "1G"),
        ("6.1-64k", "A", "B", "512M=1536M", "4G"),
        ("6.1-4k", "E1", "E2", "2M=32M", "1280M"),
    ],
)
def test_a_captured_kernel_gave_up_what_is_estimated(
    machine: str, before: str, after: str, pool: str, memory: str
) -> None:
    old, new = (vmemmap_leaves(read_npz(CAPTURES / machine / f"{state}.npz")) for state in (before, after))
    granule = json.loads((CAPTURES / machine / f"{after}.json").read_text())["granule"]
    answer = estimate(memory, [pool], granule)
    assert answer.frames_freed == len(old[0]) - len(new[0])
    assert answer.split_tables == new[1] - old[1]
    assert answer.vmemmap == len(old[0]) * granule


def test_the_head_that_6_12_moves_changes_nothing_in_the_balance() -> None:
    old, new = (vmemmap_leaves(read_npz(CAPTURES / "6.12-4k" / f"{state}.npz")) for state in "AB")
    answer = estimate("1G", ["2M=16M"], kernel="6.12")
    assert answer.frames_freed == len(old[0]) - len(new[0])
    assert answer.split_tables <= new[1] - old[1] <= answer.split_tables_most


def test_tables_are_counted_level_by_level() -> None:
    blocks = estimate("1T", [], mapping="blocks")
    assert dict(blocks.tables) == {1: 1, 2: 16, 3: 0}
    pages = estimate("1T", [], mapping="basepages")
    assert dict(pages.tables) == {1: 1, 2: 16, 3: 8192}
    # 6.12: vmemmap begins 1 GiB below a multiple of 512 GiB, so its first slot is one of its own.
    assert dict(estimate("65T", [], kernel="6.12").tables) == {1: 4, 2: 1040, 3: 0}
    assert dict(estimate("512G", [], "64K").tables) == {2: 1, 3: 1}
    assert dict(estimate("513G", [], "64K").tables) == {2: 1, 3: 2}


def test_one_table_is_split_off_for_each_64_hugepages_of_2m() -> None:
    assert estimate("1T", ["2M=128M"]).split_tables == 1
    assert estimate("1T", ["2M=130M"]).split_tables == 2
    assert estimate("1T", ["1G=1G"]).split_tables == 8
    assert estimate("1T", ["64K=1G"]).split_tables == 0
    assert estimate("1T", ["2M=128M"]).split_tables_most == 64
    answer = estimate("1T", ["2M=400G"])
    assert answer.split_cost == answer.pools[0].count * 64


def test_with_16k_and_64k_pages_blocks_are_never_used() -> None:
    for granule in ("16K", "64K"):
        answer = estimate("64G", ["1G=32G"] if granule == "16K" else ["16G=32G"], granule, mapping="blocks")
        assert (answer.mapping, answer.split_tables) == ("basepages", 0)


@pytest.mark.parametrize(
    ("memory", "hugepages", "granule", "said"),
    [
        ("1T", ["2M=2T"], "4K", "hugepages take 2T, but memory is 1T"),
        ("1T", ["2M=600G", "1G=500G"], "4K", "hugepages take 1100G"),
        ("1T", ["512M=1G"], "4K", "64K, 2M, 32M, 1G"),
        ("1T", ["1G=1G"], "64K", "2M, 512M, 16G"),
        ("1T", ["2M=3M"], "4K", "not a whole number"),
        ("1T", ["2M=1G", "2048K=1G"], "4K", "given twice"),
        ("1T", ["2M"], "4K", "expected NAME=VALUE"),
        ("0", [], "4K", "memory is 0"),
        ("5000", [], "4K", "whole number of 4K pages"),
        ("1P", [], "4K", "linear map"),
        ("many", [], "4K", "memory is 'many'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(memory: str, hugepages: list[str], granule: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        estimate(memory, hugepages, granule)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@given(st.data())
def test_savings_and_costs_stay_within_what_there_is(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(GRANULES)))
    sizes = HUGEPAGE_SIZES[GRANULES[name]]
    pools = {size: data.draw(st.integers(0, 64)) * size for size in sizes}
    memory = sum(pools.values()) + data.draw(st.integers(1, 1 << 20)) * GRANULES[name]
    answer = estimate(
        memory, pools, name, data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from(["blocks", "basepages"]))
    )
    assert 0 <= answer.bytes_saved < answer.vmemmap
    assert (
        answer.split_tables <= answer.split_tables_most <= answer.vmemmap // (2 << 20) or answer.mapping == "basepages"
    )
    assert answer.net_saved == answer.bytes_saved - answer.split_tables * answer.granule
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
    assert format_size(memory) in answer.text()


@pytest.mark.parametrize(
    ("machine", "pool", "granule", "memory", "gave_up", "gained"),
    [
        ("6.1-4k", "2M=16M", "4K", "1G", 56, 0),
        ("6.12-4k", "2M=16M", "4K", "1G", 64, 8),
        ("6.1-64k", "512M=1536M", "64K", "4G", 21, 0),
    ],
)
def test_the_frame_counts_that_were_seen_are_the_estimate(
    machine: str, pool: str, granule: str, memory: str, gave_up: int, gained: int
) -> None:
    old, new = (vmemmap_leaves(read_npz(CAPTURES / machine / f"{state}.npz"))[0] for state in "AB")
    assert (len(old - new), len(new - old)) == (gave_up, gained)
    assert estimate(memory, [pool], granule).frames_freed == gave_up - gained


def test_a_split_is_not_merged_until_its_section_is_removed_and_added_again() -> None:
    tables = {
        state: vmemmap_leaves(read_npz(CAPTURES / "6.1-4k" / f"{state}.npz"))[1]
        for state in ("A", "B", "C", "E1", "E2", "E3", "E4", "E5")
    }
    one = estimate("1G", ["2M=16M"]).to_dict()["unmerged"]
    assert one == {"tables": 1, "tables_most": 8, "bytes": 4096, "bytes_most": 32768}
    assert tables["B"] - tables["A"] == tables["C"] - tables["A"] == one["tables"]
    assert tables["E2"] - tables["E1"] == tables["E3"] - tables["E1"] == estimate("1280M", ["2M=32M"]).split_tables == 1
    assert tables["E4"] == tables["E5"] == tables["E1"]
    assert "never merged back" in estimate("1G", ["2M=16M"]).text()
    assert estimate("1G", ["2M=16M"], mapping="basepages").to_dict()["unmerged"]["tables_most"] == 0


def test_3024_pages_of_1g_fit_in_3072g_only_if_their_struct_pages_are_never_allocated() -> None:
    answer = estimate("3072G", ["1G=3024G"])
    assert answer.vmemmap == 48 << 30
    assert answer.vmemmap == (3072 - 3024) << 30
    boot = answer.to_dict()["boot"]
    # Nothing is left but a debt: one table of level 1 and 48 of level 2 map the 48G of struct pages.
    assert (boot["free"], boot["fits"], boot["kernel_reserve"]) == (-49 * 4096, False, 0)
    early = boot["early_hvo"]
    assert early["hugepages"] == ["1G"]
    assert early["saved"] == 3024 * 4095 * 4096
    assert early["tables"] == 3024 * 8 * 4096
    assert (early["free"], early["fits"]) == (boot["free"] + early["saved"] - early["tables"], True)
    assert early["free"] == 50_622_623_744
    assert "does not fit" in answer.text() and "fits (for 1G pages; Linux 6.15" in answer.text()


def test_what_is_to_be_left_at_boot_can_be_said() -> None:
    for reserve, fits in (("47G", True), ("48G", False)):
        boot = estimate("3072G", ["1G=3024G"], kernel_reserve=reserve).boot
        assert (boot.fits, boot.fits_early) == (False, fits)
    assert estimate("3072G", ["1G=3020G"]).boot.fits
    assert not estimate("3072G", ["1G=3020G"], kernel_reserve="5G").boot.fits
    with pytest.raises(SpecError, match="kernel_reserve is 'much'"):
        estimate("1T", [], kernel_reserve="much")


@pytest.mark.parametrize(
    ("granule", "sizes", "early"),
    [("4K", ["64K", "2M", "32M", "1G"], ["1G"]), ("16K", ["2M", "32M", "1G"], []), ("64K", ["2M", "512M", "16G"], [])],
)
def test_early_hvo_wants_whole_sections_and_what_a_pmd_of_vmemmap_describes(
    granule: str, sizes: list[str], early: list[str]
) -> None:
    # PMD_SIZE / 64 pages: 128M with 4K, 8G with 16K, 512G with 64K pages.
    answer = estimate("1T", dict.fromkeys(sizes, "32G"), granule)
    assert answer.to_dict()["boot"]["early_hvo"]["hugepages"] == early


def test_base_pages_cost_their_tables_anyway_so_early_hvo_takes_none() -> None:
    assert estimate("1T", ["1G=512G"], mapping="basepages").boot.early_tables == 0
    assert estimate("1T", ["1G=512G"]).boot.early_tables == 512 * 8 * 4096


POOLS = [("4K", "64K", 64), ("4K", "2M", 96), ("4K", "32M", 8), ("16K", "32M", 8), ("64K", "512M", 2)]


@given(data=st.data(), kernel=st.sampled_from(["2021", "6.1", "6.12", "6.12.117"]))
@settings(max_examples=25, deadline=None)
def test_a_machine_that_optimises_them_frees_what_is_estimated(data: st.DataObject, kernel: str) -> None:
    granule, size, most = data.draw(st.sampled_from(POOLS))
    count = data.draw(st.integers(1, most))
    memory = "2G" if granule == "64K" else "1G"
    machine = Machine(granule=granule, boot_memory=memory, kernel=kernel)
    answer = estimate(
        memory,
        {size: count * (machine.hugetlb[size].size)},
        granule,
        reserved=2 if kernel == "2021" else 1,
        mapping="basepages" if kernel == "2021" else "blocks",
        kernel=kernel,
    )
    before, tables = machine.counters.frames_used, len(machine.tables)
    machine.hugetlb[size].nr_hugepages = count
    assert machine.hugetlb[size].nr_hugepages == count
    split = len(machine.tables) - tables
    pages = machine.hugetlb[size].size // machine.granule
    assert machine.counters.frames_used - before == count * pages - answer.frames_freed + split
    assert answer.split_tables <= split <= answer.split_tables_most


@given(st.sampled_from([4096, 16384, 65536]), st.integers(0, 24), st.sampled_from([1, 2]))
def test_what_is_freed_grows_with_the_hugepage_and_leaves_what_is_kept(page: int, order: int, reserved: int) -> None:
    size = page << order
    freed = frames_freed(page, size, reserved)
    assert 0 <= freed <= vmemmap_pages(page, size)
    assert freed <= frames_freed(page, 2 * size, reserved)
    assert frames_freed(page, size, 2) <= frames_freed(page, size, 1)
    if freed:
        assert freed + reserved == (size // page) * 64 // page
