"""``vmemmap diff``: against a comparison of the captures' arrays that knows nothing of the package, and in words."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import pairwise, permutations
from pathlib import Path

import pytest
from damage import Tree

from vmemmap import Machine
from vmemmap.dumps.difference import diff
from vmemmap.dumps.image import read_npz
from vmemmap.errors import ImageError, SpecError

CAPTURES = Path(__file__).parents[1] / "captures"
SERIES = [
    ("6.1-4k", ["A", "B", "C"]),
    ("6.1-4k", ["E0", "E1", "E2", "E3", "E4", "E5"]),
    ("6.1-64k", ["A", "B"]),
    ("6.12-4k", ["A", "B"]),
]
PAIRS = [(f"{machine}/{a}", f"{machine}/{b}") for machine, states in SERIES for a, b in permutations(states, 2)]
STEPS = [(f"{machine}/{a}", f"{machine}/{b}") for machine, states in SERIES for a, b in pairwise(states)]
"""What a kernel did: a word explains every change."""


@cache
def seen(name: str) -> tuple[dict[tuple[int, int], int], set[tuple[int, int, int]], set[int], frozenset[int]]:
    """Descriptors of vmemmap by level and address, tables, base pages mapped, heads of the hugepages listed."""
    tree = Tree(read_npz(CAPTURES / f"{name}.npz"), random.Random(0))
    words = {(at[1], at[0]): tree.word(at) for at in tree.entries if tree.in_vmemmap(at[0])}
    tables = {(at[1] + 1, at[0], tree.frame(at)) for at in tree.tables() if tree.in_vmemmap(at[0])}
    size = tree.d.granule
    frames = {tree.frame(at) + i * size for at in tree.leaves() for i in range(tree.span(at[1]) // size)}
    return words, tables, frames, frozenset(pfn for pfn, _ in tree.d.hugepages)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_two_images_differ_as_their_arrays_do(a: str, b: str) -> None:
    d = diff(CAPTURES / f"{a}.npz", CAPTURES / f"{b}.npz").to_dict()
    (words_a, tables_a, frames_a, heads_a), (words_b, tables_b, frames_b, heads_b) = seen(a), seen(b)
    assert d["changed"] == sum(words_a.get(at, 0) != words_b.get(at, 0) for at in words_a.keys() | words_b.keys())
    assert (d["tables_added"], d["tables_removed"]) == (len(tables_b - tables_a), len(tables_a - tables_b))
    assert (d["frames_lost"], d["frames_gained"]) == (len(frames_a - frames_b), len(frames_b - frames_a))
    assert {pfn for pfn, _ in d["hugepages_optimised"]} == heads_b - heads_a
    gone = {
        pfn
        for pfn in heads_a - heads_b
        if any(
            s <= pfn * read_npz(CAPTURES / f"{a}.npz").description.granule < s + (1 << 27)
            for s in d["sections_removed"]
        )
    }
    assert {pfn for pfn, _ in d["hugepages_restored"]} == heads_a - heads_b - gone
    assert set(d["blocks_split"]) == {
        va for (level, va), word in words_a.items() if level == 2 and word & 3 == 1 and words_b.get((2, va), 0) & 3 == 3
    }
    if (a, b) in STEPS:
        assert d["other_changes"] == []


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_texts_show_the_same_but_for_addresses(a: str, b: str) -> None:
    images = diff(CAPTURES / f"{a}.npz", CAPTURES / f"{b}.npz").to_dict()
    for x, y in (
        (f"{a}.ptdump.txt", f"{b}.ptdump.txt"),
        (f"{a}.npz", f"{b}.ptdump.txt"),
        (f"{a}.ptdump.txt", f"{b}.npz"),
    ):
        texts = diff(CAPTURES / x, CAPTURES / y, memstart="0x40000000").to_dict()
        assert texts["changed"] <= images["changed"]
        assert (texts["frames_lost"], texts["frames_gained"], texts["changed_elsewhere"]) == (None, None, None)
        for key in ("hugepages_optimised", "hugepages_restored", "blocks_split", "sections_added", "sections_removed"):
            assert texts[key] == images[key], key
        assert texts["tables_added"] - texts["tables_removed"] == images["tables_added"] - images["tables_removed"]
        assert "as far as a text shows it" in texts["summary"]


def test_the_series_of_the_captures_in_words() -> None:
    def words(a: str, b: str) -> list[str]:
        return diff(CAPTURES / f"{a}.npz", CAPTURES / f"{b}.npz").summary.splitlines()

    assert words("6.1-4k/A", "6.1-4k/B")[:5] == [
        "513 descriptors of vmemmap changed",
        "8 2M hugepages optimised: PFN 0x40000, 0x40600, 0x41400, 0x41600, 0x41800, 0x41a00, 0x41c00, 0x47c00",
        "1 block split: 0xfffffc0000000000",
        "1 table came",
        "56 frames given up",
    ]
    assert words("6.12-4k/A", "6.12-4k/B")[4:6] == ["64 frames given up", "8 frames gained"]
    assert words("6.1-4k/E0", "6.1-4k/E1")[1:3] == [
        "2 sections of 128M appeared: 0x80000000, 0x88000000",
        "1024 frames gained",
    ]
    assert words("6.1-4k/E0", "6.1-4k/E4")[0] == "vmemmap is the same"
    assert words("6.1-64k/A", "6.1-64k/B")[1] == "3 512M hugepages optimised: PFN 0xa000, 0xc000, 0xe000"


@pytest.mark.parametrize("name", sorted({n for pair in PAIRS for n in pair}))
def test_a_dump_does_not_differ_from_itself_in_another_form(name: str) -> None:
    for a in (f"{name}.npz", f"{name}.ptdump.txt"):
        for b in (f"{name}.npz", f"{name}.ptdump.txt"):
            answer = diff(CAPTURES / a, CAPTURES / b)
            assert not answer and answer.changed == 0, (a, b, answer.summary)


def test_a_text_that_knows_no_memstart_counts_from_the_linear_map() -> None:
    answer = diff(CAPTURES / "6.1-4k/A.ptdump.txt", CAPTURES / "6.1-4k/B.ptdump.txt")
    assert answer.hugepages_optimised[0] == (0, 512)
    assert not answer.memstart_known and "--memstart" in answer.summary


@pytest.mark.parametrize(
    "machine",
    [
        {"granule": "4K", "va_bits": 39},
        {"granule": "4K", "va_bits": 52, "kernel": "6.12"},
        {"granule": "16K", "va_bits": 47},
        {"granule": "16K", "va_bits": 48, "kernel": "6.12"},
        {"granule": "16K", "va_bits": 52, "kernel": "6.12"},
        {"granule": "64K", "va_bits": 42},
        {"granule": "64K", "va_bits": 52},
        {"granule": "64K", "va_bits": 52, "kernel": "6.12.117"},
        {"granule": "4K", "va_bits": 48, "kernel": "2021"},
        {"granule": "4K", "va_bits": 48, "kernel": "6.1", "extra": "1G"},
    ],
    ids=str,
)
def test_every_machine_tells_what_it_did(machine: dict[str, object], tmp_path: Path) -> None:
    arguments = {k: v for k, v in machine.items() if k != "extra"}
    size = str(machine.get("extra", {"4K": "2M", "16K": "32M", "64K": "512M"}[str(machine["granule"])]))
    m = Machine(boot_memory="4G", hotplug_memory="2G", **arguments)  # type: ignore[arg-type]
    m.save(tmp_path / "a.npz")
    (tmp_path / "a.txt").write_text(m.ptdump())
    m.hugetlb[size].nr_hugepages = 2
    pages = [list(page) for page in m.hugetlb[size].pages]
    block = m.memory.add("512M")
    m.save(tmp_path / "b.npz")
    (tmp_path / "b.txt").write_text(m.ptdump())
    hints = {
        "memstart": 0x4000_0000,
        "kernel": machine.get("kernel", "6.1"),
        "granule": machine["granule"],
        "va_bits": machine["va_bits"],
    }
    for a, b in (("a.npz", "b.npz"), ("a.txt", "b.txt"), ("a.npz", "b.txt")):
        d = diff(tmp_path / a, tmp_path / b, **hints).to_dict()
        assert d["hugepages_optimised"] == pages, (a, b)
        assert d["sections_added"][0] == block.start and len(d["sections_added"]) * m._core.section_size == 512 << 20
        assert not d["hugepages_restored"] and not d["sections_removed"] and d["other_changes"] == []


def test_dumps_of_different_machines_are_refused() -> None:
    for a, b, why in (
        ("6.1-4k/A.npz", "6.1-64k/A.npz", "4K pages"),
        ("6.1-4k/A.npz", "6.12-4k/A.npz", "vmemmap is at"),
        ("6.1-4k/A.ptdump.txt", "6.12-4k/A.ptdump.txt", "vmemmap is at"),
    ):
        with pytest.raises(SpecError, match=why):
            diff(CAPTURES / a, CAPTURES / b)


def test_what_is_no_dump_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(
        "---[ vmemmap start ]---\n0xfffffc0000000000-0xfffffc0000001000           4K PTE       RW\nrubbish\n"
        "---[ vmemmap end ]---\n"
    )
    with pytest.raises(ImageError, match="line 3"):
        diff(path, path)
    path.write_text("---[ Modules start ]---\n")
    with pytest.raises(ImageError, match="no vmemmap region"):
        diff(path, path)


def test_json_is_plain(tmp_path: Path) -> None:
    json.dumps(diff(CAPTURES / "6.1-4k/A.npz", CAPTURES / "6.1-4k/B.npz").to_dict())
