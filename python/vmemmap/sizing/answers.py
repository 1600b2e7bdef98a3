"""What the core answers about the layout of a machine."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["CoreLayout", "CoreLevel"]


class CoreLevel(TypedDict):
    """One level of tables; spans in bytes of VA."""

    level: int
    entries: int
    entry_span: int
    table_span: int
    block_allowed: bool
    sections_per_table: int


class CoreLayout(TypedDict):
    """The core's answer to `_core.layout`: the kernel's constants by their names, sizes in bytes."""

    granule: int
    va_bits: int
    kernel: str
    memstart_addr: int
    PAGE_OFFSET: int
    PAGE_END: int
    MODULES_VADDR: int
    MODULES_END: int
    VMALLOC_START: int
    VMALLOC_END: int
    VMEMMAP_START: int
    VMEMMAP_END: int
    FIXADDR_START: int
    FIXADDR_TOP: int
    PCI_IO_START: int
    PCI_IO_END: int
    levels: list[CoreLevel]
    """From the top table to the one that holds pages."""
    hugepage_sizes: list[int]
    section_size: int
    section_vmemmap: int
    subsection_size: int
    struct_page_size: int
    cont_ptes: int
    cont_pmds: int
    markers: list[tuple[int, str]]
    """(address, name) of each header line of ptdump."""
