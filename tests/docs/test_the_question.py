"""docs/the-question.md is made of results: some of its lines are made again, and the others are all there."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmemmap.comparison import comparing, machine_file, page, published

PAGE = (Path(__file__).resolve().parents[2] / "docs/the-question.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["C-6.1", "C-moves-head", "D-irq"])
def test_a_line_of_the_approaches_is_what_a_search_and_a_run_say(name: str) -> None:
    chosen = [choice for choice in comparing.the_approaches() if choice.name == name]
    rows = comparing.compare_choices(chosen, machine_file.load("arm64"), page.CPUS, shorten=None)
    assert page.approach_line(rows[0]) in PAGE.splitlines()


def test_a_predicted_figure_is_what_the_calibrated_machine_takes() -> None:
    cells, _ = published.table([source for source in published.SOURCES if source.machine == "kravetz-xeon"])
    for cell in cells:
        assert cell.given or page.prediction_line(cell) in PAGE.splitlines()


def test_every_approach_and_every_condition_has_its_line() -> None:
    for choice in comparing.the_approaches():
        assert f"| **{choice.name}** {choice.title}" in PAGE, choice.name
    for choice in comparing.without_policy("R32"):
        assert f"| {choice.title} |" in PAGE, choice.name


def test_the_page_is_no_longer_than_four_pages() -> None:
    assert len(PAGE.split()) < 3000
