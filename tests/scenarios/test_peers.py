"""The comparison with Spin, loom and shuttle (`benches/peers`) asks the same questions in all its three forms."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmemmap

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benches" / "peers"
HANDMADE = (ROOT / "rust" / "bench" / "src" / "handmade.rs").read_text()
PROMELA = (PEERS / "hvo.pml").read_text()


@pytest.fixture(scope="module")
def questions() -> Iterator[Any]:
    sys.path.insert(0, str(PEERS))
    try:
        import questions

        yield questions
    finally:
        sys.path.remove(str(PEERS))


def test_a_question_has_the_name_and_the_verdict_of_its_row(questions: Any) -> None:
    rows = HANDMADE[HANDMADE.index("const BASE: Row") : HANDMADE.index("impl Row")]
    # Rows are written as what differs from the first.
    parts = re.split(r'name: "', rows)[1:]
    expected = {part[: part.index('"')]: "violated" if "violated: true" in part else "safe" for part in parts}
    assert {v.name: v.expect for v in questions.peers.variants} == expected
    assert len(expected) == 6


def test_a_step_of_the_handmade_model_cites_a_kernel_function_and_the_promela_text_cites_it_too() -> None:
    programs = HANDMADE[HANDMADE.index("What actor number") :]
    comments = " ".join(re.findall(r"// (.*)", programs))
    cited = set(re.findall(r"\b_*[a-z]+(?:_[a-z]+)+\b", comments))
    assert len(cited) > 12
    kernel = "".join(path.read_text() for path in (ROOT / "rust" / "kernel" / "src").glob("*.rs")) + PROMELA
    for name in cited - {"mmap_read_lock", "mmap_write_lock", "init_mm"}:
        assert name in PROMELA or name == "__flush_tlb_kernel_pgtable", f"{name}: not in hvo.pml"
        assert name in kernel, name


@pytest.mark.parametrize("rounds", [1, 2])
def test_each_round_of_a_question_does_its_work_again(questions: Any, rounds: int) -> None:
    """More rounds than frames, or a block that is not added again, would leave nothing to compare."""
    from dataclasses import replace

    def steps(rounds: int) -> int:
        variant = questions.peers.variant("locks-1")
        variant = replace(variant, arguments={**variant.arguments, "rounds": rounds})
        return vmemmap.explore(questions.peers, variant=variant, budget=1, shorten=0.0).steps

    # Not to the step: a later round finds tables where the first had to make them.
    assert steps(rounds) == pytest.approx(rounds * steps(1), rel=0.01)


@pytest.mark.parametrize("name", ["exchange-3", "locks-3", "unlocked-3", "two-hvo-2", "clear-then-set-3"])
def test_a_question_starts_to_be_explored_and_does_not_fall_where_it_must_not(questions: Any, name: str) -> None:
    result = vmemmap.explore(questions.peers, variant=name, budget=30, shorten=0.0)
    assert set(result.judged_violated) <= set(questions.peers.variant(name).invariants)
