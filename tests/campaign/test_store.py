"""The database: a full disk, a folder that nobody may write to, two coordinators, files that are none of ours."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_campaign import JOBS, SMALL, campaign, command, jobs, verdicts

from vmemmap import SpecError
from vmemmap.campaign.job import Job
from vmemmap.campaign.lock import coordinating
from vmemmap.campaign.results import shown
from vmemmap.campaign.store import Round, Store
from vmemmap.campaign.version import Code

NEW, OLD = Code("0.2.0", "p" * 12, "c" * 12), Code("0.1.0", "q" * 12, "c" * 12)
JOB = [
    Job("explore", "r06_ptdump_vs_hot_remove", "kernel", strategy="random", seed=seed, executions=5)
    for seed in range(4)
]


def answer(code: Code, verdict: str = "inconclusive", done: int = 10) -> dict[str, Any]:
    ours = {"version": code.version, "package": code.package, "core": code.core}
    place = {"host": "here", "pid": 1, "started": "2026-01-01T00:00:00.000+00:00"}
    return {
        **place,
        "code": ours,
        "verdict": verdict,
        "done": done,
        "seconds": 2.0,
        "document": {},
        "policies": {},
        "kernel": "6.1",
    }


def begin(store: Store, jobs: list[Job] = JOB, code: Code = NEW) -> Round:
    return store.begin("t", jobs, code, None, "here")


def test_a_result_is_kept_once_whoever_brings_it_how_often(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a.db") as store:
        round = begin(store)
        assert [store.record(round, [(JOB[0], answer(NEW, verdict))], None) for verdict in ("safe", "violated")] == [
            1,
            0,
        ]
        assert [result.verdict for result in store.results()] == ["safe"]
        assert store.pending(round) == JOB[1:]


def test_the_same_jobs_under_the_same_code_are_the_same_round(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a.db") as store:
        first = begin(store)
        store.record(first, [(JOB[0], answer(NEW))], None)
        assert begin(store) == first
        # Another list of jobs is a round of its own, and what is done under this code is done.
        grown = begin(store, [*JOB[2:], JOB[0]])
        assert grown.id != first.id
        assert store.pending(grown) == JOB[2:]
        # Other code answers anew.
        assert begin(store, code=OLD).id not in (first.id, grown.id)
        assert store.pending(begin(store, code=OLD)) == JOB


def test_a_round_that_other_code_resumes_repeats_nothing(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a.db") as store:
        round = begin(store, code=OLD)
        store.record(round, [(JOB[0], answer(OLD))], None)
        store.record(round, [(JOB[1], answer(NEW))], None)
        assert store.pending(round) == JOB[2:]


def test_since_tells_verdicts_and_rates_of_two_versions_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Store.create(path) as store:
        before = begin(store, code=OLD)
        store.record(before, [(job, answer(OLD, done=10)) for job in JOB], "abcdef012345")
        now = begin(store)
        store.record(
            now, [(job, answer(NEW, "violated" if job is JOB[2] else "inconclusive", done=30)) for job in JOB[:3]], None
        )
    for name in ("0.1.0", "abcdef", "0.1.0+abcdef012345", "qqqqqq"):
        since = shown(path, since=name).since
        assert since is not None
        assert (since.compared, [change.row.job for change in since.changes]) == (3, [JOB[2]])
        assert [rate.ratio for rate in since.rates] == [pytest.approx(3.0)]
    with pytest.raises(SpecError, match=r"no result of version '0\.3\.0'; there are 0\.1\.0\+abcdef012345, 0\.2\.0"):
        shown(path, since="0.3.0")


def test_two_coordinators_on_one_database_the_second_is_told_who_the_first_is(small: Path) -> None:
    small.write_text(SMALL.replace("seconds = 0.05", "seconds = 60"))
    first = subprocess.Popen(
        command("run", small, "--workers", "1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        database = small.with_suffix(".db")
        while not (database.exists() and database.stat().st_size):
            assert first.poll() is None
            time.sleep(0.02)
        for verb, file in (("run", small), ("resume", database)):
            second = campaign(verb, file)
            assert second.returncode == 2
            assert (
                second.stderr
                == f"vmemmap: {database}: another coordinator is at it: process {first.pid} on {os.uname().nodename}\n"
            )
        # Looking is not writing.
        assert len(jobs(database)) == JOBS
    finally:
        first.kill()
        first.wait()
    # Its lock died with it.
    with coordinating(database):
        pass
    assert not (small.parent / "small.db-lock").exists()


def test_a_lock_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "a.db-lock"
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with coordinating(tmp_path / "a.db"):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
        with pytest.raises(SpecError, match=f"process {os.getpid()} on"), coordinating(tmp_path / "a.db"):
            pass
    assert not lock.exists()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, for those who may mount one; else the test limits the size of files instead."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", place], capture_output=True).returncode:
        place.rmdir()
    yield place
    subprocess.run(["umount", place], capture_output=True)


def test_a_full_disk_loses_nothing_that_was_finished(
    tmp_path: Path, mounted: Path, undisturbed: list[dict[str, Any]]
) -> None:
    place, limit = (
        (mounted, None)
        if mounted.exists()
        else (tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)))
    )
    spec = place / "small.toml"
    spec.write_text(SMALL)
    options: dict[str, Any] = {} if limit is None else {"preexec_fn": limit}
    answer = campaign("run", spec, "--workers", "2", **options)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
    assert "cannot be written" in answer.stderr
    # It opens, on the disk that is full.
    before = {job["id"]: job for job in jobs(spec) if job["state"] == "finished"}
    print(f"{len(before)} of {JOBS} jobs were finished when the disk was full")
    assert 0 < len(before) < JOBS
    # A closed database needs less room than an open one, so there may be room for a few more.
    again = campaign("resume", spec, "--workers", "2", **options)
    assert again.returncode in (2, 3), again
    assert {job["id"]: job for job in jobs(spec) if job["id"] in before} == before
    # With room it goes on, and repeats nothing.
    roomy = tmp_path / "roomy"
    roomy.mkdir()
    for file in place.glob("small.*"):
        shutil.copy(file, roomy)
    assert campaign("resume", roomy / "small.db", "--workers", "2").returncode == 3
    after = jobs(roomy / "small.db")
    assert {job["id"]: job for job in after if job["id"] in before} == before
    assert verdicts(after) == verdicts(undisturbed)


@pytest.mark.parametrize("left", ["whole", "killed", "killed, without its shared memory"])
def test_a_read_only_folder_can_be_looked_at_and_nothing_is_written_there(tmp_path: Path, left: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path = place / "a.db"
    program = (
        "import os, sys, test_store as t; from pathlib import Path\n"
        "store = t.Store.create(Path(sys.argv[1])); round = t.begin(store)\n"
        "store.record(round, [(job, t.answer(t.NEW)) for job in t.JOB[:3]], None)\n"
        "store.close() if sys.argv[2] == 'whole' else os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, left], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    )
    assert done.returncode == (0 if left == "whole" else -signal.SIGKILL)
    if left.startswith("killed"):
        assert (place / "a.db-wal").stat().st_size
    if "without" in left:
        (place / "a.db-shm").unlink()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(["mount", "-o", "bind,ro", place, place], capture_output=True).returncode
    )
    mounted = mounted and not subprocess.run(["mount", "-o", "remount,bind,ro", place], capture_output=True).returncode
    if not mounted:
        place.chmod(0o555)
    try:
        files = sorted(place.iterdir())
        assert shown(path).count("finished") == 3
        answer = campaign("resume", path)
        assert answer.returncode == 2
        assert len(answer.stderr.splitlines()) == 1
        assert sorted(place.iterdir()) == files
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)
        place.chmod(0o755)
    with Store.create(path) as store:
        assert len(store.pending(begin(store))) == 1


def test_files_of_others_are_refused_in_one_line(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()
    text = tmp_path / "text.db"
    text.write_text("not a database " * 100)
    empty = tmp_path / "empty.db"
    empty.touch()
    ours = tmp_path / "ours.db"
    with Store.create(ours) as store:
        begin(store)
    trap = tmp_path / "trap.db"
    shutil.copy(ours, trap)
    with sqlite3.connect(trap) as db:
        db.execute("CREATE TRIGGER t AFTER INSERT ON result BEGIN DELETE FROM result; END")
    db.close()
    forged = tmp_path / "forged.db"
    shutil.copy(ours, forged)
    with sqlite3.connect(forged) as db:
        db.execute(
            "UPDATE job SET document = ?",
            (json.dumps({"kind": "explore", "scenario": "evil.py:x", "variant": "v", "policies": {}}),),
        )
    db.close()
    for path in (other, text, empty, trap, forged, tmp_path / "none.db", tmp_path):
        for verb in ("show", "resume"):
            answer = campaign(verb, path)
            assert answer.returncode == 2, (path, answer)
            assert len(answer.stderr.splitlines()) == 1, (path, answer)
            assert str(path) in answer.stderr


def test_a_value_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    with Store.create(path) as store:
        begin(store)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE job SET document = zeroblob(?)", (100 << 20,))
    db.close()
    if sys.version_info >= (3, 11):
        with pytest.raises(SpecError):
            shown(path)
