"""Where arm64 kernels have put the linear map and vmemmap, by generation of the layout; and kernels that were built for
52-bit addresses and run with fewer (``arch/arm64/include/asm/memory.h``, ``arch/arm64/mm/init.c``).

Such a kernel computes with the PAGE_OFFSET of 52 bits and lowers ``memstart_addr`` so that RAM lies in the part of the
linear map that its CPU has. All that is arithmetic: with 4K and 16K pages its tables, its vmemmap and its text are
those of a kernel that was built for the bits in use and has the higher ``memstart_addr``, which is how they are
described here. With 64K pages the root keeps its 1,024 entries, of which the upper ones are in use, so there the 52
bits stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .. import _core
from ..errors import SpecError
from ..spec import KERNELS, check_machine

__all__ = [
    "GENERATIONS",
    "Generation",
    "generation_of",
    "in_use_memstart",
    "page_end",
    "page_offset",
    "vmemmap_in_use",
    "vmemmap_start",
]

_STRUCT_PAGE: Final = 64
_LOWERED: Final = -(1 << 51)
"""``memstart_addr`` below this was lowered for a smaller VA: a linear map has at most 2^51 bytes,
so KASLR goes no further.
"""


@dataclass(frozen=True, slots=True)
class Generation:
    """Releases with the same VA layout."""

    name: str
    releases: str
    behaviours: tuple[str, ...]
    """Those that are modelled and have this layout, the usual one first; none where no layout is modelled."""


def _generations() -> tuple[Generation, ...]:
    ends = {kernel: _core.layout(4096, 48, kernel)["VMEMMAP_END"] for kernel in KERNELS}
    newer = tuple(kernel for kernel in KERNELS if ends[kernel] == ends["6.12"])
    older = tuple(kernel for kernel in KERNELS if ends[kernel] == ends["6.1"])
    return (
        Generation("6.12", "6.9 and later", ("6.12", *(k for k in newer if k != "6.12"))),
        Generation("6.1", "5.11 to 6.8", ("6.1", *(k for k in older if k != "6.1"))),
        Generation("5.4", "5.4 to 5.10", ()),
    )


GENERATIONS: Final = _generations()
"""The newest first."""


def page_offset(va_bits: int) -> int:
    """PAGE_OFFSET of that many bits in use."""
    return -(1 << va_bits) % (1 << 64)


def page_end(granule: int, va_bits: int) -> int:
    """PAGE_END, where the linear map ends."""
    least = va_bits if va_bits <= 48 else 47 if granule == 16384 else 48
    return -(1 << (least - 1)) % (1 << 64)


def vmemmap_start(generation: Generation, granule: int, va_bits: int) -> int | None:
    """VMEMMAP_START, counted from PAGE_OFFSET of the bits in use; ``None`` if that generation has no such machine."""
    if generation.behaviours:
        kernel = generation.behaviours[0]
        try:
            check_machine(granule, va_bits, kernel)
        except SpecError:
            return None
        return int(_core.layout(granule, va_bits, kernel)["VMEMMAP_START"])
    if va_bits == 52 and granule != 65536:
        return None
    size = (page_end(granule, va_bits) - page_offset(va_bits)) // granule * _STRUCT_PAGE
    return (-size - (2 << 20)) % (1 << 64)


def generation_of(start: int, granule: int, va_bits: int) -> Generation | None:
    """The generation whose vmemmap begins there; ``None``: none known."""
    return next((g for g in GENERATIONS if vmemmap_start(g, granule, va_bits) == start), None)


def in_use_memstart(memstart: int, granule: int, va_bits: int) -> int:
    """``memstart_addr`` as a kernel that was built for ``va_bits`` would have it, of what the kernel says."""
    if memstart >= _LOWERED:
        return memstart
    if va_bits == 52:
        return memstart
    return memstart + page_offset(va_bits) - page_offset(52)


def vmemmap_in_use(start: int, granule: int, built_for: int, va_bits: int) -> int:
    """Where the struct page of PAGE_OFFSET of the bits in use is,
    of VMEMMAP_START of a kernel built for ``built_for``.
    """
    return start + (page_offset(va_bits) - page_offset(built_for)) // granule * _STRUCT_PAGE
