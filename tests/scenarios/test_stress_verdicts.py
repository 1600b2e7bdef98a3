"""What a stress says beside what explore says: only what the scenario judges and threads can show decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vmemmap.campaign.execution import execute
from vmemmap.campaign.job import Job
from vmemmap.cli import main
from vmemmap.lab.neighbours import hugepage_block
from vmemmap.lab.scenario import Actor, Scenario, find, scenario
from vmemmap.lab.setup import Setup
from vmemmap.lab.stressing import stress

#: One thread violates it for certain: its restore leaves copies of the head, which the free finds (R38).
ALONE = ("restore_6_12_117", "free-walker-6.12.117", "I11")

OWN = """
from dataclasses import replace
from vmemmap.lab.scenario import find

shipped = find("restore_6_12_117")
variant = replace(shipped.variant("free-walker-6.12.117"), expect={expect!r}, invariants={invariants!r})
mine = replace(shipped, name="mine", judged={judged!r}, variants=(variant,))
"""


def judging(*invariants: str) -> Scenario:
    return replace(find(ALONE[0]), judged=invariants)


@pytest.mark.parametrize(("judged", "state"), [(("I11", "I25"), "violated"), (("I25",), "violated")])
def test_what_is_not_judged_is_counted_and_decides_nothing(judged: tuple[str, ...], state: str) -> None:
    result = stress(judging(*judged), variant=ALONE[1], threads=1, seconds=0.2)
    found = result.to_dict()
    assert result.violation_count > 0
    assert (found["judged"], found["invariants"]["I11"]) == (list(judged), state)
    assert result.violated == [i for i in judged if i == "I11"]
    assert result.judged_violations == (result.counts["I11"] if "I11" in judged else 0)
    states = found["invariants"]
    assert (states["I25"], states["I1"], states["I19"]) == ("not seen", "not judged", "not visible")


@pytest.mark.parametrize(
    ("judged", "expect", "code"),
    [(("I11",), "safe", 1), (("I25",), "safe", 0), (("I25",), "violated", 1), (("I11",), "violated", 1)],
)
def test_what_is_listed_as_safe_is_refuted_by_what_is_judged_and_nothing_else(
    judged: tuple[str, ...], expect: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN.format(judged=judged, expect=expect, invariants=judged if expect == "violated" else ()))
    assert main(["stress", f"{path}:mine", "--seconds", "0.2", "--threads", "1"]) == code
    said = capsys.readouterr().out
    assert ("I11: " in said, "violations (not judged by this scenario), the first" in said) == (
        True,
        "I11" not in judged,
    )
    assert ("between rounds is put back what they took" in said) == ("I11" in judged)


def test_a_policy_of_ones_own_has_no_expectation() -> None:
    safe = replace(find(ALONE[0]).variant(ALONE[1]), expect="safe", invariants=())
    listed = stress(judging("I25"), variant=safe, threads=1, seconds=0.2)
    assert (listed.listed_safe, listed.refuted) == (True, False)
    own = stress(judging("I25"), variant=safe, policies={"walker": "kernel"}, threads=1, seconds=0.2)
    assert (own.listed_safe, own.refuted) == (False, True)


def test_holes_while_nobody_is_paused_are_not_visible() -> None:
    result = stress("R5", seconds=0.2)
    assert result.raw["invariants"]["I2"] == "not visible"
    assert result.violated == []
    assert stress("R33", seconds=0.1).raw["invariants"]["I2"] != "not visible"


def test_the_setup_is_judged_by_nobody() -> None:
    """It adds the block whose entry the top tables lack; what is added then is not violated by that."""
    result = stress("r23_top_entry_unsynced", variant="synced-after-entry-there", threads=1, seconds=0.2)
    assert result.counts == {}
    assert stress("r23_top_entry_unsynced", variant="synced-after", threads=1, seconds=0.2).violated == ["I2"]


def test_a_pool_is_judged_at_rest_when_all_threads_have_ended() -> None:
    result = stress("R45", variant="free-surplus-6.12", seconds=0.3)
    assert (result.counts, result.threads) == ({}, 2)
    assert [actor["name"] for actor in result.actors] == ["resize", "user"]


@pytest.mark.parametrize(("policies", "counts"), [({"mutant": "surplus-kept"}, {"I24": 1}), ({}, {})])
def test_counters_that_stay_wrong_are_found_at_the_end(policies: dict[str, str], counts: dict[str, int]) -> None:
    @scenario(title="a free surplus page is demoted (R44)", sources=["me"], judged=["I24"])
    def demoted(m: Setup) -> list[Actor]:
        block = hugepage_block(m)
        pool, first = m.hugetlb["2M"], m.pfn(block.start)
        # A surplus page in use; of two others, both free, a shrink under 6.1 makes surplus pages too.
        m.setup(pool.overcommit(1), pool.get(), *(pool.allocate(first + n * 512) for n in (2, 3)), pool.resize(0))
        return [Actor("demote", [pool.demote(3), m.actor_done()]), Actor("at rest", [pool.at_rest(1)])]

    result = stress(demoted, policies=policies, seconds=0.1)
    assert result.counts == counts
    assert [violation.actor for violation in result.violations] == ["at rest"] * len(counts)


@pytest.mark.parametrize(
    ("name", "variant"), [("R14", "kernel-6.1"), ("R13", "failure-6.1"), ("R16", "kernel"), ("R6", "kernel")]
)
def test_what_repeated_rounds_violate_a_campaign_expects(name: str, variant: str) -> None:
    result = stress(name, variant=variant, seconds=0.2)
    chosen = find(name).variant(variant)
    assert set(result.violated) <= set(chosen.repeated)
    assert result.to_dict()["put_back"] == (
        {"hot remove": ["memory_add"]} if name == "R6" else {"free": ["hugetlb_alloc"]}
    )
    answer = json.loads(execute(Job("stress", name, variant, seconds=0.2).text(), allow_code=False))
    assert answer["verdict"] != "violated" or answer["expect"] == "violated"
