"""The tables of real kernels: their own text of themselves is the oracle, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vmemmap

HERE = Path(__file__).parent
STATES = sorted(p.with_suffix("") for p in HERE.glob("*/*.npz"))
KEY = {4096: "2M", 65536: "512M"}


def text_of(state: Path) -> str:
    return state.with_name(state.name + ".ptdump.txt").read_text()


def region(text: str, first: str, last: str) -> str:
    """The lines between two markers, without them."""
    return text.split(f"---[ {first} ]---\n")[1].split(f"---[ {last} ]---\n")[0]


def vmemmap_text(text: str) -> str:
    return region(text, "vmemmap start", "vmemmap end")


def linear_text(text: str) -> str:
    return region(text, "Linear Mapping start", "Linear Mapping end")


def heads(state: Path) -> list[int]:
    guest = json.loads(state.with_suffix(".json").read_text())["guest"]
    return [pfn for pfn, _ in guest["hugetlb_heads_pfn_npages"]]


def load(name: str) -> vmemmap.Machine:
    return vmemmap.Machine.load(HERE / f"{name}.npz")


def test_all_seventeen_captures_are_here() -> None:
    assert len(STATES) == 17


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s.parent.name}/{s.name}")
def test_the_loaded_machine_prints_the_kernels_own_text(state: Path) -> None:
    m = vmemmap.Machine.load(state.with_suffix(".npz"))
    assert m.ptdump() == text_of(state)
    assert m.ptdump(region="vmemmap") in text_of(state)


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s.parent.name}/{s.name}")
def test_a_saved_machine_is_the_same_image(state: Path, tmp_path: Path) -> None:
    m = vmemmap.Machine.load(state.with_suffix(".npz"))
    out = tmp_path / "again.npz"
    m.save(out)
    first, again = np.load(state.with_suffix(".npz")), np.load(out)
    for key in ("pa", "level", "words"):
        assert np.array_equal(first[key], again[key]), key
    assert vmemmap.Machine.load(out).ptdump() == text_of(state)


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s.parent.name}/{s.name}")
def test_hugepages_of_a_capture_are_in_the_pool_and_optimised(state: Path) -> None:
    m = vmemmap.Machine.load(state.with_suffix(".npz"))
    pool = m.hugetlb[KEY[m.granule]]
    assert sorted(pfn for pfn, _ in pool.pages) == sorted(heads(state))
    assert pool.nr_hugepages == len(heads(state))
    assert pool.optimised_hugepages == len(heads(state))


@pytest.mark.parametrize("state", STATES, ids=lambda s: f"{s.parent.name}/{s.name}")
def test_every_vmemmap_address_of_system_ram_translates(state: Path) -> None:
    m = vmemmap.Machine.load(state.with_suffix(".npz"))
    guest = json.loads(state.with_suffix(".json").read_text())["guest"]
    for line in guest["system_ram"]:
        first, last = (int(x, 16) for x in line.split(" :")[0].split("-"))
        for pa in range(first, last, 1 << 22):
            where = m.translate(m.page_address(pfn=pa // m.granule))
            assert where is not None and where.frame is not None, hex(pa)


@pytest.mark.parametrize("machine", ["6.1-4k", "6.1-64k", "6.12-4k", "7.3-4k"])
def test_allocating_what_the_kernel_allocated_gives_its_next_text(machine: str) -> None:
    m = load(f"{machine}/A")
    pool = m.hugetlb[KEY[m.granule]]
    free_before, tables_before = m.counters["frames_free"], len(m.tables)
    pool.allocate(pfns=heads(HERE / machine / "B"))
    assert vmemmap_text(m.ptdump()) == vmemmap_text(text_of(HERE / machine / "B"))
    assert linear_text(m.ptdump()) == linear_text(text_of(HERE / machine / "A"))
    n = len(heads(HERE / machine / "B"))
    # 7.3 makes the frame that the tails of a zone and order share, and keeps it.
    split, shared = len(m.tables) - tables_before, machine.startswith("7.")
    assert split == (machine != "6.1-64k") * len({pfn >> 15 for pfn in heads(HERE / machine / "B")})
    pages = n * (512 if m.granule == 4096 else 8192)
    assert m.counters["frames_free"] - free_before == 7 * n - split - pages - shared


def test_freeing_them_gives_the_text_of_c_and_keeps_the_table() -> None:
    m = load("6.1-4k/B")
    m.hugetlb["2M"].free(pfns=heads(HERE / "6.1-4k/B"))
    assert vmemmap_text(m.ptdump()) == vmemmap_text(text_of(HERE / "6.1-4k/C"))


def replay(m: vmemmap.Machine, to: str) -> None:
    """The step of the E series that leads to `to`, as the guest did it."""
    if to == "E1":
        block = m.memory.add(start=0x80000000, size="256M", memmap_on_memory=False)
        block.online(zone="movable")
    elif to == "E2":
        m.hugetlb["2M"].allocate(pfns=heads(HERE / "6.1-4k/E2"))
    elif to == "E3":
        m.hugetlb["2M"].free(pfns=heads(HERE / "6.1-4k/E2"))
    elif to == "E4":
        m.memory.remove(start=0x80000000, size="256M")
    else:
        m.memory.add(start=0x80000000, size="128M", memmap_on_memory=False).online(zone="movable")


def test_adding_memory_gives_the_next_text_of_7_3() -> None:
    m = load("7.3-4k/E0")
    replay(m, "E1")
    text = text_of(HERE / "7.3-4k/E1")
    assert vmemmap_text(m.ptdump()) == vmemmap_text(text)
    assert linear_text(m.ptdump()) == linear_text(text)
    assert m.check() == []


def test_7_3_points_all_tails_of_a_size_at_one_frame() -> None:
    m = load("7.3-4k/B")
    pages = [m.page_address(pfn=pfn) + 4096 * i for pfn in heads(HERE / "7.3-4k/B") for i in range(1, 8)]
    tails = {where.frame for where in map(m.translate, pages) if where is not None}
    assert len(tails) == 1
    free = m.counters["frames_free"]
    m.hugetlb["2M"].allocate(2)
    assert free - m.counters["frames_free"] == 2 * (512 - 7)
    m.hugetlb["2M"].free(2)
    assert m.counters["frames_free"] == free
    assert m.check() == []


STEPS = ["E0", "E1", "E2", "E3", "E4", "E5"]


@pytest.mark.parametrize("step", range(1, 6), ids=lambda i: f"{STEPS[i - 1]}-{STEPS[i]}")
def test_each_hotplug_step_gives_the_kernels_next_text(step: int) -> None:
    m = load(f"6.1-4k/{STEPS[step - 1]}")
    replay(m, STEPS[step])
    text = text_of(HERE / "6.1-4k" / STEPS[step])
    assert vmemmap_text(m.ptdump()) == vmemmap_text(text)
    assert linear_text(m.ptdump()) == linear_text(text)


def test_the_whole_hotplug_series_runs_on_one_machine() -> None:
    m = load("6.1-4k/E0")
    for step in STEPS[1:]:
        replay(m, step)
        assert vmemmap_text(m.ptdump()) == vmemmap_text(text_of(HERE / "6.1-4k" / step)), step
        assert m.check() == [], step


def test_memory_added_to_a_kernel_that_maps_its_text_by_a_block_is_mapped_by_pages() -> None:
    """`can_set_direct_map`: the text's read-only alias is the one block, and what is added continues the pages."""
    m = load("6.12-4k/A")
    before = m.ptdump(region="linear").splitlines()
    assert [line.split()[1:4] for line in before if " BLK " in line] == [["2M", "PMD", "ro"]]
    m.memory.add(start=0x8000_0000, size="256M").online("movable")
    after = m.ptdump(region="linear").splitlines()
    (last,) = [line for line in before if line.split()[0].endswith("-0xffff000040000000")]
    grown = last.replace("0xffff000040000000", "0xffff000050000000").replace("1043840K", "1305984K")
    assert grown in after
    assert [line for line in after if " BLK " in line] == [line for line in before if " BLK " in line]
