"""How near to the speed of memory are tables read?

The limit is measured in the same round; `extra_info` has the row of ``vmemmap bench``.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vmemmap.bench import measure


@pytest.mark.parametrize("name", ["walk-plain", "walk-plain-2t", "walk-optimised", "ptdump-optimised", "ptdump-text"])
def test_row_beside_its_limit(benchmark: BenchmarkFixture, name: str) -> None:
    row = benchmark.pedantic(measure, args=(name,), kwargs={"quick": benchmark.disabled}, rounds=1, iterations=1)
    benchmark.extra_info.update(row.to_dict())
    assert row.ratio > 0
