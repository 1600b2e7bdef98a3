"""``vmemmap map``: tables and the kernel's text of them give the same rows; and what ``diff`` tells of them outside
vmemmap."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import vmemmap
from vmemmap import _core
from vmemmap.cli import main
from vmemmap.dumps.mapping import mapping
from vmemmap.errors import SpecError

CAPTURES = Path(__file__).parents[1] / "captures"
IMAGES = sorted(CAPTURES.glob("*/*.npz"))
LINEAR = """---[ Linear Mapping start ]---
0xffff000000000000-0xffff000000200000           2M PMD       RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED
0xffff000000200000-0xffff000000400000           2M PTE       ro NX SHD AF            UXN    MEM/NORMAL
0xffff000000400000-0xffff000040000000        1020M PMD       RW NX SHD AF    {} BLK UXN    MEM/NORMAL-TAGGED
0xffff000040000000-0xffff000080000000           1G PUD       RW NX SHD AF        BLK UXN    MEM/NORMAL-TAGGED
0xffff000080000000-0xffff800000000000      131070G PGD
---[ Linear Mapping end ]---
"""


@pytest.mark.parametrize("path", IMAGES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_tables_and_their_text_are_mapped_alike(path: Path) -> None:
    tables, text = mapping(path), mapping(path.with_suffix(".ptdump.txt"))
    # A text does not tell 7.x from 6.12: the layout is that of 6.9 and later.
    assert tables.rows == text.rows and re.sub(r"7\.\d$", "6.12", tables.machine) == text.machine
    shape = _core.Shape.of_text(path.with_suffix(".ptdump.txt").read_bytes())
    mapped = sum(row.bytes for row in tables.rows if row.region == "vmemmap")
    assert mapped == shape.counts()[0] * shape.granule
    assert all(row["bytes"] % (row["leaf"] or 1) == 0 for row in tables.to_json())


def test_a_slice_is_mapped_by_its_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text(LINEAR.format("   "))
    rows = [(row.region, row.level, row.contiguous, row.bytes, row.kind) for row in mapping(a).rows]
    assert rows == [
        ("linear map", 1, False, 1 << 30, "1G blocks"),
        ("linear map", 2, False, 1022 << 20, "2M blocks"),
        ("linear map", 3, False, 2 << 20, "4K pages"),
    ]
    assert main(["map", str(a), "--json"]) == 0
    assert {"region", "level", "contiguous", "bytes"} <= json.loads(capsys.readouterr().out)[0].keys()
    assert main(["map", str(a)]) == 0 and "49.951%" not in capsys.readouterr().err
    b.write_text(LINEAR.replace("PMD       RW NX SHD AF    {} BLK", "PTE       RW NX SHD AF           ").format(""))
    assert main(["diff", str(a), str(b)]) == 1
    told = capsys.readouterr().out
    assert (
        "linear map, in 2M blocks: 1022M became 2M (-1020M)" in told and "in 4K pages: 2M became 1022M (+1020M)" in told
    )
    assert main(["diff", str(a), str(a)]) == 0
    assert "mapped as before" in capsys.readouterr().out


def test_diff_tells_what_changed_outside_vmemmap() -> None:
    found = vmemmap.diff(CAPTURES / "6.1-4k/E0.npz", CAPTURES / "6.1-4k/E1.npz")
    assert ("linear map", "4K pages", 1 << 30, 5 << 28) in found.mappings
    assert "linear map, in 4K pages: 1G became 1.25G (+256M)" in found.summary


def test_what_a_slice_leaves_out_is_not_told_as_unmapped(tmp_path: Path) -> None:
    image = CAPTURES / "6.1-4k" / "E2.npz"
    whole = image.with_suffix(".ptdump.txt")
    lines = whole.read_text().splitlines(keepends=True)
    slices: dict[str, Path] = {}
    for region, begin in (("vmemmap", "start"), ("Linear Mapping", "start"), ("vmalloc()", "area")):
        first, last = (lines.index(f"---[ {region} {edge} ]---\n") for edge in (begin, "end"))
        slices[region] = tmp_path / f"{region}.txt"
        slices[region].write_text("".join(lines[first : last + 1]))
    for a, b in [(slices["vmemmap"], whole), (whole, slices["vmemmap"]), (slices["vmemmap"], image)]:
        found = vmemmap.diff(a, b)
        assert not found and not found.mappings, found.summary
    with pytest.raises(SpecError, match="no region in common"):
        vmemmap.diff(slices["Linear Mapping"], slices["vmalloc()"])


@pytest.mark.parametrize("options", [("--granule", "16K"), ("--va-bits", "39"), ("--kernel", "6.12")])
def test_a_text_that_tells_its_machine_is_not_read_as_another(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["map", str(CAPTURES / "6.1-4k" / "E2.ptdump.txt"), *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
