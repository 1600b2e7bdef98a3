"""docs/the-question.md, made of results: what was asked in May 2021, and what the laboratory says of each answer.

Verdicts, steps, counts and times come from searches and runs; the sentences around them say what kind of statement each
is. ``benches/the_question.py`` writes the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from .comparing import Row
from .published import Predicted

__all__ = ["BATCHES", "approach_line", "condition_lines", "page", "prediction_line"]

BATCHES = ("allocate in a batch", "free in a batch", "demote")
CPUS = (64, 512)
"""Numbers of CPUs of the page's modelled times."""

_both = " and ".join(map(str, CPUS))

_HEAD = """<!-- made by `python benches/the_question.py`; not to be edited -->
# The question

In May 2021 the patch that lets arm64 HugeTLB give back struct pages was reviewed, and two things were asked: what
happens if a neighbouring memory block is hot-removed, or the tables are dumped, while vmemmap entries change? arm64
could select HVO from v5.19 until early 2023, when it was switched off (060a2c92d1b6): an exchange changes permission
and output address of a live entry in one store. Since then four ways back were argued about, and no kernel up to 7.3.4
has one of them, nor a hook for one. This page puts them through the same interleavings and the same costs. It is made
of results by `python benches/the_question.py`; each line names the command that gives it again.

**What a verdict is.** *Held* and *violated* are about a model: the kernel's algorithms as written in `rust/kernel`, on
full-size tables, every interleaving of the actors named in the scope, sequentially consistent memory, TLBs with the
freedom that the architecture gives them. *Violated* is not seen on hardware unless a line says so. `I19` is the
architecture's requirement of break-before-make (Arm ARM, RWHZWS): an obligation of who writes, which no schedule
avoids; nobody has published a failure from breaking it here. **What a time is.** Modelled: the same operations on a
machine whose latencies are assumed, each with its source in `python/vmemmap/data/machines/arm64.toml`. It shows
what dominates and how it grows, not how long anything takes somewhere.
"""

_CONDITIONS = """
## David Hildenbrand's two conditions

1. *Only PTEs change, no page tables are freed.* HVO frees no table in any kernel. With 4K pages it also changes PMD
   entries: a vmemmap block is split once for {per_block} hugepages of 2M ({splits:.3f} for each in the runs below,
   which begin inside a block). With 16K and 64K pages there are no vmemmap blocks, hence no splits.
2. *Entries are exchanged atomically*, or `free_empty_tables` may find a table empty that is not. Beside the removal of
   the only other section under the same table:

| layout and exchange | {kernels} | replay |
|---|{rule}---|
"""

_AFTER_CONDITIONS = """
*lost*: the table is freed in use (I6, I1). Cleared entries lose it only where the head's entry is rewritten too (6.12,
7.3): before, the first entry of a hugepage stands still, and the scan finds it. A block has one entry, so there
break-before-make is enough in every kernel. Where a third section lives under the table it is never empty
(`vmemmap explore R32`). Every row breaks I19 as well: what is cleared and set again without an invalidate in between
needs one as much, and at 4K the entries below the block are exchanged in one store.
"""

_APPROACHES = """
## A to D, and what is beside them

Explored with a PFN walker, with hot remove of the neighbour, and (A, B, D) with an interrupt on HVO's own CPU that
reads a struct page. *Counted* is for one 2M page allocated and freed again, one by one; *modelled µs* for each page of
a batch of 64 allocated / freed, and for each 2M page that a demoted 1G page becomes, at {cpus} CPUs.

| choice | kernel | verdict | shortest: steps, switches | TLBI, DSB, IPI, GP | longest hole, modelled | {times} |
|---|---|---|---|---|---|---|
"""

_NOTES = """
{elsewhere}

* **A** was proposed for a kernel that moves the head (6.12 here). Entry by entry every entry of the table is none at
  some time, so the scan of hot remove frees it: R35. With the head kept, what is left is the interrupt that waits for
  its own CPU (R4); interrupts off answer that one, but neither a pseudo-NMI nor PREEMPT_RT
  (`vmemmap explore R4 --variant a-nmi-same-cpu-masked`, `a-rt-irq-other-cpu`).
* **B** and **D** hold: the hole is there, but nobody runs while it is. What they cost grows with the CPUs, since each
  has to answer before an entry may change. D needs an interrupt that is never masked: with a plain one two pausers wait
  for each other (D-irq).
* **C** holds where the head keeps its frame, as 2021 and 6.1 did, and the old tails are made equal to the shared frame
  first. With a head that moves (6.12, 7.x as they are) its entry is exchanged read-write to read-write: I19. It
  interrupts nobody and flushes twice. In one run it does so page by page; two flushes for a batch would do. Its split
  is allowed by FEAT_BBM level 2 and above; at level 2 an access may still end in a conflict abort, which this search
  does not take, and without the feature the vmemmap has to be mapped by base pages from the start.
* A **grace period** (GP) of 6.12 is 10 ms here (Yu Zhao's figure): it hides all else where pages come one by one, and
  is shared in a batch.
* **R36's fixes** are judged on R36 alone; the exchange is still one store, hence I19.
"""

_KINDS = """
## What R33, R35 and R36 are

* **R33** and **R35** are faults of proposed schemes, or of schemes put in here to see what breaks: a hole that the scan
  of hot remove takes for an empty table, and a scan that is not atomic and frees a table that was never empty. No arm64
  kernel shipped them for vmemmap. R33 was derived from Hildenbrand's second condition, R35 was found by the search;
  neither was reported by anybody.
* **R36** is a fault of 7.x's generic code, derived from the removal of a grace period in 7.1 and reported by nobody;
  then confirmed on a stock x86-64 kernel with the interleaving forced: 7.3.4 with HVO on faults at the
  compare-and-exchange, with HVO off it gives up; 6.12.117 with HVO on waits. Emulated; no unforced occurrence is known.
  Not tried: arm64, 7.1, 7.2, 6.18.51. arm64 cannot select HVO, so none of its kernels has the race.
"""

_PUBLISHED = """
## Published figures, modelled

Given figures set one latency each and nothing else enters; these are predicted (`vmemmap compare --published`).

| figure | published s | modelled s | error | error of the increase |
|---|---|---|---|---|
"""

_SCOPES = """
## Scopes

"""


def _lost(row: Row) -> str:
    if {"I6", "I1"} & set(row.result.violated):
        return "**lost**"
    return "held" if row.result.exhaustive else "open"


def condition_lines(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The table of the second condition.

    Args:
        rows: Of ``vmemmap compare R32``.

    Returns:
        Kernels, and a line for each layout and exchange.
    """
    kernels = list(dict.fromkeys(row.choice.kernel for row in rows))
    by_title: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_title.setdefault(row.choice.title, {})[row.choice.kernel] = row
    lines: list[str] = []
    for title, found in by_title.items():
        stem = next(iter(found.values())).choice.name.rsplit("-", 1)[0]
        cells = " | ".join(_lost(found[kernel]) for kernel in kernels)
        lines.append(f"| {title} | {cells} | `vmemmap compare R32 --only {stem}-{kernels[-1]}` |")
    return kernels, lines


def _replays(rows: Sequence[Row]) -> str:
    others = ", ".join(f"`{row.command}`" for row in rows if row.command.startswith("vmemmap explore"))
    return f"Each row again: `vmemmap compare R3 --only NAME`, all: `vmemmap compare R3`; also {others}."


def _times(row: Row, cpus: int) -> str:
    work = next(work for work in row.works if work.cpus == cpus)
    timed = (name for name in BATCHES if not (row.choice.at_boot and name.startswith("allocate")))
    return " / ".join(f"{work.phases[name].quantile(0.5) / 1000:.1f}" for name in timed)


def approach_line(row: Row) -> str:
    """A row of the table of approaches.

    Args:
        row: Of ``vmemmap compare R3``, run with `CPUS` CPUs.

    Returns:
        A line of Markdown.
    """
    counts = row.counts()
    assert counts is not None
    if row.verdict == "safe":
        verdict = "held"
    else:
        verdict = f"**{' '.join(row.result.judged_violated)}**" if row.result.judged_violated else "held"
        beside = [i for i in row.result.violated if i not in row.result.judged_violated]
        verdict += f", {' '.join(beside)} besides" if beside else ""
    verdict += "" if row.result.exhaustive or row.verdict == "violated" else ", not exhaustive"
    shortest = f"{len(row.result.trace)}, {row.switches}" if row.switches is not None else ""
    counted = f"{counts.tlbi:.0f}, {counts.dsb:.0f}, {counts.ipi:.0f}, {counts.grace_periods:.0f}"
    hole = f"{counts.hole_ns / 1000:.1f} µs" if counts.hole_ns else "none"
    remark = f" ({row.choice.remark})" if row.choice.remark else ""
    times = "; ".join(_times(row, cpus) for cpus in CPUS)
    name = f"**{row.choice.name}** {row.choice.title}{remark}"
    return f"| {name} | {row.choice.kernel} | {verdict} | {shortest} | {counted} | {hole} | {times} |"


def prediction_line(cell: Predicted) -> str:
    """A predicted figure.

    Args:
        cell: It.

    Returns:
        A line of Markdown.
    """
    increase = f"{cell.increase_error:+.1f} %" if cell.increase_error is not None else ""
    name = f"{cell.source.machine}: {cell.cell.name}"
    why = (
        f" ({cell.cell.remark})"
        if cell.cell.remark and cell.within is None and cell.source.machine != "zhao-v2"
        else ""
    )
    return f"| {name}{why} | {cell.cell.seconds:.3f} | {cell.modelled:.3f} | {cell.error:+.1f} % | {increase} |"


def page(
    conditions: Sequence[Row], approaches: Sequence[Row], cells: Sequence[Predicted], unmapped: tuple[float, float]
) -> str:
    """The whole page.

    Args:
        conditions: Rows of ``vmemmap compare R32``.
        approaches: Rows of ``vmemmap compare R3``, run with `CPUS` CPUs.
        cells: Published figures.
        unmapped: Modelled time in ``unmap_hotplug_range``, flushed entry by entry and once.

    Returns:
        Markdown.
    """
    kernels, lines = condition_lines(conditions)
    shipped = next(row for row in approaches if row.choice.name == "shipped")
    counts = shipped.counts()
    assert counts is not None
    parts = [
        _HEAD,
        _CONDITIONS.format(per_block=64, splits=counts.splits, kernels=" | ".join(kernels), rule="---|" * len(kernels)),
        "\n".join(lines),
        "\n",
        _AFTER_CONDITIONS,
        _APPROACHES.format(cpus=_both, times=f"modelled µs, {_both} CPUs"),
        "\n".join(approach_line(row) for row in approaches),
        "\n",
        _NOTES.format(elsewhere=_wrapped(_replays(approaches))),
        _KINDS,
        _PUBLISHED,
        "\n".join(prediction_line(cell) for cell in cells if not cell.given),
        "\n| A. Khandual, 48478b9f7913: time in unmap_hotplug_range (assumed latencies, 128 MB, no hypervisor) "
        f"| -97 % | {(unmapped[1] / unmapped[0] - 1) * 100:.1f} % | | |\n",
        _SCOPES,
        "\n".join(_scopes([*conditions, *approaches])),
        "\n",
    ]
    return "".join(parts)


def _scopes(rows: Sequence[Row]) -> list[str]:
    """What differs between the scopes: layout and actors, with the rows that they are of; and what all have."""
    of: dict[str, list[Row]] = {}
    for row in rows:
        scope = row.result.scope
        of.setdefault(f"{scope.get('granule', '')} pages; {scope.get('window', '')}", []).append(row)
    lines: list[str] = []
    for layout, found in of.items():
        scopes = [row.result.scope for row in found]
        named = [actor for scope in scopes for actors in scope.get("actors", ()) for actor in actors.split(" beside ")]
        absent = set[str].intersection(*(set(scope.get("absent", ())) for scope in scopes))
        names = ", ".join(row.choice.name for row in found)
        lines.append(
            f"* {names}: {layout}. Actors, HVO beside one of them, one round each: {', '.join(dict.fromkeys(named))}. "
            f"Absent: {', '.join(sorted(absent))}."
        )
    models = dict.fromkeys(row.result.scope.get("memory_model", "") for row in rows)
    return [_wrapped(line, "  ") for line in [*lines, f"* Memory: {'; '.join(models)}."]]


def _wrapped(text: str, indent: str = "") -> str:
    return fill(text, 118, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
