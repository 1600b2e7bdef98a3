"""The verdict of a scenario does not rest on merging or sleep sets: the same under the plainest sound search.

Without merging, every step of a scan of a real table is a scheduling point, so only the smallest variants can be
compared in `make test`. They are taken in the order of their size, as many as the seconds allow; `make nightly` has
seconds for all.
"""

from __future__ import annotations

import json
import os
from time import monotonic
from typing import Any

from test_scenarios import CASES, answer

from vmemmap import _core, explore
from vmemmap.lab.scenario import Scenario, Variant

#: For all variants together; one takes at most a third.
SECONDS = float(os.environ.get("VMEMMAP_CHECK_SECONDS", "15"))

VARIANTS: list[tuple[Scenario, Variant]] = [case.values for case in CASES]  # type: ignore[misc]


def size(case: tuple[Scenario, Variant]) -> int:
    """What a search without merging grows with: the steps of an execution, to the power of the actors."""
    raw = explore(case[0].name, variant=case[1].name, strategy="random", budget=1, shorten=0.0).raw
    return int(raw["steps"]) ** len(raw["scope"]["actors"])


def plain(document: str, reduction: str, seconds: float) -> dict[str, Any]:
    options = {"reduction": reduction, "seconds": seconds, "settle_seconds": seconds, "shorten_seconds": 1}
    return json.loads(_core.explore(document, json.dumps(options)))


def judged(raw: Any) -> dict[str, str]:
    return {name: raw["invariants"][name] for name in raw["judged"]}


def test_verdicts_and_fallen_invariants_do_not_depend_on_merging_or_sleep_sets() -> None:
    ordered = sorted(VARIANTS, key=size)
    until = monotonic() + SECONDS
    compared: list[str] = []
    for shipped, variant in ordered:
        document = shipped.set_up(variant).json()
        seconds = min(SECONDS / 3, until - monotonic())
        if seconds <= 0:
            break
        cache = plain(document, "cache", seconds)
        if not cache["exhaustive"]:
            continue
        name = f"{shipped.corpus} {variant.name}"
        slept = plain(document, "cache-sleep", 10 * seconds)
        assert slept["exhaustive"], name
        assert slept["states"] == cache["states"], name
        merged = answer(shipped.name, variant.name).raw
        assert cache["verdict"] == slept["verdict"] == merged["verdict"], name
        # Which fall at all is only known where what lies behind a first fall was searched to the end as well.
        for other in (cache, slept):
            if "not judged" not in {*judged(other).values(), *judged(merged).values()}:
                assert judged(other) == judged(merged), name
        compared.append(f"{name}: {cache['states']} states, {cache['interleavings']:.2g} interleavings")
    print(f"{len(compared)} of {len(VARIANTS)} variants compared", *compared, sep="\n")
    assert compared
