"""A file-system check for vmemmap: every invariant that a dump can show, held, violated or not visible there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .. import _core
from ..errors import ImageError
from .answers import CheckDict, CheckReport, DumpViolationDict, TextReport
from .dump import Dump, Hints, kind_of_dump, open_dump
from .gaps import Gap, gaps_of, told
from .image import read_text
from .physical_memory import PhysicalMemory

__all__ = ["Check", "Violation", "check"]

HELD: Final = "held"
VIOLATED: Final = "violated"
NOT_VISIBLE: Final = "not visible here"

_WHOLE_TREE: Final = frozenset({"I13", "I30", "I31"})
"""Judged of every table, not of vmemmap alone."""

_LEVELS: Final = {3: "pte", 2: "pmd", 1: "pud", 0: "p4d", -1: "pgd"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant, and where."""

    invariant: str
    """``I1`` to ``I34``."""
    address: int
    """Virtual address that the descriptor maps, or the physical address of a table."""
    message: str
    """Why, with the descriptor."""
    level: int | None = None
    """Arm level of the descriptor, if one shows it."""
    descriptor: int | None = None

    def to_dict(self) -> DumpViolationDict:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        found: DumpViolationDict = {"invariant": self.invariant, "address": self.address, "message": self.message}
        if self.descriptor is not None:
            found["level"] = self.level
            found["descriptor"] = hex(self.descriptor)
        return found


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of one dump found."""

    source: str
    kind: str
    """``npz``, ``ptdump`` or ``vmcore``."""
    machine: str
    violations: tuple[Violation, ...]
    """At most 100 of each invariant."""
    found: Mapping[str, int]
    """Invariant → how many times it was found broken."""
    invariants: Mapping[str, str]
    """Each of I1 to I34 → ``held``, ``violated`` or ``not visible here``."""
    counts: Mapping[str, int | None]
    """Mapped pages, distinct frames, blocks and tables of vmemmap, optimised hugepages; ``None``: not shown."""
    notes: tuple[str, ...] = ()
    """What was taken instead of what the dump does not say, what was left out or set right, and what is not visible."""
    gaps: tuple[Gap, ...] = ()
    """Addresses whose tables are not in the dump: of what holds everywhere nothing is called held."""

    @property
    def verdict(self) -> Literal["clean", "violated"]:
        """``clean`` or ``violated``: of what the dump can show; with ``gaps``, that is not all of it."""
        return "violated" if self.found else "clean"

    @property
    def conclusion(self) -> str:
        """The verdict in a sentence."""
        visible = sum(state != NOT_VISIBLE for state in self.invariants.values())
        lacks = f"the tables of {told(self.gaps)} are not in the dump" if self.gaps else ""
        if self.found:
            words = f"violated: {len(self.found)} of the {visible} invariants that this dump can show"
            return f"{words}; {lacks}" if lacks else words
        if not lacks:
            return f"clean: the {visible} invariants that this dump can show all hold"
        held = f"the {visible} invariants that the rest can show hold" if visible else "no invariant is seen to hold"
        return f"undecided: {lacks}; {held}, and nothing is violated in what is there"

    def to_dict(self) -> CheckDict:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "source": self.source,
            "kind": self.kind,
            "machine": self.machine,
            "verdict": self.verdict,
            "violations": [violation.to_dict() for violation in self.violations],
            "violations_found": dict(self.found),
            "invariants": dict(self.invariants),
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "gaps": [[gap.start, gap.end] for gap in self.gaps],
        }

    def text(self, *, most: int = 10) -> str:
        """For people: counts, then each invariant; `most` violations of each are printed.

        Args:
            most: How many violations of each invariant are printed.

        Returns:
            Lines for people, without a newline at the end.
        """
        names = {number: (sentence, short) for number, sentence, short in _core.invariants()}
        c = self.counts
        frames = "frames not shown" if c["distinct_frames"] is None else f"{c['distinct_frames']} distinct frames"
        lines = [f"{self.source}: {self.machine}"]
        if c["mapped_pages"] is not None:
            lines.append(
                f"  vmemmap: {c['mapped_pages']} pages mapped, {frames}, {c['blocks']} blocks, {c['tables']} tables, "
                f"{c['optimised_hugepages']} optimised hugepages"
            )
        lines += [f"  note: {note}" for note in self.notes] + [""]
        for number, state in self.invariants.items():
            if state == VIOLATED:
                lines.append(f"  {number} violated: {names[number][0]}")
                mine = [f for f in self.violations if f.invariant == number]
                lines += [f"      {f.address:#018x}  {f.message}" for f in mine[:most]]
                if self.found[number] > most:
                    lines.append(f"      and {self.found[number] - most} more")
        for state in (HELD, NOT_VISIBLE):
            having = [number for number, found in self.invariants.items() if found == state]
            if having:
                lines.append(f"  {state}: {' '.join(having)}")
        lines.append("")
        lines.append(self.conclusion)
        return "\n".join(lines)


def check(
    path: str | os.PathLike[str],
    *,
    kernel: str | None = None,
    granule: str | int | None = None,
    va_bits: str | int | None = None,
    memstart: str | int | None = None,
    root: str | int | None = None,
    base: str | int | None = None,
    ram: Iterable[str | tuple[str | os.PathLike[str], str | int]] = (),
) -> Check:
    """Check a dump: a table image (``.npz``, its JSON beside it), a ``kernel_page_tables`` text, or a vmcore.

    ``hints`` are what the dump does not say: ``kernel``, ``granule``, ``va_bits``, ``memstart``, ``root``, ``base``,
    ``ram``.

    Args:
        path: A table image (``.npz``, its JSON beside it), a ``kernel_page_tables`` text, or a vmcore.
        kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
        root: Physical address of ``swapper_pg_dir``.
        base: Physical address of the first byte of a raw memory file.
        ram: Further raw memory files: ``FILE@ADDRESS``, or pairs of the two.

    Returns:
        What the dump shows of each invariant, and every violation.

    Raises:
        ImageError: It cannot be read, or is no dump.
    """
    known = Hints.parse(
        kernel=kernel, granule=granule, va_bits=va_bits, memstart=memstart, root=root, base=base, ram=ram
    )
    if kind_of_dump(path, known) == "ptdump":
        text, notes = read_text(path)
        alone = _core.check_text_alone(text, granule=known.granule, va_bits=known.va_bits)
        # A machine that is given in full tells where vmemmap is without a header.
        given = None not in (known.granule, known.va_bits, known.kernel)
        if not (alone["vmemmap"] or given) or alone["layout"] or not alone["levels"]:
            return _check_alone(path, alone, notes)
    return check_dump(open_dump(path, known))


def _check_alone(path: str | os.PathLike[str], report: TextReport, notes: tuple[str, ...]) -> Check:
    """A text that shows no vmemmap, or one of a machine that is none of those modelled: what every region shows.

    Raises:
        ImageError: It fits no machine at all.
    """
    if not report["machines"]:
        raise ImageError(
            f"{os.fspath(path)}: no arm64 kernel has pages and addresses like these (--granule, --va-bits)"
        )
    sizes = " or ".join(f"{size >> 10}K" for size in dict.fromkeys(size for size, _ in report["machines"]))
    bits = " or ".join(str(n) for n in dict.fromkeys(n for _, n in report["machines"]))
    machine = f"{sizes} pages" if report["efi"] else f"{sizes} pages, {bits}-bit addresses"
    names = ("mapped_pages", "distinct_frames", "blocks", "tables", "optimised_hugepages")
    return Check(
        source=os.fspath(path),
        kind="ptdump",
        machine=machine,
        violations=tuple(_violation(*f) for f in report["findings"]),
        found=dict(report["counts"]),
        invariants=_states(report),
        counts=dict.fromkeys(names),
        notes=(*notes, *report["notes"]),
    )


def _states(report: CheckReport) -> dict[str, str]:
    visible, found = set(report["visible"]), report["counts"]
    return {n: VIOLATED if n in found else HELD if n in visible else NOT_VISIBLE for n, _, _ in _core.invariants()}


def check_dump(dump: Dump) -> Check:
    """The same of one that is open.

    Args:
        dump: An open dump.

    Returns:
        What it shows of each invariant, and every violation.
    """
    if dump.tables is not None and dump.image is not None:
        d = dump.image.description
        contents = None if dump.memory is None else (_reader(dump.memory, dump.shape.granule), dump.head_mask)
        report = _core.check_image(
            dump.tables, d.hugepages_known, dump.kind == "npz", list(d.pools), list(dump.left_out), contents
        )
    else:
        report = _core.check_text(dump.text or b"", dump.shape)
    mapped, frames, blocks, tables = dump.shape.counts()
    gaps = () if dump.image is None else gaps_of(dump.image, dump.left_out)
    return Check(
        source=os.fspath(dump.path),
        kind=dump.kind,
        machine=dump.machine,
        violations=tuple(_violation(*f) for f in report["findings"]),
        found=dict(report["counts"]),
        invariants=_seen(_states(report), dump, gaps),
        counts={
            "mapped_pages": mapped,
            "distinct_frames": frames,
            "blocks": blocks,
            "tables": tables,
            "optimised_hugepages": len(dump.shape.optimised()),
        },
        notes=dump.notes,
        gaps=gaps,
    )


def _seen(states: dict[str, str], dump: Dump, gaps: tuple[Gap, ...]) -> dict[str, str]:
    """What holds of all tables does not hold of those that are seen: a gap may hide a violation, never make one."""
    if not gaps or dump.image is None:
        return states
    d = dump.image.description
    hidden = states.keys() if any(gap.touches(d.vmemmap_start, d.vmemmap_end) for gap in gaps) else _WHOLE_TREE
    return {n: NOT_VISIBLE if state == HELD and n in hidden else state for n, state in states.items()}


def _reader(memory: PhysicalMemory, granule: int) -> Callable[[int], bytes | None]:
    return lambda pa: memory.read(pa, granule)


def _violation(invariant: str, address: int, level: int | None, descriptor: int | None, message: str) -> Violation:
    if descriptor is not None and level is not None:
        message = f"{message}: {_LEVELS[level]} {descriptor:#018x}"
    return Violation(invariant, address, message, level, descriptor)
