"""HugeTLB in a scenario: operations on one pool, under the names of `vmemmap.machine.hugetlb`."""

from __future__ import annotations

from dataclasses import dataclass

from .steps import Operation

__all__ = ["Pool"]


@dataclass
class Pool:
    """The operations on one hugepage size."""

    hstate: int
    size: int

    def allocate(self, at: int | None = None) -> Operation:
        """A fresh page into the pool, optimised if HVO is on; the one whose head is PFN `at`, or any.

        Kernel: ``alloc_fresh_huge_page``, ``mm/hugetlb.c``.

        Args:
            at: PFN of the head; None: any place.

        Returns:
            The operation.
        """
        return Operation("hugetlb_alloc", {"hstate": self.hstate, "at": at})

    def free(self, at: int | None = None) -> Operation:
        """A free page back to the page allocator, restored first.

        Kernel: ``update_and_free_page``, ``mm/hugetlb.c``.

        Args:
            at: PFN of the head; None: any free page.

        Returns:
            The operation.
        """
        return Operation("hugetlb_free", {"hstate": self.hstate, "at": at})

    def use(self) -> Operation:
        """A page fault takes a free page, its struct pages are used, the last reference puts it back.

        Kernel: ``alloc_huge_page``, ``free_huge_page``, ``mm/hugetlb.c``.

        Returns:
            The operation.
        """
        return Operation("hugetlb_use", {"hstate": self.hstate})

    def resize(self, count: int) -> Operation:
        """``echo count > nr_hugepages``.

        Kernel: ``set_max_huge_pages``, ``mm/hugetlb.c``.

        Args:
            count: Hugepages that the pool is to have.

        Returns:
            The operation.
        """
        return Operation("nr_hugepages", {"hstate": self.hstate, "count": count})

    def get(self) -> Operation:
        """A page fault takes a free page, whose head gets its first reference, and keeps it until `put`.

        Kernel: ``alloc_huge_page``, ``mm/hugetlb.c``.

        Returns:
            The operation.
        """
        return Operation("hugetlb_get", {"hstate": self.hstate})

    def put(self, at: int) -> Operation:
        """The user of the page whose head was PFN `at` when it got it lets go, in atomic context.

        Kernel: ``free_huge_page``, ``mm/hugetlb.c``.

        Args:
            at: PFN of the head.

        Returns:
            The operation.
        """
        return Operation("hugetlb_put", {"hstate": self.hstate, "at": at})

    def overcommit(self, count: int) -> Operation:
        """``echo count > nr_overcommit_hugepages``.

        Kernel: ``hugetlb_overcommit_handler``, ``mm/hugetlb.c``.

        Args:
            count: Most surplus hugepages.

        Returns:
            The operation.
        """
        return Operation("hugetlb_overcommit", {"hstate": self.hstate, "count": count})

    def demote(self, count: int) -> Operation:
        """``echo count > demote``: free pages split into pages of the next smaller size.

        Kernel: ``demote_store``, ``mm/hugetlb.c``.

        Args:
            count: How many to split.

        Returns:
            The operation.
        """
        return Operation("hugetlb_demote", {"hstate": self.hstate, "count": count})

    def reserve(self, pages: int) -> Operation:
        """Reserve pages, with surplus ones where too few are free, or (negative) give reservations back.

        Kernel: ``hugetlb_acct_memory``, ``mm/hugetlb.c``.

        Args:
            pages: How many more are to be reserved.

        Returns:
            The operation.
        """
        return Operation("hugetlb_reserve", {"hstate": self.hstate, "delta": pages})

    def mount(self, minimum: int) -> Operation:
        """Mount hugetlbfs with a minimum of reserved pages: the machine's only subpool.

        Kernel: ``hugepage_new_subpool``, ``mm/hugetlb.c``.

        Args:
            minimum: ``min_size``, in pages.

        Returns:
            The operation.
        """
        return Operation("subpool_new", {"hstate": self.hstate, "min": minimum})

    def unmount(self) -> Operation:
        """Unmount it.

        Kernel: ``hugepage_put_subpool``, ``mm/hugetlb.c``.

        Returns:
            The operation.
        """
        return Operation("subpool_put", {"hstate": self.hstate})

    def get_subpool_pages(self, pages: int) -> Operation:
        """Files of the mount use so many pages more.

        Kernel: ``hugepage_subpool_get_pages``, ``mm/hugetlb.c``.

        Args:
            pages: How many.

        Returns:
            The operation.
        """
        return Operation("subpool_get_pages", {"pages": pages})

    def put_subpool_pages(self, pages: int) -> Operation:
        """Files of the mount use so many pages fewer.

        Kernel: ``hugepage_subpool_put_pages``, ``mm/hugetlb.c``.

        Args:
            pages: How many.

        Returns:
            The operation.
        """
        return Operation("subpool_put_pages", {"hstate": self.hstate, "pages": pages})

    def at_rest(self, after: int) -> Operation:
        """The counters of the pool are judged (I24) once so many actors have said that they are done
        (`Setup.actor_done`). No kernel code.

        Args:
            after: How many actors.

        Returns:
            The operation.
        """
        return Operation("pool_at_rest", {"hstate": self.hstate, "after": after})
