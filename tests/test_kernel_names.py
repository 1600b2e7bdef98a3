"""A maintainer greps the kernel's name: whatever function of rust/kernel is one of Linux's bears that one's name, and
what joins several names them all in its comment.

kernel_functions.txt has the functions that the design texts and the comments speak of. ``pytest -s`` prints the
figures.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
KERNEL = frozenset((Path(__file__).parent / "kernel_functions.txt").read_text().split())

WORDS = re.compile(r"\w+")


class Function(NamedTuple):
    name: str
    comment: str
    place: str


def functions() -> list[Function]:
    found: list[Function] = []
    definition = re.compile(r"\s*(?:pub(?:\(\w+\))? )?(?:const )?fn (\w+)")
    for path in sorted((ROOT / "rust/kernel/src").rglob("*.rs")):
        comment: list[str] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = line.strip()
            if text.startswith("///"):
                comment.append(text.removeprefix("///").strip())
            elif not text.startswith("#["):
                if match := definition.match(line):
                    found.append(Function(match[1], " ".join(comment), f"{path.relative_to(ROOT)}:{number}"))
                comment = []
    return found


def test_what_is_one_kernel_function_bears_its_name() -> None:
    first = re.compile(r"`(\w+)`(?=[.:;]|$|, under | \(6\.1: )")
    other = [
        f"{function.place}: {function.name} says that it is {match[1]}"
        for function in functions()
        if (match := first.match(function.comment)) and match[1] in KERNEL and match[1] != function.name
    ]
    assert not other, "\n".join(other)


def test_most_of_the_kernel_can_be_found_by_its_names() -> None:
    everything = functions()
    by_name = [f for f in everything if f.name in KERNEL]
    by_comment = [f for f in everything if f.name not in KERNEL and KERNEL & set(WORDS.findall(f.comment))]
    found = {name for f in everything for name in {f.name, *WORDS.findall(f.comment)} & KERNEL}
    ours = len(everything) - len(by_name) - len(by_comment)
    print(
        f"\n{len(everything)} functions: {len(by_name)} bear a kernel function's name, {len(by_comment)} more cite one,"
    )
    print(f"{ours} are ours")
    print(f"{len(found)} kernel functions can be found")
    assert len(by_name) >= 155
    assert len(found) >= 250


def test_the_names_that_are_looked_for_first_are_there() -> None:
    wanted = {
        "vmemmap_remap_pte",
        "vmemmap_restore_pte",
        "vmemmap_split_pmd",
        "hugetlb_vmemmap_optimize_folio",
        "hugetlb_vmemmap_restore_folio",
        "remove_hugetlb_folio",
        "free_empty_pte_table",
        "free_empty_pmd_table",
        "unmap_hotplug_pte_range",
        "__unmap_hugepage_range",
        "__add_pages",
        "section_deactivate",
        "offline_pages",
    }
    assert wanted <= {name for f in functions() for name in {f.name, *WORDS.findall(f.comment)}}
