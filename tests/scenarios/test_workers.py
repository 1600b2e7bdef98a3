"""`--workers`: an exhaustive search that several threads share answers what one does (docs/search.md §4.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest

import vmemmap
from vmemmap import SpecError, _core
from vmemmap.lab.scenario import find

#: A long search, one that learns until it is nearly over, shares of actors that hand pages to each other, one whose
#: violations end executions, weak memory.
SEARCHES = (
    ("R12", "6.1"),
    ("R45", "free-surplus-one-word"),
    ("R44", "6.12"),
    ("R6", "mmap-only"),
    ("R29", "unlocked"),
    ("published_out_of_order", "table"),
)

#: What may depend on who comes first, and on the host.
OWN = ("executions", "steps", "seconds", "workers", "first_violation")


def answer(name: str, variant: str, workers: int, after: int) -> dict[str, Any]:
    scenario = find(name)
    document = scenario.set_up(scenario.variant(variant)).json()
    options = {"workers": workers, "branches_after": after, "seconds": 600}
    return json.loads(_core.explore(document, json.dumps(options)))


@pytest.mark.parametrize(("name", "variant"), SEARCHES)
def test_any_number_of_workers_answers_what_one_does(name: str, variant: str) -> None:
    one = answer(name, variant, 1, 20_000)
    for workers in (2, 4):
        several = answer(name, variant, workers, 20_000)
        assert several["workers"] in (1, workers)
        assert {k: v for k, v in several.items() if k not in OWN} == {k: v for k, v in one.items() if k not in OWN}


def test_a_long_search_is_shared() -> None:
    assert answer("R12", "6.1", 2, 20_000)["workers"] == 2


def test_a_search_that_a_count_cuts_is_not_shared() -> None:
    result = vmemmap.explore("R45", variant="free-surplus-one-word", workers=2, budget=2000)
    assert (result.raw.get("workers"), result.executions) == (1, 2000)


@pytest.mark.parametrize("workers", [0, -1, 65, 1.0, True, "2"])
def test_what_is_no_number_of_threads_is_refused(workers: Any) -> None:
    with pytest.raises(SpecError, match=r"workers is .*: expected a number of threads, 1 to 64"):
        vmemmap.explore("R6", workers=workers)
