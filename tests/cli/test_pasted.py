"""Texts as people hand them on, at the command line: the text on standard output, what was left out on standard
error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vmemmap
from vmemmap import _core
from vmemmap.cli import main
from vmemmap.dumps.ptdump import load_ptdump

TEXT = (Path(__file__).parents[1] / "captures/6.12-4k/B.ptdump.txt").read_text()
LINEAR = _core.ptdump_region(TEXT, "linear") or ""
VMEMMAP = _core.ptdump_region(TEXT, "vmemmap") or ""


def quoted(text: str) -> str:
    return "".join(f"> {line}\n" for line in text.splitlines())


def narrow(text: str) -> str:
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("dress", "said"),
    [
        (
            lambda text: f"# cat kernel_page_tables\n{text}# \n",
            ["line 1 before the text skipped", "behind the text skipped: `#`"],
        ),
        (quoted, ["began behind `> `"]),
        (narrow, ["had other blanks between columns"]),
        (lambda text: text.replace("\n", "\r\n"), ["ended in a carriage return"]),
    ],
)
@pytest.mark.parametrize("text", [TEXT, LINEAR, VMEMMAP], ids=["whole", "linear", "vmemmap"])
def test_a_text_comes_back_and_what_was_around_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, dress: object, said: list[str]
) -> None:
    path = tmp_path / "pasted.txt"
    path.write_bytes(dress(text).encode())  # type: ignore[operator]
    assert main(["ptdump", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == text
    assert all(any(words in line for line in printed.err.splitlines()) for words in said)
    assert all(line.startswith(f"vmemmap: note: {path}: ") for line in printed.err.splitlines())
    assert main(["check", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "clean" and all(any(words in note for note in answer["notes"]) for words in said)
    assert load_ptdump(path).notes == tuple(answer["notes"][: len(load_ptdump(path).notes)])


def test_check_of_a_text_without_vmemmap_says_what_it_cannot_see(tmp_path: Path) -> None:
    path = tmp_path / "linear.txt"
    path.write_text(LINEAR)
    found = vmemmap.check(path)
    assert {name for name, state in found.invariants.items() if state == "held"} == {"I30", "I31"}
    assert found.counts["mapped_pages"] is None and "vmemmap is not in this text" in found.text()
    path.write_text(LINEAR.replace("RW NX", "RW x ", 1))
    assert set(vmemmap.check(path).found) == {"I31"}


def test_vmemmap_without_a_header_is_judged_if_the_machine_is_given(tmp_path: Path) -> None:
    path = tmp_path / "bare.txt"
    path.write_text("".join(f"{line}\n" for line in VMEMMAP.splitlines() if not line.startswith("---")))
    assert vmemmap.check(path).counts["mapped_pages"] is None
    found = vmemmap.check(path, granule="4K", va_bits=48, kernel="6.12")
    assert found.counts["optimised_hugepages"] == 8 and found.invariants["I9"] == "held"


def test_a_refusal_names_line_and_column_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("$ cat it\n" + VMEMMAP.replace(" 4K PTE", " 8K PTE", 1))
    assert main(["ptdump", str(path)]) == 2
    err = capsys.readouterr().err
    assert "the size column says 8K, but the range is 4K (column " in err and len(err.splitlines()) == 1
    line = 1 + next(n for n, text in enumerate(VMEMMAP.splitlines(), 1) if " 4K PTE" in text)
    assert f"{path}: line {line}: " in err
