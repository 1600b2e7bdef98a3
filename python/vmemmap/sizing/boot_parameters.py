"""What a kernel makes of the hugepage parameters of its command line (``mm/hugetlb.c``): what each asks for, and which
it ignores
and why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ..spec import HUGEPAGE_SIZES, format_size

__all__ = ["Asked", "Ignored", "read_parameters"]

_SIZE: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})([kKmMgGtTpPeE])?.*")
_LARGEST_BUDDY: Final = {4096: 4 << 20, 16384: 32 << 20, 65536: 512 << 20}
"""Base page size → the largest piece that the page allocator hands out (``MAX_PAGE_ORDER`` of arm64's defaults);
larger ones are gigantic."""
_BY_NODE: Final = re.compile(r"[0-9]{1,6}:[0-9]{1,12}(,[0-9]{1,6}:[0-9]{1,12})*")


@dataclass(frozen=True, slots=True)
class Ignored:
    """A parameter without effect."""

    parameter: str
    why: str


@dataclass(slots=True)
class Asked:
    """What the command line asks for."""

    pages: dict[int, int] = field(default_factory=dict[int, int])
    """Hugepage size in bytes → pages."""
    default_size: int | None = None
    """Of ``default_hugepagesz``, if the kernel has that size."""
    cma: bool = False
    """``hugetlb_cma`` is set: gigantic pages come from there, after boot."""
    ignored: list[Ignored] = field(default_factory=list[Ignored])


def memparse(text: str) -> int | None:
    """A size as the kernel's ``memparse`` reads it; ``None`` if it begins with no number.

    Args:
        text: Value of a parameter; what follows the number and its unit is ignored.

    Returns:
        Bytes, or ``None``.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    unit = 0 if found[2] is None else 10 * ("kmgtpe".index(found[2].lower()) + 1)
    return int(found[1], 0 if found[1][:2].lower() == "0x" else 10) << unit


def read_parameters(
    words: Sequence[str], machine: str | None, page: int | None, sizes: Sequence[int], default: int | None
) -> Asked:
    """What `words` ask for on a machine with that base page size; `sizes` are those that it shows, `default` the size
    of ``/proc/meminfo``.

    Args:
        words: Parameters of the command line, in its order.
        machine: As ``uname -m`` says it; ``None`` if not known.
        page: Bytes of a base page; ``None`` if not known.
        sizes: Hugepage sizes in bytes that the host shows.
        default: Default hugepage size in bytes; ``None`` if not known.

    Returns:
        Pages by size, and what is ignored.
    """
    asked = Asked()
    known = _sizes(machine, page, sizes)
    # (size, or None behind a size that is not supported), and the parameter that set it.
    current: tuple[int | None, str] | None = None
    given: set[int] = set()
    for word in words:
        name, _, value = word.partition("=")
        if name in ("hugepagesz", "default_hugepagesz"):
            size = memparse(value)
            if size is None or (known is not None and size not in known):
                having = f" ({', '.join(map(format_size, known))})" if known else ""
                with_pages = f" with {format_size(page)} pages" if page else ""
                asked.ignored.append(Ignored(word, f"no hugepage size{with_pages}{having}"))
                current = (None, word)
                continue
            if name == "default_hugepagesz":
                asked.default_size = size
            current = (size, word)
        elif name == "hugepages":
            count = _count(value)
            if count is None:
                asked.ignored.append(Ignored(word, "no number of pages"))
            elif current is not None and current[0] is None:
                asked.ignored.append(Ignored(word, f"it belongs to {current[1]}, which is ignored"))
            else:
                size = current[0] if current is not None else asked.default_size or default
                if size is None:
                    continue
                if size in given:
                    asked.ignored.append(Ignored(word, f"the second number for {format_size(size)} pages"))
                    continue
                given.add(size)
                asked.pages[size] = count
        elif name == "hugetlb_cma":
            asked.cma = bool(memparse(value.rsplit(":", 1)[-1]))
    return asked


def why_less(size: int, wanted: int, got: int, memory: int | None, page: int | None, asked: Asked) -> str:
    """Why a pool has fewer pages than the command line asks for, as far as that can be told.

    Args:
        size: Bytes of a hugepage.
        wanted: Pages that the command line asks for.
        got: Pages that the pool has.
        memory: Bytes of RAM; ``None`` if not known.
        page: Bytes of a base page; ``None`` if not known.
        asked: All that the command line asks for.

    Returns:
        The reason, in words.
    """
    if memory is not None and size * wanted > memory:
        return f"{wanted} of {format_size(size)} are {format_size(size * wanted)}, more than the memory there is"
    total = sum(each * count for each, count in asked.pages.items())
    if memory is not None and total > memory:
        return f"all that is asked for, {format_size(total)}, is more than the memory there is"
    gigantic = page is not None and size > _LARGEST_BUDDY.get(page, page << 10)
    if asked.cma and gigantic:
        return "with hugetlb_cma pages of that size are not allocated at boot"
    what = (
        f"memory of {format_size(size)} in one piece, aligned to its size, on one node"
        if gigantic
        else "free pages of that size"
    )
    return f"the kernel found no more {what} at boot ({got} of {wanted}), or the pool was changed since"


def _sizes(machine: str | None, page: int | None, shown: Sequence[int]) -> tuple[int, ...] | None:
    """The sizes that the kernel has, or ``None`` if that is not known."""
    if machine == "aarch64" and page in HUGEPAGE_SIZES:
        return HUGEPAGE_SIZES[page]
    if machine == "x86_64":
        return tuple(sorted({2 << 20, 1 << 30, *shown}))
    return tuple(sorted(shown)) or None


def _count(text: str) -> int | None:
    """``hugepages=4`` or, since 5.15, ``hugepages=0:2,1:2``."""
    if re.fullmatch(r"[0-9]{1,20}", text):
        return int(text)
    if _BY_NODE.fullmatch(text):
        return sum(int(part.split(":")[1]) for part in text.split(","))
    return None
