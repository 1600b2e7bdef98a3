"""A dump, a trace or a test that comes through a pipe gives the answer that its file gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

CAPTURES = Path(__file__).resolve().parent.parent / "captures" / "6.1-4k"
TEXT = CAPTURES / "B.ptdump.txt"
OTHER = CAPTURES / "A.ptdump.txt"
ADDRESS = "0xfffffc0000000040"
PROGRAM = "import sys; from vmemmap.cli import main; sys.exit(main())"


def vmemmap(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    answer = subprocess.run(command, input=given, capture_output=True, timeout=60)
    return subprocess.CompletedProcess(answer.args, answer.returncode, answer.stdout.decode(), answer.stderr.decode())


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize(
    "arguments",
    [("check", TEXT), ("diff", OTHER, TEXT), ("ptdump", TEXT), ("map", TEXT, "--json"), ("where", TEXT, ADDRESS)],
    ids=lambda value: value[0],
)
def test_standard_input_is_a_dump_as_its_file_is(arguments: tuple[object, ...], name: str) -> None:
    of_file = vmemmap(*arguments)
    of_pipe = vmemmap(*(name if word == TEXT else word for word in arguments), given=TEXT.read_bytes())
    assert (of_pipe.returncode, of_pipe.stderr) == (of_file.returncode, of_file.stderr.replace(str(TEXT), name))
    assert of_pipe.stdout == of_file.stdout.replace(str(TEXT), name)
    assert of_file.stdout


def test_two_pipes_of_the_shell_are_compared() -> None:
    command = f'{sys.executable} -c "{PROGRAM}" diff <(cat {OTHER}) <(cat {TEXT}) --json'
    piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    of_files = vmemmap("diff", OTHER, TEXT, "--json")
    assert piped.returncode == of_files.returncode == 1
    found, expected = json.loads(piped.stdout), json.loads(of_files.stdout)
    assert found["summary"].splitlines()[1:] == expected["summary"].splitlines()[1:]
    assert (found["changed"], found["hugepages_optimised"]) == (expected["changed"], expected["hugepages_optimised"])


def test_a_fifo_is_read_once_and_its_copy_is_gone(tmp_path: Path) -> None:
    fifo, kept = tmp_path / "fifo", tmp_path / "kept"
    kept.mkdir()
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(TEXT.read_bytes()), daemon=True)
    writer.start()
    command = [sys.executable, "-c", PROGRAM, "check", str(fifo)]
    answer = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(kept)}, capture_output=True, text=True, timeout=60
    )
    writer.join(timeout=60)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == vmemmap("check", TEXT).stdout.replace(str(TEXT), str(fifo))
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "-: neither a table image (.npz) nor kernel_page_tables text nor a vmcore (empty)"),
        (b"hello\n" * 1000, "-: neither a table image"),
        ((CAPTURES / "B.npz").read_bytes(), "-: a table image (.npz) has its JSON beside it, and a pipe has none"),
        (b"\x7fELF" + bytes(100), "-: "),
    ],
    ids=["empty", "no dump", "an image", "a broken vmcore"],
)
@pytest.mark.parametrize("command", ["check", "ptdump", "map"])
def test_what_is_no_dump_is_refused_by_the_name_that_was_typed(command: str, given: bytes, words: str) -> None:
    answer = vmemmap(command, "-", given=given)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"vmemmap: {words}")
    assert len(answer.stderr.splitlines()) == 1


def test_a_trace_and_a_litmus_test_come_through_a_pipe(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    vmemmap("explore", "R6", "--variant", "mmap-only", "--budget", "200", "--trace-out", trace)
    assert vmemmap("replay", "-", given=trace.read_bytes()).stdout == vmemmap("replay", trace).stdout != ""
    test = (
        b"AArch64 SB\n{ 0:X1=x; 0:X3=y; 1:X1=y; 1:X3=x; }\n P0 | P1 ;\n MOV W0,#1 | MOV W0,#1 ;\n"
        b" STR W0,[X1] | STR W0,[X1] ;\n LDR W2,[X3] | LDR W2,[X3] ;\nexists (0:X2=0 /\\ 1:X2=0)\n"
    )
    file = tmp_path / "SB.litmus"
    file.write_bytes(test)
    assert vmemmap("litmus", "-", given=test).stdout == vmemmap("litmus", file).stdout != ""
