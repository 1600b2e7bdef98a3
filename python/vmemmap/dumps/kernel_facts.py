"""What must be known of a kernel before its tables can be read: from VMCOREINFO, from what is given by hand, and from
the memory of the dump itself for the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from .. import _core
from ..errors import ImageError, SpecError
from ..spec import GRANULES, KERNELS, VA_BITS, check_machine, format_size, section_size
from .physical_memory import PhysicalMemory
from .releases import behaviour_of_layout, behaviour_of_release, fixmap_size, kernel_behaviour
from .search import Root, search, verified, vmemmap_of
from .va_layout import Generation, generation_of, in_use_memstart, page_offset, vmemmap_in_use
from .vmcoreinfo import Vmcoreinfo

__all__ = ["Given", "KernelFacts", "kernel_facts"]

_STRUCT_PAGE_SIZE: Final = 64
_ACCESS_FLAG: Final = 1 << 10
_BUILT_FOR, _T1SZ, _MEMSTART = "NUMBER(VA_BITS)", "NUMBER(TCR_EL1_T1SZ)", "NUMBER(PHYS_OFFSET)"


@dataclass(frozen=True, slots=True)
class Given:
    """What is given by hand; it replaces what the dump says."""

    kernel: str | None = None
    granule: int | None = None
    va_bits: int | None = None
    memstart: int | None = None
    root: int | None = None


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What tables are read by."""

    granule: int
    va_bits: int
    """Of the walk: the bits in use, but 52 for a 64K kernel that was built for them."""
    kernel: str
    kernel_text: str
    memstart: int
    root: int
    root_from: str
    vmemmap: tuple[int, int] | None
    """VMEMMAP_START and VMEMMAP_END, where they are not those of the behaviour's layout."""
    head_mask: int | None
    markers: tuple[tuple[int, str | None], ...] = ()
    """ptdump's markers, where they are not those of the behaviour's layout."""
    notes: tuple[str, ...] = ()
    """What was taken instead of what is not said, and why."""


@dataclass(slots=True)
class _Facts:
    """The same while it is gathered."""

    where: Path
    info: Vmcoreinfo
    given: Given
    memory: PhysicalMemory
    notes: list[str] = field(default_factory=list[str])


def kernel_facts(where: Path, info: Vmcoreinfo, given: Given, memory: PhysicalMemory) -> KernelFacts:
    """See the module.

    :raises ImageError: the dump says too little or contradicts itself; one line that names what can be given.
    """
    return _known(_Facts(where, info, given, memory))


def _known(f: _Facts) -> KernelFacts:
    info, given = f.info, f.given
    page = info.decimal("SIZE(page)")
    if page not in (None, _STRUCT_PAGE_SIZE):
        raise info.bad("SIZE(page)", f"{_STRUCT_PAGE_SIZE} (other sizes have another vmemmap and no HVO), found {page}")
    granule = _granule(f)
    memstart = given.memstart if given.memstart is not None else _signed(info.address(_MEMSTART))
    built_for, va_bits = _va_bits(f, granule, memstart)
    root, root_from = _root(f)
    if granule is None or va_bits is None or memstart is None or root is None:
        found = _found(f, granule, va_bits, memstart, root)
        if isinstance(found, Vmcoreinfo):
            # From here on as if the dump had the note.
            return _known(replace(f, info=found))
        granule, va_bits, memstart = found.granule, found.va_bits, found.memstart if memstart is None else memstart
        built_for = 52 if found.from_52 else built_for or va_bits
        if root is None:
            root, root_from = found.pa, "found by search"
    if root % granule or root >= 1 << 52:
        raise ImageError(
            f"{f.where}: swapper_pg_dir at {root:#x} ({root_from}): expected a multiple of {granule} below 52 bits"
        )
    section, expected = info.decimal("NUMBER(SECTION_SIZE_BITS)"), section_size(granule).bit_length() - 1
    if section not in (None, expected):
        raise info.bad("NUMBER(SECTION_SIZE_BITS)", f"{expected} with {format_size(granule)} pages, found {section}")
    # A 64K kernel built for 52 bits keeps its large root and its own memstart_addr.
    walk = 52 if granule == 65536 and built_for == 52 else va_bits
    in_use = in_use_memstart(memstart, granule, va_bits)
    start = _vmemmap_start(f, granule, built_for or va_bits, va_bits, memstart, in_use, root, walk)
    generation = None if start is None else generation_of(start, granule, va_bits)
    text = info.text("OSRELEASE") or ""
    kernel = _behaviour(f, text, generation, start, granule, va_bits, root)
    try:
        check_machine(granule, walk, kernel)
    except SpecError as error:
        raise ImageError(f"{f.where}: {error}") from None
    if walk != va_bits:
        in_use += page_offset(52) - page_offset(va_bits)
    if built_for == 52 and va_bits != 52:
        f.notes.append(
            f"a kernel built for 52-bit addresses on a CPU with {va_bits}: "
            + (
                f"its memstart_addr, {memstart % (1 << 64):#x}, is {in_use:#x} in those"
                if walk == va_bits
                else "the upper part of its root is in use"
            )
        )
    layout = _core.layout(granule, walk, kernel, in_use)
    vmemmap = None
    if start is not None:
        # Since 6.9 a layout of 52 bits with fewer in use is that of the bits in use.
        start = (
            start if layout["PAGE_OFFSET"] == page_offset(va_bits) else vmemmap_in_use(start, granule, va_bits, walk)
        )
        end = info.address("NUMBER(VMEMMAP_END)")
        if end is None:
            end = start + layout["VMEMMAP_END"] - layout["VMEMMAP_START"]
        vmemmap = None if (start, end) == (layout["VMEMMAP_START"], layout["VMEMMAP_END"]) else (start, end)
    return KernelFacts(
        granule,
        walk,
        kernel,
        text,
        in_use,
        root,
        root_from,
        vmemmap,
        info.decimal("NUMBER(PG_head_mask)"),
        _markers(text, kernel, granule, layout["FIXADDR_TOP"], layout["markers"]) if vmemmap is None else (),
        tuple(f.notes),
    )


def _signed(value: int | None) -> int | None:
    return None if value is None else value - ((value >> 63) << 64)


def _granule(f: _Facts) -> int | None:
    if f.given.granule is not None:
        return f.given.granule
    granule = f.info.decimal("PAGESIZE")
    if granule not in (None, *GRANULES.values()):
        raise f.info.bad("PAGESIZE", f"4096, 16384 or 65536, found {granule}")
    return granule


def _va_bits(f: _Facts, granule: int | None, memstart: int | None) -> tuple[int | None, int | None]:
    """The bits that the kernel was built for, and those in use: ``64 - T1SZ``, fewer on a CPU that has not got 52."""
    info, given = f.info, f.given.va_bits
    try:
        key = info.decimal(_BUILT_FOR)
    except ImageError:
        if given is None:
            raise
        key = None
    known = sorted({bits for sizes in VA_BITS.values() for bits in sizes})
    if key is not None and key not in known:
        raise info.bad(_BUILT_FOR, f"one of {', '.join(map(str, known))}, found {key}")
    t1sz = info.address(_T1SZ)
    fewer = 47 if granule == 16384 else 48
    # Where memstart_addr was lowered, the kernel was built for 52 bits and has fewer.
    lowered = memstart is not None and granule is not None and in_use_memstart(memstart, granule, 48) != memstart
    if t1sz is None:
        said = key if given is None else given
        if said == 52 and lowered:
            return 52, fewer
        return (52 if lowered or (key == 52 and given == fewer) else said), said
    in_use = 64 - t1sz
    built_for = 52 if key == 52 or given == 52 or lowered else key
    said = given if given is not None else key
    if said is not None and said != in_use and not (built_for == 52 and in_use == fewer and said in (52, fewer)):
        named = f"{_BUILT_FOR} is" if given is None else "va_bits is given as"
        raise info.bad(_T1SZ, f"{64 - said:#x}, since {named} {said}; found {t1sz:#x}")
    if granule is not None and in_use not in VA_BITS[granule]:
        raise info.bad(
            _T1SZ,
            f"one of {', '.join(hex(64 - n) for n in VA_BITS[granule])} with {format_size(granule)} pages, "
            f"found {t1sz:#x}",
        )
    return built_for or in_use, in_use


def _root(f: _Facts) -> tuple[int | None, str]:
    if f.given.root is not None:
        return f.given.root, "root"
    symbol, voffset = "SYMBOL(swapper_pg_dir)", "NUMBER(kimage_voffset)"
    va, offset = f.info.address(symbol), f.info.address(voffset)
    if va is None or offset is None:
        return None, ""
    return (va - offset) % (1 << 64), f"{symbol} less {voffset}"


def _found(
    f: _Facts, granule: int | None, va_bits: int | None, memstart: int | None, root: int | None
) -> Root | Vmcoreinfo:
    """What is missing, out of the memory of the dump."""
    if root is not None:
        roots = verified(f.memory, root, granule, va_bits)[:1]
    else:
        seen = search(f.memory, granule, va_bits)
        roots = [
            r for r in seen.roots if memstart is None or r.memstart == in_use_memstart(memstart, r.granule, r.va_bits)
        ]
        known = {r.pa for r in roots}
        for at, text in seen.vmcoreinfo if not f.info.present else ():
            info = Vmcoreinfo(str(f.where), text)
            if _root(replace(f, info=info))[0] in known:
                f.notes.append(
                    f"VMCOREINFO was found in the kernel's own memory, at {at:#x}: "
                    "its swapper_pg_dir translates its own linear map"
                )
                return info
    if not roots:
        raise _missing(f, granule, va_bits, memstart, root)
    if len(roots) > 1:
        listed = "; ".join(map(str, roots[:5])) + ("; and more" if len(roots) > 5 else "")
        raise ImageError(
            f"{f.where}: {len(roots)} candidates for swapper_pg_dir translate their own linear map: "
            f"give root, one of: {listed}"
        )
    which = "found by search, the only candidate" if root is None else "as given"
    f.notes.append(f"{roots[0]}, {which}: it translates its own linear map, and its struct page is in vmemmap")
    return roots[0]


def _missing(f: _Facts, granule: int | None, va_bits: int | None, memstart: int | None, root: int | None) -> ImageError:
    if granule is None:
        return f.info.missing("PAGESIZE", "granule")
    if va_bits is None:
        return f.info.missing(_BUILT_FOR, "va_bits")
    if memstart is None:
        return f.info.missing(_MEMSTART, "memstart")
    symbol = "SYMBOL(swapper_pg_dir)"
    return f.info.missing(symbol if f.info.address(symbol) is None else "NUMBER(kimage_voffset)", "root")


def _vmemmap_start(
    f: _Facts, granule: int, built_for: int, va_bits: int, memstart: int, in_use: int, root: int, walk: int
) -> int | None:
    """VMEMMAP_START counted from PAGE_OFFSET of the bits in use: VMCOREINFO says it since 5.19 (before, ``vmemmap``
    itself), and tables show it.
    """
    start = f.info.address("NUMBER(VMEMMAP_START)")
    base = f.info.address("SYMBOL(vmemmap)")
    if start is None and base is not None and f.given.memstart is None:
        start = (base + (memstart >> (granule.bit_length() - 1)) * _STRUCT_PAGE_SIZE) % (1 << 64)
    if start is not None:
        in_those = vmemmap_in_use(start, granule, built_for, va_bits)
        return (
            start
            if generation_of(in_those, granule, va_bits) is None and generation_of(start, granule, va_bits) is not None
            else in_those
        )
    kernel = f.given.kernel or kernel_behaviour(f.info.text("OSRELEASE") or "")
    return vmemmap_of(f.memory, root, granule, walk, va_bits, in_use, kernel)


def _behaviour(
    f: _Facts, text: str, generation: Generation | None, start: int | None, granule: int, va_bits: int, root: int
) -> str:
    kernel = f.given.kernel
    if kernel is not None:
        if generation is not None and generation.behaviours and kernel not in generation.behaviours:
            nearest = behaviour_of_release(text, generation) or behaviour_of_layout(
                generation, _newer(f, granule, root)
            )
            raise ImageError(
                f"{f.where}: kernel is given as {kernel}, but vmemmap begins at {start:#x} as in {generation.releases}"
                f"{f' ({text[:40]})' if text else ''}: "
                f"give kernel {nearest.kernel if nearest else generation.behaviours[0]}"
            )
        _refuse_other_tails(f, kernel)
        return kernel
    found = behaviour_of_release(text, generation)
    if found is None and generation is not None and not text:
        found = behaviour_of_layout(generation, _newer(f, granule, root))
    if found is None:
        if not text:
            raise f.info.missing("OSRELEASE", "kernel")
        raise f.info.bad(
            "OSRELEASE", f"a release from 5.4 on, or kernel given as one of {', '.join(KERNELS)}; found {text[:40]!r}"
        )
    if found.why:
        f.notes.append(f"taken as {found.kernel}: {found.why}")
    return found.kernel


def _refuse_other_tails(f: _Facts, kernel: str) -> None:
    """`page->compound_head` is called `compound_info` since 7.1, where it may be a mask: a reader of the other kind
    would take one for the other.

    Raises:
        ImageError: VMCOREINFO has the other name than that kernel.
    """
    newer, older = "OFFSET(page.compound_info)", "OFFSET(page.compound_head)"
    has, lacks = (older, newer) if kernel.startswith("7.") else (newer, older)
    if f.info.text(has) is not None and f.info.text(lacks) is None:
        named = [name for name in KERNELS if name.startswith("7.") == (has == newer)]
        raise ImageError(
            f"{f.where}: kernel is given as {kernel}, but VMCOREINFO has {has}, which kernels "
            f"{'since' if has == newer else 'before'} 7.1 have: give one of {', '.join(named)}"
        )


def _newer(f: _Facts, granule: int, root: int) -> bool:
    """Table descriptors of the root carry the access flag."""
    page = f.memory.read(root, granule) or b""
    words = (int.from_bytes(page[at : at + 8], "little") for at in range(0, len(page), 8))
    return any(word & 3 == 3 and word & _ACCESS_FLAG for word in words)


def _markers(
    text: str, kernel: str, granule: int, top: int, markers: Sequence[tuple[int, str | None]]
) -> tuple[tuple[int, str | None], ...]:
    """The layout's, but that Fixmap starts where Debian's kernel of that release has it;
    nothing where that is the same.
    """
    size = fixmap_size(text) if kernel not in ("7.2", "7.3") and granule == 4096 else None
    if size is None:
        return ()
    return tuple((top - size if name == "Fixmap start" else at, name) for at, name in markers)
