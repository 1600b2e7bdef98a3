"""The text of an arm64 oops as far as it is about tables, of kernels 4.4 to 7.x: nothing is judged here
(``arch/arm64/mm/fault.c: __do_kernel_fault``, ``mem_abort_decode``, ``show_pte``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..errors import ImageError

__all__ = ["OopsText", "read_oops"]

_PREFIX: Final = re.compile(r"^(?:[>|\s]|<\d+>|\[\s*[0-9]+\.[0-9]+\]|\[\s*[TC]\d+\]|\w{3} +\d+ [\d:]{8} \S+ kernel:)*")
_ADDRESS: Final = re.compile(
    r"(?:(Unable to handle kernel|Ignoring spurious kernel|Unhandled fault|KASAN: [\w-]+ )\b.*?)"
    r"(?:at virtual address|at) (?:0x)?([0-9a-f]{4,16})\b"
)
_ESR: Final = re.compile(r"\bESR = 0x([0-9a-f]{8,16})\b|\bOops[^:]*: ([0-9a-f]{8,16})\b|\besr: 0x([0-9a-f]{8,16})")
_PGTABLE: Final = re.compile(
    r"(swapper|user|reserved) pgtable: (\d+)k pages, (\d+)-bit VAs(?:, pgdp ?= ?([0-9a-f]{8,16}))?"
)
_ENTRIES: Final = re.compile(r"\[([0-9a-f]{8,16})\] \*?pgd ?= ?([0-9a-f]{8,16})")
_ENTRY: Final = re.compile(r"\*?\b(pgd|p4d|pud|pmd|pte) ?= ?([0-9a-f]{8,16})")
_GOES_ON: Final = re.compile(r"^,? ?\*?(?:p4d|pud|pmd|pte) ?= ?[0-9a-f]{8,16}")
_RELEASE: Final = re.compile(
    r"^CPU: \d+ .*?(?:Not tainted|Tainted: [A-Z ]+)(?:, \[[^\]]*\])* +(\d+\.\d+\S*)"
    r"|^CPU: \d+ .*? (\d+\.\d+\.\d+\S*) #\d"
)
_OLD_PGD: Final = re.compile(r"^pgd = (?:0x)?[0-9a-f]{8,16}$")


@dataclass(frozen=True, slots=True)
class OopsText:
    """What an oops prints."""

    headline: str
    address: int
    """The address that faulted."""
    esr: int | None
    tables: str | None
    """``swapper`` or ``user``: whose tables were walked."""
    granule: int | None
    va_bits: int | None
    pgdp: int | None
    entries: tuple[tuple[str, int], ...]
    """(``pgd``, ``p4d``, ``pud``, ``pmd``, ``pte``; word), as printed: a folded level repeats the one above it."""
    walked: int | None
    """The address of the entries, if any was printed."""
    release: str | None
    more: int
    """Further oopses in the text."""


def read_oops(text: str) -> OopsText:
    """The first oops of a text.

    Args:
        text: A log, or a part of one.

    Returns:
        What is printed of it; ``None`` where it is not.

    Raises:
        ImageError: It has none about an address.
    """
    lines = [_PREFIX.sub("", line).rstrip() for line in text.splitlines()]
    headlines = [(n, found) for n, line in enumerate(lines) if (found := _ADDRESS.search(line)) is not None]
    entries_at = next((n for n, line in enumerate(lines) if _ENTRIES.search(line)), None)
    if not headlines and entries_at is None:
        raise ImageError(
            "no arm64 oops: expected `Unable to handle kernel ... at virtual address ...` "
            f"or `[address] pgd=...` in {len(lines)} lines"
        )
    first = headlines[0][0] if headlines else entries_at or 0
    # What is printed for it ends where the next begins; lines of other CPUs may lie in between.
    later = [n for n, found in headlines if n > first and not found[1].startswith("KASAN")]
    part = lines[first : later[0] if later else len(lines)]
    walked, entries = _entries(part)
    esr = next(
        (next(g for g in found.groups() if g) for line in part if (found := _ESR.search(line)) is not None), None
    )
    pgtable = next((found for line in part if (found := _PGTABLE.search(line)) is not None), None)
    release = next((found[1] or found[2] for line in part if (found := _RELEASE.match(line)) is not None), None)
    old = any(_OLD_PGD.match(line) for line in part)
    address = int(headlines[0][1][2], 16) if headlines else walked
    if address is None:
        raise ImageError("the oops names no address")
    return OopsText(
        headline=(headlines[0][1][0] if headlines else lines[first])[:200],
        address=address,
        esr=None if esr is None else int(esr, 16),
        tables=pgtable[1] if pgtable else "swapper" if old and address >> 52 == 0xFFF else None,
        granule=int(pgtable[2]) << 10 if pgtable else None,
        va_bits=int(pgtable[3]) if pgtable else None,
        pgdp=int(pgtable[4], 16) if pgtable and pgtable[4] else None,
        entries=entries,
        walked=walked,
        release=release,
        more=len(later),
    )


def _entries(lines: list[str]) -> tuple[int | None, tuple[tuple[str, int], ...]]:
    for n, line in enumerate(lines):
        found = _ENTRIES.search(line)
        if found is None:
            continue
        words = line[found.start() :]
        # A line that another CPU cut in two goes on with a comma.
        for more in lines[n + 1 : n + 4]:
            if _GOES_ON.match(more):
                words += more
        seen: dict[str, int] = {}
        for name, word in _ENTRY.findall(words):
            seen.setdefault(name, int(word, 16))
        return int(found[1], 16), tuple(seen.items())
    return None, ()
