"""HugeTLB pools of a machine, with the names of ``/sys/kernel/mm/hugepages/hugepages-*kB``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import SpecError
from ..spec import HUGEPAGE_SIZES, format_size, parse_size
from .operations import exactly, run

if TYPE_CHECKING:
    from .._core import Machine as Core

__all__ = ["HugeTLBPool", "HugeTLBPools", "NoSuchPoolError"]


class NoSuchPoolError(SpecError, KeyError):
    """The granule has no hugepages of that size."""

    def __str__(self) -> str:
        return str(self.args[0])


class HugeTLBPool:
    """The pool of one hugepage size. Counters are read from the kernel each time; assigning is writing the sysfs
    file.
    """

    __slots__ = ("_core", "_index", "size")

    def __init__(self, core: Core, index: int, size: int) -> None:
        """A handle on one pool.

        Args:
            core: The machine.
            index: Of the size among those of the granule, from the smallest.
            size: Bytes of one page.
        """
        self._core, self._index = core, index
        self.size: int = size
        """Bytes of one page."""

    def __repr__(self) -> str:
        return f"<HugeTLBPool {format_size(self.size)}: {self.nr_hugepages} pages, {self.free_hugepages} free>"

    def _run(self, op: str, **fields: int | None) -> int:
        return run(self._core, op, hstate=self._index, **fields)

    @property
    def nr_hugepages(self) -> int:
        """Pages in the pool, surplus included.

        Assigning resizes as far as memory allows; read it back for what was reached (``set_max_huge_pages``).
        """
        return self._core.pool(self._index)["nr"]

    @nr_hugepages.setter
    def nr_hugepages(self, count: int) -> None:
        self._run("nr_hugepages", count=_count(count, "nr_hugepages"))

    @property
    def free_hugepages(self) -> int:
        """Pages that nobody uses; reserved ones are among them."""
        return self._core.pool(self._index)["free"]

    @property
    def resv_hugepages(self) -> int:
        """Free pages that are promised to a mapping."""
        return self._core.pool(self._index)["resv"]

    @property
    def surplus_hugepages(self) -> int:
        """Pages above the persistent pool size, that go back once they are free."""
        return self._core.pool(self._index)["surplus"]

    @property
    def nr_overcommit_hugepages(self) -> int:
        """Most surplus pages that a fault may allocate. Assignable."""
        return self._core.pool(self._index)["overcommit"]

    @nr_overcommit_hugepages.setter
    def nr_overcommit_hugepages(self, count: int) -> None:
        self._run("hugetlb_overcommit", count=_count(count, "nr_overcommit_hugepages"))

    @property
    def optimised_hugepages(self) -> int:
        """Pages whose vmemmap is optimised, as the tables show it. No sysfs file tells this."""
        return self._core.optimised(self._index)

    @property
    def demote_size(self) -> int | None:
        """Bytes of the pages that ``demote`` makes: the next smaller size. ``None`` for the smallest, which has no
        such file.
        """
        sizes = HUGEPAGE_SIZES[self._core.granule]
        return sizes[self._index - 1] if self._index else None

    @property
    def demote(self) -> Callable[[int], int]:
        """Split that many free pages into pages of ``demote_size``: ``pool.demote = 2`` as in sysfs, or
        ``pool.demote(2)``, which returns how many were split.
        """
        return self._demote

    @demote.setter
    def demote(self, count: int) -> None:
        self._demote(count)

    def _demote(self, count: int) -> int:
        if self.demote_size is None:
            raise SpecError(f"{format_size(self.size)} is the smallest hugepage size: it cannot be demoted")
        return self._run("hugetlb_demote", count=_count(count, "demote"))

    @property
    def pages(self) -> list[tuple[int, int]]:
        """(PFN of the head, length in base pages) of each page, by PFN."""
        return self._core.pages(self._index)

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """The same as runs of pages side by side: (PFN of the first head, length of each, number of pages)."""
        return self._core.page_runs(self._index)

    def allocate(self, count: int | None = None, *, pfns: Iterable[int] | None = None) -> list[int]:
        """Fresh pages into the pool: `count` of them anywhere, or exactly those with these head PFNs.

        Returns their head PFNs. None of the frames that the call itself needs, for tables or vmemmap, is taken from the
        pages named.

        Kernel: ``alloc_fresh_huge_page``, ``mm/hugetlb.c``.

        Args:
            count: How many, anywhere; 1 by default.
            pfns: Or exactly the pages with these head PFNs.

        Returns:
            PFNs of the heads.

        Raises:
            KernelError: ENOMEM if memory runs out, EBUSY if a named frame is in use, EINVAL if a PFN
                cannot be a head; pages allocated before that stay.
        """
        if pfns is None:
            return [self._run("hugetlb_alloc", at=None) for _ in range(_count(1 if count is None else count, "count"))]
        heads = _pfns(count, pfns)
        return exactly(self._core, "hugetlb_alloc", lambda: self._core.allocate(self._index, heads), self._index, heads)

    def free(self, count: int | None = None, *, pfns: Iterable[int] | None = None) -> list[int]:
        """Free pages of the pool back to the page allocator, vmemmap restored first: `count` of them, or exactly those
        with these head PFNs. Returns their head PFNs.

        Kernel: ``update_and_free_page``, ``mm/hugetlb.c``.

        Args:
            count: How many; 1 by default.
            pfns: Or exactly the pages with these head PFNs.

        Returns:
            PFNs of the heads.

        Raises:
            KernelError: ENOMEM if a restore finds no memory, EBUSY if a page is in use, EINVAL if there
                is none.
        """
        if pfns is None:
            return [self._run("hugetlb_free", at=None) for _ in range(_count(1 if count is None else count, "count"))]
        heads = _pfns(count, pfns)
        return exactly(self._core, "hugetlb_free", lambda: self._core.release(self._index, heads), self._index, heads)

    def reserve(self, delta: int) -> None:
        """Promise `delta` pages to a mapping, or take the promise back if negative (``hugetlb_acct_memory``).

        Args:
            delta: Pages; negative to take the promise back.

        Raises:
            KernelError: ENOMEM if there are not so many to promise.
        """
        self._run("hugetlb_reserve", delta=delta)

    def get(self) -> int:
        """A page fault takes a free page and keeps it; returns its head PFN.

        Returns:
            PFN of the head.

        Raises:
            KernelError: ENOSPC if no page is free.
        """
        return self._run("hugetlb_get")

    def put(self, pfn: int) -> None:
        """The last reference to a page taken by ``get`` goes.

        Args:
            pfn: PFN of the head.

        Raises:
            KernelError: EINVAL if nobody uses it.
        """
        self._run("hugetlb_put", at=_count(pfn, "pfn"))


def _count(value: int, what: str) -> int:
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise SpecError(f"{what} is {value!r}: expected an integer") from None
    if not 0 <= number < 1 << 63:
        raise SpecError(f"{what} is {number}: expected 0 or more, below 2^63")
    return number


def _pfns(count: int | None, pfns: Iterable[int]) -> list[int]:
    if count is not None:
        raise SpecError("give a count or pfns, not both")
    numbers = [_count(pfn, "pfn") for pfn in pfns]
    if len(set(numbers)) != len(numbers):
        raise SpecError("pfns name a page twice")
    return numbers


class HugeTLBPools(Mapping[str, HugeTLBPool]):
    """Pools by page size: ``pools["2M"]``, or the bytes. Iterates over the names, smallest first."""

    def __init__(self, core: Core) -> None:
        """A handle on the pools of every size that the granule has.

        Args:
            core: The machine.
        """
        sizes = HUGEPAGE_SIZES[core.granule]
        self._pools = {format_size(size): HugeTLBPool(core, index, size) for index, size in enumerate(sizes)}

    def __getitem__(self, size: str | int) -> HugeTLBPool:
        try:
            return self._pools[format_size(parse_size(size, "hugepage size"))]
        except KeyError:
            raise NoSuchPoolError(f"no hugepages of {size!r}: expected one of {', '.join(self._pools)}") from None

    def __contains__(self, size: object) -> bool:
        try:
            return isinstance(size, (str, int)) and format_size(parse_size(size)) in self._pools
        except SpecError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def __repr__(self) -> str:
        return f"<HugeTLBPools {', '.join(self._pools)}>"
