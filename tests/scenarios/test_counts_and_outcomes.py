"""What an entry of the corpus is about and no invariant says: a price (R31). An outcome: R59, in rust/kernel/tests."""

from __future__ import annotations

import pytest

import vmemmap
from vmemmap.lab.stressing import stress
from vmemmap.scenarios.r31_price_of_the_wait import PAGES


@pytest.mark.parametrize(("variant", "each_way"), [("each-page", PAGES), ("6.12", 1), ("7.3", 0)])
def test_a_pool_that_grows_and_shrinks_pays_so_many_grace_periods(variant: str, each_way: int) -> None:
    report = stress("R31", variant=variant, threads=1, seconds=0.2)
    rounds = report.operations // 2
    assert rounds > 0
    # Of the last round only a part may have been counted.
    assert 2 * each_way * (rounds - 1) <= report.counters["grace_periods"] <= 2 * each_way * (rounds + 1)


def test_a_verdict_says_how_much_was_covered() -> None:
    """Behind a violation, which ends its execution, somebody has to look: without a search there not all is covered."""
    looked = vmemmap.explore("R6", variant="mmap-only")
    assert (looked.exhaustive, looked.scope.get("covered"), looked.extent) == (True, "every execution", "exhaustive")
    not_looked = vmemmap.explore("R6", variant="mmap-only", shorten=0)
    assert not_looked.exhaustive and not_looked.scope.get("covered") == "every execution up to its first violation"
    assert "exhaustive up to the first violation of each execution" in not_looked.summary
    assert "behind the first violation" in not_looked.scope_words
    assert "held" not in not_looked.invariants.values()
    assert vmemmap.explore("R6").scope.get("covered") == "every execution"
    cut = vmemmap.explore("R32", budget=3)
    assert (cut.exhaustive, cut.scope.get("covered"), cut.extent) == (False, "some executions", "not exhaustive")
