"""``campaign show``: what a script and a reader get, and that a second run asks nothing again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_campaign import campaign, jobs
from test_store import JOB, NEW, answer, begin

from vmemmap.campaign import table
from vmemmap.campaign.job import Job
from vmemmap.campaign.progress import Estimate
from vmemmap.campaign.results import shown
from vmemmap.campaign.store import Store

KEYS = {"scenario", "variant", "policies", "kernel", "strategy", "seed", "verdict", "seconds", "host", "version"}


def test_a_job_has_what_scripts_rely_on(undisturbed: list[dict[str, Any]]) -> None:
    for job in undisturbed:
        assert set(job) >= KEYS
        assert job["verdict"] in ("safe", "violated", "inconclusive")
        assert job["kernel"] == "6.1"
        assert job["seconds"] > 0
        assert job["version"].startswith("0.")
    verdicts = {
        job["variant"]: job["verdict"] for job in undisturbed if job["strategy"] == "exhaustive" and not job["split"]
    }
    assert verdicts == {"kernel": "safe", "mmap-only": "violated", "unlocked": "violated"}
    assert {job["seed"] for job in undisturbed if job["strategy"] == "pct"} == set(range(9))


def test_what_is_shown_and_that_a_second_run_asks_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "two.toml"
    spec.write_text('title = "two"\n[[matrix]]\nscenarios = ["R6"]\nvariants = ["kernel", "mmap-only"]\n')
    assert campaign("run", spec, "--workers", "1").returncode == 0, "both are as expected"
    first = jobs(spec)
    assert campaign("run", spec, "--workers", "1").returncode == 0
    assert campaign("resume", tmp_path / "two.db").returncode == 0
    assert jobs(tmp_path / "two.db") == first
    text = campaign("show", spec)
    assert "violated I1" in text.stdout
    assert "two: 2 jobs: 2 finished; version" in text.stdout
    assert "safe" in campaign("show", spec, "--matrix").stdout
    assert "no verdicts changed" in campaign("show", spec, "--since", first[0]["version"]).stdout
    trace = tmp_path / "trace.json"
    trace.write_text(campaign("show", spec, "--trace", "2").stdout)
    assert json.loads(trace.read_text())["document"]["name"] == "r06_ptdump_vs_hot_remove"
    for options in (["--trace", "1"], ["--trace", "3"], ["--since", "9.9.9"]):
        wrong = campaign("show", spec, *options)
        assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trace.json", "two.db", "two.toml"]


def test_a_violation_that_nobody_expected_is_a_difference(tmp_path: Path) -> None:
    spec = tmp_path / "one.toml"
    spec.write_text('[[matrix]]\nscenarios = ["R6"]\npolicies = { walker = "none" }\n')
    answer = campaign("run", spec)
    assert answer.returncode == 1
    assert "nothing was expected" in answer.stdout


def test_parquet_has_a_row_for_each_job(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path, file = tmp_path / "a.db", tmp_path / "a.parquet"
    with Store.create(path) as store:
        round = begin(store)
        store.record(
            round,
            [(JOB[1], {**answer(NEW, "violated"), "violated": "I1 I6", "document": {"executions": 5}})],
            None,
        )
    shown_now = campaign("show", path, "--parquet", file, "--json")
    assert shown_now.returncode == 0
    rows = parquet.read_table(file).to_pylist()
    assert [row["verdict"] for row in rows] == [None, "violated", None, None]
    assert [row["seed"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["violated"] == "I1 I6"
    assert rows[1]["executions"] == 5
    refused = campaign("show", path, "--parquet", tmp_path / "nowhere" / "a.parquet")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)


def test_names_from_a_file_are_text_for_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    evil = Job("explore", "own.py:x", "[red]\x1b[2J\x07</>", strategy="random", seed=1)
    with Store.create(path) as store:
        round = begin(store, [evil])
        store.record(round, [(evil, {**answer(NEW, "violated"), "host": "\x1b]0;me\x07", "violated": "[link]"})], None)
        store.note(round, evil, "\x1b[31mgone", failed=True)
    console = Console(record=True, width=165, force_terminal=False, file=(tmp_path / "out").open("w"))
    now = shown(path)
    table.print_table(console, now)
    table.print_matrix(console, now)
    text = (tmp_path / "out").read_text() if console.file.flush() is None else ""
    console.file.close()
    assert "[red]\N{REPLACEMENT CHARACTER}[2J" in text
    assert not set(text) & {"\x1b", "\x07"}


JOBS_OF_ALL_KINDS = st.lists(
    st.builds(
        Job,
        kind=st.sampled_from(["explore", "stress"]),
        scenario=st.sampled_from("ab"),
        variant=st.just("v"),
        strategy=st.sampled_from(["random", None]),
        seed=st.integers(0, 3),
        seconds=st.sampled_from([1.0, 60.0, None]),
    ),
    unique_by=lambda job: job.id,
)


@given(JOBS_OF_ALL_KINDS, st.data())
def test_an_estimate_ends_with_the_work_and_is_exact_where_all_jobs_are_alike(
    listed: list[Job], data: st.DataObject
) -> None:
    estimate = Estimate(listed)
    order = data.draw(st.permutations(listed))
    for done, job in enumerate(order):
        assert estimate.remaining(2) > 0
        estimate.done(job, 3.0)
        if len({job.group.text() for job in listed}) == 1:
            assert estimate.remaining(2) == pytest.approx(3.0 * (len(listed) - done - 1) / 2)
    assert estimate.remaining(2) == 0
