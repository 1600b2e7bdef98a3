"""A campaign on a real scheduler of dask.distributed with real worker processes on loopback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from small_campaign import campaign, command, jobs, verdicts

from vmemmap import SpecError
from vmemmap.campaign.version import Code, code, difference

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.timeout(240)


class Cluster:
    """A scheduler on a free port, and workers of one thread each."""

    def __init__(self, stack: ExitStack, folder: Path, tls: tuple[str, ...] = ()) -> None:
        self._stack = stack
        self._folder = folder
        self._tls = tls
        file = folder / "scheduler.json"
        self._start(
            *(
                "scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--dashboard-address",
                "127.0.0.1:0",
                "--scheduler-file",
                str(file),
                *(("--protocol", "tls", *tls) if tls else ()),
            ),
            # A job that kills its workers is given back after two of them.
            DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1",
        )
        end = time.monotonic() + 60
        while not (file.exists() and file.stat().st_size):
            assert time.monotonic() < end, "the scheduler has not come up"
            time.sleep(0.05)
        found = re.search(r'"address": "((?:tcp|tls)://[0-9.:]+)"', file.read_text())
        assert found is not None
        self.address = found[1]

    def worker(self, name: str, *options: str, nanny: bool = False, **environment: str) -> subprocess.Popen[str]:
        return self._start(
            *("worker", self.address, "--nthreads", "1", "--name", name, "--nanny" if nanny else "--no-nanny"),
            *("--local-directory", str(self._folder), "--no-dashboard", *self._tls, *options),
            **environment,
        )

    def _start(self, kind: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        program = "import sys; from dask.__main__ import main; sys.argv[0] = 'dask'; main()"
        log = self._stack.enter_context((self._folder / f"{kind}-{time.monotonic_ns()}.log").open("w"))
        process = subprocess.Popen(
            [sys.executable, "-c", program, kind, *arguments],
            stdout=log,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    with ExitStack() as stack:
        yield Cluster(stack, folder)


def test_a_worker_killed_in_the_middle_costs_nothing(
    cluster: Cluster, small: Path, undisturbed: list[dict[str, Any]]
) -> None:
    victim, _ = cluster.worker("first"), cluster.worker("second")
    process = subprocess.Popen(
        command("run", small, "--scheduler", cluster.address),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while sum(job["state"] == "finished" for job in _if_any(small)) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    done = {job["id"]: job for job in jobs(small) if job["state"] == "finished"}
    os.kill(victim.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 3, said
    assert re.search(r"workers of tcp://[0-9.:]+; dashboard: http://", said)
    found = jobs(small)
    assert all(job["state"] == "finished" for job in found)
    assert verdicts(found) == verdicts(undisturbed)
    assert {job["id"]: job for job in found if job["id"] in done} == done
    print(f"{len(done)} of {len(found)} jobs were finished when one of two workers was killed")


def _if_any(spec: Path) -> list[dict[str, Any]]:
    return jobs(spec) if spec.with_suffix(".db").exists() and spec.with_suffix(".db").stat().st_size else []


POISON = """
import os, signal, vmemmap

@vmemmap.scenario(title="kills its worker", sources=["me"])
def poison(m):
    if {mark!r} in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    block = m.memory.add()
    m.setup(block)
    return [m.ptdump(block)]
"""


def test_a_job_that_kills_its_workers_is_run_alone_and_given_up_and_no_other_one_is(
    cluster: Cluster, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        cluster.worker(name, nanny=True, VMEMMAP_TEST_POISON="1")
    (tmp_path / "own.py").write_text(POISON.format(mark="VMEMMAP_TEST_POISON"))
    spec = tmp_path / "spec.toml"
    spec.write_text(
        '[[matrix]]\nscenarios = ["own.py:poison", "R6"]\n[[matrix]]\nscenarios = ["R6"]\nvariants = ["64k-kernel"]\n'
    )
    answer = campaign("run", spec, "--scheduler", cluster.address, "--allow-code", timeout=200)
    assert answer.returncode == 3, answer
    assert "the worker died beside it" in answer.stderr
    assert "it runs again alone" in answer.stderr
    assert [(job["state"], job["failed"]) for job in jobs(spec)[1:]] == [("finished", None)] * 2, answer.stderr
    assert jobs(spec)[0]["state"] == "failed"
    assert "with nothing beside it as well" in jobs(spec)[0]["failed"]


def test_without_a_scheduler_or_without_a_worker_it_is_one_line(
    cluster: Cluster, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = campaign("run", small, "--scheduler", "tcp://127.0.0.1:1")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
    assert "scheduler tcp://127.0.0.1:1" in answer.stderr
    for address in ("somewhere", "tcp://somewhere"):
        answer = campaign("run", small, "--scheduler", address)
        assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
        assert f"scheduler is '{address}': expected tcp://HOST:PORT" in answer.stderr
    assert list(small.parent.glob("small.db*")) == []
    from vmemmap.campaign import dask_cluster

    monkeypatch.setattr(dask_cluster, "_WORKER_SECONDS", 0.2)
    with pytest.raises(SpecError, match="has no worker; dask worker"):
        dask_cluster.Cluster(cluster.address)


def test_a_worker_with_other_code_is_named(cluster: Cluster, small: Path, tmp_path: Path) -> None:
    # A copy of the package that differs in a comment.
    import vmemmap

    copy = tmp_path / "copy"
    shutil.copytree(
        Path(vmemmap.__file__).parent, copy / "vmemmap", ignore=shutil.ignore_patterns("__pycache__", "data")
    )
    with (copy / "vmemmap" / "errors.py").open("a") as file:
        file.write("# other\n")
    cluster.worker("other", PYTHONPATH=str(copy))
    answer = campaign("run", small, "--scheduler", cluster.address)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
    here = code()
    assert re.search(
        rf"worker tcp://[0-9.:]+ has vmemmap {here.version} of other sources: "
        rf"package [0-9a-f]+ \(here {here.package}\)",
        answer.stderr,
    )
    assert list(small.parent.glob("small.db*")) == []


def test_versions_that_differ_are_said_by_their_halves() -> None:
    ours = Code("1.0", "aa", "bb")
    assert difference(ours, ours) is None
    assert difference(ours, Code("1.1", "aa", "bb")) == "has vmemmap 1.1, the coordinator 1.0"
    assert difference(ours, Code("1.0", "aa", "cc")) == "has vmemmap 1.0 of other sources: core cc (here bb)"


def test_tls_options_are_for_a_scheduler_and_all_three_are_needed(small: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    for options in (["--tls-cert", ca], ["--scheduler", "tls://127.0.0.1:1", "--tls-ca-file", ca]):
        answer = campaign("run", small, *options)
        assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
        assert "--tls-" in answer.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")
def test_tls_options_reach_dask(small: Path, tmp_path: Path) -> None:
    """A scheduler that takes nobody without a certificate of its CA."""
    folder = tmp_path / "tls"
    folder.mkdir()

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ours", "theirs"):
        fresh = ("-days", "2", "-nodes", "-newkey", "rsa:2048")
        openssl(
            *("req", "-x509", "-subj", f"/CN=CA of {name}", *fresh),
            *("-keyout", f"{name}-ca.key", "-out", f"{name}-ca.pem"),
        )
        openssl(*("req", "-subj", f"/CN={name}", *fresh), *("-keyout", f"{name}.key", "-out", f"{name}.csr"))
        signed = ("-CA", f"{name}-ca.pem", "-CAkey", f"{name}-ca.key", "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")

    def tls(name: str) -> tuple[str, ...]:
        names = (("--tls-ca-file", "-ca.pem"), ("--tls-cert", ".pem"), ("--tls-key", ".key"))
        return tuple(part for option, suffix in names for part in (option, str(folder / f"{name}{suffix}")))

    small.write_text('[[matrix]]\nscenarios = ["R6"]\n')
    with ExitStack() as stack:
        cluster = Cluster(stack, folder, tls("ours"))
        assert cluster.address.startswith("tls://")
        cluster.worker("one")
        for wrong in ((), tls("theirs")):
            answer = campaign("run", small, "--scheduler", cluster.address, *wrong)
            assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1), answer
            assert cluster.address in answer.stderr
        assert list(small.parent.glob("small.db*")) == []
        answer = campaign("run", small, "--scheduler", cluster.address, *tls("ours"))
        assert answer.returncode == 0, answer
    assert [job["verdict"] for job in jobs(small)] == ["safe"]


def test_dask_says_killed_worker_as_a_broken_executor() -> None:
    from concurrent.futures import Future

    from vmemmap.campaign.dask_cluster import _pass_on

    class Task:
        def result(self, timeout: float) -> str:
            raise distributed.KilledWorker("job", None, 4)

    answer: Future[Any] = Future()
    _pass_on(answer, Task())
    with pytest.raises(BrokenExecutor, match="the worker died beside it"):
        answer.result()
