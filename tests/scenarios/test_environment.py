"""What a variant's environment says of TLBs reaches the core, and makes the difference that was derived for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from vmemmap import _core
from vmemmap.errors import VmemmapError
from vmemmap.lab.exploration import explore
from vmemmap.lab.neighbours import Neighbours
from vmemmap.lab.scenario import Actor, Scenario, Variant, find, scenario
from vmemmap.lab.setup import Setup

EXCHANGE = {"mapping": "basepages", "update": "store"}


def _exchange(environment: Mapping[str, Any], policies: Mapping[str, str] = EXCHANGE) -> Scenario:
    """HVO exchanges live entries beside a reader of slot 0 of a tail page, judged by what the reader meets (I2)."""

    @scenario(
        title="a reader of an exchanged page",
        sources=[],
        judged=["I2"],
        variants=[Variant("only", "safe", (), policies, environment=environment)],
    )
    def exchange(m: Setup) -> Sequence[Actor]:
        pair = Neighbours.of(m, "4K")
        return [pair.hvo(), pair.reader()]

    return exchange


def test_a_reader_of_an_exchange_may_get_bytes_of_both_frames() -> None:
    """Each mix is an outcome, and a reader that saw another word is in another state. It looks at no address outside
    vmemmap, so that the pointers nobody stored lead it into no hole.
    """
    plain, mixed = explore(_exchange({})), explore(_exchange({"conflict": "amalgamate"}))
    assert plain.exhaustive and mixed.exhaustive
    assert plain.states is not None and mixed.states is not None
    assert mixed.states > 2 * plain.states
    assert mixed.invariants["I2"] == "held"


def test_a_range_invalidate_serves_as_well_as_one_for_each_page() -> None:
    for invalidate, held in (("range", True), ("range-op", True), ("missing", False)):
        result = explore(_exchange({}, {**EXCHANGE, "invalidate": invalidate}))
        assert (result.invariants["I4"] != "violated") is held, invalidate


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"spurious_fault": "fatal"}, "spurious faults fatal"),
        ({"ets": False}, "without FEAT_ETS2"),
        ({"feat_bbm": "2"}, "FEAT_BBM 2"),
        ({"feat_bbm": ["noabort", "0"]}, "FEAT_BBM noabort/0"),
        ({"conflict": "abort"}, "may abort"),
        ({"asids": [1, 2]}, "ASIDs [1, 2]"),
        ({"iommu": True}, "an IOMMU beyond the TLBI broadcast"),
    ],
)
def test_the_scope_says_what_the_environment_may_do(environment: Mapping[str, Any], words: str) -> None:
    assert words in explore(_exchange(environment), budget=1, strategy="random").scope["memory_model"]


@pytest.mark.parametrize("environment", [{"ets": "no"}, {"feat_bbm": "3"}, {"conflict": "never"}, {"iomu": True}])
def test_an_environment_that_does_not_exist_is_refused(environment: Mapping[str, Any]) -> None:
    with pytest.raises(VmemmapError):
        explore(_exchange(environment))


@pytest.mark.parametrize(
    ("scenario", "variant"),
    [("R21", "4k-blocks-entry"), ("R22", "deferred"), ("R22", "sva-walk"), ("R22", "deferred-walk")],
)
def test_a_fault_handler_hides_no_operation_of_the_cpu(scenario: str, variant: str) -> None:
    """An exception vector stands between kernel code and CPU; where nothing faults it makes no difference."""
    plain, handled = (
        explore(scenario, variant=variant, policies={"fault": fault}, shorten=0.0) for fault in ("oops", "recheck")
    )
    assert handled.exhaustive and plain.exhaustive
    assert (handled.verdict, handled.invariants) == (plain.verdict, plain.invariants)


def test_a_trace_from_before_there_was_a_choice_replays_as_published() -> None:
    """I19 beside R24 is violated only where a store counts from its own CPU's DSB on."""
    scenario = find("R24")
    variant = next(v for v in scenario.variants if v.name == "snapshot")
    document = json.loads(scenario.set_up(variant).json())
    document["judged"] = ["I19"]
    options = json.dumps({"seconds": 30, "shorten_seconds": 1})
    document["environment"]["ordering"] = "ordered"
    assert json.loads(_core.explore(json.dumps(document), options))["verdict"] == "safe"
    document["environment"]["ordering"] = "published"
    found = json.loads(_core.explore(json.dumps(document), options))
    assert found["verdict"] == "violated"
    trace = found["witnesses"]["I19"]["trace"]

    def replayed(ordering: str | None) -> tuple[bool, bool]:
        trace["document"]["environment"].pop("ordering", None)
        if ordering is not None:
            trace["document"]["environment"]["ordering"] = ordering
        answer = json.loads(_core.replay(json.dumps(trace), "{}"))
        return answer["fell"], answer["divergence"] is None

    assert replayed("published") == replayed(None) == (True, True)
    assert replayed("ordered")[0] is False
