"""Kernel operations are listed once, in rust/kernel/src/operation.rs: what Python and docs/operations.md make of them.

`python tests/api/test_operations.py` writes the document.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmemmap
from vmemmap import _core
from vmemmap.lab.setup import KINDS, kinds
from vmemmap.machine.operations import run

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
operation returns the number that it says, or an errno. The kernel's own function often returns 0 where this says how
many: the number is the laboratory's. Made from the table in `rust/kernel/src/operation.rs`.
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


START, M = 0x8000_0000, 1 << 20
BLOCK, BLOCKS = {"start": START, "bytes": 128 * M}, {"start": START, "bytes": 256 * M}
DEVICE = {"start": START + 512 * M, "bytes": 4 * M}
BOOT = 0x4_0000

#: In this order, on one machine: an operation, its fields and the number that its text promises; none where it is some
#: PFN or address, which is `last` from there on.
NUMBERS: list[tuple[str, dict[str, Any], int | None]] = [
    ("memory_add", BLOCKS, 2),
    ("memory_online", BLOCKS, 2),
    ("memory_offline", BLOCKS, 2),
    ("memory_remove", BLOCK, 1),
    ("memory_add", BLOCK, 1),
    ("memory_online", BLOCKS, 2),
    ("memory_offline_and_remove", BLOCKS, 2),
    ("kfree_rcu_work", {"start": START}, 1),
    ("kfree_rcu_work", {"start": START}, 0),
    ("device_add", DEVICE, 2),
    ("device_use", {"pfn": DEVICE["start"] >> 12}, 0),
    ("device_remove", DEVICE, 2),
    ("nr_hugepages", {"hstate": 1, "count": 3}, 3),
    ("hugetlb_use", {"hstate": 1}, None),
    ("hugetlb_alloc", {"hstate": 1}, None),
    ("hugetlb_dissolve", {"at": "last"}, 1),
    ("hugetlb_dissolve", {"at": "last"}, 0),
    ("hugetlb_alloc", {"hstate": 1}, None),
    ("hugetlb_free", {"hstate": 1, "at": "last"}, None),
    ("hugetlb_alloc", {"hstate": 1}, None),
    ("alloc_contig", {"at": "last"}, None),
    ("isolate_or_dissolve", {"at": "last"}, None),
    ("page_handle_poison", {"pfn": "last"}, 1),
    ("hugetlb_get", {"hstate": 1}, None),
    ("get_huge_page_for_hwpoison", {"pfn": "last"}, 1),
    ("hugetlb_put", {"hstate": 1, "at": "last"}, None),
    ("hugetlb_alloc", {"hstate": 1}, None),
    ("memory_failure", {"pfn": "last"}, 1),
    ("memory_failure", {"pfn": "last"}, 0),
    ("stable_page_flags", {"pfn": "last"}, 1),
    ("stable_page_flags", {"pfn": BOOT}, 0),
    ("speculative_ref", {"pfn": "last"}, 0),
    ("guarded_ref", {"pfn": "last", "guard": "list-lock"}, 0),
    ("hugetlb_overcommit", {"hstate": 1, "count": 5}, 5),
    ("hugetlb_reserve", {"hstate": 1, "delta": 2}, 2),
    ("hugetlb_reserve", {"hstate": 1, "delta": -1}, 1),
    ("hugetlb_reserve", {"hstate": 1, "delta": -1}, 0),
    ("subpool_new", {"hstate": 1, "min": 1}, 1),
    ("subpool_get_pages", {"pages": 1}, 1),
    ("subpool_put", {"hstate": 1}, 0),
    ("subpool_put_pages", {"hstate": 1, "pages": 1}, 1),
    ("hugetlb_alloc", {"hstate": 2}, None),
    ("hugetlb_demote", {"hstate": 2, "count": 3}, 1),
    ("hugetlb_deferred_free", {}, 0),
    ("set_hvo", {"on": True}, 0),
    ("ptdump_check_wx", {}, 0),
    ("pfn_walk", {"start": BOOT, "end": BOOT + 8, "step": 4}, 2),
    ("kmemleak_scan", {"start": BOOT, "end": BOOT + 8}, 8),
    ("scan_movable_pages", {"start": BOOT, "end": BOOT + 8}, 8),
    ("pfn_valid", {"pfn": BOOT}, 1),
    ("pfn_valid", {"pfn": 1 << 30}, 0),
    ("page_ext_get", {"pfn": BOOT}, 1),
    ("offline_page_ext", {"start": START}, 0),
    ("cpu_online", {}, 0),
    ("actor_done", {}, 0),
    ("pool_at_rest", {"hstate": 2, "after": 1}, 0),
    ("show_pte", {"at": BOOT}, 4),
    ("ptdump_walk", {"range": {"start": 0, "end": 4096}}, 1),
    ("nr_pagetable", {}, 0),
    ("kasan_populate", {"page": 0}, 0),
    ("kasan_depopulate", {"page": 0}, 0),
    ("set_memory_valid", {"pfn": BOOT, "pages": 1, "on": True}, 0),
    ("linear_map_split_to_ptes", {"pfn": BOOT, "pages": 1}, 0),
    ("collapse_pmd_page", {"pfn": BOOT}, 1),
    ("speculate", {"pfn": BOOT}, 0),
    ("iommu_walk", {"pfn": BOOT}, 0),
    ("vmalloc_cycle", {"pages": 3}, 3),
    ("vmalloc_and_keep", {"pages": 3}, None),
]


def test_every_operation_says_which_number_it_returns_and_returns_it() -> None:
    assert {name for name, _, _ in NUMBERS} == set(FIELDS)
    said = {name: about for name, about, _ in _core.operations()}
    machine = vmemmap.Machine(granule="4K", va_bits=48, kernel="6.12", boot_memory="1G", hotplug_memory="1G", hvo=True)
    last = 0
    for place, (name, fields, number) in enumerate(NUMBERS):
        given = {key: last if value == "last" else value for key, value in fields.items()}
        returned = run(machine._core, name, **given)
        if number is None:
            assert re.search("[Rr]eturns (its head PFN|the PFN of|their address)", said[name]), name
            assert returned > BOOT, (place, name)
            last = returned
        else:
            assert returned == number, (place, name)
            always_0 = "Returns 0." in said[name]
            assert re.search("[Rr]eturns", said[name]) and (number == 0 or not always_0), name
            if not always_0:
                assert re.search(
                    r"[Rr]eturns (1 (if|with)|it\.|how many|the number|its reference|what was|`)", said[name]
                ), name


if __name__ == "__main__":
    DOCUMENT.write_text(document())
