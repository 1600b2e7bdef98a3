"""Which modelled behaviour a kernel's release has, or comes nearest to, and why.

A row for each stretch of releases, the newest first. What a row prefers and is not modelled is passed over, so that a
behaviour that is added to ``KERNELS`` is taken from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..spec import KERNELS
from .va_layout import GENERATIONS, Generation

__all__ = ["Behaviour", "behaviour_of_layout", "behaviour_of_release", "fixmap_size", "kernel_behaviour"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A behaviour and where it comes from."""

    kernel: str
    why: str
    """In words, empty if the release has that behaviour for its own."""


# (first release, behaviours preferred, why the first of them is the nearest)
_ROWS: Final = (
    ((7, 3), ("7.3", "7.2", "6.12"), "the VA layout is that of 6.9 and later"),
    (
        (7, 1),
        ("7.2", "7.3", "6.12"),
        "the VA layout is that of 6.9 and later; since 7.1 HVO has one tail frame for each zone and order",
    ),
    ((6, 18, 51), ("7.2", "7.3", "6.12"), "the VA layout is that of 6.9 and later; 6.18.51 took HVO of 7.1"),
    ((6, 9), ("6.12",), "the VA layout is that of 6.9 and later, HVO copies the head as 6.12 does"),
    (
        (6, 2),
        ("6.1",),
        "the VA layout is that of 5.11 to 6.8; its HVO copies the head as 6.12 does, "
        "and arm64 has not had it since 6.3",
    ),
    ((5, 18), ("6.1",), "the VA layout is that of 5.11 to 6.8, HVO keeps one vmemmap page as 6.1 does"),
    ((5, 11), ("2021",), "the VA layout is that of 5.11 to 6.8, HVO, from 5.14 on, keeps two vmemmap pages"),
    ((5, 4), ("2021",), "no release before 5.11 is modelled; its vmemmap begins elsewhere and there is no HVO yet"),
)

# Bytes from FIXADDR_TOT_START to FIXADDR_TOP. It depends on the configuration; seen in Debian's kernels with 4K pages.
_FIXMAP: Final = (((7, 2), 0x3D5000),)


def _version(text: str) -> tuple[int, ...] | None:
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?", text)
    return tuple(int(g or 0) for g in match.groups()) if match else None


def kernel_behaviour(text: str) -> str | None:
    """The behaviour that a kernel release has: ``6.1.192 (...)`` → ``6.1``; ``None`` if none is modelled for it.

    A 6.12 stable release named to the patch level is ``6.12.117`` from 114 on, where the restore path lost its reset.
    """
    match = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if match is None:
        return None
    major, minor, patch = (int(g) if g else 0 for g in match.groups())
    if text.strip() in KERNELS:
        return text.strip()
    if (major, minor) == (6, 12):
        return "6.12.117" if patch >= 114 else "6.12"
    if f"{major}.{minor}" in ("6.1", "7.2", "7.3"):
        return f"{major}.{minor}"
    return "2021" if major == 5 and minor in (13, 14, 15) else None


def behaviour_of_release(text: str, generation: Generation | None = None) -> Behaviour | None:
    """The behaviour of a release, ``None`` if none comes near. ``generation`` is the layout that the dump shows, which
    counts for more: a vendor's release has the code of later ones under an old number.
    """
    own = kernel_behaviour(text)
    version = _version(text)
    why, kernel = "", own
    if kernel is None and version is not None:
        for since, preferred, because in _ROWS:
            if version >= since:
                kernel = next((k for k in preferred if k in KERNELS), None)
                why = f"{text[:40]!r} is no behaviour of its own: {because}"
                break
    if kernel is not None and generation is not None and generation.behaviours and kernel not in generation.behaviours:
        return Behaviour(
            generation.behaviours[0],
            f"{text[:40]!r} has the VA layout of {generation.releases}, so much of a later kernel is in it",
        )
    return None if kernel is None else Behaviour(kernel, why)


def behaviour_of_layout(generation: Generation, newer_tables: bool) -> Behaviour | None:
    """The behaviour where nothing says a release. ``newer_tables``: table descriptors carry the access flag,
    as in 7.x.
    """
    if not generation.behaviours:
        return Behaviour("2021", f"nothing says the release, and the VA layout is that of {generation.releases}")
    preferred = ("7.3", "7.2", generation.behaviours[0]) if newer_tables else generation.behaviours
    kernel = next(k for k in preferred if k in KERNELS)
    why = f"nothing says the release, and the VA layout is that of {generation.releases}"
    if newer_tables:
        why += "; its table descriptors carry the access flag, as those of 7.x do"
    return Behaviour(kernel, why)


def fixmap_size(text: str) -> int | None:
    """Bytes from Fixmap start to Fixmap end in Debian's kernel of that release,
    where they are not those of its behaviour.
    """
    version = _version(text)
    return next((size for since, size in _FIXMAP if version is not None and version >= since), None)


def generation_named(kernel: str) -> Generation:
    """The layout of a modelled behaviour."""
    return next(g for g in GENERATIONS if kernel in g.behaviours)


def hvo_left_open(kernel: str) -> str | None:
    """What a text with optimised hugepages, taken as `kernel`, does not tell: it shows no frame. None where it does."""
    behaviours = generation_named(kernel).behaviours
    if not any(name.startswith("7.") for name in behaviours):
        return None
    return (
        f"a text does not tell whose HVO this is: {', '.join(behaviours)} print the same lines, "
        f"and the frame behind a tail is not printed; judged as {kernel}"
    )
