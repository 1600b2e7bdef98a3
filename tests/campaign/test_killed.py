"""kill -9 of the coordinator and of workers at any moment: the database opens, no finished job is missing, none is
counted twice, and in the end the verdicts are those of a campaign that nobody disturbed. `VMEMMAP_KILLS=50` is what
`make nightly` does."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small_campaign import JOBS, PARTS, campaign, command, jobs, merged, verdicts

KILLS = int(os.environ.get("VMEMMAP_KILLS", "4"))
SEED = int(os.environ.get("VMEMMAP_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


def finished(database: Path) -> dict[str, tuple[Any, ...]]:
    """Results by job, read by SQLite alone from whatever a killed process has left."""
    if not database.exists() or not database.stat().st_size:
        return {}
    db = sqlite3.connect(database)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'result'").fetchone():
            return {}
        rows = db.execute("SELECT job, verdict, finished, host, pid FROM result").fetchall()
    finally:
        db.close()
    assert len({row[0] for row in rows}) == len(rows), "a job is counted twice"
    return {row[0]: row[1:] for row in rows}


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def spawned(pid: int) -> list[int]:
    """Worker processes; the tracker of `multiprocessing` is a child as well, and harmless."""
    found: list[int] = []
    for child in children(pid):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids: list[int], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.timeout(60 + 40 * KILLS)
def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(
    small: Path, undisturbed: list[dict[str, Any]]
) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    database = small.with_suffix(".db")
    known: dict[str, tuple[Any, ...]] = {}
    kills = {"coordinator": 0, "worker": 0}
    rounds = 0
    while sum(kills.values()) < KILLS:
        rounds += 1
        assert rounds < 10 * KILLS + 10
        if len(known) == JOBS:
            # Everything is done before all kills were spent: once more from the beginning.
            assert verdicts(jobs(database)) == verdicts(undisturbed)
            for file in small.parent.glob("small.db*"):
                file.unlink()
            known = {}
        verb = rng.choice(["run", "resume"]) if known else "run"
        process = subprocess.Popen(
            command(verb, small, "--workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        moment = time.monotonic() + rng.uniform(0.0, 4.0)
        while time.monotonic() < moment and process.poll() is None:
            time.sleep(0.005)
        workers = children(process.pid)
        if rng.random() < 0.7:
            # Early moments have no worker yet.
            while process.poll() is None and not (workers := spawned(process.pid)):
                time.sleep(0.005)
            if process.poll() is None:
                os.kill(rng.choice(workers), signal.SIGKILL)
                kills["worker"] += 1
            # Now and then the coordinator is left to go on with that.
            if rng.random() < 0.5:
                process.wait(timeout=100)
        if process.poll() is None:
            workers = children(process.pid)
            process.kill()
            kills["coordinator"] += 1
        process.wait(timeout=100)
        assert all_gone(workers), "a worker has outlived its coordinator"
        now = finished(database)
        assert {job: now.get(job) for job in known} == known, f"seed {SEED}: a finished job is missing or was run again"
        known = now
    assert campaign("run", small, "--workers", "2").returncode == 3
    now = finished(database)
    assert {job: now.get(job) for job in known} == known
    assert len(now) == JOBS
    assert verdicts(jobs(database)) == verdicts(undisturbed)
    (search,) = merged(database)
    assert (search["verdict"], search["exhaustive"], search["finished"]) == ("violated", True, PARTS)
    print(f"kills {sum(kills.values())} ({kills}), lost 0, doubled 0")


def test_a_worker_that_dies_costs_its_own_job_one_more_run(small: Path, undisturbed: list[dict[str, Any]]) -> None:
    with subprocess.Popen(
        command("run", small, "--workers", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        killed = 0
        while process.poll() is None and killed < 2:
            workers = spawned(process.pid)
            if finished(small.with_suffix(".db")) and workers:
                os.kill(workers[-1], signal.SIGKILL)
                killed += 1
            time.sleep(0.05)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 3, said
    assert verdicts(jobs(small)) == verdicts(undisturbed)
    # A worker between two jobs dies unnoticed.
    assert said.count("its worker died; it runs again") <= killed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_within_a_second_with_all_saved(tmp_path: Path, number: signal.Signals) -> None:
    spec = tmp_path / "long.toml"
    # The first job is over at once; the others would go on for minutes.
    spec.write_text(
        '[[matrix]]\nscenarios = ["R6"]\n[[matrix]]\nkind = "stress"\nscenarios = ["R6"]\nseeds = "0-3"\nseconds = 60\n'
    )
    process = subprocess.Popen(
        command("run", spec, "--workers", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not finished(spec.with_suffix(".db")):
        assert process.poll() is None
        time.sleep(0.02)
    workers = children(process.pid)
    begin = time.monotonic()
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    took = time.monotonic() - begin
    print(f"ended after {took:.2f} s")
    assert process.returncode == 130
    assert "1 of 5 jobs are saved" in said
    assert "finished" in out
    assert all_gone(workers)
    # A second on a machine that has one to spare; this one may not.
    assert took < 10
    assert [job["state"] for job in jobs(spec)] == ["finished", "waiting", "waiting", "waiting", "waiting"]
