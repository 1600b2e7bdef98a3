"""The HugeTLB and hotplug machine against its own invariants, after every step of a random history."""

from __future__ import annotations

import errno
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import vmemmap
from vmemmap.spec import format_size, parse_size

KERNELS = ["2021", "6.1", "6.12", "6.12.117", "7.2", "7.3"]

GRANULES = {
    "4K": ("256M", "512M", ["2M", "32M", "64K", "1G"], "128M"),
    "16K": ("512M", "512M", ["32M", "2M", "1G"], "128M"),
    "64K": ("2G", "2G", ["512M", "2M", "16G"], "512M"),
}
"""granule → boot memory, room for hot add, hugepage sizes (those of a PMD first), memory block"""

KERNEL_SAYS = {errno.EBUSY, errno.EINVAL, errno.EEXIST, errno.ENOMEM, errno.ENOSPC, errno.EPERM}

AS_WRITTEN = {"6.12.117": {"I11", "I29"}}
"""Faults of code that its model has to show: 6.12.117 restores tails without resetting them (§H7), and offlining
meets the types that their free leaves. Nothing else is left at rest than those.
"""

KEPT = "a page that is no head kept the HugeTLB type"


class HugetlbAndHotplug(RuleBasedStateMachine):
    m: vmemmap.Machine

    @initialize(granule=st.sampled_from(sorted(GRANULES)), kernel=st.sampled_from(KERNELS), hvo=st.booleans())
    def boot(self, granule: str, kernel: str, hvo: bool) -> None:
        boot, hotplug, self.sizes, self.block = GRANULES[granule]
        self.m = vmemmap.Machine(
            granule=granule, kernel=kernel, boot_memory=boot, hotplug_memory=hotplug, hvo=hvo, checked=True
        )
        self.expected = AS_WRITTEN.get(kernel, set())
        self.blocks: list[vmemmap.MemoryRange] = []
        self.held: list[tuple[str, int]] = []
        self.base = self.m.counters["frames_total"]

    def teardown(self) -> None:
        """What a history did can be undone: nobody's pages, no pools, no blocks, and the frames are all there again."""
        if not hasattr(self, "m"):
            return
        self.m.fail_allocation(None)
        for size, pfn in self.held:
            self.m.hugetlb[size].put(pfn)
        for pool in self.m.hugetlb.values():
            pool.reserve(-pool.resv_hugepages)
            # A page that a failed restore made surplus lies free, and only a larger pool makes it persistent again.
            pool.nr_hugepages = pool.nr_hugepages
            pool.nr_hugepages = 0
            assert (pool.nr_hugepages, pool.free_hugepages, pool.surplus_hugepages) == (0, 0, 0), repr(pool)
        for block in self.blocks:
            if block.online_somewhere:
                block.offline()
            self.m.memory.remove(block)
        self.nothing_is_violated()
        assert self.m.counters["optimised_hugepages"] == 0
        assert self.m.counters["frames_total"] == self.base

    def pool(self, data: st.DataObject) -> vmemmap.HugeTLBPool:
        return self.m.hugetlb[data.draw(st.sampled_from(self.sizes), label="size")]

    @rule(data=st.data(), n=st.integers(0, 12))
    def resize(self, data: st.DataObject, n: int) -> None:
        pool = self.pool(data)
        used = pool.nr_hugepages - pool.free_hugepages
        pool.nr_hugepages = n
        assert pool.nr_hugepages - pool.surplus_hugepages <= n
        assert pool.nr_hugepages >= used

    @rule(on=st.booleans())
    def turn_hvo(self, on: bool) -> None:
        self.m.hvo = on
        assert self.m.hvo is on

    @rule(data=st.data(), n=st.integers(0, 4))
    def overcommit(self, data: st.DataObject, n: int) -> None:
        pool = self.pool(data)
        try:
            pool.nr_overcommit_hugepages = n
        except OSError as e:
            assert e.errno == errno.EINVAL
        else:
            assert pool.nr_overcommit_hugepages == n

    @rule(data=st.data(), delta=st.integers(-3, 3))
    def reserve(self, data: st.DataObject, delta: int) -> None:
        pool = self.pool(data)
        before = pool.resv_hugepages
        try:
            pool.reserve(delta)
        except OSError as e:
            assert e.errno in (errno.ENOMEM, errno.EINVAL)
            assert pool.resv_hugepages == before
        else:
            assert pool.resv_hugepages == before + delta

    @rule(data=st.data())
    def demote(self, data: st.DataObject) -> None:
        pool = self.pool(data)
        if pool.demote_size is None:
            return
        smaller = self.m.hugetlb[pool.demote_size]
        before, had = pool.nr_hugepages, smaller.nr_hugepages
        try:
            done = pool.demote(1)
        except OSError as e:
            assert e.errno in (errno.EBUSY, errno.ENOMEM)
        else:
            assert pool.nr_hugepages == before - done
            assert smaller.nr_hugepages == had + done * pool.size // smaller.size

    @rule(data=st.data())
    def fault(self, data: st.DataObject) -> None:
        pool = self.pool(data)
        try:
            self.held.append((format_size(pool.size), pool.get()))
        except OSError as e:
            assert e.errno == errno.ENOSPC

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def unmap(self, data: st.DataObject) -> None:
        size, pfn = self.held.pop(data.draw(st.integers(0, len(self.held) - 1), label="held"))
        self.m.hugetlb[size].put(pfn)

    @rule(data=st.data(), place=st.integers(0, 40))
    def allocate_exactly(self, data: st.DataObject, place: int) -> None:
        pool = self.pool(data)
        start, _, _ = data.draw(st.sampled_from(self.m.memory.ranges), label="range")
        pfn = (start + place * pool.size) // self.m.granule
        try:
            assert pool.allocate(pfns=[pfn]) == [pfn]
        except OSError as e:
            assert e.errno in KERNEL_SAYS
            assert pfn not in [head for head, _ in pool.pages] or e.errno == errno.EBUSY
        else:
            assert pfn in [head for head, _ in pool.pages]

    @rule(data=st.data())
    def free_exactly(self, data: st.DataObject) -> None:
        pool = self.pool(data)
        if not pool.pages:
            return
        pfn = data.draw(st.sampled_from(pool.pages), label="page")[0]
        try:
            assert pool.free(pfns=[pfn]) == [pfn]
        except OSError as e:
            assert e.errno in (errno.EBUSY, errno.ENOMEM)
        else:
            assert pfn not in [head for head, _ in pool.pages]

    @rule(count=st.integers(1, 2), self_hosted=st.booleans())
    def add_blocks(self, count: int, self_hosted: bool) -> None:
        size = count * parse_size(self.block)
        try:
            self.blocks.append(self.m.memory.add(size, memmap_on_memory=self_hosted))
        except OSError as e:
            assert e.errno in KERNEL_SAYS

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), zone=st.sampled_from(["movable", "normal"]))
    def online_a_block(self, data: st.DataObject, zone: str) -> None:
        block = data.draw(st.sampled_from(self.blocks), label="block")
        try:
            block.online(zone=zone)
        except OSError as e:
            assert e.errno == errno.EINVAL
            assert block.online_somewhere
        else:
            assert block.state == "online"

    # A page in use that finds no other place keeps `offline_pages` trying until a signal comes, as in the kernel.
    @precondition(lambda self: self.blocks and not self.held)
    @rule(data=st.data())
    def offline_a_block(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.blocks), label="block")
        try:
            block.offline()
        except OSError as e:
            assert e.errno in KERNEL_SAYS
        else:
            assert block.state == "offline"

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def remove_a_block(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(self.blocks), label="block")
        try:
            self.m.memory.remove(block)
        except OSError as e:
            assert e.errno == errno.EBUSY
            assert block.online_somewhere
        else:
            self.blocks.remove(block)

    @rule()
    def dump(self) -> None:
        assert "---[ vmemmap start ]---" in self.m.ptdump()

    @rule(nth=st.integers(1, 40))
    def let_an_allocation_fail(self, nth: int) -> None:
        """The nth from now, whatever makes it."""
        self.m.fail_allocation(nth)

    @invariant()
    def nothing_is_violated(self) -> None:
        if hasattr(self, "m"):
            assert [f for f in self.m.check() if not self.expected or f.message != KEPT] == []
            assert [v for v in self.m.violations if v.invariant not in self.expected] == []

    @invariant()
    def frames_are_conserved(self) -> None:
        if not hasattr(self, "m"):
            return
        c = self.m.counters
        assert c["frames_free"] + c["frames_used"] == c["frames_total"]
        huge = sum(pool.nr_hugepages * pool.size // self.m.granule for pool in self.m.hugetlb.values())
        assert c["frames_used"] >= huge + len(self.m.tables)
        # Of two histories that end the same, none may have used up more: nothing but pools, vmemmap, tables and (since
        # 7.1) the tail of each zone and order, which nobody gives back, holds frames.
        mapped = self.vmemmap_frames()
        shared = sum(times > 1 for times in mapped.values()) if c["vmemmap_tails"] else 0
        assert shared <= c["vmemmap_tails"]
        assert c["frames_used"] - huge - len(self.m.tables) == len(mapped) + c["vmemmap_tails"] - shared

    def vmemmap_frames(self) -> Counter[int]:
        """Frames of the allocator that vmemmap maps, and how many times; also of sections that a failed add of several
        left behind.
        """
        g = self.m.granule
        frames: Counter[int] = Counter()
        section = parse_size(self.block)
        for first, length, boot in self.m.memory.ranges:
            for start in range(first, first + length, section):
                page = self.m.page_address(start // g)
                found = [self.m.translate(va).frame for va in range(page, page + section // g * 64, g)]
                # Self-hosted storage is the beginning of the block itself, and not the allocator's.
                if boot or set(found) != set(range(start // g, start // g + section // g * 64 // g)):
                    frames.update(frame for frame in found if frame is not None)
        return frames


HugetlbAndHotplug.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestHugetlbAndHotplug = HugetlbAndHotplug.TestCase
