"""The story of the captures' README on the real tables of 6.12-4k, under three behaviours. Each test is a claim of
docs/restore-6.12.117.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import vmemmap
from vmemmap.dumps.struct_page import TAIL_MAPPING, StructPage
from vmemmap.machine.machine import Violation

HERE = Path(__file__).parent
ADDED = 0x8000_0000
"""Where the captured machine takes hot-added memory."""
PER_PAGE = 64
"""Struct pages in a vmemmap page of 4K."""
HUGE = 512
SOUND = ["6.1", "6.12"]
AS_WRITTEN = "6.12.117"


class Story:
    """One machine, and what the kernel's checks would have said at each step."""

    def __init__(self, kernel: str, state: str = "B") -> None:
        self.m = vmemmap.Machine.load(HERE / f"6.12-4k/{state}.npz", kernel=kernel, checked=True)
        self.pool = self.m.hugetlb["2M"]
        self._told = 0

    def free(self) -> list[int]:
        """The eight hugepages of the capture, as ``echo 0 > nr_hugepages`` frees them; their heads."""
        heads = [head for head, _ in self.pool.pages]
        self.pool.nr_hugepages = 0
        assert self.pool.nr_hugepages == 0
        return heads

    def add(self) -> vmemmap.MemoryRange:
        return self.m.memory.add("256M", start=ADDED)

    def allocate(self, count: int) -> None:
        """`count` hugepages from the start of the added memory."""
        self.pool.allocate(pfns=[ADDED // 4096 + HUGE * n for n in range(count)])

    def told(self) -> list[tuple[str, str]]:
        """(invariant, message) of what was seen since the last call."""
        new = self.m.violations[self._told :]
        self._told += len(new)
        return [(found.invariant, said(found)) for found in new]

    def page(self, pfn: int) -> StructPage:
        found = self.m.struct_page(pfn)
        assert found is not None
        return found

    def typed(self, pfns: Iterable[int]) -> list[int]:
        """Those whose struct page has the type of a HugeTLB page."""
        return [pfn for pfn in pfns if self.page(pfn).has_hugetlb_type]


def said(found: Violation) -> str:
    """The message without who and where."""
    return re.sub(r".* at step \d+: ", "", found.message)


def copies(head: int) -> list[int]:
    """The PFNs whose struct pages lie in slot 0 of a tail vmemmap page."""
    return [head + PER_PAGE * n for n in range(1, 8)]


@pytest.mark.parametrize("kernel", SOUND)
@pytest.mark.parametrize("state", ["A", "B"])
def test_the_whole_story_leaves_nothing_under_6_1_and_the_intent_of_6_12(kernel: str, state: str) -> None:
    story = Story(kernel, state)
    if state == "A":
        story.pool.nr_hugepages = 8
    heads = story.free()
    assert story.m.check() == []
    assert story.typed(pfn for head in heads for pfn in range(head, head + HUGE)) == []
    block = story.add()
    assert story.m.check() == []
    block.online()
    assert story.m.check() == []
    story.allocate(16)
    assert story.m.check() == []
    story.pool.nr_hugepages = 24
    assert story.m.check() == []
    story.pool.nr_hugepages = 0
    story.m.memory.remove(start=ADDED, size="256M")
    assert story.m.check() == []
    assert story.told() == []


@pytest.mark.parametrize("kernel", [*SOUND, AS_WRITTEN])
def test_while_optimised_slot_0_of_each_tail_page_reads_as_the_head(kernel: str) -> None:
    """That is what aliasing means; it is no finding."""
    story = Story(kernel)
    assert story.m.check() == []
    head = story.pool.pages[0][0]
    for pfn in copies(head):
        assert story.page(pfn).words == story.page(head).words
        assert story.page(pfn).is_head
        assert story.page(pfn).has_hugetlb_type == (kernel != "6.1")


def test_the_free_would_find_three_struct_pages_of_each_tail_page() -> None:
    story = Story(AS_WRITTEN)
    heads = story.free()
    assert story.told() == [("I11", "bad page: corrupted mapping in tail page")] * (8 * 7 * 3)
    addresses = [found.address for found in story.m.violations]
    expected = [story.m.page_address(pfn + slot) for head in heads for pfn in copies(head) for slot in range(3)]
    assert sorted(a for a in addresses if a is not None) == sorted(expected)


def test_the_type_survives_the_free_in_slot_0_and_nothing_else_that_is_looked_at() -> None:
    story = Story(AS_WRITTEN)
    heads = story.free()
    everything = [pfn for head in heads for pfn in range(head, head + HUGE)]
    assert story.typed(everything) == [pfn for head in heads for pfn in copies(head)]
    for pfn in copies(heads[0]):
        # private: HPG_vmemmap_optimized, which the head had when it was copied.
        assert story.page(pfn).words == (0, 0, 0, 0, 0, 1 << 4, 0xF400_0000, 0)
    plain = (0, 0, 0, 0, 0, 0, 0xFFFF_FFFF, 0)
    assert all(story.page(pfn).words == plain for pfn in everything if pfn not in copies(pfn - pfn % HUGE))
    found = story.m.check()
    assert {(f.invariant, f.message) for f in found} == {("I11", "a page that is no head kept the HugeTLB type")}
    assert len(found) == 56


def test_a_hot_added_section_takes_a_freed_hugepage_for_its_vmemmap() -> None:
    """Which block it is, the page allocator decides: here that of the model, whose choice for the first section is
    one of the eight.
    """
    story = Story(AS_WRITTEN)
    heads = story.free()
    story.told()
    story.add()
    first, second = (story.m.translate(story.m.page_address(ADDED // 4096 + n * 32768)).frame for n in range(2))
    assert first in heads
    assert second not in heads
    message = "bad page: nonzero mapcount of a page just allocated: the HugeTLB type"
    assert story.told() == [("I11", message)] * 7


def test_more_hugepages_free_a_page_that_has_the_type() -> None:
    """The first eight give up pages 0 to 63 of the block, the ninth page 64: slot 0 of a tail page when it was a
    hugepage.
    """
    story = Story(AS_WRITTEN)
    story.free()
    story.add().online()
    frame = story.m.translate(story.m.page_address(ADDED // 4096)).frame
    assert frame is not None
    story.told()
    story.allocate(8)
    assert story.told() == []
    story.pool.allocate(pfns=[ADDED // 4096 + 8 * HUGE])
    assert story.told() == [("I11", "bad page: nonzero mapcount of a page just freed: the HugeTLB type")]
    assert story.m.violations[-1].address == story.m.page_address(frame + PER_PAGE)
    assert story.page(frame + PER_PAGE).has_hugetlb_type


def test_a_hugepage_over_a_freed_one_hides_the_types_while_it_is_optimised() -> None:
    """The frames with the old struct pages are given up; the next free leaves the types again."""
    story = Story(AS_WRITTEN)
    heads = story.free()
    story.pool.allocate(pfns=heads)
    assert story.m.check() == []
    assert story.free() == heads
    assert len(story.m.check()) == 56


def test_without_hvo_tails_keep_the_type_and_the_head_is_asked() -> None:
    story = Story(AS_WRITTEN)
    heads = story.free()
    story.m.hvo = False
    story.pool.allocate(pfns=heads[:1])
    tail = story.page(heads[0] + PER_PAGE)
    assert (tail.has_hugetlb_type, tail.compound_head, tail.mapping) == (
        True,
        story.page(heads[0]).address,
        TAIL_MAPPING,
    )


def test_offlining_takes_seven_free_pages_of_each_freed_hugepage_for_hugepages() -> None:
    """A range dissolve looks at every 16th page: the smallest hugepage of 4K is 64K."""
    story = Story(AS_WRITTEN)
    story.add().online()
    story.allocate(2)
    assert story.m.check() == []
    story.pool.free(pfns=[ADDED // 4096, ADDED // 4096 + HUGE])
    story.told()
    story.m.memory.range(ADDED, "256M").offline()
    assert story.told() == [("I29", "the HugeTLB type on a page that is no hugepage: folio_hstate is NULL")] * (2 * 7)


def test_offlined_memory_forgets_the_types() -> None:
    """Its struct pages are poisoned when it leaves its zone, and written anew when it comes back."""
    story = Story(AS_WRITTEN)
    story.add().online()
    story.allocate(1)
    story.pool.free(pfns=[ADDED // 4096])
    added = story.m.memory.range(ADDED, "256M")
    added.offline()
    added.online()
    assert story.typed(copies(ADDED // 4096)) == []


# ---- rollback
# ----------------------------------------------------------------------------------------------------------


def gigantic(kernel: str, nth: int) -> tuple[vmemmap.Machine, int]:
    """A 1G page whose `nth` allocation from the start failed, and its head; the captured machine has no room for
    one.
    """
    m = vmemmap.Machine(kernel=kernel, boot_memory="3G", checked=True, linear_map="blocks", mapping="blocks")
    m.fail_allocation(nth)
    [head] = m.hugetlb["1G"].allocate(1)
    m.fail_allocation(None)
    assert m.hugetlb["1G"].optimised_hugepages == 0
    return m, head


@pytest.mark.parametrize("kernel", SOUND)
@pytest.mark.parametrize("nth", [2, 3, 4, 5, 9])
def test_a_rollback_of_6_1_and_6_12_loses_no_frame(kernel: str, nth: int) -> None:
    m, _ = gigantic(kernel, nth)
    assert m.violations == []
    assert m.check() == []


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_a_rollback_of_6_12_117_loses_the_copy_and_leaves_the_tails_as_they_are(blocks: int) -> None:
    # Hugepage, copy of the head, one table for each block that was split; then no table.
    m, head = gigantic(AS_WRITTEN, 3 + blocks)
    assert [(v.invariant, said(v)) for v in m.violations] == [
        ("I13", "rollback: the fresh head frame is mapped nowhere and on no list")
    ]
    found = m.check()
    lost = [f for f in found if f.invariant == "I13"]
    assert [f.message for f in lost] == ["allocated for struct pages or as a table, and mapped nowhere"]
    tails = [f.address for f in found if f.invariant == "I11"]
    assert tails == [m.page_address(head) + 4096 * n for n in range(1, 512 * blocks)]
    # The lost frame is counted still.
    assert [f.invariant for f in found if f.invariant not in ("I11", "I13")] == ["I33"]
    assert len(found) == len(lost) + len(tails) + 1


@pytest.mark.parametrize("kernel", [*SOUND, AS_WRITTEN])
@pytest.mark.parametrize("size", ["2M", "32M"])
def test_no_smaller_page_can_get_there(kernel: str, size: str) -> None:
    """Their struct pages, 32K and 512K, lie in one block: its split fails before any entry was changed."""
    for nth in range(1, 6):
        m = vmemmap.Machine(kernel=kernel, boot_memory="1G", checked=True, linear_map="blocks", mapping="blocks")
        m.fail_allocation(nth)
        if nth == 1:
            with pytest.raises(vmemmap.KernelError):
                m.hugetlb[size].allocate(1)
        else:
            m.hugetlb[size].allocate(1)
        assert m.violations == []
        assert m.check() == []


@pytest.mark.parametrize(("granule", "size"), [("16K", "1G"), ("64K", "512M")])
def test_with_larger_pages_nothing_is_split(granule: str, size: str) -> None:
    """Vmemmap is in base pages: the copy of the head is the only allocation that can fail, and it comes before any
    change.
    """
    for nth in range(2, 5):
        m = vmemmap.Machine(granule=granule, kernel=AS_WRITTEN, boot_memory="3G", checked=True, linear_map="blocks")
        m.fail_allocation(nth)
        m.hugetlb[size].allocate(1)
        assert m.hugetlb[size].optimised_hugepages == (nth != 2)
        assert m.violations == []
        assert m.check() == []
