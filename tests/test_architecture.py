"""The shape of the project: which crate may know which, where `unsafe` may stand, what Python imports at start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The diagram; an edge that is not drawn here is a decision, so it changes this test.
ARROWS = {
    "arch": set[str](),
    "kernel": {"arch"},
    "machine": {"arch"},
    "image": {"arch"},
    "explore": {"arch", "kernel", "machine"},
    "python": {"arch", "kernel", "machine", "image", "explore"},
}
UNSAFE = {"rust/machine/src/native/arena.rs", "rust/explore/src/coroutine.rs", "rust/python/src/arrays.rs"}
MAX_LINES = 700


def sources(pattern: str, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob(pattern) if "target" not in path.parts)


@pytest.fixture(scope="module")
def crates() -> dict[str, set[str]]:
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    prefix = "vmemmap-"
    return {
        package["name"].removeprefix(prefix): {
            d["name"].removeprefix(prefix) for d in package["dependencies"] if d["name"].startswith(prefix) and d["kind"] is None
        }
        for package in metadata["packages"]
    }


def test_crates_know_exactly_what_the_diagram_says(crates: dict[str, set[str]]) -> None:
    assert crates == ARROWS


def test_kernel_and_machine_never_see_each_other_even_in_tests() -> None:
    for crate, other in (("kernel", "machine"), ("machine", "kernel")):
        for path in sources("*.rs", f"rust/{crate}/src"):
            assert f"vmemmap_{other}" not in path.read_text(), path


def test_unsafe_stands_in_three_files() -> None:
    block = re.compile(r"\bunsafe\s*(\{|impl\b|fn\b|extern\b|trait\b)")
    found = {path.relative_to(ROOT).as_posix() for path in sources("*.rs", "rust") if block.search(path.read_text())}
    assert found <= UNSAFE


@pytest.mark.parametrize("crate", ["arch", "kernel", "image"])
def test_crate_forbids_unsafe_code(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (ROOT / "rust" / crate / "src/lib.rs").read_text()


@pytest.mark.parametrize("crate", ["arch", "kernel"])
def test_crate_has_no_heap(crate: str) -> None:
    text = (ROOT / "rust" / crate / "src/lib.rs").read_text()
    assert "#![no_std]" in text
    assert "extern crate alloc" not in text


def test_files_have_one_subject() -> None:
    drawers = {"utils", "common", "helpers", "misc", "types", "shared"}
    for path in [*sources("*.rs", "rust"), *sources("*.py", "python", "tests", "benches")]:
        assert path.stem not in drawers, path
        assert len(path.read_text().splitlines()) <= MAX_LINES, path


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b")
    for path in [*sources("*.rs", "rust"), *sources("*.py", "python", "benches")]:
        assert not mark.search(path.read_text()), path


def test_importing_the_package_loads_no_optional_library() -> None:
    heavy = ["matplotlib", "distributed", "dask", "drgn", "pyarrow", "jinja2", "rich", "click", "pytest"]
    program = f"import sys, vmemmap; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"
