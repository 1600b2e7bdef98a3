"""A vmcore that lacks tables: what they hide is neither held nor changed, whichever they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vmcore_builder as builder
from hypothesis import given, settings
from hypothesis import strategies as st
from vmcore_builder import Capture, Load

from vmemmap.cli import main
from vmemmap.dumps.checking import check
from vmemmap.dumps.difference import diff
from vmemmap.dumps.where import where
from vmemmap.errors import ImageError

STATES = [builder.CAPTURES / name for name in ("6.1-4k/B", "6.12-4k/A", "6.1-64k/B")]
WHOLE_TREE = {"I13", "I30", "I31"}


def cut(capture: Capture, gone: set[int], to: Path) -> Path:
    """An ELF vmcore of the capture that has all of its memory but some tables."""
    loads: list[Load] = []
    for load in builder.loads_of(capture, "vmcore"):
        at, end = load.pa, load.pa + load.size
        for pa in [*sorted(pa for pa in gone if at <= pa < end), end]:
            loads += [Load(load.va + at - load.pa, at, pa - at, pa - at)] if pa > at else []
            if pa < end:
                loads.append(Load(load.va + pa - load.pa, pa, 0, capture.granule))
            at = pa + capture.granule
    return builder.write_elf(to, capture, "vmcore", loads=loads)


@pytest.fixture(scope="module", params=STATES, ids=lambda state: f"{state.parent.name}-{state.name}")
def capture(request: pytest.FixtureRequest) -> Capture:
    return builder.load(request.param)


@given(st.data())
@settings(deadline=None, max_examples=6)
def test_what_is_missing_is_neither_held_nor_changed(
    capture: Capture, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    root = int(capture.json["root_pa"], 16)
    tables = [int(pa) for pa in capture.pa if int(pa) != root]
    gone = data.draw(st.sets(st.sampled_from(tables), min_size=1, max_size=3))
    whole, path = cut(capture, set(), folder / "whole"), cut(capture, gone, folder / "cut")
    of_whole, of_cut = check(whole), check(path)
    assert of_whole.verdict == of_cut.verdict == "clean", of_cut.text()
    assert not of_whole.gaps and of_cut.gaps
    assert f"tables of {of_cut.gaps[0].start:#x}-" in of_cut.conclusion
    assert of_cut.conclusion.startswith("undecided: ") and of_whole.conclusion.startswith("clean: ")
    held = {n for n, state in of_cut.invariants.items() if state == "held"}
    start, end = (int(capture.json[f"vmemmap_{name}"], 16) for name in ("start", "end"))
    of_vmemmap = [gap for gap in of_cut.gaps if gap.start < end and start < gap.end]
    assert held == (
        {n for n, s in of_whole.invariants.items() if s == "held"} - WHOLE_TREE if not of_vmemmap else set()
    )
    for a, b in ((whole, path), (path, whole), (path, path)):
        found = diff(a, b)
        assert not found and found.elsewhere == 0 and not found.mappings, found.summary
        assert found.gaps == of_cut.gaps
        assert bool(of_vmemmap) == found.vmemmap_gaps
        assert (f"lacks the tables of {found.gaps[0].start:#x}" in found.summary) is True


def test_what_changed_beside_a_gap_is_still_told(tmp_path: Path) -> None:
    before, after = (builder.load(builder.CAPTURES / "6.1-4k" / name) for name in "AB")
    whole = [builder.write_elf(tmp_path / f"{n}", c, "vmcore") for n, c in enumerate((before, after))]
    expected = diff(*whole)
    page = where(f"pfn:{expected.hugepages_optimised[0][0]}", whole[1])
    assert page.struct_page_walk is not None
    gone = page.struct_page_walk[-1].table
    assert gone is not None
    found = diff(whole[0], cut(after, {gone}, tmp_path / "cut"))
    # All that changed there was below that table.
    assert (found.changed, found.tables_added, found.hugepages_optimised, found.blocks_split) == (0, 0, (), ())
    assert expected.changed > 0 and found.vmemmap_gaps and not found


def test_the_commands_exit_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = builder.load(STATES[0])
    whole = builder.write_elf(tmp_path / "whole", capture, "vmcore")
    page = where("pfn:0x40000", whole)
    assert page.struct_page_walk is not None and page.struct_page_walk[-1].table is not None
    path = cut(capture, {page.struct_page_walk[-1].table}, tmp_path / "cut")
    assert main(["check", str(path), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["gaps"] == [[0xFFFFFC0000000000, 0xFFFFFC0000200000]]
    assert "held" not in answer["invariants"].values()
    assert main(["check", str(path)]) == 3
    words = capsys.readouterr().out.splitlines()[-1]
    assert words.startswith("undecided: the tables of 0xfffffc0000000000-0xfffffc00001fffff are not in the dump; no ")
    assert main(["diff", str(whole), str(path)]) == 3
    assert "as far as both dumps show it" in capsys.readouterr().out.splitlines()[0]
    with pytest.raises(ImageError, match="a text cannot be compared with it"):
        diff(path, STATES[0].with_suffix(".ptdump.txt"))
