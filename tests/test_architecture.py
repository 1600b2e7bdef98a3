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
    "explore": {"arch"},
    "litmus": {"arch", "machine"},
    "lab": {"arch", "kernel", "machine", "explore"},
    "bench": {"arch", "kernel", "machine", "explore", "lab"},
    "python": {"arch", "kernel", "machine", "image", "explore", "litmus", "lab", "bench"},
}
UNSAFE = {"rust/machine/src/native/arena.rs", "rust/explore/src/runtime/coroutine.rs", "rust/python/src/arrays.rs"}
MAX_LINES = 700
MAX_WIDTH = 120


def sources(pattern: str, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob(pattern) if "target" not in path.parts)


@pytest.fixture(scope="module")
def crates() -> dict[str, set[str]]:
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1", "--offline"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    prefix = "vmemmap-"
    return {
        package["name"].removeprefix(prefix): {
            d["name"].removeprefix(prefix)
            for d in package["dependencies"]
            if d["name"].startswith(prefix) and d["kind"] is None
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


def use_paths(tree: str) -> list[str]:
    """The paths of a use tree: `a::{b, c::{d, self}}` is a::b, a::c::d, a::c::self."""
    head, brace, body = tree.partition("{")
    if not brace:
        return [re.sub(r"\s+as\s+\w+", "", tree).strip()]
    items, depth = [""], 0
    for letter in body[: body.rindex("}")]:
        if letter == "," and depth == 0:
            items.append("")
        else:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            items[-1] += letter
    return [head.strip() + path for item in items if item.strip() for path in use_paths(item.strip())]


def module_graph(source: Path) -> dict[str, set[str]]:
    """Which module of a crate names which: by `use`, or by a path in the code. The crate's root is left out: what it
    says of others is their public name, which is followed to where it is defined.
    """
    text: dict[tuple[str, ...], str] = {}
    for path in sorted(source.rglob("*.rs")):
        name = path.relative_to(source).with_suffix("").parts
        code = re.sub(r"//[^\n]*", "", path.read_text())
        text[name[:-1] if name[-1] in {"mod", "lib"} else name] = re.sub(
            r"#\[cfg\(test\)\]\nmod .*", "", code, flags=re.DOTALL
        )
    statement = re.compile(r"(?:^|(?<=[;{}]))\s*(?:pub(?:\(\w+\))?\s+)?use\s+([^;\"]+);", re.MULTILINE)
    named = {
        module: [path for tree in statement.findall(code) for path in use_paths(" ".join(tree.split()))]
        + re.findall(r"\b(?:crate|self|super)(?:::\w+)+", statement.sub("", code))
        for module, code in text.items()
    }
    public = {path.split("::")[-1]: tuple(path.split("::")) for path in named.get((), [])}

    def target(module: tuple[str, ...], path: str) -> tuple[str, ...]:
        parts = tuple(path.split("::"))
        if parts[0] in {"self", "super"}:
            up = parts.count("super")
            absolute = module[: len(module) - up] + parts[up + parts.count("self") :]
        elif parts[0] == "crate":
            absolute = parts[1:] if parts[1:2] in text else (*public.get(parts[1], parts[1:2]), *parts[2:])
        elif (*module, parts[0]) in text:
            absolute = module + parts
        else:
            return module
        while absolute not in text:
            absolute = absolute[:-1]
        return absolute

    return {
        "::".join(module): {"::".join(target(module, path)) for path in paths} - {"::".join(module), ""}
        for module, paths in named.items()
        if module
    }


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set[str](), [start]
        while todo:
            for module in graph[todo.pop()] - seen:
                seen.add(module)
                todo.append(module)
        reach[start] = seen
    components = {frozenset({a} | {b for b in reach[a] if a in reach[b]}) for a in graph}
    return sorted((set(c) for c in components if len(c) > 1), key=sorted)


@pytest.mark.parametrize("crate", sorted(ARROWS))
def test_modules_form_no_circle(crate: str) -> None:
    assert circles(module_graph(ROOT / "rust" / crate / "src")) == []


def test_module_graph_sees_every_way_to_name_a_module(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    files = {
        "lib.rs": "mod kernel; pub mod a; pub mod b; pub mod deep; pub use kernel::Kernel;",
        "kernel.rs": "// use crate::b;",
        "a.rs": "use crate::{\n    Kernel, b::{self, Thing as Other},\n};",
        "b.rs": "fn f() { crate::deep::leaf::g() }",
        "deep/mod.rs": "mod leaf; use leaf::g;",
        "deep/leaf.rs": "use super::super::a; use super::h;",
    }
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    graph = module_graph(tmp_path)
    expected = {
        "kernel": set[str](),
        "a": {"kernel", "b"},
        "b": {"deep::leaf"},
        "deep": {"deep::leaf"},
        "deep::leaf": {"a", "deep"},
    }
    assert graph == expected
    assert circles(graph) == [{"a", "b", "deep", "deep::leaf"}]


@pytest.mark.parametrize("crate", ["arch", "kernel", "image"])
def test_crate_forbids_unsafe_code(crate: str) -> None:
    assert "#![forbid(unsafe_code)]" in (ROOT / "rust" / crate / "src/lib.rs").read_text()


@pytest.mark.parametrize("crate", ["arch", "kernel"])
def test_crate_has_no_heap(crate: str) -> None:
    text = (ROOT / "rust" / crate / "src/lib.rs").read_text()
    assert "#![no_std]" in text
    assert "extern crate alloc" not in text


def test_only_two_files_know_versions() -> None:
    """The kernel asks `k.features`; `Layout` is what else differs. (A version that is new then fails in those two.)"""
    named = re.compile(r"\bV(2021|\d+_\d+(_\d+)?)\b")
    known = {"rust/kernel/src/features.rs", "rust/arch/src/layout.rs"}
    for path in sources("*.rs", *(f"rust/{crate}/src" for crate in ARROWS)):
        code = re.sub(r"//[^\n]*", "", path.read_text())
        name = path.relative_to(ROOT).as_posix()
        assert name in known or not named.search(code), name
        if name.startswith("rust/kernel/") and name not in {*known, "rust/kernel/src/kernel.rs"}:
            assert not re.search(r"\b[vV]ersion\b", code), f"{name} asks for a version rather than for a feature"


def test_no_policy_is_met_by_a_wildcard() -> None:
    """A policy value that is new must not fall in with others unnoticed: every question about one is a match that
    names all values (clippy denies wildcards there), and a seeded fault is asked for in mutants.rs alone, by a list
    of all faults.
    """
    kernel = ROOT / "rust/kernel/src"
    assert "#![deny(clippy::wildcard_enum_match_arm)]" in (kernel / "lib.rs").read_text()
    rows = set(re.findall(r"^    \w+: (\w+) = \"", (kernel / "policy.rs").read_text(), re.MULTILINE))
    assert "Mutant" in rows and len(rows) > 15
    one_of = "|".join(rows)
    compared = re.compile(rf"[!=]=\s*(?:{one_of})::|\b(?:{one_of})::\w+\s*[!=]=|matches!\([^;]*?\b(?:{one_of})::")
    for path in sources("*.rs", "rust/kernel/src"):
        code = re.sub(r"//[^\n]*", "", path.read_text())
        if path.name != "mutants.rs":
            assert not compared.search(code), path
            assert path.name == "policy.rs" or "Mutant::" not in code, path


def test_files_have_one_subject() -> None:
    drawers = {"utils", "common", "helpers", "misc", "types", "shared"}
    for path in [*sources("*.rs", "rust"), *sources("*.py", "python", "tests", "benches")]:
        assert path.stem not in drawers, path
        assert len(path.read_text().splitlines()) <= MAX_LINES, path


def test_no_line_is_wider_than_a_screen() -> None:
    python = ("python", "tests", "benches", "examples")
    code = [*sources("*.rs", "rust", "fuzz", "benches"), *sources("*.py", *python), *sources("*.pyi", *python)]
    for path in code:
        wide = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > MAX_WIDTH]
        assert not wide, f"{path}: {wide}"
    for path in [*ROOT.glob("*.md"), *sources("*.md", "docs")]:
        # Tables cannot be broken; blocks of code are as wide as what they show.
        prose = re.sub(
            r"^ *```.*?^ *```",
            lambda block: "\n" * block[0].count("\n"),
            path.read_text(),
            flags=re.DOTALL | re.MULTILINE,
        )
        lines = enumerate(prose.splitlines(), 1)
        wide = [number for number, line in lines if len(line) > MAX_WIDTH and not line.lstrip().startswith("|")]
        assert not wide, f"{path}: {wide}"


def test_nothing_is_left_to_do() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX)\b")
    for path in [*sources("*.rs", "rust"), *sources("*.py", "python", "benches")]:
        assert not mark.search(path.read_text()), path


def test_importing_the_package_loads_no_optional_library() -> None:
    heavy = ["matplotlib", "distributed", "dask", "drgn", "pyarrow", "jinja2", "rich", "click", "pytest"]
    program = f"import sys, vmemmap; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"
