"""What ``replay`` shows: a page without a network, Chrome trace events, lanes of text."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

import vmemmap
from vmemmap.lab.replay import ReplayResult
from vmemmap.lab.trace import Step, Violation
from vmemmap.report import perfetto
from vmemmap.report.columns import columns
from vmemmap.report.replay import history, page, text

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def result() -> ReplayResult:
    found = vmemmap.explore("R6", variant="mmap-only", budget="3s", shorten=0.5)
    trace = found.trace_file()
    assert trace is not None
    return vmemmap.replay(trace)


@pytest.fixture(scope="module")
def events(result: ReplayResult) -> Events:
    document = perfetto.document(result.trace, result.violation, "R6")
    assert document["displayTimeUnit"] in ("ns", "ms")
    return document["traceEvents"]


#: Of the Chrome trace event format: the keys that each phase needs besides those that all need.
PHASES: dict[str, set[str]] = {"M": {"args"}, "X": {"dur", "args"}, "i": {"s", "args"}, "s": {"id"}, "f": {"id", "bp"}}


def test_every_event_has_what_the_format_asks_for(events: Events) -> None:
    assert {event["ph"] for event in events} == set(PHASES)
    for event in events:
        assert set(event) >= {"ph", "name", "ts", "pid", "tid", *PHASES[event["ph"]]}, event
        assert isinstance(event["name"], str) and event["name"]
        assert all(isinstance(event[key], int) and event[key] >= 0 for key in ("ts", "pid", "tid"))
        assert event["ph"] != "X" or event["dur"] > 0
        assert event["ph"] != "i" or event["s"] in ("g", "p", "t")


def test_each_actor_has_a_track_and_each_function_a_slice(events: Events, result: ReplayResult) -> None:
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert tracks == {1: "CPU0 ptdump", 2: "CPU1 hot remove"}
    for track in tracks:
        slices = sorted(
            (e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e["ph"] == "X" and e["tid"] == track
        )
        assert all(end <= start for (_, end, _), (start, _, _) in pairwise(slices)), "slices do not overlap"
        assert slices[-1][2] in ("ptdump_walk_pgd", "free_empty_pmd_table")
    instants = [event for event in events if event["ph"] == "i" and event["s"] == "t"]
    assert len(instants) == len(result.trace)
    for event in instants:
        assert any(
            s["ph"] == "X" and s["tid"] == event["tid"] and s["ts"] <= event["ts"] < s["ts"] + s["dur"] for s in events
        )


def test_arrows_lead_from_one_track_to_another_later(events: Events) -> None:
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts and starts.keys() == ends.keys()
    for number, start in starts.items():
        assert start["ts"] < ends[number]["ts"] and start["tid"] != ends[number]["tid"]
        assert (start["name"], start["cat"]) == (ends[number]["name"], ends[number]["cat"]), (
            "flows match by name and category"
        )


def test_the_fall_is_marked_across_all_tracks(events: Events, result: ReplayResult) -> None:
    (fall,) = [event for event in events if event["ph"] == "i" and event["s"] == "g"]
    assert (fall["name"], fall["ts"]) == ("I1 violated", len(result.trace))


def test_the_page_is_whole_and_names_nothing_outside_itself(result: ReplayResult) -> None:
    shown = page(result)
    for reference in ("http://", "https://", "<link", "@import", "url(", "src="):
        assert reference not in shown, reference
    assert shown.count('<div class="player"') == 1
    assert "freed by hot remove" in shown
    assert f"{len(result.trace):,} steps" in shown


def test_a_replay_that_did_not_fall_has_no_picture(result: ReplayResult) -> None:
    found = vmemmap.explore("R6", variant="mmap-only", budget="3s", shorten=0.1).trace_file()
    assert found is not None
    held = vmemmap.replay(found, policies={"walker": "kernel"}, tolerant=True)
    assert '<div class="player"' not in page(held) and 'class="answer good"' in page(held)
    assert "I1 was not violated again" in text(held)
    assert result.words in text(result)


def test_the_same_seed_gives_the_same_replay(result: ReplayResult) -> None:
    found = vmemmap.explore("R6", variant="mmap-only", budget="3s", shorten=0.1).trace_file()
    assert found is not None
    one, other, third = (
        vmemmap.replay(found, policies={"walker": "kernel"}, tolerant=True, seed=seed) for seed in (1, 1, 2)
    )
    assert one.trace == other.trace
    assert one.trace != third.trace


def test_lanes_of_text_stand_side_by_side() -> None:
    steps = [
        Step(1, 0, "a", "write", 8, 1, 0x00E8000040000703, "f: pte 0x8", "f", "pte 0x8"),
        Step(2, 1, "b", "read", 8, 0, None, "g: pte 0x8: I2 falls: hole", "g", "pte 0x8", "a stale one"),
        *(Step(3 + i, 0, "a", "isb", note="h", label="h") for i in range(50)),
    ]
    lines = columns(steps).splitlines()
    left, right = lines[0].index("CPU0 a"), lines[0].index("CPU1 b")
    assert lines[1].startswith("    1  write pte 0x8")
    assert "0x1 → page rw 0x40000000  (f)" in lines[2]
    assert lines[3].index("read pte 0x8") == right > left
    assert "= none  a stale one  (g)" in lines[4]
    assert lines[5].strip(" |") == "*** I2 falls: hole"
    assert any("26 more steps (h)" in line for line in lines)


def test_histories_name_locks_that_are_held(result: ReplayResult) -> None:
    assert any(line.startswith("mem_hotplug_lock held by hot remove since step") for line in history(result))
    assert isinstance(result.violation, Violation)


@pytest.fixture(scope="module")
def weak() -> dict[str, ReplayResult]:
    """A store that waits, and a load that takes effect early."""
    replayed: dict[str, ReplayResult] = {}
    asked = [("table", "published_out_of_order", "table"), ("early", "R2", "count-first-plain")]
    for name, scenario, variant in asked:
        trace = vmemmap.explore(scenario, variant=variant, budget="20s", shorten=0.5).trace_file()
        assert trace is not None
        replayed[name] = vmemmap.replay(trace)
    return replayed


def test_a_load_that_found_an_old_value_says_why_it_could(weak: dict[str, ReplayResult]) -> None:
    trace = weak["early"].trace
    by_number = {step.step: step for step in trace}
    [old] = [step for step in trace if step.since is not None and step.op != "commit"]
    assert old.since is not None and by_number[old.since].op == "load early"
    assert (old.op, old.old, by_number[old.since].old) == ("load", 0, 0)
    assert f"old, loaded early in step {old.since}, since when nothing orders it: it missed the store of" in old.note
    missed = by_number[int(old.note.split("it missed the store of step ")[1].split(":")[0])]
    assert missed.op == "write" and old.since != missed.step < old.step


def test_a_store_that_waits_names_its_commit_and_back(weak: dict[str, ReplayResult]) -> None:
    trace = weak["table"].trace
    begun = [step for step in trace if "waits in the store buffer" in (step.taken or "")]
    assert begun, "a store waits"
    drawn = page(weak["table"])
    assert drawn.count('class="wait from ') == len(begun), "to the end: the violation is that it has not come"
    assert "store buffer of CPU 0" in drawn
    for step in trace:
        if step.op == "commit":
            assert step.since in {b.step for b in begun}
            assert f"waited since step {step.since}" in step.note


def test_what_waits_is_drawn_from_its_beginning_to_its_end_on_its_lane(weak: dict[str, ReplayResult]) -> None:
    drawn = page(weak["early"])
    assert re.search(
        r'<span class="after">old, loaded early in step \d+, since when nothing orders it: it missed', drawn
    )
    assert drawn.count('class="wait from ') == drawn.count('class="wait to ') == 1
    assert drawn.count('class="wait through ') >= 1
    lanes = set(re.findall(r'class="wait \w+ lane\d" style="--lane-at: (\d+)"', drawn))
    heads = re.findall(r'<div class="head lane\d">([^<]*) <span>', drawn)
    assert [heads[int(lane) - 1] for lane in lanes] == ["early loads of CPU 1"]
