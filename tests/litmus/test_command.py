"""`vmemmap litmus`: what is refused and how, exit codes, comparison with a kinds file, what herd's tools read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vmemmap
from vmemmap.cli import HOLDS, INCONCLUSIVE, MISUSE, VIOLATED, main

MESSAGE = shapes.text("message", ["z = 1; f = 1", "f?; z?"], "1.0=1 & 1.1=0")


@pytest.fixture
def message(tmp_path: Path) -> Path:
    path = tmp_path / "message.litmus"
    path.write_text(MESSAGE)
    return path


def test_the_answer_is_herds_block(message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", str(message), "--memory", "promises"]) == HOLDS
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Test message Allowed", "States 4"]
    assert lines[2] == "1:X1=0; 1:X3=0;"
    assert lines[6:9] == ["Ok", "Witnesses", "Positive: 1 Negative: 3"]
    assert lines[9] == "Condition exists (1:X1=1 /\\ 1:X3=0)"
    assert lines[10] == "Observation message Sometimes 1 3"


def test_a_kinds_file_decides_the_exit_code(message: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = tmp_path / "kinds.txt"
    for kind, memory, code in (
        ("Allowed", "promises", HOLDS),
        ("Forbidden", "promises", VIOLATED),
        ("Allowed", "sc", VIOLATED),
        ("Forbidden", "sc", HOLDS),
    ):
        kinds.write_text(f"# of herd\nmessage   {kind}\nother\n")
        arguments = ["litmus", str(message), "--memory", memory, "--kinds", str(kinds), "--json"]
        assert main(arguments) == code, (kind, memory)
        answer = json.loads(capsys.readouterr().out)
        assert answer["tests"][0]["agrees"] is (code == HOLDS)
        assert len(answer["differences"]) == code


def test_a_budget_that_is_used_up_leaves_the_question_open(message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for memory in ("sc", "views", "promises"):
        assert main(["litmus", str(message), "--memory", memory, "--budget", "2"]) == INCONCLUSIVE
        assert "Observation message Unknown" in capsys.readouterr().out


REFUSED = [
    ("MOV W2,#1", "SVC #0", "SVC"),
    ("MOV W2,#1", "LDP X2,X3,[X0]", "LDP"),
    ("AArch64 message", "X86 message", "AArch64"),
    ("P0 | P1", "P0 | P0.F", "P0.F"),
    ("AArch64 message", "AArch64 message\nTTHM=HA", "TTHM"),
    ("AArch64 message", "AArch64 message\nVariant=memtag", "memtag"),
    ("exists (", "exists (2:X0=1 /\\ ", "thread"),
    ("0:X1=z;", "0:X1=(oa:PA(z), attrs:1);", "attrs"),
    ("0:X1=z;", "(* not closed", "comment"),
    ("0:X1=z;", "int z[2];", "array"),
    ("exists (", "exists " + "(" * 20_000, "nested"),
    ("exists (", "exists " + "~" * 20_000 + "(", "nested"),
    ("MOV W2,#1", ";\n ".join(["MOV W2,#1 |"] * 1_001) + ";\n MOV W2,#1", "1000 instructions"),
]


@pytest.mark.parametrize(("what", "instead", "named"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_is_none_of_the_core_is_refused_by_line(
    message: Path, capsys: pytest.CaptureFixture[str], what: str, instead: str, named: str
) -> None:
    assert what in MESSAGE
    text = MESSAGE.replace(what, instead, 1)
    message.write_text(text)
    assert main(["litmus", str(message)]) == MISUSE
    error = capsys.readouterr().err
    place, line, *_ = error.removeprefix("vmemmap: ").split(":")
    assert place == str(message)
    assert named in error
    assert 1 <= int(line) <= len(text.splitlines())


def test_of_several_files_those_that_are_refused_are_counted(
    message: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.litmus"
    other.write_text(MESSAGE.replace("MOV W2,#1", "UDF #0", 1))
    assert main(["litmus", str(message), str(other), "--json"]) == HOLDS
    answer = json.loads(capsys.readouterr().out)
    assert [test["name"] for test in answer["tests"]] == ["message"]
    assert [refused["file"] for refused in answer["unsupported"]] == [str(other)]


def test_a_thread_may_be_as_long_as_it_is_said(message: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message.write_text(MESSAGE.replace("MOV W2,#1", ";\n ".join(["MOV W2,#1 |"] * 900) + ";\n MOV W2,#1", 1))
    for memory in ("views", "promises"):
        assert main(["litmus", str(message), "--memory", memory]) == HOLDS
        assert "Observation message Sometimes 1 3" in capsys.readouterr().out


def test_what_is_no_test_is_counted_in_a_run_of_many(
    message: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary, ended = tmp_path / "binary", tmp_path / "ended.litmus"
    binary.write_bytes(b"\xff\xfe\x00")
    ended.write_text("\ufeff" + MESSAGE.rstrip() + ";\n")
    arguments = ["litmus", str(binary), str(message), str(ended), "--memory", "promises"]
    assert main([*arguments, "--json"]) == HOLDS
    answer = json.loads(capsys.readouterr().out)
    assert [test["observation"] for test in answer["tests"]] == ["Sometimes", "Sometimes"]
    assert [refused["file"] for refused in answer["unsupported"]] == [str(binary)]
    assert main([*arguments, str(tmp_path / "none")]) == MISUSE
    said = capsys.readouterr()
    assert "none" in said.err and not said.out
    assert main([*arguments, "--kinds", str(binary)]) == MISUSE
    assert "no kinds file" in capsys.readouterr().err
    kinds = tmp_path / "kinds.txt"
    kinds.write_text("another Allowed\n")
    assert main([*arguments, "--kinds", str(kinds)]) == HOLDS
    assert "names none of the tests" in capsys.readouterr().err


PIECES = st.sampled_from(
    [*re.findall(r"\w+|[^\w\s]+|\s+", MESSAGE), "PTE(x)", "TLBI VAAE1IS,X1", "(oa:PA(z), valid:0)", "~", "65536"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.1), st.lists(PIECES, max_size=4)), max_size=4))
def test_a_damaged_test_is_answered_or_refused_by_line(
    cut: list[tuple[float, float, list[str]]], message: Path
) -> None:
    text = MESSAGE
    for start, length, pieces in cut:
        at = int(start * len(text))
        text = text[:at] + "".join(pieces) + text[at + int(length * len(text)) :]
    message.write_text(text)
    for memory in ("sc", "views", "promises"):
        answers = vmemmap.litmus(message, memory=memory, budget=200)
        assert len(answers.tests) + len(answers.unsupported) == 1
        assert all(
            1 <= refused.line <= text.count("\n") + 1 and "\n" not in refused.what for refused in answers.unsupported
        )


@given(text=st.text(max_size=200))
def test_any_text_is_a_test_or_refused_by_line(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any.litmus"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        answers = vmemmap.litmus(path, budget=200)
    assert len(answers.tests) + len(answers.unsupported) == 1
