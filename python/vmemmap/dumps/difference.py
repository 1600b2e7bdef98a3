"""What changed in vmemmap between two dumps of one machine, in words: hugepages, blocks, tables, sections, frames."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .. import _core
from ..errors import ImageError, SpecError
from ..spec import format_size, section_size
from .answers import DiffDict
from .dump import Dump, Hints, dump_of_image, kind_of_dump, open_dump
from .gaps import Gap, gaps_of, told, without
from .image import read_text
from .mapping import changes, human_bytes, mapping, mapping_of

__all__ = ["Difference", "OtherChange", "diff"]


@dataclass(frozen=True, slots=True)
class OtherChange:
    """Descriptors side by side that changed alike, for no reason that has a name."""

    address: int
    level: int
    count: int
    old: int
    """The word; of a text the bits that it shows. 0: nothing there."""
    new: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed in vmemmap from the first dump to the second."""

    sources: tuple[str, str]
    granule: int
    section_size: int
    changed: int
    """Descriptors whose address lies in vmemmap and whose word differs, at any level, absent = zero. Where a dump is a
    text, those of which it shows the difference: never the output address."""
    tables_added: int
    tables_removed: int
    frames_lost: int | None
    """Base pages that vmemmap mapped only in the first; ``None`` if a dump shows no addresses."""
    frames_gained: int | None
    hugepages_optimised: tuple[tuple[int, int], ...]
    """(PFN of the head, length in base pages)."""
    hugepages_restored: tuple[tuple[int, int], ...]
    blocks_split: tuple[int, ...]
    """First virtual address of each."""
    sections_added: tuple[int, ...]
    """Physical address of each section of which vmemmap is mapped only in the second."""
    sections_removed: tuple[int, ...]
    other: tuple[OtherChange, ...]
    """At most 1000."""
    other_count: int
    """Descriptors in changes like these, listed or not."""
    elsewhere: int | None
    """Descriptors outside vmemmap that differ; ``None`` where a dump is a text."""
    exact: bool
    """Both dumps show whole words."""
    mappings: tuple[tuple[str, str, int, int], ...]
    """(region, kind of leaf, bytes in the first, bytes in the second) where they differ outside vmemmap."""
    memstart_known: bool
    """PFNs and section addresses are absolute; else they count from the start of the linear map."""
    notes: tuple[str, ...] = ()
    """What was taken instead of what a dump does not say, and what it lacks."""
    gaps: tuple[Gap, ...] = ()
    """Addresses whose tables one of the dumps has not got: nothing there was compared."""
    vmemmap_gaps: bool = False
    """Some of them are in vmemmap."""
    without_vmemmap: bool = False
    """vmemmap is in neither text: only how other regions are mapped was compared."""

    def __bool__(self) -> bool:
        """Whether anything differs in vmemmap; of texts without it, in how other regions are mapped.

        Returns:
            True if anything differs.
        """
        if self.without_vmemmap:
            return bool(self.mappings)
        return bool(self.changed or self.tables_added or self.tables_removed or self.frames_lost or self.frames_gained)

    def to_dict(self) -> DiffDict:
        """For JSON.

        Returns:
            The object that ``--json`` prints.
        """
        return {
            "a": self.sources[0],
            "b": self.sources[1],
            "changed": self.changed,
            "tables_added": self.tables_added,
            "tables_removed": self.tables_removed,
            "frames_lost": self.frames_lost,
            "frames_gained": self.frames_gained,
            "hugepages_optimised": [list(page) for page in self.hugepages_optimised],
            "hugepages_restored": [list(page) for page in self.hugepages_restored],
            "blocks_split": list(self.blocks_split),
            "sections_added": list(self.sections_added),
            "sections_removed": list(self.sections_removed),
            "other_changes": [
                {"address": c.address, "level": c.level, "count": c.count, "old": hex(c.old), "new": hex(c.new)}
                for c in self.other
            ],
            "other_changes_count": self.other_count,
            "changed_elsewhere": self.elsewhere,
            "mappings_elsewhere": [
                {"region": region, "kind": kind, "bytes_a": before, "bytes_b": after}
                for region, kind, before, after in self.mappings
            ],
            "exact": self.exact,
            "pfns_absolute": self.memstart_known,
            "notes": list(self.notes),
            "gaps": [[gap.start, gap.end] for gap in self.gaps],
            "summary": self.summary,
        }

    def _mapping_lines(self) -> list[str]:
        lines: list[str] = []
        for region, kind, before, after in self.mappings:
            more = f"{'+' if after > before else '-'}{human_bytes(abs(after - before))}"
            lines.append(f"{region}, in {kind}: {human_bytes(before)} became {human_bytes(after)} ({more})")
        return lines

    @property
    def word_by_word(self) -> list[str]:
        """What no other line of the summary has words for; the first of it."""
        lines = [
            f"{_count(c.count, 'descriptor')} of level {c.level} from {c.address:#018x}: "
            f"{c.old:#018x} became {c.new:#018x}"
            for c in self.other[:10]
        ]
        if len(self.other) > 10:
            lines.append(f"and more like these, {_count(self.other_count, 'descriptor')} in all")
        return lines

    @property
    def summary(self) -> str:
        """In words, one change a line."""
        if self.without_vmemmap:
            how = "otherwise" if self.mappings else "as before"
            head = f"vmemmap is in neither text; what is there is mapped {how}, as far as a text shows it"
            return "\n".join([head, *self._mapping_lines()])
        lines: list[str] = []
        for verb, pages in (("optimised", self.hugepages_optimised), ("restored", self.hugepages_restored)):
            for length, count in sorted(Counter(length for _, length in pages).items()):
                heads = [pfn for pfn, pages_of in pages if pages_of == length]
                lines.append(
                    f"{_count(count, f'{format_size(length * self.granule)} hugepage')} {verb}: {_pfns(heads)}"
                )
        if self.blocks_split:
            lines.append(f"{_count(len(self.blocks_split), 'block')} split: {_list(self.blocks_split)}")
        for verb, tables in (("came", self.tables_added), ("went", self.tables_removed)):
            if tables:
                lines.append(f"{_count(tables, 'table')} {verb}")
        for verb, sections in (("appeared", self.sections_added), ("left", self.sections_removed)):
            if sections:
                lines.append(
                    f"{_count(len(sections), f'section of {format_size(self.section_size)}')} {verb}: {_list(sections)}"
                )
        for verb, frames in (("given up", self.frames_lost), ("gained", self.frames_gained)):
            if frames:
                lines.append(f"{_count(frames, 'frame')} {verb}")
        lines += self.word_by_word
        changed = f"{_count(self.changed, 'descriptor')} of vmemmap changed" if self else "vmemmap is the same"
        if not self.exact:
            changed += " as far as a text shows it: it has no output addresses"
        if self.vmemmap_gaps:
            changed += f" as far as both dumps show it: one lacks the tables of {told(self.gaps)}"
        elif self.gaps:
            lines.append(f"outside vmemmap one of the dumps lacks the tables of {told(self.gaps)}")
        lines.insert(0, changed)
        if not self.memstart_known and (
            self.hugepages_optimised or self.hugepages_restored or self.sections_added or self.sections_removed
        ):
            lines.append(
                "PFNs and sections count from the start of the linear map: "
                "texts do not say where it begins (--memstart)"
            )
        if self.elsewhere:
            lines.append(f"outside vmemmap {_count(self.elsewhere, 'descriptor')} changed")
        lines += self._mapping_lines()
        return "\n".join(lines)


def diff(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    kernel: str | None = None,
    granule: str | int | None = None,
    va_bits: str | int | None = None,
    memstart: str | int | None = None,
    root: str | int | None = None,
    base: str | int | None = None,
    ram: Iterable[str | tuple[str | os.PathLike[str], str | int]] = (),
) -> Difference:
    """What changed in vmemmap between two dumps of any kind, as far as each can tell.

    ``hints`` are what the dumps do not say: ``kernel``, ``granule``, ``va_bits``, ``memstart``, ``root``, ``base``,
    ``ram``.

    Args:
        a: The earlier dump: image, text or vmcore.
        b: The later one, of the same machine.
        kernel: Kernel behaviour, by name: ``6.1``, ``6.12`` and so on.
        granule: Bytes of a base page, or text: ``4K``, ``16K``, ``64K``.
        va_bits: Bits of a kernel virtual address: 36, 39, 42, 47, 48 or 52.
        memstart: ``memstart_addr``: physical address where the linear map starts, in bytes.
        root: Physical address of ``swapper_pg_dir``.
        base: Physical address of the first byte of a raw memory file.
        ram: Further raw memory files: ``FILE@ADDRESS``, or pairs of the two.

    Returns:
        The difference from the first to the second.

    Raises:
        ImageError: One cannot be read, or is no dump.
        SpecError: They are not of one machine.
    """
    known = Hints.parse(
        kernel=kernel, granule=granule, va_bits=va_bits, memstart=memstart, root=root, base=base, ram=ram
    )
    if all(kind_of_dump(path, known) == "ptdump" for path in (a, b)) and not any(
        _shows_vmemmap(path, known) for path in (a, b)
    ):
        return _diff_without_vmemmap(a, b, known)
    first = open_dump(a, known)
    second = open_dump(b, known, like=first if first.tables is not None else None)
    if first.tables is None and second.tables is not None:
        first = open_dump(a, known, like=second)
    return diff_dumps(first, second)


def _shows_vmemmap(path: str | os.PathLike[str], known: Hints) -> bool:
    return _core.check_text_alone(read_text(path)[0])["vmemmap"] or None not in (
        known.granule,
        known.va_bits,
        known.kernel,
    )


def _diff_without_vmemmap(a: str | os.PathLike[str], b: str | os.PathLike[str], known: Hints) -> Difference:
    """Of two slices of other regions: how these are mapped.

    Raises:
        ImageError: Nothing is mapped in one.
        SpecError: They are not of one machine.
    """
    maps = [mapping(path, known) for path in (a, b)]
    for found in maps:
        if not found.rows:
            raise ImageError(f"{found.source}: the text has no vmemmap region, and maps nothing else")
    common = [found.shown for found in maps]
    if common[0] is not None and common[1] is not None and not common[0] & common[1]:
        told = "; ".join(", ".join(sorted(names)) for names in common if names)
        raise SpecError(f"{os.fspath(a)} and {os.fspath(b)} have no region in common: {told}")
    if maps[0].granule != maps[1].granule:
        raise SpecError(
            f"{os.fspath(a)} and {os.fspath(b)} are not of one machine: {maps[0].machine}, {maps[1].machine}"
        )
    granule = maps[0].granule
    return Difference(
        sources=(os.fspath(a), os.fspath(b)),
        granule=granule,
        section_size=section_size(granule),
        changed=0,
        tables_added=0,
        tables_removed=0,
        frames_lost=None,
        frames_gained=None,
        hugepages_optimised=(),
        hugepages_restored=(),
        blocks_split=(),
        sections_added=(),
        sections_removed=(),
        other=(),
        other_count=0,
        elsewhere=None,
        mappings=tuple(changes(*maps)),
        exact=False,
        memstart_known=False,
        without_vmemmap=True,
    )


def diff_dumps(a: Dump, b: Dump) -> Difference:
    """The same of two that are open.

    Args:
        a: The earlier dump.
        b: The later one, of the same machine.

    Returns:
        The difference from the first to the second.

    Raises:
        SpecError: They are not of one machine.
    """
    notes = tuple(f"{dump.path}: {note}" for dump in (a, b) for note in dump.notes)
    a, b, gaps = _of_what_both_have(a, b)
    try:
        found = _core.diff(a.shape, b.shape)
    except SpecError as error:
        raise SpecError(f"{a.path} and {b.path} are not of one machine: {error}") from None
    maps = [mapping_of(dump) for dump in (a, b)]
    elsewhere = None if a.tables is None or b.tables is None else _core.diff_elsewhere(a.tables, b.tables)
    return Difference(
        sources=(os.fspath(a.path), os.fspath(b.path)),
        granule=a.shape.granule,
        section_size=section_size(a.shape.granule),
        changed=found["changed"],
        tables_added=found["tables_added"],
        tables_removed=found["tables_removed"],
        frames_lost=found["frames_lost"],
        frames_gained=found["frames_gained"],
        hugepages_optimised=tuple(found["hugepages_optimised"]),
        hugepages_restored=tuple(found["hugepages_restored"]),
        blocks_split=tuple(found["blocks_split"]),
        sections_added=tuple(found["sections_added"]),
        sections_removed=tuple(found["sections_removed"]),
        other=tuple(OtherChange(*change) for change in found["other"]),
        other_count=found["other_count"],
        elsewhere=elsewhere,
        mappings=tuple(changes(*maps, without="vmemmap")),
        exact=a.shape.exact and b.shape.exact,
        memstart_known=a.shape.memstart_known or b.shape.memstart_known,
        notes=notes,
        gaps=gaps,
        vmemmap_gaps=any(
            gap.touches(dump.image.description.vmemmap_start, dump.image.description.vmemmap_end)
            for gap in gaps
            for dump in (a, b)
            if dump.image is not None
        ),
    )


def _of_what_both_have(a: Dump, b: Dump) -> tuple[Dump, Dump, tuple[Gap, ...]]:
    """The two without what the tables of either do not show, and what that is.

    Raises:
        ImageError: The other is a text, out of which nothing can be left.
    """
    gaps = tuple(
        sorted({gap for dump in (a, b) if dump.image is not None for gap in gaps_of(dump.image, dump.left_out)})
    )
    if not gaps:
        return a, b, ()
    for text, cut in ((a, b), (b, a)):
        if text.image is None:
            raise ImageError(
                f"{cut.path}: the tables of {told(gaps)} are not in the dump: a text cannot be compared with it"
            )
    if (a.shape.granule, a.shape.va_bits) != (b.shape.granule, b.shape.va_bits):
        return a, b, gaps
    # A block that reaches beyond a gap takes its surroundings with it, in both.
    for dump in (a, b):
        assert dump.image is not None
        gaps = without(dump.image, gaps)[1]
    return _cut(a, gaps), _cut(b, gaps), gaps


def _cut(dump: Dump, gaps: tuple[Gap, ...]) -> Dump:
    assert dump.image is not None and dump.kind != "ptdump"
    return dump_of_image(dump.path, without(dump.image, gaps)[0], dump.kind)


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    noun, _, rest = what.partition(" of ")
    return f"{number} {noun}s of {rest}" if rest else f"{number} {what}s"


def _list(addresses: Sequence[int]) -> str:
    shown = ", ".join(f"{address:#x}" for address in addresses[:8])
    return shown + (f" and {len(addresses) - 8} more" if len(addresses) > 8 else "")


def _pfns(heads: Sequence[int]) -> str:
    return f"PFN {_list(heads)}"
