"""``vmemmap check`` and ``vmemmap diff`` as typed: exit codes, keys, words, and input that is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vmemmap

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
B = CAPTURES / "6.1-4k" / "B.npz"


def typed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vmemmap.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def answered(*arguments: str | Path) -> tuple[int, Any]:
    done = typed(*arguments, "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def complains(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done
    for word in words:
        assert word in done.stderr


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """B with one shared tail writable."""
    shutil.copy(B.with_suffix(".json"), tmp_path / "damaged.json")
    with np.load(B) as old:
        arrays = {name: old[name].copy() for name in old.files}
    tails = np.argwhere((arrays["words"] & np.uint64(0xFFFF000000000FFF)) == np.uint64(0x00E0000000000783))
    row, index = next(
        (r, i) for r, i in tails if arrays["level"][r] == 3 and (arrays["words"][r] == arrays["words"][r][i]).sum() > 1
    )
    arrays["words"][row, index] ^= np.uint64(1 << 7)
    np.savez(tmp_path / "damaged.npz", **arrays)
    return tmp_path / "damaged.npz"


def test_a_clean_image(tmp_path: Path) -> None:
    code, found = answered("check", B)
    assert (code, found["verdict"], found["violations"]) == (0, "clean", [])
    assert list(found["invariants"]) == [f"I{n}" for n in range(1, 35)]
    assert set(found["invariants"].values()) == {"held", "not visible here"}
    assert found["counts"] == {
        "mapped_pages": 4096,
        "distinct_frames": 4040,
        "blocks": 7,
        "tables": 3,
        "optimised_hugepages": 8,
    }
    text = typed("check", B).stdout
    assert "clean: the 14 invariants that this dump can show all hold" in text and "not visible here: I1 " in text


def test_a_damaged_image(damaged: Path) -> None:
    code, found = answered("check", damaged)
    assert (code, found["verdict"], found["violations_found"]) == (1, "violated", {"I8": 1})
    (violation,) = found["violations"]
    assert set(violation) >= {"invariant", "address", "message"}
    assert found["invariants"]["I8"] == "violated"
    done = typed("check", damaged)
    assert done.returncode == 1 and f"{violation['address']:#018x}" in done.stdout
    assert vmemmap.check(damaged).to_dict() == found


def test_diff_has_the_keys_of_the_interface() -> None:
    code, d = answered("diff", CAPTURES / "6.1-4k/A.npz", B)
    assert code == 1
    integers = {"changed": 513, "tables_added": 1, "tables_removed": 0, "frames_lost": 56, "frames_gained": 0}
    assert {key: d[key] for key in integers} == integers
    assert len(d["hugepages_optimised"]) == 8 and d["hugepages_optimised"][0] == [262144, 512]
    assert (d["hugepages_restored"], d["sections_added"], d["sections_removed"]) == ([], [], [])
    assert d["blocks_split"] == [0xFFFFFC0000000000]
    printed = typed("diff", CAPTURES / "6.1-4k/A.npz", B).stdout
    assert isinstance(d["summary"], str) and d["summary"] == printed.rstrip("\n")
    assert vmemmap.diff(CAPTURES / "6.1-4k/A.npz", B).to_dict() == d


def test_diff_of_a_dump_with_itself_is_0() -> None:
    assert typed("diff", B, B).returncode == 0
    assert typed("diff", B, CAPTURES / "6.1-4k/B.ptdump.txt").returncode == 0
    assert typed("diff", CAPTURES / "6.1-4k/E0.npz", CAPTURES / "6.1-4k/E4.npz").returncode == 0


def test_what_cannot_be_compared_or_read_is_one_line(tmp_path: Path) -> None:
    complains(typed("diff", B, CAPTURES / "6.1-64k/B.npz"), "4K pages", "64K")
    complains(typed("diff", B, tmp_path / "none.npz"), "none.npz", "cannot be read")
    complains(typed("diff", B), "'B'")
    complains(typed("check", tmp_path), "cannot be read")
    complains(typed("check", B.with_suffix(".json")), "give the .npz beside it")
    complains(typed("check", B, "--kernel", "5.0"), "kernel")
    complains(typed("diff", B, B, "--memstart", "here"), "memstart")
    (tmp_path / "empty").write_bytes(b"")
    complains(typed("check", tmp_path / "empty"), "empty")
    (tmp_path / "junk.txt").write_text("---[ Linear Mapping start ]---\njunk\n")
    complains(typed("check", tmp_path / "junk.txt"), "line 2")


def test_a_text_without_a_machine_asks_for_it(tmp_path: Path) -> None:
    line = "0xfffffc0000000000-0xfffffc0000001000           4K PTE       RW NX SHD AF            UXN    MEM/NORMAL\n"
    (tmp_path / "slice.txt").write_text("---[ vmemmap start ]---\n" + line)
    done = typed("check", tmp_path / "slice.txt")
    assert done.returncode == 0 or "give the granule" in done.stderr
    assert (
        typed("check", tmp_path / "slice.txt", "--granule", "4K", "--va-bits", "48", "--kernel", "6.1").returncode == 0
    )
