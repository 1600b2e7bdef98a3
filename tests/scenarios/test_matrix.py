"""`vmemmap list --matrix`: which cells there are, and that a cell is what its command finds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from vmemmap.cli import vmemmap
from vmemmap.lab.matrix import NOT_MODELLED, matrix
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
    seen: list[tuple[int, int]] = []
    cells = matrix([name], lambda done, total: seen.append((done, total)))
    assert [cell.kernel for cell in cells] == list(KERNELS)
    assert seen == [(n, len(KERNELS)) for n in range(1, len(KERNELS) + 1)]
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
