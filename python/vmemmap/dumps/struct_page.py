"""The struct page of one base page, word by word, as the model's kernel keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["StructPage"]

TAIL_MAPPING: Final = 0xDEAD_0000_0000_0400
"""``TAIL_MAPPING``: ``LIST_POISON4`` of a 64-bit kernel."""
_HEAD: Final = 1 << 16
_PGTY_HUGETLB: Final = 0xF4


@dataclass(frozen=True, slots=True)
class StructPage:
    """Eight words of 64 bits. Which of them the kernel keeps what in is that of `include/linux/mm_types.h`, but for the
    first tail of a compound page: there the model has the order, and under 2021 and 6.1 the destructor, in
    ``words[2]``.
    """

    address: int
    """Virtual address (``pfn_to_page``)."""
    words: tuple[int, ...]

    @property
    def flags(self) -> int:
        """``page->flags``, bits as in 6.1."""
        return self.words[0]

    @property
    def is_head(self) -> bool:
        """``PG_head`` is set. So it is in slot 0 of a shared tail page, which aliases the head's."""
        return bool(self.flags & _HEAD)

    @property
    def compound_head(self) -> int | None:
        """Address of the head's struct page, if this one is a tail; ``None`` if bit 0 of the word is clear.

        7.x with HVO configured keeps a mask of the tail's own address there. A mask is the negative of a power of
        two, and no address of a struct page is.
        """
        if not self.words[1] & 1:
            return None
        word = self.words[1] - 1
        below = -word % (1 << 64)
        return self.address & word if below & (below - 1) == 0 else word

    @property
    def mapping(self) -> int:
        """``page->mapping``: ``TAIL_MAPPING`` in a tail that keeps nothing else there."""
        return self.words[3]

    @property
    def private(self) -> int:
        """``page->private``: the HPG flags in the head of a HugeTLB page."""
        return self.words[5]

    @property
    def page_type(self) -> int:
        """``page->page_type``, in the place of ``_mapcount``: 32 bits, all ones if there is neither."""
        return self.words[6] & 0xFFFF_FFFF

    @property
    def has_hugetlb_type(self) -> bool:
        """The type is ``PGTY_hugetlb``, by which 6.12 knows the head of a HugeTLB page. Never under 2021 and 6.1."""
        return self.page_type >> 24 == _PGTY_HUGETLB

    @property
    def refcount(self) -> int:
        """``page->_refcount``."""
        return self.words[6] >> 32

    def __repr__(self) -> str:
        return f"<StructPage {self.address:#x}: {' '.join(f'{word:x}' for word in self.words)}>"
