"""Every shipped scenario is well formed, and shows what it says it shows."""

from __future__ import annotations

import contextlib
import json
from functools import cache

import pytest

import vmemmap.lab.scenario as scenarios
from vmemmap.errors import SpecError
from vmemmap.lab.exploration import Result, explore
from vmemmap.lab.neighbours import WINDOW, Neighbours
from vmemmap.lab.scenario import Actor, Operation, Variant, find, registry, scenario
from vmemmap.lab.setup import DRAM, Setup
from vmemmap.lab.steps import Function, Source

CASES = [pytest.param(s, v, id=f"{s.corpus or s.name}-{v.name}") for s in registry() for v in s.variants]


@cache
def answer(name: str, variant: str) -> Result:
    """Each variant is explored once for all tests."""
    return explore(name, variant=variant, budget="60s", shorten=1)


@pytest.mark.parametrize(("shipped", "variant"), CASES)
def test_a_variant_shows_what_it_is_expected_to_show(shipped: scenarios.Scenario, variant: Variant) -> None:
    result = answer(shipped.name, variant.name)
    assert result.verdict == variant.expect, f"{result.words} [{result.scope_words}]"
    for name in variant.invariants:
        assert result.invariants[name] == "violated", result.words
    if variant.expect == "violated":
        assert result.violation is not None
        assert result.violation.invariant in result.judged
        assert result.violation.invariant in variant.invariants, result.words
        assert result.trace
        assert result.trace[-1].step >= len(result.trace)
    else:
        assert result.exhaustive
        assert result.violation is None
        assert result.to_dict()["trace"] is None
        assert all(result.invariants[name] == "held" for name in result.judged)


@pytest.mark.parametrize(
    ("name", "variant", "entries"),
    [("R33", "4k-split-bbm-6.1", 2), ("R35", "64k-clear-then-set-each-6.12", 8), ("R33", "16k-clear-then-set-6.12", 4)],
)
def test_a_scan_and_a_writer_must_alternate_at_each_of_n_holes(name: str, variant: str, entries: int) -> None:
    """2N - 1 context switches lose a table in use (derived by hand); a split is one hole, closed before the clear."""
    switches = answer(name, variant).raw["witnesses"]["I6"]["switches"]
    assert switches == 2 * entries - 1


@pytest.mark.parametrize("variant", ["7.3", "7.2", "6.1", "reader-rcu", "gup-fast-broadcast", "fix-wait"])
def test_a_reader_that_straddles_the_remap_is_left_and_come_back_to(variant: str) -> None:
    """R36 (derived by hand): preempted behind its load, and let go on at its compare-and-exchange: two switches."""
    assert answer("r36_reference_straddles_remap", variant).raw["witnesses"]["I8"]["switches"] == 2


@pytest.mark.parametrize(("shipped", "variant"), CASES)
def test_a_verdict_is_never_plainly_safe_where_something_fell(shipped: scenarios.Scenario, variant: Variant) -> None:
    result = answer(shipped.name, variant.name)
    assert (result.words == "safe") == (not result.violated and result.exhaustive)


def test_what_is_sampled_is_never_called_safe() -> None:
    result = explore("R6", strategy="random", seed=7, budget=20)
    assert result.verdict != "safe"
    assert "safe" not in result.words
    assert not result.exhaustive


def test_an_exchange_that_nobody_falls_over_still_breaks_break_before_make() -> None:
    result = explore("R32", variant="64k-store-6.12")
    assert result.verdict == "safe"
    assert result.words == "I1 I5 I6 held, I19 violated"


def test_names_and_corpus_numbers_are_unique_and_both_find_a_scenario() -> None:
    everything = registry()
    assert len({s.name for s in everything}) == len(everything)
    for shipped in everything:
        assert find(shipped.name) == shipped
        if shipped.corpus is not None:
            assert find(shipped.corpus) == shipped
            assert find(shipped.corpus.lower()) == shipped
        assert len({v.name for v in shipped.variants}) == len(shipped.variants)
        assert shipped.doc.strip() or shipped.title


def test_an_unknown_scenario_or_variant_is_named() -> None:
    with pytest.raises(SpecError, match="nosuch"):
        find("nosuch")
    with pytest.raises(SpecError, match="nosuch"):
        find("R6").variant("nosuch")


@pytest.mark.parametrize("granule", ["4K", "16K", "64K"])
def test_neighbours_share_their_table_with_nothing_from_boot(granule: str) -> None:
    m = Setup()
    pair = Neighbours.of(m, granule)
    window = WINDOW[m.granule]
    number = (pair.a.start - DRAM) // window
    assert number == (pair.b.start - DRAM) // window
    assert number > 0
    assert pair.b.start == pair.a.start + m.section


def test_a_description_is_the_same_each_time_and_differs_by_policy() -> None:
    r6 = find("R6")
    assert r6.set_up(r6.variants[0]).digest == r6.set_up(r6.variants[0]).digest
    assert r6.set_up(r6.variants[0]).digest != r6.set_up(r6.variants[1]).digest
    document = json.loads(r6.set_up(r6.variants[1]).json())
    assert document["machine"]["policies"]["walker"] == "mmap-only"


@scenario(title="steps in Python", sources=[])
def _python_steps(m: Setup) -> list[Actor]:
    block = m.memory.add("128M")
    m.setup(block)

    def steps():  # type: ignore[no-untyped-def]
        yield m.memory.online(block)
        yield m.memory.offline(block)

    return [Actor("block", steps)]


def test_python_steps_that_look_at_no_result_become_a_program() -> None:
    document = _python_steps.set_up(_python_steps.variants[0]).document
    assert [step["op"] for step in document["actors"][0]["program"]] == ["memory_online", "memory_offline"]


USE = Operation("hugetlb_use", {"hstate": 1})


def _tests_it():  # type: ignore[no-untyped-def]
    if (yield USE):
        yield USE


def _compares_it():  # type: ignore[no-untyped-def]
    if (yield USE) != -16:
        yield USE


def _counts_with_it():  # type: ignore[no-untyped-def]
    yield Operation("speculative_ref", {"pfn": 1 + (yield USE)})


def _passes_it_on():  # type: ignore[no-untyped-def]
    yield Operation("speculative_ref", {"pfn": (yield USE)})


def _asks_its_type():  # type: ignore[no-untyped-def]
    if isinstance((yield USE), int):
        yield USE


def _catches_everything():  # type: ignore[no-untyped-def]
    with contextlib.suppress(Exception):
        _ = f"{(yield USE)}"
    yield USE


@pytest.mark.parametrize(
    "steps", [_tests_it, _compares_it, _counts_with_it, _passes_it_on, _asks_its_type, _catches_everything]
)
def test_python_steps_that_look_at_a_result_become_a_source(steps: Function) -> None:
    def describe(m: Setup) -> list[Actor]:
        return [Actor("looks", steps)]

    looking = scenario(title="looks", sources=[])(describe)
    description = looking.set_up(looking.variant())
    assert Actor("looks", steps).program() is None
    assert description.document["actors"][0]["program"] is None
    assert description.document["actors"][0]["steps"] == {
        "python": steps.__qualname__,
        "source": Source("looks", steps).to_dict()["source"],
    }
    # The function's text is in the digest of the document.
    other = _tests_it if steps is not _tests_it else _compares_it
    assert Source("looks", other).to_dict()["source"] != Source("looks", steps).to_dict()["source"]


def test_endless_python_steps_are_refused() -> None:
    def steps():  # type: ignore[no-untyped-def]
        while True:
            yield Operation("ptdump_check_wx")

    with pytest.raises(SpecError, match="without an end"):
        Actor("endless", steps).program()


def _result(**fields: object) -> Result:
    base = {
        "scenario": "s",
        "variant": "v",
        "kernel": "6.1",
        "policies": {},
        "expect": None,
        "verdict": "safe",
        "exhaustive": True,
        "executions": 5,
        "steps": 9,
        "states": 3,
        "seconds": 0.1,
        "seed": None,
        "judged": ("I1", "I6"),
        "invariants": {"I1": "held", "I6": "held", "I19": "held"},
        "invariant_steps": {},
        "scope": {},
        "digest": "",
    }
    return Result(**{**base, **fields})  # type: ignore[arg-type]


def test_the_words_of_a_verdict() -> None:
    assert _result().words == "safe"
    assert _result(exhaustive=False, verdict="inconclusive").words.startswith("inconclusive")
    fell = {"I1": "held", "I6": "held", "I19": "violated"}
    assert _result(invariants=fell).words == "I1 I6 held, I19 violated"
    lost = {"I1": "held", "I6": "violated", "I19": "violated"}
    assert _result(verdict="violated", invariants=lost).words == "I6 violated, I1 held, I19 violated"


@pytest.mark.parametrize(("order", "warned"), [("drain-first", True), ("dissolve-first", False)])
def test_locks_taken_in_both_orders_are_a_warning_and_no_violation(order: str, warned: bool) -> None:
    """One actor takes them one way and then the other: nobody can hang, and lockdep would complain all the same."""

    @scenario(
        title="both orders",
        sources=["derived"],
        judged=["I25"],
        variants=[Variant("one", "safe", (), {"hwpoison": order})],
    )
    def both(m: Setup) -> list[Actor]:
        pair = Neighbours.of(m, "64K")
        m.setup(*pair.hvo().program())
        return [Actor("both", [m.cpu_online(), m.page_handle_poison(pair.hugepages[0])])]

    result = explore(both)
    assert result.verdict == "safe"
    pairs = result.raw["lock_order"]
    assert len(pairs) == warned
    if warned:
        assert set(pairs[0]["locks"]) == {"cpu_hotplug_lock", "pcp_batch_high_lock"}
        assert pairs[0]["actors"] == ["both", "both"]
        assert pairs[0]["places"][0] == "page_alloc_cpu_online"


def test_a_deadlock_names_who_waits_where_for_whom_and_with_what() -> None:
    message = getattr(answer("r04_fault_fixup_deadlock", "a-irq-same-cpu").violation, "message", "")
    assert "HVO is interrupted before" in message
    assert "by interrupt, holding init_mm.mmap_lock for reading and init_mm.page_table_lock" in message
    assert "interrupt waits at lock init_mm.page_table_lock in vmemmap_handle_page_fault for HVO" in message
