"""What an entry of the corpus is about and no invariant says: a price (R31). An outcome: R59, in rust/kernel/tests."""

from __future__ import annotations

import pytest

from vmemmap.lab.stressing import stress
from vmemmap.scenarios.r31_price_of_the_wait import PAGES


@pytest.mark.parametrize(("variant", "each_way"), [("each-page", PAGES), ("6.12", 1), ("7.3", 0)])
def test_a_pool_that_grows_and_shrinks_pays_so_many_grace_periods(variant: str, each_way: int) -> None:
    report = stress("R31", variant=variant, threads=1, seconds=0.2)
    rounds = report.operations // 2
    assert rounds > 0
    # Of the last round only a part may have been counted.
    assert 2 * each_way * (rounds - 1) <= report.counters["grace_periods"] <= 2 * each_way * (rounds + 1)
