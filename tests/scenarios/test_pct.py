"""What PCT finds, and what it cannot: an execution of depth d has at most d - 1 preemptions."""

from __future__ import annotations

import pytest

import vmemmap
from vmemmap.errors import SpecError
from vmemmap.lab.neighbours import WINDOW, lone_block
from vmemmap.lab.scenario import Actor, Operation, Variant, scenario
from vmemmap.lab.setup import Setup


@scenario(
    title="the whole window is dumped without locks while its only block is removed", sources=["R6"], judged=["I1"]
)
def whole_dump(m: Setup) -> list[Actor]:
    block = lone_block(m, "4K")
    first = m.pfn(block.start)
    window = Operation("ptdump_walk", {"pfns": {"start": first, "end": first + m.pfn(WINDOW[m.granule])}})
    return [Actor("ptdump", [window]), Actor("hot remove", [m.memory.remove(block)])]


def test_pct_of_depth_three_finds_the_unlocked_walk_of_a_freed_table() -> None:
    """R6 takes one preemption, of ptdump before it has read the last of the table's 512 entries."""
    unlocked = Variant("unlocked", "violated", ("I1",), {"walker": "none"})
    result = vmemmap.explore(whole_dump, variant=unlocked, strategy="pct", budget=60, shorten=0.0)
    assert result.verdict == "violated"
    assert result.violation is not None and result.violation.invariant == "I1"
    # Depth 1 only chooses who goes first.
    alone = vmemmap.explore(whole_dump, variant=unlocked, strategy="pct", depth=1, budget=60, shorten=0.0)
    assert (alone.verdict, alone.judged_violated) == ("inconclusive", [])


def test_pct_of_depth_three_cannot_find_a_scan_that_must_be_met_at_each_of_eight_entries() -> None:
    """R35 takes fifteen: writer and scan alternate at each of eight entries, and both could go on each time."""
    result = vmemmap.explore("R35", variant="64k-clear-then-set-each-6.12", strategy="pct", budget=300, shorten=0.0)
    assert "I6" not in result.violated
    assert result.verdict == "inconclusive", "what was sampled is never called safe"


def test_a_depth_goes_with_pct_only() -> None:
    with pytest.raises(SpecError, match="depth is 3: it goes with strategy pct"):
        vmemmap.explore("R6", depth=3)
    with pytest.raises(SpecError, match="depth is 0"):
        vmemmap.explore("R6", strategy="pct", depth=0)
