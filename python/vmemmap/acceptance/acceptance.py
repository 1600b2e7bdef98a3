"""``vmemmap run``: the question of May 2021, put to the tables of a real kernel.

The acceptance test is the one that the thread asked for and never published: HugeTLB pages allocated, used and freed
without pause beside a memory block that is added and removed without pause, while ptdump and PFN walkers read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .. import __version__
from ..lab.memory import Block
from ..lab.scenario import Actor, Scenario, Variant, scenario
from ..lab.setup import STRUCT_PAGE, Setup
from ..lab.stressing import StressResult, stress
from .found import Found
from .policy_table import COLUMNS, Row

QUESTION = (
    "Can HugeTLB give back the struct pages that it does not need while a neighbouring memory block is hot-removed "
    "and the page tables are being dumped?"
)
CAVEAT = (
    "Not every row is a kernel. Entries cleared before they are set, break-before-make and hot remove without its "
    "lock are schemes, proposed or put in here to see what they violate; no arm64 kernel shipped them for vmemmap. "
    "Two rows were real: the exchange in one store, which arm64 could select from v5.19 until early 2023, when it "
    "was switched off because it breaks break-before-make (I19; 060a2c92d1b6, stable 6.1.16 and 6.2.3); and a walk "
    "without get_online_mems, which ptdump_check_wx did until 59305202c67f (CVE-2025-38681)."
)
COST_NOTE = (
    "Counted on the native machine while one PMD-sized hugepage (2M, 32M, 512M) is allocated and optimised, the "
    "split of its block included where there is one. Frames saved is net of the fresh head (6.12) and of the table "
    "of a split. What the approaches A to D cost on a modelled machine: vmemmap compare R3 (docs/the-question.md)."
)
WALKER_NOTE = (
    "I10, where a verdict lists it, follows from I19: as long as the old and the new translation may both be used, "
    "the reads that a PFN walker makes of one struct page can come from either frame, which defeats the test for "
    "fake heads. 2021 keeps two pages and has no fake heads; break-before-make leaves nothing to mix."
)
LIMITS = (
    "What these searches do not explore is listed in docs/limits.md: relaxed memory, more rounds than said, more "
    "than one hugepage per window, hardware that no rule of the Arm ARM describes."
)

#: Fewer operations of an actor than this, and the acceptance test has not said anything.
ENOUGH = 1000


def beside_hotplug(found: Found) -> Scenario:
    """The acceptance test on the machine that was found."""

    @scenario(
        title=(
            "HugeTLB allocated, used and freed beside a block that is added and removed, under ptdump and PFN walkers"
        ),
        sources=["https://lore.kernel.org/all/df8a0fd5-2389-6ef0-b8e2-1c56663e7868@arm.com/ (A. Khandual, May 2021)"],
        judged=["I1", "I2", "I3", "I6", "I8", "I13", "I14"],
        variants=[Variant("default", "safe", kernel=found.kernel)],
    )
    def hugetlb_beside_hotplug(m: Setup) -> Sequence[Actor]:
        found.configure(m)
        pool = m.pmd_hugepage
        block = m.memory.add(m.section, start=found.place)
        whole = Block("memory", start=found.stays[0][0], bytes=found.place + m.section - found.stays[0][0])
        per_page = m.granule // STRUCT_PAGE
        walks = [m.pfn_walk(m.pfn(start), m.pfn(start + size), per_page) for start, size in found.stays]
        return [
            Actor("HugeTLB", [pool.allocate(), pool.use(), pool.free()]),
            Actor("memory block", [block, m.memory.online(block), m.memory.offline(block), m.memory.remove(block)]),
            Actor("ptdump", [m.ptdump(whole)]),
            Actor("PFN walker", walks),
        ]

    return hugetlb_beside_hotplug


@dataclass(frozen=True)
class Acceptance:
    """The acceptance test as it went."""

    result: StressResult

    @property
    def overlaps(self) -> int:
        """Allocations and frees that ran while the block was being added or removed."""
        return int(self.result.overlaps.get("alloc_free_while_add_remove", 0))

    @property
    def held(self) -> bool:
        """No violation was seen."""
        return not self.result.violation_count

    @property
    def lacking(self) -> list[str]:
        """Why the test says nothing, if it does not: an actor that did too little, or no overlap."""
        done = {str(a["name"]): int(a["operations"]) - sum(a.get("errors", {}).values()) for a in self.result.actors}
        short = [f"{name} made {count} operations of {ENOUGH}" for name, count in done.items() if count < ENOUGH]
        if not self.overlaps:
            short.append("allocation and freeing never overlapped with adding and removing")
        return short

    @property
    def words(self) -> str:
        """One sentence."""
        did = f"{self.result.operations:,} operations in {self.result.seconds:.1f} s on {self.result.threads} threads"
        if not self.held:
            names = ", ".join(sorted({v.invariant for v in self.result.violations}, key=lambda i: int(i[1:])))
            return f"The acceptance test did not hold: {self.result.violation_count:,} violations of {names} in {did}."
        if self.lacking:
            return f"The acceptance test is inconclusive: {'; '.join(self.lacking)}."
        return (
            f"The acceptance test held: no violation in {did}, {self.overlaps:,} times allocation or freeing met "
            "adding or removing."
        )

    def to_dict(self) -> dict[str, object]:
        """For JSON and the report."""
        counters = self.result.counters
        shown = ("exchanges", "writes", "tlbi", "dsb", "tables_freed", "frames_allocated", "frames_freed")
        errors = {name: n for actor in self.result.actors for name, n in actor.get("errors", {}).items()}
        facts = [
            ["violations", f"{self.result.violation_count:,}"],
            ["allocation or freeing met adding or removing", f"{self.overlaps:,} times"],
            *([name.replace("_", " "), f"{counters[name]:,}"] for name in shown if name in counters),
            ["errors the kernel returned", ", ".join(f"{name} {n:,}" for name, n in errors.items()) or "none"],
            ["not visible to real threads", "I4, I5, I19 (a native machine has no TLB)"],
        ]
        return {
            **self.result.to_dict(),
            "words": self.words,
            "held": self.held,
            "overlap": self.overlaps,
            "lacking": self.lacking,
            "facts": facts,
        }


@dataclass
class RunResult:
    """Everything a run found so far. `to_dict` is what ``vmemmap run --json`` prints and what the report shows."""

    found: Found
    created: str
    acceptance: Acceptance | None = None
    rows: list[Row] = field(default_factory=list[Row])
    expected_rows: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def as_expected(self) -> bool:
        """Every verdict is there and is the expected one."""
        return len(self.rows) == self.expected_rows and not any(row.differs for row in self.rows)

    @property
    def held(self) -> bool:
        """The acceptance test held and said something, and every verdict is the expected one."""
        return self.acceptance is not None and self.acceptance.held and not self.acceptance.lacking and self.as_expected

    @property
    def exit_code(self) -> int:
        """Of `vmemmap run`: 0, 1, 3 or 130."""
        if self.interrupted:
            return 130
        if self.acceptance is None:
            return 3
        if not self.acceptance.held or any(set(row.differs) - {"not exhaustive"} for row in self.rows):
            return 1
        if self.acceptance.lacking or not self.as_expected:
            return 3
        return 0

    @property
    def answer(self) -> str:
        """The answer in a paragraph."""
        test = self.acceptance.words if self.acceptance else "The acceptance test did not finish."
        odd = [row for row in self.rows if set(row.differs) - {"not exhaustive"}]
        unfinished = [row for row in self.rows if row.differs == ["not exhaustive"]]
        if odd:
            verdicts = f"{len(odd)} of {len(self.rows)} verdicts are not the expected ones."
        elif unfinished and len(self.rows) == self.expected_rows:
            verdicts = (
                f"{len(unfinished)} of {len(self.rows)} searches did not finish in their time; no verdict was "
                "unexpected."
            )
        elif not self.as_expected:
            verdicts = f"Only {len(self.rows)} of {self.expected_rows} policies were explored."
        else:
            verdicts = (
                f"All {len(self.rows)} verdicts are the expected ones: with the kernel's locks and its exchange in "
                "one store no interleaving explored loses the table or a translation, and break-before-make (I19) "
                "is not kept; every scheme that writes none in between opens a hole, and where nothing else lives "
                "in the window some lose the table."
            )
        return f"{test} {verdicts}"

    def to_dict(self) -> dict[str, object]:
        """For JSON and the report."""
        return {
            "version": __version__,
            "created": self.created,
            "question": QUESTION,
            "answer": self.answer,
            "caveat": CAVEAT,
            "cost_note": COST_NOTE,
            "walker_note": WALKER_NOTE,
            "limits": LIMITS,
            "held": self.held,
            "exit_code": self.exit_code,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "input": {"name": self.found.path.name, "facts": [list(fact) for fact in self.found.facts]},
            "columns": [{"name": name, "invariants": list(ids)} for name, ids in COLUMNS.items()],
            "acceptance": self.acceptance.to_dict() if self.acceptance else None,
            "rows": [row.to_dict() for row in self.rows],
        }


def accept(
    found: Found, seconds: float, progress: Callable[[int, int, float, dict[str, int]], object] | None = None
) -> Acceptance:
    """Run the acceptance test with real threads on the checked machine."""
    return Acceptance(stress(beside_hotplug(found), seconds=seconds, progress=progress))
