"""Kernel operations are listed once, in rust/kernel/src/operation.rs: what Python and docs/operations.md make of them.

`python tests/api/test_operations.py` writes the document.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmemmap
from vmemmap import _core
from vmemmap.lab.setup import KINDS, kinds

PACKAGE = Path(vmemmap.__file__).parent
DOCUMENT = Path(__file__).parents[2] / "docs/operations.md"

#: Name of each operation → its fields, and those that may be left out.
FIELDS = {name: {field: optional for field, _, optional in fields} for name, _, fields in _core.operations()}

#: As a document has it.
TYPES = {
    **dict.fromkeys(("u8", "u64", "i64"), "integer"),
    "bool": "boolean",
    "Pfn": "PFN",
    "Pa": "physical address",
    "Zone": '`"normal"` or `"movable"`',
    "Guard": '`"irqs-off"`, `"gup-fast"` or `"list-lock"`',
    "Option<Pfn>": "PFN or null",
    "Option<VaRange>": '`{"start": VA, "end": VA}` or null',
    "Option<PfnRange>": '`{"start": PFN, "end": PFN}` or null',
}

HEAD = """\
# Operations

What an actor of a scenario document can do, one kernel operation each: `{"op": NAME, FIELD: VALUE, ...}`. A field in
brackets may be left out. `hstate` counts the granule's hugepage sizes from the smallest; sizes are in bytes. An
operation returns a number, 0 where nothing is said, or an errno. Made from the table in `rust/kernel/src/operation.rs`.
"""


def document() -> str:
    parts = [HEAD]
    for name, about, fields in _core.operations():
        parts.append(f"\n## {name}\n\n{textwrap.fill(about, 120, break_long_words=False, break_on_hyphens=False)}\n")
        named = [
            (f"[`{field}`]" if optional else f"`{field}`", TYPES[kind.replace(" ", "")])
            for field, kind, optional in fields
        ]
        if named:
            parts.append("\n" + "".join(f"- {field}: {kind}\n" for field, kind in named))
    return "".join(parts)


def made(tree: ast.AST) -> Iterator[tuple[str, list[str] | None, int]]:
    """Operations that a module makes: name, fields if they are written out, line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(first := node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if (called == "Operation" or (called == "Block" and len(node.args) > 1)) and isinstance(first.value, str):
                fields = node.args[1] if len(node.args) > 1 else ast.Dict([], [])
                written = isinstance(fields, ast.Dict) and all(isinstance(key, ast.Constant) for key in fields.keys)
                keys = [str(key.value) for key in fields.keys] if written else None  # type: ignore[union-attr]
                yield first.value, keys, node.lineno
            elif called == "_run" and isinstance(first.value, str):
                yield first.value, None, node.lineno
        elif isinstance(node, ast.Dict):
            pairs = [(k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
            names = [v.value for k, v in pairs if k == "op" and isinstance(v, ast.Constant)]
            if names and isinstance(names[0], str):
                whole = len(pairs) == len(node.keys)
                yield names[0], [str(k) for k, _ in pairs if k != "op"] if whole else None, node.lineno


MADE = [
    (path.relative_to(PACKAGE).as_posix(), line, name, fields)
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, fields, line in made(ast.parse(path.read_text()))
]


@pytest.mark.parametrize(("place", "line", "name", "fields"), MADE, ids=[f"{m[0]}:{m[1]}" for m in MADE])
def test_what_python_makes_is_in_the_table(place: str, line: int, name: str, fields: list[str] | None) -> None:
    assert name in FIELDS, f"{place}:{line}: there is no operation {name!r}"
    if fields is not None:
        assert set(fields) <= set(FIELDS[name]), f"{place}:{line}: {name} has the fields {', '.join(FIELDS[name])}"
        needed = {field for field, optional in FIELDS[name].items() if not optional}
        assert needed <= set(fields), f"{place}:{line}: {name} needs {', '.join(needed)}"


def test_what_the_table_has_can_be_made_in_python() -> None:
    assert set(FIELDS) <= {name for _, _, name, _ in MADE}


def test_every_operation_is_of_a_kind_of_actor() -> None:
    """Else a scenario could not list it among those that are absent."""
    of_no_kind = {name for name in FIELDS if not kinds([name])}
    assert of_no_kind == {"actor_done", "kfree_rcu_work", "pool_at_rest", "set_hvo", "speculate"}
    assert all(any(name.startswith(prefix) for name in FIELDS) for prefix in KINDS)


def test_the_document_is_what_the_table_says() -> None:
    assert DOCUMENT.read_text() == document(), "run: python tests/api/test_operations.py"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
