"""What does an explored operation cost beyond the switch into its actor?

The limit is measured in the same round; `extra_info` has the row of ``vmemmap bench``.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vmemmap.bench import measure

ROWS = ["explore-step", "explore-executions", "explore-three-actors", "explore-toy-step", "explore-executions-25"]


@pytest.mark.parametrize("name", ROWS)
def test_row_beside_its_limit(benchmark: BenchmarkFixture, name: str) -> None:
    row = benchmark.pedantic(measure, args=(name,), kwargs={"quick": benchmark.disabled}, rounds=1, iterations=1)
    benchmark.extra_info.update(row.to_dict())
    assert row.ratio > 0
