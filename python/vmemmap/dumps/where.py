"""What an address, a PFN or a struct page is: region, walk, physical address, struct page, hugepage, memory block; of
a dump, or by
arithmetic alone where there is none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import _core
from ..errors import SpecError
from ..spec import check_machine, format_size, section_size
from .addresses import (
    WORD,
    Regions,
    Step,
    StructPages,
    below_kernel,
    index_of,
    kernel_start,
    level_name,
    levels_of,
    permissions,
)
from .dump import Dump, Hints, open_dump
from .ptdump import parse_ptdump
from .va_layout import in_use_memstart

__all__ = ["Query", "Where", "parse_query", "where"]

_QUERY: Final = re.compile(r"(?:(pfn|phys|page|va):)?(0x[0-9a-fA-F]{1,16}|[0-9a-fA-F]{16}|[0-9]{1,20})")
_KINDS: Final = {"pfn": "pfn", "phys": "physical", "page": "address", "va": "address"}
_LEVEL_OF: Final = {"PTE": 3, "PMD": 2, "PUD": 1, "P4D": 0, "PGD": -1}


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for."""

    kind: str
    """``address`` (virtual), ``pfn``, ``physical``; ``number``: a PFN, or a physical address if only that is RAM."""
    value: int


def parse_query(text: str) -> Query:
    """What has more than 52 bits, as ``0xffff…``, is a virtual address, any other number a PFN (or a physical address,
    if only that is RAM); ``pfn:``, ``phys:`` and ``va:`` say which.

    Args:
        text: What somebody typed.

    Returns:
        Its kind and value.

    Raises:
        SpecError: It is none of these.
    """
    found = _QUERY.fullmatch(text.strip())
    if found is None:
        raise SpecError(
            f"{text[:60]!r}: expected an address like 0xffff000000000000, a PFN like 0x48000, or pfn:…, phys:…, va:…"
        )
    digits = found[2]
    bare = len(digits) == 16 and not digits.startswith("0x") and (not digits.isdigit() or digits.startswith("ffff"))
    value = int(digits, 16 if bare or digits.startswith("0x") else 10)
    if value > WORD:
        raise SpecError(f"{text[:60]!r}: more than 64 bits")
    kind = _KINDS[found[1]] if found[1] else "address" if value >> 52 else "number"
    if kind in ("pfn", "physical") and value >> 52:
        raise SpecError(f"{text[:60]!r}: physical addresses have at most 52 bits")
    return Query(kind, value)


@dataclass(frozen=True, slots=True)
class Where:
    """The answer; ``None`` where the input cannot tell."""

    source: str | None
    granule: int
    va_bits: int
    kernel: str
    address: int | None
    """Virtual address asked for; of a PFN that of the linear map."""
    region: str | None
    physical: int | None
    """Where the address translates to."""
    pfn: int | None
    """Of a struct page the PFN that it describes, else the one that the address translates to."""
    struct_page: int | None
    walk: tuple[Step, ...] | None
    permissions: str | None
    hugepage: dict[str, Any] | None
    block: dict[str, Any] | None
    struct_page_walk: tuple[Step, ...] | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "source": self.source,
            "granule": self.granule,
            "va_bits": self.va_bits,
            "kernel": self.kernel,
            "address": self.address,
            "region": self.region,
            "physical": self.physical,
            "pfn": self.pfn,
            "struct_page": self.struct_page,
            "walk": self._walk(self.walk),
            "permissions": self.permissions,
            "hugepage": self.hugepage,
            "block": self.block,
            "struct_page_walk": self._walk(self.struct_page_walk),
            "notes": list(self.notes),
        }

    def _walk(self, walk: tuple[Step, ...] | None) -> list[dict[str, object]] | None:
        return None if walk is None else [step.to_dict(self.va_bits, self.granule) for step in walk]

    def text(self) -> str:
        """For people.

        Returns:
            Lines for people, without a newline at the end.
        """
        machine = f"{self.granule >> 10}K pages, {self.va_bits}-bit addresses, Linux {self.kernel}"
        lines = [f"{self.source}: {machine}" if self.source else f"{machine} (arithmetic, no dump)"]
        if self.address is not None:
            lines.append(f"  address      {self.address:#018x}, {self.region or 'in no region'}")
        lines += self._walk_lines("walk", self.walk)
        if self.permissions is not None:
            lines.append(f"  permissions  {self.permissions}")
        if self.physical is not None:
            lines.append(f"  physical     {self.physical:#x}")
        if self.pfn is not None:
            lines.append(f"  PFN          {self.pfn:#x}, of the memory at {self.pfn * self.granule:#x}")
        if self.struct_page is not None:
            lines.append(f"  struct page  {self.struct_page:#018x}")
        lines += self._walk_lines("mapped by", self.struct_page_walk)
        if self.hugepage is not None:
            h = self.hugepage
            lines.append(
                f"  hugepage     {h['name']}, head PFN {h['pfn']:#x}, "
                f"this is page {h['number']} of {h['pages']}: {h['state']}"
            )
        if self.block is not None:
            lines.append(
                f"  block        memory{self.block['number']}, "
                f"{format_size(self.block['size'])} at {self.block['start']:#x}: {self.block['state']}"
            )
        return "\n".join([*lines, *(f"  note         {note}" for note in self.notes)])

    def _walk_lines(self, title: str, walk: tuple[Step, ...] | None) -> list[str]:
        return [
            f"  {title if not n else '':<11}  {step.text(self.va_bits, self.granule)}"
            for n, step in enumerate(walk or ())
        ]


def where(query: str, path: str | os.PathLike[str] | None = None, known: Hints | None = None) -> Where:
    """What `query` is in the dump `path`; without one, of the machine that `known` names.

    Args:
        query: Address or PFN, as `parse_query` reads it.
        path: The dump, if there is one.
        known: What the dump does not say; without one, the machine.

    Returns:
        What is known of it.

    Raises:
        SpecError: `query` is none of an address or PFN.
        ImageError: The dump cannot be read.
    """
    asked, known = parse_query(query), known or Hints()
    if path is None:
        return _by_arithmetic(asked, known)
    dump = open_dump(path, known)
    return _in_text(asked, dump, known) if dump.tables is None else _in_tables(asked, dump)


def _pages(granule: int, va_bits: int, kernel: str, memstart: int | None) -> tuple[StructPages, list[tuple[int, str]]]:
    if memstart is not None:
        memstart = in_use_memstart(memstart, granule, va_bits)
    layout = _core.layout(granule, va_bits, kernel, memstart or 0)
    pages = StructPages(
        granule, layout["PAGE_OFFSET"], layout["PAGE_END"], layout["VMEMMAP_START"], layout["VMEMMAP_END"], memstart
    )
    return pages, list(layout["markers"])


def _resolve(
    asked: Query, pages: StructPages, ram: Sequence[tuple[int, int, bool]]
) -> tuple[int | None, int | None, list[str]]:
    """Virtual address and, of a PFN or physical address, the physical one; and what was taken for what.

    Raises:
        SpecError: A PFN of more memory than there can be.
    """
    notes: list[str] = []
    if asked.kind == "address":
        return asked.value, None, notes
    physical = asked.value if asked.kind == "physical" else asked.value * pages.granule
    if asked.kind == "pfn" and physical >> 52:
        raise SpecError(f"pfn:{asked.value:#x} is the memory at {physical:#x}: physical addresses have at most 52 bits")
    if asked.kind == "number":
        inside = [any(start <= pa < end for start, end, _ in ram) for pa in (physical, asked.value)]
        if asked.value * pages.granule >> 52 or (ram and inside == [False, True]):
            physical = asked.value
            notes.append(
                "taken for a physical address: as a PFN it is not in RAM (pfn:… and phys:… say which is meant)"
            )
    if ram and not any(start <= physical < end for start, end, _ in ram):
        notes.append(f"{physical:#x} is outside the RAM that the dump lists")
    return pages.linear_address(physical), physical, notes


def _by_arithmetic(asked: Query, known: Hints) -> Where:
    granule, va_bits, kernel = known.granule or 4096, known.va_bits or 48, known.kernel or "6.1"
    check_machine(granule, va_bits, kernel)
    pages, markers = _pages(granule, va_bits, kernel, known.memstart)
    address, physical, notes = _resolve(asked, pages, ())
    if known.memstart is None:
        notes.append("without --memstart physical addresses and PFNs count from the start of the linear map")
    pfn = None if physical is None else physical // granule
    if address is not None and physical is None:
        if pages.in_vmemmap(address):
            pfn = pages.pfn_at(address)
        elif pages.in_linear(address):
            physical = pages.physical(address)
            pfn = physical // granule
    if pfn is not None and pfn < 0:
        notes.append("below the first byte of memory: no such page")
        physical, pfn = None, None
    if address is not None and _is_walked(address, va_bits, notes):
        indices = ", ".join(
            f"{level_name(n, granule, va_bits)} [{index_of(address, granule, va_bits, n)}]"
            for n in levels_of(granule, va_bits)
        )
        notes.append(f"a walk reads {indices}")
    return Where(
        source=None,
        granule=granule,
        va_bits=va_bits,
        kernel=kernel,
        address=address,
        region=_region(address, Regions(markers), va_bits),
        physical=physical,
        pfn=pfn,
        struct_page=_struct_page(address, pfn, pages),
        walk=None,
        permissions=None,
        hugepage=None,
        block=None
        if pfn is None or known.memstart is None
        else _block(pfn * granule, section_size(granule), None, None),
        notes=tuple(notes),
    )


def _region(address: int | None, regions: Regions, va_bits: int) -> str | None:
    if address is None:
        return None
    return regions.of(address) if address >= kernel_start(va_bits) else below_kernel(address)


def _is_walked(address: int, va_bits: int, notes: list[str]) -> bool:
    """Whether the tables of the kernel translate it; if not, that is noted."""
    first = kernel_start(va_bits)
    if address < first:
        notes.append(f"no table of the kernel translates it: those of TTBR1 begin at {first:#018x}")
    return address >= first


def _struct_page(address: int | None, pfn: int | None, pages: StructPages) -> int | None:
    if address is not None and pages.in_vmemmap(address):
        return address & ~63
    return None if pfn is None else pages.struct_page(pfn)


def _in_tables(asked: Query, dump: Dump) -> Where:
    assert dump.tables is not None and dump.image is not None
    d = dump.image.description
    layout, _ = _pages(d.granule, d.va_bits, d.kernel, d.memstart)
    pages = StructPages(d.granule, layout.page_offset, layout.page_end, d.vmemmap_start, d.vmemmap_end, d.memstart)
    address, physical, notes = _resolve(asked, pages, d.ram)
    walked = address is not None and _is_walked(address, d.va_bits, notes)
    steps = _walk(dump.tables, address) if walked and address is not None else None
    reached = None
    if (
        steps is not None
        and address is not None
        and steps[-1].kind in ("block", "page")
        and steps[-1].output is not None
    ):
        span = 1 << (d.granule.bit_length() - 1 + (3 - steps[-1].level) * (d.granule.bit_length() - 4))
        reached = steps[-1].output + (address & (span - 1))
    if steps is not None and steps[-1].kind == "table":
        notes.append(f"the table at {steps[-1].output or 0:#x} is not in the dump: the walk ends there")
    if asked.kind != "address" and address is not None and reached != physical:
        notes.append("the linear map does not map it there: the PFN itself was asked for")
    in_vmemmap = address is not None and pages.in_vmemmap(address)
    pfn = pages.pfn_at(address) if in_vmemmap and address is not None else None
    if not in_vmemmap:
        target = physical if physical is not None else reached
        pfn = None if target is None else target // d.granule
    struct_page = _struct_page(address, pfn, pages)
    survey = _core.survey(dump.tables)
    present = {section["start"] for section in survey["sections"]}
    return Where(
        source=os.fspath(dump.path),
        granule=d.granule,
        va_bits=d.va_bits,
        kernel=d.kernel,
        address=address,
        region=_region(address, Regions(d.markers or _pages(d.granule, d.va_bits, d.kernel, d.memstart)[1]), d.va_bits),
        physical=reached if asked.kind == "address" else physical,
        pfn=pfn,
        struct_page=struct_page,
        walk=steps,
        permissions=None if steps is None else permissions(steps),
        hugepage=None if pfn is None else _hugepage(pfn, d.granule, survey["hugepages"]),
        block=None
        if pfn is None
        else _block(pfn * d.granule, d.block_size or section_size(d.granule), present, d.blocks_online),
        struct_page_walk=None if in_vmemmap or struct_page is None else _walk(dump.tables, struct_page),
        notes=(*notes, *dump.text_notes),
    )


def _walk(tables: _core.TableImage, address: int) -> tuple[Step, ...]:
    return tuple(
        Step(level, word, kind, output, index, table)
        for level, table, index, word, kind, output in _core.walk(tables, address)
    )


def _hugepage(pfn: int, granule: int, pages: Sequence[tuple[int, int, str]]) -> dict[str, Any] | None:
    for head, count, state in pages:
        if head <= pfn < head + count:
            words = {"plain": "its own frames", "optimised": "optimised by HVO"}.get(state, state)
            return {
                "pfn": head,
                "pages": count,
                "size": count * granule,
                "name": format_size(count * granule),
                "number": pfn - head,
                "state": words,
            }
    return None


def _block(physical: int, size: int, present: set[int] | None, online: Sequence[int] | None) -> dict[str, Any]:
    number = physical // size
    if present is None:
        state = "not known"
    elif not any(number * size <= start < (number + 1) * size for start in present):
        state = "not present"
    elif online is None:
        state = "present"
    else:
        state = "online" if number in online else "offline"
    return {"number": number, "start": number * size, "size": size, "state": state}


def _in_text(asked: Query, dump: Dump, known: Hints) -> Where:
    shape = dump.shape
    pages, markers = _pages(shape.granule, shape.va_bits, shape.kernel, known.memstart)
    address, physical, notes = _resolve(asked, pages, ())
    if address is not None:
        _is_walked(address, shape.va_bits, notes)
    notes.append(
        "a text has levels and attributes, no output addresses"
        + ("" if known.memstart is not None else "; --memstart makes PFNs absolute")
    )
    pfn = None if physical is None else physical // shape.granule
    if address is not None and physical is None:
        pfn = (
            pages.pfn_at(address)
            if pages.in_vmemmap(address)
            else pages.physical(address) // shape.granule
            if pages.in_linear(address)
            else None
        )
    struct_page = _struct_page(address, pfn, pages)
    found = next(_ranges(dump.text or b"", address), None) if address is not None else None
    walk, allowed, hugepage = None, None, None
    if found is not None:
        name, prot, words = found
        # The top table is called PGD whatever its level, and folded levels too before 6.12.
        level = max(_LEVEL_OF[name], levels_of(shape.granule, shape.va_bits)[0])
        walk = (Step(level, prot, "none" if not prot else "page" if level == 3 else "block", None),)
        allowed = permissions(walk)
        notes.append(words)
    if pfn is not None:
        optimised = [(head, count, "optimised") for head, count in shape.optimised()]
        hugepage = _hugepage(pfn, shape.granule, optimised)
    return Where(
        source=os.fspath(dump.path),
        granule=shape.granule,
        va_bits=shape.va_bits,
        kernel=shape.kernel,
        address=address,
        region=_region(address, Regions(markers), shape.va_bits),
        physical=physical,
        pfn=pfn,
        struct_page=struct_page,
        walk=walk,
        permissions=allowed,
        hugepage=hugepage,
        block=None
        if pfn is None or known.memstart is None
        else _block(pfn * shape.granule, section_size(shape.granule), None, None),
        notes=(*notes, *dump.text_notes),
    )


def _ranges(text: bytes, address: int) -> Iterator[tuple[str, int, str]]:
    """Level's name, bits and words of the line that has the address."""
    import numpy as np

    dump = parse_ptdump(text)
    if not len(dump) or address < int(dump.bounds[0]):
        return
    at = int(np.searchsorted(dump.bounds[:-1], np.uint64(address), side="right")) - 1
    line = dump[at]
    if address < line.end and line.level:
        yield (
            line.level,
            line.columns.prot,
            f"line: {line.start:#018x}-{line.end:#018x} {line.level}{line.columns.text}",
        )
