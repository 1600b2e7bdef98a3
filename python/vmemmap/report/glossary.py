"""The words of a report, each explained on the page itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from markupsafe import Markup, escape

__all__ = ["TERMS", "anchor", "linked"]

TERMS: Final[Mapping[str, str]] = {
    "HVO": (
        "HugeTLB Vmemmap Optimization: the struct pages of a hugepage's tail pages all say the same, so that one frame "
        "(two in 2021) can stand behind all of them, mapped read-only, and the others are given back."
    ),
    "vmemmap": "The array of struct pages, one for each page of memory, in virtual addresses of its own.",
    "struct page": "64 bytes that say what becomes of one page of memory.",
    "hot remove": "Memory is taken out of the running kernel; the tables of its part of the vmemmap are freed.",
    "ptdump": "The kernel's walk over its own tables, in kernel_page_tables; it takes no lock of the tables.",
    "PFN walker": "Whoever reads struct pages by page frame number without holding anything: compaction, kpageflags.",
    "break-before-make": (
        "The architecture's rule for changing a valid descriptor: write none, invalidate, then write the new one. "
        "Not kept is I19; kept, everybody else meets a hole."
    ),
    "hole": "An address without a translation that should have one (I2).",
    "stale translation": "What a CPU holds of an overwritten descriptor, until a TLBI and the DSB behind it.",
    "TLBI": "Instruction that invalidates translations; what follows it may rely on that only behind a DSB.",
    "DSB": "Barrier behind which the stores and the invalidations before it are complete.",
    "granule": "The size of a base page: 4K, 16K or 64K.",
    "policy": "One of the ways in which a kernel could do a thing, such as update=store or split=bbm.",
    "scope": "What a verdict covers: actors, rounds, layout, memory model, and what is absent.",
    "exhaustive": (
        "The search ended by itself: every interleaving within the scope, up to commutation, was looked at; where "
        "something is violated, at least up to the first violation of each."
    ),
    "invariant": "A numbered sentence about every state or step: held, violated, not judged or not visible.",
    "context switch": "The scheduler goes on with another actor. Shortest is the trace with the fewest.",
    "block": "One descriptor that maps a whole range, 2M with 4K pages, instead of a table of pages.",
    "split": "A block becomes a table of pages that map the same.",
}


def anchor(term: str) -> str:
    """Where the page explains a term."""
    return "term-" + re.sub(r"[^a-z]+", "-", term.lower())


_FINDS: Final = re.compile(r"\b(" + "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True)) + r")\b")


def linked(text: object) -> Markup:
    """Text whose first mention of each term leads to what it means; everything else is escaped."""
    seen: set[str] = set()
    parts: list[str] = []
    plain, end = str(text), 0
    for found in _FINDS.finditer(plain):
        parts.append(str(escape(plain[end : found.start()])))
        term, end = found[1], found.end()
        word = str(escape(term))
        if term in seen:
            parts.append(word)
        else:
            seen.add(term)
            parts.append(f'<a class="term" href="#{anchor(term)}" title="{escape(TERMS[term])}">{word}</a>')
    return Markup("".join([*parts, str(escape(plain[end:]))]))
