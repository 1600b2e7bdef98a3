"""Where answers go: files are replaced whole or written as what they are, and what was found is told first. A
reader that has gone, a full disk, a closed stream: one line or none, and the exit code of that.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmemmap import SpecError, saving

CAPTURE = Path(__file__).resolve().parent.parent / "captures" / "6.1-4k" / "B.npz"
VIOLATED = ("explore", "R6", "--variant", "mmap-only", "--budget", "200")
PROGRAM = "import sys; from vmemmap.cli import main; sys.exit(main())"


def vmemmap(
    *arguments: object,
    cwd: Path | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    before: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=stderr, text=True, cwd=cwd, timeout=60, preexec_fn=before)


def no_byte_to_files() -> None:
    """As on a full disk: every write to a regular file fails, with EFBIG."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def read_in_background(path: Path) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader, found


@given(mode=st.integers(0, 0o777), umask=st.integers(0, 0o777), fails=st.booleans(), link=st.booleans())
@pytest.mark.parametrize("existing", [True, False])
def test_a_file_keeps_its_mode_and_its_links_and_a_new_one_has_what_the_umask_leaves(
    tmp_path_factory: pytest.TempPathFactory, existing: bool, mode: int, umask: int, fails: bool, link: bool
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    target, path = folder / "target", folder / ("link" if link else "target")
    if existing:
        target.write_text("old")
        target.chmod(mode)
    if link:
        path.symlink_to("target")
    before = os.umask(umask)
    try:
        with saving.whole_text(path) as file:
            file.write("new")
            if fails:
                raise OSError(28, os.strerror(28))
    except SpecError as error:
        assert fails
        assert str(error) == f"{path}: cannot be written: No space left on device"
    else:
        assert not fails
    finally:
        os.umask(before)
    assert path.is_symlink() == link
    assert {entry.name for entry in folder.iterdir()} <= {"target", "link"}, "nothing is left beside"
    assert target.exists() == (existing or not fails)
    if target.exists():
        assert stat.S_IMODE(target.stat().st_mode) == (mode if existing else 0o666 & ~umask)
        target.chmod(0o600)
        assert target.read_text() == ("old" if fails else "new")


@pytest.mark.parametrize("option", ["--trace-out", "--html"])
def test_a_fifo_is_written_to_and_stays_one(tmp_path: Path, option: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, found = read_in_background(fifo)
    answer = vmemmap(*VIOLATED, option, fifo)
    reader.join(timeout=60)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert list(tmp_path.iterdir()) == [fifo]
    assert found[0].startswith(b"{\n" if option == "--trace-out" else b"<!doctype html>")


def test_a_pipe_that_the_shell_names_is_written_to(tmp_path: Path) -> None:
    command = f'{sys.executable} -c "{PROGRAM}" {" ".join(VIOLATED)} --trace-out >(gzip > trace.gz; echo done >&2)'
    answer = subprocess.run(
        ["bash", "-c", f"{command} | cat"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert answer.stderr == "done\n"
    trace = json.loads(gzip.decompress((tmp_path / "trace.gz").read_bytes()))
    assert trace["scenario"].startswith("r06")


def test_standard_output_by_name_gets_the_answer_and_the_trace(tmp_path: Path) -> None:
    saved = tmp_path / "both"
    with saved.open("w") as out:
        assert vmemmap(*VIOLATED, "--trace-out", f"/dev/fd/{1}", stdout=out.fileno()).returncode == 1
    text = saved.read_text()
    assert "I1" in text[: text.index("{\n")]
    assert json.loads(text[text.index("{\n") :])["scenario"].startswith("r06")


@pytest.mark.parametrize("option", ["--trace-out", "--html"])
def test_a_dash_is_no_file(tmp_path: Path, option: str) -> None:
    answer = vmemmap(*VIOLATED, option, "-", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("vmemmap: -: the ")
    assert len(answer.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_replay_writes_to_standard_output_for_a_dash(tmp_path: Path) -> None:
    assert vmemmap(*VIOLATED, "--trace-out", "trace.json", cwd=tmp_path).returncode == 1
    answers = [vmemmap("replay", "trace.json", *out, cwd=tmp_path) for out in ((), ("--out", "-"))]
    assert answers[0].stdout == answers[1].stdout != ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.json"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*VIOLATED, "--trace-out", "file"), "violated"),
        ((*VIOLATED, "--html", "file"), "violated"),
        ((*VIOLATED, "--trace-out", "file", "--json"), '"verdict": "violated"'),
        (("check", CAPTURE, "--html", "file"), "clean"),
        (("check", CAPTURE, "--html", "file", "--json"), '"verdict": "clean"'),
        (("diff", CAPTURE, CAPTURE.with_name("A.npz"), "--html", "file"), "hugepages"),
        (("compare", "R3", "--only", "boot", "--html", "file"), "boot"),
    ],
    ids=lambda value: " ".join(map(str, value[:1] + value[3:])) if isinstance(value, tuple) else "",
)
def test_what_was_found_is_told_before_a_file_that_cannot_be_written(
    tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    answer = vmemmap(*arguments, cwd=tmp_path, before=no_byte_to_files)
    assert answer.returncode == 2
    assert told in answer.stdout
    assert answer.stderr.splitlines()[-1] == "vmemmap: file: cannot be written: File too large"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("--help",)], ids=str)
def test_a_standard_output_that_is_full_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with (tmp_path / "out").open("w") as out:
        answer = vmemmap(*arguments, stdout=out.fileno(), before=no_byte_to_files)
    assert answer.stderr == "vmemmap: standard output: cannot be written: File too large\n"
    assert answer.returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [VIOLATED, (*VIOLATED, "--json"), ("list",), ("layout",), ("--help",), ("--version",), ("explore", "-h")],
    ids=" ".join,
)
def test_a_reader_that_has_gone_ends_it_quietly(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        answer = vmemmap(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (answer.returncode, answer.stderr) == (141, "")


def test_a_standard_output_that_is_closed_is_named() -> None:
    answer = vmemmap("list", before=lambda: os.close(1))
    assert answer.returncode == 2
    assert answer.stderr == "vmemmap: standard output: cannot be written: Bad file descriptor\n"


@pytest.mark.parametrize("broken", ["closed", "full", "a pipe without a reader"])
@pytest.mark.parametrize(("arguments", "code"), [(VIOLATED, 1), (("explore", "nosuch"), 2), (("check", CAPTURE), 0)])
def test_what_standard_error_is_changes_no_exit_code(
    tmp_path: Path, arguments: tuple[object, ...], code: int, broken: str
) -> None:
    before = {"closed": lambda: os.close(2), "full": no_byte_to_files}.get(broken)
    reading, writing = os.pipe()
    os.close(reading)
    with (tmp_path / "err").open("w") as full:
        stderr = writing if broken == "a pipe without a reader" else full.fileno()
        answer = vmemmap(*arguments, stderr=stderr, before=before)
    os.close(writing)
    assert answer.returncode == code
    assert (answer.stdout == "") == (code == 2)


def test_a_name_that_is_no_utf_8_comes_out_as_it_was_typed(tmp_path: Path) -> None:
    name = os.fsdecode(b"n\xff.npz")
    for suffix in (".npz", ".json"):
        (tmp_path / name.replace(".npz", suffix)).symlink_to(CAPTURE.with_suffix(suffix))
    command = [sys.executable, "-c", PROGRAM, "check", name, "--html", "page.html"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout.startswith(b"n\xff.npz: ")
    assert "n\\udcff.npz" in (tmp_path / "page.html").read_text(encoding="utf-8")
