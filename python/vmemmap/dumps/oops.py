"""The table walk of an arm64 oops in words: which region, which entry decides, why it faulted; of an address in vmemmap
which struct page, which hugepage, and of which invariant it would be a symptom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from .. import _core
from ..errors import SpecError
from ..spec import check_machine, format_size, section_size
from .addresses import (
    Regions,
    Step,
    StructPages,
    below_kernel,
    hugepage_words,
    index_of,
    level_name,
    levels_of,
    output_of,
    permissions,
)
from .dump import Hints
from .esr import Syndrome, decode
from .oops_text import OopsText, read_oops

__all__ = ["Oops", "explain"]

_LEVELS: Final = {"pte": 3, "pmd": 2, "pud": 1, "p4d": 0, "pgd": -1}
_RDONLY, _USER, _AF, _PXN, _PRESENT_INVALID, _PMD_PRESENT_INVALID = 1 << 7, 1 << 6, 1 << 10, 1 << 53, 1 << 11, 1 << 59
_FIELDS: Final = (
    (0, 8, "flags"),
    (8, 16, "compound_head, or the list"),
    (48, 52, "_mapcount or page type"),
    (52, 56, "_refcount"),
)
"""Offsets in a struct page of 64 bytes that most configurations share."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """An invariant of which the fault would be a symptom, if the struct page is one of memory that is there."""

    invariant: str
    why: str


@dataclass(frozen=True, slots=True)
class StructPage:
    """The struct page that an address in vmemmap lies in."""

    address: int
    offset: int
    pfn: int
    absolute: bool
    """The PFN is one; else it counts from the start of the linear map (no ``--memstart``)."""
    section: int
    """Number of the section, counted like the PFN."""
    hugepages: tuple[str, ...]
    """The hugepage of each size that it would be part of."""


@dataclass(frozen=True, slots=True)
class Oops:
    """What an oops says."""

    text: OopsText
    granule: int
    va_bits: int
    layout: str
    """The kernel behaviour whose layout was taken."""
    region: str | None
    syndrome: Syndrome | None
    walk: tuple[Step, ...]
    reason: str
    decides: Step | None
    """The entry that made it fault."""
    permissions: str | None
    struct_page: StructPage | None
    physical: int | None
    """Of an address in the linear map, with ``--memstart``."""
    symptoms: tuple[Symptom, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        page = self.struct_page
        return {
            "headline": self.text.headline,
            "address": self.text.address,
            "region": self.region,
            "kernel_release": self.text.release,
            "granule": self.granule,
            "va_bits": self.va_bits,
            "kernel": self.layout,
            "tables": self.text.tables,
            "pgdp": self.text.pgdp,
            "syndrome": None if self.syndrome is None else self.syndrome.to_dict(),
            "walk": [step.to_dict(self.va_bits, self.granule) for step in self.walk],
            "decides": None if self.decides is None else self.decides.to_dict(self.va_bits, self.granule),
            "reason": self.reason,
            "permissions": self.permissions,
            "physical": self.physical,
            "pfn": None if page is None else page.pfn,
            "pfn_absolute": page is not None and page.absolute,
            "struct_page": None if page is None else page.address,
            "offset": None if page is None else page.offset,
            "section": None if page is None else page.section,
            "hugepages": [] if page is None else list(page.hugepages),
            "symptom_of": [{"invariant": each.invariant, "why": each.why} for each in self.symptoms],
            "notes": list(self.notes),
        }

    def text_lines(self) -> str:
        """For people.

        Returns:
            Lines for people, without a newline at the end.
        """
        lines = [
            self.text.headline,
            f"  machine      {self.granule >> 10}K pages, {self.va_bits}-bit addresses, layout of Linux {self.layout}",
        ]
        if self.text.release:
            lines[-1] += f" ({self.text.release})"
        lines.append(f"  address      {self.text.address:#018x}, {self.region or 'in no region'}")
        if self.syndrome is not None:
            access = "" if self.syndrome.write is None else ", a write" if self.syndrome.write else ", a read"
            lines.append(
                f"  ESR          {self.syndrome.value:#010x}: {self.syndrome.what}, {self.syndrome.words}{access}"
            )
        for n, step in enumerate(self.walk):
            mark = "  <- decides" if step == self.decides else ""
            lines.append(f"  {'walk' if not n else '':<11}  {step.text(self.va_bits, self.granule)}{mark}")
        lines.append(f"  why          {self.reason}")
        if self.permissions is not None:
            lines.append(f"  permissions  {self.permissions}")
        if self.physical is not None:
            lines.append(f"  physical     {self.physical:#x}, PFN {self.physical // self.granule:#x}")
        if self.struct_page is not None:
            page = self.struct_page
            counted = "" if page.absolute else " from the start of the linear map (--memstart)"
            field = next((f", {name}" for start, end, name in _FIELDS if start <= page.offset < end), "")
            lines.append(
                f"  struct page  {page.address:#018x} of PFN {page.pfn:#x}{counted}, offset {page.offset:#x}{field}; "
                f"section {page.section}"
            )
            lines += [f"  {'hugepage' if not n else '':<11}  {words}" for n, words in enumerate(page.hugepages)]
        for n, each in enumerate(self.symptoms):
            lines.append(f"  {'symptom of' if not n else '':<11}  {each.invariant}: {each.why}")
        return "\n".join([*lines, *(f"  note         {note}" for note in self.notes)])


def explain(text: str, known: Hints | None = None) -> Oops:
    """The first oops of a text. `known` is what it does not say: kernel, granule, VA bits, memstart.

    Args:
        text: A log, or a part of one.
        known: What it does not say.

    Returns:
        The oops, and what its numbers mean.

    Raises:
        ImageError: There is none.
        SpecError: A hint is wrong, or contradicts the text.
    """
    known = known or Hints()
    oops = read_oops(text)
    notes: list[str] = []
    granule, va_bits = _machine(oops, known, notes)
    pages, regions, kernel = _layout(granule, va_bits, oops, known, notes)
    if oops.walked is not None and oops.walked != oops.address:
        notes.append(f"the entries are of {oops.walked:#x}, another address")
    steps = _steps(oops, granule, va_bits)
    syndrome = None if oops.esr is None else decode(oops.esr)
    if syndrome is not None and not syndrome.address_valid:
        notes.append("FnV is set: the address register was not valid")
    region = _region(oops.address, regions, va_bits)
    in_vmemmap = region == "vmemmap" or pages.in_vmemmap(oops.address)
    reason, decides, symptoms = _why(oops, syndrome, steps, in_vmemmap, granule)
    if (
        syndrome is not None
        and syndrome.level is not None
        and decides is not None
        and syndrome.fault in ("translation", "access flag", "permission")
    ):
        level = max(syndrome.level, levels_of(granule, va_bits)[0])
        if level != decides.level:
            notes.append(
                f"the fault was at level {level}, the entries end at level {decides.level}: "
                "they changed before they were printed"
            )
    if oops.tables == "user":
        notes.append("user tables were walked: none of the kernel's")
    if oops.more:
        notes.append(f"{oops.more} more in this text: the first is told")
    linear = not in_vmemmap and region == "linear map" and known.memstart is not None
    return Oops(
        text=oops,
        granule=granule,
        va_bits=va_bits,
        layout=kernel,
        region=region,
        syndrome=syndrome,
        walk=steps,
        reason=reason,
        decides=decides,
        permissions=permissions(steps),
        struct_page=_struct_page(oops.address, pages) if in_vmemmap else None,
        physical=pages.physical(oops.address) if linear and pages.physical(oops.address) >= 0 else None,
        symptoms=symptoms if in_vmemmap else (),
        notes=tuple(notes),
    )


def _machine(oops: OopsText, known: Hints, notes: list[str]) -> tuple[int, int]:
    for name, said, given in (("granule", oops.granule, known.granule), ("VA bits", oops.va_bits, known.va_bits)):
        if said is not None and given is not None and said != given:
            raise SpecError(f"{name}: the oops says {said}, the call {given}")
    granule, va_bits = oops.granule or known.granule, oops.va_bits or known.va_bits
    if granule is None or va_bits is None:
        notes.append(
            f"{format_size(granule or 4096)} pages and {va_bits or 48} bits are assumed: "
            "no pgtable line says (--granule, --va-bits)"
        )
    return granule or 4096, va_bits or 48


def _layout(
    granule: int, va_bits: int, oops: OopsText, known: Hints, notes: list[str]
) -> tuple[StructPages, Regions, str]:
    found = re.match(r"(\d+)\.(\d+)", oops.release or "")
    version = (int(found[1]), int(found[2])) if found else None
    lpa2 = va_bits == 52 and granule != 65536
    kernel = known.kernel or ("6.12" if lpa2 or (version is not None and version >= (6, 9)) else "6.1")
    check_machine(granule, va_bits, kernel)
    layout = _core.layout(granule, va_bits, kernel, known.memstart or 0)
    pages = StructPages(
        granule,
        layout["PAGE_OFFSET"],
        layout["PAGE_END"],
        layout["VMEMMAP_START"],
        layout["VMEMMAP_END"],
        known.memstart,
    )
    markers: list[tuple[int, str]] = list(layout["markers"])
    if known.kernel is None and version is not None and version < (5, 11):
        size = 1 << va_bits - 1 - (granule.bit_length() - 1) + 6
        top = 1 << 64
        if version >= (5, 4):
            start, page_offset, page_end = top - size - (2 << 20), layout["PAGE_OFFSET"], layout["PAGE_END"]
        else:
            page_offset, page_end = layout["PAGE_END"], top
            start = page_offset - size
        pages = StructPages(granule, page_offset, page_end, start, start + size, known.memstart)
        markers = [(page_offset, "Linear Mapping start"), (page_end & (top - 1), "Linear Mapping end")]
        markers += [(start, "vmemmap start"), (start + size, "vmemmap end")]
        markers = [marker for marker in markers if marker[0]]
        notes.append(f"the layout of Linux {version[0]}.{version[1]}: only the linear map and vmemmap are told apart")
    elif known.kernel is None and version is None and not lpa2:
        other = _core.layout(granule, va_bits, "6.12", known.memstart or 0)
        regions = [_region(oops.address, Regions(ms), va_bits) for ms in (layout["markers"], other["markers"])]
        if regions[0] != regions[1]:
            before, since = (region or "in no region" for region in regions)
            notes.append(
                f"no release is printed: in the layout of 5.11 to 6.8 it is {before}, since 6.9 {since} (--kernel)"
            )
            if regions[1] == "vmemmap":
                layout, kernel = other, "6.12"
                markers = list(other["markers"])
                pages = StructPages(
                    granule,
                    other["PAGE_OFFSET"],
                    other["PAGE_END"],
                    other["VMEMMAP_START"],
                    other["VMEMMAP_END"],
                    known.memstart,
                )
    return pages, Regions(markers), kernel


def _region(address: int, regions: Regions, va_bits: int) -> str | None:
    if address < 4096:
        return "the first page: a null pointer"
    if address >= (1 << 64) - (1 << va_bits):
        return regions.of(address)
    return below_kernel(address)


def _steps(oops: OopsText, granule: int, va_bits: int) -> tuple[Step, ...]:
    top = levels_of(granule, va_bits)[0]
    steps: dict[int, Step] = {}
    for name, word in oops.entries:
        level = max(_LEVELS[name], top)
        if level in steps:
            continue
        kind, output = output_of(granule, va_bits, level, word)
        index = index_of(oops.walked if oops.walked is not None else oops.address, granule, va_bits, level)
        steps[level] = Step(level, word, kind, output, index)
    return tuple(steps.values())


def _struct_page(address: int, pages: StructPages) -> StructPage:
    pfn = pages.pfn_at(address)
    absolute = pages.memstart is not None
    words = tuple(hugepage_words(pfn, pages.granule))
    return StructPage(
        address & ~63, address & 63, pfn, absolute, pfn * pages.granule // section_size(pages.granule), words
    )


def _why(
    oops: OopsText, syndrome: Syndrome | None, steps: tuple[Step, ...], in_vmemmap: bool, granule: int
) -> tuple[str, Step | None, tuple[Symptom, ...]]:
    """Why it faulted, the entry that decides, and what that is a symptom of in vmemmap."""
    last = steps[-1] if steps else None
    fault = syndrome.fault if syndrome is not None else None
    if fault == "TLB conflict":
        why = Symptom(
            "I19", "the TLB held two entries for it: a valid entry was changed to another without break-before-make"
        )
        return "two TLB entries matched: the tables may be right by now", last, (why,)
    if fault in ("external on walk", "parity on walk", "external", "parity", "address size"):
        why = (
            Symptom("I30", "an entry leads out of memory"),
            Symptom("I1", "or a table was freed and written over while it was walked"),
        )
        told = (
            "an entry has an address beyond the physical address size"
            if fault == "address size"
            else "the memory itself answered with an error"
        )
        return (
            f"{told}{'' if last is None else ', or a table on the way has'}",
            last,
            why if "walk" in fault or fault == "address size" else (),
        )
    if fault in ("alignment", "tag check", "unsupported update", "implementation"):
        return f"{syndrome.words if syndrome else fault}: the tables have no part in it", None, ()
    if last is None:
        return "no entry was printed: the address is none that the tables can map, or the text was cut", None, ()
    name = level_name(last.level, granule, oops.va_bits or 48)
    if last.kind == "none":
        span = format_size(1 << (granule.bit_length() - 1 + (3 - last.level) * (granule.bit_length() - 4)))
        if fault in ("permission", "access flag"):
            return (
                f"the {name} was valid when it faulted and is zero now: it was cleared in between",
                last,
                (Symptom("I2", "unmapped while in use"),),
            )
        whys = [
            Symptom(
                "I2",
                "the struct page does not translate: hot remove took it while it was in use, "
                "or a hole of break-before-make was hit",
            )
        ]
        if last.level < 3:
            whys.append(Symptom("I6", f"or the table below the {name} was freed though entries of others were in it"))
        return f"nothing is mapped: the {name} is zero, so the whole {span} around it is a hole", last, tuple(whys)
    if last.kind == "invalid":
        return _invalid(last, name)
    if last.kind in ("reserved", "table"):
        what = (
            "of a type that its level does not have"
            if last.kind == "reserved"
            else "a table, and what is in it was not printed"
        )
        return f"the {name} is {what}", last, (Symptom("I30", "the tree is not well formed"),)
    return _valid(oops, syndrome, last, name)


def _invalid(last: Step, name: str) -> tuple[str, Step, tuple[Symptom, ...]]:
    word = last.descriptor
    if word & _PRESENT_INVALID:
        how = "present-invalid (bit 0 clear, bit 11 set: since 6.12)"
    elif word & _PMD_PRESENT_INVALID:
        how = "present-invalid (bit 0 clear, bit 59 set: before 6.12)"
    else:
        how = "not valid, though it is not zero"
    reason = (
        f"the valid bit of the {name} is clear: it is {how}. The kernel took it away (set_memory_valid: "
        "debug_pagealloc, KFENCE, secretmem, the linear alias of kernel data in 7.3) or it is damaged"
    )
    return reason, last, (Symptom("I30", "an invalid descriptor in vmemmap is not zero"),)


def _valid(oops: OopsText, syndrome: Syndrome | None, last: Step, name: str) -> tuple[str, Step, tuple[Symptom, ...]]:
    word = last.descriptor
    fault = syndrome.fault if syndrome is not None else None
    write = syndrome.write if syndrome is not None else "write to read-only" in oops.headline
    execute = syndrome.instruction if syndrome is not None else "execute from non-executable" in oops.headline
    if not word & _AF or fault == "access flag":
        now = "" if not word & _AF else " (it is set by now)"
        return (
            f"the access flag of the {name} is clear{now}, and no hardware sets it here",
            last,
            (Symptom("I30", "no kernel clears it in vmemmap"),),
        )
    if execute and word & _PXN:
        return f"an instruction was fetched, and the {name} is execute-never (PXN)", last, ()
    if write and word & _RDONLY:
        why = Symptom(
            "I8",
            "a store reached a tail that HVO shares: "
            "by a speculative reference or a stale pointer to a tail's struct page",
        )
        return f"a write, and the {name} is read-only", last, (why, Symptom("I10", "or a tail was taken for a head"))
    if fault == "permission" and word & _USER:
        return f"the {name} allows user access: PAN or UAO refused the kernel", last, ()
    if fault == "translation":
        whys = (
            Symptom("I2", "a hole that was closed again: break-before-make, or hot remove and add, while it was used"),
            Symptom("I5", "or the walk went through a table that had been freed"),
        )
        return f"the {name} is valid now: it was not when it faulted, or the TLB knew another table", last, whys
    if fault == "permission":
        return (
            f"the {name} allows it now: its permissions were others when it faulted, or the TLB had an old entry",
            last,
            (Symptom("I4", "a stale TLB entry was used after the permissions changed"),),
        )
    return f"the {name} is valid and forbids nothing that is known of", last, ()
