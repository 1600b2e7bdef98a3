"""What a long search has to know of its actors it learns before it is long (docs/search.md §3.11)."""

from __future__ import annotations

import json

from vmemmap import _core
from vmemmap.lab.scenario import find


def test_a_search_of_five_actors_learns_little_late() -> None:
    """Each user of hugepages gets the other's page if that one was there first, which depth first comes last."""
    scenario = find("five_actors")
    document = scenario.set_up(scenario.variant("one-round")).json()
    found = json.loads(_core.explore(document, json.dumps({"seconds": 600})))
    assert found["verdict"] == "safe"
    # An iteration that learns late has as many as the last one again.
    assert found["executions"] < found["states"]
    assert found["rounds"] <= 5
