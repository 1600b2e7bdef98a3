"""How much does HVO's remap add to the exchanges of a hugepage?

The limit is measured in the same round; `extra_info` has the row of ``vmemmap bench``.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from vmemmap.bench import measure


@pytest.mark.parametrize(
    "name",
    [
        "optimise-2m",
        "optimise-2m-store",
        "optimise-2m-whole",
        "python-exchange-bulk",
        "optimise-2m-2t",
        "optimise-2m-whole-2t",
        "pool-free",
        "python-2t",
    ],
)
def test_row_beside_its_limit(benchmark: BenchmarkFixture, name: str) -> None:
    row = benchmark.pedantic(measure, args=(name,), kwargs={"quick": benchmark.disabled}, rounds=1, iterations=1)
    benchmark.extra_info.update(row.to_dict())
    assert row.ratio > 0
