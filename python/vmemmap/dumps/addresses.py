"""Addresses of the kernel in words: regions by ptdump's markers, struct pages by arithmetic, descriptors by their
bits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .. import _core
from ..spec import HUGEPAGE_SIZES, format_size

__all__ = ["Regions", "Step", "StructPages", "attributes", "contiguous", "level_name", "output_of", "permissions"]

WORD: Final = (1 << 64) - 1
STRUCT_PAGE: Final = 64
_REGIONS: Final = {
    "linear mapping": "linear map",
    "kernel mapping": "linear map",
    "vmalloc()": "vmalloc",
    "pci i/o": "PCI I/O",
    "kasan shadow": "KASAN shadow",
}
_MEMORY: Final = (
    "Normal memory",
    "Normal memory, tagged",
    "Normal memory, not cacheable",
    "device memory nGnRnE",
    "device memory nGnRE",
)
_RDONLY, _USER, _AF, _NG = 1 << 7, 1 << 6, 1 << 10, 1 << 11
_CONT, _PXN, _UXN = 1 << 52, 1 << 53, 1 << 54
_AP_TABLE_RO, _UXN_TABLE, _PXN_TABLE = 1 << 62, 1 << 60, 1 << 59


def region_name(marker: str) -> tuple[str, bool] | None:
    """Region that a marker names, and whether it begins there; ``None`` if it is no start and no end.

    Args:
        marker: Text of the marker, as ptdump prints it.

    Returns:
        Name of the region, and whether it begins there.
    """
    base, _, last = marker.rpartition(" ")
    lower = marker.lower()
    if lower in _REGIONS:
        return _REGIONS[lower], True
    if last.lower() not in ("start", "area", "end"):
        return None
    return _REGIONS.get(
        base.lower(), base if base.isupper() else base.lower() if base != "PCI I/O" else base
    ), last.lower() != "end"


class Regions:
    """Which region an address is of.

    Args:
        markers: Address and text of each marker, in any order.
    """

    def __init__(self, markers: Iterable[tuple[int, str | None]]) -> None:
        self.starts: list[int] = []
        self.names: list[str | None] = []
        named = [
            (address, found) for address, marker in markers if marker and (found := region_name(marker)) is not None
        ]
        # Where one region ends and another begins, the other is it.
        for address, (name, begins) in sorted(named, key=lambda at: (at[0], at[1][1])):
            self.starts.append(address)
            self.names.append(name if begins else None)

    def of(self, address: int) -> str | None:
        """Its name, or ``None`` between two regions.

        Args:
            address: Virtual address.

        Returns:
            Name of the region, or ``None``.
        """
        at = bisect_right(self.starts, address) - 1
        return self.names[at] if at >= 0 else None


def kernel_start(va_bits: int) -> int:
    """Where the addresses begin that the tables of TTBR1 translate.

    Args:
        va_bits: Bits of a kernel virtual address.

    Returns:
        The first of them; they end with the address space.
    """
    return (1 << 64) - (1 << va_bits)


def below_kernel(address: int) -> str:
    """What an address is that no table of TTBR1 translates.

    Args:
        address: Virtual address below `kernel_start`.

    Returns:
        Words in place of a region's name.
    """
    return "user space" if address < 1 << 52 else "between user and kernel addresses"


@dataclass(frozen=True, slots=True)
class StructPages:
    """Where the struct page of a PFN is (``include/asm-generic/memory_model.h``), and the linear map."""

    granule: int
    page_offset: int
    page_end: int
    vmemmap_start: int
    vmemmap_end: int
    memstart: int | None
    """``memstart_addr``; ``None`` if nobody says: then PFNs count from it."""

    @property
    def first_pfn(self) -> int:
        """PFN whose struct page is at VMEMMAP_START."""
        return (self.memstart or 0) // self.granule

    def in_vmemmap(self, address: int) -> bool:
        """Whether a struct page can be there.

        Args:
            address: Virtual address.

        Returns:
            Whether it lies between VMEMMAP_START and VMEMMAP_END.
        """
        return self.vmemmap_start <= address < self.vmemmap_end

    def in_linear(self, address: int) -> bool:
        """Whether it is an address of the linear map.

        Args:
            address: Virtual address.

        Returns:
            Whether it lies between PAGE_OFFSET and PAGE_END.
        """
        return self.page_offset <= address < self.page_end

    def pfn_at(self, address: int) -> int:
        """PFN that the struct page at `address` describes.

        Args:
            address: Virtual address in vmemmap, of any byte of the struct page.

        Returns:
            The PFN; without `memstart` it counts from the start of the linear map.
        """
        return (address - self.vmemmap_start) // STRUCT_PAGE + self.first_pfn

    def struct_page(self, pfn: int) -> int | None:
        """Address of the struct page of a PFN; ``None`` outside vmemmap.

        Args:
            pfn: The PFN, counted as `pfn_at` counts.

        Returns:
            Virtual address of its first byte, or ``None``.
        """
        address = self.vmemmap_start + (pfn - self.first_pfn) * STRUCT_PAGE
        return address if self.in_vmemmap(address) else None

    def linear_address(self, physical: int) -> int | None:
        """Address in the linear map; ``None`` outside it.

        Args:
            physical: Physical address; without `memstart` it counts from the start of the linear map.

        Returns:
            Virtual address, or ``None``.
        """
        address = self.page_offset + physical - (self.memstart or 0)
        return address if self.in_linear(address) else None

    def physical(self, address: int) -> int:
        """Physical address that an address of the linear map stands for.

        Args:
            address: Virtual address in the linear map.

        Returns:
            Physical address; without `memstart` it counts from the start of the linear map.
        """
        return address - self.page_offset + (self.memstart or 0)


@dataclass(frozen=True, slots=True)
class Step:
    """A descriptor on the way of a walk."""

    level: int
    """Arm level."""
    descriptor: int
    kind: str
    """``none``, ``invalid``, ``block``, ``page``, ``table``, ``reserved``."""
    output: int | None
    """Output or next-table address."""
    index: int | None = None
    table: int | None = None
    """Physical address of the table that holds it, if that is known."""

    def to_dict(self, va_bits: int, granule: int) -> dict[str, object]:
        """For JSON.

        Args:
            va_bits: Bits of a kernel virtual address.
            granule: Bytes of a base page.

        Returns:
            The object that ``--json`` prints for a step.
        """
        return {
            "level": self.level,
            "name": level_name(self.level, granule, va_bits),
            "table": self.table,
            "index": self.index,
            "descriptor": f"{self.descriptor:#018x}",
            "kind": self.kind,
            "output": self.output,
        }

    def text(self, va_bits: int, granule: int) -> str:
        """For people.

        Args:
            va_bits: Bits of a kernel virtual address.
            granule: Bytes of a base page.

        Returns:
            One line, without a newline at the end.
        """
        to = {"table": "table at", "block": "block of", "page": "page of"}.get(self.kind)
        says = (
            f"{to} {self.output:#x}"
            if to and self.output is not None
            else {"none": "nothing", "invalid": "not valid, not zero"}.get(self.kind, self.kind)
        )
        place = (
            ""
            if self.index is None
            else f" [{self.index}]"
            if self.table is None
            else f" [{self.index}] of the table at {self.table:#x}"
        )
        return (
            f"{level_name(self.level, granule, va_bits):<3}  level {self.level:>2}  {self.descriptor:#018x}  "
            f"{says}{place}"
        )


def levels_of(granule: int, va_bits: int) -> list[int]:
    """Arm levels of a walk, from the top.

    Args:
        granule: Bytes of a base page.
        va_bits: Bits of a kernel virtual address.

    Returns:
        Levels from the top one to 3; the top is -1 with five levels.
    """
    bits = granule.bit_length() - 1
    return list(range(4 - -(-(va_bits - bits) // (bits - 3)), 4))


def shift_of(granule: int, level: int) -> int:
    """Bits of an address below those that index a table of that level.

    Args:
        granule: Bytes of a base page.
        level: Arm level.

    Returns:
        Number of bits.
    """
    bits = granule.bit_length() - 1
    return bits + (3 - level) * (bits - 3)


def level_name(level: int, granule: int, va_bits: int) -> str:
    """What Linux calls a table of that level: the top is ``pgd``.

    Args:
        level: Arm level.
        granule: Bytes of a base page.
        va_bits: Bits of a kernel virtual address.

    Returns:
        ``pgd``, ``p4d``, ``pud``, ``pmd`` or ``pte``.
    """
    top = levels_of(granule, va_bits)[0]
    return "pgd" if level == top else {0: "p4d", 1: "pud", 2: "pmd", 3: "pte"}.get(level, "pgd")


def index_of(address: int, granule: int, va_bits: int, level: int) -> int:
    """Index of an address in a table of that level.

    Args:
        address: Virtual address.
        granule: Bytes of a base page.
        va_bits: Bits of a kernel virtual address.
        level: Arm level.

    Returns:
        Number of the descriptor in its table, from 0.
    """
    shift = shift_of(granule, level)
    top = level == levels_of(granule, va_bits)[0]
    width = va_bits - shift if top else granule.bit_length() - 4
    return address >> shift & ((1 << width) - 1)


def output_of(granule: int, va_bits: int, level: int, word: int) -> tuple[str, int | None]:
    """What a descriptor is at a level, and its address.

    Args:
        granule: Bytes of a base page.
        va_bits: Bits of a kernel virtual address.
        level: Arm level.
        word: The descriptor.

    Returns:
        Kind as in `Step.kind`, and output or next-table address, if it has one.
    """
    return _core.descriptor(granule, va_bits, level, word)


def contiguous(word: int) -> bool:
    """The contiguous bit of a leaf.

    Args:
        word: The descriptor.

    Returns:
        Whether it is set.
    """
    return bool(word & _CONT)


def permissions(steps: Sequence[Step]) -> str | None:
    """What the leaf at the end of a walk allows, restricted by the tables above it; ``None`` if there is none.

    Args:
        steps: The walk, from the top.

    Returns:
        Words with commas between them, or ``None``.
    """
    if not steps or steps[-1].kind not in ("block", "page"):
        return None
    leaf = steps[-1].descriptor
    tables = [step.descriptor for step in steps[:-1]]
    read_only = bool(leaf & _RDONLY) or any(word & _AP_TABLE_RO for word in tables)
    no_exec = bool(leaf & _PXN) or any(word & _PXN_TABLE for word in tables)
    no_user_exec = bool(leaf & _UXN) or any(word & _UXN_TABLE for word in tables)
    words = ["read-only" if read_only else "writable", "not executable" if no_exec else "executable"]
    if leaf & _USER:
        words.append("user access")
    if not no_user_exec:
        words.append("executable at EL0")
    return ", ".join([*words, *attributes(leaf)])


def attributes(leaf: int) -> list[str]:
    """Memory type and other attributes of a leaf, in words.

    Args:
        leaf: Its descriptor.

    Returns:
        Memory type first; of the others those that are out of the ordinary.
    """
    kind = leaf >> 2 & 7
    words = [_MEMORY[kind] if kind < len(_MEMORY) else f"memory type {kind}"]
    if leaf & _CONT:
        words.append("contiguous")
    if not leaf & _AF:
        words.append("access flag clear")
    if leaf & _NG:
        words.append("not global")
    return words


def hugepage_sizes(granule: int) -> tuple[int, ...]:
    """Hugepage sizes with at least one vmemmap page of their own.

    Args:
        granule: Bytes of a base page.

    Returns:
        Sizes in bytes.
    """
    return tuple(size for size in HUGEPAGE_SIZES[granule] if size // granule * STRUCT_PAGE >= granule)


def hugepage_words(pfn: int, granule: int) -> list[str]:
    """The hugepages that a PFN would be part of, by size: head and number of the page in it.

    Args:
        pfn: The PFN.
        granule: Bytes of a base page.

    Returns:
        A text for each hugepage size of the granule.
    """
    words: list[str] = []
    for size in HUGEPAGE_SIZES[granule]:
        pages = size // granule
        head = pfn // pages * pages
        words.append(f"{format_size(size)}: head PFN {head:#x}, page {pfn - head} of {pages}")
    return words
