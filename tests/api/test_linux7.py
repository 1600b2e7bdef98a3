"""7.2 and 7.3 beside the kernels before them, as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmemmap import Machine, SpecError
from vmemmap._core import layout
from vmemmap.spec import HUGEPAGE_SIZES

KERNELS = ["6.12", "7.2", "7.3"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_block_inside_a_larger_leaf_of_the_linear_map_stays_online_from_7_2_on(kernel: str) -> None:
    m = Machine(kernel=kernel, boot_memory="1G", hotplug_memory="1G", linear_map="blocks")
    m.memory.add(start=0x80000000, size="1G", memmap_on_memory=False).online(zone="movable")
    last = m.memory.range(start=0x80000000 + (7 << 27), size="128M")
    if kernel == "6.12":
        last.offline()
        return
    with pytest.raises(OSError, match="notifier failure") as error:
        last.offline()
    assert error.value.errno == 1
    assert m.check() == []


def test_a_tail_names_its_head_by_a_mask_where_hvo_is_in_the_kernel() -> None:
    for config, word in ("yes", 0xFFFF_FFFF_FFFF_8001), ("no", None):
        m = Machine(kernel="7.3", boot_memory="1G", hvo_config=config)
        m.hugetlb["2M"].allocate(1)
        [(head, _)] = m.hugetlb["2M"].pages
        tail = m.struct_page(pfn=head + 100)
        assert tail.compound_head == m.page_address(pfn=head)
        assert tail.words[1] == (word or m.page_address(pfn=head) + 1)


def test_a_kernel_between_two_that_are_modelled_is_refused_with_both() -> None:
    with pytest.raises(SpecError, match=r"nearest: 6\.12\.117 and 7\.2$"):
        Machine(kernel="7.1")
    with pytest.raises(SpecError, match=r"nearest: 7\.3$"):
        Machine(kernel="7.4")


def heads(granule: int, folio: int, kernel: str, memstart: int) -> tuple[set[int], int]:
    """Where the tails of a folio look for their head under the mask of its order, and where it is."""
    start = layout(granule, 48, kernel, memstart)["VMEMMAP_START"]
    head_pa = -(-memstart // folio) * folio + folio
    mask = -(folio // granule * 64) % (1 << 64)
    steps = range(granule, folio, max(granule, folio // 8))
    return (
        {start + (head_pa + tail - memstart) // granule * 64 & mask for tail in steps},
        start + (head_pa - memstart) // granule * 64,
    )


@pytest.mark.parametrize("kernel", ["7.2", "7.3"])
@pytest.mark.parametrize("granule", [4096, 16384, 65536])
def test_a_mask_finds_the_head_where_vmemmap_is_aligned_to_the_folio(kernel: str, granule: int) -> None:
    """R37, the sweep: granule, each of its HugeTLB sizes, each memstart_addr that arm64 allows up to 48 GiB. Only 16G
    pages with 64K find another head, and only if memory begins at no multiple of 16 GiB.
    """
    step = (512 << 20) if granule == 65536 else 1 << 30
    for folio in HUGEPAGE_SIZES[granule]:
        for memstart in range(0, 48 << 30, step):
            found, head = heads(granule, folio, kernel, memstart)
            right = (granule, folio) != (65536, 16 << 30) or memstart % (16 << 30) == 0
            assert (found == {head}) == right, (granule, folio, memstart)


def test_each_zone_has_a_tail_frame_and_a_saved_machine_knows_them(tmp_path: Path) -> None:
    """Boot memory below 4 GiB is ZONE_DMA and above it ZONE_NORMAL, as what is added to a kernel zone is."""
    m = Machine(kernel="7.3", boot_memory="4G", hotplug_memory="1G")
    blocks = m.memory.add("512M")
    normal, movable = (m.memory.range(start=blocks.start + n * (1 << 28), size="256M") for n in (0, 1))
    normal.online("normal")
    movable.online("movable")
    places = [0x80000, 0x120000, normal.start >> 12, movable.start >> 12]
    pool = m.hugetlb["2M"]
    seen = [(pool.allocate(pfns=[pfn]), m.counters.vmemmap_tails)[1] for pfn in places]
    assert seen == [1, 2, 2, 3], "DMA; NORMAL; the same zone again; MOVABLE"
    assert m.counters.optimised_hugepages == 4
    m.save(tmp_path / "m.npz")
    again = Machine.load(tmp_path / "m.npz", checked=True)
    assert again.check() == []
    assert [(b.start, b.zone) for b in again.memory.blocks] == [(b.start, b.zone) for b in m.memory.blocks]
    assert again.counters.vmemmap_tails == 3
    again.hugetlb["2M"].nr_hugepages = 0
    assert again.check() == []
    assert again.violations == []
