"""One exhaustive search in parts: together they say what the undivided search says, and nothing if one is missing."""

from __future__ import annotations

import csv
import os
import sqlite3
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from small_campaign import campaign, jobs

import vmemmap
from vmemmap.campaign import Given, database_of, results
from vmemmap.campaign import run as run_campaign
from vmemmap.campaign.merged import Merged

TABLE = Path(__file__).parents[2] / "docs" / "variants.tsv"
#: Searches with more states take longer, in each part.
STATES = 1000
ALL = bool(os.environ.get("VMEMMAP_ALL_DEPTHS"))


@contextmanager
def threads() -> Generator[Given]:
    with ThreadPoolExecutor(2) as pool:
        yield Given(pool, slots=2)


def quick() -> list[dict[str, str]]:
    with TABLE.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if row["exhaustive"] == "yes" and int(row["states"]) <= STATES]


def spec(path: Path, *matrices: tuple[str, str, int], more: str = "") -> Path:
    tables = [
        f'[[matrix]]\nscenarios = ["{scenario}"]\nvariants = ["{variant}"]\nsplit = {split}\nshorten = 0\n{more}\n'
        for scenario, variant, split in matrices
    ]
    path.write_text("\n".join(tables))
    return path


def searches(path: Path) -> list[Merged]:
    ended = run_campaign(path, backend=threads)
    assert not ended.summary.failed
    return results.shown(ended.database).searches


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_on_every_quick_variant_the_parts_say_what_the_undivided_search_says(depth: int, tmp_path: Path) -> None:
    # A part of the variants at each depth; all of them in `make nightly`.
    rows = [row for number, row in enumerate(quick()) if ALL or number % 12 == depth]
    assert len(rows) > (400 if ALL else 30)
    path = spec(tmp_path / "parts.toml", *((row["corpus"], row["variant"], depth) for row in rows))
    wrong: list[object] = []
    for row, search in zip(rows, searches(path), strict=True):
        violated = sorted(part.partition(":")[0] for part in row["violated"].split() if part != "-")
        # Behind the first violation of a part it ends after some work, as the undivided search does.
        whole = search.exhaustive or row["verdict"] == "violated"
        if (search.verdict, whole, sorted(search.violated)) != (row["verdict"], True, violated):
            wrong.append((row, search.to_dict()))
    assert not wrong, "\n".join(map(str, wrong))


#: Violated at one depth in some parts and not in others.
CASE = ("R6", "mmap-only", 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a safe variant and of one that is violated."""
    path = spec(tmp_path_factory.mktemp("parts") / "whole.toml", CASE, ("R8", "trylock-alone", 2))
    answer = campaign("run", path, "--workers", "2")
    assert (answer.returncode, answer.stderr.count("Traceback")) == (0, 0), answer
    return path


def copy(whole: Path, tmp_path: Path, *statements: str) -> Path:
    """The campaign, after somebody has been at its database."""
    path = tmp_path / "copy.db"
    with closing(sqlite3.connect(database_of(whole))) as source, closing(sqlite3.connect(path)) as db:
        source.backup(db)
        for statement in statements:
            assert db.execute(statement).rowcount > 0
        db.commit()
    return path


def test_show_has_one_line_for_a_split_search(whole: Path) -> None:
    text = campaign("show", whole).stdout
    assert "exhaustive split 3" in text and "violated I1 I18 in 5 parts (trace: job " in text
    assert "exhaustive split 2" in text and "safe in 4 parts" in text
    shown = results.shown(database_of(whole))
    assert (shown.differing, shown.undecided) == ([], []), "a part without a violation is what is expected"
    assert {job["verdict"] for job in jobs(whole)} == {"violated", "inconclusive"}, "no part is safe by itself"
    document = shown.to_dict()
    violated, safe = document["searches"]
    assert (violated["verdict"], violated["exhaustive"], violated["violated"]) == ("violated", True, ["I1", "I18"])
    assert (safe["verdict"], safe["exhaustive"], safe["missing"], safe["cut"]) == ("safe", True, [], [])
    assert "states" not in safe and safe["sum_of_parts"]["states"] >= safe["finished"] == len(safe["jobs"])
    listed = jobs(whole)
    assert [job["prefix"] for job in listed if job["number"] == violated["jobs"][0]] == [None]
    assert all(job["prefix"] for job in listed if job["number"] in violated["jobs"][1:])


def test_a_trace_of_a_part_is_one_of_the_whole(whole: Path, tmp_path: Path) -> None:
    search = results.shown(database_of(whole)).searches[0]
    number = search.shows
    assert number is not None
    trace = tmp_path / "trace.json"
    trace.write_text(campaign("show", whole, "--trace", str(number)).stdout)
    again = vmemmap.replay(trace)
    assert again.identical and again.violation is not None and again.violation.invariant in search.violated


def test_a_search_without_one_of_its_parts_is_not_whole(whole: Path, tmp_path: Path) -> None:
    """Neither if it has no answer yet, nor if nobody asked for it."""
    safe = results.shown(database_of(whole)).searches[1]
    last = safe.parts[-1]
    waiting = copy(whole, tmp_path, f"DELETE FROM result WHERE job = '{last.job.id}'")
    found = results.shown(waiting).searches[1]
    assert (found.verdict, found.exhaustive, found.words) == (None, False, "3 of 4 parts")
    assert [row.number for row in results.shown(waiting).undecided] == [safe.parts[0].number, last.number]
    (tmp_path / "copy.db").unlink()
    gone = copy(whole, tmp_path, f"DELETE FROM round_job WHERE job = '{last.job.id}'")
    found = results.shown(gone).searches[1]
    assert (found.verdict, found.exhaustive, found.missing) == ("inconclusive", False, (last.job.prefix,))
    assert f"1 missing: {last.job.prefix}" in found.words
    assert [row.number for row in results.shown(gone).undecided] == [safe.parts[0].number]
    # The tree itself: nobody knows which parts there should be.
    (tmp_path / "copy.db").unlink()
    bare = copy(whole, tmp_path, f"DELETE FROM round_job WHERE job = '{safe.parts[0].job.id}'")
    found = results.shown(bare).searches[1]
    assert (found.verdict, found.exhaustive) == ("inconclusive", False)


def test_parts_of_two_versions_are_no_search(whole: Path, tmp_path: Path) -> None:
    last = results.shown(database_of(whole)).searches[1].parts[-1]
    path = copy(whole, tmp_path, f"UPDATE result SET core = 'another' WHERE job = '{last.job.id}'")
    found = results.shown(path).searches[1]
    assert (found.verdict, found.exhaustive) == ("inconclusive", False)
    assert "of different versions" in found.words


def test_a_part_that_was_cut_leaves_the_search_undecided_and_is_named(tmp_path: Path) -> None:
    # The tree has more executions than one, too.
    path = spec(tmp_path / "cut.toml", ("R8", "trylock-alone", 2), more="executions = 2")
    answer = campaign("run", path, "--workers", "1")
    assert answer.returncode == 3, answer
    (found,) = results.shown(database_of(path)).searches
    assert (found.verdict, found.exhaustive) == ("inconclusive", False)
    cut = [part.name for part in found.parts if part.result and not part.result.document["exhaustive"]]
    assert found.cut == cut and 0 < len(cut) < len(found.parts) and f"{len(cut)} cut: {cut[0]}" in found.words
