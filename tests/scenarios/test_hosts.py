"""What a search says does not depend on how fast the host is: all of its answer but seconds, on a host made slow.

Slow by the progress callback, which a search calls about every 20 ms of its own time. `make nightly` takes all variants
that are violated, since only there a search goes on behind its verdict.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from test_scenarios import CASES

from vmemmap import explore
from vmemmap.lab.scenario import Scenario, Variant

VARIANTS: list[tuple[Scenario, Variant]] = [case.values for case in CASES]  # type: ignore[misc]

ALL = "VMEMMAP_ALL_HOSTS" in os.environ

#: Each was cut by seconds once: in the search after its first violation, behind it, and while its trace was shortened.
FEW = {("R4", "recheck-only"), ("R12", "no-retest"), ("R33", "4k-split-bbm-6.1")}

JUDGED = [
    pytest.param(scenario, variant, id=f"{scenario.corpus or scenario.name}-{variant.name}")
    for scenario, variant in VARIANTS
    if (ALL and variant.expect == "violated") or (scenario.corpus, variant.name) in FEW
]


def slowly(*_: object) -> None:
    time.sleep(0.02)


def said(value: Any) -> Any:
    """Without seconds."""
    if isinstance(value, dict):
        return {key: said(item) for key, item in value.items() if key != "seconds"}
    return [said(item) for item in value] if isinstance(value, list) else value


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scenario", "variant"), JUDGED)
def test_a_slow_host_gives_the_same_answer(scenario: Scenario, variant: Variant) -> None:
    # No budget of seconds, which a slow host may well use up: it then says so.
    fast, slow = (
        explore(scenario, variant=variant, budget=10**9, progress=progress).raw for progress in (None, slowly)
    )
    assert said(slow) == said(fast)
