"""``vmemmap estimate`` against published tables, and against what captured kernels did."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmemmap.errors import SpecError
from vmemmap.estimate import estimate
from vmemmap.image import Image, read_npz
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
def test_the_published_table_comes_out(granule: str, size: str, pages: float, freed: int, saved: int, percent: float, per_tib: float) -> None:
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
    [("6.1-4k", "A", "B", "2M=16M", "1G"), ("6.1-64k", "A", "B", "512M=1536M", "4G"), ("6.1-4k", "E1", "E2", "2M=32M", "1280M")],
)
def test_a_captured_kernel_gave_up_what_is_estimated(machine: str, before: str, after: str, pool: str, memory: str) -> None:
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
    answer = estimate(memory, pools, name, data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from(["blocks", "basepages"])))
    assert 0 <= answer.bytes_saved < answer.vmemmap
    assert answer.split_tables <= answer.split_tables_most <= answer.vmemmap // (2 << 20) or answer.mapping == "basepages"
    assert answer.net_saved == answer.bytes_saved - answer.split_tables * answer.granule
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
    assert format_size(memory) in answer.text()
