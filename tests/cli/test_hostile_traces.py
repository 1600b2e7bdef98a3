"""Traces with anything in the place of anything: replayed, or refused in one line, and never with a traceback."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vmemmap
from vmemmap.cli import main
from vmemmap.lab.trace import write

Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    """R6: short, and every kind of field is in it."""
    found = vmemmap.explore("R6", variant="mmap-only", budget="3s", shorten=0.5).trace_file()
    assert found is not None
    return json.loads(json.dumps(found))


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*at, key))


def put(document: Any, at: Place, value: Any) -> None:
    *way, last = at
    for key in way:
        document = document[key]
    document[last] = value


def replayed(document: Any, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with path.open("w") as file:
        write(document, file)
    code = main(["replay", str(path)])
    return code, capsys.readouterr().err


def checked(document: Any, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it says. The digest is made to fit, as whoever changes a trace on purpose would do."""
    code, said = replayed(document, path, capsys)
    if (right := re.search(r"this one is ([0-9a-f]{16})", said)) is not None:
        document["digest"] = right[1]
        code, said = replayed(document, path, capsys)
    assert code in (0, 1) or (code == 2 and said.startswith("vmemmap: ") and len(said.splitlines()) == 1), (code, said)
    return said


NUMBERS = [
    0,
    1,
    7,
    8,
    64,
    255,
    256,
    65536,
    (1 << 32) - 1,
    (1 << 53) + 1,
    (1 << 63) - 1,
    (1 << 64) - 1,
    1 << 64,
    -1,
    0.5,
]
VALUES = st.one_of(
    st.sampled_from([None, True, False, "", "I1", "R6", "walker", [], {}, [[]], "<script>", "\0", "\ud800", *NUMBERS]),
    st.text(max_size=8),
    st.integers(-10, 1 << 65),
)
# How long an execution is depends on numbers that an operation takes; within their bounds (below) those are no damage.
LENGTHS = {"start", "end", "bytes", "step", "count", "pages", "rounds"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_trace_with_other_values_is_replayed_or_refused(
    saved: dict[str, Any], data: st.DataObject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = copy.deepcopy(saved)
    known = [at for at in places(saved) if at and at[-1] not in LENGTHS]
    for at in data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)):
        try:
            # The next one may go into it.
            put(document, at, copy.deepcopy(data.draw(VALUES)))
        except (KeyError, IndexError, TypeError):
            # What led there is gone already.
            continue
    checked(document, tmp_path / "other.json", capsys)


@pytest.mark.parametrize(
    "ram",
    [
        {"boot": [[1 << 30, 1 << 44]], "hotplug": []},
        {"boot": [[1 << 30, 1 << 30]], "hotplug": [[1 << 46, 1 << 30]]},
        {"boot": [[1 << 30, 1 << 30]], "hotplug": [[1 << 33, 1 << 46]]},
    ],
    ids=["boot", "far", "large"],
)
def test_a_machine_that_would_take_the_memory_of_this_host_is_refused(
    saved: dict[str, Any], ram: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = copy.deepcopy(saved)
    document["document"]["machine"].update(ram)
    assert "an explored machine has at most" in checked(document, tmp_path / "large.json", capsys)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "pfn_walk", "start": 0, "end": 1 << 60},
        {"op": "kmemleak_scan", "start": 0, "end": (1 << 64) - 1, "step": 2},
        {"op": "scan_movable_pages", "start": 0, "end": 1 << 60},
        {"op": "set_memory_valid", "pfn": 0x40000, "pages": 1 << 60, "on": False},
        {"op": "linear_map_split_to_ptes", "pfn": 0x40000, "pages": 1 << 60},
        {"op": "vmalloc_cycle", "pages": 1 << 60},
    ],
    ids=lambda operation: operation["op"],
)
@pytest.mark.parametrize("place", ["setup", "program"])
def test_an_operation_that_nobody_would_see_the_end_of_is_refused(
    saved: dict[str, Any],
    operation: dict[str, Any],
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = copy.deepcopy(saved)
    inner = document["document"]
    (inner["setup"] if place == "setup" else inner["actors"][0]["program"]).append(operation)
    code, said = replayed(document, tmp_path / "long.json", capsys)
    assert code == 2 and len(said.splitlines()) == 1
    assert f"{operation['op']}: " in said and "pages, and it looks at each; at most 16777216" in said
