"""Where the falls of `restore_6_12_117` are, and that they can be replayed (docs/restore-6.12.117.md)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

import vmemmap
from vmemmap.lab.neighbours import hugepage_block
from vmemmap.lab.scenario import find
from vmemmap.lab.setup import Setup

SCENARIO = find("restore_6_12_117")


@cache
def fall(variant: str) -> vmemmap.Result:
    result = vmemmap.explore(SCENARIO, variant=variant, budget="60s", shorten=1.0)
    assert result.verdict == "violated"
    return result


def test_each_story_has_all_kernels_and_only_the_code_as_written_falls() -> None:
    by_story: dict[str, dict[str, str]] = {}
    for variant in SCENARIO.variants:
        story = variant.name.removesuffix(f"-{variant.kernel}")
        by_story.setdefault(story, {})[variant.kernel] = variant.expect
    assert len(by_story) == 8
    falls = {"6.12.117": "violated", "6.1": "safe", "6.12": "safe", "7.3": "safe"}
    assert all(kernels.items() >= falls.items() for kernels in by_story.values())
    assert {kernel for kernels in by_story.values() for kernel in kernels} == {*falls, "7.2"}


@pytest.mark.parametrize("variant", ["free-walker-6.12.117", "free-failure-6.12.117", "bulk-walker-6.12.117"])
def test_the_first_tail_found_bad_is_slot_0_of_the_second_vmemmap_page(variant: str) -> None:
    violation = fall(variant).violation
    assert violation is not None
    assert violation.invariant == "I11"
    assert violation.message.endswith("corrupted mapping in tail page")
    assert violation.address is not None
    assert violation.address % 0x8000 == 0x1000


@pytest.mark.parametrize("variant", ["dissolve-6.12.117", "failure-6.12.117", "offline-walker-6.12.117"])
def test_whoever_asks_for_the_type_takes_a_free_page_for_a_hugepage(variant: str) -> None:
    violation = fall(variant).violation
    assert violation is not None
    assert violation.invariant == "I29"
    assert violation.message.endswith("folio_hstate is NULL")


@pytest.mark.parametrize(
    ("variant", "message"), [("add-walker-6.12.117", "just allocated"), ("reuse-walker-6.12.117", "just freed")]
)
def test_the_page_allocator_meets_the_type_in_the_block_of_a_hot_added_section(variant: str, message: str) -> None:
    violation = fall(variant).violation
    assert violation is not None
    assert violation.invariant == "I11"
    assert message in violation.message


def test_the_page_that_the_ninth_hugepage_frees_is_number_64_of_its_block() -> None:
    violation = fall("reuse-walker-6.12.117").violation
    assert violation is not None
    assert violation.address is not None
    # Struct pages of a 2M block: 0x8000 bytes.
    assert violation.address % 0x8000 == 64 * 64


@pytest.mark.parametrize("variant", ["free-walker-6.12.117", "offline-walker-6.12.117", "reuse-walker-6.12.117"])
def test_a_fall_is_replayed_identically(variant: str, tmp_path: Path) -> None:
    result = fall(variant)
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(result.trace_file()))
    again = vmemmap.replay(path)
    assert result.violation is not None
    assert again.violation is not None
    assert (again.violation.invariant, again.violation.step) == (result.violation.invariant, result.violation.step)


@pytest.mark.parametrize(("update", "falls"), [("store", True), ("bbm-each", False)])
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_memory_failure_of_slot_0_beside_a_free_is_a_matter_of_break_before_make(
    kernel: str, update: str, falls: bool
) -> None:
    """Old and new translation in turn make it neither tail nor head (docs/limits.md); so the variants take another
    slot.
    """

    @vmemmap.scenario(title="slot 0", sources=["derived"], judged=["I8"])
    def slot_0(m: Setup) -> list[vmemmap.Actor]:
        head = m.pfn(hugepage_block(m).start)
        m.setup(m.pmd_hugepage.allocate(head))
        return [
            vmemmap.Actor("free", [m.pmd_hugepage.free(head)]),
            vmemmap.Actor("memory failure", [m.memory_failure(head + 64)]),
        ]

    variant = vmemmap.Variant("one", "safe", (), {"update": update}, kernel)
    result = vmemmap.explore(slot_0, variant=variant, budget="60s", shorten=0.0)
    assert (result.invariants["I8"] == "violated") == falls, result.words
