"""`vmemmap list --matrix`: which cells there are, and that a cell is what its command finds."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmemmap.cli import main, vmemmap
from vmemmap.lab.matrix import NOT_MODELLED, Cell, matrix
from vmemmap.lab.scenario import Absent, registry
from vmemmap.spec import KERNELS

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"


def test_a_scenario_of_the_corpus_knows_every_kernel_and_names_its_own_variants() -> None:
    for scenario in registry():
        assert set(scenario.kernels) <= {*KERNELS, "*"}, scenario.name
        for named in scenario.kernels.values():
            assert isinstance(named, Absent) or scenario.variant(named), scenario.name
    assert not set(NOT_MODELLED) & {scenario.corpus for scenario in registry()}


@pytest.mark.parametrize("name", ["R2", "R6"])
def test_a_cell_is_what_its_command_finds(name: str) -> None:
    cells = matrix([name])
    assert [cell.kernel for cell in cells] == list(KERNELS)
    for cell in cells:
        assert cell.corpus == name
        assert cell.why
        assert (cell.invariant is not None) == (cell.verdict == "violated")
        assert (cell.command is None) == (cell.verdict == "not applicable")
        if cell.command is None:
            continue
        answer = CliRunner().invoke(vmemmap, shlex.split(cell.command)[1:], standalone_mode=False)
        assert f"{name.lower()[0]}{int(name[1:]):02}_" in answer.output
        assert answer.return_value == {"violated": 1, "safe": 0}[cell.verdict]
        assert (f"{cell.invariant} violated" in answer.output) == (cell.verdict == "violated")


def test_the_page_says_what_its_scenarios_say() -> None:
    """The verdicts on it are found again by `make kernels-table CHECK=1`."""
    page = PAGE.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| (R\d+) \|", page, re.MULTILINE))
    by_corpus = {scenario.corpus: scenario for scenario in registry() if scenario.corpus}
    assert len(rows) > 30
    assert rows <= set(by_corpus) | set(NOT_MODELLED)
    for corpus in rows & set(by_corpus):
        scenario = by_corpus[corpus]
        for kernel in KERNELS:
            found = scenario.on(kernel)
            if isinstance(found, Absent):
                assert found.why in page, f"{corpus}: make kernels-table"
                continue
            variant, _ = found
            other = "" if variant.kernel == kernel else f" --kernel {kernel}"
            command = f"vmemmap explore {corpus} --variant {variant.name}{other}"
            assert f"`{command}`" in page, f"{corpus}: make kernels-table"


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_shows_the_cells_that_were_found(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def some(names: Sequence[str]) -> Iterator[tuple[int, Cell]]:
        yield 12, Cell("R6", "6.1", "safe", None, "I1 held", "vmemmap explore R6")
        yield 12, Cell("R3", "7.3", "violated", "I19", "I19: x", "vmemmap explore R3")
        raise KeyboardInterrupt

    monkeypatch.setattr("vmemmap.lab.matrix.cells", some)
    assert main(["list", "--matrix", "R3", "R6", *(["--json"] if as_json else [])]) == 130
    shown = capsys.readouterr()
    assert shown.err == "vmemmap: note: interrupted: 2 of 12 cells\n"
    if as_json:
        assert [cell["corpus"] for cell in json.loads(shown.out)] == ["R3", "R6"]
    else:
        table = shown.out.splitlines()
        assert (
            table[0].split() == ["6.1", "7.3"]
            and table[1].split() == ["R3", "I19"]
            and table[2].split() == ["R6", "safe"]
        )
