"""``vmemmap estimate --remove``: which leaves a removal would split, by hand-worked cases, by a plain model,
and in captured tables.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmemmap.errors import SpecError
from vmemmap.machine.machine import Machine
from vmemmap.sizing.removal import Removal, by_arithmetic, in_tables

CAPTURES = Path(__file__).parent / "captures"
K, M, G = 1 << 10, 1 << 20, 1 << 30


def answers(found: Removal) -> dict[str, tuple[list[tuple[str, str]], int]]:
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    return {
        f"{a.region} {a.mapping}": ([(edge.edge, edge.kind) for edge in a.edges], a.blocks_refused)
        for a in found.mappings
    }


@pytest.mark.parametrize(
    ("granule", "remove", "added", "linear", "refused", "vmemmap"),
    [
        # Two blocks added together: no 1G block fits, so an edge between them is an edge of 32M sets.
        ("4K", "0x80000000-0x88000000", "0x80000000-0x90000000", [], 0, []),
        # 1G added in one piece is one 1G block: its halves cannot go, nor can any of its eight memory blocks by itself.
        ("4K", "0x80000000-0xa0000000", "0x80000000-0xc0000000", [("end", "1G block")], 4, []),
        ("4K", "0x80000000-0xc0000000", "0x80000000-0xc0000000", [], 8, []),
        # What was added begins and ends beside the 1G grid: the block is in the middle.
        ("4K", "0x78000000-0xc8000000", "0x78000000-0xc8000000", [], 8, []),
        # Not known what was added with it: as much as there can be.
        ("4K", "0x88000000-0x90000000", None, [("start", "1G block"), ("end", "1G block")], 1, []),
        # A part of a memory block.
        ("4K", "0x80000000-0x84000000", "0x80000000-0x88000000", [], 0, [("end", "2M block")]),
        (
            "4K",
            "0x80000000-0x80e00000",
            "0x80000000-0x88000000",
            [("end", "32M contiguous set of blocks")],
            0,
            [("end", "2M block")],
        ),
        ("16K", "0x80000000-0x88000000", "0x80000000-0x90000000", [], 0, []),
        ("16K", "0x80000000-0x88000000", "0x80000000-0xc0000000", [("end", "1G contiguous set of blocks")], 1, []),
        ("16K", "0x80000000-0x80200000", "0x80000000-0x88000000", [("end", "32M block")], 0, [("end", "16K page")]),
        ("64K", "0x80000000-0xa0000000", "0x80000000-0xc0000000", [], 0, []),
        ("64K", "16G-17G", "16G-32G", [("end", "16G contiguous set of blocks")], 2, []),
    ],
)
def test_an_edge_inside_a_leaf_is_found(
    granule: str,
    remove: str,
    added: str | None,
    linear: list[tuple[str, str]],
    refused: int,
    vmemmap: list[tuple[str, str]],
) -> None:
    found = by_arithmetic(remove, granule=granule, added=added)
    way = "blocks" if granule == "4K" else "basepages"
    assert answers(found) == {
        "linear map basepages": ([], 0),
        "linear map blocks": (linear, refused),
        f"vmemmap {way}": (vmemmap, 0),
    }
    assert found.to_dict()["splits"] == bool(linear or vmemmap)


def test_the_leaf_is_named_with_the_memory_it_maps() -> None:
    found = by_arithmetic("0x80000000-0x84000000", added="0x80000000-0xc0000000")
    linear, vmemmap = (mapping["edges"][0] for mapping in found.to_dict()["mappings"][1:])
    assert linear == {
        "edge": "end",
        "physical": "0x84000000",
        "leaf": G,
        "kind": "1G block",
        "ram": ["0x80000000", "0xc0000000"],
    }
    # One 2M block of vmemmap holds the struct pages of 128M.
    assert vmemmap == {
        "edge": "end",
        "physical": "0x84000000",
        "leaf": 2 * M,
        "kind": "2M block",
        "ram": ["0x80000000", "0x88000000"],
    }
    assert not found.whole_blocks and "never offlined" in found.text()
    assert "is inside a 1G block, 0x80000000-0xc0000000" in found.text()


def test_vmemmap_by_base_pages_is_split_only_within_a_page() -> None:
    assert not by_arithmetic("0x80000000-0x80040000", mapping="basepages").mappings[2].edges
    (edge,) = by_arithmetic("0x80000000-0x80041000", mapping="basepages").mappings[2].edges
    assert (edge.kind, edge.leaf, edge.ram) == ("4K page", 4096, (0x8004_0000, 0x8008_0000))


def model(granule: int, added: tuple[int, int]) -> dict[int, int]:
    """Start of each leaf of the linear map → its size, by going through the range as ``__create_pgd_mapping`` does: the
    largest that is aligned at this address and still fits.
    """
    sizes = {4 * K: [G, 32 * M, 2 * M, 64 * K], 16 * K: [G, 32 * M, 2 * M], 64 * K: [16 * G, 512 * M, 2 * M]}[granule]
    leaves: dict[int, int] = {}
    at = added[0]
    while at < added[1]:
        size = next((size for size in sizes if at % size == 0 and at + size <= added[1]), granule)
        leaves[at] = size
        at += size
    return leaves


@given(st.data())
def test_a_plain_model_of_the_mapping_agrees(data: st.DataObject) -> None:
    granule, block = data.draw(st.sampled_from([(4 * K, 128 * M), (16 * K, 128 * M), (64 * K, 512 * M)]))
    number = data.draw(st.integers(0, 64))
    added = (number * block, (number + data.draw(st.integers(1, 48))) * block)
    unit = data.draw(st.sampled_from([block, 2 * M, 64 * K]))
    start, end = sorted(
        data.draw(st.lists(st.integers(added[0] // unit, added[1] // unit), min_size=2, max_size=2, unique=True))
    )
    start, end = start * unit, end * unit
    found = by_arithmetic(f"{start:#x}-{end:#x}", granule=granule, added=f"{added[0]:#x}-{added[1]:#x}")
    leaves = model(granule, added)

    def splits(at: int) -> bool:
        return any(first < at < first + size for first, size in leaves.items())

    linear = found.mappings[1]
    assert [edge.edge for edge in linear.edges] == [name for name, at in (("start", start), ("end", end)) if splits(at)]
    for edge in linear.edges:
        assert leaves[edge.ram[0]] == edge.leaf == edge.ram[1] - edge.ram[0]
    inside = range(-(-start // block) * block, end // block * block, block)
    assert linear.blocks_refused == sum(splits(at) or splits(at + block) for at in inside)


@dataclass
class Leaf:
    level: int
    descriptor: int


@dataclass
class BlockMapped:
    """A 4K machine whose linear map has one 1G block, one 32M set of blocks and one 64K set of pages,
    in that order from 1G on.
    """

    granule: int = 4 * K
    va_bits: int = 48
    kernel: str = "6.12"
    memory: Any = field(default_factory=lambda: type("Memory", (), {"ranges": [(G, 8 * G, False)]})())

    def page_address(self, pfn: int) -> int:
        return 0xFFFF_FDFF_C000_0000 + 64 * (pfn - (G >> 12))

    def linear_address(self, physical: int) -> int:
        return 0xFFFF_0000_0000_0000 + physical - G

    def translate(self, va: int) -> Leaf | None:
        at = va - 0xFFFF_0000_0000_0000
        if va >= 0xFFFF_FDFF_C000_0000:
            return None
        if at < G:
            return Leaf(1, 0x0060_0000_0000_0701)
        if at < G + 32 * M:
            return Leaf(2, 0x0070_0000_0000_0701)
        return Leaf(3, 0x00F8_0000_0000_0703) if at < G + 32 * M + 64 * K else None


@pytest.mark.parametrize(
    ("remove", "edges"),
    [
        ("1G-2G", []),
        ("1G-1536M", [("end", "1G block")]),
        ("0x81000000-0x82000000", [("start", "32M contiguous set of blocks")]),
        ("0x82000000-0x82008000", [("end", "64K contiguous set of pages")]),
        ("0x82000000-0x82010000", []),
        ("0x82020000-0x82030000", []),
    ],
)
def test_in_tables_contiguous_sets_and_blocks_count_whole(remove: str, edges: list[tuple[str, str]]) -> None:
    found = in_tables(BlockMapped(), remove, "tables")
    assert answers(found)["linear map tables"][0] == edges
    assert found.boot_memory is False


def test_in_tables_every_memory_block_of_a_1g_block_is_refused() -> None:
    found = in_tables(BlockMapped(), "1G-2G", "tables")
    assert answers(found)["linear map tables"] == ([], 8)
    assert "8 of its memory blocks have an edge inside a leaf" in found.text()


@pytest.mark.parametrize(
    ("state", "remove", "vmemmap", "boot"),
    [
        ("6.1-4k/E1", "0x80000000-0x88000000", [], False),
        ("6.1-4k/E1", "0x80000000-0x90000000", [], False),
        ("6.1-4k/E1", "0x84000000-0x90000000", [("start", "2M block")], False),
        # The hugepages of E2 have split that block: its pages can go one by one.
        ("6.1-4k/E2", "0x84000000-0x90000000", [], False),
        ("6.1-4k/A", "0x78000000-0x7c000000", [("end", "2M block")], True),
        ("6.1-64k/A", "0x40000000-0x60000000", [], True),
    ],
)
def test_captured_kernels_would_split_what_their_tables_show(
    state: str, remove: str, vmemmap: list[tuple[str, str]], boot: bool
) -> None:
    path = CAPTURES / f"{state}.npz"
    found = in_tables(Machine.load(path), remove, str(path))
    assert answers(found) == {"linear map tables": ([], 0), "vmemmap tables": (vmemmap, 0)}
    assert found.boot_memory is boot


@pytest.mark.parametrize(
    ("state", "physical"), [("6.1-4k/E1", 0x8000_0000), ("6.1-64k/A", 0x8000_0000), ("6.12-4k/A", 0x7000_0000)]
)
def test_a_linear_address_leads_to_its_physical_address(state: str, physical: int) -> None:
    machine = Machine.load(CAPTURES / f"{state}.npz")
    assert machine.translate(machine.linear_address(physical)).physical == physical


def test_a_machine_removes_what_splits_nothing() -> None:
    machine = Machine(boot_memory="1G", hotplug_memory="1G")
    added = machine.memory.add("256M")
    found = in_tables(machine, f"{added.start:#x}-{added.start + added.size:#x}", "machine")
    assert not any(mapping.edges or mapping.blocks_refused for mapping in found.mappings)
    machine.memory.remove(added)
    assert machine.check() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remove", "x"], "expected START-END"),
        (["--remove", "2G-1G"], "end above the start"),
        (["--remove", "0x1000-0x1800"], "whole 4K pages"),
        (["--remove", "0-8P"], "52 bits"),
        (["--remove", "-1-2"], "start of remove"),
        (["--remove", "1G-2G", "--added", "1G-1G"], "end above the start"),
        (["--remove", "1G-3G", "--added", "1G-2G"], "a part of 0x40000000-0x80000000"),
        (["--remove", "1G-1088M", "--added", "1G-1088M"], "whole memory blocks of 128M"),
        (["--remove", "1G-2G", "--granule", "8K"], "granule"),
        (["--remove", "1G-2G", "--hugepages", "2M=2M"], "--memory"),
        (["--added", "1G-2G", "--memory", "1T"], "--remove"),
        (["--input", "a.npz", "--memory", "1T"], "--remove"),
        (["--remove", "1G-2G", "--input", "missing.npz"], "missing.npz"),
        (["--remove", "1G-2G", "--input", str(CAPTURES / "6.1-4k/A.ptdump.txt")], "table image"),
        (["--remove", "1G-2G", "--added", "1G-2G", "--input", str(CAPTURES / "6.1-4k/A.npz")], "--added"),
        (["--memory", "1T", "--kernel-reserve", "some"], "kernel_reserve"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments: list[str], said: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and len(done.stderr.splitlines()) == 1
    assert said in done.stderr and "internal error" not in done.stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, "estimate", *arguments], capture_output=True, text=True, timeout=60
    )


def test_the_command_answers_alone_with_savings_and_in_an_image() -> None:
    alone = command("--remove", "0x80000000-0x88000000")
    assert alone.returncode == 0 and alone.stdout == by_arithmetic("0x80000000-0x88000000").text() + "\n"
    both = json.loads(command("--memory", "1T", "--hugepages", "2M=400G", "--remove", "1G-2G", "--json").stdout)
    assert both["frames_freed"] == 1433600 and both["removal"] == by_arithmetic("1G-2G").to_dict()
    image = str(CAPTURES / "6.1-4k" / "E1.npz")
    found = json.loads(command("--input", image, "--remove", "0x80000000-0x88000000", "--json").stdout)
    assert found["removal"]["tables"] == image and found["removal"]["splits"] is False


def test_arithmetic_refuses_what_it_was_not_told_about() -> None:
    with pytest.raises(SpecError, match="mapping is 'sets'"):
        by_arithmetic("1G-2G", mapping="sets")
