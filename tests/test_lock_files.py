"""The lock files of the programs outside the workspace, which are built with ``--locked`` and by no other test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def declared(manifest: dict[str, Any]) -> set[str]:
    """What a crate needs to be built, on whatever host: names of packages."""
    tables: list[dict[str, Any]] = [manifest, *manifest.get("target", {}).values()]
    needed: set[str] = set()
    for table in tables:
        dependencies: dict[str, str | dict[str, Any]] = table.get("dependencies", {})
        for name, value in dependencies.items():
            if isinstance(value, str):
                needed.add(name)
            elif not value.get("optional"):
                needed.add(value.get("package", name))
    return needed


@pytest.mark.parametrize("lock", ["benches/peers/Cargo.lock", "fuzz/Cargo.lock"])
def test_a_lock_file_knows_what_our_crates_need(lock: str) -> None:
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / lock).read_text())["package"]
    locked: dict[str, set[str]] = {p["name"]: {d.split()[0] for d in p.get("dependencies", [])} for p in packages}
    manifests = [tomllib.loads(path.read_text()) for path in ROOT.glob("rust/*/Cargo.toml")]
    missing = {m["package"]["name"]: declared(m) - locked.get(m["package"]["name"], declared(m)) for m in manifests}
    assert len(missing.keys() & locked.keys()) > 1, "it builds none of our crates"
    assert {name: names for name, names in missing.items() if names} == {}
