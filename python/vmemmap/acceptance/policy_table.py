"""The policies that the thread of May 2021 argued over, each explored, with what was expected of it beforehand.

The expectations are derived by hand (kernel-semantics §2.3, §4.6; the corpus R6, R32, R33, R35), not from this
program: a row that differs is a fault of the model or of the derivation, and the run says so.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lab.exploration import Result, merge
from ..lab.neighbours import Neighbours, lone_block
from ..lab.scenario import Actor, Variant, scenario
from ..lab.setup import SECTION_SIZE, Setup
from ..lab.together import Search, as_finished
from ..machine.machine import Machine

TABLE = "table freed in use"
HOLE = "hole"
STALE = "stale translation"
BBM = "break-before-make"
LOST = "lost store"

COLUMNS: Mapping[str, tuple[str, ...]] = {
    TABLE: ("I6", "I1"),
    HOLE: ("I2",),
    STALE: ("I4", "I5"),
    BBM: ("I19",),
    LOST: ("I28",),
}
"""Column → the invariants that it stands for; the first that is violated is the one whose trace is shown."""

GRANULES = {"4K": 4096, "16K": 16384, "64K": 65536}
KERNELS = ("2021", "6.1", "6.12")
NEWEST = "7.3"
HEAD_MOVES = ("6.12", NEWEST)
"""Kernels that rewrite the head's entry too."""
PAIRS = (("HVO", "hot remove"), ("HVO", "PFN walker"))
"""Who runs beside whom, each pair explored by itself."""


@scenario(
    title="one policy of the table, on neighbouring sections",
    sources=["May 2021 thread: kernel-semantics §2.3, §4.6"],
    judged=["I1", "I2", "I4", "I5", "I6", "I28"],
)
def policy_case(m: Setup, granule: str, actors: Sequence[str], also_live: bool = False) -> Sequence[Actor]:
    """The actors asked for, on sections A and B; ptdump dumps B, which is alone then."""
    if "ptdump" in actors:
        block = lone_block(m, granule)
        return [Actor("ptdump", [m.ptdump(block)]), Actor("hot remove", [m.memory.remove(block)])]
    pair = Neighbours.of(m, granule, also_live=also_live)
    known = {"HVO": pair.hvo, "hot remove": pair.hot_remove, "PFN walker": pair.reader}
    return [known[name]() for name in actors]


@dataclass(frozen=True)
class Case:
    """One row: a policy on a layout under a kernel behaviour. `violates` are the columns expected to be; the others
    must hold.
    """

    group: str
    granule: str
    policy: str
    kernel: str
    violates: frozenset[str]
    policies: Mapping[str, str]
    pairs: tuple[tuple[str, str], ...] = PAIRS
    also_live: bool = False

    def variants(self) -> list[Variant]:
        """For `explore`, one for each pair."""
        name = f"{self.granule.lower()}-{self.policy}-{self.kernel}"
        expect = "violated" if self.violates - {BBM} else "safe"
        return [
            Variant(
                name,
                expect,
                (),
                self.policies,
                self.kernel,
                {"granule": self.granule, "actors": pair, "also_live": self.also_live},
            )
            for pair in self.pairs
        ]

    @property
    def layout(self) -> str:
        """Granule, and whether a third section lives in the window."""
        return f"{self.granule}, third section" if self.also_live else self.granule


def _row(
    group: str,
    granule: str,
    kernel: str,
    violates: set[str],
    policies: Mapping[str, str],
    shown: str | None = None,
    **more: Any,
) -> Case:
    # 2021 populates base pages when HVO is on, and then has nothing to split.
    blocks = {"mapping": "blocks"} if granule == "4K" and kernel == "2021" else {}
    policy = shown or ", ".join(f"{name}={value}" for name, value in policies.items())
    return Case(group, granule, policy, kernel, frozenset(violates), {**blocks, **policies}, **more)


def _updates(group: str, granule: str, updates: Sequence[str], kernels: Sequence[str], **more: Any) -> Iterator[Case]:
    for update in updates:
        for kernel in kernels:
            violates = set[str]()
            if update != "bbm":
                violates.add(BBM)
            if update not in ("store", "swap"):
                violates.add(HOLE)
                # Only where the head moves too is every entry none at some time, which is what the scan looks for.
                if kernel in HEAD_MOVES and granule != "4K" and not more.get("also_live"):
                    violates.add(TABLE)
            yield _row(group, granule, kernel, violates, {"update": update}, **more)


def cases() -> list[Case]:
    """The rows, in the order of the table."""
    update = "Update of a hugepage's entries, {}: A and the removed section share {}"
    split = "Split of the block, 4K: A and the removed section share the PMD table"
    control = "Negative control: a third section lives in the window, so the table is never empty"
    window = update.format("64K", "a PTE table (one 512M page, 8192 entries)")
    sixteen = update.format("16K", "a PTE table (four 32M pages, 2048 entries)")
    swaps = ("store", "swap", "clear-then-set", "clear-then-set-each", "bbm")
    rows = [
        *_updates(window, "64K", swaps, KERNELS),
        *_updates(window, "64K", ("store", "clear-then-set"), (NEWEST,)),
        *_updates(sixteen, "16K", ("store", "swap", "clear-then-set"), ("6.1", "6.12")),
        # Entry by entry under 6.12 loses the table too, 63 context switches deep: `vmemmap explore R35` has it, and
        # takes as long for it as for all other rows together.
        *_updates(sixteen, "16K", ("clear-then-set-each",), ("6.1",)),
        *_updates(update.format("4K", "only the PMD table"), "4K", ("store", "swap", "clear-then-set"), ("6.1",)),
    ]
    for kernel in (*KERNELS, NEWEST):
        rows.append(_row(split, "4K", kernel, {BBM}, {"split": "store"}))
        rows.append(_row(split, "4K", kernel, {TABLE, HOLE, BBM}, {"split": "bbm"}))
    pages = {"mapping": "basepages", "split": "bbm"}
    rows.append(_row(split, "4K", "2021", {BBM}, pages, "split=never (base pages)"))
    readers = (("ptdump", "hot remove"),)
    rows += [
        _row(
            "ptdump beside hot remove",
            "4K",
            "6.1",
            set(),
            {"walker": "kernel"},
            "ptdump with get_online_mems",
            pairs=readers,
        ),
        _row(
            "ptdump beside hot remove",
            "4K",
            "6.1",
            {TABLE},
            {"walker": "mmap-only"},
            "ptdump without get_online_mems",
            pairs=readers,
        ),
        _row(
            "ptdump beside hot remove",
            "4K",
            "6.1",
            set(),
            {"hotplug": "kernel"},
            "hot remove with the lock",
            pairs=readers,
        ),
        _row(
            "ptdump beside hot remove",
            "4K",
            "6.1",
            {TABLE},
            {"hotplug": "none"},
            "hot remove without the lock",
            pairs=readers,
        ),
        *_updates(control, "64K", ("clear-then-set", "clear-then-set-each"), ("6.12",), also_live=True),
        _row(control, "4K", "6.1", {HOLE, BBM}, {"split": "bbm"}, also_live=True),
        *_updates(control, "64K", ("store",), ("6.12",), also_live=True),
    ]
    return rows


@dataclass(frozen=True)
class Cost:
    """Counted on the native machine while one PMD-sized hugepage is allocated and optimised. `frames_saved` is net of
    what HVO itself takes: the fresh head (6.12), the table of a split (4K)."""

    tlbi: int
    dsb: int
    stores: int
    frames_saved: int

    def to_dict(self) -> dict[str, int]:
        """For JSON."""
        return {"tlbi": self.tlbi, "dsb": self.dsb, "stores": self.stores, "frames_saved": self.frames_saved}


def cost(case: Case) -> Cost | None:
    """What the policy costs and saves; ``None`` for a row without HVO."""
    if case.pairs != PAIRS:
        return None
    size = GRANULES[case.granule]
    section = SECTION_SIZE[size]
    machine = Machine(
        granule=size,
        kernel=case.kernel,
        boot_memory=section,
        hotplug_memory=section,
        checked=False,
        **{name.replace("-", "_"): value for name, value in case.policies.items()},
    )
    block = machine.memory.add(section)
    block.online()
    pool = list(machine.hugetlb.values())[1]
    before = machine.counters
    pool.allocate(pfns=[block.start // size])
    after = machine.counters
    spent = {name: after[name] - before[name] for name in after}
    saved = spent["frames_freed"] - spent["frames_allocated"]
    return Cost(spent["tlbi"], spent["dsb"], spent["writes"] + spent["exchanges"], saved)


@dataclass(frozen=True)
class Cell:
    """One invariant column of a row."""

    state: str
    invariants: tuple[str, ...] = ()
    steps: int | None = None

    @classmethod
    def of(cls, result: Result, invariants: Sequence[str]) -> Cell:
        """Violated if one of them is, held if one held and none is violated."""
        violated = [i for i in invariants if result.invariants.get(i) == "violated"]
        if violated:
            steps = [result.invariant_steps[i] for i in violated if i in result.invariant_steps]
            return cls("violated", tuple(violated), min(steps) if steps else None)
        states = [result.invariants.get(i, "not judged") for i in invariants]
        return cls("held") if "held" in states else cls(states[0])

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"state": self.state, "invariants": list(self.invariants), "steps": self.steps}


@dataclass(frozen=True)
class Row:
    """A case with what was found."""

    case: Case
    order: int
    result: Result
    cost: Cost | None
    cells: Mapping[str, Cell] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", {name: Cell.of(self.result, ids) for name, ids in COLUMNS.items()})

    @property
    def differs(self) -> list[str]:
        """Columns that are not as expected. A search that did not finish counts as one, unless what it was to show
        is violated; what it has not seen yet is no difference.
        """
        violated = {name for name, cell in self.cells.items() if cell.state == "violated"}
        missing, beyond = self.case.violates - violated, violated - self.case.violates
        if not self.result.exhaustive and (missing or not self.case.violates - {BBM}):
            return ["not exhaustive", *(name for name in self.cells if name in beyond)]
        return [name for name in self.cells if name in missing | beyond]

    @property
    def verdict(self) -> str:
        """In few words, for the table; never ``safe`` where anything is violated or the search did not finish."""
        if not self.result.violated:
            return self.result.words
        open_cells = any(cell.state not in ("held", "violated") for cell in self.cells.values())
        rest = "all else open" if open_cells or not self.result.exhaustive else "all else held"
        return f"{' '.join(self.result.violated)} violated, {rest}"

    @property
    def expected(self) -> str:
        """In words."""
        return ", ".join(sorted(self.case.violates)) or "everything held"

    def to_dict(self) -> dict[str, object]:
        """For JSON and the report; the trace is that of the worst column that is violated."""
        result = self.result.to_dict()
        shown = next((i for name in COLUMNS for i in self.cells[name].invariants), None)
        counterexample = self.result.trace_of(shown) if shown else None
        if counterexample is not None:
            violation, steps, shortest = counterexample
            result.update(violation=violation.to_dict(), trace=[step.to_dict() for step in steps], shortest=shortest)
        settings = " ".join(f"--set {name}={value}" for name, value in self.case.policies.items())
        return {
            "order": self.order,
            "group": self.case.group,
            "layout": self.case.layout,
            "policy": self.case.policy,
            "kernel": self.case.kernel,
            "cells": {name: cell.to_dict() for name, cell in self.cells.items()},
            "cost": self.cost.to_dict() if self.cost else None,
            "words": self.verdict,
            "verdict": self.result.words,
            "expected": self.expected,
            "differs": self.differs,
            "as_expected": not self.differs,
            "scope": self.result.scope_words,
            "command": _again(self.case) or f"vmemmap explore {_nearest(self.case, shown)} {settings}".strip(),
            "result": result,
        }


def _again(case: Case) -> str | None:
    """The row of the newest kernel is one of a comparison; no scenario has a variant of it."""
    change = [f"{'split-' if name == 'split' else ''}{value}" for name, value in case.policies.items()]
    return f"vmemmap compare R32 --only {case.granule}-{change[0]}-{case.kernel}" if case.kernel == NEWEST else None


def _nearest(case: Case, shown: str | None) -> str:
    """A shipped scenario and variant on which the policy violates the same invariant: a hole needs a reader."""
    if case.pairs != PAIRS:
        return "R6"
    if shown == "I2":
        if case.granule == "64K" and case.kernel not in HEAD_MOVES:
            return f"R33 --variant 64k-clear-then-set-{case.kernel}-reader"
        return f"R3 --variant {'split-store' if 'split' in case.policies else 'clear-then-set'}"
    third = "-third-live" if case.also_live else ""
    if case.granule == "4K":
        return f"R32 --variant 4k-split-bbm{third}" if third else f"R33 --variant 4k-split-store-{case.kernel}"
    if third:
        return f"R32 --variant {case.granule.lower()}-clear-then-set{third}"
    return f"R33 --variant {case.granule.lower()}-clear-then-set-{case.kernel}"


#: Seconds for making a trace shorter, and for proving that none is.
SHORTEN = 1.5


def explore_all(workers: int, seconds: float) -> Generator[Row, None, None]:
    """Explore every case, as they finish; the caller sorts them. `seconds` is the budget of all together.

    The longest searches go first; at the end every row still has the second that all but those need.
    """
    listed = cases()
    groups = list(dict.fromkeys(case.group for case in listed))
    rows = sorted(
        listed,
        key=lambda case: (case.kernel in HEAD_MOVES, TABLE in case.violates, case.granule == "16K"),
        reverse=True,
    )

    def one(case: Case, search: Search) -> Row:
        found = [search(policy_case, variant) for variant in case.variants()]
        return Row(case, groups.index(case.group), merge(found), cost(case))

    return as_finished(rows, one, seconds=seconds, shorten=SHORTEN, workers=workers)


def in_order(rows: Sequence[Row]) -> list[Row]:
    """As the table lists them."""
    listed = cases()
    return sorted(rows, key=lambda row: listed.index(row.case))
