"""The kernel VA layout of a machine, its table geometry and which sections share a table. The numbers are those of the
Rust core (``rust/arch``); here they are given names and put into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from .._core import layout as core_layout
from ..spec import check_machine, format_size, parse_granule, parse_kernel, parse_va_bits

__all__ = ["STRUCT_PAGE", "Layout", "TableLevel", "frames_freed", "layout", "vmemmap_pages"]

STRUCT_PAGE: Final = 64
"""``sizeof(struct page)`` in bytes, on every kernel here; HVO needs a power of two."""

_REGIONS: Final = (
    ("linear map", "PAGE_OFFSET", "PAGE_END"),
    ("modules", "MODULES_VADDR", "MODULES_END"),
    ("vmalloc", "VMALLOC_START", "VMALLOC_END"),
    ("fixmap", "FIXADDR_START", "FIXADDR_TOP"),
    ("PCI I/O", "PCI_IO_START", "PCI_IO_END"),
    ("vmemmap", "VMEMMAP_START", "VMEMMAP_END"),
)


@dataclass(frozen=True, slots=True)
class TableLevel:
    """Tables of one level."""

    level: int
    """The Arm ARM's number: -1 or 0 at the top of a long walk, 3 holds pages."""
    name: str
    """What Linux calls a table of that level there: folded levels are named after the one they are folded into."""
    entries: int
    entry_span: int
    """Bytes of VA that one descriptor maps."""
    table_span: int
    """Bytes of VA that one table maps."""
    leaf: bool
    """A descriptor may be a block or a page."""
    sections_per_table: int
    """How many sections' vmemmap one table maps; for the top table, as if vmemmap filled it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout and geometry of one machine; sizes in bytes."""

    granule: int
    va_bits: int
    kernel: str
    regions: dict[str, tuple[int, int]]
    """Region → (first address, one past the last), by address."""
    levels: tuple[TableLevel, ...]
    """From the top table to the one that holds pages."""
    section_size: int
    section_vmemmap: int
    """Bytes of vmemmap VA for one section."""
    subsection_size: int
    struct_page_size: int
    cont_pte_size: int
    cont_pmd_size: int
    hugepage_sizes: tuple[int, ...]

    @property
    def pmd_size(self) -> int:
        """Bytes that one descriptor of level 2 maps: ``PMD_SIZE``."""
        return next(table.entry_span for table in self.levels if table.level == 2)

    @property
    def vmemmap_shared_top(self) -> bool:
        """A top-level descriptor that maps vmemmap maps something else too: its next table is never freed."""
        start, end = self.regions["vmemmap"]
        return bool(start % self.levels[0].entry_span or end % self.levels[0].entry_span)

    @property
    def vmemmap_top_slots(self) -> tuple[int, int]:
        """First and last descriptor of ``swapper_pg_dir`` that maps vmemmap."""
        start, end = self.regions["vmemmap"]
        top = self.levels[0]
        return start // top.entry_span % top.entries, (end - 1) // top.entry_span % top.entries

    def vmemmap_pages(self, hugepage: int) -> float:
        """vmemmap pages of one hugepage of that size in bytes; a fraction if it has less than one.

        Args:
            hugepage: Bytes of one hugepage.

        Returns:
            vmemmap pages.
        """
        return vmemmap_pages(self.granule, hugepage)

    def frames_freed(self, hugepage: int, reserved: int = 1) -> int:
        """Frames that HVO frees for one hugepage of that size, with 1 or (2021) 2 vmemmap pages kept.

        Args:
            hugepage: Bytes of one hugepage.
            reserved: vmemmap pages kept: 1, or 2 as in 2021.

        Returns:
            Frames.
        """
        return frames_freed(self.granule, hugepage, reserved)

    def to_dict(self) -> dict[str, object]:
        """For JSON: addresses as hexadecimal text, as in a capture's JSON; sizes as integers.

        Returns:
            The object that ``--json`` prints.
        """
        pages = self.section_size // self.granule
        return {
            "granule": self.granule,
            "va_bits": self.va_bits,
            "kernel": self.kernel,
            "page_offset": hex(self.regions["linear map"][0]),
            "page_end": hex(self.regions["linear map"][1]),
            "vmemmap_start": hex(self.regions["vmemmap"][0]),
            "vmemmap_end": hex(self.regions["vmemmap"][1]),
            "vmemmap_size": self.regions["vmemmap"][1] - self.regions["vmemmap"][0],
            "vmemmap_top_slots": list(self.vmemmap_top_slots),
            "vmemmap_shares_top_slot": self.vmemmap_shared_top,
            "regions": [
                {"name": name, "start": hex(start), "end": hex(end)} for name, (start, end) in self.regions.items()
            ],
            "table_levels": len(self.levels),
            "levels": [
                {
                    "level": t.level,
                    "name": t.name,
                    "entries": t.entries,
                    "entry_span": t.entry_span,
                    "table_span": t.table_span,
                    "leaf": t.leaf,
                    "sections_per_table": t.sections_per_table,
                }
                for t in self.levels
            ],
            "struct_page_size": self.struct_page_size,
            "section_size": self.section_size,
            "pages_per_section": pages,
            "vmemmap_per_section": self.section_vmemmap,
            "vmemmap_pages_per_section": self.section_vmemmap // self.granule,
            "subsection_size": self.subsection_size,
            "subsections_per_section": self.section_size // self.subsection_size,
            "pages_per_subsection": self.subsection_size // self.granule,
            "vmemmap_per_subsection": self.subsection_size // self.granule * self.struct_page_size,
            "sections_per_pte_table": self.levels[-1].sections_per_table,
            "cont_pte_size": self.cont_pte_size,
            "cont_pmd_size": self.cont_pmd_size,
            "hugepages": [
                {
                    "size": size,
                    "name": format_size(size),
                    "pages": size // self.granule,
                    "vmemmap_pages": self.vmemmap_pages(size),
                    "frames_freed": self.frames_freed(size),
                    "frames_freed_2021": self.frames_freed(size, 2),
                }
                for size in self.hugepage_sizes
            ],
        }

    def text(self) -> str:
        """For people: regions, levels, sections, hugepages.

        Returns:
            Lines for people, without a newline at the end.
        """
        lines = [f"{format_size(self.granule)} pages, {self.va_bits}-bit addresses, Linux {self.kernel}", ""]
        for name, (start, end) in self.regions.items():
            lines.append(f"  {start:#018x}-{end:#018x} {_approximate(end - start):>9}  {name}")
        first, last = self.vmemmap_top_slots
        slots = f"descriptor {first}" if first == last else f"descriptors {first} to {last}"
        whose = "shared with other regions" if self.vmemmap_shared_top else "its own"
        lines += [f"  vmemmap is mapped by {slots} of the top table, {whose}", ""]
        lines.append("  level  table  descriptors  each maps  a table maps  leaf   sections a table serves")
        for t in self.levels:
            leaf = ("page" if t.level == 3 else "block") if t.leaf else "-"
            lines.append(
                f"  {t.level:>5}  {t.name:<5}  {t.entries:>11}  {format_size(t.entry_span):>9}  "
                f"{format_size(t.table_span):>12}  {leaf:<5}  {t.sections_per_table:>23}"
            )
        lines += [
            f"  contiguous sets: {format_size(self.cont_pte_size)} of pages, "
            f"{format_size(self.cont_pmd_size)} of blocks",
            "",
            f"  section      {format_size(self.section_size)} of RAM, {self.section_size // self.granule} pages, "
            f"{format_size(self.section_vmemmap)} of vmemmap in {self.section_vmemmap // self.granule} pages",
            f"  sub-section  {format_size(self.subsection_size)} of RAM, "
            f"{self.section_size // self.subsection_size} in a section, "
            f"{format_size(self.subsection_size // self.granule * self.struct_page_size)} of vmemmap",
            f"  one table of level 3 serves {_count(self.levels[-1].sections_per_table, 'section')}: "
            f"{format_size(self.levels[-1].sections_per_table * self.section_size)} of RAM",
            "",
            "  hugepage  vmemmap pages  frames freed  (2021)",
        ]
        for size in self.hugepage_sizes:
            freed, freed_2021 = self.frames_freed(size), self.frames_freed(size, 2)
            lines.append(f"  {format_size(size):>8}  {self.vmemmap_pages(size):>13g}  {freed:>12}  {freed_2021:>6}")
        return "\n".join(lines)


def vmemmap_pages(page_size: int, hugepage: int) -> float:
    """vmemmap pages of one hugepage, on any architecture; sizes in bytes. A fraction if it has less than one
    (``mm/hugetlb_vmemmap.h: hugetlb_vmemmap_size``).

    Args:
        page_size: Bytes of a base page.
        hugepage: Bytes of one hugepage.

    Returns:
        vmemmap pages.
    """
    return hugepage // page_size * STRUCT_PAGE / page_size


def frames_freed(page_size: int, hugepage: int, reserved: int = 1) -> int:
    """Frames that HVO frees for one hugepage, on any architecture; sizes in bytes. `reserved` vmemmap pages are kept:
    1, or 2 before Linux 5.18 (``mm/hugetlb_vmemmap.h: hugetlb_vmemmap_optimizable_size``).

    Args:
        page_size: Bytes of a base page.
        hugepage: Bytes of one hugepage.
        reserved: vmemmap pages kept: 1, or 2 as in 2021.

    Returns:
        Frames.
    """
    return max(0, int(vmemmap_pages(page_size, hugepage)) - reserved)


def layout(granule: int | str = "4K", va_bits: int | str = 48, kernel: str = "6.1") -> Layout:
    """The layout of a machine with that granule and VA size under that kernel, without KASAN and KASLR.

    Kernel: ``arch/arm64/include/asm/memory.h``, ``Documentation/arch/arm64/memory.rst``.

    Args:
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.

    Returns:
        Regions, table levels, section and hugepage sizes.

    Raises:
        SpecError: For what that kernel did not have (52-bit addresses with 4K or 16K pages before 6.12).
    """
    granule, va_bits, kernel = parse_granule(granule), parse_va_bits(va_bits), parse_kernel(kernel)
    check_machine(granule, va_bits, kernel)
    facts = core_layout(granule, va_bits, kernel)
    addresses = cast("Mapping[str, int]", facts)
    regions = {name: (addresses[start], addresses[end]) for name, start, end in _REGIONS}
    spans = {row["level"]: row["entry_span"] for row in facts["levels"]}
    return Layout(
        granule=granule,
        va_bits=va_bits,
        kernel=kernel,
        regions=dict(sorted(regions.items(), key=lambda region: region[1])),
        levels=tuple(
            TableLevel(
                level=row["level"],
                name=_table_name(row["level"], len(facts["levels"])),
                entries=row["entries"],
                entry_span=row["entry_span"],
                table_span=row["table_span"],
                leaf=row["level"] == 3 or row["block_allowed"],
                sections_per_table=row["sections_per_table"],
            )
            for row in facts["levels"]
        ),
        section_size=facts["section_size"],
        section_vmemmap=facts["section_vmemmap"],
        subsection_size=facts["subsection_size"],
        struct_page_size=facts["struct_page_size"],
        cont_pte_size=facts["cont_ptes"] * granule,
        cont_pmd_size=facts["cont_pmds"] * spans[2],
        hugepage_sizes=tuple(facts["hugepage_sizes"]),
    )


def _table_name(level: int, levels: int) -> str:
    return "PGD" if level == 4 - levels else {0: "P4D" if levels > 4 else "PGD", 1: "PUD", 2: "PMD", 3: "PTE"}[level]


def _approximate(size: int) -> str:
    """A size that need not be a whole number of a large unit, in three digits or more."""
    exact = format_size(size)
    if len(exact) <= 6:
        return exact
    unit = (size.bit_length() - 1) // 10
    return f"{size / (1 << 10 * unit):.2f}{'_KMGTPE'[unit]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
