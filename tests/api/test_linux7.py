"""7.2 and 7.3 beside the kernels before them, as a user meets them."""

from __future__ import annotations

import pytest

from vmemmap import Machine, SpecError
from vmemmap._core import layout
from vmemmap.spec import parse_granule, parse_size

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


@pytest.mark.parametrize(("granule", "size"), [("4K", "1G"), ("16K", "1G"), ("64K", "512M"), ("64K", "16G")])
@pytest.mark.parametrize("memstart", [0, 1 << 30, 17 << 30, 16 << 30, 48 << 30])
def test_a_mask_finds_the_head_where_vmemmap_is_aligned_to_the_folio(granule: str, size: str, memstart: int) -> None:
    """R37: only 16G pages with 64K find another head, and only if memory begins at no multiple of 16 GiB."""
    page, folio = parse_granule(granule), parse_size(size)
    start = layout(page, 48, "7.3", memstart)["VMEMMAP_START"]
    mask = -(folio // page * 64) % (1 << 64)
    head_pa = -(-memstart // folio) * folio + folio
    heads = {
        start + ((head_pa + tail) // page - memstart // page) * 64 & mask for tail in range(page, folio, folio // 8)
    }
    right = heads == {start + (head_pa // page - memstart // page) * 64}
    assert right == ((granule, size) != ("64K", "16G") or memstart % (16 << 30) == 0)
