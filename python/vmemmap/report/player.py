"""A trace to step through: lanes of the actors, the descriptors that they meet at, and what each CPU may still hold.

Everything is computed here; the page's script only shows the state behind the step that is chosen, and without a script
the page shows the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..lab.trace import Step, Violation
from ..spec import GRANULES
from .lanes import conflicts, descriptor

__all__ = ["Cell", "Frame", "Player", "Table", "player"]

_LEVELS = ("pgd", "p4d", "pud", "pmd", "pte")
_ENTRY = re.compile(r"\b(pgd|p4d|pud|pmd|pte) (0x[0-9a-f]+)")
_INDEXED = re.compile(r"\b(pgd|p4d|pud|pmd|pte)\[(\d+)\] of frame (0x[0-9a-f]+)")
_FRAME = re.compile(r"\bframe (0x[0-9a-f]+)")
#: What the core writes of a violation into the note of its step.
_VIOLATED = re.compile(r"(I\d+) (?:violated|falls): (.*)")
#: And of what began in an earlier step.
_BEGAN = re.compile(r"old, loaded early in step [^:]*: [^:]*|loaded early, in step \d+|waited since step \d+")
#: Descriptors of one table that are drawn; the others of a long scan go the same way.
MOST_CELLS = 24
#: Translations of one CPU that are listed.
MOST_STALE = 4
#: Steps of one actor in a row that nobody meets at, of which the middle is folded.
_RUN, _ENDS = 8, 3
_ADDRESS = 0x0000_FFFF_FFFF_F000


@dataclass(frozen=True)
class Cell:
    """A descriptor of the drawing: which, and what it is before the first step."""

    name: str
    address: int
    kind: str
    words: str


@dataclass(frozen=True)
class Table:
    """Descriptors of one table, in the order of their addresses."""

    title: str
    cells: tuple[Cell, ...]
    left_out: int


@dataclass
class Frame:
    """One line of the drawing: a step, or several folded; and what changes with it."""

    lane: int
    steps: tuple[Step, ...]
    head: str
    place: str
    words: str
    label: str
    taken: str
    after: str
    violated: str
    is_fatal: bool
    #: (number of the cell, kind, words), and what each CPU may hold of stale translations, if that changes.
    cells: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    stale: list[list[str]] | None = None
    #: Which step it is the end of; lanes (from 1) on which something waits here (from, through, to), in words.
    since: str = ""
    waits: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])

    @property
    def number(self) -> str:
        """Of the step, or of the first and last."""
        first, last = self.steps[0].step, self.steps[-1].step
        return f"{first}" if first == last else f"{first}–{last}"


@dataclass(frozen=True)
class Player:
    """What the template draws. `cpus` and `actors` are the lanes."""

    title: str
    actors: tuple[tuple[str, int], ...]
    tables: tuple[Table, ...]
    frames: tuple[Frame, ...]

    @property
    def cpus(self) -> list[int]:
        """Whose translations are shown."""
        return sorted({cpu for _, cpu in self.actors})

    @property
    def data(self) -> dict[str, object]:
        """For the script: the cells before the first step, and what each frame changes."""
        return {
            "start": [[cell.kind, cell.words] for table in self.tables for cell in table.cells],
            "frames": [{"cells": frame.cells, "stale": frame.stale} for frame in self.frames],
        }

    @property
    def end(self) -> tuple[list[tuple[str, str]], list[list[str]]]:
        """Cells and stale translations behind the last step: what is shown without a script."""
        cells = [(cell.kind, cell.words) for table in self.tables for cell in table.cells]
        stale: list[list[str]] = [[] for _ in self.cpus]
        for frame in self.frames:
            for number, kind, words in frame.cells:
                cells[number] = (kind, words)
            stale = frame.stale if frame.stale is not None else stale
        return cells, stale


def _words(level: str, word: int) -> str:
    """A descriptor at that level, in words."""
    # `descriptor` cannot tell a table whose upper attributes are all clear from a number.
    if level != "pte" and word & 3 == 3:
        return f"table {word & _ADDRESS:#x}"
    return descriptor(word)


def _kind(words: str) -> str:
    """Of a descriptor in words: none, rw, ro, block, table, or a word that is none."""
    if words == "none":
        return "none"
    if words.startswith("page "):
        return words.split()[1]
    return words.split()[0] if words.startswith(("block", "table")) else "word"


class _Tables:
    """What a trace tells of the tables, followed from step to step."""

    def __init__(self, granule: int, trace: Sequence[Step]) -> None:
        self._granule = granule
        seen = {found[1] for step in trace if (found := _ENTRY.search(step.place or step.note))}
        seen |= {found[1] for step in trace if (found := _INDEXED.search(step.place or step.note))}
        self._levels = [level for level in _LEVELS if level in seen]
        #: (level, first address) of a table → its frame, and back.
        self._frames: dict[tuple[str, int], int] = {}
        self._bases: dict[int, tuple[str, int]] = {}

    def size(self, level: str) -> int:
        """Bytes that one entry maps."""
        return self._granule * (self._granule // 8) ** (len(_LEVELS) - 1 - _LEVELS.index(level))

    def base(self, level: str, address: int) -> int:
        """First address of the table that an entry is in."""
        return address & ~(self.size(level) * (self._granule // 8) - 1)

    def is_indexed(self, level: str) -> bool:
        """Whether an address tells the index: not in the root, which is smaller than a table with some VA sizes."""
        return level == "pte" or level != self._levels[0]

    def frame(self, level: str, address: int) -> int | None:
        """Where that table is, once a descriptor of it was seen."""
        return self._frames.get((level, self.base(level, address)))

    def entry(self, step: Step) -> tuple[str, int] | None:
        """(level, address) of the entry that a step touches, unless its table is private to an actor."""
        place = step.place or step.note
        if found := _ENTRY.search(place):
            return found[1], int(found[2], 0)
        if (found := _INDEXED.search(place)) and int(found[3], 0) in self._bases:
            level, base = self._bases[int(found[3], 0)]
            return level, base + int(found[2]) * self.size(level)
        return None

    def learn(self, entry: tuple[str, int], word: int | None) -> None:
        """A descriptor of a table says where the table below is."""
        level, address = entry
        at = self._levels.index(level) if level in self._levels else len(self._levels)
        if word is not None and at + 1 < len(self._levels) and _words(level, word).startswith("table"):
            below = (self._levels[at + 1], address)
            self._frames[below], self._bases[word & _ADDRESS] = word & _ADDRESS, below

    def within(self, frame: int) -> tuple[str, int] | None:
        """The table of a frame."""
        return self._bases.get(frame)


@dataclass
class _Stale:
    """What each CPU may still translate by: a descriptor that was valid and is overwritten, until a TLBI that covers it
    and the DSB behind it."""

    tables: _Tables
    cpus: Sequence[int]
    held: dict[int, dict[tuple[str, int], int]] = field(init=False)
    pending: dict[int, list[tuple[str, int | None]]] = field(init=False)

    def __post_init__(self) -> None:
        self.held = {cpu: {} for cpu in self.cpus}
        self.pending = {cpu: [] for cpu in self.cpus}

    def see(self, step: Step, entry: tuple[str, int] | None) -> None:
        """One step more."""
        if step.op.startswith("tlbi"):
            self.pending[step.cpu].append((step.op, step.address))
        elif step.op.startswith("dsb") and "st" not in step.op.split()[-1][2:]:
            for op, address in self.pending[step.cpu]:
                for cpu in self.cpus if op.endswith(("is", "os")) else (step.cpu,):
                    self.held[cpu] = {at: w for at, w in self.held[cpu].items() if not self._covers(op, address, at)}
            self.pending[step.cpu] = []
        elif entry is not None and step.old is not None and step.old & 1 and step.new not in (None, step.old):
            for cpu in self.cpus:
                self.held[cpu].setdefault(entry, step.old)

    def _covers(self, op: str, address: int | None, entry: tuple[str, int]) -> bool:
        name = op.split()[1] if " " in op else op
        if address is None or name.startswith(("vmalle", "alle", "aside")):
            return True
        level, first = entry
        if name.startswith("r"):
            # A range: at most a table of pages behind its first address.
            return first + self.tables.size(level) > address
        return first <= address < first + self.tables.size(level)

    def words(self) -> list[list[str]]:
        """For each CPU."""
        return [self._words(sorted(self.held[cpu].items())) for cpu in self.cpus]

    def _words(self, held: Sequence[tuple[tuple[str, int], int]]) -> list[str]:
        listed = [f"{level} {address:#x} → {_words(level, word)}" for (level, address), word in held[:MOST_STALE]]
        return [*listed, f"and {len(held) - MOST_STALE} more"] if len(held) > MOST_STALE else listed


def _framed(trace: Sequence[Step], fatal: int, entries: Sequence[tuple[str, int] | None]) -> set[int]:
    """Steps that are drawn: where actors meet, the fatal one, and what changes tables that others can reach."""
    meeting = conflicts(trace)
    shown = {fatal, *meeting, *meeting.values()}
    number = {step.step: index for index, step in enumerate(trace)}
    for index, step in enumerate(trace):
        if step.since in number:
            shown |= {index, number[step.since]}
    run: list[int] = []

    def keep() -> None:
        shown.update(run if len(run) <= _RUN else run[:_ENDS] + run[-_ENDS:])
        run.clear()

    for index, step in enumerate(trace):
        changes = entries[index] is not None and step.new is not None
        if run and trace[run[-1]].actor != step.actor:
            keep()
        if changes or step.op.startswith("tlbi") or (step.op == "free" and index > 0) or step.taken:
            run.append(index)
    keep()
    return shown


def _head(step: Step) -> str:
    found = _ENTRY.search(step.place) or _INDEXED.search(step.place)
    return f"{step.op} {found[1]}" if found else step.op


def _change(step: Step) -> str:
    found = _ENTRY.search(step.place) or _INDEXED.search(step.place)
    level = found[1] if found else "pte"
    if step.old is not None and step.new is not None:
        return f"{_words(level, step.old)} → {_words(level, step.new)}"
    if step.new is not None:
        return f"→ {_words(level, step.new)}"
    return f"= {_words(level, step.old)}" if step.old is not None else ""


def _fold(lane: int, steps: Sequence[Step]) -> Frame:
    count = steps[-1].step - steps[0].step + 1
    names = list(dict.fromkeys(step.label or step.note.partition(":")[0] or step.op for step in steps))
    head = steps[0].op if count == 1 else f"{count:,} steps"
    return Frame(lane, tuple(steps), head, "", "", ", ".join(names), "", "", "", False)


def _single(trace: Sequence[Step], index: int, lane: int, source: int | None, is_fatal: bool) -> Frame:
    step = trace[index]
    violated = _VIOLATED.search(step.note)
    before = f"after step {trace[source].step} of {trace[source].actor}" if source is not None else ""
    label = step.label or step.note.partition(":")[0]
    place = step.place or (f"{step.address:#x}" if step.address is not None else "")
    said = f"{violated[1]} violated: {violated[2]}" if violated else ""
    began = _BEGAN.search(step.note)
    since = began[0] if began else ""
    taken = step.taken or ""
    return Frame(lane, (step,), _head(step), place, _change(step), label, taken, before, said, is_fatal, since=since)


def _frames(trace: Sequence[Step], fatal: int, entries: Sequence[tuple[str, int] | None]) -> Iterator[Frame]:
    actors = list(dict.fromkeys(step.actor for step in trace))
    shown, meeting = _framed(trace, fatal, entries), conflicts(trace)
    folded: list[Step] = []
    for index, step in enumerate(trace):
        if folded and (folded[-1].actor != step.actor or index in shown):
            yield _fold(actors.index(folded[0].actor), folded)
            folded = []
        # One that stands alone takes no more room than a fold of it would.
        alone = not folded and (index + 1 in shown or trace[min(index + 1, len(trace) - 1)].actor != step.actor)
        if index in shown or alone:
            yield _single(trace, index, actors.index(step.actor), meeting.get(index), index == fatal)
        else:
            folded.append(step)
    if folded:
        yield _fold(actors.index(folded[0].actor), folded)


def _drawn(
    tables: _Tables, wanted: Iterable[tuple[str, int]], first: Mapping[tuple[str, int], int]
) -> Iterator[tuple[Table, list[tuple[str, int]]]]:
    groups: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for entry in dict.fromkeys(wanted):
        groups.setdefault((entry[0], tables.base(*entry)), []).append(entry)
    for (level, base), listed in sorted(groups.items(), key=lambda item: (_LEVELS.index(item[0][0]), item[0][1])):
        kept = sorted(listed[:MOST_CELLS], key=lambda entry: entry[1])
        where = tables.frame(level, base)
        title = f"{level.upper()} table{f' at {where:#x}' if where is not None else ''}"
        cells = [
            Cell(
                f"[{(address - base) // tables.size(level)}]" if tables.is_indexed(level) else f"{address:#x}",
                address,
                _kind(_words(level, first[level, address])),
                _words(level, first[level, address]),
            )
            for _, address in kept
        ]
        yield Table(title, tuple(cells), len(listed) - len(kept)), kept


def player(trace: Sequence[Step], violation: Violation | None, title: str, granule: int | str) -> Player | None:
    """The drawing of a trace that ends in `violation`; ``None`` for an empty one."""
    if not trace:
        return None
    size = GRANULES[granule] if isinstance(granule, str) else granule
    fatal = next((i for i, s in enumerate(trace) if violation is not None and s.step == violation.step), len(trace) - 1)
    tables = _Tables(size, trace)
    actors = {step.actor: step.cpu for step in trace}
    for step in trace:
        if _WAITS in step.note:
            actors.setdefault(_buffer(step), step.cpu)
    entries: list[tuple[str, int] | None] = []
    first: dict[tuple[str, int], int] = {}
    for step in trace:
        entry = tables.entry(step)
        entries.append(entry)
        if entry is not None:
            tables.learn(entry, step.new if step.new is not None else step.old)
            word = step.old if step.old is not None else step.new
            if word is not None:
                first.setdefault(entry, word)
    frames = list(_frames(trace, fatal, entries))
    _join(frames, {actor: lane for lane, actor in enumerate(actors)})
    at = {step.step: entry for step, entry in zip(trace, entries, strict=True)}
    # Those at which something is drawn come first, before the entries of a table that is merely scanned.
    singles = [at[f.steps[0].step] for f in frames if len(f.steps) == 1 and f.head]
    wanted = [entry for entry in singles if entry is not None and entry in first]
    drawn = list(_drawn(tables, wanted, first))
    order = {entry: number for number, entry in enumerate(entry for _, kept in drawn for entry in kept)}
    _follow(frames, at, order, tables, _Stale(tables, sorted(set(actors.values()))))
    return Player(title, tuple(actors.items()), tuple(table for table, _ in drawn), tuple(frames))


#: What the core says of a store that waits.
_WAITS = "waits in the store buffer"


def _buffer(step: Step) -> str:
    """The actor that stands for the store buffer of its CPU."""
    return f"store buffer of CPU {step.cpu}"


def _join(frames: Sequence[Frame], lanes: Mapping[str, int]) -> None:
    """Draws what begins in one step and takes effect in a later one as a line between the two, on the lane of the store
    buffer or load queue; to the end, if it never does."""
    begun = {f.steps[0].step: row for row, f in enumerate(frames) if _WAITS in f.steps[0].note}
    ended = {frame.steps[0].since for frame in frames}
    for number, row in begun.items():
        if number not in ended:
            lane = lanes[_buffer(frames[row].steps[0])] + 1
            frames[row].waits.append((lane, "from", "waits"))
            for frame in frames[row + 1 :]:
                frame.waits.append((lane, "through", ""))
    rows = {step.step: row for row, frame in enumerate(frames) for step in frame.steps}
    for end, last in enumerate(frames):
        step = last.steps[0]
        if step.since not in rows:
            continue
        begin = rows[step.since]
        first = frames[begin].steps[0]
        # A commit is the buffer's, and so is an early load the queue's.
        waits = step.op == "commit"
        lane = lanes[step.actor if waits else first.actor] + 1
        frames[begin].waits.append((lane, "from", "waits" if waits else ""))
        frames[end].waits.append((lane, "to", "" if waits else "returned"))
        for frame in frames[begin + 1 : end]:
            frame.waits.append((lane, "through", ""))


def _follow(
    frames: Sequence[Frame],
    at: Mapping[int, tuple[str, int] | None],
    order: Mapping[tuple[str, int], int],
    tables: _Tables,
    stale: _Stale,
) -> None:
    """What each frame changes of cells and stale translations."""
    before: list[list[str]] = [[] for _ in stale.cpus]
    for frame in frames:
        changed: dict[int, tuple[str, str]] = {}
        for step in frame.steps:
            entry = at[step.step]
            stale.see(step, entry)
            if entry is not None and entry in order and step.new is not None:
                words = _words(entry[0], step.new)
                changed[order[entry]] = (_kind(words), words)
            freed = _FRAME.search(step.place or step.note) if step.op == "free" else None
            table = tables.within(int(freed[1], 0)) if freed else None
            if table is not None:
                inside = (n for e, n in order.items() if e[0] == table[0] and tables.base(*e) == table[1])
                changed.update((number, ("freed", "freed")) for number in inside)
        frame.cells = [(number, *what) for number, what in sorted(changed.items())]
        now = stale.words()
        if now != before:
            frame.stale = before = now
